//! `duet bench`: both engines on the same token ids, and what to do with the reports.

mod bars;
mod options;
mod processes;
mod reports;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use duet_bench::report::Report;
use duet_bench::sweep::Sweep;
use duet_bench::{BenchError, BenchOptions, ReferenceModel};
use duet_core::InferenceBackend;

use self::bars::Bars;
use crate::run::print;
use crate::say;

/// A command line that asks for something that cannot be asked for; as sysexits.h has it. 1 to 3 are a gate's answers.
pub(crate) const USAGE: u8 = 64;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
One .gguf file runs on both engines; a .gguf file and an MLX directory run each on their own.
The same engine twice (--engines gguf,gguf) shows how much the measurement itself varies.
--quick takes less than two minutes with a small model, the default less than a quarter of an hour; --full says
after a pilot how long it will take."
)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    command: Option<ReportCommand>,
    #[command(flatten)]
    run: Option<RunArguments>,
    // Not within `run`: clap leaves an optional group that has a group inside empty.
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// Compare a new report with an old one of the same work
    Compare(reports::CompareArguments),
    /// Pass or fail a report: exit code 0 ok, 1 regression, 2 invalid, 3 inconclusive, 64 usage
    Gate(reports::GateArguments),
    /// Show a report again: as a table, Markdown, CSV or a page
    Show(reports::ShowArguments),
    /// Show how a report's decision comes about, and record it for `engine = "auto"`
    Explain(reports::ExplainArguments),
    /// Show the results of llama-bench, mlx_lm.benchmark or guidellm in this bench's terms
    Import(reports::ImportArguments),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArguments {
    /// A .gguf file or an MLX directory
    model: PathBuf,
    /// The second arm's model [default: the same]
    other: Option<PathBuf>,
    /// The two arms' engines, as in gguf,mlx
    #[arg(long, value_name = "A,B", value_parser = options::two)]
    engines: Option<[String; 2]>,
    /// A server as an arm (engine `http`; a second one `http2`), on the level that servers have; it has to run MODEL. Of
    /// several models behind it, the one to ask: http://HOST:PORT#NAME
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// Fewer and shorter requests, no noise floor
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// As many blocks as a pilot says, in three processes
    #[arg(long)]
    full: bool,
    /// Prompt tokens of a request
    #[arg(short, long, value_name = "P")]
    prompt: Option<u32>,
    /// Prompts of several lengths, as in 128,512,2048, and the law that decoding follows over depth
    #[arg(long, value_name = "P,P", value_delimiter = ',', conflicts_with_all = ["prompt", "full", "restarts"])]
    depths: Vec<u32>,
    /// Tokens decoded after the prompt, in each mode
    #[arg(short = 'n', long, value_name = "N")]
    decode: Option<u32>,
    /// Blocks of four visits (ABBA or BAAB), however long they take
    #[arg(long)]
    blocks: Option<u32>,
    /// Blocks of each arm against itself, for the noise floor; 0 for none
    #[arg(long, value_name = "BLOCKS")]
    self_blocks: Option<u32>,
    /// Processes, one after the other, each with its share of the blocks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    restarts: Option<u32>,
    /// How far from 1 a ratio has to be to matter, in percent [default: 3]
    #[arg(long, value_name = "PERCENT")]
    margin: Option<f64>,
    /// What is done beside single requests: streams, shared-prefix, arrivals, load, idle, all or none [default: streams
    /// and shared-prefix as far as two and a half minutes go; with --quick and --depths none, with --full all]
    #[arg(long = "scenario", value_name = "NAME,NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Numbers of streams of the scenario `streams` [default: 1,2,4,8]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    streams: Vec<u32>,
    /// Arrivals per second of the scenario `arrivals` [default: six tenths of what the slower arm answers]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Positions to compare for the agreement; 0 for none
    #[arg(long, value_name = "TOKENS")]
    agreement: Option<u32>,
    /// A third model that is taken as right, the unquantised file for instance: how far both arms' logits are from its. With
    /// another engine than its format's own as in mlx:MODEL
    #[arg(long, value_name = "[ENGINE:]MODEL", value_parser = options::reference, conflicts_with = "swap")]
    reference: Option<ReferenceModel>,
    /// UTF-8 text to work on [default: a chapter that comes with duet]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Prompts to work on instead: chat, rag, code or agent (built in), or a file of JSON lines with `prompt`, `messages` or
    /// `ids` each
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "text")]
    prompts: Option<PathBuf>,
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
    /// Load only one engine at a time, for models that do not fit twice; each switch loads anew, and nothing is compared
    /// but speed
    #[arg(long)]
    swap: bool,
    /// Seconds without a sign of life after which an engine counts as hung; loading is in it
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Measure in this process, and note each block here
    #[arg(long, hide = true)]
    journal: Option<PathBuf>,
    /// Nothing but the blocks, because something else took the process before down
    #[arg(long, hide = true)]
    blocks_alone: bool,
    /// Of how many processes this is one
    #[arg(long, hide = true)]
    processes: Option<u32>,
    /// At most so many blocks, and fewer where they would take too long
    #[arg(long, hide = true)]
    most_blocks: Option<u32>,
    /// Do not compare the weights; for the later ones of several processes
    #[arg(long, hide = true)]
    no_proof: bool,
}

