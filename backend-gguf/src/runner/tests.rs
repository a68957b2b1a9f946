//! Steps and warm-ups that are given up half way: only from in here can llama.cpp be stopped at will.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use duet_core::model::{KvType, inspect};
use duet_core::{LoadSpec, PlanRow, RowTokens, Want};

use super::*;
use crate::load::load_runner;
use crate::settings::GgufSettings;
use crate::tokenizer::load_tokenizer;

fn runner(kv_unified: bool) -> GgufRunner {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-llama.gguf");
    let mut spec = LoadSpec::new(Arc::new(inspect(&path).unwrap()), load_tokenizer(&path).unwrap());
    (spec.parallel, spec.context_length, spec.kv_tokens) = (2, 256, 512);
    (spec.threads, spec.kv_unified, spec.kv_type) = (Some(2), Some(kv_unified), Some(KvType::F32));
    let settings = GgufSettings { micro_batch: 8, batch: 16, ..GgufSettings::default() };
    load_runner(&spec, &settings, &mut |_| true).unwrap().runner
}

fn evaluate(runner: &mut GgufRunner, rows: &[PlanRow<'_>]) -> Result<Vec<f32>, BackendError> {
    runner.submit(StepPlan { rows })?;
    Ok(runner.collect()?.logits.to_vec())
}

fn row(seq: u32, position: u32, tokens: &[TokenId]) -> PlanRow<'_> {
    PlanRow { seq: SeqId(seq), position, tokens: RowTokens::Host(tokens), want: Want::LastLogits }
}

#[test]
fn a_warm_up_is_given_up_and_leaves_nothing() {
    let mut runner = runner(true);
    let mut n_asked = 0;
    let error = runner
        .warm_up(1, &mut || {
            n_asked += 1;
            n_asked > 5
        })
        .unwrap_err();
    assert!(matches!(error, BackendError::LoadCancelled), "{error:?}");
    assert_eq!((n_asked, runner.context.positions(0)), (6, None));
    runner.warm_up(1, &mut || false).unwrap();
    assert_eq!((runner.context.positions(0), runner.n_cells_used()), (None, 0));
}

/// Aborted anywhere in a step of several calls of several micro-batches, a step leaves no trace.
#[test]
fn an_aborted_step_is_taken_back() {
    for kv_unified in [true, false] {
        let mut runner = runner(kv_unified);
        let start: Vec<TokenId> = (20..30).collect();
        let more: Vec<TokenId> = (100..140).collect();
        // So many more nodes of the graph, then whatever runs is given up.
        let left = Rc::new(Cell::new(i64::MAX));
        let nodes = left.clone();
        runner.context.stop_whenever(move || nodes.replace(nodes.get() - 1) <= 0);
        evaluate(&mut runner, &[row(0, 0, &start)]).unwrap();
        left.set(1 << 40);
        let rows = [row(0, 10, &more), row(1, 0, &more)];
        let expected = evaluate(&mut runner, &rows).unwrap();
        let n_nodes = (1 << 40) - left.get();
        assert!(n_nodes > 100, "five calls of two micro-batches: {n_nodes}");
        assert!(runner.truncate(SeqId(0), 10).unwrap());
        runner.release(SeqId(1));
        for part in 0..8 {
            left.set(n_nodes * part / 8);
            let error = evaluate(&mut runner, &rows).unwrap_err();
            assert!(error.chain().contains("llama_decode gave 2"), "{}", error.chain());
            assert_eq!((runner.sequence_len(SeqId(0)), runner.sequence_len(SeqId(1))), (10, 0));
            assert_eq!(runner.n_cells_used(), 10);
            assert_eq!(runner.context.positions(0), Some((0, 9)), "in llama.cpp's own book too");
            assert_eq!(runner.context.positions(1), None);
            runner.collect().expect_err("a failed step gives nothing");
        }
        left.set(i64::MAX);
        let again = evaluate(&mut runner, &rows).unwrap();
        let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert!(expected.iter().zip(&again).all(|(a, b)| (a - b).abs() <= 1e-3 * scale));
    }
}
