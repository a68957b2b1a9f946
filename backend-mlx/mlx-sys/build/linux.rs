//! mlx-c over the `libmlx.so` of a wheel.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles mlx-c and native/ into one archive and links it with libmlx and OpenBLAS.
pub fn build(root: &Path, mlx_c: &Path) {
    let tools = root.join("../../.tools");
    let mlx = super::folder("MLX_DIR", &tools.join("mlx-cpu/mlx"), "lib/libmlx.so");
    let blas = super::folder("OPENBLAS_DIR", &tools.join("openblas/scipy_openblas32"), "lib/libscipy_openblas.so");
    let (mlx, blas) = (absolute(&mlx), absolute(&blas));

    let include = mlx.join("include");
    let mut sources: Vec<PathBuf> = fs::read_dir(mlx_c.join("mlx/c"))
        .expect("mlx-c has sources")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .collect();
    sources.sort();
    let native = root.join("native");
    let own = [
        "adopt",
        "half",
        "clock",
        "blas",
        "kernels/attention",
        "kernels/elementwise",
        "kernels/operations",
        "kernels/pool",
        "kernels/product",
    ];
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .pic(true)
        // Warnings in code that is not ours help nobody.
        .warnings(false)
        // Vectors are handed over in inlined functions only, so that how they would be passed does not matter.
        .flag_if_supported("-Wno-psabi")
        .flag("-include")
        .flag(native.join("format.h").to_string_lossy().as_ref())
        .include(mlx_c)
        .flag("-isystem")
        .flag(include.to_string_lossy().as_ref())
        .files(sources)
        .files(own.map(|name| native.join(name).with_extension("cpp")))
        .cargo_metadata(false)
        .compile("duet_mlxc");

    let out = env::var("OUT_DIR").expect("cargo sets it");
    println!("cargo::rustc-link-search=native={out}");
    println!("cargo::rustc-link-search=native={}", mlx.join("lib").display());
    println!("cargo::rustc-link-search=native={}", blas.join("lib").display());
    // Whole: nothing in this crate refers to the clock or the BLAS entry points, so the linker would drop them before
    // mach-sys and libmlx ask for them.
    println!("cargo::rustc-link-lib=static:+whole-archive=duet_mlxc");
    println!("cargo::rustc-link-lib=dylib=mlx");
    println!("cargo::rustc-link-lib=dylib=scipy_openblas");
    println!("cargo::rustc-link-lib=dylib=stdc++");

    // For dependents that extend MLX in C++, under upstream's names, and for those that link a program: an rpath given here
    // would not reach it, so ../../build.rs and cli/build.rs pass these folders on.
    let include = env::join_paths([include.as_path(), mlx_c]).expect("paths without a colon");
    println!("cargo::metadata=include={}", include.display());
    println!("cargo::metadata=defines=");
    let libraries = env::join_paths([mlx.join("lib"), blas.join("lib")]).expect("paths without a colon");
    println!("cargo::metadata=libraries={}", libraries.display());
}

/// What libclang needs to read mlx-c's headers on Linux.
pub fn bindgen_args() -> Vec<String> {
    // mlx-c defines half types on Arm alone, from a header that GCC and clang spell differently: skipped here, and declared
    // for every machine in src/half.rs.
    let mut arguments = vec!["-DMLX_HALF_H".to_owned()];
    // A libclang without its own headers (as wheels ship it) lacks stddef.h and stdbool.h; the compiler at hand has them.
    let compiler = cc::Build::new().get_compiler();
    let found = Command::new(compiler.path()).arg("-print-file-name=include").output();
    if let Some(folder) = found.ok().and_then(|output| String::from_utf8(output.stdout).ok()) {
        arguments.push("-idirafter".to_owned());
        arguments.push(folder.trim().to_owned());
    }
    arguments
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().expect("the folder was just seen")
}
