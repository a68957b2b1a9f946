//! The runner below the scheduler: batching, forking, splitting, and refusing what llama.cpp would abort on.

use duet_backend_gguf::{GgufBackend, GgufSettings};
use duet_core::model::KvType;
use duet_core::testing::conformance::{Tolerance, assert_close};
use duet_core::{BackendError, InferenceBackend, LoadSpec, ModelRunner, RowTokens, SeqId, StepPlan, Want};

use crate::common::{self, ids, row, step, with_runner};

const CLOSE: Tolerance = Tolerance(1e-3);

fn spec(parallel: u32, context_length: u32) -> LoadSpec {
    let mut spec = common::spec("tiny-llama.gguf");
    spec.kv_type = Some(KvType::F32);
    spec.parallel = parallel;
    spec.context_length = context_length;
    spec.kv_tokens = context_length * parallel;
    spec
}

/// Logits of `tokens` alone in a fresh sequence, which is released again.
fn alone(runner: &mut dyn ModelRunner, tokens: &[u32], want: Want) -> Vec<f32> {
    let logits = step(runner, &[row(0, 0, tokens, want)]).expect("a step");
    runner.release(SeqId(0));
    logits
}

#[tokio::test]
async fn a_prompt_longer_than_the_batch_is_split() {
    let settings = GgufSettings { batch: 16, micro_batch: 8, ..GgufSettings::default() };
    with_runner(GgufSettings::default(), spec(2, 256), |whole| {
        let tokens = ids(1, 100);
        let expected = alone(whole, &tokens, Want::AllLogits);
        on_another(settings, move |split| {
            assert_eq!(split.capabilities().max_step_tokens, 16);
            assert_close("all rows", &expected, &alone(split, &tokens, Want::AllLogits), CLOSE);
            let n_vocab = split.n_vocab();
            let last = alone(split, &tokens, Want::LastLogits);
            assert_close("last row", &expected[99 * n_vocab..], &last, CLOSE);
            let passes = split.n_forward_passes();
            alone(split, &tokens, Want::Nothing);
            assert_eq!(split.n_forward_passes() - passes, 13, "12 full micro-batches and one of 4");
        });
    })
    .await;
}

/// As `with_runner`, on a thread of its own, from inside of a job.
fn on_another(settings: GgufSettings, job: impl FnOnce(&mut dyn ModelRunner) + Send + 'static) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(with_runner(settings, spec(2, 256), job));
        });
    });
}

#[tokio::test]
async fn outputs_beyond_the_limit_are_gathered_in_plan_order() {
    let settings = GgufSettings { outputs: 4, ..GgufSettings::default() };
    with_runner(settings, spec(4, 128), |runner| {
        let (a, b, c) = (ids(1, 9), ids(2, 21), ids(3, 2));
        let expected: Vec<f32> =
            [&a, &b, &c].into_iter().flat_map(|tokens| alone(runner, tokens, Want::AllLogits)).collect();
        let rows =
            [row(0, 0, &a, Want::AllLogits), row(1, 0, &b, Want::AllLogits), row(3, 0, &c, Want::AllLogits)];
        assert_close("gathered", &expected, &step(runner, &rows).expect("a step"), CLOSE);
        // Rows without outputs in between, and none at the end.
        for seq in 0..4 {
            runner.release(SeqId(seq));
        }
        let n_vocab = runner.n_vocab();
        let rows =
            [row(0, 0, &a, Want::LastLogits), row(1, 0, &b, Want::AllLogits), row(3, 0, &c, Want::Nothing)];
        let got = step(runner, &rows).expect("a step");
        assert_close("mixed wants", &expected[8 * n_vocab..30 * n_vocab], &got, CLOSE);
    })
    .await;
}

#[tokio::test]
async fn a_step_that_wants_nothing_gives_nothing() {
    with_runner(GgufSettings::default(), spec(1, 128), |runner| {
        let tokens = ids(1, 30);
        assert!(step(runner, &[row(0, 0, &tokens, Want::Nothing)]).expect("a step").is_empty());
        let next = step(runner, &[row(0, 30, &tokens[..1], Want::LastLogits)]).expect("a step");
        assert_eq!(next.len(), runner.n_vocab());
    })
    .await;
}

