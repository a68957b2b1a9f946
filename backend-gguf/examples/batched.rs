//! Decoding of several sequences at once through the whole engine, in the terms of llama-batched-bench, and beside it where
//! its path is given.
//!
//! `cargo run --release -p duet -p duet-backend-gguf --example batched -- MODEL.gguf [key=value…]` with keys npp (tokens of a
//! prompt), ntg (tokens generated), npl (sequences at once), each a list with commas; blocks; threads; ubatch; kv (unified,
//! split, auto); peer (a llama-batched-bench). With a peer, each block is duet, peer, peer, duet, one process running at a
//! time, and the ratio duet / peer of S_TG has its 95 % interval over blocks.
//!
//! S_PP: all prompt tokens / time from the first request to the last one's first token. S_TG: tokens of all sequences while
//! all of them decode / that time; llama-batched-bench, which decodes in lock-step, has no other tokens. It samples nothing
//! and makes no text; duet does both.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

use duet_backend_gguf::{GgufBackend, GgufSettings, load_tokenizer};
use duet_core::event::GenerationEvent;
use duet_core::model::inspect;
use duet_core::{GenerateRequest, InferenceBackend, LoadSpec, LoadedModel};

type Failure = Box<dyn std::error::Error>;

struct Options {
    path: PathBuf,
    settings: GgufSettings,
    prompts: Vec<u32>,
    outputs: Vec<u32>,
    widths: Vec<u32>,
    blocks: usize,
    threads: Option<u32>,
    unified: Option<bool>,
    peer: Option<PathBuf>,
}

impl Options {
    fn read() -> Result<Self, Failure> {
        let mut arguments = std::env::args().skip(1);
        let path = PathBuf::from(arguments.next().ok_or("the path of a model is missing")?);
        let mut options = Self {
            path,
            settings: GgufSettings::default(),
            prompts: vec![128],
            outputs: vec![64],
            widths: vec![1, 8, 16],
            blocks: 3,
            threads: None,
            unified: None,
            peer: None,
        };
        for argument in arguments {
            let (key, value) =
                argument.split_once('=').ok_or_else(|| format!("{argument}: not key=value"))?;
            let list = || value.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>();
            match key {
                "npp" => options.prompts = list()?,
                "ntg" => options.outputs = list()?,
                "npl" => options.widths = list()?,
                "blocks" => options.blocks = value.parse()?,
                "threads" => options.threads = Some(value.parse()?),
                "ubatch" => options.settings.micro_batch = value.parse()?,
                "kv" => options.unified = (value != "auto").then_some(value == "unified"),
                "peer" => options.peer = Some(value.into()),
                _ => return Err(format!("unknown key {key}").into()),
            }
        }
        Ok(options)
    }

    /// Cells that the largest run needs.
    fn n_cells(&self) -> u32 {
        let most = |all: &[u32]| all.iter().copied().max().unwrap_or(1);
        most(&self.widths) * (most(&self.prompts) + most(&self.outputs))
    }
}

/// One line of llama-batched-bench's table.
#[derive(Clone, Copy)]
struct Run {
    n_prompt: u32,
    n_output: u32,
    width: u32,
}

#[derive(Clone, Copy)]
struct Rates {
    prefill: f64,
    decode: f64,
}

/// Seconds from the run's start at which each token of one sequence came.
async fn drain(
    model: Arc<dyn LoadedModel>,
    request: GenerateRequest,
    began: Instant,
) -> Result<Vec<f64>, String> {
    let mut stream = model.generate(request).map_err(|error| error.chain())?;
    let mut came = Vec::new();
    while let Some(event) = stream.next().await {
        if let GenerationEvent::Token(_) = event.map_err(|error| error.chain())? {
            came.push(began.elapsed().as_secs_f64());
        }
    }
    Ok(came)
}

/// `n_before` prompts have been used: no two are alike, nor begin alike.
async fn through_the_engine(model: &Arc<dyn LoadedModel>, run: Run, n_before: u32) -> Result<Rates, Failure> {
    let began = Instant::now();
    let streams: Vec<_> = (0..run.width)
        .map(|index| {
            let first = n_before + index;
            let prompt = (0..run.n_prompt).map(|at| 500 + (first * 31 + at * 7919) % 20_000).collect();
            let mut request = GenerateRequest::new(format!("batched-{first}"), prompt, run.n_output);
            request.ignore_eos = true;
            tokio::spawn(drain(model.clone(), request, began))
        })
        .collect();
    let mut came = Vec::new();
    for stream in streams {
        came.push(stream.await??);
    }
    if came.iter().any(|tokens| tokens.len() != run.n_output as usize) {
        return Err("a sequence has not the tokens that were asked for".into());
    }
    let all_decode = came.iter().map(|tokens| tokens[0]).fold(0.0, f64::max);
    let one_ended = came.iter().map(|tokens| tokens[tokens.len() - 1]).fold(f64::INFINITY, f64::min);
    let n = came.iter().flatten().filter(|at| **at > all_decode && **at <= one_ended).count();
    if n < run.width as usize {
        return Err("the sequences do not decode at the same time; ask for more tokens".into());
    }
    let prefill = f64::from(run.width * run.n_prompt) / all_decode;
    Ok(Rates { prefill, decode: n as f64 / (one_ended - all_decode) })
}

