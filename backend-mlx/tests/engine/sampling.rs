//! Tokens sampled on the device, in flight and against the host.

use duet_core::sampling::{Sampler, SamplingParams};
use duet_core::testing::conformance::evaluate;
use duet_core::{DeviceSampling, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want, WeightsMode};

use crate::common::{fixture, load_as, with_runner};

const GREEDY: DeviceSampling =
    DeviceSampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0 };

fn draw(temperature: f32, uniform: f32) -> DeviceSampling {
    DeviceSampling { temperature, uniform, ..GREEDY }
}

fn best(row: &[f32]) -> u32 {
    (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a vocabulary") as u32
}

/// Greedy ids by evaluating on the host one token at a time.
fn on_the_host(runner: &mut dyn ModelRunner, seq: SeqId, prompt: &[u32], n: usize) -> Vec<u32> {
    let vocab = runner.n_vocab();
    let mut logits = evaluate(runner, seq, 0, prompt);
    let mut ids = Vec::new();
    while ids.len() < n {
        ids.push(best(&logits[logits.len() - vocab..]));
        let position = runner.sequence_len(seq);
        logits = evaluate(runner, seq, position, &ids[ids.len() - 1..]);
    }
    runner.release(seq);
    ids
}

fn previous(seq: u32, position: u32, want: Want) -> PlanRow<'static> {
    PlanRow { seq: SeqId(seq), position, tokens: RowTokens::Previous, want }
}

/// Two steps are always in flight, the second of which continues with a token that nobody has read yet.
#[tokio::test]
async fn greedy_steps_in_flight_give_the_hosts_tokens() {
    let model = load_as(&fixture("tiny-llama"), 3, WeightsMode::Auto).await;
    with_runner(model.as_ref(), |runner| {
        assert_eq!(runner.capabilities().steps_in_flight, 2);
        let prompts: [&[u32]; 3] = [&[5, 9, 200], &[40; 17], &[311]];
        let expected: Vec<Vec<u32>> =
            prompts.iter().map(|prompt| on_the_host(runner, SeqId(2), prompt, 20)).collect();
        let first: Vec<PlanRow<'_>> = prompts
            .iter()
            .enumerate()
            .map(|(seq, prompt)| PlanRow {
                seq: SeqId(seq as u32),
                position: 0,
                tokens: RowTokens::Host(prompt),
                want: Want::Token(GREEDY),
            })
            .collect();
        let passes = runner.n_forward_passes();
        runner.submit(StepPlan { rows: &first }).expect("a step");
        let mut got: Vec<Vec<u32>> = vec![Vec::new(); 3];
        for step in 1..=20 {
            if step < 20 {
                let rows: Vec<PlanRow<'_>> = (0..3)
                    .map(|seq| {
                        previous(seq, (prompts[seq as usize].len() + step - 1) as u32, Want::Token(GREEDY))
                    })
                    .collect();
                runner.submit(StepPlan { rows: &rows }).expect("a second step in flight");
                runner.submit(StepPlan { rows: &rows }).expect_err("a third is too many");
            }
            let output = runner.collect().expect("the older step");
            assert!(output.logits.is_empty());
            for (ids, token) in got.iter_mut().zip(output.tokens) {
                ids.push(token.expect("every row asked for a token"));
            }
        }
        assert_eq!(got, expected);
        assert_eq!(runner.n_forward_passes() - passes, 20, "a step of three sequences is one pass");
    })
    .await;
}

/// Rows that want nothing, logits, all logits and tokens of both kinds, and a mixture of known and unknown tokens.
#[tokio::test]
async fn mixed_wants_in_one_step() {
    let model = load_as(&fixture("tiny-llama"), 4, WeightsMode::Auto).await;
    with_runner(model.as_ref(), |runner| {
        let vocab = runner.n_vocab();
        let (a, b, c) = ([7u32, 8, 9], [100u32, 101], [50u32]);
        let [alone_a, alone_b, alone_c] = [a.as_slice(), &b, &c].map(|ids| {
            let logits = evaluate(runner, SeqId(0), 0, ids);
            runner.release(SeqId(0));
            logits
        });
        let host =
            |seq, ids, want| PlanRow { seq: SeqId(seq), position: 0, tokens: RowTokens::Host(ids), want };
        let rows = [
            host(0, &a, Want::Token(GREEDY)),
            host(1, &b, Want::AllLogits),
            host(2, &c, Want::LastLogits),
            host(3, &a, Want::Nothing),
        ];
        runner.submit(StepPlan { rows: &rows }).expect("a step");
        let output = runner.collect().expect("its result");
        assert_eq!(output.logits.len(), 3 * vocab);
        let near = |x: &[f32], y: &[f32]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-4);
        assert!(near(output.row(0), &alone_b[..vocab]) && near(output.row(1), &alone_b[vocab..]));
        assert!(near(output.row(2), &alone_c));
        assert_eq!(output.tokens, [Some(best(&alone_a[2 * vocab..])), None, None, None]);
        let token = output.tokens[0].expect("asked for");
        // Sequence 0 goes on with its own token, 3 with one from the host, and both see the same text.
        let known = [token];
        let rows = [
            previous(0, 3, Want::LastLogits),
            PlanRow { seq: SeqId(3), position: 3, tokens: RowTokens::Host(&known), want: Want::LastLogits },
        ];
        runner.submit(StepPlan { rows: &rows }).expect("a step");
        let output = runner.collect().expect("its result");
        assert!(near(output.row(0), output.row(1)));
        let stale = [previous(1, 2, Want::LastLogits)];
        runner.submit(StepPlan { rows: &stale }).expect_err("nothing was sampled for sequence 1");
    })
    .await;
}

