//! What every engine has to do, as named checks over `Arc<dyn LoadedModel>`; called in one line by each engine's tests.
//!
//! Checks that depend on an ability ask [`Capabilities`](crate::Capabilities) first. Numbers are compared within
//! [`Tolerance`]: exactly for the fake, by the largest logit difference for real kernels.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{embeddings, requests};
use crate::backend::{Health, LoadedModel};
use crate::error::BackendError;
use crate::event::{FinishReason, Finished, GenerationEvent, StopCause, TokenEvent};
use crate::request::{GenerateRequest, LogprobsRequest};
use crate::runner::{ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};
use crate::sampling::SamplingParams;
use crate::stream::GenerationStream;
use crate::text::{EncodeOptions, TokenId};

/// How far two evaluations of the same tokens may differ: `max|Δ| ≤ relative · max|logit|`.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance(pub f32);

/// A finished generation, folded from its stream.
#[derive(Debug)]
pub struct Answer {
    /// Its tokens.
    pub tokens: Vec<TokenEvent>,
    /// All text, the flushed tail included.
    pub text: String,
    /// The terminal event.
    pub finished: Finished,
}

impl Answer {
    /// The token ids.
    pub fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

/// Reads a stream to its end.
///
/// # Errors
/// The stream's own.
///
/// # Panics
/// If anything follows the terminal item.
pub async fn fold(mut stream: GenerationStream) -> Result<Answer, BackendError> {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        match stream.next().await.expect("a terminal item comes before the end")? {
            GenerationEvent::Token(token) => {
                text.push_str(&token.text);
                tokens.push(token);
            }
            GenerationEvent::Finished(finished) => {
                text.push_str(&finished.text);
                assert!(stream.next().await.is_none(), "nothing follows the terminal item");
                return Ok(Answer { tokens, text, finished });
            }
        }
    }
}

fn prompt(model: &dyn LoadedModel, text: &str) -> Vec<TokenId> {
    let options = EncodeOptions { add_special: true, parse_special: false };
    model.tokenizer().encode(text, options).expect("plain text encodes")
}

fn request(model: &dyn LoadedModel, text: &str, max_tokens: u32) -> GenerateRequest {
    let mut request = GenerateRequest::new("conformance", prompt(model, text), max_tokens);
    request.ignore_eos = true;
    request
}

async fn answer(model: &dyn LoadedModel, request: GenerateRequest) -> Answer {
    let stream = model.generate(request).expect("an idle model takes a request");
    fold(stream).await.expect("a plain request is answered")
}

/// Resolves when no request runs any more.
async fn until_idle(model: &dyn LoadedModel) {
    model.run_exclusive(Box::new(|_| {})).await.expect("the engine answers");
}

/// Queues requests while the engine is held in an exclusive job, so that they all start in the same step.
///
/// # Panics
/// If the model does not take them.
pub async fn together(model: &dyn LoadedModel, requests: Vec<GenerateRequest>) -> Vec<GenerationStream> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let job = model.run_exclusive(Box::new(move |_| {
        let _ = held.recv(); // an error means that the test gave up: go on too
    }));
    let submit = async {
        let streams =
            requests.into_iter().map(|one| model.generate(one).expect("room in the queue")).collect();
        drop(release);
        streams
    };
    let (job, streams) = tokio::join!(job, submit);
    job.expect("the job ran");
    streams
}

