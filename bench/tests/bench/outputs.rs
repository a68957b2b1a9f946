//! What comes out of a report: put together, compared, gated, and written as CSV, Markdown and HTML.

use std::sync::Arc;

use duet_bench::compare::{Gate, Subject, compare, gate};
use duet_bench::order::Side;
use duet_bench::report::{Metric, Report};
use duet_bench::stats::verdict::{Position, Verdict};
use duet_bench::sweep::Sweep;
use duet_bench::{Silent, run_models};

use crate::support::*;
use crate::synthetic::{Comparison, Fault, Law, N_DECODE};

/// A report of two fake engines whose samples are those of this comparison.
pub(crate) async fn report_of(comparison: Comparison, seed: u64) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let options = duet_bench::BenchOptions { n_blocks: 1, ..small_options() };
    let mut evil = backend("two");
    evil.kv_type = "<b>&\"f32\"|x";
    let backends = registry(vec![backend("one"), evil]);
    let mut report = run_models(&backends, &[model(dir.path())], &options, Arc::new(Silent)).await.unwrap();
    report.blocks = comparison.blocks(seed);
    report.plan.n_decode = N_DECODE;
    report.plan.orders = report.blocks.iter().map(|block| block.order.clone()).collect();
    report.analyse_again();
    report
}

/// Twelve blocks in which A takes `true_ratio` times as long.
pub(crate) fn twelve(true_ratio: f64) -> Comparison {
    let (law, true_log) = (Law::Normal, true_ratio.ln());
    Comparison { law, true_log, n_blocks: 12, n_aa: 0, fault: Fault::None }
}

#[tokio::test]
async fn several_processes_are_one_report() {
    let reports = [report_of(twelve(1.1), 1).await, report_of(twelve(1.1), 2).await];
    let n_blocks: usize = reports.iter().map(|report| report.blocks.len()).sum();
    let merged = Report::merge(reports.to_vec()).unwrap();
    assert_eq!(merged.blocks.len(), n_blocks);
    for found in &merged.comparisons {
        let ratio = found.ratio.as_ref().unwrap();
        assert_eq!((ratio.n_restarts, ratio.n_blocks), (2, 24));
        assert!(ratio.restarts.is_some(), "what varies between processes is said");
    }
    assert_eq!(merged.arms[0].summaries[0].n_requests, 48);
    let thrice = Report::merge(vec![merged, report_of(twelve(1.1), 3).await]).unwrap();
    let restarts: Vec<u32> = thrice.blocks.iter().map(|block| block.restart).collect();
    assert_eq!((restarts[0], restarts[12], restarts[24]), (0, 1, 2));
    assert!(thrice.to_text().contains(" in 3 processes"), "{}", thrice.to_text());
}

