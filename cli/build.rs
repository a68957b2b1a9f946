//! Lets the program find the native libraries of MLX where they were at build time.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Set on Linux with feature `mlx`.
    let Some(libraries) = env::var_os("DEP_DUET_BACKEND_MLX_LIBRARIES") else {
        return;
    };
    // RUNPATH and not RPATH, so that LD_LIBRARY_PATH outranks it: that is how one program runs on the CUDA build of libmlx.
    // The folder beside the program serves an installed copy.
    println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags,-rpath,$ORIGIN/../lib/duet");
    for folder in env::split_paths(&libraries) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}
