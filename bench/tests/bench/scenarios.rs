//! Scenarios on engines of known behaviour, and on servers.

use std::sync::Arc;
use std::time::Duration;

use duet_bench::http::RemoteServer;
use duet_bench::order::Side;
use duet_bench::report::Report;
use duet_bench::scenario::{ScenarioKind, ScenarioOptions, ScenarioReport, SkipReason};
use duet_bench::stats::verdict::Verdict;
use duet_bench::validity::Code;
use duet_bench::{BenchError, BenchOptions, Silent, SystemClock, run_models};
use duet_core::InferenceBackend;
use duet_core::registry::Registry;
use duet_core::testing::ByteTokenizer;

use crate::stub::model::{Seen, script};
use crate::stub::{Act, Got, Stub, end, head, text, whole};
use crate::support::*;

fn options(kinds: &[ScenarioKind]) -> BenchOptions {
    let scenarios = ScenarioOptions {
        kinds: kinds.to_vec(),
        streams: vec![1, 3],
        n_blocks: 2,
        n_aa_blocks: 0,
        budget: None,
        n_prompt: 10,
        n_decode: 6,
        n_sharers: 3,
        n_shared: 40,
        n_arrivals: 4,
        per_second: Some(2000.0),
        pause: Duration::from_millis(2),
    };
    BenchOptions { scenarios, n_agreement: 0, n_blocks: 1, ..small_options() }
}

async fn run(backends: Vec<TestBackend>, options: &BenchOptions) -> Report {
    let dir = tempfile::tempdir().unwrap();
    run_models(&registry(backends), &[model(dir.path())], options, Arc::new(Silent)).await.unwrap()
}

#[track_caller]
fn named<'a>(report: &'a Report, name: &str) -> &'a ScenarioReport {
    let found = report.scenarios.iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no {name} among {:?}", report.scenarios))
}

#[tokio::test]
async fn every_scenario_gives_its_figures_in_every_form() {
    let report = run(vec![backend("one"), backend("two")], &options(&ScenarioKind::ALL)).await;
    assert!(report.is_complete(), "{:?}", report.scenarios);
    let names: Vec<&str> = report.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    assert_eq!(names, ["1 stream", "3 streams", "shared prefix", "arrivals", "cold start", "after idle"]);
    for (name, wanted) in [
        ("3 streams", &["total", "each stream", "median TTFT"][..]),
        ("shared prefix", &["wall time", "prompt tokens evaluated", "median TTFT"]),
        ("arrivals", &["TTFT p50", "TTFT p90", "TPOT p50", "TPOT p90"]),
        ("cold start", &["loaded after", "first token after"]),
        ("after idle", &["TTFT", "TTFT just after", "TTFT ÷ just after"]),
    ] {
        let scenario = named(&report, name);
        for figure in wanted {
            let found = scenario.comparisons.iter().find(|found| found.figure == *figure);
            let found = found.unwrap_or_else(|| panic!("{name} has no {figure}: {:?}", scenario.comparisons));
            assert!(found.arms.iter().all(|arm| arm.is_some_and(|arm| arm.n == 4)), "{found:?}");
            let compared = !["prompt tokens evaluated", "TTFT ÷ just after"].contains(figure);
            assert_eq!((found.ratio.is_some(), found.verdict.is_some()), (compared, compared), "{found:?}");
        }
    }
    for scenario in &report.scenarios {
        for block in &scenario.blocks {
            let sides: String = block.visits.iter().map(|visit| visit.side.name()).collect();
            assert_eq!(sides, block.order);
            let ids = |index: usize| &block.visits[index].ids_sha256;
            assert!(ids(0) == ids(1) && ids(2) == ids(3), "both arms get the same prompts");
            assert_ne!(ids(0), ids(2), "and none twice");
        }
    }
    let json = report.to_json().unwrap();
    assert!(serde_json::from_str::<Report>(&json).unwrap() == report, "what was written can be read");
    let (table, markdown, html) = (report.to_text(), report.to_markdown(), report.to_html());
    for text in [&table, &markdown, &html] {
        assert!(text.contains("3 streams") && text.contains("TTFT p90, s ↓"), "{text}");
    }
    let widest = table.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 100, "{widest}\n{table}");
    let csv = report.to_csv();
    assert_eq!(csv.matches(",3 streams: total,").count(), 8, "{csv}");
    assert!(csv.lines().all(|line| line.matches(',').count() == 14), "{csv}");
    let merged = Report::merge(vec![report.clone(), report]).unwrap();
    let blocks = &named(&merged, "3 streams").blocks;
    assert_eq!(blocks.iter().map(|block| block.restart).collect::<Vec<_>>(), [0, 0, 1, 1]);
}

