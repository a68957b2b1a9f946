//! Processes that are lost and started again: this test binary once more, with an engine that takes it down.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use duet_bench::order::Side;
use duet_bench::report::{BlockKind, Report};
use duet_bench::scenario::{ScenarioKind, ScenarioOptions, SkipReason};
use duet_bench::validity::Code;
use duet_bench::worker::{Worker, WorkerError, supervise};
use duet_bench::{BenchOptions, Silent, run_models};

use crate::support::*;

/// Tells the binary, started again, what to do and where.
const FOLDER: &str = "DUET_TEST_WORKER";
/// "abort", "hang" or "abort at once", and with "late" in it after the blocks.
const HOW: &str = "DUET_TEST_DISASTER";
/// What comes after this in place of a path is given up once it has failed.
const ALONE: &str = "blocks_alone";

/// Of two engines the second one's steps: a warm-up takes some 25, a block some 60.
const IN_BLOCK_THREE: u64 = 150;
/// A scenario takes some hundreds.
const IN_A_SCENARIO: u64 = 60;

/// Does nothing unless a test below started it.
#[tokio::test]
#[ignore = "no test: other tests start this function as a worker in a process of its own"]
async fn measures_as_a_process() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let how = std::env::var(HOW).unwrap_or_default();
    let mut two = backend("two");
    let step = match how.as_str() {
        "abort at once" => 0,
        "abort every time after the blocks" => u64::MAX,
        _ => IN_BLOCK_THREE,
    };
    let (marker, hangs) = (folder.join("disaster"), how == "hang");
    two.disaster = Some(Disaster { step, marker, hangs, among: 1 });
    let alone = std::env::args().any(|argument| argument == ALONE);
    if how.starts_with("abort every time") && !alone {
        two.logits = Logits::AbortOnAll;
    }
    if how == "abort in a scenario" {
        let disaster = two.disaster.as_mut().unwrap();
        // The blocks' model has room for one sequence, that of the scenarios for two.
        (disaster.step, disaster.among) = (IN_A_SCENARIO, 2);
    }
    let mut scenarios = ScenarioOptions::none();
    if how == "abort in a scenario" {
        scenarios.kinds = vec![ScenarioKind::Streams, ScenarioKind::SharedPrefix];
        (scenarios.streams, scenarios.n_blocks, scenarios.n_aa_blocks) = (vec![1, 2], 3, 0);
        (scenarios.n_sharers, scenarios.n_shared, scenarios.budget) = (2, 8, None);
        (scenarios.n_prompt, scenarios.n_decode) = (8, 4);
    }
    let options = BenchOptions {
        scenarios,
        n_blocks: 6,
        journal: Some(folder.join("journal")),
        n_agreement: if alone { 0 } else { 128 },
        ..small_options()
    };
    let models = [model(&folder)];
    let report = run_models(&registry(vec![backend("one"), two]), &models, &options, Arc::new(Silent)).await;
    std::fs::write(folder.join("report.json"), report.unwrap().to_json().unwrap()).unwrap();
}

fn worker(folder: &Path, how: &str) -> Worker {
    let pair = |name: &str, value: &std::ffi::OsStr| {
        let mut pair = OsString::from(format!("{name}="));
        pair.push(value);
        pair
    };
    let mut arguments = vec![pair(FOLDER, folder.as_os_str()), pair(HOW, how.as_ref())];
    arguments.push(std::env::current_exe().unwrap().into());
    let test = ["--ignored", "--nocapture", "workers::measures_as_a_process"];
    arguments.extend(test.map(OsString::from));
    Worker {
        program: "env".into(),
        arguments,
        blocks_alone: vec![ALONE.into()],
        journal: folder.join("journal"),
        report: folder.join("report.json"),
        patience: Duration::from_secs(if how == "hang" { 15 } else { 300 }),
    }
}

async fn supervised(how: &str) -> (Result<Report, WorkerError>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let notes = Mutex::new(Vec::new());
    let report =
        supervise(&worker(dir.path(), how), |note| notes.lock().unwrap().push(note.to_owned())).await;
    (report, notes.into_inner().unwrap())
}

/// One block of six is lost, with this code, and the others stand.
#[track_caller]
fn check(report: &Report, notes: &[String], code: Code) {
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(report.blocks.len(), 6, "the run went on to its end");
    let lost: Vec<usize> = (0..6)
        .filter(|index| report.blocks[*index].lost.as_ref().is_some_and(|lost| lost.code == code))
        .collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0] > 0, "blocks before it are kept");
    let restarts: Vec<u32> = report.blocks.iter().map(|block| block.restart).collect();
    let expected: Vec<u32> = (0..6).map(|index| u32::from(index > lost[0])).collect();
    assert_eq!(restarts, expected, "later blocks are of another process");
    let finding = report.findings.iter().find(|finding| finding.code == code).unwrap();
    assert_eq!((&finding.blocks, finding.arm), (&lost, Some(Side::B)));
    for found in &report.comparisons {
        assert!(found.n_void >= 1 && found.ratio.as_ref().unwrap().n_blocks <= 5, "{found:?}");
    }
    assert!(report.is_complete() && report.agreement.is_some());
    assert!(report.to_text().contains(code.name()) && report.to_markdown().contains(code.name()));
    assert!(report.to_html().contains(code.name()));
}

