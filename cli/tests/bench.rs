//! `duet bench` on both engines with a model of a few kilobytes: what only real engines can show.

use std::path::{Path, PathBuf};
use std::process::Command;

use duet_bench::Report;
use duet_bench::sweep::Sweep;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// Runs `duet bench`, which has to exit with 0; what it prints.
#[track_caller]
fn bench(model: &str, words: &[&str], out: &Path, form: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duet"));
    command.arg("bench").arg(fixture(model)).args(words).args(["--blocks", "3", "--decode", "4"]);
    let output = command.args(["--threads", "1", form]).arg(out).output().unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{said}", output.status);
    // Lines are broken at the terminal's width.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_engine_s_library_is_measured_in_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report.json");
    let words = ["--prompt", "16", "--agreement", "64", "--scenario", "load", "--self-blocks", "0"];
    let text = bench("tiny-llama.gguf", &words, &out, "--json");
    let report = Report::read(&out).unwrap();
    for (arm, operation) in report.arms.iter().zip(["ggml_mul_mat, ", "matmul, "]) {
        let rates = arm.loaded.as_ref().unwrap().library.as_ref().unwrap();
        assert!(rates.stream.contains(operation) && rates.gemm.contains(operation), "{rates:?}");
        for rate in [rates.stream_bytes_per_second, rates.gemm_flops_per_second] {
            assert!(rate.is_finite() && rate > 0.0, "{rates:?}");
        }
        let memory = arm.memory.as_ref().unwrap();
        let predicted = memory.predicted.unwrap();
        assert!(predicted.weights_bytes > 0 && predicted.step_kv_bytes > 0, "{predicted:?}");
        assert!(!text.contains("unexplained memory"), "{text}");
    }
    assert!(report.is_complete() && text.contains(" that its library reaches with 16 rows alone"), "{text}");
    let started = report.scenarios.iter().flat_map(|scenario| &scenario.comparisons);
    let figures: Vec<&str> = started.map(|found| found.figure.as_str()).collect();
    assert_eq!(figures, ["loaded after", "first token after", "process to first token"]);
}

#[test]
fn depths_are_processes_of_their_own_and_one_page() {
    let dir = tempfile::tempdir().unwrap();
    let (json, html) = (dir.path().join("sweep.json"), dir.path().join("sweep.html"));
    let text = bench("tiny-llama.gguf", &["--depths", "8,32", "--agreement", "0"], &json, "--json");
    assert!(text.contains("depth 8 to 12") && text.contains("for each token in the cache"), "{text}");
    let sweep = Sweep::read(&json).unwrap();
    assert_eq!(sweep.reports.iter().map(|report| report.plan.n_prompt).collect::<Vec<_>>(), [8, 32]);
    let shown = Command::new(env!("CARGO_BIN_EXE_duet"))
        .args(["bench", "show"])
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let again = String::from_utf8_lossy(&shown.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(again, text);
    assert!(std::fs::read_to_string(&html).unwrap().contains("Decode steps per second over depth"));
}
