//! Whole runs on engines of known behaviour.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use duet_bench::SystemClock;
use duet_bench::http::RemoteServer;
use duet_bench::order::Side;
use duet_bench::report::{BlockKind, Metric, Report};
use duet_bench::stats::verdict::Verdict;
use duet_bench::validity::Code;
use duet_bench::{
    ArmWeights, BenchOptions, Grade, ReferenceModel, SameBits, Silent, TensorPair, WeightProof, run_models,
};
use duet_core::InferenceBackend;
use duet_core::model::{KvAllocation, KvLayout, KvType};
use duet_core::registry::Registry;
use duet_core::testing::{ByteTokenizer, FakeConfig, Reply};
use serde_json::json;

use crate::stub::{Act, Stub, end, head, text, whole};

async fn run(backends: Vec<TestBackend>, options: &BenchOptions) -> Report {
    let dir = tempfile::tempdir().unwrap();
    run_models(&registry(backends), &[model(dir.path())], options, Arc::new(Silent)).await.unwrap()
}

#[tokio::test]
async fn equal_arms_agree_in_everything() {
    let report = run(vec![backend("one"), backend("two")], &small_options()).await;
    assert!(report.is_complete() && report.exit_code() == 0, "{:?}", report.notes);
    let agreement = report.agreement.as_ref().unwrap();
    assert_eq!((agreement.n_positions, agreement.n_windows, agreement.window), (128, 2, 64));
    assert_eq!((agreement.top1.n_yes, agreement.top1.n), (128, 128));
    assert!(agreement.kl.max < 1e-13 && agreement.flips.is_empty());
    assert_eq!(agreement.perplexity_a, agreement.perplexity_b);
    assert_eq!(report.comparisons.len(), 4);
    for block in &report.blocks {
        let sides: String = block.visits.iter().map(|visit| visit.side.name()).collect();
        assert_eq!(sides, block.order);
        let requests: Vec<usize> = block.visits.iter().map(|visit| visit.request).collect();
        assert_eq!(requests[0], requests[1], "the first visits of both arms have the same ids");
        assert_eq!(requests[2], requests[3]);
        let ids = |index: usize| &block.visits[index].engine.as_ref().unwrap().ids;
        assert_eq!((ids(0), ids(2)), (ids(1), ids(3)));
        assert_ne!(ids(0), ids(2), "no prompt comes twice");
        for visit in &block.visits {
            assert_eq!(visit.runner.as_ref().unwrap().step_ns.len(), 4);
            assert_eq!(
                visit.runner.as_ref().unwrap().n_forward_passes,
                3 + 4,
                "20 prompt tokens in chunks of 8"
            );
            assert_eq!(visit.engine.as_ref().unwrap().itl_ns.len(), 3);
            let again = (
                &visit.runner.as_ref().unwrap().prefill_again_ns,
                &visit.engine.as_ref().unwrap().ttft_again_ns,
            );
            assert_eq!((again.0.len(), again.1.len()), (2, 2), "short prompts are read three times");
        }
    }
    let switches: Vec<bool> =
        report.blocks.iter().flat_map(|block| &block.visits).map(|visit| visit.wash_out.is_some()).collect();
    assert!(switches[0] || switches[1], "a wash-out after a switch");
    assert!(!switches[2], "and none without");
}

/// A server with one model that answers with `n_cached` prompt tokens from a cache.
async fn server(n_cached: usize) -> (Stub, Arc<RemoteServer>) {
    server_of(&["m"], "", n_cached, true).await
}

