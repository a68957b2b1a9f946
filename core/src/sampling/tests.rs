//! The sampler against its definition, its invariants, and rows that no sampler can use.

use super::reference::{self, Noise};
use super::{SampleError, Sampler, SamplingParams};
use crate::text::TokenId;

fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}

fn sample_one(params: SamplingParams, logits: &[f32]) -> Result<TokenId, SampleError> {
    Sampler::new(params, logits.len() as u32).sample(logits)
}

/// Parameters with each part of the chain on in about a third of the cases.
fn random_params(noise: &mut Noise, vocab_size: usize, seed: u64) -> SamplingParams {
    let mut params =
        SamplingParams { seed, temperature: 0.1 + 1.9 * noise.unit(), ..SamplingParams::default() };
    let mut on = || noise.below(3) == 0;
    let switches: [bool; 9] = std::array::from_fn(|_| on());
    if switches[0] {
        params.top_k = 1 + noise.below(vocab_size + 10) as u32;
    }
    if switches[1] {
        params.top_p = noise.unit();
    }
    if switches[2] {
        params.min_p = noise.unit().powi(3);
    }
    if switches[3] {
        params.typical_p = noise.unit();
    }
    if switches[4] {
        params.top_n_sigma = Some(0.2 + 3.0 * noise.unit());
    }
    if switches[5] {
        (params.xtc_probability, params.xtc_threshold) = (noise.unit(), 0.4 * noise.unit());
    }
    if switches[6] {
        params.repetition_penalty = 0.5 + noise.unit();
        params.frequency_penalty = noise.unit() - 0.5;
        params.presence_penalty = noise.unit();
        params.repeat_last_n = noise.below(40) as i32 - 1;
    }
    if switches[7] {
        let banned = if vocab_size > 3 { f32::NEG_INFINITY } else { -50.0 };
        params.logit_bias = vec![(0, 5.0 * noise.normal())];
        if vocab_size > 1 {
            params.logit_bias.push((noise.below(vocab_size - 1) as TokenId + 1, banned));
        }
    }
    if switches[8] {
        params.dry_multiplier = noise.unit();
        params.dry_penalty_last_n = noise.below(60) as i32 - 1;
        params.dry_allowed_length = 1 + noise.below(3) as u32;
        params.dry_sequence_breakers = vec![noise.below(vocab_size) as TokenId];
    }
    params
}

#[test]
fn agrees_with_the_definition() {
    let mut noise = Noise::new(11);
    for case in 0..1_200 {
        let vocab_size = 1 + noise.below(400);
        let logits = noise.logits(vocab_size, case);
        let params = random_params(&mut noise, vocab_size, case as u64);
        params.validate(vocab_size as u32).expect("in range");
        let mut sampler = Sampler::new(params.clone(), vocab_size as u32);
        // Few different tokens, so that there are repeats.
        let history: Vec<TokenId> =
            (0..noise.below(60)).map(|_| noise.below(vocab_size.min(4)) as TokenId).collect();
        history.iter().for_each(|&id| sampler.accept(id));

        let row = reference::adjusted(&params, &logits, &history);
        if row.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            assert_eq!(sampler.sample(&logits), Err(SampleError::NothingAllowed), "case {case}");
            continue;
        }
        let coin = super::draw::Draws::for_xtc(case as u64).next();
        let left = reference::survivors(&params, &row, params.has_xtc() && coin < params.xtc_probability);
        let uniform = super::draw::Draws::for_tokens(case as u64).next();
        let expected = reference::draw(&left, params.temperature, uniform);
        assert_eq!(
            sampler.sample(&logits),
            Ok(expected),
            "case {case}: {params:?} after {history:?} left {left:?}"
        );
    }
}

