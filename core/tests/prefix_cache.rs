//! Prefixes shared between requests, kept after them, given up under pressure: the engine over the fake runner, whose
//! answers are a function of all tokens before, so that a wrong prefix shows.

use std::sync::Arc;

use duet_core::testing::conformance::{Answer, fold, together};
use duet_core::testing::{FakeBackend, FakeConfig, FakeGate, fake_spec};
use duet_core::{
    DiskTierSpec, GenerateRequest, InferenceBackend, LoadSpec, LoadedModel, PrefixCacheSpec, Priority,
};

async fn load(config: FakeConfig, spec: LoadSpec) -> Arc<dyn LoadedModel> {
    FakeBackend { config }.load(spec, Arc::new(|_| true)).await.expect("the fake loads")
}

fn spec(parallel: u32, kv_tokens: u32) -> LoadSpec {
    LoadSpec { kv_tokens, context_length: kv_tokens.min(600), ..fake_spec(parallel) }
}

/// Both kinds of engine: forks that share cells, and forks that copy; one step in flight, and two.
fn engines() -> [FakeConfig; 4] {
    [(false, 1), (true, 1), (false, 2), (true, 2)].map(|(shares_cells, steps_in_flight)| FakeConfig {
        shares_cells,
        steps_in_flight,
        device_sampling: steps_in_flight == 2,
        max_step_tokens: 512,
        ..FakeConfig::default()
    })
}

/// `n` ids that depend on `seed`.
fn ids(seed: u32, n: u32) -> Vec<u32> {
    (0..n).map(|at| (seed.wrapping_mul(31) + at.wrapping_mul(7 + seed)) % 250).collect()
}

fn request(prompt: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { ignore_eos: true, ..GenerateRequest::new("r", prompt, max_tokens) }
}

fn ids_of(answer: &Answer) -> Vec<u32> {
    answer.tokens.iter().map(|token| token.id).collect()
}

async fn ask(model: &dyn LoadedModel, request: GenerateRequest) -> (Vec<u32>, u32) {
    let answer = fold(model.generate(request).expect("room")).await.expect("answered");
    (ids_of(&answer), answer.finished.usage.n_cached_tokens)
}

/// What a model answers that has seen nothing else.
async fn cold(config: &FakeConfig, request: &GenerateRequest) -> Vec<u32> {
    let request = GenerateRequest { use_prefix_cache: false, ..request.clone() };
    ask(load(config.clone(), spec(1, 4000)).await.as_ref(), request).await.0
}

#[tokio::test]
async fn a_second_request_begins_where_the_first_one_was_like_it() {
    for config in engines() {
        let model = load(config.clone(), spec(2, 2000)).await;
        let first = request(ids(1, 100), 5);
        assert_eq!(ask(model.as_ref(), first.clone()).await, (cold(&config, &first).await, 0));
        // The same again: all but the last token is there.
        assert_eq!(ask(model.as_ref(), first.clone()).await, (cold(&config, &first).await, 99));
        // Another end.
        let other = request([&ids(1, 60)[..], &ids(2, 40)].concat(), 5);
        let expected = common(&first.prompt, &other.prompt).min(99);
        assert_eq!(ask(model.as_ref(), other.clone()).await, (cold(&config, &other).await, expected));
        // A conversation goes on: the answer is there too, but for its last token, which was never evaluated.
        let answer = cold(&config, &first).await;
        let next = request([&first.prompt[..], &answer, &ids(3, 20)].concat(), 5);
        assert_eq!(ask(model.as_ref(), next.clone()).await, (cold(&config, &next).await, 104));
        let load = model.load();
        assert_eq!(load.n_prefix_hits, u64::from(99 + expected + 104));
        assert_eq!(load.n_prompt_tokens, u64::from(100 + 1 + (100 - expected) + (125 - 104)));
    }
}

fn common(a: &[u32], b: &[u32]) -> u32 {
    a.iter().zip(b).take_while(|(a, b)| a == b).count() as u32
}