/// The device's draw is the host's for the same uniform number, but for numbers that fall on a boundary.
#[tokio::test]
async fn draws_agree_with_the_host() {
    let model = load_as(&fixture("tiny-llama"), 1, WeightsMode::Auto).await;
    with_runner(model.as_ref(), |runner| {
        let vocab = runner.n_vocab();
        let prompt = [5u32, 9, 200, 17];
        let logits = evaluate(runner, SeqId(0), 0, &prompt);
        let row = &logits[logits.len() - vocab..];
        let mut differing = Vec::new();
        for (seed, temperature) in (0..150).zip([0.3f32, 1.0, 1.7].into_iter().cycle()) {
            let uniform = (seed as f32 * 0.618_034).fract();
            runner.release(SeqId(0));
            let plan = [PlanRow {
                seq: SeqId(0),
                position: 0,
                tokens: RowTokens::Host(&prompt),
                want: Want::Token(draw(temperature, uniform)),
            }];
            runner.submit(StepPlan { rows: &plan }).expect("a step");
            let got = runner.collect().expect("its result").tokens[0].expect("a token");
            // The cumulative distribution in f64, as the specification has it.
            let max = row.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
            let masses: Vec<f64> =
                row.iter().map(|x| (f64::from(x - max) / f64::from(temperature)).exp()).collect();
            let whole: f64 = masses.iter().sum();
            let target = f64::from(uniform) * whole;
            let mut sum = 0.0;
            let expected = masses.iter().position(|mass| {
                sum += mass;
                sum > target
            });
            let expected = expected.expect("a token") as u32;
            if got != expected {
                let upto: f64 = masses[..expected.max(got) as usize].iter().sum();
                differing.push(((upto - target) / whole).abs());
            }
        }
        assert!(differing.iter().all(|distance| *distance < 1e-5), "only at boundaries: {differing:?}");
        assert!(differing.len() < 3, "{differing:?}");
    })
    .await;
}

/// The ends of the distribution: 0 takes the first token with any mass, almost 1 the last.
#[tokio::test]
async fn draws_at_the_ends() {
    let model = load_as(&fixture("tiny-llama"), 2, WeightsMode::Auto).await;
    with_runner(model.as_ref(), |runner| {
        for (uniform, expected) in [(0.0, 0), (1.0 - 1.0 / 16_777_216.0, 319)] {
            let want = Want::Token(draw(2.0, uniform));
            let rows = [0, 1].map(|seq| PlanRow {
                seq: SeqId(seq),
                position: 0,
                tokens: RowTokens::Host(&[3]),
                want,
            });
            runner.submit(StepPlan { rows: &rows }).expect("a step");
            let output = runner.collect().expect("its result");
            assert_eq!(output.tokens, [Some(expected), Some(expected)], "u = {uniform}");
            runner.release(SeqId(0));
            runner.release(SeqId(1));
        }
    })
    .await;
}

/// The engine's own loop: the same seed gives the same text whether the device or the host samples.
#[tokio::test]
async fn seeds_give_the_samplers_tokens() {
    let model = load_as(&fixture("tiny-llama"), 1, WeightsMode::Auto).await;
    let params = SamplingParams { temperature: 1.0, seed: 11, ..SamplingParams::default() };
    let mut request = duet_core::GenerateRequest::new("seeded", vec![5, 9, 200], 24);
    request.sampling = params.clone();
    request.ignore_eos = true;
    let stream = model.generate(request).expect("idle");
    let got = duet_core::testing::conformance::fold(stream).await.expect("answered").ids();
    let expected = with_runner(model.as_ref(), move |runner| {
        let vocab = runner.n_vocab();
        let prompt = vec![5u32, 9, 200];
        let mut sampler = Sampler::new(params, vocab as u32);
        let mut logits = evaluate(runner, SeqId(0), 0, &prompt);
        let mut ids = Vec::new();
        while ids.len() < 24 {
            ids.push(sampler.sample(&logits[logits.len() - vocab..]).expect("a token"));
            let position = runner.sequence_len(SeqId(0));
            logits = evaluate(runner, SeqId(0), position, &ids[ids.len() - 1..]);
        }
        ids
    })
    .await;
    assert_eq!(got, expected);
}