#[test]
fn many_draws_stay_within_the_candidates_and_reach_them_all() {
    let mut noise = Noise::new(12);
    for case in 0..30 {
        let logits: Vec<f32> = noise.logits(40, case).iter().map(|logit| logit * 0.3).collect();
        let params = SamplingParams { dry_multiplier: 0.0, ..random_params(&mut noise, 40, case as u64) };
        let params = SamplingParams { xtc_probability: 0.0, temperature: 2.0, ..params };
        let row = reference::adjusted(&params, &logits, &[]);
        let left = reference::survivors(&params, &row, false);
        let mut sampler = Sampler::new(params, 40);
        let mut seen = [false; 40];
        for _ in 0..4_000 {
            seen[sampler.sample(&logits).expect("a token") as usize] = true;
        }
        let seen: Vec<usize> = (0..40).filter(|&id| seen[id]).collect();
        let probable = |id: &TokenId| reference::log_softmax(&row)[*id as usize] > -4.0;
        for id in &seen {
            assert!(left.iter().any(|entry| entry.0 as usize == *id), "case {case}: {id} is no candidate");
        }
        for (id, _) in left.iter().filter(|entry| probable(&entry.0)) {
            assert!(seen.contains(&(*id as usize)), "case {case}: candidate {id} never came");
        }
    }
}

/// Chi-square of 50,000 draws against the distribution; the bounds are the 99.9 % points, the seeds fixed.
#[test]
fn draws_follow_the_distribution() {
    #[track_caller]
    fn check(params: SamplingParams, logits: &[f32], expected: &[f64], bound: f64) {
        let n = 50_000;
        let mut sampler = Sampler::new(params, logits.len() as u32);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..n {
            counts[sampler.sample(logits).expect("a token") as usize] += 1.0;
        }
        let chi2: f64 = counts
            .iter()
            .zip(expected)
            .filter(|pair| *pair.1 > 0.0)
            .map(|(count, share): (&f64, &f64)| {
                (count - share * f64::from(n)).powi(2) / (share * f64::from(n))
            })
            .sum();
        assert!(chi2 < bound, "{chi2}: {counts:?}");
    }
    let shares: [f64; 5] = [0.1, 0.4, 0.05, 0.25, 0.2];
    let logits = shares.map(|share| share.ln() as f32);
    let plain = |seed| SamplingParams { seed, ..SamplingParams::default() };
    for seed in 0..5 {
        check(plain(seed), &logits, &shares, 18.5);
        let top_k = SamplingParams { top_k: 3, ..plain(seed) };
        check(top_k, &logits, &[0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85, 0.2 / 0.85], 13.9);
        // The filter sees the untempered shares: 0.4 + 0.25 reach 0.6; tempered at 2 they would not.
        let tempered = SamplingParams { top_p: 0.6, temperature: 2.0, ..plain(seed) };
        let (a, b) = (0.4f64.sqrt(), 0.25f64.sqrt());
        check(tempered, &logits, &[0.0, a / (a + b), 0.0, b / (a + b), 0.0], 10.9);
    }
}

#[test]
fn top_k_one_is_greedy() {
    let mut noise = Noise::new(13);
    for case in 0..400 {
        let n = 1 + noise.below(500);
        let logits = noise.logits(n, case);
        let expected = sample_one(greedy(), &logits);
        let naive = (0..n).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).map(|id| id as TokenId);
        assert_eq!(expected.ok(), naive);
        let top_k = SamplingParams { top_k: 1, seed: case as u64, ..SamplingParams::default() };
        let top_p = SamplingParams { top_p: 0.0, seed: case as u64, ..SamplingParams::default() };
        let cold = SamplingParams { temperature: f32::MIN_POSITIVE / 8.0, ..SamplingParams::default() };
        assert_eq!(sample_one(top_k, &logits).ok(), naive);
        assert_eq!(sample_one(top_p, &logits).ok(), naive);
        if case % 4 != 2 {
            assert_eq!(sample_one(cold, &logits).ok(), naive, "case {case}");
        }
    }
}

#[test]
fn ties_fall_to_the_lower_id() {
    let logits = [1.0, 5.0, 5.0, -0.0, 0.0, 5.0];
    assert_eq!(sample_one(greedy(), &logits), Ok(1));
    assert_eq!(sample_one(greedy(), &[-1.0, -0.0, 0.0]), Ok(1));
    assert_eq!(sample_one(greedy(), &[-1.0, 0.0, -0.0]), Ok(1));
    for seed in 0..50 {
        let two = SamplingParams { top_k: 2, seed, ..SamplingParams::default() };
        assert!([1, 2].contains(&sample_one(two, &logits).expect("a token")));
        let zeros = SamplingParams { top_k: 1, seed, ..SamplingParams::default() };
        assert_eq!(sample_one(zeros, &[-1.0, -0.0, 0.0]), Ok(1));
    }
}

