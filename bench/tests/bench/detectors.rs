//! Every detector on its planted fault, and on nothing else.

use std::collections::BTreeMap;

use duet_bench::order::Side;
use duet_bench::report::{ArmReport, Metric};
use duet_bench::stats::verdict::Verdict;
use duet_bench::validity::{Code, Finding};
use serde_json::json;

use crate::synthetic::{Comparison, Fault, Law};

/// Simulated runs per fault.
const N: u64 = 200;

/// In how many of `N` runs a code may be found that is not the fault's. Those that rest on tests of times fire by chance:
/// the strict ones in one run in a hundred at most (twice that for a count out of 200), and `AA_BIAS`, whose level is 5 % over
/// all figures, in one in twenty. A noisy drift may be read as a jump and the other way round: either takes the figure out.
fn by_chance(code: Code, fault: Fault) -> u64 {
    match code {
        Code::Trend | Code::Changepoint if matches!(fault, Fault::ArmDrifts | Fault::ArmJumps) => N / 10,
        Code::Trend | Code::Changepoint | Code::Carryover => N / 50,
        Code::AaBias => N / 20,
        _ => 0,
    }
}

const CLEAN: Comparison =
    Comparison { law: Law::Normal, true_log: 0.1, n_blocks: 12, n_aa: 0, fault: Fault::None };

/// In how many of `N` runs each code was found.
fn codes(comparison: Comparison, arms: &[ArmReport]) -> BTreeMap<Code, u64> {
    let mut counts = BTreeMap::new();
    for seed in 0..N {
        let mut found: Vec<Code> =
            comparison.analysed(seed, arms).findings.iter().map(|finding| finding.code).collect();
        found.sort_unstable();
        found.dedup();
        for code in found {
            *counts.entry(code).or_default() += 1;
        }
    }
    counts
}