#[tokio::test]
async fn a_request_that_wants_no_cache_finds_and_leaves_nothing() {
    for config in engines() {
        let model = load(config.clone(), spec(2, 2000)).await;
        let open = request(ids(1, 100), 3);
        let private = GenerateRequest { use_prefix_cache: false, ..open.clone() };
        assert_eq!(ask(model.as_ref(), private.clone()).await.1, 0);
        assert_eq!(model.load().n_cells_used, 0, "nothing of it stays");
        assert_eq!(ask(model.as_ref(), open.clone()).await.1, 0, "nothing of it is found");
        assert_eq!(ask(model.as_ref(), private).await.1, 0, "it does not look");
        let off = PrefixCacheSpec { enabled: false, ..PrefixCacheSpec::default() };
        let model = load(config, LoadSpec { prefix_cache: off, ..spec(2, 2000) }).await;
        for _ in 0..2 {
            assert_eq!(ask(model.as_ref(), open.clone()).await.1, 0);
        }
    }
}

#[tokio::test]
async fn requests_that_come_together_read_a_common_prefix_once() {
    for config in engines() {
        let model = load(config.clone(), spec(8, 8000)).await;
        let requests: Vec<_> =
            (0..8).map(|n| request([&ids(1, 400)[..], &ids(10 + n, 30)].concat(), 6)).collect();
        let expected: Vec<_> = futures(&config, &requests).await;
        let streams = together(model.as_ref(), requests.clone()).await;
        let mut n_cached = Vec::new();
        for (stream, expected) in streams.into_iter().zip(expected) {
            let answer = fold(stream).await.expect("answered");
            assert_eq!(ids_of(&answer), expected);
            n_cached.push(answer.finished.usage.n_cached_tokens);
        }
        let n_evaluated = model.load().n_prompt_tokens;
        assert_eq!(
            n_evaluated,
            8 * 430 - u64::from(n_cached.iter().sum::<u32>()),
            "usage and counters agree"
        );
        assert!(n_evaluated <= 430 + 7 * 31, "one prefill of the prefix: {n_evaluated}");
        assert_eq!(n_cached.iter().filter(|n| **n == 0).count(), 1, "{n_cached:?}");
    }
}

async fn futures(config: &FakeConfig, requests: &[GenerateRequest]) -> Vec<Vec<u32>> {
    let mut answers = Vec::new();
    for request in requests {
        answers.push(cold(config, request).await);
    }
    answers
}

#[tokio::test]
async fn when_the_one_who_reads_for_all_leaves_another_goes_on() {
    for config in engines() {
        let gate = FakeGate::closed();
        let gated = FakeConfig { gate: Some(gate.clone()), max_step_tokens: 50, ..config.clone() };
        let model = load(gated, spec(4, 4000)).await;
        let mut requests: Vec<_> =
            (0..4).map(|n| request([&ids(1, 400)[..], &ids(10 + n, 30)].concat(), 6)).collect();
        requests[0].prompt.truncate(420); // the shortest leads
        let expected = futures(&config, &requests).await;
        let mut streams = together(model.as_ref(), requests.clone()).await;
        gate.let_through(3);
        drop(streams.remove(0));
        gate.open();
        for (stream, expected) in streams.into_iter().zip(&expected[1..]) {
            assert_eq!(&ids_of(&fold(stream).await.expect("answered")), expected);
        }
        let n_evaluated = model.load().n_prompt_tokens;
        assert!(n_evaluated < 2 * 430 + 50, "what had been read was handed on: {n_evaluated}");
    }
}

#[tokio::test]
async fn answers_that_outgrow_the_cache_are_interrupted_and_go_on() {
    for config in engines() {
        // Each may take 20 + 500 cells; four of them get their 20 and 256 ahead, which is too much for 1200 later on.
        let model = load(config.clone(), spec(4, 1200)).await;
        let mut requests: Vec<_> = (0..4).map(|n| request(ids(n, 20), 500)).collect();
        for (n, request) in requests.iter_mut().enumerate() {
            // The draws are the request's own, whatever interrupts it.
            request.sampling.temperature = if config.device_sampling { 0.0 } else { 0.8 };
            request.sampling.seed = n as u64;
        }
        let expected = futures(&config, &requests).await;
        let streams = together(model.as_ref(), requests).await;
        let answers = streams.into_iter().map(fold).map(tokio::spawn).collect::<Vec<_>>();
        for (answer, expected) in answers.into_iter().zip(expected) {
            assert_eq!(ids_of(&answer.await.expect("no panic").expect("answered")), expected);
        }
        let load = model.load();
        assert!(load.n_preempted > 0, "there was not room for all");
        assert_eq!((load.n_running, load.n_waiting), (0, 0));
    }
}

