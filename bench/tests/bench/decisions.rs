//! Decisions from reports: what is recommended, how sure that is, and what is not decided.

use std::time::{Duration, SystemTime};

use duet_bench::decision::{NoDecision, Terms, VALID_FOR, Workload, decide, explain, last_line};
use duet_bench::report::Report;
use duet_core::decision::DecisionFile;

use crate::outputs::{report_of, twelve};
use crate::synthetic::{Comparison, Fault};

fn terms() -> Terms {
    Terms {
        workloads: Workload::usual(),
        valid_for: VALID_FOR,
        fingerprint: "abc".into(),
        report_sha256: "123".into(),
        command: "duet bench m.gguf".into(),
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

#[tokio::test]
async fn the_faster_engine_is_recommended_with_its_probability() {
    let report = report_of(twelve(1.2), 1).await; // A takes 20 % longer
    let decision = decide(&report, &terms()).unwrap();
    assert_eq!(decision.engine.as_deref(), Some("two"));
    assert!(decision.probability > 0.999 && decision.expected_loss < 0.001, "{decision:?}");
    assert!(
        decision.reason.starts_with("two answers chat, rag, agent, batch faster, chat by 2"),
        "{}",
        decision.reason
    );
    assert_eq!(
        (decision.decided.as_str(), decision.expires.as_str()),
        ("2027-01-15T08:00:00Z", "2027-04-15T08:00:00Z")
    );
    for choice in &decision.workloads {
        assert_eq!(choice.engine.as_deref(), Some("two"));
        assert!(
            choice.estimate,
            "requests of {} + {} tokens were not measured",
            choice.n_prompt, choice.n_decode
        );
        assert!((choice.time_ratio - 1.2).abs() < 0.03, "{choice:?}");
    }
    assert_eq!(decision.matrix.len(), 2);
    assert!(decision.matrix[0].decode_rate < decision.matrix[1].decode_rate);
    assert!(decision.crossovers.is_empty(), "one is faster at both");
    assert_eq!(decision.model.sha256.len(), 1);
    let mut file = DecisionFile::default();
    file.put(decision);
    let text = serde_json::to_string(&file).unwrap();
    assert_eq!(serde_json::from_str::<DecisionFile>(&text).unwrap(), file);
}

#[tokio::test]
async fn equal_engines_leave_the_rule() {
    let report = report_of(twelve(1.0), 1).await;
    let decision = decide(&report, &terms()).unwrap();
    assert_eq!(decision.engine, None);
    assert_eq!(decision.reason, "no engine is faster by more than the margin at any workload");
    let line = last_line(&decision);
    assert!(
        line.starts_with("choice: the stated rule") && line.ends_with("`duet bench m.gguf` measures it anew"),
        "{line}"
    );
}

#[tokio::test]
async fn a_ratio_that_jumped_decides_where_both_levels_do() {
    let of = async |true_ratio: f64| {
        let comparison = Comparison { fault: Fault::ArmJumps, ..twelve(true_ratio) };
        decide(&report_of(comparison, 1).await, &terms()).unwrap()
    };
    let same = of(1.3).await;
    assert_eq!(same.engine.as_deref(), Some("two"), "{}", same.reason);
    let opposite = of(0.9).await;
    assert_eq!(opposite.engine, None);
    assert!(opposite.reason.ends_with("does not hold: CHANGEPOINT"), "{}", opposite.reason);
}

/// A is faster at prompts by a third and slower at tokens by a third.
async fn mixed() -> Report {
    let mut report = report_of(twelve(1.0), 1).await;
    for visit in report.blocks.iter_mut().flat_map(|block| &mut block.visits) {
        if visit.arm == duet_bench::order::Side::A {
            let engine = visit.engine.as_mut().unwrap();
            engine.ttft_ns = engine.ttft_ns * 2 / 3;
            engine.itl_ns.iter_mut().for_each(|ns| *ns = *ns * 4 / 3);
        }
    }
    report.analyse_again();
    report
}

#[tokio::test]
async fn a_choice_that_depends_on_the_work_is_left_open_with_the_crossover() {
    let report = mixed().await;
    let decision = decide(&report, &terms()).unwrap();
    let by_name = |name: &str| decision.workloads.iter().find(|choice| choice.workload == name).unwrap();
    // A token takes as long as half of a prompt token here, so that even chats are mostly prompt.
    assert_eq!(by_name("rag").engine.as_deref(), Some("one"));
    let [crossover] = decision.crossovers.as_slice() else { panic!("{:?}", decision.crossovers) };
    assert!(
        crossover.starts_with("one is faster with more than ") && crossover.ends_with("two with fewer"),
        "{crossover}"
    );
    let mut terms = terms();
    terms.workloads = vec![Workload::new("novel", 10, 5000), Workload::new("rag", 3000, 10)];
    let decision = decide(&report, &terms).unwrap();
    let chosen: Vec<_> = decision.workloads.iter().map(|choice| choice.engine.as_deref()).collect();
    assert_eq!(chosen, [Some("two"), Some("one")]);
    assert_eq!(
        (decision.engine, decision.reason.as_str()),
        (None, "the faster engine depends on the workload")
    );
}

#[tokio::test]
async fn what_does_not_hold_decides_nothing() {
    let invalid = Comparison { fault: Fault::ArmDrifts, ..twelve(1.5) };
    let decision = decide(&report_of(invalid, 1).await, &terms()).unwrap();
    assert_eq!(decision.engine, None);
    assert!(decision.reason.ends_with("does not hold: TREND"), "{}", decision.reason);
    assert!(decision.workloads.iter().all(|choice| choice.engine.is_none()));
    assert_eq!(decision.codes, ["TREND"]);
    let one = Comparison { n_blocks: 1, ..twelve(1.5) };
    let decision = decide(&report_of(one, 1).await, &terms()).unwrap();
    assert_eq!((decision.engine, decision.workloads.len()), (None, 0));
}

#[tokio::test]
async fn an_engine_that_computes_something_else_is_not_recommended_for_its_speed() {
    let mut report = report_of(twelve(1.5), 1).await;
    report.agreement.as_mut().unwrap().kl.mean = 0.05;
    let fast = decide(&report, &terms()).unwrap();
    assert_eq!(fast.engine.as_deref(), Some("two"), "other weights may differ");
    report.grade.as_mut().unwrap().grade = duet_bench::Grade::B;
    let decision = decide(&report, &terms()).unwrap();
    assert_eq!(decision.engine, None);
    assert!(
        decision.reason.contains("0.0500 nats: one of them computes something else"),
        "{}",
        decision.reason
    );
}

#[tokio::test]
async fn an_engine_that_failed_leaves_the_other() {
    let mut report = report_of(twelve(0.5), 1).await;
    let failure =
        duet_bench::report::ArmFailure { during: "block 3".into(), error: "gone".into(), code: None };
    report.arms[0].failure = Some(failure.clone());
    let decision = decide(&report, &terms()).unwrap();
    assert_eq!(
        (decision.engine.as_deref(), decision.reason.as_str()),
        (Some("two"), "one failed during block 3")
    );
    report.arms[1].failure = Some(failure);
    assert_eq!(decide(&report, &terms()).unwrap_err(), NoDecision::BothFailed);
}

#[tokio::test]
async fn reports_about_something_else_decide_nothing() {
    let mut report = report_of(twelve(1.0), 1).await;
    let same = NoDecision::NoChoice { what: "one engine with itself" };
    report.arms[1].engine.id = "one".into();
    assert_eq!(decide(&report, &terms()).unwrap_err(), same);
    let mut report = report_of(twelve(1.0), 1).await;
    report.arms[1].model.files[0].sha256.push('0');
    assert_eq!(decide(&report, &terms()).unwrap_err(), NoDecision::NoChoice { what: "two models" });
    report.arms.pop();
    assert_eq!(decide(&report, &terms()).unwrap_err(), NoDecision::NoChoice { what: "nothing" });
}

#[tokio::test]
async fn the_way_is_explained_from_samples_to_choice() {
    let report = report_of(Comparison { fault: Fault::CacheHit, ..twelve(1.2) }, 1).await;
    let decision = decide(&report, &terms()).unwrap();
    let text = explain(&report, &decision);
    for part in [
        "samples: 48 visits, each a prompt of 20 tokens and 9 decoded",
        "blocks: 12 of A against B, of 12 in all",
        "CACHE_HIT (two): 40 prompt tokens came from a cache; takes block 4 out of ttft, decode_native",
        "fit one: ",
        "chat (300 + 250 tokens, extrapolated from shorter requests): one ",
        "(11 blocks)",
        "grade C: ",
    ] {
        assert!(text.contains(part), "`{part}` is missing\n{text}");
    }
    assert!(text.lines().last().unwrap().starts_with("choice: two, because two answers chat"), "{text}");
}