/// All checks. `load` gives a fresh model with `parallel` sequences, each of at least 96 tokens, room for all of them
/// at once, and a queue of `max_queue`.
pub async fn suite<F, Fut>(tolerance: Tolerance, load: F)
where
    F: Fn(u32, usize) -> Fut,
    Fut: Future<Output = Arc<dyn LoadedModel>>,
{
    let model = load(4, 64).await;
    let m = model.as_ref();
    one_terminal_event(m).await;
    max_tokens_gives_length(m).await;
    context_end_gives_length(m).await;
    greedy_is_deterministic(m).await;
    seed_repeats(m).await;
    stop_string_not_in_output(m).await;
    stop_token_ends(m).await;
    banned_token_stays_away(m).await;
    logprobs_are_finite_and_sorted(m).await;
    bad_requests_are_typed(m).await;
    interleaved_agrees_with_alone(m).await;
    shared_steps_cost_one_pass(m).await;
    drop_frees_the_sequence(m).await;
    cancelled_while_queued(m).await;
    requests::constrained_output_keeps_to_its_form(m).await;
    requests::prompts_are_scored(m, tolerance).await;
    embeddings::embeddings(m, tolerance).await;
    runner_checks(m, tolerance).await;
    let narrow = load(1, 1).await;
    full_queue_is_overloaded(narrow.as_ref()).await;
    shutdown_twice(narrow.as_ref()).await;
    shutdown_ends_streams(m).await;
}

async fn one_terminal_event(m: &dyn LoadedModel) {
    let answer = answer(m, request(m, "One", 5)).await; // `fold` asserts that nothing follows
    assert_eq!(answer.tokens.len(), 5);
    let usage = answer.finished.usage;
    assert_eq!(usage.n_completion_tokens, 5, "usage matches the events");
    assert_eq!(usage.n_prompt_tokens as usize, prompt(m, "One").len());
    let timings = answer.finished.timings;
    assert!(timings.time_to_first_token >= timings.prefill && timings.batch_width == 1, "{timings:?}");
}

async fn max_tokens_gives_length(m: &dyn LoadedModel) {
    for max_tokens in [1, 2, 7] {
        let answer = answer(m, request(m, "Count to a hundred:", max_tokens)).await;
        assert_eq!(answer.finished.reason, FinishReason::Length);
        assert_eq!(answer.tokens.len(), max_tokens as usize);
    }
}

async fn context_end_gives_length(m: &dyn LoadedModel) {
    let context_length = m.capabilities().context_length as usize;
    let mut long = request(m, "a", u32::MAX);
    while long.prompt.len() < context_length - 3 {
        let last = long.prompt[long.prompt.len() - 1];
        long.prompt.push(last);
    }
    let answer = answer(m, long).await;
    assert_eq!(answer.finished.reason, FinishReason::Length);
    assert_eq!(answer.tokens.len(), 3, "the window's last tokens can be used");
}

async fn greedy_is_deterministic(m: &dyn LoadedModel) {
    let one = answer(m, request(m, "Once upon a time", 12)).await;
    let two = answer(m, request(m, "Once upon a time", 12)).await;
    assert_eq!(one.ids(), two.ids());
    assert_eq!(one.text, two.text);
}

fn sampled(model: &dyn LoadedModel, seed: u64) -> GenerateRequest {
    let mut request = request(model, "Once upon a time", 12);
    request.sampling = SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() };
    request
}

async fn seed_repeats(m: &dyn LoadedModel) {
    let one = answer(m, sampled(m, 7)).await.ids();
    assert_eq!(one, answer(m, sampled(m, 7)).await.ids());
    let mut others = Vec::new();
    for seed in 8..12 {
        others.push(answer(m, sampled(m, seed)).await.ids());
    }
    assert!(others.iter().any(|ids| *ids != one), "another seed gives another text sooner or later");
}

async fn stop_string_not_in_output(m: &dyn LoadedModel) {
    let free = answer(m, sampled(m, 3)).await;
    // A stop string that spans tokens: from inside one token's text into the next one's.
    let texts: Vec<&str> =
        free.tokens.iter().map(|token| token.text.as_str()).filter(|text| !text.is_empty()).collect();
    let Some(pair) = texts.windows(2).skip(1).find(|pair| !pair[0].contains('\u{fffd}')) else { return };
    let stop = format!("{}{}", pair[0], pair[1].chars().next().expect("not empty"));
    let mut request = sampled(m, 3);
    request.stop = vec!["never in any text \u{1}".into(), stop.clone()];
    let stopped = answer(m, request).await;
    assert_eq!(stopped.finished.reason, FinishReason::Stop(StopCause::StopString(1)));
    assert!(!stopped.text.contains(&stop), "{:?} has {stop:?}", stopped.text);
    assert_eq!(stopped.text, free.text[..free.text.find(&stop).expect("it was in the free text")]);
    assert!(stopped.finished.usage.n_completion_tokens <= free.finished.usage.n_completion_tokens);
}