#[tokio::test]
async fn a_fork_from_a_busy_sequence_equals_a_fresh_one() {
    for kv_unified in [true, false] {
        let mut spec = spec(3, 128);
        spec.kv_unified = Some(kv_unified);
        with_runner(GgufSettings::default(), spec, move |runner| {
            let (prefix, branch, other) = (ids(1, 40), ids(2, 10), ids(3, 12));
            let whole: Vec<u32> = prefix.iter().chain(&branch).copied().collect();
            let expected = alone(runner, &whole, Want::LastLogits);
            // The source goes on while its prefix is taken, before and after.
            step(runner, &[row(0, 0, &prefix, Want::Nothing)]).expect("a step");
            step(runner, &[row(0, 40, &other, Want::LastLogits)]).expect("a step");
            runner.fork(SeqId(0), SeqId(2), 40).expect("a fork");
            assert_eq!((runner.sequence_len(SeqId(0)), runner.sequence_len(SeqId(2))), (52, 40));
            assert_eq!(runner.n_cells_used(), if kv_unified { 52 } else { 92 });
            let rows = [row(0, 52, &other[..1], Want::LastLogits), row(2, 40, &branch, Want::LastLogits)];
            let logits = step(runner, &rows).expect("a step");
            assert_close("forked", &expected, &logits[runner.n_vocab()..], CLOSE);
            runner.release(SeqId(0));
            assert_eq!(runner.n_cells_used(), 50);
        })
        .await;
    }
}

#[tokio::test]
async fn forks_that_cannot_be_are_typed() {
    with_runner(GgufSettings::default(), spec(3, 128), |runner| {
        let tokens = ids(1, 10);
        step(runner, &[row(0, 0, &tokens, Want::Nothing), row(1, 0, &tokens, Want::Nothing)])
            .expect("a step");
        for (from, to, n) in
            [(0, 2, 11), (0, 1, 5), (0, 0, 5), (0, 67, 5), (67, 2, 5), (9999, 2, 0), (0, u32::MAX, 5)]
        {
            let error = runner.fork(SeqId(from), SeqId(to), n).expect_err("impossible");
            assert!(matches!(error, BackendError::InvalidRequest { .. }), "{from} → {to}, {n}: {error:?}");
        }
        runner.fork(SeqId(0), SeqId(2), 0).expect("nothing is fine");
        assert_eq!((runner.sequence_len(SeqId(2)), runner.n_cells_used()), (0, 20));
    })
    .await;
}