/// One of these models, asked at its address and `suffix`, that may take text alone.
async fn server_of(
    models: &'static [&'static str],
    suffix: &str,
    n_cached: usize,
    takes_ids: bool,
) -> (Stub, Arc<RemoteServer>) {
    let named = suffix.strip_prefix('#').unwrap_or("m").to_owned();
    let stub = Stub::new(move |got| {
        if got.line == "GET /v1/models" {
            let listed: Vec<_> = models.iter().map(|id| json!({ "id": id })).collect();
            return whole("200 OK", &json!({ "data": listed }).to_string());
        }
        assert_eq!(got.body["model"], named.as_str());
        assert_eq!(got.body["cache_prompt"], false);
        if !takes_ids && !got.body["prompt"].is_string() {
            return whole("400 Bad Request", r#"{"error": "prompt must be a string"}"#);
        }
        assert_eq!(got.body["prompt"].is_array(), takes_ids, "nobody sends texts to a server that takes ids");
        let n = got.body["max_tokens"].as_u64().unwrap() as usize;
        let mut acts = vec![head()];
        acts.extend((0..n).flat_map(|_| [Act::Slow, Act::Send(text("a"))]));
        acts.push(Act::Send(end(20, n_cached, n)));
        acts
    })
    .await;
    let clock = Arc::new(SystemClock::default());
    let server = RemoteServer::new("http", &format!("http://{}{suffix}", stub.address), clock).unwrap();
    (stub, Arc::new(server))
}

async fn against_a_server(server: Arc<RemoteServer>) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let options = BenchOptions { servers: vec![server.clone()], ..small_options() };
    let here = Arc::new(backend("one")) as Arc<dyn InferenceBackend>;
    let registry = Registry::new(vec![here, server], Arc::new(|_| Ok(assets(ByteTokenizer::default()))));
    run_models(&registry, &[model(dir.path())], &options, Arc::new(Silent)).await.unwrap()
}

#[tokio::test]
async fn a_server_is_compared_on_the_level_that_it_has() {
    let (_stub, server) = server(0).await;
    let report = against_a_server(server).await;
    assert!(
        report.is_complete() && report.findings.is_empty(),
        "{:?} {:?}",
        report.arms[1].failure,
        report.findings
    );
    let metrics: Vec<Metric> = report.comparisons.iter().map(|found| found.metric).collect();
    assert_eq!(metrics, [Metric::Ttft, Metric::DecodeNative]);
    let samples =
        report.blocks.iter().flat_map(|block| &block.visits).map(|visit| visit.engine.as_ref().unwrap());
    assert!(samples.map(|sample| sample.ttft_again_ns.len()).all(|n| n == 2));
    assert!(report.comparisons.iter().all(|found| found.ratio.as_ref().unwrap().n_blocks == 2));
    assert!(matches!(&report.weights, WeightProof::Unknown { reason } if reason.contains("server")));
    assert!(report.arms[1].memory.is_none() && report.agreement.is_none());
    assert!(report.to_text().contains("no agreement"));
}

#[tokio::test]
async fn one_of_a_server_s_models_is_named_and_none_is_guessed() {
    let (_stub, server) = server_of(&["a", "b"], "#b", 0, true).await;
    let report = against_a_server(server).await;
    assert!(report.is_complete(), "{:?}", report.arms[1].failure);
    assert!(report.arms[1].loaded.as_ref().unwrap().device.ends_with(" as b"));

    let (_stub, server) = server_of(&["a", "b"], "", 0, true).await;
    let report = against_a_server(server).await;
    let failure = &report.arms[1].failure.as_ref().unwrap().error;
    assert!(failure.contains("several models (a, b)") && failure.contains("#a"), "{failure}");
}

#[tokio::test]
async fn a_server_that_takes_no_ids_gets_text_and_a_lower_grade() {
    let (_stub, server) = server_of(&["m"], "", 0, false).await;
    let report = against_a_server(server).await;
    assert!(report.is_complete(), "{:?}", report.arms[1].failure);
    assert_eq!(report.comparisons.len(), 2);
    let graded = report.grade.as_ref().unwrap();
    assert!(graded.grade == Grade::D && graded.reason.contains("takes text"), "{graded:?}");
    assert!(report.notes.iter().any(|note| note.starts_with("http: the server takes no token ids")));
}

