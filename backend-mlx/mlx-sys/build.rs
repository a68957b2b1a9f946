//! Builds mlx-c and its Rust bindings.
//!
//! Linux: mlx-c against the headers and `libmlx.so` of the unpacked `mlx-cpu` wheel, together with native/ (what mlx-c lacks
//! there, and OpenBLAS in front of the wheel's reference BLAS). macOS: upstream's way, MLX from source by mlx-c's CMake.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `MLX_DIR` | the wheel's `mlx` folder (Linux) | `.tools/mlx-cpu/mlx` of the checkout |
//! | `OPENBLAS_DIR` | the `scipy_openblas32` folder of that wheel (Linux) | `.tools/openblas/scipy_openblas32` |
//! | `MLX_C_DIR` | the sources of mlx-c | those of the package that `../upstream` locks |

use std::env;
use std::path::{Path, PathBuf};

#[path = "build/bindings.rs"]
mod bindings;
#[path = "build/linux.rs"]
mod linux;
#[path = "build/macos.rs"]
mod macos;
#[path = "build/sources.rs"]
mod sources;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=native");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mlx_c = sources::mlx_c(&root);
    println!("cargo::metadata=version={}", sources::mlx_version(&mlx_c));
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            linux::build(&root, &mlx_c);
            bindings::write(&mlx_c, linux::bindgen_args());
        }
        Ok("macos") => {
            macos::build(&mlx_c);
            bindings::write(&mlx_c, Vec::new());
        }
        other => fail(&format!("MLX is built on Linux and macOS only, not on {other:?}")),
    }
}

/// Ends the build with one line a newcomer can act on.
fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}

/// The folder that `variable` names, or `default`; it must hold `witness`.
fn folder(variable: &str, default: &Path, witness: &str) -> PathBuf {
    println!("cargo::rerun-if-env-changed={variable}");
    let folder = env::var_os(variable).map_or_else(|| default.to_owned(), PathBuf::from);
    if !folder.join(witness).exists() {
        fail(&format!(
            "{} is missing: run `make setup`, or name its folder by {variable}",
            folder.join(witness).display()
        ));
    }
    folder
}