#[tokio::test]
async fn a_known_ratio_is_found_with_its_noise_floor() {
    let mut options = options(&[ScenarioKind::Streams]);
    (options.scenarios.n_blocks, options.scenarios.n_aa_blocks) = (6, 4);
    let mut report = run(vec![backend("fast"), backend("slow")], &options).await;
    let mut noise = Noise::new(5);
    for visit in
        report.scenarios.iter_mut().flat_map(|scenario| &mut scenario.blocks).flat_map(|b| &mut b.visits)
    {
        let slower: f64 = if visit.arm == Side::B { 1.5 } else { 1.0 };
        for value in &mut visit.figures {
            let time = slower * (0.002 * noise.normal()).exp();
            value.value = if value.unit == "tok/s" { 100.0 / time } else { 0.1 * time };
        }
    }
    report.analyse_again();
    let scenario = named(&report, "3 streams");
    assert_eq!(scenario.blocks.len(), 10);
    for figure in ["total", "each stream", "median TTFT"] {
        let found = scenario.comparisons.iter().find(|found| found.figure == figure).unwrap();
        let ratio = found.ratio.as_ref().unwrap();
        assert!((ratio.speed().0 - 1.5).abs() < 0.01 && ratio.n_blocks == 6, "{figure}: {ratio:?}");
        assert_eq!(found.verdict, Some(Verdict::Winner { side: Side::A }), "{figure}");
        assert_eq!(found.aa.len(), 2);
        assert!(
            found.margin.floor.is_some_and(|floor| floor < 0.01),
            "each against itself: {:?}",
            found.margin
        );
    }
}

