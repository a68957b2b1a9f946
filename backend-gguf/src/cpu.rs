//! Which kernels were compiled in, as llama.cpp tells, and which ones this machine could have had.

/// "CPU: AVX512", "CPU: REPACK", … out of `llama_print_system_info`: what is on, "key = value" for other values.
pub(crate) fn features(system_info: &str) -> Vec<String> {
    let mut backend = "";
    let mut features = Vec::new();
    for part in system_info.split('|').map(str::trim).filter(|part| !part.is_empty()) {
        let entry = match part.split_once(" : ") {
            Some((name, entry)) => {
                backend = name.trim();
                entry
            }
            None => part,
        };
        match entry.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, "1")) => features.push(format!("{backend}: {key}")),
            Some((_, "0")) | None => {}
            Some((key, value)) => features.push(format!("{backend}: {key} = {value}")),
        }
    }
    features
}

/// A line for each instruction set that this CPU has and the build lacks, because the build did not know the machine.
pub(crate) fn missing(system_info: &str) -> Option<String> {
    lacking(system_info, &of_this_cpu())
}

fn lacking(system_info: &str, of_this_cpu: &[&str]) -> Option<String> {
    let compiled = features(system_info);
    let lacking: Vec<&str> =
        of_this_cpu.iter().filter(|&&name| !compiled.contains(&format!("CPU: {name}"))).copied().collect();
    (!lacking.is_empty()).then(|| {
        format!(
            "llama.cpp was built without {} of this CPU and is slower than it could be; build with -C target-cpu=native",
            lacking.join(", ")
        )
    })
}

/// Instruction sets that ggml has kernels for, by its own names.
#[cfg(target_arch = "x86_64")]
fn of_this_cpu() -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! check {
        ($($feature:tt => $name:literal),*) => {
            $(if std::arch::is_x86_feature_detected!($feature) { names.push($name); })*
        };
    }
    check!(
        "avx2" => "AVX2", "fma" => "FMA", "f16c" => "F16C", "avx512f" => "AVX512", "avx512vbmi" => "AVX512_VBMI",
        "avx512vnni" => "AVX512_VNNI", "avx512bf16" => "AVX512_BF16"
    );
    names
}

/// Instruction sets that ggml has kernels for, by its own names.
#[cfg(target_arch = "aarch64")]
fn of_this_cpu() -> Vec<&'static str> {
    let mut names = Vec::new();
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        names.push("DOTPROD");
    }
    if std::arch::is_aarch64_feature_detected!("i8mm") {
        names.push("MATMUL_INT8");
    }
    names
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn of_this_cpu() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str =
        "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX = 1 | AVX512 = 0 | OPENMP = 1 | ";

    #[test]
    fn features_carry_their_backend() {
        assert_eq!(
            features(INFO),
            ["CUDA: ARCHS = 900", "CUDA: USE_GRAPHS", "CPU: SSE3", "CPU: AVX", "CPU: OPENMP"]
        );
        assert!(features("").is_empty());
        assert!(features("nonsense | = | CPU :").iter().all(|feature| !feature.contains("nonsense")));
    }

    #[test]
    fn a_build_below_the_cpu_is_noticed() {
        assert_eq!(lacking(INFO, &["AVX"]), None);
        let line = lacking(INFO, &["AVX", "AVX2", "AVX512"]).unwrap();
        assert!(line.contains("AVX2, AVX512"), "{line}");
    }

    #[test]
    fn this_build_is_for_this_cpu() {
        assert_eq!(missing(&crate::raw::library().system_info), None);
    }
}
