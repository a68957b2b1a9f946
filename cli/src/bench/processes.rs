//! A measurement in several processes, one after the other: what differs from one start to the next is in the interval
//! then, and an engine that takes its process down costs one of them.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Context;
use duet_bench::report::Report;
use duet_bench::scenario::ScenarioWork;

use super::{OutputArguments, RunArguments, write};
use crate::say;

/// Runs this program `n_processes` times and puts the reports together. The first process also compares the logits and
/// the weights, measures the noise floor, and with `--full` says how many blocks it takes.
pub(super) fn run(
    arguments: &RunArguments,
    output: &OutputArguments,
    n_processes: u32,
) -> anyhow::Result<u8> {
    let folder = tempfile::tempdir().context("cannot make a folder for the processes' reports")?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut reports: Vec<Report> = Vec::new();
    for index in 0..n_processes {
        let path = folder.path().join(format!("{index}.json"));
        let n_blocks = reports.first().map(|first| first.plan.orders.len());
        say(&format!("process {} of {n_processes}", index + 1));
        let status = Command::new(&program)
            .args(child_arguments(arguments, index, n_processes, n_blocks, reports.first().and_then(rate)))
            .arg("--json")
            .arg(&path)
            .stdout(std::process::Stdio::null())
            .status()
            .with_context(|| format!("cannot start {}", program.display()))?;
        match Report::read(&path) {
            Ok(report) => reports.push(report),
            Err(error) if index == 0 => {
                // Its own message is on the terminal already; nothing can be measured at all.
                say(&format!("duet: the first process gave no report ({status}): {error}"));
                return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            Err(_) => say(&format!("process {} gave no report ({status}); the others count", index + 1)),
        }
    }
    let report = Report::merge(reports)?;
    write(&report, output)?;
    Ok(report.exit_code())
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
    flag("--processes", Some(n_processes.to_string()));
    for (name, given) in [("--quick", arguments.quick), ("--full", arguments.full), ("--no-proof", later)] {
        if given {
            line.push(name.into());
        }
    }
    for url in &arguments.urls {
        line.extend(["--url".into(), url.into()]);
    }
    if let Some(text) = &arguments.text {
        line.extend(["--text".into(), text.clone().into()]);
    }
    line.extend(["--restarts".into(), "1".into()]);
    line
}
