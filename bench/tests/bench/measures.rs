//! Single measurements, on the fake's runner itself.

use duet_bench::SystemClock;
use duet_bench::measure::{MeasureError, RunnerWork, WashOutRule, measure_runner, wash_out};
use duet_core::testing::{FakeConfig, FakeRunner, fake_spec};
use duet_core::{BackendError, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};

const WORK: RunnerWork = RunnerWork { n_prompt: 20, n_decode: 5, prefill_chunk: 8, n_reads: 1 };
const RULE: WashOutRule = WashOutRule { window: 2, tolerance: 0.0, max_steps: 10 };

fn runner(config: FakeConfig) -> FakeRunner {
    FakeRunner::new(config, &fake_spec(1))
}

fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|id| id % 256).collect()
}

#[test]
fn a_request_leaves_the_runner_empty() {
    let mut runner = runner(FakeConfig::default());
    let sample = measure_runner(&mut runner, &ids(25), &WORK, &SystemClock::default()).unwrap();
    assert_eq!((sample.step_ns.len(), sample.n_forward_passes), (5, 3 + 5));
    assert_eq!(runner.n_cells_used(), 0);
    let again = measure_runner(&mut runner, &ids(25), &WORK, &SystemClock::default()).unwrap();
    assert_eq!((again.first_top, again.n_forward_passes), (sample.first_top, 8));
}

#[test]
fn a_prompt_is_read_several_times_from_an_empty_cache() {
    let mut runner = runner(FakeConfig::default());
    let work = RunnerWork { n_reads: 3, ..WORK };
    let sample = measure_runner(&mut runner, &ids(25), &work, &SystemClock::default()).unwrap();
    assert_eq!((sample.prefill_again_ns.len(), sample.step_ns.len()), (2, 5));
    assert_eq!((sample.n_forward_passes, runner.n_forward_passes()), (3 + 5, 2 * 3 + 3 + 5));
    assert_eq!(runner.n_cells_used(), 0);
}

#[test]
fn a_failed_step_leaves_it_empty_too() {
    for (steps_in_flight, fail_step) in [(1, 1), (2, 1), (1, 5), (2, 2)] {
        let mut runner =
            runner(FakeConfig { fail_step: Some(fail_step), steps_in_flight, ..FakeConfig::default() });
        let error = measure_runner(&mut runner, &ids(25), &WORK, &SystemClock::default()).unwrap_err();
        assert!(matches!(error, MeasureError::Backend(BackendError::Engine { .. })), "{error:?}");
        assert_eq!(runner.n_cells_used(), 0);
        assert!(runner.collect().is_err(), "nothing is left in flight");
        measure_runner(&mut runner, &ids(25), &WORK, &SystemClock::default()).unwrap();
    }
}

#[test]
fn a_cache_with_something_in_it_is_refused() {
    let mut runner = runner(FakeConfig::default());
    let row =
        PlanRow { seq: SeqId(0), position: 0, tokens: RowTokens::Host(&[1, 2, 3]), want: Want::Nothing };
    runner.submit(StepPlan { rows: &[row] }).unwrap();
    runner.collect().unwrap();
    let error = measure_runner(&mut runner, &ids(25), &WORK, &SystemClock::default()).unwrap_err();
    assert!(matches!(error, MeasureError::CacheNotEmpty { n_cells: 3 }), "{error:?}");
    let error = wash_out(&mut runner, &ids(25), &RULE, &SystemClock::default()).unwrap_err();
    assert!(matches!(error, MeasureError::CacheNotEmpty { n_cells: 3 }), "{error:?}");
    assert_eq!(runner.n_cells_used(), 3, "what was there is not ours to release");
}

#[test]
fn work_that_cannot_be_done_is_refused_before_it_begins() {
    let mut runner = runner(FakeConfig::default());
    let cases = [
        (ids(24), WORK, "a request of 20 + 5 tokens from 24 ids"),
        (ids(25), RunnerWork { n_prompt: 0, ..WORK }, "a request of 0 + 5 tokens from 25 ids"),
        (ids(25), RunnerWork { prefill_chunk: 0, ..WORK }, "a prompt in chunks of 0 tokens"),
        (
            ids(300),
            RunnerWork { n_prompt: 290, ..WORK },
            "a request of 295 tokens does not fit a context of 256",
        ),
    ];
    for (ids, work, message) in cases {
        let error = measure_runner(&mut runner, &ids, &work, &SystemClock::default()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = wash_out(&mut runner, &ids(10), &RULE, &SystemClock::default()).unwrap_err();
    assert_eq!(error.to_string(), "a wash-out of up to 10 steps from 10 ids");
    assert_eq!(runner.n_forward_passes(), 0);
}

#[test]
fn a_wash_out_ends_at_its_limit_or_at_once() {
    let mut runner = runner(FakeConfig::default());
    let none = WashOutRule { max_steps: 0, ..RULE };
    let washed = wash_out(&mut runner, &[], &none, &SystemClock::default()).unwrap();
    assert!(washed.steady && washed.step_ns.is_empty() && runner.n_forward_passes() == 0);
    let never = WashOutRule { window: 6, ..RULE };
    let washed = wash_out(&mut runner, &ids(11), &never, &SystemClock::default()).unwrap();
    assert_eq!((washed.steady, washed.step_ns.len()), (false, 10));
    assert_eq!(runner.n_cells_used(), 0);
}