#[tokio::test]
async fn what_is_not_one_measurement_is_not_put_together() {
    let report = report_of(twelve(1.1), 1).await;
    assert_eq!(Report::merge(vec![]).unwrap_err().to_string(), "there is no report to put together");
    let refused = |change: &dyn Fn(&mut Report)| {
        let mut other = report.clone();
        change(&mut other);
        Report::merge(vec![report.clone(), other]).unwrap_err().to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Report);
    let cases: [(Change<'_>, &str); 6] = [
        (&|other| other.manifest.machine.cpu = Some("another".into()), "the machine"),
        (&|other| other.manifest.threads = Some(3), "the settings"),
        (&|other| other.plan.ids_sha256.push('x'), "the text's token ids"),
        (&|other| other.plan.n_prompt += 1, "the work of a request"),
        (&|other| other.arms[1].engine.version.push('x'), "the engines or the models' files"),
        (&|other| other.manifest.duet_version.push('x'), "duet's version"),
    ];
    for (change, what) in cases {
        assert_eq!(refused(change), format!("report 2 differs from the first one in {what}"));
    }
}

#[tokio::test]
async fn old_and_new_are_compared_by_arm_and_by_ratio() {
    let old = report_of(twelve(1.0), 1).await;
    let new = report_of(twelve(1.2), 2).await; // A takes 20 % longer now
    let compared = compare(&new, &old);
    assert!(compared.obstacles.is_empty(), "{:?}", compared.obstacles);
    assert_eq!(compared.rows.len(), 12);
    for row in &compared.rows {
        let expected = match row.subject {
            Subject::Arm(Side::A) | Subject::Ratio => (Position::Above, 1.2),
            Subject::Arm(Side::B) => (Position::Within, 1.0),
        };
        assert_eq!(row.position, expected.0, "{row:?}");
        assert!((row.time_ratio / expected.1 - 1.0).abs() < 0.03, "{row:?}");
        assert!(row.interval.low <= row.time_ratio && row.time_ratio <= row.interval.high);
    }
    let text = compared.to_text(["one", "two"]);
    assert!(text.contains("prefill, one: slower by more than 3.0 %"), "{text}");
    assert!(text.contains("prefill, two: as fast as before"), "{text}");
    assert!(text.contains("prefill, one ÷ two: one has lost against two"), "{text}");
}

#[tokio::test]
async fn other_work_is_no_comparison() {
    let old = report_of(twelve(1.0), 1).await;
    let mut new = old.clone();
    new.manifest.machine.cpu = Some("another".into());
    new.plan.n_prompt += 1;
    let text = compare(&new, &old).to_text(["one", "two"]);
    assert!(
        text.starts_with("not the same work: the machine differs\nnot the same work: the length"),
        "{text}"
    );
    assert_eq!(gate(&new, Some(&old), &Metric::ALL).gate, Gate::Invalid);
}

#[tokio::test]
async fn depths_are_one_table_with_a_law_for_each_arm() {
    let mut reports = Vec::new();
    for n_prompt in [40, 10] {
        let mut report = report_of(twelve(1.0), 1).await;
        report.plan.n_prompt = n_prompt;
        reports.push(report);
    }
    reports[0].weights = duet_bench::WeightProof::Identical { n_tensors: 1, n_values: 1 };
    let sweep = Sweep::of(reports);
    assert_eq!(sweep.reports.iter().map(|report| report.plan.n_prompt).collect::<Vec<_>>(), [10, 40]);
    assert!(matches!(sweep.reports[0].weights, duet_bench::WeightProof::Identical { .. }), "proven once");
    assert_eq!(sweep.laws.iter().map(|law| law.side).collect::<Vec<_>>(), Side::BOTH);
    let text = sweep.to_text();
    for part in ["depth 10 to ", "depth 40 to ", "decode_forced", "one: a step takes ", "two: a step takes "]
    {
        assert!(text.contains(part), "`{part}` is missing\n{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sweep.json");
    std::fs::write(&path, sweep.to_json().unwrap()).unwrap();
    assert_eq!(Sweep::read(&path).unwrap(), sweep);
    let refused = Report::read(&path).unwrap_err().to_string();
    assert!(refused.contains("is `duet-bench-sweep/1`, and this duet reads duet-bench/2"), "{refused}");
}

#[tokio::test]
async fn the_page_of_a_sweep_has_the_curves() {
    let mut reports = Vec::new();
    for (index, n_prompt) in [16, 128, 1024].into_iter().enumerate() {
        let mut report = report_of(twelve(1.1), 1 + index as u64).await;
        report.plan.n_prompt = n_prompt;
        for arm in &mut report.arms {
            arm.loaded.as_mut().unwrap().memory_bytes_per_second = Some(1e9);
        }
        reports.push(report);
    }
    let html = Sweep::of(reports).to_html();
    let elements = well_formed(&html);
    let count = |name: &str| elements.iter().filter(|element| *element == name).count();
    assert_eq!((count("svg"), count("script")), (4, 0), "the curves, and the ratios at each depth");
    for (class, n) in [("roof a", 1), ("roof b", 1), ("curve a", 1), ("bar a", 3), ("bar b", 3)] {
        assert_eq!(html.matches(&format!("class=\"{class}\"")).count(), n, "{class}");
    }
    assert!(html.contains("% of what memory allows") && html.contains("one: a step takes "), "{html}");
    assert!(!html.contains("NaN") && !html.contains("inf"), "a number that is none");
    assert!(!html.contains("<b>&"));
    well_formed(&Sweep::of(Vec::new()).to_html());
}

#[tokio::test]
async fn a_broken_report_is_drawn_without_numbers_that_are_none() {
    let mut report = report_of(twelve(1.1), 3).await;
    report.plan.n_prompt = 0;
    for visit in report.blocks.iter_mut().flat_map(|block| &mut block.visits) {
        visit.runner.as_mut().unwrap().step_ns = vec![0];
        visit.engine.as_mut().unwrap().itl_ns = vec![u64::MAX];
    }
    for arm in &mut report.arms {
        arm.loaded.as_mut().unwrap().memory_bytes_per_second = Some(0.0);
        let memory = arm.memory.as_mut().unwrap();
        memory.engine.weights_bytes = Some(u64::MAX);
        memory.process_warm = None;
    }
    report.analyse_again();
    let html = report.to_html();
    well_formed(&html);
    assert!(!html.contains("NaN") && !html.contains("=\"inf"), "{html}");
}

#[tokio::test]
async fn bytes_and_counts_are_compared_without_a_clock() {
    let old = report_of(twelve(1.0), 1).await;
    let mut new = report_of(twelve(1.0), 2).await;
    new.arms[0].memory.as_mut().unwrap().engine.kv_bytes = Some(1_100_000);
    new.arms[1].loaded.as_mut().unwrap().weight_bytes_per_token = 800;
    for visit in new.blocks.iter_mut().flat_map(|block| &mut block.visits) {
        visit.runner.as_mut().unwrap().n_forward_passes = 11;
        visit.engine.as_mut().unwrap().ids[4] = 2;
    }
    let text = compare(&new, &old).to_text(["one", "two"]);
    for line in [
        "one: KV cache, bytes: 65536 → 1100000 (worse)",
        "two: weights read per token, bytes: 1000 → 800 (better)",
        "one: forward passes of a request: 10 → 11 (worse)",
        "two: greedy tokens, and how many of them are still the same: 9 → 4",
    ] {
        assert!(text.contains(line), "`{line}` is missing\n{text}");
    }
    let found = gate(&new, Some(&old), &[Metric::Prefill]);
    assert_eq!((found.gate, found.gate.exit_code()), (Gate::Regression, 1));
}

#[tokio::test]
async fn one_hiccup_does_not_move_a_prompt_that_is_read_three_times() {
    let mut report = report_of(twelve(1.0), 1).await;
    let visit = &mut report.blocks[0].visits[0];
    let (runner, engine) = (visit.runner.as_mut().unwrap(), visit.engine.as_mut().unwrap());
    (runner.prefill_ns, runner.prefill_again_ns) = (900, vec![100, 110]);
    (engine.ttft_ns, engine.ttft_again_ns) = (200, vec![210, 5000]);
    let visit = &report.blocks[0].visits[0];
    assert_eq!((Metric::Prefill.time_ns(visit), Metric::Ttft.time_ns(visit)), (Some(110.0), Some(210.0)));
}

#[tokio::test]
async fn a_gate_within_one_report() {
    // A is the candidate.
    for (true_ratio, expected, code) in [(1.0, Gate::Ok, 0), (0.8, Gate::Ok, 0), (1.2, Gate::Regression, 1)] {
        let found = gate(&report_of(twelve(true_ratio), 4).await, None, &Metric::ALL);
        assert_eq!((found.gate, found.gate.exit_code()), (expected, code), "{}", found.to_text());
        assert!(found.to_text().starts_with(&format!("gate: {}\n", expected.name())));
    }
    let open = Comparison { n_blocks: 3, law: Law::StudentT3, ..twelve(1.03) };
    let found = gate(&report_of(open, 4).await, None, &[Metric::DecodeForced]);
    assert_eq!((found.gate, found.gate.exit_code()), (Gate::Inconclusive, 3), "{}", found.to_text());
    let invalid = Comparison { fault: Fault::ArmDrifts, ..twelve(1.0) };
    let found = gate(&report_of(invalid, 4).await, None, &[Metric::DecodeForced]);
    assert_eq!((found.gate, found.gate.exit_code()), (Gate::Invalid, 2), "{}", found.to_text());
    assert_eq!(gate(&report_of(twelve(1.0), 1).await, None, &[]).gate, Gate::Invalid, "nothing to go by");
}

#[tokio::test]
async fn a_gate_against_a_baseline_needs_arm_and_ratio_to_agree() {
    let old = report_of(twelve(1.0), 1).await;
    let pass = gate(&report_of(twelve(1.0), 2).await, Some(&old), &Metric::ALL);
    assert_eq!(pass.gate, Gate::Ok, "{}", pass.to_text());
    let slower = gate(&report_of(twelve(1.15), 2).await, Some(&old), &Metric::ALL);
    assert_eq!(slower.gate, Gate::Regression, "{}", slower.to_text());
    // A machine that is slower today is slower for both.
    let mut tired = report_of(twelve(1.0), 2).await;
    for visit in tired.blocks.iter_mut().flat_map(|block| &mut block.visits) {
        let runner = visit.runner.as_mut().unwrap();
        runner.prefill_ns = runner.prefill_ns * 13 / 10;
    }
    tired.analyse_again();
    let found = gate(&tired, Some(&old), &[Metric::Prefill]);
    assert_eq!(found.gate, Gate::Inconclusive, "{}", found.to_text());
    assert!(found.to_text().contains("measure old and new in one run"), "{}", found.to_text());
}

/// A is slower throughout, and slower still from the seventh block of 24 on.
async fn jumped() -> Report {
    report_of(Comparison { fault: Fault::ArmJumps, n_blocks: 24, ..twelve(1.3) }, 1).await
}

#[tokio::test]
async fn a_ratio_that_jumped_is_told_with_its_parts() {
    let report = jumped().await;
    for found in &report.comparisons {
        assert_eq!(found.verdict, Verdict::Winner { side: Side::B }, "{found:?}");
        let parts = &found.ratio.as_ref().unwrap().parts;
        assert_eq!(parts.iter().map(|part| part.n_blocks).collect::<Vec<_>>(), [6, 18]);
        let sentence = report.sentence(found);
        assert!(sentence.contains("; it jumped, and its parts are 0.7"), "{sentence}");
        assert!(sentence.contains(" (6 blocks), 0.6") && sentence.ends_with(" (18)"), "{sentence}");
    }
    let text = report.to_text();
    assert!(text.contains("CHANGEPOINT: prefill: the ratio jumped by -1"), "{text}");
    assert!(text.contains("the verdict on prefill stands") && !text.contains("takes the run out"), "{text}");
    assert!(!report.to_csv().contains("CHANGEPOINT"), "no sample is out of the verdict");
    assert_eq!(serde_json::from_str::<Report>(&report.to_json().unwrap()).unwrap(), report);
}

#[tokio::test]
async fn a_ratio_that_jumped_is_no_baseline() {
    let (steady, jumped) = (report_of(twelve(1.3), 2).await, jumped().await);
    assert_eq!(gate(&jumped, None, &Metric::ALL).gate, Gate::Regression, "but A is slower in every part");
    for (new, old, which) in [(&jumped, &steady, "new"), (&steady, &jumped, "old")] {
        let found = gate(new, Some(old), &[Metric::Prefill]);
        assert_eq!(found.gate, Gate::Invalid, "{}", found.to_text());
        let ground = format!("prefill of the {which} report jumped during the run");
        assert!(found.to_text().contains(&ground), "{}", found.to_text());
        let compared = compare(new, old);
        assert!(compared.rows.iter().all(|row| row.subject != Subject::Ratio), "{compared:?}");
        let line = format!("prefill: the ratio jumped during the {which} run, and is compared with nothing");
        assert!(compared.to_text(["one", "two"]).contains(&line), "{:?}", compared.jumped);
    }
}

#[tokio::test]
async fn a_failed_arm_passes_no_gate() {
    let mut report = report_of(twelve(1.0), 1).await;
    report.arms[1].failure =
        Some(duet_bench::report::ArmFailure { during: "loading".into(), error: "gone".into(), code: None });
    let found = gate(&report, None, &Metric::ALL);
    assert_eq!(found.gate, Gate::Invalid);
    assert!(found.to_text().contains("two failed during loading: gone"), "{}", found.to_text());
}

#[tokio::test]
async fn csv_has_every_figure_and_says_which_are_void() {
    let report = report_of(Comparison { fault: Fault::CacheHit, ..twelve(1.0) }, 1).await;
    let text = report.to_csv();
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 1 + 12 * 4 * 4);
    let n_columns = lines[0].split(',').count();
    assert!(lines.iter().all(|line| line.split(',').count() == n_columns), "{text}");
    let void: Vec<&&str> = lines.iter().filter(|line| line.ends_with(",CACHE_HIT")).collect();
    assert_eq!(void.len(), 8, "two figures of four visits of one block");
    assert!(void.iter().all(|line| line.starts_with("0,ab,4,") && !line.contains("prefill")), "{void:?}");
}

#[tokio::test]
async fn markdown_says_the_verdict_first() {
    let report = report_of(Comparison { fault: Fault::NoSteady, ..twelve(1.2) }, 1).await;
    let text = report.to_markdown();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "## one against two");
    assert!(
        lines[2].starts_with("- prefill (reading the prompt): two is faster by more than ±3.0 %"),
        "{text}"
    );
    assert!(text.contains("- grade **C**: equal nominal bits"), "{text}");
    assert!(text.contains("- ⚠ NO\\_STEADY (two): the wash-out ended at its limit"), "{text}");
    assert!(text.contains("| decode_native (tok/s) |"), "{text}");
    assert!(!text.contains("<b>") && text.contains("KV &lt;b>&amp;\"f32\"\\|x"), "{text}");
    let rows: Vec<&&str> = lines.iter().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.iter().all(|row| row.matches(" |").count() == 6), "{rows:#?}");
}