#[tokio::test]
async fn an_engine_that_aborts_costs_one_block() {
    let (report, notes) = supervised("abort").await;
    check(&report.unwrap(), &notes, Code::Crash);
}

#[tokio::test]
async fn an_engine_that_hangs_costs_one_block() {
    let (report, notes) = supervised("hang").await;
    check(&report.unwrap(), &notes, Code::Hang);
    assert!(notes[0].contains("nothing came for 15 s"), "{notes:?}");
}

#[tokio::test]
async fn an_engine_that_aborts_before_any_block_is_not_asked_again_for_ever() {
    let (report, notes) = supervised("abort at once").await;
    // The first process leaves its marker, so the second one does well; but nothing had been measured yet.
    assert!(matches!(report, Err(WorkerError::Ended { .. })), "{report:?} {notes:?}");
}

#[tokio::test]
async fn an_agreement_that_aborts_leaves_the_blocks() {
    let (report, notes) = supervised("abort every time after the blocks").await;
    let report = report.unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(report.blocks.iter().all(|block| block.lost.is_none()) && report.blocks.len() == 6);
    assert!(report.no_agreement.as_ref().unwrap().contains("was lost"), "{:?}", report.no_agreement);
    assert_eq!(report.exit_code(), 2, "not all that was asked for");
    assert!(report.to_text().contains("no agreement: the process"));
}

#[tokio::test]
async fn a_scenario_that_aborts_costs_that_scenario() {
    let (report, notes) = supervised("abort in a scenario").await;
    let report = report.unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(report.blocks.iter().all(|block| block.lost.is_none()) && report.blocks.len() == 6);
    assert!(report.agreement.is_some(), "kept from the process before");
    let failed: Vec<&str> = report
        .scenarios
        .iter()
        .filter(|scenario| scenario.failure.is_some())
        .map(|scenario| scenario.name.as_str())
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    for scenario in report.scenarios.iter().filter(|scenario| scenario.failure.is_none()) {
        assert_eq!((scenario.blocks.len(), &scenario.skipped), (3, &None), "{}", scenario.name);
    }
    assert_eq!((report.scenarios.len(), report.exit_code()), (3, 2), "not all that was asked for");
    assert!(report.to_text().contains("FAILED: its process ended in it"), "{}", report.to_text());
}

#[tokio::test]
async fn a_program_that_is_not_there_or_refuses_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let with = |program: &str, arguments: &[&str]| Worker {
        program: program.into(),
        arguments: arguments.iter().map(OsString::from).collect(),
        ..worker(dir.path(), "abort")
    };
    let missing = supervise(&with("/no/such/program", &[]), |_| ()).await.unwrap_err();
    assert!(matches!(missing, WorkerError::Start { .. }), "{missing}");
    let refused = supervise(&with("sh", &["-c", "exit 64"]), |_| ()).await.unwrap_err();
    assert!(matches!(refused, WorkerError::Ended { status } if status.code() == Some(64)), "{refused}");
    std::fs::write(dir.path().join("report.json"), "{").unwrap();
    let broken = supervise(&with("true", &[]), |_| ()).await.unwrap_err();
    assert!(matches!(broken, WorkerError::Report(_)), "{broken}");
}

#[tokio::test]
async fn one_engine_at_a_time_is_loaded_anew_at_each_switch() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = BenchOptions { swap: true, ..small_options() };
    options.scenarios.kinds = vec![ScenarioKind::Streams];
    let engines = registry(vec![backend("one"), backend("two")]);
    let report = run_models(&engines, &[model(dir.path())], &options, Arc::new(Silent)).await.unwrap();
    assert!(report.is_complete(), "{:?}", report.arms);
    assert_eq!(report.manifest.mode, "swap");
    for block in report.blocks.iter().filter(|block| block.kind == BlockKind::Ab) {
        let reloaded: Vec<bool> = block.visits.iter().map(|visit| visit.reload_ns.is_some()).collect();
        assert_eq!(reloaded[1..], [true, false, true], "ABBA switches at its second and last visit");
        assert_eq!(reloaded, block.visits.iter().map(|visit| visit.wash_out.is_some()).collect::<Vec<_>>());
    }
    assert_eq!(report.comparisons.len(), 4);
    assert_eq!(report.no_agreement.as_deref(), Some("only one arm is loaded at a time"));
    assert!(report.scenarios.iter().all(|scenario| {
        scenario.skipped.as_ref().is_some_and(|skipped| skipped.reason == SkipReason::Room)
    }));
    assert!(report.to_text().contains("loaded anew at each switch"), "{}", report.to_text());
}
