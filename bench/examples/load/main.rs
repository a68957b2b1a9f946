//! Many requests at once against duet and a peer, in turns: starts both servers, prints one table with ratios, ends them.
//!
//! `cargo run --release -p duet-bench --example load -- --help`; docs/load.md has whole command lines.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example that reports to the terminal")]

mod options;

use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use clap::Parser;
use duet_bench::load::{Arm, Launch, LoadReport, Prompts, Visit, run};
use duet_bench::{BUILT_IN_TEXT, Clock, SystemClock};
use duet_core::text::HfTokenizer;
use options::Options;

type Failure = Box<dyn std::error::Error>;

/// One thread: the servers need the cores.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Leaving `measure` behind drops its servers, and dropping kills.
    let outcome = tokio::select! {
        outcome = measure(&options) => outcome,
        signal = signalled() => Err(signal.into()),
    };
    match outcome {
        Ok(report) => ExitCode::from(report.exit_code()),
        Err(error) => {
            eprintln!("load: {}", duet_core::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options) -> Result<LoadReport, Failure> {
    let plan = options.plan()?;
    let tokenizer = HfTokenizer::from_model_dir(&options.tokenizer)?;
    let text = match &options.text {
        Some(path) => std::fs::read_to_string(path)?,
        None => BUILT_IN_TEXT.to_owned(),
    };
    let prompts = Prompts::new(&tokenizer, &text, plan.seed)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let mut arms = Vec::new();
    let mut versions = Vec::new();
    for launch in options.launches()? {
        if let Launch::Command(command) = &launch {
            eprintln!("{}: log in {}", command.arm, command.log.display());
        }
        versions.push(version(&launch).await);
        arms.push(Arm::start(launch, clock.clone()).await?);
    }
    let names: Vec<String> = arms.iter().map(|arm| arm.name().to_owned()).collect();
    let mut report = run(&plan, &mut arms, &prompts, |visit| tell(visit, &names)).await?;
    for (info, version) in report.arms.iter_mut().zip(versions) {
        info.version = version;
    }
    if let Some(path) = &options.json {
        std::fs::write(path, report.to_json()?)?;
    }
    println!("{}", report.to_text());
    for arm in arms {
        if let Err(error) = arm.stop().await {
            eprintln!("load: {error}"); // the figures stand all the same
        }
    }
    Ok(report)
}

/// A line per visit, so that somebody who waits sees that something happens.
fn tell(visit: &Visit, names: &[String]) {
    let figures: Vec<_> = visit
        .figures
        .iter()
        .map(|figure| {
            format!(
                "{} {:.3} {}",
                figure.name.rsplit(": ").next().unwrap_or_default(),
                figure.value,
                figure.unit
            )
        })
        .collect();
    eprintln!("{} | {} | {}", visit.scenario, names[visit.side.index()], figures.join(", "));
}

/// What the server's program says of its version, on one line.
async fn version(launch: &Launch) -> Option<String> {
    let Launch::Command(command) = launch else { return None };
    let program = command.words.first()?;
    let output =
        tokio::process::Command::new(program).arg("--version").stdin(Stdio::null()).output().await.ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Resolves at a signal to stop, with its name.
async fn signalled() -> &'static str {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            return tokio::select! {
                _ = tokio::signal::ctrl_c() => "interrupted",
                _ = terminated.recv() => "terminated",
            };
        }
    }
    let _ = tokio::signal::ctrl_c().await;
    "interrupted"
}
