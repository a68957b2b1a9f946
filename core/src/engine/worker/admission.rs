//! Who gets a sequence, and how much of its prompt is there already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::generation::FromHost;
use super::super::prefixes::{Kept, MIN_FROM_HOST};
use super::super::scheduler::{Start, Ticket};
use super::{Message, ModelWorker};
use crate::prefix::FetchError;
use crate::runner::{ModelRunner, SeqId, SequenceSnapshot};
use crate::text::TokenId;

/// Tokens in common below which two requests have nothing to do with each other.
const MIN_COMMON: u32 = 16;
/// Tokens that waiting for a prompt in progress must save beyond what is at hand.
const MIN_FROM_LEADER: u32 = 32;

/// Most tokens of a prompt that are scored in one step: a row of logits comes back for each.
const SCORED_CHUNK: u32 = 128;

/// The best beginning for a request.
enum Beginning {
    Nothing,
    Kept(Kept),
    /// A running sequence has evaluated this much of it.
    Running {
        source: SeqId,
        n_tokens: u32,
    },
    /// A running sequence is about to.
    Soon {
        leader: SeqId,
        n_tokens: u32,
    },
    Host {
        snapshot: Arc<SequenceSnapshot>,
        n_tokens: u32,
    },
    /// The host tier is reading it.
    OnItsWay,
}

impl<R: ModelRunner> ModelWorker<R> {
    /// Gives sequences to waiting requests, in order of their turn, as long as cells last.
    pub(super) fn admit(&mut self) {
        while let Some(ticket) = self.scheduler.next() {
            let beginning = self.beginning_of(ticket.key);
            if matches!(beginning, Beginning::OnItsWay) {
                self.scheduler.set_held(ticket.key, true);
                continue;
            }
            match self.make_room_for(&ticket, &beginning) {
                Room::Made => self.place(&ticket, beginning),
                Room::Again => {}
                Room::None => return,
            }
        }
    }

    fn beginning_of(&mut self, key: u64) -> Beginning {
        let generation = self.waiting.get(&key).expect("every ticket has its generation");
        if !self.prefixes.enabled() || !generation.may_share() {
            return Beginning::Nothing;
        }
        // The last token is always evaluated: its logits are what is asked for.
        let tokens = &generation.tokens()[..generation.tokens().len() - 1];
        let (at_hand, best) = self.at_hand(tokens);
        if let Some((leader, n_tokens)) = self.leader_for(tokens)
            && n_tokens >= best + MIN_FROM_LEADER
        {
            return Beginning::Soon { leader, n_tokens };
        }
        self.on_the_host(key, best + MIN_FROM_HOST).unwrap_or(at_hand)
    }

    /// The longest beginning that the engine's cache has already, and its length.
    fn at_hand(&self, tokens: &[TokenId]) -> (Beginning, u32) {
        let kept = self.prefixes.longest(tokens).filter(|kept| kept.n_tokens >= MIN_COMMON);
        let mut best = kept.map_or((Beginning::Nothing, 0), |kept| (Beginning::Kept(kept), kept.n_tokens));
        for (source, other) in self.sharing() {
            let n_tokens = common(tokens, other).min(self.scheduler.n_evaluated(source));
            if n_tokens > best.1 && n_tokens >= MIN_COMMON {
                best = (Beginning::Running { source, n_tokens }, n_tokens);
            }
        }
        best
    }

    /// The prompt in progress that has most in common with these tokens.
    fn leader_for(&self, tokens: &[TokenId]) -> Option<(SeqId, u32)> {
        (self.sharing())
            .filter(|(seq, _)| self.scheduler.is_prefilling(*seq))
            .map(|(seq, other)| (seq, common(tokens, other)))
            .max_by_key(|(_, n_tokens)| *n_tokens)
    }

    /// Running sequences that others may share, with their tokens.
    fn sharing(&self) -> impl Iterator<Item = (SeqId, &[TokenId])> {
        self.running.iter().enumerate().filter_map(|(index, generation)| {
            let generation = generation.as_ref().filter(|generation| generation.may_share())?;
            Some((SeqId(index as u32), generation.tokens()))
        })
    }