async fn stop_token_ends(m: &dyn LoadedModel) {
    let free = answer(m, request(m, "Once upon a time", 12)).await.ids();
    let stop = free[5];
    let first = free.iter().position(|id| *id == stop).expect("it is there");
    let mut with_stop = request(m, "Once upon a time", 12);
    with_stop.stop_tokens = vec![stop];
    let stopped = answer(m, with_stop.clone()).await;
    assert_eq!(stopped.finished.reason, FinishReason::Stop(StopCause::StopToken(stop)));
    assert_eq!(stopped.ids(), free[..first], "the stop token is not shown");
    assert_eq!(stopped.finished.usage.n_completion_tokens as usize, first + 1, "but counted");
    with_stop.min_tokens = 9;
    let later = answer(m, with_stop).await;
    assert!(!later.ids().contains(&stop) && later.tokens.len() >= 9, "min_tokens holds stops back");
}

async fn banned_token_stays_away(m: &dyn LoadedModel) {
    let free = answer(m, request(m, "Once upon a time", 4)).await.ids();
    let mut banned = request(m, "Once upon a time", 4);
    banned.sampling.logit_bias = vec![(free[0], -100.0)];
    assert_ne!(answer(m, banned).await.ids()[0], free[0]);
}

async fn logprobs_are_finite_and_sorted(m: &dyn LoadedModel) {
    let mut request = request(m, "The capital of France is", 4);
    request.logprobs = Some(LogprobsRequest { n_top: 5 });
    for token in answer(m, request).await.tokens {
        let logprobs = token.logprobs.expect("asked for");
        assert!(logprobs.logprob.is_finite() && logprobs.logprob <= 0.0);
        assert_eq!(logprobs.top.len(), 5);
        assert!(logprobs.top.windows(2).all(|pair| pair[0].1 >= pair[1].1), "best first");
        assert_eq!(
            logprobs.top[0],
            (token.id, logprobs.logprob),
            "greedy takes the best, with the same float"
        );
    }
}

async fn bad_requests_are_typed(m: &dyn LoadedModel) {
    let n = m.capabilities().context_length as usize;
    let id = prompt(m, "a")[0];
    let long = GenerateRequest::new("long", vec![id; n], 1);
    let error = m.generate(long).expect_err("no room for one token");
    assert!(matches!(error, BackendError::ContextLengthExceeded { n_prompt_tokens, context_length }
        if n_prompt_tokens == n && context_length == n));
    let empty = m.generate(GenerateRequest::new("empty", Vec::new(), 1));
    assert!(matches!(empty, Err(BackendError::InvalidRequest { .. })));
    let outside = m.generate(GenerateRequest::new("outside", vec![m.tokenizer().vocab_size()], 1));
    assert!(matches!(outside, Err(BackendError::InvalidRequest { .. })));
    let mut hot = GenerateRequest::new("hot", vec![id], 1);
    hot.sampling.temperature = f32::NAN;
    assert!(
        matches!(m.generate(hot), Err(BackendError::InvalidRequest { param: Some(param), .. }) if param == "temperature")
    );
    let mut late = GenerateRequest::new("late", vec![id], 50);
    late.deadline = Some(std::time::Instant::now());
    let error = fold(m.generate(late).expect("queued")).await.expect_err("too late");
    assert!(matches!(error, BackendError::DeadlineExceeded));
}

