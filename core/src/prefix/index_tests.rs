//! The index against the obvious one: a list of holders and their tokens.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::nodes::common;
use super::{Among, HolderId, Match, PrefixIndex};
use crate::text::TokenId;

/// What the index is to agree with.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<ModelEntry>,
    clock: u64,
}

#[derive(Debug, Clone)]
struct ModelEntry {
    holder: HolderId,
    tokens: Vec<TokenId>,
    used: u64,
}

impl Model {
    fn entry(&mut self, holder: HolderId) -> &mut ModelEntry {
        self.clock += 1;
        let place = self.entries.iter().position(|entry| entry.holder == holder).unwrap_or_else(|| {
            self.entries.push(ModelEntry { holder, tokens: Vec::new(), used: 0 });
            self.entries.len() - 1
        });
        self.entries[place].used = self.clock;
        &mut self.entries[place]
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Insert(holder, tokens) => self.entry(*holder).tokens = tokens.clone(),
            Op::Extend(holder, tokens) => self.entry(*holder).tokens.extend(tokens),
            Op::Truncate(holder, n) => {
                let entry = self.entries.iter_mut().find(|entry| entry.holder == *holder);
                entry.into_iter().for_each(|entry| entry.tokens.truncate(*n));
            }
            Op::Remove(holder) => self.entries.retain(|entry| entry.holder != *holder),
            Op::Touch(holder) => {
                if self.entries.iter().any(|entry| entry.holder == *holder) {
                    self.entry(*holder);
                }
            }
        }
    }

    fn longest(&self, query: &[TokenId], filter: impl Fn(HolderId) -> bool) -> Option<Match> {
        let candidates = self.entries.iter().filter(|entry| filter(entry.holder)).map(|entry| Match {
            holder: entry.holder,
            n_tokens: common(&entry.tokens, query),
            n_holder_tokens: entry.tokens.len(),
        });
        let rank = |found: &Match| (usize::MAX - found.n_tokens, found.n_holder_tokens, found.holder);
        candidates.filter(|found| found.n_tokens > 0).min_by_key(rank)
    }

    fn longest_whole(&self, query: &[TokenId], filter: impl Fn(HolderId) -> bool) -> Option<Match> {
        self.longest(query, |holder| {
            let entry = self.entries.iter().find(|entry| entry.holder == holder).expect("asked of entries");
            query.starts_with(&entry.tokens) && filter(holder)
        })
    }

    fn covered(&self, this: &ModelEntry) -> bool {
        self.entries.iter().any(|other| {
            other.holder != this.holder
                && other.tokens.starts_with(&this.tokens)
                && (other.tokens.len() > this.tokens.len() || other.used > this.used)
        })
    }

    fn n_exclusive(&self, this: &ModelEntry) -> usize {
        let others = self.entries.iter().filter(|other| other.holder != this.holder);
        this.tokens.len() - others.map(|other| common(&other.tokens, &this.tokens)).max().unwrap_or(0)
    }

    fn least_recent(&self, among: Among, filter: impl Fn(HolderId) -> bool) -> Option<HolderId> {
        let eligible = |entry: &&ModelEntry| match among {
            Among::Leaves => !self.covered(entry),
            Among::Covered => self.covered(entry),
            Among::All => true,
        };
        let accepted = self.entries.iter().filter(|entry| filter(entry.holder)).filter(eligible);
        accepted.min_by_key(|entry| entry.used).map(|entry| entry.holder)
    }

    fn n_distinct_tokens(&self) -> usize {
        let prefixes = |entry: &'_ ModelEntry| {
            (1..=entry.tokens.len()).map(|n| entry.tokens[..n].to_vec()).collect::<Vec<_>>()
        };
        self.entries.iter().flat_map(prefixes).collect::<BTreeSet<_>>().len()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(HolderId, Vec<TokenId>),
    Extend(HolderId, Vec<TokenId>),
    Truncate(HolderId, usize),
    Remove(HolderId),
    Touch(HolderId),
}