/// Where a report goes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OutputArguments {
    /// Write the whole report with raw samples to a file; `-` prints it instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write every figure of every visit to a file, as CSV; `-` prints it
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the report as Markdown; `-` prints it
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write the report as a page with charts; `-` prints it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) async fn bench(arguments: BenchArguments) -> anyhow::Result<u8> {
    match (arguments.command, arguments.run) {
        (Some(ReportCommand::Compare(arguments)), _) => reports::compare(&arguments),
        (Some(ReportCommand::Gate(arguments)), _) => reports::gate(&arguments),
        (Some(ReportCommand::Show(arguments)), _) => reports::show(&arguments),
        (Some(ReportCommand::Explain(arguments)), _) => reports::explain(&arguments),
        (Some(ReportCommand::Import(arguments)), _) => reports::import(&arguments),
        (None, Some(run_arguments)) => run(&run_arguments, &arguments.output).await,
        (None, None) => anyhow::bail!("a model is needed; see `duet bench --help`"),
    }
}

async fn run(arguments: &RunArguments, output: &OutputArguments) -> anyhow::Result<u8> {
    if !arguments.depths.is_empty() {
        return sweep(arguments, output).await;
    }
    // Before a process is started for it: what is wrong with the command line is said once.
    let options = match options::options(arguments) {
        Ok(options) => options,
        Err(problem) => {
            say(&format!("duet: {problem}"));
            return Ok(USAGE);
        }
    };
    if arguments.journal.is_none() {
        let n_processes = arguments.restarts.unwrap_or(if arguments.full { 3 } else { 1 });
        return processes::run(arguments, output, n_processes).await;
    }
    processes::end_with_parent();
    match measure(&options).await {
        Ok(report) => {
            write(&report, output)?;
            Ok(report.exit_code())
        }
        Err(error) => refuse(error),
    }
}

/// One run with a bar for each of its phases.
async fn measure(options: &BenchOptions) -> Result<Report, BenchError> {
    let bars = Arc::new(Bars::default());
    let servers = options.servers.iter().map(|server| server.clone() as Arc<dyn InferenceBackend>);
    let registry = crate::compose::registry_with(servers.collect());
    let report = duet_bench::run(&registry, options, bars.clone()).await;
    bars.clear();
    report
}

/// What cannot be asked for is another exit code than what failed.
fn refuse(error: BenchError) -> anyhow::Result<u8> {
    if !matches!(error, BenchError::Option { .. }) {
        return Err(error.into());
    }
    say(&format!("duet: {}", duet_core::chain(&error)));
    Ok(USAGE)
}