#[tokio::test]
async fn a_server_s_cache_is_out_of_the_verdict() {
    let (_stub, server) = server(7).await;
    let report = against_a_server(server).await;
    assert!(report.findings.iter().all(|finding| finding.code == Code::CacheHit), "{:?}", report.findings);
    for found in &report.comparisons {
        assert!(matches!(&found.verdict, Verdict::Invalid { codes } if codes == &["CACHE_HIT"]));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_fails_its_arm() {
    let (stub, server) = server(0).await;
    drop(stub);
    let report = against_a_server(server).await;
    assert_eq!(report.arms[1].failure.as_ref().unwrap().during, "loading");
    assert!(!report.arms[0].summaries.is_empty(), "the other arm is still measured");
}

#[tokio::test]
async fn arms_that_compute_something_else_have_no_verdict() {
    let mut other = backend("two");
    other.logits = Logits::Times(0.2);
    let report = run(vec![backend("one"), other], &small_options()).await;
    let finding = report.findings.iter().find(|finding| finding.code == Code::Fidelity).unwrap();
    assert!(finding.blocks.is_empty() && finding.detail.contains("nats apart"), "{finding:?}");
    for found in &report.comparisons {
        assert!(
            matches!(&found.verdict, Verdict::Invalid { codes } if codes.contains(&"FIDELITY".to_owned()))
        );
    }
    let agreement = report.agreement.unwrap();
    assert_eq!(agreement.by_depth.iter().map(|band| band.n_positions).sum::<usize>(), 128);
    assert!(agreement.kl_interval.unwrap().high >= agreement.kl.mean);
}

#[tokio::test]
async fn arms_that_compute_something_else_have_no_verdict_at_any_depth() {
    let arms = || {
        let mut other = backend("two");
        other.logits = Logits::Times(0.2);
        vec![backend("one"), other]
    };
    let first = run(arms(), &small_options()).await;
    // As later depths are measured: without logits to compare.
    let later = run(arms(), &BenchOptions { n_agreement: 0, ..small_options() }).await;
    assert!(later.findings.iter().all(|finding| finding.code != Code::Fidelity));
    for report in &duet_bench::sweep::Sweep::of(vec![first, later]).reports {
        assert!(!report.comparisons.is_empty());
        for found in &report.comparisons {
            assert!(
                matches!(&found.verdict, Verdict::Invalid { codes } if codes.contains(&"FIDELITY".to_owned()))
            );
        }
    }
}

#[tokio::test]
async fn another_reply_is_seen() {
    let mut other = backend("two");
    other.config.reply = Reply::text("x");
    let report = run(vec![backend("one"), other], &small_options()).await;
    let agreement = report.agreement.as_ref().unwrap();
    assert!(agreement.top1.share < 0.1, "{:?}", agreement.top1);
    assert!(agreement.kl.mean > 10.0, "{:?}", agreement.kl);
    assert!(agreement.flips.len() > 115 && agreement.kl_nats.len() == 128);
}

#[tokio::test]
async fn a_small_distance_is_small() {
    let mut other = backend("two");
    other.logits = Logits::Times(1.01);
    let report = run(vec![backend("one"), other], &small_options()).await;
    let agreement = report.agreement.unwrap();
    assert_eq!(agreement.top1.n_yes, 128, "a temperature changes no order");
    assert!(agreement.kl.mean > 1e-7 && agreement.kl.max < 1e-2, "{:?}", agreement.kl);
}

fn costing(id: &'static str, clock: &Arc<VirtualClock>, micros: u64, log_sd: f64) -> TestBackend {
    let cost = Cost { clock: clock.clone(), per_token: Duration::from_micros(micros), log_sd, seed: micros };
    TestBackend { cost: Some(cost), ..backend(id) }
}

#[tokio::test]
async fn a_planted_ratio_comes_out() {
    let clock = Arc::new(VirtualClock::default());
    let options = BenchOptions { clock: clock.clone(), ..small_options() };
    let report =
        run(vec![costing("one", &clock, 1200, 0.0), costing("two", &clock, 1000, 0.0)], &options).await;
    for metric in [Metric::Prefill, Metric::DecodeForced] {
        let ratio = report
            .comparisons
            .iter()
            .find(|comparison| comparison.metric == metric)
            .unwrap()
            .ratio
            .as_ref()
            .unwrap();
        assert!((ratio.time_ratio - 1.2).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.speed().0 - 1.0 / 1.2).abs() < 1e-9);
    }
    let prefill = &report.arms[1].summaries[0];
    assert!((prefill.median - 1000.0).abs() < 1e-6, "20 tokens in 20 ms: {prefill:?}");
    let steady =
        report.blocks.iter().flat_map(|block| &block.visits).filter_map(|visit| visit.wash_out.as_ref());
    for wash_out in steady {
        assert!(wash_out.steady && wash_out.step_ns.len() == 8, "{wash_out:?}");
    }
}

#[tokio::test]
async fn a_planted_ratio_comes_out_of_noise() {
    let clock = Arc::new(VirtualClock::default());
    let options = BenchOptions { clock: clock.clone(), n_blocks: 12, n_agreement: 0, ..small_options() };
    let report =
        run(vec![costing("one", &clock, 1050, 0.02), costing("two", &clock, 1000, 0.02)], &options).await;
    let ratio =
        report.comparisons.iter().find(|c| c.metric == Metric::DecodeForced).unwrap().ratio.as_ref().unwrap();
    let interval = ratio.interval.unwrap();
    assert!(interval.low < 1.05 && 1.05 < interval.high, "{ratio:?}");
    assert!(interval.low > 1.02 && interval.high < 1.08, "{ratio:?}");
    assert_eq!((report.agreement.is_none(), report.no_agreement.as_deref()), (true, Some("not asked for")));
    assert!(report.is_complete(), "what was not asked for is not missing");
}

#[tokio::test]
async fn an_arm_that_does_not_load_leaves_the_other_measured() {
    let mut bad = backend("one");
    bad.config.fail_load = true;
    let report = run(vec![bad, backend("two")], &small_options()).await;
    assert_eq!(report.exit_code(), 2);
    let failure = report.arms[0].failure.as_ref().unwrap();
    assert_eq!(failure.during, "loading");
    assert!(failure.error.ends_with("fake.gguf failed: the planned failure"), "{}", failure.error);
    assert_eq!(report.arms[1].summaries.len(), 4);
    assert!(report.arms[0].loaded.is_none() && report.comparisons.is_empty() && report.grade.is_none());
    assert_eq!(report.no_agreement.as_deref(), Some("one failed"));
    assert!(report.to_text().contains("arm one FAILED during loading"), "{}", report.to_text());
}

fn failing(config: FakeConfig) -> TestBackend {
    TestBackend { config, ..backend("two") }
}

#[tokio::test]
async fn an_arm_that_fails_in_the_middle_keeps_what_it_had() {
    // Wash-out, request and generation of the warm-up are some 40 steps.
    for config in [
        FakeConfig { panic_step: Some(60), ..FakeConfig::default() },
        FakeConfig { fail_step: Some(60), ..FakeConfig::default() },
    ] {
        let report = run(vec![backend("one"), failing(config)], &small_options()).await;
        assert_eq!(report.exit_code(), 2);
        let (good, bad) = (&report.arms[0], &report.arms[1]);
        assert!(good.failure.is_none() && good.summaries[0].n_requests == 4, "the other arm goes on");
        let failure = bad.failure.as_ref().unwrap();
        assert!(failure.during.starts_with("block 1, visit"), "{failure:?}");
        assert!(bad.loaded.is_some() && bad.warm_up.is_some());
        let kept: usize = report.blocks.iter().map(|block| block.visits.len()).sum();
        assert!(kept < 8, "visits of a failed arm are missing");
        assert_eq!(report.no_agreement.as_deref(), Some("two failed"));
        assert!(report.comparisons.is_empty(), "no block is whole");
    }
}

#[tokio::test]
async fn nan_logits_are_a_failure_with_a_position() {
    let mut bad = backend("two");
    bad.logits = Logits::NanAt(9);
    let report = run(vec![backend("one"), bad], &small_options()).await;
    let failure = report.arms[1].failure.as_ref().unwrap();
    assert_eq!(failure.during, "warming up");
    assert!(failure.error.starts_with("the logits were not finite at position"), "{}", failure.error);
}

#[tokio::test]
async fn device_sampling_and_steps_in_flight_change_nothing() {
    let config = FakeConfig { steps_in_flight: 2, device_sampling: true, ..FakeConfig::default() };
    let report = run(vec![backend("one"), failing(config)], &small_options()).await;
    assert!(report.is_complete(), "{:?}", report.arms[1].failure);
    let (host, device) = (&report.blocks[0].visits, &report.arms[1].loaded.as_ref().unwrap());
    assert!(device.greedy_on_device && device.steps_in_flight == 2);
    assert_eq!(host[0].engine.as_ref().unwrap().ids, host[1].engine.as_ref().unwrap().ids);
    assert_eq!(report.agreement.unwrap().top1.share, 1.0);
}

/// Shows three tensors; the second one of the second arm as planted.
struct Shows(Result<Vec<f32>, String>);

impl SameBits for Shows {
    fn compare(
        &self,
        a: &ArmWeights,
        b: &ArmWeights,
        each: &mut dyn FnMut(TensorPair<'_>),
    ) -> Result<(), String> {
        assert_eq!((a.engine.as_str(), b.engine.as_str()), ("one", "two"));
        each(TensorPair { name: "embd", a: &[1.0, -0.0], b: &[1.0, 0.0] });
        each(TensorPair { name: "head", a: &[1.0, 2.0], b: self.0.as_ref().map_err(Clone::clone)? });
        each(TensorPair { name: "norm", a: &[f32::NAN], b: &[f32::NAN] });
        Ok(())
    }
}

#[tokio::test]
async fn weights_are_compared_bit_by_bit_and_graded() {
    let run_with = async |shown: Result<Vec<f32>, String>, bytes: u64| {
        let mut options = small_options();
        options.same_bits = Some(Arc::new(Shows(shown)));
        let report =
            run(vec![backend("one"), TestBackend { weight_bytes: bytes, ..backend("two") }], &options).await;
        (report.weights.to_string(), report.grade.unwrap().grade, report.weights)
    };
    let (text, grade, proof) = run_with(Ok(vec![1.0, 2.0]), 1000).await;
    assert_eq!((text.as_str(), grade), ("identical weights: 3 of 3 tensors bit-equal", Grade::A));
    assert_eq!(proof, WeightProof::Identical { n_tensors: 3, n_values: 5 });
    let (_, grade, _) = run_with(Ok(vec![1.0, 2.0]), 1100).await;
    assert_eq!(grade, Grade::B);
    let (text, grade, _) = run_with(Ok(vec![1.0, 2.0000002]), 1000).await;
    assert_eq!(grade, Grade::C);
    assert_eq!(text, "different weights: 2 of 3 tensors bit-equal; first: head[1] is 2 and 2.0000002");
    let (text, ..) = run_with(Ok(vec![1.0]), 1000).await;
    assert!(text.ends_with("head has 2 and 1 values"), "{text}");
    let (text, grade, _) = run_with(Err("no table for Q3_K".into()), 1000).await;
    assert_eq!((text.as_str(), grade), ("no proof of identical weights: no table for Q3_K", Grade::C));
}

/// An engine against itself on one file needs no proof.
#[tokio::test]
async fn an_engine_against_itself_compares_engines() {
    let report = run(vec![backend("one"), backend("one")], &small_options()).await;
    assert_eq!(report.weights, WeightProof::OneFile);
    assert_eq!(report.weights.to_string(), "the same weights: both arms are one engine with one file");
    assert!(!report.to_text().contains("no proof"), "{}", report.to_text());
    assert_eq!(report.grade.unwrap().grade, Grade::A);
    let mut options = small_options();
    options.same_bits = Some(Arc::new(Shows(Err("never asked".into()))));
    let report = run(vec![backend("one"), backend("one")], &options).await;
    assert_eq!(report.weights, WeightProof::OneFile);
}

fn with_reference(path: &str, engine: Option<&str>) -> BenchOptions {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path);
    let reference = ReferenceModel { engine: engine.map(str::to_owned), path };
    BenchOptions { reference: Some(reference), ..small_options() }
}

#[tokio::test]
async fn a_reference_says_which_arm_computes_something_else() {
    let mut other = backend("two");
    other.logits = Logits::Times(0.2);
    let engines = vec![backend("one"), other, backend("three")];
    let mut options = with_reference("tiny-llama.gguf", Some("three"));
    options.engines = Some(["one", "two"].map(str::to_owned));
    let report = run(engines, &options).await;
    let reference = report.reference.as_ref().unwrap();
    let [a, b] = reference.agreements.as_slice() else { panic!("{reference:?}") };
    assert!(a.kl.mean < 1e-9 && b.kl.mean > 0.1, "{} {}", a.kl.mean, b.kl.mean);
    assert_eq!((reference.engine.as_str(), a.n_positions), ("three", 128));
    let finding = report.findings.iter().find(|finding| finding.code == Code::Fidelity).unwrap();
    assert!(finding.arm == Some(Side::B) && finding.detail.contains("from the reference"), "{finding:?}");
    for text in [report.to_text(), report.to_markdown(), report.to_html()] {
        assert!(text.contains("fidelity of two: KL(reference ‖ two) mean"), "{text}");
    }
    let mut again = report.clone();
    again.analyse_again();
    assert_eq!(again.findings, report.findings);
}

#[tokio::test]
async fn a_reference_that_cannot_be_had_is_said() {
    for (path, engine, part) in
        [("no-such.gguf", None, "no-such.gguf"), ("tiny-llama.gguf", Some("nine"), "nine")]
    {
        let report = run(vec![backend("one"), backend("two")], &with_reference(path, engine)).await;
        assert!(report.reference.is_none() && report.is_complete());
        let note = report.notes.iter().find(|note| note.starts_with("not held against the reference: "));
        assert!(note.is_some_and(|note| note.contains(part)), "{:?}", report.notes);
    }
    let mut options = with_reference("tiny-llama.gguf", None);
    options.n_agreement = 0;
    let report = run(vec![backend("one"), backend("two")], &options).await;
    assert!(report.notes.iter().any(|note| note.contains("no logits are compared")), "{:?}", report.notes);
}

#[tokio::test]
async fn settings_that_differ_are_said() {
    let report =
        run(vec![backend("one"), TestBackend { kv_type: "f32", ..backend("two") }], &small_options()).await;
    assert_eq!(report.differences, ["KV cache: f16 against f32"]);
    assert!(report.notes.contains(&"one: a slow path".to_owned()), "{:?}", report.notes);
}

#[tokio::test]
async fn a_cache_of_another_size_than_predicted_takes_the_verdict() {
    // Two layers of 2 heads of 16, keys and values, in f16: 256 bytes a token; the fake says 1,000,000.
    let layout = |allocation| KvLayout { kv_type: KvType::F16, allocation };
    let mut predicted = TestBackend { kv_bytes: Some(1_000_000), ..backend("one") };
    predicted.layout = layout(KvAllocation::Resident);
    let report = run(vec![predicted.clone(), backend("two")], &small_options()).await;
    let memory = report.arms[0].memory.as_ref().unwrap();
    assert_eq!((memory.predicted_kv_bytes, memory.engine.kv_bytes), (Some(24 * 256), Some(1_000_000)));
    let finding = report.findings.iter().find(|finding| finding.code == Code::Kv).unwrap();
    assert_eq!((finding.arm, finding.blocks.len()), (Some(Side::A), 0));
    for found in &report.comparisons {
        assert!(matches!(&found.verdict, Verdict::Invalid { codes } if codes.contains(&"KV".to_owned())));
    }
    predicted.layout = layout(KvAllocation::LlamaCpp { n_ubatch: 8, unified: true, swa_full: false });
    let report = run(vec![predicted, backend("two")], &small_options()).await;
    assert_eq!(
        report.arms[0].memory.as_ref().unwrap().predicted_kv_bytes,
        Some(256 * 256),
        "all from the start"
    );
}

#[tokio::test]
async fn a_noise_floor_and_a_pilot_come_before_the_blocks() {
    let clock = Arc::new(VirtualClock::default());
    let options = BenchOptions {
        clock: clock.clone(),
        n_aa_blocks: 3,
        n_pilot_blocks: 3,
        n_blocks: 8,
        n_agreement: 0,
        ..small_options()
    };
    let report =
        run(vec![costing("one", &clock, 1200, 0.01), costing("two", &clock, 1000, 0.01)], &options).await;
    let kinds: Vec<BlockKind> = report.blocks.iter().map(|block| block.kind).collect();
    let n_ab = report.plan.orders.len();
    assert!((5..=8).contains(&n_ab), "the pilot says how many: {n_ab}");
    assert_eq!(
        (kinds[0], kinds[3], kinds[6], kinds.len()),
        (BlockKind::Aa, BlockKind::Pilot, BlockKind::Ab, 6 + n_ab)
    );
    assert_eq!((report.plan.n_aa_blocks, report.plan.n_pilot_blocks), (3, 3));
    for metric in [Metric::Prefill, Metric::DecodeForced] {
        let found = report.comparisons.iter().find(|found| found.metric == metric).unwrap();
        assert_eq!(found.ratio.as_ref().unwrap().n_blocks, n_ab, "neither A/A nor pilot blocks enter");
        assert_eq!(found.aa.len(), 2);
        let floor = found.margin.floor.unwrap();
        assert!(
            found.aa.iter().all(|own| (own.ratio.time_ratio - 1.0).abs() <= floor) && floor < 0.1,
            "{found:?}"
        );
        assert_eq!(found.verdict, Verdict::Winner { side: Side::B });
    }
    let requests: Vec<usize> =
        report.blocks.iter().flat_map(|block| &block.visits).map(|visit| visit.request).collect();
    assert_eq!(requests.iter().max(), Some(&(2 * (6 + n_ab))), "each block has two requests of its own");
    let mut other = options.clone();
    other.n_processes = 4;
    let report =
        run(vec![costing("one", &clock, 1200, 0.01), costing("two", &clock, 1000, 0.01)], &other).await;
    assert_eq!(report.plan.orders.len(), n_ab.div_ceil(4).max(3), "a share of them");
}

#[tokio::test]
async fn what_does_not_fit_the_time_is_cut_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let clock = Arc::new(VirtualClock::default());
    let backends = registry(vec![costing("one", &clock, 1000, 0.0), costing("two", &clock, 1000, 0.0)]);
    // A visit is three prompts of 20 tokens and 4 more, twice, and some of a wash-out: a block takes about half a second.
    let options = BenchOptions {
        clock: clock.clone(),
        n_aa_blocks: 4,
        n_blocks: 8,
        budget: Some(Duration::from_millis(5300)),
        ..small_options()
    };
    let report = run_models(&backends, &[model(dir.path())], &options, recorder.clone()).await.unwrap();
    assert!((3..8).contains(&report.plan.orders.len()), "{:?}", report.plan);
    assert_eq!(report.blocks.len(), report.plan.orders.len() + report.plan.n_aa_blocks);
    let notes = recorder.notes.lock().unwrap();
    assert!(notes[0].starts_with("a block takes about 0.5s here: "), "{notes:?}");
    assert!(notes[0].contains(" of 8 blocks"), "{notes:?}");
}

