//! What to do with reports once they are there.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use clap::Args;
use duet_bench::compare::Gate;
use duet_bench::decision::{Terms, VALID_FOR, Workload, decide};
use duet_bench::hash_file;
use duet_bench::order::Side;
use duet_bench::report::{Metric, Report};
use duet_bench::sweep::Sweep;
use duet_core::decision::DecisionFile;

use super::{OutputArguments, write, write_sweep};
use crate::compose::decisions_path;
use crate::run::print;
use crate::say;

#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    /// The new report (JSON)
    new: PathBuf,
    /// The old one
    old: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct GateArguments {
    /// The report (JSON). Without a baseline its arm A is held against its arm B
    report: PathBuf,
    /// An older report of the same work on the same machine
    #[arg(long, value_name = "REPORT")]
    baseline: Option<PathBuf>,
    /// The figures that count
    #[arg(long, value_delimiter = ',', default_value = "prefill,decode_forced,ttft,decode_native",
          value_parser = ["prefill", "decode_forced", "ttft", "decode_native"])]
    figures: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The report (JSON), or a sweep over --depths; several reports of one measurement are put together
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The report (JSON)
    report: PathBuf,
    /// Record the decision where `engine = "auto"` looks for it [file: $DUET_DECISIONS, else duet/decisions.json in the
    /// user's data folder]
    #[arg(long)]
    record: bool,
    /// A kind of request: name, prompt tokens, generated tokens, as in chat:300:250 (repeat for more)
    #[arg(long = "workload", value_name = "NAME:P:N", value_parser = workload)]
    workloads: Vec<Workload>,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// What the other benchmark wrote or printed
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn workload(text: &str) -> Result<Workload, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [name, n_prompt, n_decode] = parts.as_slice() else { return Err("three parts are needed".into()) };
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(Workload::new(name, number(n_prompt)?, number(n_decode)?))
}

pub(super) fn compare(arguments: &CompareArguments) -> anyhow::Result<u8> {
    let (new, old) = (Report::read(&arguments.new)?, Report::read(&arguments.old)?);
    let compared = duet_bench::compare::compare(&new, &old);
    print(&format!("{}\n", compared.to_text([new.label(Side::A), new.label(Side::B)])))?;
    Ok(0)
}

pub(super) fn gate(arguments: &GateArguments) -> anyhow::Result<u8> {
    let named = |metric: &Metric| arguments.figures.iter().any(|name| name == metric.name());
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(named).collect();
    let read = || -> anyhow::Result<_> {
        Ok((Report::read(&arguments.report)?, arguments.baseline.as_deref().map(Report::read).transpose()?))
    };
    // A report that cannot be read is no regression, and no reason to let a build pass.
    let (report, baseline) = match read() {
        Ok(read) => read,
        Err(error) => {
            say(&format!("duet: {}", duet_core::chain(error.as_ref())));
            return Ok(Gate::Invalid.exit_code());
        }
    };
    let found = duet_bench::compare::gate(&report, baseline.as_ref(), &metrics);
    print(&format!("{}\n", found.to_text()))?;
    Ok(found.gate.exit_code())
}

pub(super) fn show(arguments: &ShowArguments) -> anyhow::Result<u8> {
    if let [path] = arguments.reports.as_slice() {
        // A sweep says so itself; what is wrong with any other file is a report's affair.
        if let Ok(sweep) = Sweep::read(path) {
            write_sweep(&sweep, &arguments.output)?;
            return Ok(0);
        }
    }
    let reports: Result<Vec<Report>, _> = arguments.reports.iter().map(|path| Report::read(path)).collect();
    let report = Report::merge(reports?)?;
    write(&report, &arguments.output)?;
    Ok(0)
}

pub(super) fn explain(arguments: &ExplainArguments) -> anyhow::Result<u8> {
    let report = Report::read(&arguments.report)?;
    let model = report.arms.first().context("the report has no arm")?;
    let files: Vec<PathBuf> = model.model.files.iter().map(|file| file.path.clone()).collect();
    // Only a recorded decision has to know the files themselves.
    let fingerprint = match (arguments.record, duet_core::model::fingerprint(&files)) {
        (_, Ok(fingerprint)) => fingerprint,
        (false, Err(_)) => String::new(),
        (true, Err(error)) => {
            return Err(error).context("the model's files cannot be read, and a decision is bound to them");
        }
    };
    let workloads = match arguments.workloads.is_empty() {
        true => Workload::usual(),
        false => arguments.workloads.clone(),
    };
    let terms = Terms {
        workloads,
        valid_for: VALID_FOR,
        fingerprint,
        report_sha256: hash_file(&arguments.report, |_| {})?.sha256,
        command: command(&report),
        now: SystemTime::now(),
    };
    let decision = decide(&report, &terms)?;
    print(&format!("{}\n", duet_bench::decision::explain(&report, &decision)))?;
    if arguments.record {
        let path =
            decisions_path().context("neither DUET_DECISIONS nor HOME says where decisions are kept")?;
        let mut file = DecisionFile::read_or_empty(&path)?;
        file.put(decision);
        file.write(&path)?;
        say(&format!("recorded in {}", path.display()));
    }
    Ok(0)
}

/// What measures the same again, longer.
fn command(report: &Report) -> String {
    let mut paths: Vec<String> = report.plan.arms.iter().map(|arm| arm.path.display().to_string()).collect();
    paths.dedup();
    format!("duet bench {} --full", paths.join(" "))
}

pub(super) fn import(arguments: &ImportArguments) -> anyhow::Result<u8> {
    let text = std::fs::read_to_string(&arguments.file)
        .with_context(|| format!("cannot read {}", arguments.file.display()))?;
    let imported = duet_bench::import::import(&text)?;
    let shown = match arguments.json {
        true => serde_json::to_string_pretty(&imported)?,
        false => imported.to_text(),
    };
    print(&format!("{shown}\n"))?;
    Ok(0)
}