/// A run for each depth, one after the other, each in a process of its own.
async fn sweep(arguments: &RunArguments, output: &OutputArguments) -> anyhow::Result<u8> {
    let mut reports = Vec::new();
    let mut worst = 0;
    for (index, depth) in arguments.depths.iter().enumerate() {
        let of_depth = at_depth(arguments, index, *depth);
        // What is wrong with the command line is said once, before a process is started.
        if let Err(problem) = options::options(&of_depth) {
            say(&format!("duet: {problem}"));
            return Ok(USAGE);
        }
        say(&format!("depth {depth}"));
        match processes::measure(&of_depth, 1).await? {
            processes::Measured::Report(report) => reports.push(*report),
            processes::Measured::Nothing(code) if reports.is_empty() => return Ok(code),
            processes::Measured::Nothing(_) => {
                say(&format!("depth {depth} gave no report; the others count"));
                worst = 2;
            }
        }
    }
    let sweep = Sweep::of(reports);
    write_sweep(&sweep, output)?;
    Ok(sweep.exit_code().max(worst))
}

/// A run at one of the depths: without a noise floor, and with what does not depend on depth in the first one only.
fn at_depth(arguments: &RunArguments, index: usize, depth: u32) -> RunArguments {
    let later = index > 0;
    let without = later || arguments.scenarios.is_empty();
    RunArguments {
        prompt: Some(depth),
        depths: Vec::new(),
        self_blocks: Some(0),
        most_blocks: Some(5),
        agreement: if later { Some(0) } else { arguments.agreement },
        no_proof: later || arguments.no_proof,
        scenarios: if without { vec!["none".to_owned()] } else { arguments.scenarios.clone() },
        streams: if without { Vec::new() } else { arguments.streams.clone() },
        rate: arguments.rate.filter(|_| !without),
        ..arguments.clone()
    }
}

/// Writes a sweep to where it was asked for; CSV and Markdown are of single reports.
fn write_sweep(sweep: &Sweep, output: &OutputArguments) -> anyhow::Result<()> {
    if output.csv.is_some() || output.markdown.is_some() {
        say(
            "CSV and Markdown are of single depths: `duet bench show` makes them from a run without --depths",
        );
    }
    let forms: [(&Option<PathBuf>, Form<Sweep>); 2] =
        [(&output.json, |sweep| Ok(sweep.to_json()? + "\n")), (&output.html, |sweep| Ok(sweep.to_html()))];
    if !write_forms(sweep, &forms)? {
        print(&format!("{}\n", sweep.to_text()))?;
    }
    Ok(())
}

/// Writes a report to where it was asked for, and the table to the terminal unless something else is printed there.
fn write(report: &Report, output: &OutputArguments) -> anyhow::Result<()> {
    let forms: [(&Option<PathBuf>, Form<Report>); 4] = [
        (&output.json, |report| Ok(report.to_json()? + "\n")),
        (&output.csv, |report| Ok(report.to_csv())),
        (&output.markdown, |report| Ok(report.to_markdown())),
        (&output.html, |report| Ok(report.to_html())),
    ];
    if !write_forms(report, &forms)? {
        print(&format!("{}\n", report.to_text()))?;
    }
    Ok(())
}

/// How something becomes a file's text.
type Form<T> = fn(&T) -> anyhow::Result<String>;

/// Writes each form that a file was named for; whether one was printed.
fn write_forms<T>(of: &T, forms: &[(&Option<PathBuf>, Form<T>)]) -> anyhow::Result<bool> {
    let mut printed = false;
    for (path, form) in forms {
        match path {
            Some(path) if path == Path::new("-") => {
                print(&form(of)?)?;
                printed = true;
            }
            Some(path) => {
                std::fs::write(path, form(of)?).with_context(|| format!("cannot write {}", path.display()))?
            }
            None => {}
        }
    }
    Ok(printed)
}