async fn interleaved_agrees_with_alone(m: &dyn LoadedModel) {
    let texts = ["Alpha", "A rather longer prompt than the others, of many tokens", "Gamma gamma", "D"];
    let mut alone = Vec::new();
    for text in texts {
        let mut one = request(m, text, 10);
        one.logprobs = Some(LogprobsRequest { n_top: 2 });
        alone.push(answer(m, one).await);
    }
    let streams = together(m, texts.iter().map(|text| request(m, text, 10)).collect()).await;
    let mut widest = 0;
    for (stream, alone) in streams.into_iter().zip(&alone) {
        let together = fold(stream).await.expect("answered");
        widest = widest.max(together.finished.timings.batch_width);
        let differs = together.ids().iter().zip(alone.ids()).position(|(a, b)| *a != b);
        if let Some(at) = differs {
            // Real kernels may differ in the last bits: only a near-tie may be decided otherwise.
            let top = &alone.tokens[at].logprobs.as_ref().expect("asked for").top;
            assert!(top[0].1 - top[1].1 < 0.02, "token {at} differs and was no near-tie: {top:?}");
        }
    }
    assert_eq!(widest, 4, "requests sent together share steps");
}

async fn shared_steps_cost_one_pass(m: &dyn LoadedModel) {
    until_idle(m).await;
    let before = m.load().n_forward_passes;
    let streams = together(m, (0..4).map(|_| request(m, "Same", 16)).collect()).await;
    for stream in streams {
        fold(stream).await.expect("answered");
    }
    until_idle(m).await;
    let passes = m.load().n_forward_passes - before;
    assert!(passes <= 16 + 8, "4 streams of 16 tokens took {passes} passes, not about 16");
}

async fn drop_frees_the_sequence(m: &dyn LoadedModel) {
    until_idle(m).await;
    let before = m.load();
    let mut stream = m.generate(request(m, "Talk for ever", 80)).expect("idle");
    let first = stream.next().await.expect("a token").expect("no error");
    assert!(matches!(first, GenerationEvent::Token(_)));
    drop(stream);
    until_idle(m).await;
    let after = m.load();
    assert_eq!((after.n_running, after.n_waiting, after.n_cells_used), (0, 0, 0));
    // An engine without real work may have been at its end before the reader left.
    let ran_to_its_end = after.n_forward_passes >= before.n_forward_passes + 80;
    assert!(after.n_cancelled == before.n_cancelled + 1 || ran_to_its_end, "{before:?} {after:?}");
}

async fn cancelled_while_queued(m: &dyn LoadedModel) {
    let running: Vec<_> = (0..4).map(|_| m.generate(request(m, "Busy", 40)).expect("room")).collect();
    let queued = m.generate(request(m, "Waiting", 5)).expect("room in the queue");
    drop(queued);
    for stream in running {
        fold(stream).await.expect("a queued one's leaving touches nobody");
    }
    until_idle(m).await;
    assert_eq!((m.load().n_running, m.load().n_waiting), (0, 0));
}

async fn full_queue_is_overloaded(m: &dyn LoadedModel) {
    // Held back in an exclusive job, the engine can admit nothing.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let job = m.run_exclusive(Box::new(move |_| {
        let _ = entered.send(());
        let _ = held.recv();
    }));
    let requests = async {
        inside.await.expect("the job runs");
        let first = m.generate(request(m, "First", 3)).expect("one may wait");
        let error = m.generate(request(m, "Second", 3)).expect_err("a second may not");
        assert!(matches!(error, BackendError::Overloaded { queue_length: 1, .. }), "{error:?}");
        release.send(()).expect("the job waits");
        fold(first).await.expect("the first is answered");
    };
    let (job, ()) = tokio::join!(job, requests);
    job.expect("the job ran");
}

async fn shutdown_twice(m: &dyn LoadedModel) {
    m.unload().await;
    m.unload().await;
    assert_eq!(m.health(), Health::ShuttingDown);
    assert!(matches!(m.generate(request(m, "Too late", 1)), Err(BackendError::ShuttingDown)));
}

async fn shutdown_ends_streams(m: &dyn LoadedModel) {
    let mut stream = m.generate(request(m, "Talk for ever", 80)).expect("idle");
    stream.next().await.expect("a token").expect("no error");
    m.unload().await;
    match fold(stream).await {
        Err(error) => assert!(matches!(error, BackendError::ShuttingDown), "{error:?}"),
        Ok(answer) => {
            assert_eq!(answer.tokens.len() + 1, 80, "only an engine that was at its end has an answer")
        }
    }
}