/// The choice goes by id, so moving tokens moves the choice with them only where the order of ids is kept.
#[test]
fn masked_tokens_in_between_change_nothing() {
    let mut noise = Noise::new(14);
    for case in 0..300 {
        let n = 2 + noise.below(200);
        let logits = noise.logits(n, 0);
        let params = SamplingParams {
            top_k: noise.below(n) as u32,
            top_p: 0.5 + 0.5 * noise.unit(),
            min_p: 0.05 * noise.unit(),
            seed: case,
            ..SamplingParams::default()
        };
        let mut wide = Vec::new();
        let mut places = Vec::new();
        for &logit in &logits {
            wide.extend(std::iter::repeat_n(f32::NEG_INFINITY, noise.below(90)));
            places.push(wide.len() as TokenId);
            wide.push(logit);
        }
        let narrow = sample_one(params.clone(), &logits).expect("a token");
        assert_eq!(sample_one(params, &wide), Ok(places[narrow as usize]), "case {case}");
    }
}

/// The reason for drawing in order of id and not of probability, where tokens that swap places swap whole intervals.
#[test]
fn two_slightly_different_rows_choose_alike() {
    let mut noise = Noise::new(15);
    let (mut by_id, mut by_probability, mut distance) = (0.0, 0.0, 0.0);
    let n_rows = 2_000;
    for seed in 0..n_rows {
        let logits = noise.logits(300, 0);
        let other: Vec<f32> = logits.iter().map(|logit| logit + 0.02 * noise.normal()).collect();
        let share = |row: &[f32]| reference::log_softmax(row).into_iter().map(f64::exp).collect::<Vec<_>>();
        let apart: f64 = share(&logits).iter().zip(share(&other)).map(|(a, b)| (a - b).abs()).sum();
        distance += apart / 2.0;
        let params = SamplingParams { seed, ..SamplingParams::default() };
        by_id += f64::from(u8::from(sample_one(params.clone(), &logits) != sample_one(params, &other)));
        let uniform = noise.unit();
        let ranked = |row: &[f32]| {
            let mut left: Vec<(TokenId, f32)> = (0..).zip(row.iter().copied()).collect();
            left.sort_by(|a, b| b.1.total_cmp(&a.1));
            reference::draw(&left, 1.0, uniform)
        };
        by_probability += f64::from(u8::from(ranked(&logits) != ranked(&other)));
    }
    assert!(by_id < 0.8 * by_probability, "{by_id} choices differ by id, {by_probability} by probability");
    assert!(by_id < 8.0 * distance, "{by_id} of {n_rows} choices differ, the distances add up to {distance}");
}

#[test]
fn the_nth_draw_belongs_to_the_nth_token_whatever_the_parameters() {
    let logits = Noise::new(16).logits(100, 0);
    let seed = 99;
    let variants = [
        greedy(),
        SamplingParams::default(),
        SamplingParams { top_k: 5, ..SamplingParams::default() },
        SamplingParams { xtc_probability: 0.5, xtc_threshold: 0.01, ..SamplingParams::default() },
        SamplingParams { dry_multiplier: 1.0, repetition_penalty: 1.3, ..SamplingParams::default() },
    ];
    let mut expected = super::draw::Draws::for_tokens(seed);
    let fourth = (0..4).map(|_| expected.next()).last().expect("four");
    for params in variants {
        let mut sampler = Sampler::new(SamplingParams { seed, ..params }, 100);
        let _ = sampler.next_uniform();
        sampler.sample(&logits).expect("a token");
        sampler.sample(&[f32::NAN; 100]).expect_err("a row without numbers");
        assert_eq!(sampler.next_uniform(), fourth);
    }
}

