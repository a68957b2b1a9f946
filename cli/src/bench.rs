//! `duet bench`: both engines on the same token ids.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use duet_bench::{BenchOptions, Phase, Plan, Reporter, Subject, Text};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::model::LoadArguments;
use crate::run::print;
use crate::say;

#[derive(Debug, Args)]
#[command(after_help = "\
One .gguf file runs on both engines; a .gguf file and an MLX directory run each on their own.
The same engine twice (--engines gguf,gguf) shows how much the measurement itself varies.")]
pub(crate) struct BenchArguments {
    /// A .gguf file or an MLX directory
    model: PathBuf,
    /// The second arm's model [default: the same]
    other: Option<PathBuf>,
    /// The two arms' engines, as in gguf,mlx
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 2)]
    engines: Option<Vec<String>>,
    /// Fewer and shorter requests
    #[arg(long)]
    quick: bool,
    /// Prompt tokens of a request
    #[arg(short, long, value_name = "P")]
    prompt: Option<u32>,
    /// Tokens decoded after the prompt, in each mode
    #[arg(short = 'n', long, value_name = "N")]
    decode: Option<u32>,
    /// Blocks of four visits (ABBA or BAAB)
    #[arg(long)]
    blocks: Option<u32>,
    /// Positions to compare for the agreement; 0 for none
    #[arg(long, value_name = "TOKENS")]
    agreement: Option<u32>,
    /// UTF-8 text to work on [default: a chapter that comes with duet]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Seed of the arms' order
    #[arg(long)]
    seed: Option<u64>,
    /// CPU threads of each engine [default: physical cores]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// How MLX holds quantised weights
    #[arg(long, default_value = "auto", value_parser = ["auto", "packed", "dense"])]
    weights: String,
    /// Type of both KV caches [default: each engine's own]
    #[arg(long, value_parser = ["f16", "f32", "q8_0"])]
    kv_type: Option<String>,
    /// Write the whole report with raw samples to a file; `-` prints it instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) async fn bench(arguments: BenchArguments) -> anyhow::Result<u8> {
    let options = options(&arguments)?;
    let bars = Arc::new(Bars::default());
    let report = duet_bench::run(&crate::compose::registry(), &options, bars.clone()).await;
    bars.clear();
    let report = report?;
    match &arguments.json {
        Some(path) if path.as_os_str() == "-" => print(&format!("{}\n", report.to_json()?))?,
        Some(path) => {
            std::fs::write(path, report.to_json()?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            print(&report.to_text())?;
        }
        None => print(&report.to_text())?,
    }
    Ok(report.exit_code())
}

fn options(arguments: &BenchArguments) -> anyhow::Result<BenchOptions> {
    let subject = match &arguments.other {
        Some(other) => Subject::Pair(arguments.model.clone(), other.clone()),
        None => Subject::One(arguments.model.clone()),
    };
    let text = arguments.text.clone().map_or_else(Text::built_in, Text::File);
    let mut options =
        if arguments.quick { BenchOptions::quick(subject, text) } else { BenchOptions::new(subject, text) };
    if let Some(engines) = &arguments.engines {
        let [a, b] = engines.as_slice() else { anyhow::bail!("--engines takes two, as in gguf,mlx") };
        options.engines = Some([a.clone(), b.clone()]);
    }
    let load = LoadArguments::of_kind(&arguments.weights, arguments.kv_type.as_deref());
    options.weights = load.weights();
    options.kv_type = load.kv_type();
    options.threads = arguments.threads;
    options.same_bits = Some(Arc::new(crate::same_bits::Converted));
    options.duet_version = env!("CARGO_PKG_VERSION").into();
    set(&mut options.n_prompt, arguments.prompt);
    set(&mut options.n_decode, arguments.decode);
    set(&mut options.n_blocks, arguments.blocks);
    set(&mut options.n_agreement, arguments.agreement);
    set(&mut options.seed, arguments.seed);
    Ok(options)
}

fn set<T>(option: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *option = given;
    }
}

/// A bar per phase on a terminal; the plan and notes as lines.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    by_phase: Mutex<HashMap<Phase, ProgressBar>>,
}

impl Bars {
    fn clear(&self) {
        for (_, bar) in self.by_phase.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            bar.finish_and_clear();
        }
    }
}

impl Reporter for Bars {
    fn planned(&self, plan: &Plan) {
        self.all.suspend(|| say(&plan.to_string()));
    }

    fn estimated(&self, remaining: Duration) {
        self.all.suspend(|| say(&format!("about {} to go", HumanDuration(remaining))));
    }

    fn progress(&self, phase: &Phase, done: u64, total: u64) {
        let mut bars = self.by_phase.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(phase.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg:24} [{bar:30}] {percent:>3}%");
            let style = style.expect("the template is well-formed").progress_chars("=> ");
            self.all.add(ProgressBar::new(total).with_style(style).with_message(phase.to_string()))
        });
        bar.set_length(total.max(done));
        bar.set_position(done);
        if total > 0 && done >= total {
            bar.finish_and_clear();
        }
    }

    fn note(&self, note: &str) {
        self.all.suspend(|| say(note));
    }
}
