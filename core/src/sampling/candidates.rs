//! The tokens that may still be chosen, and the filters over them.

use super::exp::{exp, sum_exp};
use super::row::{BLOCK, Row};
use crate::text::TokenId;

/// Below this many keys, sorting beats selecting.
const FEW: usize = 32;

/// A set of tokens with their logits, in buffers that live as long as the sampler.
///
/// A token is one number that rises with falling logit, then with rising id: filters compare and sort plain
/// integers, and ties fall to the lower id by themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates {
    keys: Vec<u64>,
    /// Working space: block maxima for top-k, surprise order for typical.
    maxima: Vec<f32>,
    by_surprise: Vec<u64>,
}

fn key(id: TokenId, logit: f32) -> u64 {
    // Adding zero turns -0 into 0, which it equals.
    let bits = (logit + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
    u64::from(!rising) << 32 | u64::from(id)
}

fn logit(key: u64) -> f32 {
    let rising = !((key >> 32) as u32);
    f32::from_bits(if rising >> 31 == 1 { rising & 0x7fff_ffff } else { !rising })
}

fn id(key: u64) -> TokenId {
    key as TokenId
}

/// A distribution over a set: what a logit says about a probability in it.
#[derive(Debug)]
pub(super) struct Tempered {
    max: f32,
    scale: f32,
    log_mass: f64,
}

impl Tempered {
    /// Natural; finite, also for the least probable token at the smallest temperature.
    fn log_probability(&self, key: u64) -> f64 {
        let below = f64::from(logit(key)) - f64::from(self.max);
        below * f64::from(self.scale) - self.log_mass
    }
}

impl Candidates {
    /// Everything from `floor` up.
    pub(super) fn gather(&mut self, row: &Row<'_>, maxima: &[f32], floor: f32) {
        self.keys.clear();
        row.for_each_from(floor, maxima, |id, logit| self.keys.push(key(id, logit)));
    }

    /// The `k` most probable tokens from `floor` up.
    ///
    /// The k-th highest block maximum is a bound from below on the k-th highest logit, so only blocks that reach it
    /// are looked into: about k of them.
    pub(super) fn gather_top_k(&mut self, row: &Row<'_>, maxima: &[f32], floor: f32, k: usize) {
        let mut bound = floor;
        if k <= maxima.len() {
            self.maxima.clear();
            self.maxima.extend_from_slice(maxima);
            let (_, &mut kth, _) = self.maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            bound = bound.max(kth);
        }
        self.gather(row, maxima, bound);
        if k < self.keys.len() {
            self.keys.select_nth_unstable(k - 1);
            self.keys.truncate(k);
        }
    }

    /// The smallest set of most probable tokens whose share of the whole row's mass reaches `p`.
    ///
    /// Tokens are gathered from a floor that sinks until they hold enough mass; the first floor does for nearly
    /// every row of a language model.
    pub(super) fn gather_top_p(&mut self, row: &Row<'_>, maxima: &[f32], max: f32, p: f32) {
        let mut total = 0.0;
        row.for_each_block(|block| total += sum_exp(block, max, 1.0));
        let target = f64::from(p) * total;
        for reach in [6.0, 12.0, f32::INFINITY] {
            self.gather(row, maxima, max - reach);
            if self.mass(max) >= target {
                break;
            }
        }
        self.keep_mass(max, target);
    }

    /// Keeps the smallest set of most probable tokens whose share of the mass reaches `p`.
    pub(super) fn top_p(&mut self, p: f32) {
        let max = self.max();
        self.keep_mass(max, f64::from(p) * self.mass(max));
    }

    /// Keeps tokens at least `p` times as probable as the most probable one.
    pub(super) fn min_p(&mut self, p: f32) {
        let floor = min_p_floor(self.max(), p);
        self.keys.retain(|&key| logit(key) >= floor);
    }

    /// Keeps the tokens whose surprise is closest to the expected one, until their share of the mass exceeds `p`.
    pub(super) fn typical(&mut self, p: f32) {
        // By rising id, so that a place among the keys stands for an id where surprises are equal.
        if !self.keys.is_sorted_by_key(|&key| id(key)) {
            self.keys.sort_unstable_by_key(|&key| id(key));
        }
        let max = self.max();
        let mass = self.mass(max);
        let log_mass = mass.ln();
        let surprise = |key: u64| log_mass - f64::from(logit(key) - max);
        let expected = self.keys.iter().map(|&key| weight(key, max) / mass * surprise(key)).sum::<f64>();
        self.by_surprise.clear();
        self.by_surprise.extend(self.keys.iter().enumerate().map(|(place, &key)| {
            // Bits of a non-negative float rise with it.
            let distance = ((surprise(key) - expected).abs() as f32).to_bits();
            u64::from(distance) << 32 | place as u64
        }));
        let keys = &self.keys;
        let place = |entry: u64| entry as u32 as usize;
        // To exceed a number is to reach the next one.
        let target = f64::from(p).next_up() * mass;
        let n = shortest_head(&mut self.by_surprise, target, |entry| weight(keys[place(entry)], max));
        for entry in &mut self.by_surprise[..n] {
            *entry = keys[place(*entry)];
        }
        self.keys.clear();
        self.keys.extend_from_slice(&self.by_surprise[..n]);
    }

    /// Drops all tokens with at least this probability but the least probable of them.
    pub(super) fn exclude_top_choices(&mut self, threshold: f32) {
        let max = self.max();
        let floor = f64::from(threshold) * self.mass(max);
        let chosen = self.keys.iter().copied().filter(|&key| weight(key, max) >= floor);
        // Keys rise as probability falls.
        if let Some(least) = chosen.max() {
            self.keys.retain(|&key| key >= least);
        }
    }

    /// The token at `uniform` of the cumulative distribution in order of id, tempered.
    pub(super) fn draw(&mut self, uniform: f32, temperature: f32) -> TokenId {
        let max = self.max();
        let scale = inverse(temperature);
        for key in &mut self.keys {
            // Id above, logit below: a rising number now rises with the id.
            *key = key.rotate_left(32);
        }
        self.keys.sort_unstable();
        let weight = |rotated: u64| f64::from(exp((logit(rotated.rotate_left(32)) - max) * scale));
        let total: f64 = self.keys.iter().map(|&rotated| weight(rotated)).sum();
        let weights = self.keys.iter().map(|&rotated| (id(rotated.rotate_left(32)), weight(rotated)));
        pick(weights, 0.0, f64::from(uniform) * total)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// What natural logarithms of probabilities are counted from, for the set as it is.
    pub(super) fn tempered(&self, temperature: f32) -> Tempered {
        let (max, scale) = (self.max(), inverse(temperature));
        let mass: f64 = self.keys.iter().map(|&key| f64::from(exp((logit(key) - max) * scale))).sum();
        Tempered { max, scale, log_mass: mass.ln() }
    }

    /// By how much the natural logarithm of the probability falls from each of the `n` most probable tokens to the next.
    pub(super) fn steps(&mut self, n: usize, by: &Tempered) -> impl Iterator<Item = f64> {
        if n < self.keys.len() {
            self.keys.select_nth_unstable(n);
        }
        let n = n.min(self.keys.len());
        self.keys[..n].sort_unstable();
        self.keys[..n].windows(2).map(|pair| by.log_probability(pair[0]) - by.log_probability(pair[1]))
    }

    /// Keeps the `n` most probable tokens.
    pub(super) fn keep_most_probable(&mut self, n: usize) {
        if n < self.keys.len() {
            self.keys.select_nth_unstable(n - 1);
            self.keys.truncate(n);
        }
    }

    /// Keeps what has at least this natural logarithm of its probability, and the most probable token in any case.
    pub(super) fn keep_down_to(&mut self, log_probability: f64, by: &Tempered) {
        self.keys.retain(|&key| logit(key) == by.max || by.log_probability(key) >= log_probability);
    }

    /// As [`Candidates::draw`], with the natural logarithm of the token's probability by `by`.
    pub(super) fn draw_and_weigh(&mut self, uniform: f32, temperature: f32, by: &Tempered) -> (TokenId, f64) {
        let drawn = self.draw(uniform, temperature);
        let found = self.keys.binary_search_by_key(&drawn, |rotated| id(rotated.rotate_left(32)));
        let key = self.keys[found.unwrap_or(0)].rotate_left(32);
        (drawn, by.log_probability(key))
    }

    /// The highest logit left. Not called on an empty set: every filter keeps at least one token.
    fn max(&self) -> f32 {
        self.keys.iter().min().map_or(0.0, |&key| logit(key))
    }

    fn mass(&self, max: f32) -> f64 {
        self.keys.iter().map(|&key| weight(key, max)).sum()
    }

    /// Keeps the fewest most probable tokens whose mass reaches `target`, all if it is out of reach.
    fn keep_mass(&mut self, max: f32, target: f64) {
        let n = shortest_head(&mut self.keys, target, |key| weight(key, max));
        self.keys.truncate(n);
    }
}

/// Moves the lowest items to the front, as few as together weigh at least `target`; how many these are. At least one of
/// any, and all if the target is out of reach.
///
/// Halves the part in which the boundary lies, by selection: linear, where sorting a flat row would not be.
fn shortest_head(items: &mut [u64], target: f64, weight: impl Fn(u64) -> f64) -> usize {
    let (mut start, mut end) = (0, items.len());
    let mut missing = target;
    while end - start > FEW {
        let half = (end - start) / 2;
        items[start..end].select_nth_unstable(half);
        let head: f64 = items[start..start + half].iter().map(|&item| weight(item)).sum();
        if head >= missing {
            end = start + half;
        } else {
            missing -= head;
            start += half;
        }
    }
    items[start..end].sort_unstable();
    for (at, &item) in items.iter().enumerate().take(end).skip(start) {
        missing -= weight(item);
        if missing <= 0.0 {
            return at + 1;
        }
    }
    end
}

fn weight(key: u64, max: f32) -> f64 {
    f64::from(exp(logit(key) - max))
}

/// The lowest logit that min-p keeps beside one of `max`.
pub(super) fn min_p_floor(max: f32, p: f32) -> f32 {
    max.min(max + p.ln())
}

/// 1 / temperature, finite also for the smallest temperatures: the difference 0 has to stay 0.
fn inverse(temperature: f32) -> f32 {
    (1.0 / temperature).min(f32::MAX)
}

/// The first token at which the running mass exceeds `target`; for want of one (rounding), the last with any mass.
fn pick(weights: impl Iterator<Item = (TokenId, f64)>, mut running: f64, target: f64) -> TokenId {
    let mut last = 0;
    for (id, weight) in weights {
        running += weight;
        if weight > 0.0 {
            last = id;
        }
        if running > target {
            break;
        }
    }
    last
}

/// The token at `uniform` of the whole row's cumulative distribution: a draw without filters, which needs no set.
///
/// One pass for the mass of each block (into `masses`), then one block is looked into.
pub(super) fn draw_from_row(
    row: &Row<'_>,
    max: f32,
    uniform: f32,
    temperature: f32,
    masses: &mut Vec<f64>,
) -> TokenId {
    let scale = inverse(temperature);
    let mut scratch = [0.0; BLOCK];
    masses.clear();
    row.for_each_block(|block| masses.push(sum_exp(block, max, scale)));
    let target = f64::from(uniform) * masses.iter().sum::<f64>();
    let (mut running, mut chosen) = (0.0, 0);
    for (index, &mass) in masses.iter().enumerate() {
        if mass > 0.0 {
            chosen = index;
            if running + mass > target {
                break;
            }
            running += mass;
        }
    }
    let block = row.block(chosen, &mut scratch).iter().enumerate();
    let weights =
        block.map(|(at, &logit)| ((chosen * BLOCK + at) as TokenId, f64::from(exp((logit - max) * scale))));
    pick(weights, running, target)
}
