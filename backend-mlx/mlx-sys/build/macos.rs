//! MLX from source through mlx-c's own CMake, as the published package does it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds MLX and mlx-c and links them statically with the frameworks that the chosen features need.
pub fn build(mlx_c: &Path) {
    println!("cargo::rerun-if-env-changed=MLX_RS_METAL_PATH");
    let (metal, jit, accelerate) = (feature("METAL"), feature("METAL_JIT"), feature("ACCELERATE"));
    let switch = |on: bool| if on { "ON" } else { "OFF" };
    let mut cmake = cmake::Config::new(mlx_c);
    cmake
        .define("CMAKE_INSTALL_PREFIX", ".")
        // Xcode's compilers, which match its SDK.
        .define("CMAKE_C_COMPILER", "/usr/bin/cc")
        .define("CMAKE_CXX_COMPILER", "/usr/bin/c++")
        .define("CMAKE_BUILD_TYPE", "Release")
        .define("MLX_C_BUILD_EXAMPLES", "OFF")
        .define("MLX_BUILD_METAL", switch(metal))
        .define("MLX_METAL_JIT", switch(jit))
        .define("MLX_BUILD_ACCELERATE", switch(accelerate));
    let metallib = metallib_folder(jit);
    if metal {
        fs::create_dir_all(&metallib)
            .unwrap_or_else(|error| super::fail(&format!("no folder {}: {error}", metallib.display())));
        cmake.define("MLX_METAL_PATH", &metallib);
    }
    let build = cmake.build().join("build");

    for folder in ["lib", "_deps/mlx-build/mlx/io", "jaccl"] {
        println!("cargo::rustc-link-search=native={}", build.join(folder).display());
    }
    for library in libraries(mlx_c) {
        if library != "jaccl" || build.join("jaccl/libjaccl.a").is_file() {
            println!("cargo::rustc-link-lib=static={library}");
        }
    }
    println!("cargo::rustc-link-lib=c++");
    println!("cargo::rustc-link-lib=dylib=objc");
    println!("cargo::rustc-link-lib=framework=Foundation");
    if metal {
        println!("cargo::rustc-link-lib=framework=Metal");
        let library = metallib.join("mlx.metallib");
        if !library.exists() {
            println!("cargo::warning={} was not made; Metal operations may fail", library.display());
        }
    }
    if accelerate {
        println!("cargo::rustc-link-lib=framework=Accelerate");
    }
    // ___isPlatformVersionAtLeast, which an older bundled runtime lacks on macOS 26.
    if let Some(folder) = clang_runtime() {
        println!("cargo::rustc-link-search={}", folder.display());
        println!("cargo::rustc-link-lib=static=clang_rt.osx");
    }

    let dependencies = build.join("_deps");
    let mut include = vec![dependencies.join("mlx-src")];
    if metal {
        include.push(dependencies.join("metal_cpp-src"));
    }
    include.push(mlx_c.to_owned());
    let include = env::join_paths(include).expect("paths without a colon");
    println!("cargo::metadata=include={}", include.display());
    println!("cargo::metadata=defines=MLX_STATIC");
}

fn feature(name: &str) -> bool {
    env::var_os(format!("CARGO_FEATURE_{name}")).is_some()
}

/// Where the compiled Metal kernels go: a folder that outlives the build, since the program loads them from there.
fn metallib_folder(jit: bool) -> PathBuf {
    if let Some(folder) = env::var_os("MLX_RS_METAL_PATH") {
        return folder.into();
    }
    let home = env::var_os("HOME").unwrap_or_else(|| super::fail("HOME or MLX_RS_METAL_PATH must be set"));
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let name = format!("duet-{version}{}", if jit { "-jit" } else { "" });
    Path::new(&home).join(".mlx").join("lib").join(name)
}

/// The static libraries of upstream's build, as its package lists them.
fn libraries(mlx_c: &Path) -> Vec<String> {
    let list = mlx_c.join("../../native-libraries.txt");
    fs::read_to_string(&list)
        .unwrap_or_else(|error| super::fail(&format!("no list {}: {error}", list.display())))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The folder of Xcode's clang runtime, where Xcode is installed.
fn clang_runtime() -> Option<PathBuf> {
    let output = Command::new("xcode-select").arg("--print-path").output().ok()?;
    let xcode = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    fs::read_dir(xcode.join("Toolchains/XcodeDefault.xctoolchain/usr/lib/clang"))
        .ok()?
        .flatten()
        .map(|version| version.path().join("lib/darwin"))
        .find(|folder| folder.join("libclang_rt.osx.a").is_file())
}