/// Elements that are opened and closed, in order; a text that is not well-formed panics.
fn well_formed(html: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
    while let Some(start) = rest.find('<') {
        assert!(
            !rest[..start].contains('>'),
            "a stray > before {:?}",
            &rest[start..].chars().take(40).collect::<String>()
        );
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in another order");
        } else {
            let name = tag.split([' ', '\n', '/']).next().expect("a name").to_owned();
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            seen.push(name);
        }
        // Style sheets may hold anything but a tag.
        rest = &rest[end + 1..];
        if seen.last().is_some_and(|name| name == "style") && open.last().is_some_and(|name| name == "style")
        {
            rest = &rest[rest.find("</style>").expect("the style ends")..];
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    seen
}

#[tokio::test]
async fn the_page_is_whole_and_needs_nothing_else() {
    let faults = [(Fault::None, 4), (Fault::CacheHit, 0), (Fault::ArmDrifts, 0), (Fault::ArmJumps, 0)];
    for (fault, n_aa) in faults {
        let report = report_of(Comparison { fault, n_aa, ..twelve(1.1) }, 3).await;
        let html = report.to_html();
        let elements = well_formed(&html);
        let count = |name: &str| elements.iter().filter(|element| *element == name).count();
        // Ratios, three distributions, steps over depth, memory, and four figures block by block.
        assert_eq!((count("svg"), count("script"), count("img"), count("link")), (10, 0, 0, 0));
        assert_eq!(html.matches("role=\"img\"").count(), count("svg"));
        assert_eq!(count("desc"), count("svg"), "each chart says what can be read from it");
        for foreign in ["http://", "https://", "url(", "@import", "src="] {
            let n = html.matches(foreign).count();
            let names = if foreign == "http://" { 10 } else { 0 }; // each SVG's namespace, which nobody fetches
            assert_eq!(n, names, "{foreign}");
        }
        assert!(html.contains("name=\"viewport\"") && html.contains("@media print"));
        assert!(!html.contains("NaN") && !html.contains("inf"), "a number that is none");
        assert!(!html.contains("<b>&") && html.contains("KV &lt;b&gt;&amp;&quot;f32&quot;|x"));
    }
}

#[tokio::test]
async fn a_page_of_a_broken_run_is_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut bad = backend("two");
    bad.config.fail_load = true;
    let backends = registry(vec![backend("one"), bad]);
    let options = small_options();
    let report = run_models(&backends, &[model(dir.path())], &options, Arc::new(Silent)).await.unwrap();
    let html = report.to_html();
    well_formed(&html);
    assert!(html.contains("two failed during loading"), "{html}");
    assert!(report.to_markdown().contains("| prefill (tok/s) |") && report.to_csv().contains("\r\n"));
}

