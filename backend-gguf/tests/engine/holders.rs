//! Ids above the running sequences: they hold prefixes, and nothing else.

use duet_backend_gguf::GgufSettings;
use duet_core::model::KvType;
use duet_core::testing::conformance::{Tolerance, assert_close};
use duet_core::{BackendError, LoadSpec, ModelRunner, SeqId, StepPlan, Want};

use crate::common::{self, ids, row, step, with_runner};

/// Other cells, other order of sums: not more than that.
const CLOSE: Tolerance = Tolerance(1e-3);

fn spec(parallel: u32) -> LoadSpec {
    let mut spec = common::spec("tiny-llama.gguf");
    spec.kv_type = Some(KvType::F32);
    (spec.parallel, spec.context_length, spec.kv_tokens) = (parallel, 256, 512);
    spec.kv_unified = Some(true);
    spec
}

/// The holders' ids.
fn holders(runner: &dyn ModelRunner) -> std::ops::Range<u32> {
    let capabilities = runner.capabilities();
    capabilities.max_sequences..capabilities.max_sequences + capabilities.n_holders
}

/// Logits after `whole` in a fresh sequence 0, which is released again.
fn fresh(runner: &mut dyn ModelRunner, whole: &[u32]) -> Vec<f32> {
    let logits = step(runner, &[row(0, 0, whole, Want::LastLogits)]).expect("a step");
    runner.release(SeqId(0));
    logits
}

/// Logits after `tokens` in sequence 0 on top of what it has.
fn go_on(runner: &mut dyn ModelRunner, tokens: &[u32]) -> Vec<f32> {
    let position = runner.sequence_len(SeqId(0));
    step(runner, &[row(0, position, tokens, Want::LastLogits)]).expect("a step")
}

#[tokio::test]
async fn every_holder_keeps_a_prefix_of_its_own() {
    with_runner(GgufSettings::default(), spec(2), |runner| {
        let holders = holders(runner);
        assert_eq!(holders, 2..66);
        let whole = ids(1, 100);
        let next = ids(2, 3);
        step(runner, &[row(0, 0, &whole, Want::Nothing)]).expect("a step");
        for holder in holders.clone() {
            runner.fork(SeqId(0), SeqId(holder), 20 + holder).expect("a fork");
        }
        runner.release(SeqId(0));
        assert_eq!(runner.n_cells_used(), 20 + 65, "shared cells count once");
        for holder in [2, 3, 30, 65] {
            let n = 20 + holder as usize;
            let prompt: Vec<u32> = whole[..n].iter().chain(&next).copied().collect();
            let expected = fresh(runner, &prompt);
            runner.fork(SeqId(holder), SeqId(0), 20 + holder).expect("a fork back");
            assert_close("from a holder", &expected, &go_on(runner, &next), CLOSE);
            runner.release(SeqId(0));
        }
        for holder in holders.clone().rev() {
            runner.release(SeqId(holder));
            let left = if holder > 2 { 20 + holder - 1 } else { 0 };
            assert_eq!(runner.n_cells_used(), left);
        }
        // All cells are free in llama.cpp's book too.
        let full = ids(3, 256);
        let rows = [row(0, 0, &full, Want::LastLogits), row(1, 0, &full, Want::LastLogits)];
        step(runner, &rows).expect("every cell");
    })
    .await;
}

#[tokio::test]
async fn a_prefix_goes_from_a_busy_sequence_through_holders_to_another() {
    with_runner(GgufSettings::default(), spec(2), |runner| {
        let (prefix, other, next) = (ids(1, 40), ids(2, 30), ids(3, 5));
        let prompt: Vec<u32> = prefix[..25].iter().chain(&next).copied().collect();
        let expected = fresh(runner, &prompt);
        step(runner, &[row(1, 0, &prefix, Want::Nothing)]).expect("a step");
        // Its prefix is taken while the sequence has a step in flight.
        runner.submit(StepPlan { rows: &[row(1, 40, &other, Want::LastLogits)] }).expect("a step");
        runner.fork(SeqId(1), SeqId(7), 40).expect("a fork");
        runner.collect().expect("the step is untouched");
        runner.fork(SeqId(7), SeqId(65), 30).expect("from holder to holder");
        assert!(runner.truncate(SeqId(65), 25).expect("a cut"));
        assert_eq!([1, 7, 65].map(|seq| runner.sequence_len(SeqId(seq))), [70, 40, 25]);
        assert_eq!(runner.n_cells_used(), 70);
        runner.release(SeqId(7));
        runner.fork(SeqId(65), SeqId(0), 25).expect("to a sequence");
        let rows = [row(0, 25, &next, Want::LastLogits), row(1, 70, &other[..1], Want::LastLogits)];
        let logits = step(runner, &rows).expect("both run");
        assert_close("forked twice", &expected, &logits[..runner.n_vocab()], CLOSE);
        assert_eq!((runner.sequence_len(SeqId(65)), runner.n_cells_used()), (25, 76));
    })
    .await;
}

