//! Tokens per second of the runner on one model: a prompt in chunks, then decoding in three ways.
//!
//! `cargo run --release -p duet-backend-mlx --features mlx --example speed -- MODEL [key=value…]`
//! with keys prompt, decode, chunk, blocks, threads, weights (auto, packed, dense). Prints each block and the best one;
//! `scripts/oracle/mlx_lm_speed.py` prints the same of mlx-lm. The environment's OPENBLAS_CORETYPE is printed because it
//! chooses OpenBLAS's kernels.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

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

struct Options {
    path: PathBuf,
    prompt: usize,
    decode: usize,
    chunk: usize,
    blocks: usize,
    threads: Option<u32>,
    weights: WeightsMode,
}

fn options() -> Options {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("the path of a model"));
    let weights = WeightsMode::Auto;
    let mut options =
        Options { path, prompt: 512, decode: 64, chunk: 512, blocks: 3, threads: None, weights };
    for argument in arguments {
        let (key, value) = argument.split_once('=').expect("key=value");
        let number = || value.parse().expect("a number");
        match key {
            "prompt" => options.prompt = number(),
            "decode" => options.decode = number(),
            "chunk" => options.chunk = number(),
            "blocks" => options.blocks = number(),
            "threads" => options.threads = Some(number() as u32),
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

fn submit(runner: &mut dyn ModelRunner, seqs: &[u32], position: usize, tokens: RowTokens<'_>, want: Want) {
    let row = |seq: &u32| PlanRow { seq: SeqId(*seq), position: position as u32, tokens, want };
    let rows: Vec<PlanRow<'_>> = seqs.iter().map(row).collect();
    runner.submit(StepPlan { rows: &rows }).expect("a step");
}

fn best(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a vocabulary") as u32
}

/// Seconds for the prompt, its first token included.
fn prefill(runner: &mut dyn ModelRunner, seqs: &[u32], prompt: &[u32], chunk: usize) -> (f64, u32) {
    for seq in 0..runner.capabilities().max_sequences {
        runner.release(SeqId(seq));
    }
    let start = Instant::now();
    let mut token = 0;
    for seq in seqs {
        let mut position = 0;
        for part in prompt.chunks(chunk) {
            let last = position + part.len() == prompt.len();
            let want = if last { Want::LastLogits } else { Want::Nothing };
            submit(runner, &[*seq], position, RowTokens::Host(part), want);
            let output = runner.collect().expect("its result");
            position += part.len();
            if last {
                token = best(output.row(0));
            }
        }
    }
    (start.elapsed().as_secs_f64(), token)
}

/// Seconds per step of decoding with the host's choice between steps.
fn decode_on_host(runner: &mut dyn ModelRunner, seqs: &[u32], position: usize, first: u32, n: usize) -> f64 {
    let mut token = first;
    let start = Instant::now();
    for step in 0..n {
        submit(runner, seqs, position + step, RowTokens::Host(&[token]), Want::LastLogits);
        token = best(runner.collect().expect("its result").row(0));
    }
    start.elapsed().as_secs_f64() / n as f64
}

/// Seconds per step of decoding with one step in flight.
fn decode_in_flight(runner: &mut dyn ModelRunner, position: usize, first: u32, n: usize) -> f64 {
    let start = Instant::now();
    submit(runner, &[0], position, RowTokens::Host(&[first]), GREEDY);
    for step in 1..=n {
        if step < n {
            submit(runner, &[0], position + step, RowTokens::Previous, GREEDY);
        }
        runner.collect().expect("its result");
    }
    start.elapsed().as_secs_f64() / n as f64
}

fn measure(runner: &mut dyn ModelRunner, options: &Options) {
    let prompt: Vec<u32> = (0..options.prompt as u32).map(|index| 500 + index * 7919 % 20_000).collect();
    let n = options.decode;
    let mut bests = [f64::INFINITY; 4];
    for block in 0..options.blocks {
        let (prompt_s, token) = prefill(runner, &[0], &prompt, options.chunk);
        let host = decode_on_host(runner, &[0], prompt.len(), token, n);
        runner.truncate(SeqId(0), prompt.len() as u32).expect("cut");
        let in_flight = decode_in_flight(runner, prompt.len(), token, n);
        prefill(runner, &[0, 1, 2, 3], &prompt[..prompt.len() / 4], options.chunk);
        let four = decode_on_host(runner, &[0, 1, 2, 3], prompt.len() / 4, token, n / 4);
        let times = [prompt_s / prompt.len() as f64, host, in_flight, four / 4.0];
        let rates = times.map(|time| 1.0 / time);
        println!(
            "block {block}: prefill {:.1}, decode {:.2}, in flight {:.2}, four sequences {:.2} tok/s",
            rates[0], rates[1], rates[2], rates[3]
        );
        for (best, time) in bests.iter_mut().zip(times) {
            *best = best.min(time);
        }
    }
    let [prefill, host, in_flight, four] = bests.map(|time| 1.0 / time);
    println!(
        "best: prefill {prefill:.1}, decode {host:.2}, in flight {in_flight:.2}, four sequences {four:.2} tok/s"
    );
    println!("{:?}", runner.memory());
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = options();
    let backend = MlxBackend::new().expect("MLX starts");
    println!("{:?}", backend.info());
    println!("OPENBLAS_CORETYPE={:?}", std::env::var("OPENBLAS_CORETYPE").ok());
    let model = inspect(&options.path).expect("a model");
    let mut spec = LoadSpec::new(Arc::new(model), Arc::new(ByteTokenizer::default()));
    spec.context_length = (options.prompt + 2 * options.decode + 8) as u32;
    spec.parallel = 4;
    spec.kv_tokens = 4 * spec.context_length;
    spec.prefill_chunk = options.chunk as u32;
    spec.threads = options.threads;
    spec.weights = options.weights;
    let loaded = backend.load(spec, Arc::new(|_| true)).await.expect("the model loads");
    let info = loaded.info();
    println!(
        "{}, {} MB per token, {:?}, loaded in {:?}",
        info.weights,
        info.weight_bytes_per_token / 1_000_000,
        info.notes,
        info.load_time
    );
    loaded.run_exclusive(Box::new(move |runner| measure(runner, &options))).await.expect("it ran");
    loaded.unload().await;
}
