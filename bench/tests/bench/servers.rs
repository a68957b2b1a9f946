//! Server processes of the load bench: this test binary once more, as a stub.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duet_bench::SystemClock;
use duet_bench::http::Client;
use duet_bench::load::{
    Arm, Launch, LoadError, LoadPlan, Prompts, Scenario, ServerCommand, ServerProcess, Sizes, run,
};
use duet_core::testing::ByteTokenizer;

use crate::stub::{Act, Stub, gone, model, whole};

/// Tells the binary, started again, to be a server.
const PORT: &str = "DUET_STUB_PORT";
/// And what to answer to /health.
const HEALTH: &str = "DUET_STUB_HEALTH";

/// Does nothing unless a test below started it.
#[tokio::test]
#[ignore = "no test: other tests start this function as a server in a process of its own"]
async fn serves_as_a_process() {
    let Ok(port) = std::env::var(PORT) else { return };
    let health = std::env::var(HEALTH).unwrap_or_else(|_| "200 OK".into());
    let good = model::script(Arc::default());
    let script = move |got: &crate::stub::Got| -> Vec<Act> {
        if got.line == "GET /health" { whole(&health, "{}") } else { good(got) }
    };
    Stub::on(port.parse().unwrap(), script).await.serve_for_ever().await;
}

fn command(dir: &Path, words: &[&str]) -> ServerCommand {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let (log, patience) = (dir.join("server.log"), Duration::from_secs(60));
    ServerCommand { arm: "stub".into(), words, log, patience }
}

fn stub_command(dir: &Path, health: &str) -> ServerCommand {
    let exe: PathBuf = std::env::current_exe().unwrap();
    let (port, health) = (format!("{PORT}={{port}}"), format!("{HEALTH}={health}"));
    let test = "servers::serves_as_a_process";
    command(dir, &["env", &port, &health, exe.to_str().unwrap(), "--ignored", "--exact", test, "--nocapture"])
}

fn client(process: &ServerProcess) -> Client {
    Client::new(process.address(), Arc::new(SystemClock::default()))
}

#[tokio::test]
async fn a_server_is_ready_and_then_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = ServerProcess::start(&stub_command(dir.path(), "200 OK")).unwrap();
    let client = client(&process);
    process.ready(&client).await.unwrap();
    assert!(process.ended().await.is_none());
    assert_eq!(client.get("/v1/models").await.unwrap().status, 200);
    process.stop().await.unwrap();
    gone(&client).await;
}

#[tokio::test]
async fn dropping_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = ServerProcess::start(&stub_command(dir.path(), "200 OK")).unwrap();
    let client = client(&process);
    process.ready(&client).await.unwrap();
    drop(process);
    gone(&client).await;
}

#[tokio::test]
async fn a_server_that_never_gets_ready_is_given_up_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let patience = Duration::from_millis(500);
    let command = ServerCommand { patience, ..stub_command(dir.path(), "503 Service Unavailable") };
    let mut process = ServerProcess::start(&command).unwrap();
    let client = client(&process);
    let error = process.ready(&client).await.unwrap_err();
    assert!(matches!(error, LoadError::Late { what: "ready", .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_ends_at_once_tells_why() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["sh", "-c", "echo no such model: {port} >&2; exit 3"];
    let mut process = ServerProcess::start(&command(dir.path(), &words)).unwrap();
    let client = client(&process);
    let error = process.ready(&client).await.unwrap_err();
    assert!(matches!(&error, LoadError::Exited { status, .. } if status.code() == Some(3)), "{error}");
    assert!(error.to_string().contains("no such model: "), "{error}");
    assert!(!error.to_string().contains("{port}"), "{error}");
    assert!(matches!(process.ended().await, Some(LoadError::Exited { .. })));
}

#[tokio::test]
async fn a_server_that_does_not_stop_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let patience = Duration::from_millis(300);
    // Says so once it no longer minds being asked to stop.
    let words = ["sh", "-c", "trap '' TERM; echo {port} deaf; while :; do read -r line < /dev/zero; done"];
    let command = ServerCommand { patience, ..command(dir.path(), &words) };
    let process = ServerProcess::start(&command).unwrap();
    let log = command.log.clone();
    crate::stub::until(async || std::fs::read_to_string(&log).unwrap().contains("deaf")).await;
    let error = process.stop().await.unwrap_err();
    assert!(matches!(error, LoadError::Late { what: "gone", .. }), "{error}");
    assert!(error.to_string().contains("deaf"), "{error}");
}

#[tokio::test]
async fn commands_that_cannot_be_started_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for words in [&[][..], &["duet", "serve"]] {
        let error = ServerProcess::start(&command(dir.path(), words)).unwrap_err();
        assert!(matches!(error, LoadError::Option(_)), "{error}");
    }
    let error = ServerProcess::start(&command(dir.path(), &["/no/such/program", "{port}"])).unwrap_err();
    assert!(matches!(error, LoadError::Start { .. }), "{error}");
    let mut lost = command(dir.path(), &["true", "{port}"]);
    lost.log = dir.path().join("no/such/folder/log");
    assert!(matches!(ServerProcess::start(&lost), Err(LoadError::Start { .. })));
}

#[tokio::test]
async fn a_restarted_server_has_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::Command(stub_command(dir.path(), "200 OK"));
    let arm = Arm::start(launch, Arc::new(SystemClock::default())).await.unwrap();
    let sizes = Sizes { conversation: 300, turn: 10, ..Sizes::default() };
    let patience = Duration::from_secs(60);
    let scenarios = vec![Scenario::FollowUp { restart: true }];
    let plan = LoadPlan { scenarios, sizes, n_blocks: 1, seed: 2, patience };
    let prompts = Prompts::new(&ByteTokenizer::default(), "Call me Ishmael.", 2).unwrap();
    let mut arms = [arm];
    let report = run(&plan, &mut arms, &prompts, |_| ()).await.unwrap();
    assert_eq!(report.failure, None);
    // The stub keeps nothing on disk.
    let evaluated =
        report.comparisons.iter().find(|c| c.figure == "follow-up, restarted: prompt tokens evaluated");
    assert_eq!(evaluated.unwrap().arms[0].as_ref().unwrap().median, 310.0);
    assert_eq!(report.visits[0].server_cores, None, "another process");
    let [arm] = arms;
    arm.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_under_load_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::Command(stub_command(dir.path(), "200 OK"));
    let arm = Arm::start(launch, Arc::new(SystemClock::default())).await.unwrap();
    let id = rustix::process::Pid::from_raw(arm.process_id().unwrap() as i32).unwrap();
    let sizes = Sizes { output: 12, ..Sizes::default() };
    let (scenarios, patience) = (vec![Scenario::Streams(1)], Duration::from_secs(60));
    let plan = LoadPlan { scenarios, sizes, n_blocks: 2, seed: 2, patience };
    let prompts = Prompts::new(&ByteTokenizer::default(), "Call me Ishmael.", 2).unwrap();
    let kill = |_: &duet_bench::load::Visit| {
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    };
    let report = run(&plan, &mut [arm], &prompts, kill).await.unwrap();
    let failure = report.failure.unwrap();
    assert!(failure.starts_with("stub ended with signal: 9"), "{failure}");
    assert_eq!(report.visits.len(), 1);
}
