//! The `duet` command: puts engines, server and bench together and speaks to the terminal.
//!
//! Answers go to standard output, everything else to standard error. Exit codes: 0 done, 1 it failed (one line says
//! why), 2 the command line or the configuration is wrong; for `bench`, where 1 to 3 are answers, 64.

mod bench;
mod compose;
mod engines;
mod model;
mod plan;
mod progress;
mod run;
mod same_bits;
mod serve;

use std::io::Write;
use std::mem::ManuallyDrop;

use clap::{Parser, Subcommand};

/// One server, two engines: GGUF models through llama.cpp, MLX models (and .gguf files) through MLX.
#[derive(Debug, Parser)]
#[command(name = "duet", version, about, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    /// What to log, as in `info` or `duet_server=debug,warn`
    #[arg(long, global = true, value_name = "FILTER", env = "DUET_LOG", help_heading = "Logging")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve models over HTTP as an OpenAI endpoint
    Serve(serve::ServeArguments),
    /// Answer one prompt in the terminal
    Run(run::RunArguments),
    /// Measure two engines against each other on the same weights and token ids
    Bench(Box<bench::BenchArguments>),
    /// Say what a model takes in memory and how fast it can be at most, from its headers
    Plan(plan::PlanArguments),
    /// List the engines of this build: versions, devices, CPU features, library
    Engines(engines::EnginesArguments),
}

impl Command {
    /// What is logged unless `--log` says otherwise: a server tells what it does, the others speak for themselves.
    fn default_log(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info,llama_cpp=warn",
            Self::Run(_) | Self::Bench(_) | Self::Plan(_) | Self::Engines(_) => "warn",
        }
    }
}

fn main() {
    leave(run_command())
}

/// Gives the exit code.
fn run_command() -> u8 {
    reset_sigpipe();
    let arguments = Arguments::try_parse().unwrap_or_else(|error| refuse(&error));
    let filter = arguments.log.as_deref().unwrap_or_else(|| arguments.command.default_log());
    let filter = match tracing_subscriber::EnvFilter::try_new(filter) {
        Ok(filter) => filter,
        Err(error) => return fail(&anyhow::anyhow!("--log {filter}: {error}"), 2),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), 1),
    };
    // Never dropped: that would wait for whatever still blocks one of its threads.
    let runtime = ManuallyDrop::new(runtime);
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Serve(arguments) => serve::serve(arguments).await,
            Command::Bench(arguments) => bench::bench(*arguments).await,
            Command::Plan(arguments) => plan::plan(&arguments),
            Command::Run(arguments) => run::run(arguments).await,
            Command::Engines(arguments) => engines::engines(&arguments),
        }
    });
    match result {
        Ok(code) => code,
        Err(error) => fail(&error, 1),
    }
}

/// Says what is wrong with the command line, or shows help and version, and ends the process.
fn refuse(error: &clap::Error) -> ! {
    let _ = error.print(); // nobody is left to be told
    let bench = std::env::args_os().nth(1).is_some_and(|command| command == "bench");
    let code =
        if bench && error.use_stderr() { bench::USAGE } else { u8::try_from(error.exit_code()).unwrap_or(2) };
    leave(code)
}

fn fail(error: &anyhow::Error, code: u8) -> u8 {
    say(&format!("duet: {}", duet_core::chain(error.as_ref())));
    code
}

/// Ends the process without destroying the libraries' globals: a command that was told to stop does not wait for ever for
/// an engine's step or load, and a library whose globals go while its threads compute crashes.
fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush(); // nobody is left to be told
    #[cfg(unix)]
    // SAFETY: has no preconditions and does not return.
    unsafe {
        libc::_exit(code.into())
    }
    #[cfg(not(unix))]
    #[expect(clippy::disallowed_methods, reason = "the nearest to it")]
    std::process::exit(code.into())
}

/// One line on standard error.
#[expect(clippy::print_stderr, reason = "the command line speaks to the terminal here and nowhere else")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Lets `duet … | head` end quietly, as other commands do, instead of with a write error.
fn reset_sigpipe() {
    #[cfg(unix)]
    // SAFETY: called once, before any other thread exists; SIG_DFL is a valid disposition for SIGPIPE.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