/// Checks below the scheduler, on the runner itself.
async fn runner_checks(m: &dyn LoadedModel, tolerance: Tolerance) {
    let ids =
        prompt(m, "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs!");
    let ids = ids[..ids.len().min(48)].to_vec();
    let (done, result) = tokio::sync::oneshot::channel();
    m.run_exclusive(Box::new(move |runner| {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runner_suite(runner, &ids, tolerance)));
        let _ = done.send(result);
    }))
    .await
    .expect("the job runs");
    if let Err(panic) = result.await.expect("the job answers") {
        std::panic::resume_unwind(panic);
    }
}

/// Evaluates `ids` from `position` on and gives `[ids.len(), n_vocab]` logits.
///
/// # Panics
/// If the runner fails.
pub fn evaluate(runner: &mut dyn ModelRunner, seq: SeqId, position: u32, ids: &[TokenId]) -> Vec<f32> {
    evaluate_rows(runner, &[(seq, position, ids)]).remove(&seq).expect("one row")
}

/// Evaluates rows of several sequences in one step; logits of every token.
///
/// # Panics
/// If the runner fails.
pub fn evaluate_rows(
    runner: &mut dyn ModelRunner,
    rows: &[(SeqId, u32, &[TokenId])],
) -> BTreeMap<SeqId, Vec<f32>> {
    let plan: Vec<PlanRow<'_>> = rows
        .iter()
        .map(|&(seq, position, ids)| PlanRow {
            seq,
            position,
            tokens: RowTokens::Host(ids),
            want: Want::AllLogits,
        })
        .collect();
    runner.submit(StepPlan { rows: &plan }).expect("a valid step");
    let output = runner.collect().expect("its result");
    let mut at = 0;
    rows.iter()
        .map(|&(seq, _, ids)| {
            let from = at * output.n_vocab;
            at += ids.len();
            (seq, output.logits[from..at * output.n_vocab].to_vec())
        })
        .collect()
}

/// Asserts that two blocks of logits are equal within the tolerance.
///
/// # Panics
/// If they are not; the message starts with `what`.
#[track_caller]
pub fn assert_close(what: &str, a: &[f32], b: &[f32], tolerance: Tolerance) {
    assert_eq!(a.len(), b.len(), "{what}: sizes");
    let scale = a.iter().fold(0f32, |max, x| max.max(x.abs()));
    let worst = a.iter().zip(b).fold(0f32, |max, (x, y)| max.max((x - y).abs()));
    assert!(a.iter().chain(b).all(|x| x.is_finite()), "{what}: logits are finite");
    assert!(worst <= tolerance.0 * scale, "{what}: differ by {worst}, allowed {} of {scale}", tolerance.0);
}