#[test]
fn same_seed_same_tokens() {
    let mut noise = Noise::new(17);
    let rows: Vec<Vec<f32>> = (0..50).map(|kind| noise.logits(300, kind)).collect();
    let run = |seed| {
        let mut sampler = Sampler::new(SamplingParams { seed, top_p: 0.9, ..SamplingParams::default() }, 300);
        rows.iter().map(|row| sampler.sample(row).expect("a token")).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn penalties_follow_the_window() {
    let logits = [2.0, 1.9, -1.0];
    let params = SamplingParams { repetition_penalty: 2.0, repeat_last_n: 2, ..greedy() };
    let mut sampler = Sampler::new(params, 3);
    assert_eq!(sampler.sample(&logits), Ok(0));
    sampler.accept(0);
    assert_eq!(sampler.sample(&logits), Ok(1));
    sampler.accept(1);
    assert_eq!(sampler.sample(&logits), Ok(0));
    sampler.accept(1);
    assert_eq!(sampler.sample(&logits), Ok(0), "token 0 has left the window");
    // A window of nothing is no penalty at all.
    let off = SamplingParams { frequency_penalty: 2.0, repeat_last_n: 0, ..greedy() };
    assert!(!off.needs_history());
    let mut sampler = Sampler::new(off, 3);
    sampler.accept(0);
    assert_eq!(sampler.sample(&logits), Ok(0));
}

#[test]
fn extreme_but_valid_penalties_leave_a_token() {
    let params = SamplingParams {
        repetition_penalty: 1e-38,
        frequency_penalty: 2.0,
        presence_penalty: -2.0,
        ..greedy()
    };
    params.validate(3).expect("in range");
    let mut sampler = Sampler::new(params, 3);
    [0, 1, 2].into_iter().for_each(|id| sampler.accept(id));
    assert_eq!(sampler.sample(&[5.0, 4.0, -3.0]), Ok(0));
    let harsh = SamplingParams { repetition_penalty: 3e38, ..SamplingParams::default() };
    let mut sampler = Sampler::new(harsh, 3);
    [0, 1, 2].into_iter().for_each(|id| sampler.accept(id));
    sampler.sample(&[-5.0, -4.0, -3.0]).expect("a token");
}

#[test]
fn bias_bans_and_forces() {
    let logits = [3.0, 2.0, 1.0];
    let bias = |bias: &[(TokenId, f32)]| SamplingParams { logit_bias: bias.to_vec(), ..greedy() };
    assert_eq!(sample_one(bias(&[(0, f32::NEG_INFINITY)]), &logits), Ok(1));
    assert_eq!(sample_one(bias(&[(2, 100.0)]), &logits), Ok(2));
    let all = [(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY), (2, f32::NEG_INFINITY)];
    assert_eq!(sample_one(bias(&all), &logits), Err(SampleError::NothingAllowed));
}

#[test]
fn rows_from_which_nothing_can_be_chosen() {
    #[track_caller]
    fn check(logits: &[f32], expected: SampleError) {
        let filters = SamplingParams { top_k: 2, top_p: 0.9, min_p: 0.1, ..SamplingParams::default() };
        let typical = SamplingParams { typical_p: 0.5, top_n_sigma: Some(1.0), ..SamplingParams::default() };
        for params in [greedy(), SamplingParams::default(), filters, typical] {
            assert_eq!(sample_one(params, logits), Err(expected.clone()));
        }
    }
    for width in [1, 15, 16, 17, 64, 65, 200] {
        for place in [0, width / 2, width - 1] {
            let mut row = vec![1.0; width];
            row[place] = f32::NAN;
            check(&row, SampleError::NotANumber);
            row[place] = -f32::NAN;
            check(&row, SampleError::NotANumber);
            row[place] = f32::INFINITY;
            check(&row, SampleError::Infinite);
        }
        check(&vec![f32::NEG_INFINITY; width], SampleError::NothingAllowed);
        let mut masked = vec![f32::NEG_INFINITY; width];
        masked[0] = f32::NAN;
        check(&masked, SampleError::NotANumber);
    }
    check(&[], SampleError::NothingAllowed);
    let mut sampler = Sampler::new(greedy(), 3);
    let wrong = SampleError::WrongWidth { n_logits: 2, vocab_size: 3 };
    assert_eq!(sampler.sample(&[1.0, 2.0]), Err(wrong));
}

/// Flat rows are the worst case of top-p; every filter must still leave the right number of tokens.
#[test]
fn flat_rows() {
    let logits = vec![0.25f32; 3_000];
    for (top_p, highest) in [(0.5, 1_499), (1.0 / 1024.0, 2), (1.0 - 1.0 / 1024.0, 2_997)] {
        let mut sampler = Sampler::new(SamplingParams { top_p, ..SamplingParams::default() }, 3_000);
        let drawn = (0..400).map(|_| sampler.sample(&logits).expect("a token")).max().expect("draws");
        assert!(drawn <= highest && drawn >= highest - highest / 25, "top_p {top_p}: up to {drawn}");
    }
}
