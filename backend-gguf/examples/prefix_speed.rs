//! What it costs to share, keep and bring back a long prefix, and how its logits compare with recomputed ones.
//!
//! `cargo run --release -p duet-backend-gguf --features llama --example prefix_speed -- MODEL.gguf TEXT [key=value…]`
//! with keys threads, tokens (length of the prefix), cells (of the KV cache, which holds it twice), fa (auto, on, off),
//! recompute (on, off). TEXT is a file whose tokens, repeated if need be, are the prefix.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

use std::path::PathBuf;
use std::time::Instant;

use duet_backend_gguf::measure::{argmax, runner, spec};
use duet_backend_gguf::{GgufRunner, GgufSettings};
use duet_core::text::EncodeOptions;
use duet_core::{ModelRunner, PlanRow, RowTokens, SeqId, SequenceSnapshot, StepPlan, Want};

const ROUNDS: usize = 5;

struct Options {
    model: PathBuf,
    text: PathBuf,
    settings: GgufSettings,
    threads: u32,
    tokens: usize,
    cells: u32,
    recompute: bool,
}

fn options() -> Options {
    let mut arguments = std::env::args().skip(1);
    let mut path = |what| PathBuf::from(arguments.next().expect(what));
    let (model, text) = (path("the path of a model"), path("the path of a text"));
    let settings = GgufSettings::default();
    let mut options =
        Options { model, text, settings, threads: 2, tokens: 7000, cells: 16384, recompute: true };
    for argument in arguments {
        let (key, value) = argument.split_once('=').expect("key=value");
        let number = || value.parse().expect("a number");
        match key {
            "threads" => options.threads = number() as u32,
            "tokens" => options.tokens = number(),
            "recompute" => options.recompute = value == "on",
            "cells" => options.cells = number() as u32,
            "fa" => options.settings.flash_attention = (value != "auto").then_some(value == "on"),
            _ => panic!("unknown key {key}"),
        }
    }
    options
}

/// Evaluates `tokens` after what `seq` has, in steps of 512; logits after the last one.
fn evaluate(runner: &mut GgufRunner, seq: SeqId, tokens: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    for chunk in tokens.chunks(512) {
        let position = runner.sequence_len(seq);
        let row = PlanRow { seq, position, tokens: RowTokens::Host(chunk), want: Want::LastLogits };
        runner.submit(StepPlan { rows: &[row] }).expect("a step");
        logits = runner.collect().expect("its result").row(0).to_vec();
        assert!(
            logits.iter().all(|x| x.is_finite()),
            "logits after {} tokens",
            position as usize + chunk.len()
        );
    }
    logits
}

/// The shortest of several runs in milliseconds, and what the last one gave.
fn timed<T>(runner: &mut GgufRunner, mut job: impl FnMut(&mut GgufRunner) -> T) -> (f64, T) {
    let mut best = f64::INFINITY;
    let mut result = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        result = Some(job(runner));
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    (best, result.expect("at least one round"))
}

fn compare(what: &str, expected: &[f32], got: &[f32]) {
    assert!(!expected.is_empty() && expected.len() == got.len(), "as many logits");
    let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    let difference = expected.iter().zip(got).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    let same = expected.iter().zip(got).all(|(a, b)| a.to_bits() == b.to_bits());
    println!(
        "{what}: {}, max difference {difference:.6} of {largest:.2}, best token {} and {}",
        if same { "bit-equal" } else { "not bit-equal" },
        argmax(expected),
        argmax(got)
    );
}

fn main() {
    let options = options();
    let mut spec = spec(&options.model, options.cells, options.threads).expect("the model");
    spec.parallel = 2;
    let text = std::fs::read_to_string(&options.text).expect("the text");
    let encode = EncodeOptions { add_special: false, parse_special: false };
    let words = spec.tokenizer.encode(&text, encode).expect("its tokens");
    let mut runner = runner(&spec, &options.settings).expect("the model loads");
    let prefix: Vec<u32> = words.iter().copied().cycle().take(options.tokens).collect();
    let next: Vec<u32> = words.iter().copied().cycle().skip(options.tokens / 2 + 7).take(16).collect();
    let n = prefix.len() as u32;
    let (holder, other) = (SeqId(runner.capabilities().max_sequences), SeqId(1));
    println!("{:?}, {n} tokens in {} cells", options.settings, runner.capabilities().kv_tokens);

    let start = Instant::now();
    evaluate(&mut runner, SeqId(0), &prefix);
    println!("prefill: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let (fork, ()) = timed(&mut runner, |runner| {
        runner.release(holder);
        runner.fork(SeqId(0), holder, n).expect("a fork");
    });
    let (release, ()) = timed(&mut runner, |runner| {
        runner.fork(holder, other, n).expect("a fork");
        runner.release(other);
    });
    println!("release and fork to a holder: {fork:.2} ms; fork to a sequence and release: {release:.2} ms");
    let expected = evaluate(&mut runner, SeqId(0), &next);
    runner.release(SeqId(0));

    let mut save = |what: &str, seq: SeqId| -> SequenceSnapshot {
        let (ms, snapshot) = timed(&mut runner, |runner| runner.snapshot(seq).expect("a snapshot"));
        let mib = snapshot.bytes.len() as f64 / f64::from(1 << 20);
        println!("snapshot of {what}: {ms:.1} ms for {mib:.1} MiB, {:.2} GiB/s", mib / 1024.0 / ms * 1e3);
        snapshot
    };
    let snapshot = save("a holder", holder);
    let (ms, ()) = timed(&mut runner, |runner| {
        runner.release(SeqId(0));
        runner.restore(SeqId(0), &snapshot).expect("room");
    });
    let mib = snapshot.bytes.len() as f64 / f64::from(1 << 20);
    println!("restore (and release): {ms:.1} ms, {:.2} GiB/s", mib / 1024.0 / ms * 1e3);
    compare("restored, beside the original", &expected, &evaluate(&mut runner, SeqId(0), &next));
    runner.release(SeqId(0));
    runner.fork(holder, SeqId(0), n).expect("a fork");
    compare("forked from the holder", &expected, &evaluate(&mut runner, SeqId(0), &next));
    runner.release(SeqId(0));
    runner.release(holder);
    runner.restore(SeqId(0), &snapshot).expect("room");
    let again = runner.snapshot(SeqId(0)).expect("a snapshot");
    println!(
        "snapshot of what was restored has as many bytes: {}",
        again.bytes.len() == snapshot.bytes.len()
    );
    compare("restored into an empty cache", &expected, &evaluate(&mut runner, SeqId(0), &next));
    runner.release(SeqId(0));
    if !options.recompute {
        return;
    }
    evaluate(&mut runner, SeqId(0), &prefix);
    compare("recomputed, same steps", &expected, &evaluate(&mut runner, SeqId(0), &next));
    runner.release(SeqId(0));
    let whole: Vec<u32> = prefix.iter().chain(&next).copied().collect();
    compare("recomputed in other steps", &expected, &evaluate(&mut runner, SeqId(0), &whole));
}
