//! The load bench against stubs that listen already.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use duet_bench::SystemClock;
use duet_bench::load::{
    Arm, Launch, LoadError, LoadFlag, LoadPlan, LoadReport, Prompts, Scenario, Sizes, run,
};
use duet_bench::order::Side;
use duet_core::testing::ByteTokenizer;
use serde_json::Value;

use crate::stub::model::{Seen, script};
use crate::stub::{Act, Got, Stub, end, head, text, whole};

const SIZES: Sizes = Sizes {
    prompt: 20,
    output: 12,
    sharers: 3,
    shared: 100,
    shared_prompt: 120,
    shared_output: 2,
    long_prompt: 400,
    before: 12,
    running_output: 400,
    conversation: 300,
    turn: 10,
};

fn plan(scenarios: &[Scenario], n_blocks: usize) -> LoadPlan {
    let patience = Duration::from_secs(60);
    LoadPlan { scenarios: scenarios.to_vec(), sizes: SIZES, n_blocks, seed: 1, patience }
}

fn prompts() -> Prompts {
    let text: String = (0..200).map(|n| format!("{n}, ")).collect();
    Prompts::new(&ByteTokenizer::default(), &text, 1).unwrap()
}

async fn arm(name: &str, stub: &Stub) -> Arm {
    let launch = Launch::Running { arm: name.into(), address: stub.address };
    Arm::start(launch, Arc::new(SystemClock::default())).await.unwrap()
}

async fn run_one(
    scenario: Scenario,
    script: impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static,
) -> LoadReport {
    let stub = Stub::new(script).await;
    run(&plan(&[scenario], 1), &mut [arm("one", &stub).await], &prompts(), |_| ()).await.unwrap()
}

#[track_caller]
fn value(report: &LoadReport, figure: &str) -> f64 {
    let found = report.comparisons.iter().find(|comparison| comparison.figure == figure);
    let found = found.unwrap_or_else(|| panic!("no {figure}: {:?}", report.failure));
    found.arms[0].as_ref().unwrap().median
}