/// Runs the peer once, for one line.
fn through_the_peer(options: &Options, run: Run) -> Result<Rates, Failure> {
    let peer = options.peer.as_ref().ok_or("no peer")?;
    let text = |n: u32| n.to_string();
    let threads = options.threads.map_or_else(Vec::new, |n| vec!["-t".to_owned(), text(n)]);
    let unified = (options.unified == Some(true)).then_some("-kvu");
    let output = Command::new(peer)
        .arg("-m")
        .arg(&options.path)
        .args(["-c", &text(options.n_cells()), "-ub", &text(options.settings.micro_batch)])
        .args(["-npp", &text(run.n_prompt), "-ntg", &text(run.n_output), "-npl", &text(run.width)])
        .args(["--output-format", "jsonl"])
        .args(threads)
        .args(unified)
        .stdin(Stdio::null())
        .output()?;
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let figure = |line: &str, key: &str| -> Option<f64> {
        let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
        rest.split([',', '}']).next()?.trim().parse().ok()
    };
    let found = printed.lines().find_map(|line| {
        Some(Rates { prefill: figure(line, "speed_pp")?, decode: figure(line, "speed_tg")? })
    });
    found.ok_or_else(|| format!("{} printed no figures:\n{printed}", peer.display()).into())
}

/// exp(mean) of log-ratios with its 95 % interval (Student t).
fn interval(logs: &[f64]) -> String {
    const T: [f64; 11] = [f64::INFINITY, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23];
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    if logs.len() < 2 {
        return format!("{:.3} (one block)", mean.exp());
    }
    let variance = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = T.get(logs.len() - 1).copied().unwrap_or(2.1) * (variance / n).sqrt();
    format!("{:.3} [{:.3}, {:.3}]", mean.exp(), (mean - half).exp(), (mean + half).exp())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// All blocks of one line.
async fn measure(
    options: &Options,
    model: &Arc<dyn LoadedModel>,
    run: Run,
    used: &mut u32,
) -> Result<(), Failure> {
    let (mut duet, mut peer, mut logs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.blocks.max(1) {
        let mut times = [0.0; 2];
        for side in [0, 1, 1, 0] {
            let rates = match (side, &options.peer) {
                (1, None) => continue,
                (1, Some(_)) => through_the_peer(options, run)?,
                _ => {
                    *used += run.width;
                    through_the_engine(model, run, *used - run.width).await?
                }
            };
            times[side] += rates.decode.ln() / 2.0;
            if side == 0 { &mut duet } else { &mut peer }.push(rates);
        }
        logs.push(times[0] - times[1]);
    }
    let rates = |all: &[Rates]| {
        format!(
            "{:8.2} | {:8.2}",
            median(all.iter().map(|r| r.prefill)),
            median(all.iter().map(|r| r.decode))
        )
    };
    let other =
        if peer.is_empty() { String::new() } else { format!(" | {} | {}", rates(&peer), interval(&logs)) };
    println!("| {:5} | {:5} | {:3} | {}{other}", run.n_prompt, run.n_output, run.width, rates(&duet));
    Ok(())
}

async fn run() -> Result<(), Failure> {
    let options = Options::read()?;
    let mut spec = LoadSpec::new(Arc::new(inspect(&options.path)?), load_tokenizer(&options.path)?);
    spec.parallel = options.widths.iter().copied().max().unwrap_or(1);
    spec.kv_tokens = options.n_cells().max(spec.context_length);
    spec.threads = options.threads;
    spec.kv_unified = options.unified;
    let backend = GgufBackend::new(options.settings.clone());
    let model = backend.load(spec, Arc::new(|_| true)).await?;
    println!("{}: {}", model.info().backend_version, model.info().notes.join(", "));
    println!("|    PP |    TG |   B | S_PP t/s | S_TG t/s | peer's S_PP | S_TG | S_TG duet / peer");
    let mut used = 0;
    through_the_engine(&model, Run { n_prompt: 32, n_output: 16, width: 1 }, used).await?;
    used += 1;
    for n_prompt in options.prompts.iter().copied() {
        for n_output in options.outputs.iter().copied() {
            for width in options.widths.iter().copied() {
                measure(&options, &model, Run { n_prompt, n_output, width }, &mut used).await?;
            }
        }
    }
    model.unload().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("batched: {error}");
            ExitCode::FAILURE
        }
    }
}
