//! `duet engines`.

use std::fmt::Write as _;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use duet_core::BackendInfo;

#[derive(Debug, Args)]
pub(crate) struct EnginesArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn engines(arguments: &EnginesArguments) -> anyhow::Result<u8> {
    let infos: Vec<BackendInfo> =
        crate::compose::registry().backends().iter().map(|backend| backend.info()).collect();
    let text = if arguments.json { json(&infos)? } else { table(&infos) };
    crate::run::print(&format!("{text}\n"))?;
    Ok(0)
}

fn table(infos: &[BackendInfo]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["engine", "version", "devices", "compiled in and active", "library"]);
    for info in infos {
        let mut devices = String::new();
        for device in &info.devices {
            let _ = write!(devices, "{}: {}", device.name, device.description);
            if let Some(bytes) = device.total_bytes {
                let _ = write!(devices, ", {:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
            }
            devices.push('\n');
        }
        table.add_row([
            info.id,
            &format!("{} {}", info.library, info.version),
            devices.trim_end(),
            &info.features.join("\n"),
            &info.library_path,
        ]);
    }
    table.to_string()
}

fn json(infos: &[BackendInfo]) -> anyhow::Result<String> {
    let engines: Vec<serde_json::Value> = infos
        .iter()
        .map(|info| {
            let devices: Vec<_> = info
                .devices
                .iter()
                .map(|device| {
                    serde_json::json!({
                        "name": device.name, "description": device.description,
                        "total_bytes": device.total_bytes, "free_bytes": device.free_bytes,
                    })
                })
                .collect();
            serde_json::json!({
                "id": info.id, "library": info.library, "version": info.version, "devices": devices,
                "features": info.features, "library_path": info.library_path,
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&engines)?)
}
