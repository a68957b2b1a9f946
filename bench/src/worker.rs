//! A measurement in a process of its own, watched: an engine that takes the process down, or does not come to an end, costs
//! the block that was being measured and not the run.
//!
//! The process notes its blocks in a journal ([`crate::BenchOptions::journal`]); when it dies it is started again and goes
//! on after the block that was lost, which the report has as void (`CRASH`, `HANG`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::note_hang;
use crate::report::{ReadError, Report};

/// How to measure in a process.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The program.
    pub program: PathBuf,
    /// Its arguments: it has to write [`Worker::report`] and keep [`Worker::journal`].
    pub arguments: Vec<OsString>,
    /// More of them, once something after the blocks that is no stage of its own has taken the process down: without
    /// agreement, scenarios and proofs.
    pub blocks_alone: Vec<OsString>,
    /// The journal.
    pub journal: PathBuf,
    /// Where the report goes.
    pub report: PathBuf,
    /// How long nothing may come before the process counts as hung. Loading is in it.
    pub patience: Duration,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The program cannot be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ended without a report, before there was anything to go on with or too often.
    #[error("the measuring process ended without a report ({status})")]
    Ended {
        /// How it ended.
        status: ExitStatus,
    },
    /// It ended well and its report cannot be read.
    #[error(transparent)]
    Report(#[from] ReadError),
}

/// Processes that die one after the other before somebody has to look.
const MOST_PROCESSES: u32 = 12;
/// Time between two looks at the journal of a process that runs.
const LOOK: Duration = Duration::from_millis(200);

/// What came of a process.
enum End {
    Exited(ExitStatus),
    Hung(ExitStatus),
}

/// Measures, starting the process anew as often as it takes; `note` gets a sentence for each process that was lost.
///
/// # Errors
/// [`WorkerError`].
///
/// # Cancel safety
/// Dropping the future kills the process.
pub async fn supervise(worker: &Worker, note: impl Fn(&str)) -> Result<Report, WorkerError> {
    let mut blocks_alone = None;
    for _ in 0..MOST_PROCESSES {
        let before = visits(worker);
        let (status, how) = match run(worker, blocks_alone.is_some()).await? {
            End::Exited(status) => (status, format!("{status}")),
            End::Hung(status) => (status, format!("nothing came for {} s", worker.patience.as_secs())),
        };
        if worker.report.exists() {
            let mut report = Report::read(&worker.report)?;
            if let Some(why) = blocks_alone {
                report.give_up_agreement(why);
            }
            return Ok(report);
        }
        // A usage error, a missing model: its own message is on the terminal.
        let measured = visits(worker);
        if status.code().is_some() && measured == 0 {
            return Err(WorkerError::Ended { status });
        }
        note(&format!("the measuring process was lost ({how}); another one goes on after its block"));
        if measured > before {
            continue;
        }
        if measured == 0 || blocks_alone.is_some() {
            return Err(WorkerError::Ended { status });
        }
        blocks_alone =
            Some(format!("the process that was to do what comes after the blocks was lost ({how})"));
    }
    Err(WorkerError::Ended { status: ExitStatus::default() })
}

/// Visits, and stages after the blocks, that were begun, by all processes together.
fn visits(worker: &Worker) -> usize {
    let text = std::fs::read(&worker.journal).unwrap_or_default();
    let begins =
        |line: &&[u8]| line.starts_with(br#"{"entry":"visit""#) || line.starts_with(br#"{"entry":"stage","#);
    text.split(|byte| *byte == b'\n').filter(begins).count()
}

async fn run(worker: &Worker, blocks_alone: bool) -> Result<End, WorkerError> {
    let failed = |source| WorkerError::Start { program: worker.program.clone(), source };
    let more = if blocks_alone { worker.blocks_alone.as_slice() } else { &[] };
    let mut child = Command::new(&worker.program)
        .args(&worker.arguments)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    watch(worker, &mut child).await.map_err(failed)
}

/// Waits for the process's end, or ends it when its journal has not grown for too long.
async fn watch(worker: &Worker, child: &mut Child) -> std::io::Result<End> {
    let length = || std::fs::metadata(&worker.journal).map_or(0, |found| found.len());
    let (mut known, mut since) = (length(), Instant::now());
    loop {
        tokio::select! {
            status = child.wait() => return status.map(End::Exited),
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = length();
        if now != known {
            (known, since) = (now, Instant::now());
        }
        if since.elapsed() >= worker.patience {
            child.kill().await?;
            let _ = note_hang(&worker.journal, worker.patience.as_secs()); // without a journal nothing was begun
            return child.wait().await.map(End::Hung);
        }
    }
}