    /// What the host tier has of a waiting request, if it is at least `min_tokens`; asks for it the first time.
    fn on_the_host(&mut self, key: u64, min_tokens: u32) -> Option<Beginning> {
        let generation = self.waiting.get_mut(&key)?;
        match &generation.from_host {
            FromHost::OnItsWay(_) => return Some(Beginning::OnItsWay),
            FromHost::Here(snapshot, n_tokens) if *n_tokens >= min_tokens => {
                return Some(Beginning::Host { snapshot: snapshot.clone(), n_tokens: *n_tokens });
            }
            // What is at hand has become as good meanwhile.
            FromHost::Here(..) | FromHost::Nothing => {
                generation.from_host = FromHost::Nothing;
                return None;
            }
            FromHost::Unasked => {}
        }
        let tier = self.prefixes.tier()?;
        let tokens = &generation.tokens()[..generation.tokens().len() - 1];
        let Some(found) = tier.longest(tokens).filter(|found| found.n_tokens >= min_tokens as usize) else {
            generation.from_host = FromHost::Nothing;
            return None;
        };
        generation.from_host = FromHost::OnItsWay(found.n_tokens as u32);
        let post = self.post.clone();
        tier.fetch(found.entry, move |result| post(Message::Fetched(key, result)));
        Some(Beginning::OnItsWay)
    }

    /// The host tier's answer.
    pub(super) fn fetched(&mut self, key: u64, result: Result<Arc<SequenceSnapshot>, FetchError>) {
        let Some(generation) = self.waiting.get_mut(&key) else { return };
        let FromHost::OnItsWay(n_tokens) = generation.from_host else { return };
        generation.from_host = match result {
            Ok(snapshot) => FromHost::Here(snapshot, n_tokens),
            Err(error) => {
                tracing::debug!(%error, "a prefix did not come back from the host tier");
                FromHost::Nothing
            }
        };
        self.scheduler.set_held(key, false);
    }

    /// Drops kept prefixes until the request fits, if that can help.
    fn make_room_for(&mut self, ticket: &Ticket, beginning: &Beginning) -> Room {
        let n_there = self.n_cells_there(beginning);
        let runner = self.runner.as_mut().expect("as in runner()");
        if self.scheduler.fits(ticket, n_there, runner.n_cells_used()) {
            return Room::Made;
        }
        if !self.scheduler.could_fit(ticket, n_there) {
            return Room::None;
        }
        let except = match beginning {
            Beginning::Kept(kept) => Some(kept.holder),
            _ => None,
        };
        while self.prefixes.evict(runner, except) {
            if self.scheduler.fits(ticket, n_there, runner.n_cells_used()) {
                return Room::Made;
            }
        }
        // Its own beginning is in the way of the rest.
        if self.prefixes.evict(runner, None) { Room::Again } else { Room::None }
    }

    /// Tokens of the beginning whose cells are taken already and need not be taken again.
    fn n_cells_there(&self, beginning: &Beginning) -> u32 {
        let shares = self.prefixes.shares_cells();
        match *beginning {
            Beginning::Kept(kept) if shares || self.prefixes.would_move(kept) => kept.n_tokens,
            Beginning::Running { n_tokens, .. } | Beginning::Soon { n_tokens, .. } if shares => n_tokens,
            _ => 0,
        }
    }