#[tokio::test]
async fn an_engine_against_itself() {
    let mut options = small_options();
    options.engines = Some(["one".into(), "one".into()]);
    let report = run(vec![backend("one")], &options).await;
    assert_eq!((report.arms[0].label.as_str(), report.arms[1].label.as_str()), ("one-1", "one-2"));
    assert!(report.is_aa());
    assert!(report.is_complete());
}

#[tokio::test]
async fn the_reporter_hears_the_plan_first_and_every_phase() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let backends = registry(vec![backend("one"), backend("two")]);
    run_models(&backends, &[model(dir.path())], &small_options(), recorder.clone()).await.unwrap();
    let plan = recorder.plans.lock().unwrap().pop().unwrap();
    assert_eq!((plan.n_prompt, plan.n_decode, plan.orders.len(), plan.context_length), (20, 4, 2, 256));
    assert!(plan.to_string().contains("2 blocks ("), "{plan}");
    assert_eq!(recorder.estimates.lock().unwrap().len(), 1);
    let phases = recorder.phases.lock().unwrap().join(", ");
    assert_eq!(
        phases,
        "hashing the files, loading one, warming up one, loading two, warming up two, measuring, agreement"
    );
}

#[tokio::test]
async fn the_reporter_hears_of_a_failure_once_and_when_it_happens() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let failing = failing(FakeConfig { panic_step: Some(60), ..FakeConfig::default() });
    let backends = registry(vec![backend("one"), failing]);
    run_models(&backends, &[model(dir.path())], &small_options(), recorder.clone()).await.unwrap();
    let notes = recorder.notes.lock().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("two failed during block 1, visit "), "{notes:?}");
}
