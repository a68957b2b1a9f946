//! The runner's use of its caches over many steps.

use std::path::Path;

use duet_core::model::inspect;
use duet_core::{DeviceSampling, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};

use super::*;
use crate::loader::{self, Held, LoadPlan, Placement};
use crate::raw;
use crate::tensor::{Device, ElementType};

const GREEDY: Want =
    Want::Token(DeviceSampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0 });

fn runner(path: &Path, context_length: u32) -> MlxRunner {
    let placement = Placement { device: Device::Cpu, compute: ElementType::F32, held: Held::Dense };
    let plan = LoadPlan { placement, context_length: context_length as usize };
    let model = inspect(path).expect("a model");
    let decoder = on_stream(|_| loader::build(&model, plan, &|_| Ok(()))).expect("it loads");
    let config = &decoder.config;
    let cache = CacheShape { n_kv_heads: config.n_kv_heads, head_dim: config.head_dim, ty: ElementType::F32 };
    let limits =
        RunnerLimits { max_sequences: 1, context_length, kv_tokens: context_length, max_step_tokens: 512 };
    MlxRunner::new(decoder, limits, cache, 0)
}

/// Where every layer's keys and values lie in memory.
fn addresses(runner: &MlxRunner) -> Vec<*const f32> {
    on_stream(|_| runner.sequences.addresses(SeqId(0)))
}

fn step(runner: &mut MlxRunner, position: u32, tokens: RowTokens<'_>, want: Want) {
    let row = PlanRow { seq: SeqId(0), position, tokens, want };
    runner.submit(StepPlan { rows: &[row] }).expect("a step");
}

/// With a step always in flight, as the engine runs it: no step may copy a cache, which would cost more than the step.
/// On a model deep enough that evaluation of a layer is over before the next step comes to it.
#[test]
#[expect(clippy::print_stderr, reason = "a skip is for whoever runs the tests")]
fn steps_in_flight_write_in_place() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        eprintln!("skipped: no demo model; `make setup` fetches it");
        return;
    }
    raw::start().expect("MLX starts");
    let mut runner = runner(&path, 256);
    step(&mut runner, 0, RowTokens::Host(&[1, 2, 3, 4]), GREEDY);
    runner.collect().expect("its result");
    let before = addresses(&runner);
    step(&mut runner, 4, RowTokens::Host(&[5]), GREEDY);
    for position in 5..45 {
        step(&mut runner, position, RowTokens::Previous, GREEDY);
        runner.collect().expect("the older step");
    }
    runner.collect().expect("the last step");
    let after = addresses(&runner);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(before.len(), 60);
    assert_eq!(moved, 0, "of 60 buffers {moved} were copied");
}