#[tokio::test]
async fn kept_prefixes_give_way_and_come_back_from_the_host() {
    for config in engines() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = DiskTierSpec { dir: dir.path().join("prefixes"), max_bytes: 1 << 20 };
        for prefix_cache in [
            PrefixCacheSpec { enabled: true, host_bytes: 1 << 20, disk: None },
            PrefixCacheSpec { enabled: true, host_bytes: 0, disk: Some(disk) },
        ] {
            let in_memory = prefix_cache.host_bytes > 0;
            let model = load(config.clone(), LoadSpec { prefix_cache, ..spec(2, 600) }).await;
            let (a, b) = (request(ids(1, 300), 4), request(ids(2, 400), 4));
            let first = ask(model.as_ref(), a.clone()).await;
            assert_eq!(ask(model.as_ref(), b.clone()).await.1, 0, "takes the cells of the first");
            let again = ask(model.as_ref(), a.clone()).await;
            assert_eq!(again.0, first.0);
            assert_eq!(again.1, 299, "from the host");
            if in_memory {
                // Without memory there is room for one on its way to the disk, and this one may have come too soon.
                assert_eq!(ask(model.as_ref(), b.clone()).await.1, 399, "from the host");
            }
            model.unload().await;
        }
    }
}

#[tokio::test]
async fn an_engine_that_keeps_nothing_itself_has_the_host() {
    for config in engines() {
        let config = FakeConfig { n_holders: 0, ..config };
        let prefix_cache = PrefixCacheSpec { enabled: true, host_bytes: 1 << 20, disk: None };
        let model = load(config.clone(), LoadSpec { prefix_cache, ..spec(2, 600) }).await;
        let first = request(ids(1, 300), 4);
        let answer = cold(&config, &first).await;
        assert_eq!(ask(model.as_ref(), first.clone()).await, (answer.clone(), 0));
        assert_eq!(model.load().n_cells_used, 0);
        assert_eq!(ask(model.as_ref(), first.clone()).await, (answer, 299));
    }
}

#[tokio::test]
async fn prefixes_survive_the_process() {
    for config in engines() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = DiskTierSpec { dir: dir.path().to_owned(), max_bytes: 1 << 20 };
        let prefix_cache = PrefixCacheSpec { enabled: true, host_bytes: 1 << 20, disk: Some(disk) };
        let spec = || LoadSpec { prefix_cache: prefix_cache.clone(), ..spec(2, 2000) };
        let a = request(ids(1, 300), 4);
        let model = load(config.clone(), spec()).await;
        let first = ask(model.as_ref(), a.clone()).await;
        model.unload().await;
        let model = load(config.clone(), spec()).await;
        assert_eq!(ask(model.as_ref(), a.clone()).await, (first.0.clone(), 299));
        model.unload().await;
        // Another model's prefixes are not its own.
        let mut other = spec();
        other.kv_tokens += 1;
        let mut info = (*other.model).clone();
        info.files.clear();
        other.model = Arc::new(info);
        let model = load(config.clone(), other).await;
        assert_eq!(ask(model.as_ref(), a).await.1, 0);
        model.unload().await;
    }
}

#[tokio::test]
async fn a_batch_request_waits_for_interactive_ones() {
    let gate = FakeGate::closed();
    let config = FakeConfig { gate: Some(gate.clone()), ..FakeConfig::default() };
    let model = load(config, spec(1, 600)).await;
    let batch = GenerateRequest { priority: Priority::Batch, ..request(ids(1, 20), 3) };
    let streams = together(model.as_ref(), vec![batch, request(ids(2, 20), 3)]).await;
    gate.open();
    let [batch, interactive] = <[_; 2]>::try_from(streams).expect("two");
    let (batch, interactive) = tokio::join!(fold(batch), fold(interactive));
    let queue = |answer: Result<Answer, _>| {
        answer
            .map_err(|error: duet_core::BackendError| error.chain())
            .expect("answered")
            .finished
            .timings
            .queue
    };
    assert!(queue(batch) > queue(interactive));
}