#[tokio::test]
async fn released_cells_can_all_be_used_again() {
    for kv_unified in [true, false] {
        let mut spec = spec(2, 256);
        spec.kv_unified = Some(kv_unified);
        with_runner(GgufSettings::default(), spec, move |runner| {
            let full = ids(5, 256);
            for round in 0..3 {
                // Filled to the last cell: a leak of one would fail, in the book or in llama.cpp.
                let rows = [row(0, 0, &full, Want::LastLogits), row(1, 0, &full, Want::LastLogits)];
                step(runner, &rows).unwrap_or_else(|error| panic!("round {round}: {}", error.chain()));
                assert_eq!(runner.n_cells_used(), 512);
                let error = step(runner, &[row(0, 256, &full[..1], Want::LastLogits)]).expect_err("full");
                assert!(matches!(error, BackendError::KvCacheFull { n_rows: 1 }), "{error:?}");
                assert_eq!(runner.n_cells_used(), 512, "and nothing has changed");
                runner.release(SeqId(0));
                assert_eq!(runner.n_cells_used(), 256);
                assert!(runner.truncate(SeqId(1), 100).expect("a cut"));
                assert_eq!(runner.n_cells_used(), 100);
                runner.release(SeqId(1));
                runner.release(SeqId(1));
                assert_eq!(runner.n_cells_used(), 0);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_step_that_does_not_fit_changes_nothing() {
    with_runner(GgufSettings::default(), spec(2, 256), |runner| {
        let tokens = ids(1, 60);
        let (start, long) = (ids(2, 61), ids(3, 512));
        let (start, last) = start.split_at(60);
        let expected = alone(runner, &ids(2, 61), Want::LastLogits);
        step(runner, &[row(0, 0, start, Want::Nothing)]).expect("a step");
        let rows = [row(0, 60, last, Want::LastLogits), row(1, 0, &long, Want::LastLogits)];
        let error = step(runner, &rows).expect_err("too many");
        assert!(matches!(error, BackendError::KvCacheFull { .. }), "{error:?}");
        assert_eq!((runner.sequence_len(SeqId(0)), runner.sequence_len(SeqId(1))), (60, 0));
        let next = step(runner, &[row(0, 60, last, Want::LastLogits)]).expect("goes on");
        assert_close("after a refused step", &expected, &next, CLOSE);
        step(runner, &[row(1, 0, &tokens, Want::LastLogits)]).expect("the other id is free");
    })
    .await;
}

#[tokio::test]
async fn plans_that_would_abort_the_process_are_refused() {
    with_runner(GgufSettings::default(), spec(2, 128), |runner| {
        let tokens = ids(1, 4);
        let n_vocab = runner.n_vocab() as u32;
        let (beyond, far) = ([n_vocab], [u32::MAX]);
        let bad: [&[_]; 9] = [
            &[],
            &[row(2, 0, &tokens, Want::LastLogits)],
            &[row(u32::MAX, 0, &tokens, Want::LastLogits)],
            &[row(0, 1, &tokens, Want::LastLogits)],
            &[row(0, u32::MAX, &tokens, Want::LastLogits)],
            &[row(0, 0, &[], Want::LastLogits)],
            &[row(0, 0, &beyond, Want::LastLogits)],
            &[row(0, 0, &far, Want::LastLogits)],
            &[row(1, 0, &tokens, Want::LastLogits), row(0, 0, &tokens, Want::LastLogits)],
        ];
        for rows in bad {
            let error = runner.submit(StepPlan { rows }).expect_err("refused");
            assert!(matches!(error, BackendError::Engine { operation: "decode", .. }), "{rows:?}: {error:?}");
        }
        let twice = [row(0, 0, &tokens, Want::Nothing), row(0, 4, &tokens, Want::Nothing)];
        runner.submit(StepPlan { rows: &twice }).expect_err("two rows of one sequence");
        let mut previous = row(0, 0, &tokens, Want::LastLogits);
        previous.tokens = RowTokens::Previous;
        let error = runner.submit(StepPlan { rows: &[previous] }).expect_err("no device sampling here");
        assert!(matches!(error, BackendError::Unsupported { .. }), "{error:?}");
        assert_eq!(runner.n_cells_used(), 0);
        assert_eq!(
            step(runner, &[row(0, 0, &tokens, Want::LastLogits)]).expect("still works").len(),
            runner.n_vocab()
        );
        runner.release(SeqId(77));
        assert!(runner.truncate(SeqId(77), 0).expect("nothing to cut"));
        assert_eq!(runner.sequence_len(SeqId(77)), 0);
    })
    .await;
}

#[tokio::test]
async fn one_step_is_in_flight_at_a_time() {
    with_runner(GgufSettings::default(), spec(2, 128), |runner| {
        let tokens = ids(1, 4);
        let first =
            runner.submit(StepPlan { rows: &[row(0, 0, &tokens, Want::LastLogits)] }).expect("a step");
        runner
            .submit(StepPlan { rows: &[row(1, 0, &tokens, Want::LastLogits)] })
            .expect_err("the first is not collected");
        let output = runner.collect().expect("the first is untouched");
        assert_eq!((output.step, output.logits.len()), (first, output.n_vocab));
        runner.collect().expect_err("nothing is in flight");
    })
    .await;
}

#[tokio::test]
async fn snapshots_travel_between_equal_models_only() {
    let (tokens, next) = (ids(1, 33), ids(2, 1));
    let whole: Vec<u32> = tokens.iter().chain(&next).copied().collect();
    let (sender, receiver) = std::sync::mpsc::channel();
    with_runner(GgufSettings::default(), spec(2, 128), move |runner| {
        let expected = alone(runner, &whole, Want::LastLogits);
        step(runner, &[row(1, 0, &whole[..33], Want::Nothing)]).expect("a step");
        runner.snapshot(SeqId(0)).expect_err("an empty sequence has no state");
        runner.snapshot(SeqId(66)).expect_err("nor has one that does not exist");
        let snapshot = runner.snapshot(SeqId(1)).expect("a snapshot");
        let error = runner.restore(SeqId(1), &snapshot).expect_err("in use");
        assert!(matches!(error, BackendError::InvalidRequest { .. }), "{error:?}");
        sender.send((expected, snapshot)).expect("received below");
    })
    .await;
    let (expected, snapshot) = receiver.recv().expect("sent above");
    let (copy, foreign) = (snapshot.clone(), snapshot);
    with_runner(GgufSettings::default(), spec(2, 128), move |runner| {
        runner.restore(SeqId(0), &copy).expect("the same model");
        assert_eq!((runner.sequence_len(SeqId(0)), runner.n_cells_used()), (33, 33));
        let logits = step(runner, &[row(0, 33, &next, Want::LastLogits)]).expect("a step");
        assert_close("restored", &expected, &logits, CLOSE);
        for at in (0..copy.bytes.len()).step_by(copy.bytes.len() / 50) {
            let mut broken = copy.clone();
            broken.bytes[at] ^= 0x40;
            let error = runner.restore(SeqId(1), &broken).expect_err("a damaged snapshot");
            assert!(matches!(error, BackendError::InvalidRequest { .. }), "{error:?}");
        }
        let mut longer = copy;
        longer.n_tokens += 1;
        runner.restore(SeqId(1), &longer).expect_err("another length");
    })
    .await;
    let mut other = spec(2, 128);
    other.kv_type = Some(KvType::F16);
    with_runner(GgufSettings::default(), other, move |runner| {
        runner.restore(SeqId(0), &foreign).expect_err("another cache type");
    })
    .await;
}

#[tokio::test]
async fn every_cache_type_generates() {
    for kv_type in [KvType::F32, KvType::F16, KvType::Bf16, KvType::Q8_0] {
        let mut spec = spec(1, 128);
        spec.kv_type = Some(kv_type);
        let model = match common::load_with(GgufSettings::default(), spec).await {
            Ok(model) => model,
            // The fixtures' heads are smaller than a block of a quantised cache.
            Err(error) if kv_type == KvType::Q8_0 => {
                assert!(matches!(error, BackendError::LoadFailed { .. }), "{error:?}");
                assert!(error.chain().contains("block size"), "{}", error.chain());
                continue;
            }
            Err(error) => panic!("{kv_type:?}: {}", error.chain()),
        };
        common::on_runner(model.as_ref(), |runner| {
            let logits = alone(runner, &ids(1, 20), Want::AllLogits);
            assert!(logits.iter().all(|x| x.is_finite()));
        })
        .await;
        model.unload().await;
    }
}

#[tokio::test]
async fn memory_is_reported_as_llama_cpp_counts_it() {
    let mut small = spec(1, 256);
    small.kv_type = Some(KvType::F16);
    let n_layers = u64::from(small.model.n_layers);
    let width = u64::from(small.model.n_kv_heads * (small.model.head_dim_k + small.model.head_dim_v));
    let expected = n_layers * width * 2 * 4096;
    small.context_length = 4096;
    small.kv_tokens = 4096;
    with_runner(GgufSettings::default(), small, move |runner| {
        let memory = runner.memory();
        let kv = memory.kv_bytes.expect("a cache");
        assert!(kv.abs_diff(expected) * 50 <= expected, "{kv} instead of {expected}");
        assert!(memory.weights_bytes.is_some_and(|bytes| bytes > 100_000), "{memory:?}");
        assert!(memory.compute_bytes.is_some_and(|bytes| bytes > 0), "{memory:?}");
    })
    .await;
}

#[tokio::test]
async fn the_cache_is_as_large_as_the_probe_lets_one_plan() {
    for kv_unified in [None, Some(false)] {
        let mut spec = common::spec("tiny-llama.gguf");
        (spec.parallel, spec.context_length, spec.kv_tokens) = (3, 2048, 10_000);
        spec.kv_unified = kv_unified;
        let probe = GgufBackend::default().probe(&spec.model).expect("it takes the fixture");
        let allocation = probe.kv_allocation.for_load(kv_unified);
        let planned = allocation.bytes(&spec.model, 10_000, 3, probe.kv_type).expect("plain attention");
        with_runner(GgufSettings::default(), spec, move |runner| {
            let kv = runner.memory().kv_bytes.expect("a cache");
            // The library logs hundredths of a MiB.
            assert!(kv.abs_diff(planned) <= 11_000, "{kv} instead of {planned}");
        })
        .await;
    }
}
