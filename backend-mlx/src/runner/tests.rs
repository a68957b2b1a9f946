//! The runner's use of its caches over many steps.

use std::path::Path;

use duet_core::model::inspect;
use duet_core::{DeviceSampling, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};

use super::*;
use crate::loader::{self, Held, LoadPlan, Placement};
use crate::raw;
use crate::tensor::{Device, ElementType};

const GREEDY: Want =
    Want::Token(DeviceSampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0 });

fn runner(path: &Path, max_sequences: u32, context_length: u32) -> MlxRunner {
    let placement = Placement { device: Device::Cpu, compute: ElementType::F32, held: Held::Dense };
    let plan = LoadPlan { placement, context_length: context_length as usize };
    let model = inspect(path).expect("a model");
    let decoder = on_stream(|_| loader::build(&model, plan, &|_| Ok(()))).expect("it loads");
    let config = &decoder.config;
    let cache = CacheShape { n_kv_heads: config.n_kv_heads, head_dim: config.head_dim, ty: ElementType::F32 };
    let kv_tokens = max_sequences * context_length;
    let limits = RunnerLimits { max_sequences, context_length, kv_tokens, max_step_tokens: 512 };
    MlxRunner::new(decoder, limits, cache, 0)
}

/// Where every layer's keys and values lie in memory.
fn addresses(runner: &MlxRunner, seq: u32) -> Vec<*const f32> {
    on_stream(|_| runner.sequences.addresses(SeqId(seq)))
}

fn row(seq: u32, position: u32, tokens: RowTokens<'_>, want: Want) -> PlanRow<'_> {
    PlanRow { seq: SeqId(seq), position, tokens, want }
}

fn step(runner: &mut MlxRunner, position: u32, tokens: RowTokens<'_>, want: Want) {
    runner.submit(StepPlan { rows: &[row(0, position, tokens, want)] }).expect("a step");
}

/// The bits of the logits after every token of `ids`, evaluated in one step as the next tokens of `seq`.
fn bits(runner: &mut MlxRunner, seq: u32, ids: &[u32]) -> Vec<u32> {
    let position = runner.sequence_len(SeqId(seq));
    let rows = [row(seq, position, RowTokens::Host(ids), Want::AllLogits)];
    runner.submit(StepPlan { rows: &rows }).expect("a step");
    runner.collect().expect("its result").logits.iter().map(|logit| logit.to_bits()).collect()
}

fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|index| (index * 7919 + 13) % 320).collect()
}

fn tiny(max_sequences: u32) -> MlxRunner {
    raw::start().expect("MLX starts");
    runner(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-llama"), max_sequences, 512)
}

/// With a step always in flight, as the engine runs it: no step may copy a cache, which would cost more than the step.
/// On a model deep enough that evaluation of a layer is over before the next step comes to it.
#[test]
#[expect(clippy::print_stderr, reason = "a skip is for whoever runs the tests")]
fn steps_in_flight_write_in_place() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        eprintln!("skipped: no demo model; `make setup` fetches it");
        return;
    }
    raw::start().expect("MLX starts");
    let mut runner = runner(&path, 1, 256);
    step(&mut runner, 0, RowTokens::Host(&[1, 2, 3, 4]), GREEDY);
    runner.collect().expect("its result");
    let before = addresses(&runner, 0);
    step(&mut runner, 4, RowTokens::Host(&[5]), GREEDY);
    for position in 5..45 {
        step(&mut runner, position, RowTokens::Previous, GREEDY);
        runner.collect().expect("the older step");
    }
    runner.collect().expect("the last step");
    let after = addresses(&runner, 0);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(before.len(), 60);
    assert_eq!(moved, 0, "of 60 buffers {moved} were copied");
}

