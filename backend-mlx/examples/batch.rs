//! What steps of several sequences cost on one model, on the runner itself.
//!
//! `cargo run --release -p duet-backend-mlx --features mlx --example batch -- MODEL WHAT [key=value…]` where WHAT is
//! * `decode`: tokens per second at every width and depth, greedy, sampled on the device with a step in flight, and on the
//!   host without (keys widths, depths, steps). `scripts/oracle/mlx_lm_speed.py --widths` prints the same of mlx-lm.
//! * `mixed`: milliseconds of a step with one decoding row and a chunk of another sequence's prompt (keys chunks, depths).
//! * `state`: bytes per second of snapshots and restores (key depths).
//!
//! Lists are like `widths=1,2,4`; further keys: blocks, threads, weights (auto, packed, dense). Blocks are whole rounds, so
//! that everything is measured in turns; printed are each round and the medians.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use duet_backend_mlx::MlxBackend;
use duet_core::model::inspect;
use duet_core::testing::ByteTokenizer;
use duet_core::{
    DeviceSampling, InferenceBackend, LoadSpec, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want,
    WeightsMode,
};

#[derive(Clone)]
struct Options {
    path: PathBuf,
    what: String,
    widths: Vec<usize>,
    depths: Vec<usize>,
    chunks: Vec<usize>,
    steps: usize,
    blocks: usize,
    threads: Option<u32>,
    weights: WeightsMode,
}

fn options() -> Options {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("the path of a model"));
    let what = arguments.next().expect("decode, mixed or state");
    let depths = match what.as_str() {
        "decode" => vec![16, 1024],
        "mixed" => vec![0, 2000],
        _ => vec![7000],
    };
    let mut options = Options {
        path,
        what,
        widths: vec![1, 2, 4, 8, 16],
        depths,
        chunks: vec![0, 1, 2, 4, 8, 16, 32, 64],
        steps: 24,
        blocks: 5,
        threads: None,
        weights: WeightsMode::Auto,
    };
    for argument in arguments {
        let (key, value) = argument.split_once('=').expect("key=value");
        let list = || value.split(',').map(|one| one.parse().expect("a number")).collect::<Vec<usize>>();
        match key {
            "widths" => options.widths = list(),
            "depths" => options.depths = list(),
            "chunks" => options.chunks = list(),
            "steps" => options.steps = list()[0],
            "blocks" => options.blocks = list()[0],
            "threads" => options.threads = Some(list()[0] as u32),
            "weights" => {
                options.weights = match value {
                    "auto" => WeightsMode::Auto,
                    "packed" => WeightsMode::Packed,
                    "dense" => WeightsMode::Dense,
                    _ => panic!("weights are auto, packed or dense"),
                }
            }
            _ => panic!("unknown key {key}"),
        }
    }
    options
}

const GREEDY: Want =
    Want::Token(DeviceSampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0 });

fn prompt(n: usize) -> Vec<u32> {
    (0..n as u32).map(|index| 500 + index * 7919 % 20_000).collect()
}

