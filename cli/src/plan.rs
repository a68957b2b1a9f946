//! `duet plan`: memory and ceilings of a model from its headers.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use duet_bench::forecast::{ForecastRequest, forecast};
use duet_bench::{Machine, roofline};
use duet_core::model::inspect;

use crate::model::LoadArguments;
use crate::run::print;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 if an engine can run it within the memory, 1 if none can.")]
pub(crate) struct PlanArguments {
    /// A .gguf file or an MLX directory
    model: PathBuf,
    /// Longest request in tokens, prompt and answer [default: what the model was trained for]
    #[arg(long, value_name = "TOKENS")]
    context: Option<u64>,
    /// Requests at the same time, each as long as that
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Type of the KV cache's elements [default: each engine's own]
    #[arg(long, value_parser = ["f16", "f32", "q8_0"])]
    kv_type: Option<String>,
    /// Memory that may be used, in GB [default: what is free now]
    #[arg(long, value_name = "GB")]
    memory: Option<f64>,
    /// How fast memory can be read, in GB/s [default: measured, for the CPU]
    #[arg(long, value_name = "GB/S")]
    bandwidth: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the probe of the bandwidth reads.
const PROBE_BYTES: u64 = 512 << 20;

pub(crate) fn plan(arguments: &PlanArguments) -> anyhow::Result<u8> {
    let info = inspect(&arguments.model)
        .with_context(|| format!("cannot read the model {}", arguments.model.display()))?;
    let machine = Machine::this();
    let request = ForecastRequest {
        context: arguments.context.unwrap_or_else(|| u64::from(info.context_length.max(1))),
        n_sequences: arguments.concurrency,
        kv_type: LoadArguments::of_kind("auto", arguments.kv_type.as_deref()).kv_type(),
        prefill_chunk: 512,
        available_bytes: match arguments.memory {
            Some(gb) => (gb * 1e9) as u64,
            None => Machine::available_bytes(),
        },
        bytes_per_second: match arguments.bandwidth {
            Some(gb) => Some(gb * 1e9),
            None => roofline::read_rate(PROBE_BYTES, machine.n_cores.unwrap_or(machine.n_threads)),
        },
    };
    let found = forecast(&crate::compose::registry(), &info, request);
    let shown = match arguments.json {
        true => serde_json::to_string_pretty(&found)?,
        false => found.to_text(),
    };
    print(&format!("{shown}\n"))?;
    Ok(if found.fits() { 0 } else { 1 })
}