/// What the engine does with a conversation: kept when a request ends, taken up by the next, at its end or before.
#[test]
fn held_prefixes_give_the_logits_of_fresh_ones() {
    let mut runner = tiny(2);
    let holder = SeqId(runner.capabilities().max_sequences + runner.capabilities().n_holders - 1);
    let (prompt, rest) = (ids(200), [7, 8, 9]);
    for n in [200, 150, 20] {
        bits(&mut runner, 0, &prompt[..n]);
        let fresh = bits(&mut runner, 0, &rest);
        runner.release(SeqId(0));

        bits(&mut runner, 0, &prompt[..n]);
        if n < 200 {
            bits(&mut runner, 0, &prompt[n..]);
        }
        let before = addresses(&runner, 0);
        runner.fork(SeqId(0), holder, 200).expect("kept");
        runner.release(SeqId(0));
        assert_eq!((runner.n_cells_used(), runner.sequence_len(holder)), (200, 200));
        assert_eq!(addresses(&runner, holder.0), before, "kept without a copy");

        // Found twice, the second time for good.
        for consumed in [false, true] {
            runner.fork(holder, SeqId(1), n as u32).expect("taken up");
            if consumed {
                runner.release(holder);
            }
            assert_eq!(bits(&mut runner, 1, &rest), fresh, "{n}, consumed: {consumed}");
            if consumed && n > 128 {
                assert_eq!(addresses(&runner, 1), before, "taken up without a copy");
            }
            runner.release(SeqId(1));
        }
        assert_eq!(runner.n_cells_used(), 0);
    }
}

/// A fork from a sequence whose next steps are already under way, one that goes on and one that is given up.
#[test]
fn forks_from_a_busy_sequence() {
    let prompt = ids(60);
    for n in [61, 40] {
        let mut runner = tiny(3);
        // Alone: the prompt and two greedy tokens, then the branch.
        step(&mut runner, 0, RowTokens::Host(&prompt), GREEDY);
        step(&mut runner, 60, RowTokens::Previous, GREEDY);
        let first = runner.collect().expect("the prompt's").tokens[0].expect("a token");
        runner.collect().expect("the second");
        let mut with_first = prompt.clone();
        with_first.push(first);
        runner.truncate(SeqId(0), n as u32).expect("cut");
        let branch = bits(&mut runner, 0, &[3, 1, 4]);
        runner.release(SeqId(0));

        step(&mut runner, 0, RowTokens::Host(&prompt), GREEDY);
        step(&mut runner, 60, RowTokens::Previous, GREEDY);
        runner.fork(SeqId(0), SeqId(1), n as u32).expect("from a busy sequence");
        runner.collect().expect("the prompt's");
        // Both in one step, with the older one still in flight.
        let rows = [
            row(0, 61, RowTokens::Previous, GREEDY),
            row(1, n as u32, RowTokens::Host(&[3, 1, 4]), Want::AllLogits),
        ];
        runner.submit(StepPlan { rows: &rows }).expect("a step of both");
        runner.collect().expect("the older step");
        let together = runner.collect().expect("both").logits.to_vec();
        let alone: Vec<f32> = branch.iter().map(|bits| f32::from_bits(*bits)).collect();
        let worst = together.iter().zip(&alone).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(together.len() == alone.len() && worst < 1e-4, "{n}: {worst}");
        runner.release(SeqId(1));
        // And the source is what it would have been.
        assert!(runner.truncate(SeqId(0), 61).expect("cut"));
        let source = bits(&mut runner, 0, &[5, 5]);
        runner.release(SeqId(0));
        step(&mut runner, 0, RowTokens::Host(&prompt), Want::Nothing);
        step(&mut runner, 60, RowTokens::Host(&with_first[60..]), Want::Nothing);
        runner.collect().expect("the prompt");
        runner.collect().expect("the token");
        assert_eq!(bits(&mut runner, 0, &[5, 5]), source);
    }
}