fn row(seq: usize, position: usize, tokens: RowTokens<'_>, want: Want) -> PlanRow<'_> {
    PlanRow { seq: SeqId(seq as u32), position: position as u32, tokens, want }
}

/// Sequence 0 with `depth` tokens, in chunks.
fn fill(runner: &mut dyn ModelRunner, depth: usize) {
    for (index, part) in prompt(depth).chunks(512).enumerate() {
        let row = row(0, index * 512, RowTokens::Host(part), Want::Nothing);
        runner.submit(StepPlan { rows: &[row] }).expect("a step");
        runner.collect().expect("its result");
    }
}

fn best(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a vocabulary") as u32
}

/// `width` sequences of `depth` tokens, ready to decode: their first tokens.
fn ready(runner: &mut dyn ModelRunner, width: usize, depth: usize) -> Vec<u32> {
    fill(runner, depth);
    for seq in 1..width {
        runner.fork(SeqId(0), SeqId(seq as u32), depth as u32).expect("a fork");
    }
    let first: Vec<u32> = (0..width as u32).map(|seq| 1000 + seq * 131).collect();
    // One step, cut off again: each has buffers of its own from here on.
    on_host(runner, depth, &mut first.clone(), 1);
    cut(runner, width, depth);
    first
}

fn cut(runner: &mut dyn ModelRunner, width: usize, depth: usize) {
    for seq in 0..width {
        runner.truncate(SeqId(seq as u32), depth as u32).expect("cut");
    }
}

fn clear(runner: &mut dyn ModelRunner) {
    for seq in 0..runner.capabilities().max_sequences {
        runner.release(SeqId(seq));
    }
}

/// Seconds per step with the host's choice between steps.
fn on_host(runner: &mut dyn ModelRunner, depth: usize, tokens: &mut [u32], n: usize) -> f64 {
    let start = Instant::now();
    for step in 0..n {
        let rows: Vec<PlanRow<'_>> = tokens
            .iter()
            .enumerate()
            .map(|(seq, id)| {
                row(seq, depth + step, RowTokens::Host(std::slice::from_ref(id)), Want::LastLogits)
            })
            .collect();
        runner.submit(StepPlan { rows: &rows }).expect("a step");
        let output = runner.collect().expect("its result");
        let next: Vec<u32> = (0..tokens.len()).map(|seq| best(output.row(seq))).collect();
        tokens.copy_from_slice(&next);
    }
    start.elapsed().as_secs_f64() / n as f64
}

/// Seconds per step with one step in flight.
fn in_flight(runner: &mut dyn ModelRunner, depth: usize, first: &[u32], n: usize) -> f64 {
    let start = Instant::now();
    for step in 0..=n {
        if step < n {
            let rows: Vec<PlanRow<'_>> = first
                .iter()
                .enumerate()
                .map(|(seq, id)| {
                    let tokens = match step {
                        0 => RowTokens::Host(std::slice::from_ref(id)),
                        _ => RowTokens::Previous,
                    };
                    row(seq, depth + step, tokens, GREEDY)
                })
                .collect();
            runner.submit(StepPlan { rows: &rows }).expect("a step");
        }
        if step > 0 {
            runner.collect().expect("its result");
        }
    }
    start.elapsed().as_secs_f64() / n as f64
}

/// Figures by what they are of, in order.
#[derive(Default)]
struct Table(BTreeMap<(usize, usize, &'static str), Vec<f64>>);

impl Table {
    fn add(&mut self, key: (usize, usize, &'static str), value: f64) {
        self.0.entry(key).or_default().push(value);
    }

    fn median(&self, key: (usize, usize, &'static str)) -> f64 {
        let mut values = self.0[&key].clone();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    fn print(&self, columns: [&str; 3], unit: &str) {
        println!("{:>8} {:>8} {:>12}  median {unit} (each round)", columns[0], columns[1], columns[2]);
        for (key, values) in &self.0 {
            let each: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
            println!(
                "{:>8} {:>8} {:>12} {:>8.2}  ({})",
                key.0,
                key.1,
                key.2,
                self.median(*key),
                each.join(" ")
            );
        }
    }
}

fn decode(runner: &mut dyn ModelRunner, options: &Options) {
    let mut table = Table::default();
    for &depth in &options.depths {
        for _ in 0..options.blocks {
            for &width in &options.widths {
                let first = ready(runner, width, depth);
                let host = on_host(runner, depth, &mut first.clone(), options.steps);
                cut(runner, width, depth);
                let device = in_flight(runner, depth, &first, options.steps);
                clear(runner);
                table.add((depth, width, "host"), width as f64 / host);
                table.add((depth, width, "in flight"), width as f64 / device);
            }
        }
    }
    table.print(["depth", "width", "sampled"], "tok/s");
    for &depth in &options.depths {
        for how in ["host", "in flight"] {
            let ratios = options.widths.iter().map(|&width| {
                let ratio = table.median((depth, width, how)) / table.median((depth, options.widths[0], how));
                format!("{width}: {ratio:.2}")
            });
            println!(
                "depth {depth}, {how}, times width {}: {}",
                options.widths[0],
                ratios.collect::<Vec<_>>().join(", ")
            );
        }
    }
}

fn mixed(runner: &mut dyn ModelRunner, options: &Options) {
    let mut table = Table::default();
    for &depth in &options.depths {
        fill(runner, depth.max(1));
        let (depth, token) = (depth.max(1), [7]);
        runner.fork(SeqId(0), SeqId(1), depth as u32).expect("a fork");
        // The first round is a warm-up: buffers grow, the fork gets its own.
        for round in 0..=options.blocks {
            for &chunk in &options.chunks {
                let ids = prompt(chunk);
                let mut rows = vec![row(0, depth, RowTokens::Host(&token), Want::LastLogits)];
                if chunk > 0 {
                    rows.push(row(1, depth, RowTokens::Host(&ids), Want::Nothing));
                }
                let start = Instant::now();
                runner.submit(StepPlan { rows: &rows }).expect("a step");
                runner.collect().expect("its result");
                let elapsed = start.elapsed().as_secs_f64();
                cut(runner, 2, depth);
                if round > 0 {
                    table.add((depth, chunk, "1 + chunk"), elapsed * 1e3);
                }
            }
        }
        clear(runner);
    }
    table.print(["depth", "chunk", "rows"], "ms per step");
}

fn state(runner: &mut dyn ModelRunner, options: &Options) {
    let mut table = Table::default();
    for &depth in &options.depths {
        fill(runner, depth);
        for _ in 0..options.blocks {
            let start = Instant::now();
            let snapshot = runner.snapshot(SeqId(0)).expect("a snapshot");
            let saved = start.elapsed().as_secs_f64();
            let n = snapshot.bytes.len() as f64;
            let start = Instant::now();
            let copy = snapshot.bytes.clone();
            let copied = start.elapsed().as_secs_f64();
            let start = Instant::now();
            runner.restore(SeqId(1), &snapshot).expect("restored");
            let restored = start.elapsed().as_secs_f64();
            assert!(runner.snapshot(SeqId(1)).expect("again") == snapshot && copy == snapshot.bytes);
            runner.release(SeqId(1));
            for (what, seconds) in [("save", saved), ("restore", restored), ("a Vec's clone", copied)] {
                table.add((depth, snapshot.bytes.len() / 1_000_000, what), n / seconds / 1e9);
            }
        }
        clear(runner);
    }
    table.print(["depth", "MB", "what"], "GB/s");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = options();
    let backend = MlxBackend::new().expect("MLX starts");
    println!("{:?}", backend.info().features);
    println!("OPENBLAS_CORETYPE={:?}", std::env::var("OPENBLAS_CORETYPE").ok());
    let model = inspect(&options.path).expect("a model");
    let mut spec = LoadSpec::new(Arc::new(model), Arc::new(ByteTokenizer::default()));
    let deepest = options.depths.iter().max().expect("a depth");
    spec.context_length = (deepest + options.steps + 72) as u32;
    spec.parallel = (*options.widths.iter().max().expect("a width")).max(2) as u32;
    spec.kv_tokens = spec.parallel * spec.context_length;
    spec.threads = options.threads;
    spec.weights = options.weights;
    let loaded = backend.load(spec, Arc::new(|_| true)).await.expect("the model loads");
    let info = loaded.info();
    println!("{}, {} MB per token, {:?}", info.weights, info.weight_bytes_per_token / 1_000_000, info.notes);
    let job = move |runner: &mut dyn ModelRunner| match options.what.as_str() {
        "decode" => decode(runner, &options),
        "mixed" => mixed(runner, &options),
        "state" => state(runner, &options),
        other => panic!("{other} is not decode, mixed or state"),
    };
    loaded.run_exclusive(Box::new(job)).await.expect("it ran");
    loaded.unload().await;
}
