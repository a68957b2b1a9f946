//! The runner against a plain `llama_decode` loop over the same weights, interleaved in one process.
//!
//! `cargo run --release -p duet-backend-gguf --features llama --example raw_loop -- MODEL.gguf [key=value…]`
//! with keys threads, blocks, prompt, decode, fa (auto, on, off), repack (on, off), raw_repack (on, off: the loop loads
//! weights of its own), ubatch. Prints tokens per second and the ratio runner / raw with its 95 % interval over blocks.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

use std::path::PathBuf;
use std::time::Instant;

use duet_backend_gguf::measure::{RawLoop, argmax, raw_loop, runner_and_raw_loop};
use duet_backend_gguf::{GgufRunner, GgufSettings};
use duet_core::{ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};

struct Options {
    path: PathBuf,
    settings: GgufSettings,
    raw_repack: Option<bool>,
    threads: u32,
    blocks: usize,
    prompt: usize,
    decode: usize,
}

fn options() -> Options {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("the path of a model"));
    let settings = GgufSettings::default();
    let mut options =
        Options { path, settings, raw_repack: None, threads: 2, blocks: 6, prompt: 512, decode: 64 };
    for argument in arguments {
        let (key, value) = argument.split_once('=').expect("key=value");
        let number = || value.parse().expect("a number");
        match key {
            "threads" => options.threads = number() as u32,
            "blocks" => options.blocks = number(),
            "prompt" => options.prompt = number(),
            "decode" => options.decode = number(),
            "ubatch" => options.settings.micro_batch = number() as u32,
            "repack" => options.settings.repack = value == "on",
            "raw_repack" => options.raw_repack = Some(value == "on"),
            "fa" => options.settings.flash_attention = (value != "auto").then_some(value == "on"),
            _ => panic!("unknown key {key}"),
        }
    }
    options
}

/// Something that evaluates tokens and gives the most probable next one.
trait Arm {
    fn clear(&mut self);
    fn step(&mut self, tokens: &[u32]) -> u32;
}

impl Arm for RawLoop {
    fn clear(&mut self) {
        RawLoop::clear(self);
    }

    fn step(&mut self, tokens: &[u32]) -> u32 {
        RawLoop::step(self, tokens)
    }
}

struct RunnerArm {
    runner: GgufRunner,
    position: u32,
}

impl Arm for RunnerArm {
    fn clear(&mut self) {
        self.runner.release(SeqId(0));
        self.position = 0;
    }

    fn step(&mut self, tokens: &[u32]) -> u32 {
        let row = PlanRow {
            seq: SeqId(0),
            position: self.position,
            tokens: RowTokens::Host(tokens),
            want: Want::LastLogits,
        };
        self.runner.submit(StepPlan { rows: &[row] }).expect("a step");
        self.position += tokens.len() as u32;
        argmax(self.runner.collect().expect("its result").row(0))
    }
}

/// Seconds that a step takes, and the token it gives.
fn timed(arm: &mut dyn Arm, tokens: &[u32]) -> (f64, u32) {
    let start = Instant::now();
    let token = arm.step(tokens);
    (start.elapsed().as_secs_f64(), token)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One block: prompts in ABBA or BAAB order, the faster of each arm's two counted; then both sequences decode in turns,
/// token by token, so that whatever else the machine does falls on both. Gives (prefill, decode) seconds by arm.
fn block(
    arms: &mut [&mut dyn Arm; 2],
    prompt: &[u32],
    n_decode: usize,
    flip: bool,
    n_differ: &mut usize,
) -> [(f64, f64); 2] {
    let mut prefill = [f64::INFINITY; 2];
    let mut tokens = [0; 2];
    for arm in if flip { [1, 0, 0, 1] } else { [0, 1, 1, 0] } {
        arms[arm].clear();
        let (seconds, token) = timed(&mut *arms[arm], prompt);
        prefill[arm] = prefill[arm].min(seconds);
        tokens[arm] = token;
    }
    let mut decode = [Vec::new(), Vec::new()];
    for step in 0..n_decode {
        // Other kernels may decide a near tie otherwise; both arms go on with the same token all the same.
        *n_differ += usize::from(tokens[0] != tokens[1]);
        tokens[0] = tokens[1];
        let first = (step + usize::from(flip)) % 2;
        for arm in [first, 1 - first] {
            let (seconds, token) = timed(&mut *arms[arm], &[tokens[arm]]);
            decode[arm].push(seconds);
            tokens[arm] = token;
        }
    }
    [0, 1].map(|arm| (prefill[arm], median(&mut decode[arm])))
}

/// exp(mean) of log-ratios with its 95 % interval (Student t).
fn interval(logs: &[f64]) -> String {
    const T: [f64; 11] = [f64::INFINITY, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23];
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let variance = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = T.get(logs.len() - 1).copied().unwrap_or(2.1) * (variance / n).sqrt();
    format!("{:.4} [{:.4}, {:.4}]", mean.exp(), (mean - half).exp(), (mean + half).exp())
}

fn main() {
    let options = options();
    let n_ctx = (options.prompt + options.decode + 8) as u32;
    let (runner, mut raw) = runner_and_raw_loop(&options.path, &options.settings, n_ctx, options.threads)
        .expect("the model loads");
    println!("{:?}", runner.memory());
    if let Some(repack) = options.raw_repack {
        let settings = GgufSettings { repack, ..options.settings.clone() };
        raw = raw_loop(&options.path, &settings, n_ctx, options.threads).expect("the model loads again");
    }
    let mut duet = RunnerArm { runner, position: 0 };
    let prompt: Vec<u32> = (0..options.prompt as u32).map(|index| 500 + index * 7919 % 20_000).collect();
    let mut arms: [&mut dyn Arm; 2] = [&mut duet, &mut raw];
    let mut n_differ = 0;
    block(&mut arms, &prompt, 8, false, &mut n_differ);
    n_differ = 0;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let (mut rates_duet, mut rates_raw) = (Vec::new(), Vec::new());
    for index in 0..options.blocks {
        let [(duet_prefill, duet_step), (raw_prefill, raw_step)] =
            block(&mut arms, &prompt, options.decode, index % 2 == 1, &mut n_differ);
        prefill.push((raw_prefill / duet_prefill).ln());
        decode.push((raw_step / duet_step).ln());
        rates_duet.push((prompt.len() as f64 / duet_prefill, 1.0 / duet_step));
        rates_raw.push((prompt.len() as f64 / raw_prefill, 1.0 / raw_step));
    }
    let mean = |rates: &[(f64, f64)]| {
        let n = rates.len() as f64;
        (rates.iter().map(|r| r.0).sum::<f64>() / n, rates.iter().map(|r| r.1).sum::<f64>() / n)
    };
    let ((duet_pp, duet_tg), (raw_pp, raw_tg)) = (mean(&rates_duet), mean(&rates_raw));
    println!("{:?}, {} threads, {} blocks", options.settings, options.threads, options.blocks);
    println!(
        "prefill {} tokens: duet {duet_pp:.1} t/s, raw {raw_pp:.1} t/s, ratio {}",
        prompt.len(),
        interval(&prefill)
    );
    println!(
        "decode {} tokens: duet {duet_tg:.2} t/s, raw {raw_tg:.2} t/s, ratio {}",
        options.decode,
        interval(&decode)
    );
    println!("tokens on which the arms differ: {n_differ}");
}