    /// Gives the request its sequence and its beginning.
    fn place(&mut self, ticket: &Ticket, beginning: Beginning) {
        let start = match beginning {
            Beginning::Soon { leader, n_tokens } => Start::Behind { leader, n_tokens },
            _ => Start::Here,
        };
        let Some(seq) = self.scheduler.admit(ticket.key, start) else { return };
        let mut generation = self.waiting.remove(&ticket.key).expect("as in beginning_of");
        self.leave_queue();
        generation.admitted(Instant::now());
        generation.from_host = FromHost::Unasked;
        if generation.may_share() {
            self.shared.n_prefix_queried.fetch_add(u64::from(ticket.n_prompt), Ordering::Relaxed);
        }
        if generation.is_scored() {
            self.scheduler.limit_chunks(seq, SCORED_CHUNK);
        }
        self.running[seq.0 as usize] = Some(generation);
        let runner = self.runner.as_mut().expect("as in runner()");
        let n_cached = match beginning {
            Beginning::Nothing | Beginning::Soon { .. } | Beginning::OnItsWay => return,
            Beginning::Kept(kept) => match self.prefixes.attach(runner, kept, seq) {
                Ok(()) => kept.n_tokens,
                Err(error) => no_fork(&error),
            },
            Beginning::Running { source, n_tokens } => match runner.fork(source, seq, n_tokens) {
                Ok(()) => n_tokens,
                Err(error) => no_fork(&error),
            },
            Beginning::Host { snapshot, n_tokens } => {
                match self.prefixes.restore(runner, seq, &snapshot, n_tokens) {
                    true => n_tokens,
                    false => 0,
                }
            }
        };
        self.begin_at(seq, n_cached);
    }

    /// The sequence has its first `n_cached` tokens and evaluates the rest itself.
    fn begin_at(&mut self, seq: SeqId, n_cached: u32) {
        let n_shared = if self.prefixes.shares_cells() { n_cached } else { 0 };
        self.scheduler.begin_at(seq, n_cached, n_shared);
        if let Some(generation) = self.running[seq.0 as usize].as_mut() {
            generation.found(n_cached);
            self.shared.n_prefix_hits.fetch_add(u64::from(n_cached), Ordering::Relaxed);
        }
    }

    /// Forks to those who waited for another's prompt and now have what they waited for.
    pub(super) fn serve_followers(&mut self) {
        let mut ready = std::mem::take(&mut self.catch_ups);
        self.scheduler.ready_followers(&mut ready);
        for catch_up in ready.drain(..) {
            self.catch_up(catch_up.leader, catch_up.follower, catch_up.n_tokens);
        }
        self.catch_ups = ready;
    }

    /// A sequence is about to go: one of those who wait for it takes what there is and leads the others.
    pub(super) fn hand_over_to_followers(&mut self, seq: SeqId) {
        if let Some(heir) = self.scheduler.succeed(seq) {
            self.catch_up(seq, heir.follower, heir.n_tokens);
        }
    }

    fn catch_up(&mut self, from: SeqId, to: SeqId, n_tokens: u32) {
        let n_cached = match n_tokens < MIN_COMMON {
            true => 0,
            false => match self.runner().fork(from, to, n_tokens) {
                Ok(()) => n_tokens,
                Err(error) => no_fork(&error),
            },
        };
        self.begin_at(to, n_cached);
    }

    /// Takes a sequence's cells and puts its request back into the queue, to go on later as if nothing had happened.
    pub(super) fn preempt(&mut self, seq: SeqId) {
        self.hand_over_to_followers(seq);
        let Some(mut generation) = self.running[seq.0 as usize].take() else { return };
        let runner = self.runner.as_mut().expect("as in runner()");
        if generation.may_share() {
            let n = (runner.sequence_len(seq) as usize).min(generation.tokens().len());
            self.prefixes.to_host(runner, seq, &generation.tokens()[..n]);
        }
        runner.release(seq);
        generation.preempted();
        let n_prompt = generation.tokens().len() as u32;
        let Some(key) = self.scheduler.preempt(seq, n_prompt, generation.n_left()) else { return };
        self.scheduler.set_held(key, generation.is_parked());
        self.shared.n_waiting.fetch_add(1, Ordering::AcqRel);
        self.shared.n_preempted.fetch_add(1, Ordering::Relaxed);
        self.waiting.insert(key, generation);
    }
}

/// What came of looking for cells.
enum Room {
    Made,
    /// Something changed: look again.
    Again,
    None,
}

fn no_fork(error: &crate::error::BackendError) -> u32 {
    tracing::debug!(error = %error.chain(), "a prefix could not be shared");
    0
}

/// Tokens that both begin with.
fn common(a: &[TokenId], b: &[TokenId]) -> u32 {
    a.iter().zip(b).take_while(|(a, b)| a == b).count() as u32
}
