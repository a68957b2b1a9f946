//! Tells programs where the native libraries of MLX lie.
//!
//! A dependency's rpath does not reach the program that links it. So this script sets it for the tests and examples of this
//! crate and hands the folders on, as `DEP_DUET_BACKEND_MLX_LIBRARIES`, to build scripts like `cli/build.rs`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(version) = env::var("DEP_MLX_VERSION") {
        println!("cargo::rustc-env=DUET_MLX_VERSION={version}");
    }
    // Set on Linux with feature `mlx`; on macOS everything is linked statically.
    let Some(libraries) = env::var_os("DEP_MLX_LIBRARIES") else {
        return;
    };
    for folder in env::split_paths(&libraries) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
    println!("cargo::metadata=libraries={}", libraries.display());
}
