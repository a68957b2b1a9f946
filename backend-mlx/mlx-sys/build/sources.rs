//! Where the sources of mlx-c lie, and which MLX they are written for.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with mlx-c's CMakeLists.txt.
pub fn mlx_c(root: &Path) -> PathBuf {
    println!("cargo::rerun-if-env-changed=MLX_C_DIR");
    if let Some(folder) = env::var_os("MLX_C_DIR") {
        return folder.into();
    }
    let manifest = root.join("../upstream/Cargo.toml");
    println!("cargo::rerun-if-changed={}", manifest.display());
    println!("cargo::rerun-if-changed={}", manifest.with_file_name("Cargo.lock").display());
    let cargo = env::var_os("CARGO").expect("cargo sets it");
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version=1", "--filter-platform"])
        // Crates for other platforms need not be on this machine.
        .arg(env::var_os("HOST").expect("cargo sets it"))
        .arg("--manifest-path")
        .arg(&manifest)
        .output()
        .expect("cargo runs");
    if !output.status.success() {
        super::fail(&format!(
            "the published mlx-sys could not be fetched: {}",
            String::from_utf8_lossy(&output.stderr).trim().replace('\n', " / ")
        ));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "mlx-sys")
        .and_then(|package| package["manifest_path"].as_str())
        .map(|manifest| Path::new(manifest).with_file_name("src").join("mlx-c"))
        .expect("../upstream depends on mlx-sys")
}

/// The MLX release that mlx-c's CMakeLists.txt asks for, like `0.32.2`.
pub fn mlx_version(mlx_c: &Path) -> String {
    let cmake = mlx_c.join("CMakeLists.txt");
    fs::read_to_string(&cmake)
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| Some(line.trim().strip_prefix("GIT_TAG v")?.trim_end_matches(')').to_owned()))
        })
        .unwrap_or_else(|| super::fail(&format!("{} names no MLX release", cmake.display())))
}