#[tokio::test]
async fn two_arms_take_turns_on_the_same_prompts() {
    let (seen_a, seen_b) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let (a, b) = (Stub::new(script(seen_a.clone())).await, Stub::new(script(seen_b.clone())).await);
    let mut arms = [arm("a", &a).await, arm("b", &b).await];
    let told = Mutex::new(Vec::new());
    let tell = |visit: &duet_bench::load::Visit| told.lock().unwrap().push((visit.side, visit.block));
    let scenarios = [Scenario::Streams(1), Scenario::Streams(3)];
    let report = run(&plan(&scenarios, 2), &mut arms, &prompts(), tell).await.unwrap();
    assert_eq!(report.failure, None);
    assert_eq!((report.visits.len(), told.lock().unwrap().len(), report.exit_code()), (16, 16, 0));
    for block in report.visits.chunks(4) {
        let sides: Vec<Side> = block.iter().map(|visit| visit.side).collect();
        assert!(sides[0] == sides[3] && sides[1] == sides[2] && sides[0] != sides[1], "{sides:?}");
    }
    // A warm-up and one or three streams per visit, never the same twice, and the same for both.
    let (prompts_a, mut prompts_b) = (seen_a.completions(), seen_b.completions());
    assert_eq!(prompts_a.len(), 4 * 2 + 4 * 4);
    let mut sorted = prompts_a.clone();
    sorted.sort();
    prompts_b.sort();
    assert_eq!(sorted, prompts_b);
    sorted.dedup();
    assert_eq!(sorted.len(), prompts_a.len());
    assert!(
        report.visits.iter().all(|visit| visit.flags.is_empty()),
        "no caching: {:?}",
        report.visits[0].flags
    );
    let figures: Vec<&str> = report.comparisons.iter().map(|comparison| comparison.figure.as_str()).collect();
    let of = |name: &str| {
        ["total", "all decoding", "each stream", "median TTFT"].map(|what| format!("{name}: {what}"))
    };
    assert_eq!(figures, [of("1 stream"), of("3 streams")].concat());
    assert!(
        report
            .comparisons
            .iter()
            .all(|comparison| comparison.ratio.as_ref().is_some_and(|r| r.n_blocks == 2))
    );
    assert_eq!(report.arms[0].system_fingerprint.as_deref(), Some("fp_stub"));
    let (text, json) = (report.to_text(), report.to_json().unwrap());
    assert!(text.contains("a ÷ b [95 %]") && text.contains("3 streams: total, tok/s ↑"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["schema"], &json["visits"][0]["requests"][0]["role"]),
        (&"duet-load/1".into(), &"stream".into())
    );
    assert_eq!(json["visits"][0]["requests"][0]["pieces"].as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn a_shared_prefix_is_counted() {
    let report = run_one(Scenario::SharedPrefix, script(Arc::default())).await;
    // The stub caches at once: the first of three evaluates its whole prompt, the others their own ends.
    assert_eq!(value(&report, "shared prefix: prompt tokens evaluated"), 120.0 + 20.0 + 20.0);
    assert!(value(&report, "shared prefix: wall time") > 0.0);
    assert_eq!(report.visits[0].requests.len(), 3);
}

/// A stub whose long prompts wait until the running stream has sent so many tokens more.
fn with_running(n_more: usize) -> impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static {
    let (good, beside) = (script(Arc::default()), Arc::new(tokio::sync::Semaphore::new(0)));
    let n_long = Mutex::new(0);
    move |got| {
        let is_long = got.body["prompt"].as_array().is_some_and(|prompt| prompt.len() == SIZES.long_prompt);
        let n_tokens = got.body["max_tokens"].as_u64().unwrap_or_default() as u32;
        if is_long {
            *n_long.lock().unwrap() += 1;
            let waits = if *n_long.lock().unwrap() % 2 == 0 { n_more } else { 0 };
            return [vec![Act::Await(beside.clone()); waits], good(got)].concat();
        }
        if n_tokens != SIZES.running_output {
            return good(got);
        }
        let mut acts = vec![head()];
        for index in 0..n_tokens as usize {
            acts.extend([Act::Send(text("x")), Act::Slow]);
            if index >= SIZES.before {
                acts.push(Act::Give(beside.clone(), 1));
            }
        }
        acts.push(Act::Send(end(20, 0, n_tokens as usize)));
        acts
    }
}

#[tokio::test]
async fn a_long_prompt_beside_a_stream_has_gaps_before_and_during() {
    let stub = Stub::new(with_running(10)).await;
    let mut arms = [arm("one", &stub).await];
    let report = run(&plan(&[Scenario::LongPrompt], 1), &mut arms, &prompts(), |_| ()).await.unwrap();
    for figure in
        ["gap before, p50", "gap during, p99", "gap during, longest", "TTFT idle", "TTFT beside a stream"]
    {
        assert!(value(&report, &format!("long prompt: {figure}")) > 0.0, "{figure}");
    }
    assert!(value(&report, "long prompt: gap p99 during ÷ p50 before") > 0.0);
    let roles: Vec<_> = report.visits[0].requests.iter().map(|request| request.role.as_str()).collect();
    assert_eq!(roles, ["newcomer, alone", "running", "newcomer"]);
    assert_eq!(report.visits[0].requests[1].answer.ended_ns, None, "it was left");
    stub.idle().await;
}

#[tokio::test]
async fn a_running_stream_that_ends_too_soon_is_a_failure() {
    let report = run_one(Scenario::LongPrompt, with_running(100_000)).await;
    let failure = report.failure.unwrap();
    assert!(failure.contains("the running stream ended before the long prompt was answered"), "{failure}");
}

#[tokio::test]
async fn a_follow_up_is_warm() {
    let report = run_one(Scenario::FollowUp { restart: false }, script(Arc::default())).await;
    assert_eq!(value(&report, "follow-up: prompt tokens evaluated"), 10.0);
    assert!(value(&report, "follow-up: TTFT warm ÷ cold") > 0.0);
    let report = run_one(Scenario::FollowUp { restart: true }, script(Arc::default())).await;
    assert!(report.failure.unwrap().contains("only a server started here can be restarted"));
}

/// A good server, but its completions of 12 tokens are this.
fn but(acts: Vec<Act>) -> impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static {
    let good = script(Arc::default());
    move |got| if got.body["max_tokens"] == 12 { acts.clone() } else { good(got) }
}

#[tokio::test]
async fn doubtful_visits_are_flagged() {
    let tokens = text("a") + &text("b");
    for (last, flag) in [(end(20, 7, 12), LoadFlag::CacheHit), (end(20, 0, 11), LoadFlag::Tokens)] {
        let report =
            run_one(Scenario::Streams(2), but(vec![head(), Act::Send(tokens.clone() + &last)])).await;
        assert!(report.visits.iter().all(|visit| visit.flags == [flag]), "{:?}", report.visits[0].flags);
        assert!(report.to_text().contains(&format!("one: {} in 4 of 4 visits", flag.name())));
    }
}

#[tokio::test]
async fn a_failing_arm_ends_the_run_and_what_was_measured_stays() {
    let cut = vec![head(), Act::Send(text("a"))];
    let broken = vec![head(), Act::Send("data: {\n\n".into())];
    let silent = vec![head(), Act::Send(end(20, 0, 12))];
    let busy = whole("503 Service Unavailable", r#"{"error":"loading"}"#);
    let cases = [
        (cut, "without its end mark"),
        (broken, "malformed"),
        (silent, "without text"),
        (busy, "503"),
        (vec![], "broke off"),
    ];
    for (acts, expected) in cases {
        let (good, bad) = (Stub::new(script(Arc::default())).await, Stub::new(but(acts)).await);
        let mut arms = [arm("good", &good).await, arm("bad", &bad).await];
        let report = run(&plan(&[Scenario::Streams(2)], 3), &mut arms, &prompts(), |_| ()).await.unwrap();
        let failure = report.failure.clone().unwrap();
        assert!(failure.starts_with("bad: ") && failure.contains(expected), "{failure}");
        assert!(report.visits.iter().all(|visit| visit.side == Side::A) && report.exit_code() == 2);
        assert!(report.comparisons.iter().all(|comparison| comparison.ratio.is_none()));
        assert!(report.to_text().contains("STOPPED: bad: "));
    }
}

#[tokio::test]
async fn a_visit_that_takes_for_ever_is_given_up() {
    let stub = Stub::new(but(vec![head(), Act::Await(Arc::new(tokio::sync::Semaphore::new(0)))])).await;
    let plan = LoadPlan { patience: Duration::from_millis(200), ..plan(&[Scenario::Streams(1)], 1) };
    let report = run(&plan, &mut [arm("one", &stub).await], &prompts(), |_| ()).await.unwrap();
    assert!(report.failure.unwrap().contains("1 stream took more than 0 s"));
}

#[tokio::test]
async fn servers_without_a_model_are_no_arms() {
    let bodies = ["", "[]", "{}", r#"{"data":[]}"#, r#"{"data":[{"id":3}]}"#, r#"{"error":"loading"}"#];
    for body in bodies {
        let stub = Stub::completing(whole("200 OK", body)).await;
        let launch = Launch::Running { arm: "x".into(), address: stub.address };
        let error = Arm::start(launch, Arc::new(SystemClock::default())).await.err().unwrap();
        assert!(matches!(error, LoadError::Answer { .. }), "{body}: {error}");
    }
}

#[tokio::test]
async fn plans_that_give_no_figures_are_refused() {
    let stub = Stub::new(script(Arc::default())).await;
    let plan = plan(&[Scenario::Streams(1)], 1);
    let mut arms = Vec::new();
    for n_arms in [0, 3] {
        arms.clear();
        for _ in 0..n_arms {
            arms.push(arm("x", &stub).await);
        }
        let error = run(&plan, &mut arms, &prompts(), |_| ()).await.unwrap_err();
        assert!(error.to_string().contains("one or two"), "{error}");
    }
    let sizes = [
        Sizes { prompt: 0, ..SIZES },
        Sizes { output: 1, ..SIZES },
        Sizes { sharers: 0, ..SIZES },
        Sizes { shared_prompt: SIZES.shared, ..SIZES },
        Sizes { running_output: SIZES.before as u32, ..SIZES },
        Sizes { turn: 0, ..SIZES },
    ];
    for sizes in sizes {
        let plan = LoadPlan { sizes, ..plan.clone() };
        let error = run(&plan, &mut [arm("x", &stub).await], &prompts(), |_| ()).await.unwrap_err();
        assert!(matches!(error, LoadError::Option(_)), "{sizes:?}: {error}");
    }
    let plan = LoadPlan { sizes: SIZES, scenarios: vec![Scenario::Streams(1000)], ..plan };
    let report = run(&plan, &mut [arm("x", &stub).await], &prompts(), |_| ()).await.unwrap();
    assert!(report.failure.unwrap().contains("not enough different prompts"));
}