#[track_caller]
fn check(comparison: Comparison, arms: &[ArmReport], expected: Option<Code>) {
    let mut counts = codes(comparison, arms);
    if let Some(code) = expected {
        let n = counts.remove(&code).unwrap_or(0);
        let least = if by_chance(code, Fault::None) > 0 { N * 95 / 100 } else { N };
        assert!(n >= least, "{code} in {n} of {N} runs with {:?}", comparison.fault);
    }
    for (code, n) in counts {
        let most = by_chance(code, comparison.fault);
        assert!(n <= most, "{code} in {n} of {N} runs with {:?}, {:?}", comparison.fault, comparison.law);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a minute without optimisation; `make test` has it")]
fn each_fault_has_its_code() {
    let faults = [
        (Fault::ArmDrifts, Code::Trend),
        (Fault::ArmJumps, Code::Changepoint),
        (Fault::MachineJumps, Code::Changepoint),
        (Fault::Carryover, Code::Carryover),
        (Fault::Clock, Code::Clock),
        (Fault::Battery, Code::Power),
        (Fault::Swapping, Code::Swap),
        (Fault::Contention, Code::Contention),
        (Fault::CacheHit, Code::CacheHit),
        (Fault::TooFewTokens, Code::Tokens),
        (Fault::EarlyEos, Code::EarlyEos),
        (Fault::NoSteady, Code::NoSteady),
        (Fault::OtherIds, Code::Ids),
    ];
    for (fault, code) in faults {
        check(Comparison { fault, ..CLEAN }, &[], Some(code));
    }
}

#[test]
fn an_engine_that_differs_from_itself() {
    let comparison = Comparison { fault: Fault::SelfDiffers, n_aa: 6, ..CLEAN };
    check(comparison, &[], Some(Code::AaBias));
    let invalid = comparison.analysed(1, &[]).comparisons;
    assert!(invalid.iter().all(|found| found.verdict == Verdict::Invalid { codes: vec!["AA_BIAS".into()] }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a minute without optimisation; `make test` has it")]
fn nothing_is_found_in_clean_noise_of_any_law() {
    for law in [
        Law::Normal,
        Law::Unequal,
        Law::Laplace,
        Law::Autoregressive,
        Law::LinearDrift,
        Law::RandomWalk,
        Law::Wave,
        Law::StudentT3,
        Law::SymmetricOutliers,
        Law::Spikes,
        Law::Exponential,
    ] {
        check(Comparison { law, ..CLEAN }, &[], None);
        check(Comparison { law, n_aa: 4, ..CLEAN }, &[], None);
    }
}

/// An arm as a run reports it, with these values merged into it.
fn arm(side: &str, other: serde_json::Value) -> ArmReport {
    let mut value = json!({
        "side": side, "label": side,
        "engine": {"id": "e", "library": "l", "version": "1", "devices": [], "features": [], "library_path": "",
                   "reason": ""},
        "model": {"format": "gguf", "name": null, "architecture": "llama", "n_params": 1, "quantization": "F16",
                  "bits_per_weight": 16.0, "files": []},
        "loaded": {"backend": "e", "device": "CPU", "weights": "", "weight_bytes_per_token": 100_000_000,
                   "memory_bytes_per_second": 1.2e10, "kv_type": "f16", "notes": [], "load_ns": 1,
                   "context_length": 1, "max_step_tokens": 1, "steps_in_flight": 1, "greedy_on_device": false},
        "memory": {"predicted_kv_bytes": 1_000_000, "process_load": null, "process_warm": null,
                   "engine": {"weights_bytes": null, "kv_bytes": 1_010_000, "compute_bytes": null, "peak_bytes": null}},
        "warm_up": null, "summaries": [], "failure": null,
    });
    merge(&mut value, other);
    serde_json::from_value(value).expect("an arm")
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[test]
fn arms_that_are_not_what_was_said() {
    let good = || vec![arm("A", json!({})), arm("B", json!({}))];
    check(CLEAN, &good(), None);
    let faults = [
        (json!({"loaded": {"backend": "other"}}), Code::Arm),
        (json!({"memory": {"engine": {"kv_bytes": 1_030_000}}}), Code::Kv),
        // A step takes 10 ms: 10 GB/s.
        (json!({"loaded": {"memory_bytes_per_second": 6e9}}), Code::Ceiling),
        (json!({"failure": {"during": "x", "error": "NaN", "code": "NON_FINITE"}}), Code::NonFinite),
    ];
    for (fault, code) in faults {
        let arms = [arm("A", json!({})), arm("B", fault)];
        check(CLEAN, &arms, Some(code));
        let analysis = CLEAN.analysed(3, &arms);
        let finding = &analysis.findings[0];
        assert_eq!((finding.arm, finding.blocks.is_empty()), (Some(Side::B), true));
        for found in analysis.comparisons.iter().filter(|found| finding.metrics.contains(&found.metric)) {
            assert_eq!(found.verdict, Verdict::Invalid { codes: vec![code.name().to_owned()] });
        }
    }
}

#[test]
fn a_void_block_is_out_of_the_verdict_and_said() {
    let comparison = Comparison { fault: Fault::CacheHit, ..CLEAN };
    let analysis = comparison.analysed(5, &[]);
    for found in &analysis.comparisons {
        let engine_level = matches!(found.metric, Metric::Ttft | Metric::DecodeNative);
        assert_eq!(found.n_void, usize::from(engine_level), "{:?}", found.metric);
        assert_eq!(found.ratio.as_ref().unwrap().n_blocks, 12 - found.n_void);
        assert_eq!(found.verdict, Verdict::Winner { side: Side::B }, "eleven blocks decide as well");
    }
    let [finding] = analysis.findings.as_slice() else { panic!("{:?}", analysis.findings) };
    assert_eq!((finding.blocks.as_slice(), finding.arm), (&[3][..], Some(Side::B)));
    assert!(finding.detail.contains("40 prompt tokens"), "{}", finding.detail);
}

#[test]
fn with_most_blocks_void_there_is_no_verdict() {
    let comparison = Comparison { fault: Fault::Battery, n_blocks: 5, ..CLEAN };
    let mut blocks = comparison.blocks(1);
    for visit in blocks.iter_mut().take(3).flat_map(|block| &mut block.visits) {
        visit.environment.as_mut().unwrap().on_battery = Some(true);
    }
    let question = duet_bench::analysis::Question {
        margin: 0.03,
        n_decode: crate::synthetic::N_DECODE,
        grade: None,
        fidelity: None,
    };
    let analysis = duet_bench::analysis::analyse(&blocks, &[], &question);
    for found in &analysis.comparisons {
        assert_eq!(found.n_void, 4);
        assert_eq!(found.verdict, Verdict::Invalid { codes: vec!["POWER".to_owned()] });
    }
}

#[test]
fn what_else_is_against_a_jumped_figure_is_said_beside_the_jump() {
    let comparison = Comparison { fault: Fault::ArmJumps, n_blocks: 24, ..CLEAN };
    let analysed = |fidelity: Option<Finding>| {
        let question = duet_bench::analysis::Question {
            margin: 0.03,
            n_decode: crate::synthetic::N_DECODE,
            grade: None,
            fidelity,
        };
        duet_bench::analysis::analyse(&comparison.blocks(1), &[], &question)
    };
    let alone = analysed(None);
    assert!(alone.findings.iter().all(|finding| finding.stands), "{:?}", alone.findings);
    assert!(alone.comparisons.iter().all(|found| found.verdict == Verdict::Winner { side: Side::B }));
    let far = Finding::of_run(Code::Fidelity, None, &Metric::ALL, "far apart".to_owned());
    let analysis = analysed(Some(far));
    for found in &analysis.comparisons {
        let codes = vec!["CHANGEPOINT".to_owned(), "FIDELITY".to_owned()];
        assert_eq!(found.verdict, Verdict::Invalid { codes }, "{:?}", found.metric);
    }
    assert!(analysis.findings.iter().all(|finding| !finding.stands), "{:?}", analysis.findings);
}

#[test]
fn names_are_those_of_the_json() {
    for code in Code::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.name());
    }
}