fn apply(index: &mut PrefixIndex, op: &Op) {
    match op {
        Op::Insert(holder, tokens) => index.insert(*holder, tokens),
        Op::Extend(holder, tokens) => index.extend(*holder, tokens),
        Op::Truncate(holder, n) => index.truncate(*holder, *n),
        Op::Remove(holder) => index.remove(*holder),
        Op::Touch(holder) => index.touch(*holder),
    }
}

fn holders() -> impl Strategy<Value = HolderId> {
    (0..6_u32).prop_map(HolderId)
}

/// Few different tokens, so that sequences meet and part often.
fn tokens(most: usize) -> impl Strategy<Value = Vec<TokenId>> {
    prop::collection::vec(prop_oneof![3 => Just(1), 1 => Just(2), 1 => Just(700)], 0..=most)
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (holders(), tokens(10)).prop_map(|(holder, tokens)| Op::Insert(holder, tokens)),
        4 => (holders(), tokens(3)).prop_map(|(holder, tokens)| Op::Extend(holder, tokens)),
        2 => (holders(), 0..10_usize).prop_map(|(holder, n)| Op::Truncate(holder, n)),
        2 => holders().prop_map(Op::Remove),
        1 => holders().prop_map(Op::Touch),
    ]
}

fn assert_equal(index: &PrefixIndex, model: &Model, query: &[TokenId], mask: u32) {
    index.check();
    let accept = |holder: HolderId| mask >> holder.0 & 1 == 1;
    assert_eq!(index.longest(query, accept), model.longest(query, accept), "longest");
    assert_eq!(index.longest_whole(query, accept), model.longest_whole(query, accept), "longest_whole");
    for among in [Among::Leaves, Among::Covered, Among::All] {
        assert_eq!(index.least_recent(among, accept), model.least_recent(among, accept), "{among:?}");
    }
    assert_eq!(index.n_distinct_tokens(), model.n_distinct_tokens());
    assert_eq!(index.n_holders(), model.entries.len());
    let prefixes: BTreeSet<HolderId> = index.prefixes_of(query).into_iter().collect();
    let expected = model.entries.iter().filter(|entry| query.starts_with(&entry.tokens));
    assert_eq!(prefixes, expected.map(|entry| entry.holder).collect(), "prefixes_of");
    for entry in &model.entries {
        assert!(index.contains(entry.holder));
        assert_eq!(index.tokens(entry.holder), entry.tokens);
        assert_eq!(index.n_tokens_of(entry.holder), entry.tokens.len());
        assert_eq!(index.covered(entry.holder), model.covered(entry), "covered {entry:?}");
        assert_eq!(index.n_exclusive(entry.holder), model.n_exclusive(entry), "exclusive {entry:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_a_list(steps in prop::collection::vec((ops(), tokens(12), 0..64_u32), 1..60)) {
        let (mut index, mut model) = (PrefixIndex::new(), Model::default());
        for (op, query, mask) in steps {
            apply(&mut index, &op);
            model.apply(&op);
            assert_equal(&index, &model, &query, mask);
        }
    }

    #[test]
    fn nothing_is_left_when_all_have_gone(steps in prop::collection::vec(ops(), 1..60)) {
        let mut index = PrefixIndex::new();
        for op in &steps {
            apply(&mut index, op);
        }
        for holder in index.holders().collect::<Vec<_>>() {
            index.remove(holder);
        }
        prop_assert_eq!(index.n_distinct_tokens(), 0);
        prop_assert_eq!(index.memory_bytes(), PrefixIndex::new().memory_bytes());
    }
}

/// `n` tokens that differ from those of another `seed` from the first one on.
fn sequence(seed: u32, n: u32) -> Vec<TokenId> {
    (0..n).map(|i| seed.wrapping_mul(7919).wrapping_add(i * 31)).collect()
}

#[test]
fn a_shared_prefix_is_stored_once() {
    let mut index = PrefixIndex::new();
    let system = sequence(1, 10_000);
    for holder in 0..200 {
        index.insert(HolderId(holder), &system);
        index.extend(HolderId(holder), &sequence(holder + 2, 100));
    }
    assert_eq!(index.n_distinct_tokens(), 10_000 + 200 * 100);
    assert!(index.memory_bytes() < 4 * 4 * index.n_distinct_tokens(), "{}", index.memory_bytes());
    for holder in 1..200 {
        index.remove(HolderId(holder));
    }
    index.check();
    assert_eq!(index.n_distinct_tokens(), 10_100);
    assert!(index.memory_bytes() < 150_000, "{}", index.memory_bytes());
}

#[test]
fn a_long_end_that_is_cut_off_gives_its_memory_back() {
    let mut index = PrefixIndex::new();
    for token in sequence(1, 100_000) {
        index.extend(HolderId(0), &[token]);
    }
    index.insert(HolderId(1), &sequence(2, 10));
    index.truncate(HolderId(0), 10);
    assert!(index.memory_bytes() < 4096, "{}", index.memory_bytes());
}

#[test]
fn running_along_another_sequence_makes_no_nodes() {
    let mut index = PrefixIndex::new();
    let tokens = sequence(1, 5000);
    index.insert(HolderId(0), &tokens);
    let before = index.memory_bytes();
    for &token in &tokens {
        index.extend(HolderId(1), &[token]);
    }
    assert!(index.memory_bytes() < before + 256);
    assert_eq!(index.n_distinct_tokens(), 5000);
    assert!(index.covered(HolderId(0)), "the other one was used later");
    assert!(!index.covered(HolderId(1)));
}

#[test]
fn the_match_that_can_be_used_up_is_preferred() {
    let mut index = PrefixIndex::new();
    index.insert(HolderId(0), &[1, 2, 3, 4, 5]);
    index.insert(HolderId(1), &[1, 2, 3]);
    index.insert(HolderId(2), &[1, 2, 3, 9]);
    let found = index.longest(&[1, 2, 3, 7], |_| true).expect("three tokens");
    assert_eq!((found.holder, found.n_tokens, found.is_whole()), (HolderId(1), 3, true));
    let found = index.longest(&[1, 2, 3, 7], |holder| holder != HolderId(1)).expect("three tokens");
    assert_eq!((found.holder, found.n_tokens, found.is_whole()), (HolderId(2), 3, false));
    // More tokens win over a whole match.
    let found = index.longest(&[1, 2, 3, 4, 7], |_| true).expect("four tokens");
    assert_eq!((found.holder, found.n_tokens, found.n_holder_tokens), (HolderId(0), 4, 5));
    assert_eq!(index.longest(&[2], |_| true), None);
    assert_eq!(index.longest(&[], |_| true), None);
    assert_eq!(index.longest(&[1], |_| false), None);
}

#[test]
fn leaves_go_first_and_the_used_prefix_stays() {
    let mut index = PrefixIndex::new();
    index.insert(HolderId(0), &[1, 2]);
    index.insert(HolderId(1), &[1, 2, 3, 4]);
    index.insert(HolderId(2), &[9]);
    // The oldest, but it costs nothing.
    assert_eq!(index.least_recent(Among::All, |_| true), Some(HolderId(0)));
    assert_eq!(index.least_recent(Among::Covered, |_| true), Some(HolderId(0)));
    assert_eq!(index.least_recent(Among::Leaves, |_| true), Some(HolderId(1)));
    assert_eq!(index.n_exclusive(HolderId(1)), 2);
    index.touch(HolderId(0));
    index.remove(HolderId(1));
    // A leaf now, and used after the other one.
    assert_eq!(index.least_recent(Among::Leaves, |_| true), Some(HolderId(2)));
}

#[test]
fn unknown_holders_are_nothing() {
    let mut index = PrefixIndex::new();
    let nobody = HolderId(7);
    index.remove(nobody);
    index.truncate(nobody, 0);
    index.touch(nobody);
    assert!(!index.covered(nobody) && !index.contains(nobody));
    assert_eq!((index.n_tokens_of(nobody), index.n_exclusive(nobody)), (0, 0));
    assert_eq!((index.tokens(nobody), index.n_holders()), (Vec::new(), 0));
    assert_eq!(index.least_recent(Among::All, |_| true), None);
}