/// Eight forks of one prefix, written in one step: each copies, and all but the last one's worth of writes leave the holder.
#[test]
fn many_forks_of_one_prefix() {
    let mut runner = tiny(8);
    let holder = SeqId(8);
    let prompt = ids(100);
    bits(&mut runner, 0, &prompt);
    runner.fork(SeqId(0), holder, 100).expect("kept");
    let before = addresses(&runner, holder.0);
    for seq in 1..8 {
        runner.fork(holder, SeqId(seq), 100).expect("shared");
    }
    let one = runner.memory().kv_bytes.expect("counted");
    let tails: Vec<[u32; 1]> = (0..8).map(|seq| [seq * 11 + 1]).collect();
    let rows: Vec<PlanRow<'_>> = tails
        .iter()
        .zip(0..)
        .map(|(ids, seq)| row(seq, 100, RowTokens::Host(ids), Want::LastLogits))
        .collect();
    runner.submit(StepPlan { rows: &rows }).expect("a step");
    let logits = runner.collect().expect("its result").logits.to_vec();
    assert_eq!(runner.memory().kv_bytes, Some(9 * one), "nine buffers where there was one");
    assert_eq!(addresses(&runner, holder.0), before, "the holder's has not moved");
    assert_eq!(runner.n_cells_used(), 9 * 100 + 8);
    let n_vocab = runner.n_vocab();
    for (seq, ids) in tails.iter().enumerate() {
        runner.release(SeqId(0));
        bits(&mut runner, 0, &prompt);
        let alone = bits(&mut runner, 0, ids);
        let row = &logits[seq * n_vocab..][..n_vocab];
        let worst =
            row.iter().zip(alone).fold(0f32, |worst, (a, b)| worst.max((a - f32::from_bits(b)).abs()));
        assert!(worst < 1e-4, "{seq}: {worst}");
    }
}

/// A prefix that was saved, released and put back into a holder.
#[test]
fn a_holders_state_survives_as_bytes() {
    let mut runner = tiny(1);
    let holder = SeqId(1);
    let prompt = ids(255); // the next token would be the buffer's last
    for n in [1, 254, 255] {
        bits(&mut runner, 0, &prompt[..n]);
        let snapshot = runner.snapshot(SeqId(0)).expect("saved");
        let fresh = bits(&mut runner, 0, &[1, 2]);
        runner.release(SeqId(0));
        runner.restore(holder, &snapshot).expect("put back");
        assert_eq!(runner.snapshot(holder).expect("saved again"), snapshot);
        runner.fork(holder, SeqId(0), n as u32).expect("taken up");
        runner.release(holder);
        assert_eq!(bits(&mut runner, 0, &[1, 2]), fresh, "{n}");
        runner.release(SeqId(0));
    }
}

#[test]
fn what_cannot_be_done_with_ids() {
    let mut runner = tiny(2);
    let n_ids = 2 + runner.capabilities().n_holders;
    bits(&mut runner, 0, &[1, 2, 3]);
    let snapshot = runner.snapshot(SeqId(0)).expect("saved");
    runner.fork(SeqId(0), SeqId(2), 3).expect("kept");
    let refused = |outcome: Result<(), BackendError>, words: &str| {
        let error = outcome.expect_err(words);
        assert!(matches!(error, BackendError::InvalidRequest { .. }), "{error:?}");
        assert!(error.chain().contains(words), "{}", error.chain());
    };
    refused(runner.fork(SeqId(0), SeqId(n_ids), 1), "no sequence");
    refused(runner.fork(SeqId(n_ids), SeqId(1), 0), "no sequence");
    refused(runner.fork(SeqId(0), SeqId(0), 1), "in use");
    refused(runner.fork(SeqId(0), SeqId(2), 1), "in use");
    refused(runner.fork(SeqId(0), SeqId(1), 4), "3 tokens, not 4");
    refused(runner.fork(SeqId(1), SeqId(3), 1), "0 tokens, not 1");
    refused(runner.restore(SeqId(n_ids), &snapshot), "no sequence");
    refused(runner.restore(SeqId(2), &snapshot), "in use");
    refused(runner.truncate(SeqId(n_ids), 0).map(|_| ()), "no sequence");
    refused(runner.snapshot(SeqId(n_ids)).map(|_| ()), "no sequence");
    runner.release(SeqId(n_ids));
    let held = [row(2, 3, RowTokens::Host(&[4]), Want::LastLogits)];
    let error = runner.submit(StepPlan { rows: &held }).expect_err("holders have no rows");
    assert!(error.chain().contains("only holds a prefix"), "{}", error.chain());
    assert_eq!([0, 1, 2, 3].map(|seq| runner.sequence_len(SeqId(seq))), [3, 0, 3, 0]);
    assert_eq!(runner.n_cells_used(), 6);
}