#[tokio::test]
async fn holders_are_saved_and_restored_like_sequences() {
    with_runner(GgufSettings::default(), spec(2), |runner| {
        let (prefix, next) = (ids(1, 60), ids(2, 5));
        step(runner, &[row(0, 0, &prefix, Want::Nothing)]).expect("a step");
        let original = go_on(runner, &next);
        assert!(runner.truncate(SeqId(0), 60).expect("a cut"));
        for holder in [2, 40, 65] {
            runner.fork(SeqId(0), SeqId(holder), 60).expect("a fork");
        }
        runner.release(SeqId(0));
        for (from, to) in [(65, 0), (40, 1), (2, 3), (40, 64), (64, 0), (3, 1)] {
            let snapshot = runner.snapshot(SeqId(from)).expect("a snapshot");
            assert_eq!(snapshot.n_tokens, 60);
            runner.restore(SeqId(to), &snapshot).expect("an empty sequence");
            assert_eq!((runner.sequence_len(SeqId(to)), runner.sequence_len(SeqId(from))), (60, 60));
            let copy = runner.snapshot(SeqId(to)).expect("of the copy");
            assert_eq!(copy.bytes.len(), snapshot.bytes.len());
            runner.restore(SeqId(to), &snapshot).expect_err("in use");
            if to > 1 {
                continue;
            }
            let rows = [row(to, 60, &next, Want::LastLogits)];
            assert_close("restored", &original, &step(runner, &rows).expect("a step"), CLOSE);
            runner.release(SeqId(to));
        }
        for holder in holders(runner) {
            runner.release(SeqId(holder));
        }
        assert_eq!(runner.n_cells_used(), 0);
        let full = ids(3, 256);
        let rows = [row(0, 0, &full, Want::Nothing), row(1, 0, &full, Want::LastLogits)];
        step(runner, &rows).expect("saving has left nothing in any cell");
    })
    .await;
}

#[tokio::test]
async fn holders_never_have_rows() {
    with_runner(GgufSettings::default(), spec(2), |runner| {
        let tokens = ids(1, 10);
        step(runner, &[row(0, 0, &tokens, Want::Nothing)]).expect("a step");
        runner.fork(SeqId(0), SeqId(2), 10).expect("a fork");
        for (seq, position) in [(2, 10), (3, 0), (65, 0), (66, 0)] {
            let rows = [row(seq, position, &tokens, Want::LastLogits)];
            let error = runner.submit(StepPlan { rows: &rows }).expect_err("a holder's row");
            assert!(matches!(error, BackendError::Engine { operation: "decode", .. }), "{error:?}");
        }
        for (from, to, n) in [(0, 66, 5), (66, 3, 0), (2, 2, 5), (2, 3, 11), (0, 2, 5)] {
            let error = runner.fork(SeqId(from), SeqId(to), n).expect_err("impossible");
            assert!(matches!(error, BackendError::InvalidRequest { .. }), "{from} → {to}, {n}: {error:?}");
        }
        runner.snapshot(SeqId(3)).expect_err("an empty holder has no state");
        runner.snapshot(SeqId(66)).expect_err("nor has one that does not exist");
        runner.release(SeqId(66));
        assert_eq!(runner.n_cells_used(), 10);
    })
    .await;
}

#[tokio::test]
async fn there_are_as_many_as_the_library_has_ids_for() {
    for (parallel, kv_unified, expected) in [(1, false, 0), (1, true, 64), (200, true, 55), (256, true, 0)] {
        let mut spec = spec(parallel);
        spec.kv_unified = Some(kv_unified);
        with_runner(GgufSettings::default(), spec, move |runner| {
            assert_eq!(runner.capabilities().n_holders, expected, "{parallel} sequences");
            assert_eq!(runner.capabilities().max_sequences, parallel);
            let tokens = ids(1, 10);
            step(runner, &[row(parallel - 1, 0, &tokens, Want::Nothing)]).expect("the last sequence runs");
            if let Some(last) = holders(runner).last() {
                runner.fork(SeqId(parallel - 1), SeqId(last), 10).expect("the last holder holds");
                let snapshot = runner.snapshot(SeqId(last)).expect("a snapshot");
                runner.release(SeqId(last));
                runner.restore(SeqId(last), &snapshot).expect("and back");
                assert_eq!(runner.sequence_len(SeqId(last)), 10);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn sequences_have_buffers_of_their_own_where_each_can_have_the_longest_request() {
    // Longest request, cells, sequences: shared?
    for (context, cells, parallel, shared) in [
        (256, 1024, 4, false),
        (257, 1024, 4, true),
        (256, 1023, 4, true),
        (256, 1024, 1, true),
        (512, 512, 3, true),
        (256, 1026, 3, true), // shares of 342 would be rounded up to 512
    ] {
        let mut spec = spec(parallel);
        (spec.context_length, spec.kv_tokens, spec.kv_unified) = (context, cells, None);
        with_runner(GgufSettings::default(), spec, move |runner| {
            let capabilities = runner.capabilities();
            assert_eq!(capabilities.fork_shares_cells, shared, "{parallel} of {context} in {cells}");
            assert_eq!(capabilities.n_holders > 0, shared, "{parallel} of {context} in {cells}");
            assert!(capabilities.context_length >= context);
        })
        .await;
    }
}
