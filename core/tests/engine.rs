//! The engine over the fake runner: the conformance suite, failures, and random traces.

use std::sync::Arc;

use duet_core::sampling::{TokenLogprobs, logprobs};
use duet_core::testing::conformance::{self, Tolerance, fold};
use duet_core::testing::storm;
use duet_core::testing::{FakeBackend, FakeConfig, FakeGate, Reply, fake_spec};
use duet_core::{
    BackendError, FinishReason, GenerateRequest, GenerationEvent, Health, InferenceBackend, LoadSpec,
    LoadedModel, LogprobsRequest, PlanRow, RowTokens, SeqId, StepPlan, StopCause, Want,
};

async fn load(config: FakeConfig, parallel: u32, max_queue: usize) -> Arc<dyn LoadedModel> {
    let mut spec = fake_spec(parallel);
    spec.max_queue = max_queue;
    FakeBackend { config }.load(spec, Arc::new(|_| true)).await.expect("the fake loads")
}

fn prompt(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[tokio::test]
async fn conformance_one_step_in_flight() {
    conformance::suite(Tolerance(0.0), |parallel, max_queue| {
        load(FakeConfig::default(), parallel, max_queue)
    })
    .await;
}

#[tokio::test]
async fn conformance_two_steps_in_flight_sampled_on_the_device() {
    let config = FakeConfig { steps_in_flight: 2, device_sampling: true, ..FakeConfig::default() };
    conformance::suite(Tolerance(0.0), |parallel, max_queue| load(config.clone(), parallel, max_queue)).await;
}

#[tokio::test]
async fn a_reply_ends_with_the_models_own_token() {
    for steps_in_flight in [1, 2] {
        let config = FakeConfig {
            reply: Reply::text("grüße"),
            steps_in_flight,
            device_sampling: steps_in_flight == 2,
            ..FakeConfig::default()
        };
        let model = load(config, 1, 8).await;
        let stream = model.generate(GenerateRequest::new("r", prompt("hello"), 50)).expect("idle");
        let answer = fold(stream).await.expect("answered");
        assert_eq!(answer.text, "grüße");
        assert_eq!(answer.finished.reason, FinishReason::Stop(StopCause::EndOfGeneration(257)));
        assert_eq!(answer.finished.usage.n_completion_tokens as usize, "grüße".len() + 1);
    }
}

#[tokio::test]
async fn a_failed_step_ends_its_own_requests_only() {
    let config = FakeConfig { fail_step: Some(3), ..FakeConfig::default() };
    let model = load(config, 2, 8).await;
    let first = model.generate(GenerateRequest::new("first", prompt("a"), 20)).expect("idle");
    let error = fold(first).await.expect_err("step 3 fails");
    assert!(matches!(error, BackendError::Engine { operation: "decode", .. }), "{error:?}");
    let second = model.generate(GenerateRequest::new("second", prompt("b"), 20)).expect("still serving");
    fold(second).await.expect("the engine goes on");
    model.run_exclusive(Box::new(|_| {})).await.expect("nothing is kept for an exclusive job");
    assert_eq!(model.load().n_cells_used, 0);
}

#[tokio::test]
async fn a_failed_step_does_not_strand_those_who_wait() {
    let config = FakeConfig { fail_step: Some(0), ..FakeConfig::default() };
    let model = load(config, 1, 8).await;
    let requests = ["first", "second"].map(|id| GenerateRequest::new(id, prompt("a"), 5)).to_vec();
    let mut streams = conformance::together(model.as_ref(), requests).await;
    let second = streams.pop().expect("two");
    assert_eq!(fold(second).await.expect("its turn comes without another event").tokens.len(), 5);
    fold(streams.remove(0)).await.expect_err("step 0 fails");
}

#[tokio::test]
async fn a_panic_on_the_engines_thread_is_typed() {
    let config = FakeConfig { panic_step: Some(2), ..FakeConfig::default() };
    let model = load(config, 2, 8).await;
    let streams: Vec<_> =
        (0..2).map(|_| model.generate(GenerateRequest::new("r", prompt("a"), 20)).expect("idle")).collect();
    for stream in streams {
        assert!(matches!(fold(stream).await, Err(BackendError::EngineCrashed { .. })));
    }
    assert_eq!(model.health(), Health::Crashed);
    let refused = model.generate(GenerateRequest::new("late", prompt("a"), 1));
    assert!(matches!(refused, Err(BackendError::EngineCrashed { .. })));
    model.unload().await;
}

#[tokio::test]
async fn failed_and_cancelled_loads_are_typed() {
    let failing = FakeBackend { config: FakeConfig { fail_load: true, ..FakeConfig::default() } };
    let error = failing.load(fake_spec(1), Arc::new(|_| true)).await.err().expect("it fails");
    assert!(matches!(error, BackendError::LoadFailed { .. }));
    let error =
        FakeBackend::default().load(fake_spec(1), Arc::new(|_| false)).await.err().expect("told to stop");
    assert!(matches!(error, BackendError::LoadCancelled));
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_sequence_within_a_step() {
    let gate = FakeGate::closed();
    let config = FakeConfig { gate: Some(gate.clone()), ..FakeConfig::default() };
    let model = load(config, 1, 8).await;
    let mut stream = model.generate(GenerateRequest::new("r", prompt("a"), 200)).expect("idle");
    gate.let_through(1);
    assert!(matches!(stream.next().await, Some(Ok(GenerationEvent::Token(_)))));
    drop(stream);
    gate.let_through(1); // the step that was in flight, and no other
    model.run_exclusive(Box::new(|_| {})).await.expect("idle without another step");
    assert_eq!((model.load().n_running, model.load().n_cells_used), (0, 0));
    gate.open();
}

#[tokio::test]
async fn a_slow_reader_is_parked_and_comes_back() {
    let mut spec = fake_spec(2);
    spec.context_length = 2000;
    spec.kv_tokens = 4000;
    let config = FakeConfig { steps_in_flight: 2, device_sampling: true, ..FakeConfig::default() };
    let model = FakeBackend { config }.load(spec, Arc::new(|_| true)).await.expect("the fake loads");
    let mut request = GenerateRequest::new("slow", prompt("a"), 1500);
    request.ignore_eos = true;
    let slow = model.generate(request.clone()).expect("room");
    // Nobody reads `slow`: it leaves the batch by itself, and neighbours are served meanwhile.
    let mut widths = Vec::new();
    for _ in 0..3 {
        let neighbour = GenerateRequest { max_tokens: 400, ..request.clone() };
        let answer = fold(model.generate(neighbour).expect("room")).await.expect("answered");
        assert_eq!(answer.tokens.len(), 400);
        widths.push(answer.finished.timings.batch_width);
    }
    assert_eq!(widths[2], 1, "the parked one takes no part in steps: {widths:?}");
    assert_eq!(fold(slow).await.expect("it comes back").tokens.len(), 1500);
}

/// Too few cells for all, a host tier, a step that fails.
async fn stormy(config: FakeConfig) {
    let mut spec = LoadSpec { kv_tokens: 600, max_queue: 16, ..fake_spec(4) };
    spec.prefix_cache.host_bytes = 4000;
    let seed = u64::from(config.steps_in_flight) + 2 * u64::from(config.shares_cells);
    let model = FakeBackend { config }.load(spec, Arc::new(|_| true)).await.expect("the fake loads");
    let weathered = storm(model.as_ref(), seed, 10_000).await;
    let load = model.load();
    assert!(
        weathered.n_ended > 500 && load.n_cancelled > 20 && load.n_prefix_hits > 0,
        "{weathered:?} {load:?}"
    );
    assert!(weathered.n_failed < weathered.n_ended / 10, "{weathered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_events_leak_nothing() {
    for shares_cells in [false, true] {
        for steps_in_flight in [1, 2] {
            stormy(FakeConfig {
                steps_in_flight,
                shares_cells,
                device_sampling: steps_in_flight == 2,
                fail_step: Some(500),
                ..FakeConfig::default()
            })
            .await;
        }
    }
}

/// What the engine says of a prompt's tokens, chunk by chunk, is what a runner says that evaluates it whole.
#[tokio::test]
async fn prompts_are_scored_whatever_is_cached_and_however_they_are_cut() {
    let text: Vec<u32> = (0..200u32).map(|n| (n * 37) % 250).collect();
    for (steps_in_flight, max_step_tokens) in [(1, 64), (2, 64), (1, 7), (1, 256)] {
        let config =
            FakeConfig { steps_in_flight, device_sampling: true, max_step_tokens, ..FakeConfig::default() };
        let model = load(config, 2, 8).await;
        // A prefix that others could use.
        let first = model.generate(GenerateRequest::new("first", text.clone(), 4)).expect("idle");
        let answer = fold(first).await.expect("answered");
        assert!(answer.finished.prompt_logprobs.is_empty());
        let expected = scores_of(&model, &text).await;
        for max_tokens in [0, 1, 5] {
            let mut request = GenerateRequest::new("scored", text.clone(), max_tokens);
            request.prompt_logprobs = Some(LogprobsRequest { n_top: 3 });
            let beside =
                model.generate(GenerateRequest::new("beside", text[..90].to_vec(), 9)).expect("idle");
            let scored = fold(model.generate(request).expect("idle")).await.expect("answered");
            fold(beside).await.expect("answered");
            assert_eq!(scored.finished.prompt_logprobs, expected);
            assert_eq!(scored.finished.usage.n_cached_tokens, 0);
            assert_eq!(scored.finished.usage.n_completion_tokens, max_tokens);
            let n = scored.ids().len().min(4);
            assert_eq!(scored.ids()[..n], answer.ids()[..n]);
        }
    }
}

async fn scores_of(model: &Arc<dyn LoadedModel>, text: &[u32]) -> Vec<TokenLogprobs> {
    let (sender, scores) = std::sync::mpsc::channel();
    let text = text.to_vec();
    model
        .run_exclusive(Box::new(move |runner| {
            let mut all = Vec::new();
            for (position, id) in text[..text.len() - 1].iter().enumerate() {
                let tokens = RowTokens::Host(std::slice::from_ref(id));
                let row =
                    PlanRow { seq: SeqId(0), position: position as u32, tokens, want: Want::LastLogits };
                runner.submit(StepPlan { rows: &[row] }).expect("a step");
                let output = runner.collect().expect("a step");
                all.push(logprobs(output.row(0), text[position + 1], 3));
            }
            sender.send(all).expect("the test waits");
        }))
        .await
        .expect("the engine answers");
    scores.recv().expect("sent")
}

#[tokio::test]
async fn scoring_alone_takes_a_full_context_and_generating_does_not() {
    let model = load(FakeConfig::default(), 1, 8).await;
    let full = vec![65; 256];
    let mut request = GenerateRequest::new("r", full.clone(), 0);
    assert!(matches!(model.generate(request.clone()), Err(BackendError::ContextLengthExceeded { .. })));
    request.prompt_logprobs = Some(LogprobsRequest { n_top: 0 });
    let answer = fold(model.generate(request.clone()).expect("it fits")).await.expect("answered");
    assert_eq!(answer.finished.prompt_logprobs.len(), 255);
    assert_eq!(answer.finished.reason, FinishReason::Length);
    request.max_tokens = 1;
    assert!(matches!(model.generate(request.clone()), Err(BackendError::ContextLengthExceeded { .. })));
    request.prompt = vec![65];
    let answer = fold(model.generate(request.clone()).expect("it fits")).await.expect("answered");
    assert!(answer.finished.prompt_logprobs.is_empty() && answer.tokens.len() == 1);
    let nothing = GenerateRequest::new("r", vec![65], 0);
    assert!(matches!(model.generate(nothing), Err(BackendError::InvalidRequest { .. })));
}