#[tokio::test]
async fn a_shared_prefix_is_read_once_and_that_is_counted() {
    let report = run(vec![backend("one"), backend("two")], &options(&[ScenarioKind::SharedPrefix])).await;
    let scenario = named(&report, "shared prefix");
    let found = scenario.comparisons.iter().find(|found| found.figure == "prompt tokens evaluated").unwrap();
    for arm in found.arms.iter().flatten() {
        // 40 in common, and three ends of 10: the first reads 50, the others 10 each. On a busy machine one may come when
        // the others have gone, and read all of it.
        assert_eq!((arm.low, arm.median), (70.0, 70.0), "{found:?}");
    }
    let certified = [Code::CacheHit, Code::Tokens, Code::Ids];
    assert!(
        scenario.findings.iter().all(|finding| !certified.contains(&finding.code)),
        "what is shared is no unplanned cache: {:?}",
        scenario.findings
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_its_reason() {
    let reason = |report: &Report, name: &str| named(report, name).skipped.clone().unwrap().reason;
    let mut too_long = options(&[ScenarioKind::Streams, ScenarioKind::SharedPrefix]);
    too_long.scenarios.n_shared = 4090;
    let report = run(vec![backend("one"), backend("two")], &too_long).await;
    assert_eq!(reason(&report, "shared prefix"), SkipReason::Room);
    assert!(named(&report, "3 streams").skipped.is_none(), "the others are done");
    assert!(report.to_text().contains("shared prefix: not done: "), "{}", report.to_text());

    let mut broken = backend("two");
    broken.config.fail_load = true;
    let report = run(vec![backend("one"), broken], &options(&[ScenarioKind::Idle])).await;
    assert_eq!(reason(&report, "after idle"), SkipReason::Arm);

    let mut hasty = options(&[ScenarioKind::Streams, ScenarioKind::Idle]);
    (hasty.scenarios.budget, hasty.scenarios.pause) =
        (Some(Duration::from_millis(1)), Duration::from_millis(20));
    let report = run(vec![backend("one"), backend("two")], &hasty).await;
    assert_eq!(reason(&report, "after idle"), SkipReason::Time);
    assert!(named(&report, "after idle").skipped.clone().unwrap().detail.contains("--scenario idle"));
}

#[tokio::test]
async fn an_engine_that_fails_ends_its_scenario_and_keeps_what_was() {
    let mut failing = backend("two");
    failing.config.fail_step = Some(700);
    let mut options = options(&[ScenarioKind::Streams, ScenarioKind::Idle]);
    options.scenarios.n_blocks = 50;
    let report = run(vec![backend("one"), failing], &options).await;
    assert!(!report.is_complete());
    let failed: Vec<&ScenarioReport> =
        report.scenarios.iter().filter(|scenario| scenario.failure.is_some()).collect();
    assert_eq!(failed.len(), 1, "{:?}", report.scenarios);
    assert!(failed[0].failure.as_ref().unwrap().starts_with("two: "), "{:?}", failed[0].failure);
    assert_eq!(named(&report, "after idle").skipped.as_ref().unwrap().reason, SkipReason::Arm);
}

async fn against(server: impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static, options: BenchOptions) -> Report {
    let stub = Stub::new(server).await;
    let clock = Arc::new(SystemClock::default());
    let server = RemoteServer::new("http", &format!("http://{}", stub.address), clock).unwrap();
    let server = Arc::new(server);
    let options = BenchOptions { servers: vec![server.clone()], ..options };
    let here = Arc::new(backend("one")) as Arc<dyn InferenceBackend>;
    let registry = Registry::new(vec![here, server], Arc::new(|_| Ok(assets(ByteTokenizer::default()))));
    let dir = tempfile::tempdir().unwrap();
    run_models(&registry, &[model(dir.path())], &options, Arc::new(Silent)).await.unwrap()
}

#[tokio::test]
async fn servers_do_what_servers_can() {
    let seen = Arc::new(Seen::default());
    let report = against(script(seen), options(&ScenarioKind::ALL)).await;
    let load = named(&report, "cold start").skipped.as_ref().unwrap();
    assert_eq!(load.reason, SkipReason::Server);
    for name in ["1 stream", "3 streams", "shared prefix", "arrivals", "after idle"] {
        let scenario = named(&report, name);
        assert!(scenario.failure.is_none() && scenario.skipped.is_none(), "{scenario:?}");
        assert!(scenario.comparisons.iter().any(|found| found.ratio.is_some()), "{scenario:?}");
    }
}

/// A server that says so many prompt tokens came from a cache, and sends `short` tokens less.
fn odd(n_cached: usize, short: usize) -> impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static {
    move |got| {
        if got.line == "GET /v1/models" {
            return whole("200 OK", r#"{"data": [{"id": "m"}]}"#);
        }
        let asked = got.body["max_tokens"].as_u64().unwrap() as usize;
        // The bench's own requests, of four tokens and eight for waking, are answered as they should be.
        let n = if asked == 6 { asked - short } else { asked };
        let mut acts = vec![head()];
        acts.extend((0..n).flat_map(|_| [Act::Slow, Act::Send(text("a"))]));
        let n_prompt = got.body["prompt"].as_array().unwrap().len();
        acts.push(Act::Send(end(n_prompt, if asked == 6 { n_cached } else { 0 }, n)));
        acts
    }
}

#[tokio::test]
async fn what_a_server_should_not_do_is_out_of_the_verdict() {
    for (server, code) in [(odd(3, 0), Code::CacheHit), (odd(0, 2), Code::Tokens)] {
        let report = against(server, options(&[ScenarioKind::Streams])).await;
        let scenario = named(&report, "3 streams");
        let codes: Vec<Code> = scenario.findings.iter().map(|finding| finding.code).collect();
        assert!(codes.contains(&code), "{codes:?}");
        let total = &scenario.comparisons[0];
        assert!(
            matches!(&total.verdict, Some(Verdict::Invalid { codes }) if codes.iter().any(|c| c == code.name())),
            "{total:?}"
        );
        assert_eq!(total.n_void, 2);
        assert!(report.to_text().contains(code.name()) && report.to_csv().contains(code.name()));
    }
}

#[tokio::test]
async fn numbers_out_of_range_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    type Change = fn(&mut ScenarioOptions);
    let wrong: [(&str, Change); 9] = [
        ("streams", |options| options.streams = vec![1, 0]),
        ("number of stream counts", |options| options.streams = vec![]),
        ("streams", |options| options.streams = vec![100_000]),
        ("scenario blocks", |options| options.n_blocks = 0),
        ("scenario decode", |options| options.n_decode = 1),
        ("sharers", |options| options.n_sharers = 0),
        ("rate", |options| options.per_second = Some(0.0)),
        ("rate", |options| options.per_second = Some(f64::NAN)),
        ("arrivals", |options| options.n_arrivals = 1),
    ];
    for (name, change) in wrong {
        let mut options = options(&ScenarioKind::ALL);
        change(&mut options.scenarios);
        let registry = registry(vec![backend("one"), backend("two")]);
        let error =
            run_models(&registry, &[model(dir.path())], &options, Arc::new(Silent)).await.unwrap_err();
        assert!(matches!(&error, BenchError::Option { option, .. } if *option == name), "{error}");
    }
}
