//! A measurement in processes of its own, one or several after each other: what differs from one start to the next is in
//! the interval then, and an engine that takes its process down costs one block.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context;
use duet_bench::report::Report;
use duet_bench::scenario::ScenarioWork;
use duet_bench::worker::{Worker, WorkerError, supervise};

use super::{OutputArguments, RunArguments, write};
use crate::say;

/// Measures in `n_processes` processes of this program, one after the other, and puts the reports together. The first one
/// also compares the logits and the weights, measures the noise floor, and with `--full` says how many blocks it takes. A
/// process that an engine takes down is started again and goes on after the block that was lost.
pub(super) async fn run(
    arguments: &RunArguments,
    output: &OutputArguments,
    n_processes: u32,
) -> anyhow::Result<u8> {
    match measure(arguments, n_processes).await? {
        Measured::Report(report) => {
            write(&report, output)?;
            Ok(report.exit_code())
        }
        Measured::Nothing(code) => Ok(code),
    }
}

/// What came of the processes.
pub(super) enum Measured {
    /// A report.
    Report(Box<Report>),
    /// Nothing could be measured, as they have said on the terminal; what to exit with.
    Nothing(u8),
}

/// As [`run`], without writing the report anywhere.
pub(super) async fn measure(arguments: &RunArguments, n_processes: u32) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir().context("cannot make a folder for the processes' reports")?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut reports: Vec<Report> = Vec::new();
    for index in 0..n_processes {
        let n_blocks = reports.first().map(|first| first.plan.orders.len());
        if n_processes > 1 {
            say(&format!("process {} of {n_processes}", index + 1));
        }
        let file = |what: &str| folder.path().join(format!("{index}-{what}"));
        let (journal, report) = (file("journal"), file("report.json"));
        let mut line =
            child_arguments(arguments, index, n_processes, n_blocks, reports.first().and_then(rate));
        line.extend(["--journal".into(), journal.clone().into(), "--json".into(), report.clone().into()]);
        let worker = Worker {
            program: program.clone(),
            arguments: line,
            blocks_alone: vec!["--blocks-alone".into()],
            journal,
            report,
            patience: Duration::from_secs(arguments.patience),
        };
        match supervise(&worker, say).await {
            Ok(report) => reports.push(report),
            Err(WorkerError::Ended { status }) if index == 0 => {
                // Its own message is on the terminal already, unless a signal ended it; nothing can be measured at all.
                if status.code().is_none() {
                    say(&format!(
                        "duet: an engine took the process down before anything was measured ({status})"
                    ));
                }
                let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
                return Ok(Measured::Nothing(code));
            }
            Err(error) if index == 0 => return Err(error.into()),
            Err(error) => say(&format!(
                "process {} gave no report ({}); the others count",
                index + 1,
                duet_core::chain(&error)
            )),
        }
    }
    Ok(Measured::Report(Box::new(Report::merge(reports)?)))
}

/// Ends this process when the one that started it does, however that ends. Linux only; elsewhere a killed parent leaves
/// the measurement to run to its end.
pub(super) fn end_with_parent() {
    #[cfg(target_os = "linux")]
    // SAFETY: PR_SET_PDEATHSIG takes a signal's number and touches no memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

/// The rate of arrivals that the first process found out: the others have to keep it.
fn rate(report: &Report) -> Option<f64> {
    report.scenarios.iter().find_map(|scenario| match scenario.work {
        ScenarioWork::Arrivals { per_second, .. } => Some(per_second).filter(|rate| *rate > 0.0),
        _ => None,
    })
}

/// The command line of one process.
fn child_arguments(
    arguments: &RunArguments,
    index: u32,
    n_processes: u32,
    n_blocks: Option<usize>,
    rate: Option<f64>,
) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec!["bench".into(), arguments.model.clone().into()];
    line.extend(arguments.other.clone().map(OsString::from));
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.extend([OsString::from(name), value.into()]);
        }
    };
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    flag("--prompt", number(arguments.prompt));
    flag("--decode", number(arguments.decode));
    flag("--margin", arguments.margin.map(|percent| percent.to_string()));
    flag("--threads", number(arguments.threads));
    flag("--weights", Some(arguments.weights.clone()));
    flag("--kv-type", arguments.kv_type.clone());
    flag("--engines", arguments.engines.as_ref().map(|engines| engines.join(",")));
    flag("--seed", Some((arguments.seed.unwrap_or(1) + u64::from(index)).to_string()));
    let later = index > 0;
    flag("--blocks", if later { n_blocks.map(|n| n.to_string()) } else { number(arguments.blocks) });
    flag("--self-blocks", if later { Some("0".into()) } else { number(arguments.self_blocks) });
    flag("--agreement", if later { Some("0".into()) } else { number(arguments.agreement) });
    let listed = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
    flag("--scenario", listed(&arguments.scenarios));
    flag("--streams", listed(&arguments.streams.iter().map(u32::to_string).collect::<Vec<_>>()));
    flag("--rate", rate.or(arguments.rate).map(|rate| rate.to_string()));
    flag("--most-blocks", number(arguments.most_blocks));
    flag("--processes", Some(n_processes.to_string()));
    for (name, given) in [
        ("--quick", arguments.quick),
        ("--full", arguments.full),
        ("--no-proof", later || arguments.no_proof),
        ("--swap", arguments.swap),
    ] {
        if given {
            line.push(name.into());
        }
    }
    for url in &arguments.urls {
        line.extend(["--url".into(), url.into()]);
    }
    if let Some(reference) = arguments.reference.as_ref().filter(|_| !later) {
        let mut named =
            OsString::from(reference.engine.as_ref().map_or(String::new(), |id| format!("{id}:")));
        named.push(&reference.path);
        line.extend(["--reference".into(), named]);
    }
    if let Some(text) = &arguments.text {
        line.extend(["--text".into(), text.clone().into()]);
    }
    if let Some(prompts) = &arguments.prompts {
        line.extend(["--prompts".into(), prompts.clone().into()]);
    }
    line.extend(["--restarts".into(), "1".into()]);
    line
}