fn runner_suite(runner: &mut dyn ModelRunner, ids: &[TokenId], tolerance: Tolerance) {
    let n = ids.len() as u32;
    let half = n / 2;
    let v = runner.n_vocab();
    let whole = evaluate(runner, SeqId(0), 0, ids);
    assert_eq!(whole.len(), ids.len() * v);
    assert_eq!((runner.sequence_len(SeqId(0)), runner.n_cells_used()), (n, n));

    let mut chunked = evaluate(runner, SeqId(1), 0, &ids[..half as usize]);
    chunked.extend(evaluate(runner, SeqId(1), half, &ids[half as usize..]));
    assert_close("chunked = whole", &whole, &chunked, tolerance);

    let last = &whole[(ids.len() - 1) * v..];
    let row = PlanRow { seq: SeqId(2), position: 0, tokens: RowTokens::Host(ids), want: Want::LastLogits };
    runner.submit(StepPlan { rows: &[row] }).expect("a valid step");
    let output = runner.collect().expect("its result");
    assert_eq!(output.logits.len(), v, "one row of logits was wanted");
    assert_close("last = all", last, output.row(0), tolerance);

    let other: Vec<TokenId> = ids.iter().rev().copied().collect();
    runner.release(SeqId(1));
    runner.release(SeqId(2));
    assert_eq!(runner.n_cells_used(), n, "released cells are free");
    let alone = evaluate(runner, SeqId(1), 0, &other[..half as usize]);
    runner.release(SeqId(1));
    let passes = runner.n_forward_passes();
    let together = evaluate_rows(
        runner,
        &[
            (SeqId(1), 0, &other[..half as usize]),
            (SeqId(2), 0, &ids[..half as usize]),
            (SeqId(3), 0, &ids[..3]),
        ],
    );
    assert!(runner.n_forward_passes() - passes <= 3, "passes are counted");
    assert_close("alone = in a batch", &alone, &together[&SeqId(1)], tolerance);
    assert_close("ragged rows", &whole[..half as usize * v], &together[&SeqId(2)], tolerance);
    assert_close("short row", &whole[..3 * v], &together[&SeqId(3)], tolerance);
    // One more token each, at different depths.
    let more = evaluate_rows(
        runner,
        &[(SeqId(2), half, &ids[half as usize..half as usize + 1]), (SeqId(3), 3, &ids[3..4])],
    );
    assert_close(
        "ragged decode",
        &whole[half as usize * v..(half as usize + 1) * v],
        &more[&SeqId(2)],
        tolerance,
    );
    assert_close("ragged decode, short", &whole[3 * v..4 * v], &more[&SeqId(3)], tolerance);
    for seq in 1..4 {
        runner.release(SeqId(seq));
    }

    if runner.capabilities().truncate {
        let wrong = evaluate(runner, SeqId(1), 0, &other);
        assert_ne!(wrong.len(), 0);
        assert!(runner.truncate(SeqId(0), half).expect("truncate works"));
        assert_eq!(runner.sequence_len(SeqId(0)), half);
        let again = evaluate(runner, SeqId(0), half, &ids[half as usize..]);
        assert_close("truncate, then on = fresh", &whole[half as usize * v..], &again, tolerance);
        assert!(runner.truncate(SeqId(1), 0).expect("truncate to nothing"));
        assert_eq!(runner.sequence_len(SeqId(1)), 0);
        runner.release(SeqId(1));
    }
    if runner.capabilities().fork {
        runner.fork(SeqId(0), SeqId(1), half).expect("fork works");
        assert_eq!(runner.sequence_len(SeqId(1)), half);
        let branch = evaluate(runner, SeqId(1), half, &ids[half as usize..]);
        assert_close("fork, then on = fresh", &whole[half as usize * v..], &branch, tolerance);
        runner.fork(SeqId(0), SeqId(2), n + 1).expect_err("longer than its source");
        runner.release(SeqId(0));
        runner.truncate(SeqId(1), half).expect("works on a fork");
        let branch = evaluate(runner, SeqId(1), half, &ids[half as usize..]);
        assert_close("a fork outlives its source", &whole[half as usize * v..], &branch, tolerance);
        runner.release(SeqId(1));
    }
    if runner.capabilities().snapshot {
        evaluate(runner, SeqId(2), 0, &ids[..half as usize]);
        let snapshot = runner.snapshot(SeqId(2)).expect("snapshot works");
        assert_eq!(snapshot.n_tokens, half);
        runner.release(SeqId(2));
        runner.restore(SeqId(3), &snapshot).expect("restore works");
        let restored = evaluate(runner, SeqId(3), half, &ids[half as usize..]);
        assert_close("restored = fresh", &whole[half as usize * v..], &restored, tolerance);
        let mut broken = snapshot;
        broken.bytes.truncate(broken.bytes.len() / 2 + 1);
        runner.restore(SeqId(2), &broken).expect_err("half a snapshot");
        runner.release(SeqId(2));
        runner.release(SeqId(3));
    }
    runner.collect().expect_err("nothing is in flight");
    for seq in 0..4 {
        runner.release(SeqId(seq));
        runner.release(SeqId(seq)); // twice is fine
    }
    assert_eq!(runner.n_cells_used(), 0, "everything is free again");
}
