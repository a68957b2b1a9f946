//! Random events against an engine: somebody comes, goes, reads, or does not read.

use std::time::{Duration, Instant};

use crate::backend::LoadedModel;
use crate::error::BackendError;
use crate::event::GenerationEvent;
use crate::request::{GenerateRequest, Priority};
use crate::stream::GenerationStream;
use crate::text::TokenId;

/// What became of the requests of a storm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weathered {
    /// Streams that were read to their end.
    pub n_ended: usize,
    /// Of these, ends that were errors other than deadlines, of which a slow machine misses more.
    pub n_failed: usize,
    /// Streams that were dropped before their end.
    pub n_left: usize,
    /// Requests that a full queue refused.
    pub n_refused: usize,
}

/// A little generator, so that the trace is the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn pick<T>(&mut self, list: &[T]) -> Option<usize> {
        (!list.is_empty()).then(|| self.roll(list.len() as u64) as usize)
    }
}

/// A request of a random kind: some begin alike, some end by a stop string, some are private, some are overdue.
fn request(dice: &mut Dice, n_vocab: u64) -> GenerateRequest {
    let common = (120 + dice.roll(2)) as TokenId % n_vocab as TokenId;
    let mut prompt = vec![common; dice.roll(100) as usize];
    prompt.extend((0..1 + dice.roll(40)).map(|_| dice.roll(n_vocab.min(250)) as TokenId));
    let mut request = GenerateRequest::new("storm", prompt, 1 + dice.roll(90) as u32);
    request.sampling.temperature = dice.roll(2) as f32;
    request.ignore_eos = dice.roll(2) == 0;
    request.use_prefix_cache = dice.roll(8) > 0;
    if dice.roll(3) == 0 {
        request.stop = vec!["a".into(), "zz".into()];
    }
    if dice.roll(4) == 0 {
        request.priority = Priority::Batch;
    }
    if dice.roll(20) == 0 {
        request.deadline = Some(Instant::now() + Duration::from_millis(dice.roll(5)));
    }
    request
}

fn is_failure(item: &Result<GenerationEvent, BackendError>) -> bool {
    item.as_ref().is_err_and(|error| !matches!(error, BackendError::DeadlineExceeded))
}

/// So many times somebody comes, goes, reads, or does not read; then all that are left read to their ends.
///
/// # Panics
/// If a stream has not exactly one terminal item, or a sequence, a request or a cell stays behind.
pub async fn storm(model: &dyn LoadedModel, seed: u64, n_events: usize) -> Weathered {
    let n_vocab = u64::from(model.tokenizer().vocab_size());
    let mut dice = Dice(seed);
    let mut open: Vec<GenerationStream> = Vec::new();
    let mut weathered = Weathered::default();
    for _ in 0..n_events {
        match dice.roll(4) {
            0 => match model.generate(request(&mut dice, n_vocab)) {
                Ok(stream) => open.push(stream),
                Err(BackendError::Overloaded { .. }) => weathered.n_refused += 1,
                Err(error) => panic!("a plain request was refused: {}", error.chain()),
            },
            1 if dice.roll(3) == 0 => {
                if let Some(index) = dice.pick(&open) {
                    drop(open.swap_remove(index));
                    weathered.n_left += 1;
                }
            }
            _ => {
                if let Some(index) = dice.pick(&open) {
                    let item = open[index].next().await.expect("streams that ended are gone");
                    if !matches!(item, Ok(GenerationEvent::Token(_))) {
                        weathered.n_ended += 1;
                        weathered.n_failed += usize::from(is_failure(&item));
                        assert!(open.swap_remove(index).next().await.is_none(), "nothing follows the end");
                    }
                }
            }
        }
    }
    for mut stream in open {
        let mut n_terminal = 0;
        while let Some(item) = stream.next().await {
            n_terminal += usize::from(!matches!(item, Ok(GenerationEvent::Token(_))));
            weathered.n_failed += usize::from(is_failure(&item));
        }
        assert_eq!(n_terminal, 1, "each stream ends once");
        weathered.n_ended += 1;
    }
    model.run_exclusive(Box::new(|_| {})).await.expect("the engine answers");
    let load = model.load();
    assert_eq!((load.n_running, load.n_waiting, load.n_cells_used), (0, 0, 0), "nothing stays behind");
    weathered
}
