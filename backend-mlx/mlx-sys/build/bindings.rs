//! The Rust side of mlx-c's headers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes `bindings.rs` for every public header of mlx-c.
pub fn write(mlx_c: &Path, arguments: Vec<String>) {
    let mut headers: Vec<PathBuf> = fs::read_dir(mlx_c.join("mlx/c"))
        .expect("mlx-c has headers")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "h"))
        .collect();
    headers.sort();
    let builder = bindgen::Builder::default()
        .rust_target("1.82.0".parse().expect("a version"))
        .clang_arg(format!("-I{}", mlx_c.display()))
        .clang_args(arguments)
        // Their sizes differ from what rustc expects of the symbols.
        .blocklist_function("malloc")
        .blocklist_function("realloc")
        .layout_tests(false);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    headers
        .iter()
        .fold(builder, |builder, header| builder.header(header.to_string_lossy()))
        .generate()
        .unwrap_or_else(|error| super::fail(&format!("no bindings for mlx-c: {error}")))
        .write_to_file(out.join("bindings.rs"))
        .expect("OUT_DIR is writable");
}