#[tokio::test]
async fn reports_are_read_from_files_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    let report = report_of(twelve(1.0), 1).await;
    let text = report.to_json().unwrap();
    std::fs::write(&path, &text).unwrap();
    assert!(Report::read(&path).unwrap() == report);
    for (broken, message) in [
        (text.replace("duet-bench/2", "duet-bench/1"), "`duet-bench/1`, and this duet reads duet-bench/2"),
        ("{}".to_owned(), "JSON without a schema, and this duet reads"),
        ("[1, 2]".to_owned(), "is not a report"),
        (String::new(), "is not a report"),
        (text[..text.len() / 2].to_owned(), "is not a report"),
        (text.replace("\"n_prompt\": 20", "\"n_prompt\": -1"), "is not a report"),
    ] {
        std::fs::write(&path, broken).unwrap();
        let error = Report::read(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let missing = Report::read(&dir.path().join("missing")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read "), "{missing}");
}

#[tokio::test]
async fn a_report_says_in_words_what_it_would_take() {
    let open = Comparison { n_blocks: 4, ..twelve(1.045) };
    let report = report_of(open, 6).await;
    let found = report.comparisons.iter().find(|found| matches!(found.verdict, Verdict::Inconclusive { .. }));
    let sentence = report.sentence(found.expect("one of four is open"));
    assert!(
        sentence.contains(" more blocks, about ") || sentence.contains("no reasonable number"),
        "{sentence}"
    );
}
