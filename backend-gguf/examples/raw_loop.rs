//! The runner against a plain `llama_decode` loop over the same weights, interleaved ABBA in one process.
//!
//! `cargo run --release -p duet-backend-gguf --features llama --example raw_loop -- MODEL.gguf [key=value…]`
//! with keys threads, blocks, prompt, decode, fa (auto, on, off), repack (on, off), ubatch. Prints tokens per second and the
//! ratio runner / raw with its 95 % interval over blocks.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

use std::path::PathBuf;
use std::time::Instant;

use duet_backend_gguf::measure::{RawLoop, argmax, runner_and_raw_loop};
use duet_backend_gguf::{GgufRunner, GgufSettings};
use duet_core::{ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};

struct Options {
    path: PathBuf,
    settings: GgufSettings,
    threads: u32,
    blocks: usize,
    prompt: usize,
    decode: usize,
}

fn options() -> Options {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("the path of a model"));
    let settings = GgufSettings::default();
    let mut options = Options { path, settings, threads: 2, blocks: 6, prompt: 512, decode: 64 };
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

/// Seconds for the prompt and for one decoded token (median), and the last token as a proof of equal work.
fn measure(arm: &mut dyn Arm, prompt: &[u32], n_decode: usize) -> (f64, f64, u32) {
    arm.clear();
    let start = Instant::now();
    let mut token = arm.step(prompt);
    let prefill = start.elapsed().as_secs_f64();
    let mut steps: Vec<f64> = (0..n_decode)
        .map(|_| {
            let start = Instant::now();
            token = arm.step(&[token]);
            start.elapsed().as_secs_f64()
        })
        .collect();
    steps.sort_by(f64::total_cmp);
    (prefill, steps[steps.len() / 2], token)
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
    let mut duet = RunnerArm { runner, position: 0 };
    let prompt: Vec<u32> = (0..options.prompt as u32).map(|index| 500 + index * 7919 % 20_000).collect();
    measure(&mut duet, &prompt, 8);
    measure(&mut raw, &prompt, 8);
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let (mut rates_duet, mut rates_raw) = (Vec::new(), Vec::new());
    for block in 0..options.blocks {
        let order = if block % 2 == 0 { [true, false, false, true] } else { [false, true, true, false] };
        let mut logs = [0.0; 2];
        let mut last = None;
        for is_duet in order {
            let arm: &mut dyn Arm = if is_duet { &mut duet } else { &mut raw };
            let (prompt_time, step_time, token) = measure(arm, &prompt, options.decode);
            assert_eq!(*last.get_or_insert(token), token, "both arms give the same tokens");
            let sign = if is_duet { -0.5 } else { 0.5 };
            logs[0] += sign * prompt_time.ln();
            logs[1] += sign * step_time.ln();
            let rates = if is_duet { &mut rates_duet } else { &mut rates_raw };
            rates.push((prompt.len() as f64 / prompt_time, 1.0 / step_time));
        }
        prefill.push(logs[0]);
        decode.push(logs[1]);
    }
    let mean = |rates: &[(f64, f64)]| {
        let n = rates.len() as f64;
        (rates.iter().map(|r| r.0).sum::<f64>() / n, rates.iter().map(|r| r.1).sum::<f64>() / n)
    };
    let ((duet_pp, duet_tg), (raw_pp, raw_tg)) = (mean(&rates_duet), mean(&rates_raw));
    println!("{:?}, {} threads, {} blocks ABBA/BAAB", options.settings, options.threads, options.blocks);
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
}
