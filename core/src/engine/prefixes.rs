//! Prefixes that outlive their requests: in the engine's KV cache under holder ids, then in the host tier.
//!
//! What a request has computed stays under a holder's id when it ends, as long as cells and ids last; the least recently
//! used prefix goes first, to the host tier where there is one. A new request begins at the longest prefix that anybody
//! has, kept or still running; at least its last token is always evaluated.

use std::time::{Duration, Instant};

use crate::backend::PrefixCacheSpec;
use crate::error::BackendError;
use crate::prefix::{Among, HolderId, HostTier, ModelKey, PrefixIndex, Put, Reuse};
use crate::runner::{Capabilities, ModelRunner, SeqId};
use crate::text::TokenId;

/// Tokens below which a prefix is not worth an id.
const MIN_KEPT: u32 = 16;
/// Tokens that a prefix from the host must save beyond what is at hand, to be worth its copy.
pub(super) const MIN_FROM_HOST: u32 = 64;

/// Tokens kept in cells that all sequences share, beside the newest prefix: attention looks at every cell there is, if only
/// to skip it (three prefixes of 4,000 tokens doubled the time of a step of the demo model on two cores).
const MAX_KEPT_IN_SHARED_CELLS: usize = 4096;

/// A prefix in the engine's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) holder: SeqId,
    /// Tokens in common.
    pub(super) n_tokens: u32,
}

/// All that is kept of one model.
pub(super) struct Prefixes {
    enabled: bool,
    index: PrefixIndex,
    /// Ids that hold nothing, lowest last.
    free: Vec<SeqId>,
    tier: Option<HostTier>,
    /// A fork's cells are its source's.
    shares_cells: bool,
    /// The engine keeps nothing itself.
    has_no_holders: bool,
    /// The tier outlives the process.
    on_disk: bool,
    can_snapshot: bool,
    can_truncate: bool,
}

impl Prefixes {
    /// For a runner with these capabilities. A host tier that cannot be opened is left out, with a warning.
    pub(super) fn new(spec: &PrefixCacheSpec, key: ModelKey, capabilities: &Capabilities) -> Self {
        let n = capabilities.max_sequences;
        let enabled = spec.enabled && capabilities.fork;
        let reuse = if capabilities.truncate { Reuse::AnyPrefix } else { Reuse::WholeOnly };
        let wants_tier =
            spec.enabled && capabilities.snapshot && (spec.host_bytes > 0 || spec.disk.is_some());
        Self {
            enabled,
            index: PrefixIndex::default(),
            free: (n..n + capabilities.n_holders).rev().map(SeqId).collect(),
            tier: wants_tier.then(|| HostTier::open(spec, key, reuse)),
            shares_cells: capabilities.fork_shares_cells,
            has_no_holders: capabilities.n_holders == 0,
            on_disk: spec.disk.is_some(),
            can_snapshot: capabilities.snapshot,
            can_truncate: capabilities.truncate,
        }
    }

    /// Whether running sequences may be forked.
    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether a fork's cells count once.
    pub(super) fn shares_cells(&self) -> bool {
        self.shares_cells
    }

    pub(super) fn tier(&self) -> Option<&HostTier> {
        self.tier.as_ref()
    }

    /// The longest kept prefix of `tokens`.
    pub(super) fn longest(&self, tokens: &[TokenId]) -> Option<Kept> {
        let found = self.index.longest(tokens, |_| true)?;
        Some(Kept { holder: SeqId(found.holder.0), n_tokens: found.n_tokens as u32 })
    }

    /// Whether attaching the prefix moves it: forks copy here, and nothing of it would be left over.
    pub(super) fn would_move(&self, kept: Kept) -> bool {
        !self.shares_cells && self.index.n_tokens_of(HolderId(kept.holder.0)) == kept.n_tokens as usize
    }

    /// Gives the kept prefix to a new sequence, by a move where [`Prefixes::would_move`].
    pub(super) fn attach(
        &mut self,
        runner: &mut dyn ModelRunner,
        kept: Kept,
        to: SeqId,
    ) -> Result<(), BackendError> {
        runner.fork(kept.holder, to, kept.n_tokens)?;
        if self.would_move(kept) {
            self.forget(runner, kept.holder);
        } else {
            self.index.touch(HolderId(kept.holder.0));
        }
        Ok(())
    }

    /// Takes over the cells of a sequence that ended after these tokens, and releases it. An engine without ids to keep
    /// prefixes under keeps them in the host tier at once.
    pub(super) fn keep(&mut self, runner: &mut dyn ModelRunner, seq: SeqId, mut tokens: Vec<TokenId>) {
        tokens.truncate(runner.sequence_len(seq) as usize);
        if self.has_no_holders && self.enabled {
            self.to_host(runner, seq, &tokens);
            runner.release(seq);
            return;
        }
        if self.is_worth_keeping(&tokens)
            && let Some(holder) = self.free_holder(runner)
        {
            match runner.fork(seq, holder, tokens.len() as u32) {
                Ok(()) => {
                    self.index.insert(HolderId(holder.0), &tokens);
                    runner.release(seq);
                    self.drop_covered(runner);
                    self.thin_out(runner, holder);
                    return;
                }
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "a prefix could not be kept");
                    self.free.push(holder);
                }
            }
        }
        runner.release(seq);
    }

    fn is_worth_keeping(&mut self, tokens: &[TokenId]) -> bool {
        if !self.enabled || (tokens.len() as u32) < MIN_KEPT {
            return false;
        }
        match self.index.longest(tokens, |_| true) {
            Some(found) if found.n_tokens == tokens.len() => {
                self.index.touch(found.holder);
                false
            }
            _ => true,
        }
    }

    fn free_holder(&mut self, runner: &mut dyn ModelRunner) -> Option<SeqId> {
        if self.free.is_empty() {
            self.evict(runner, None);
        }
        self.free.pop()
    }

    /// Prefixes that a longer one has made superfluous.
    fn drop_covered(&mut self, runner: &mut dyn ModelRunner) {
        let covered: Vec<HolderId> =
            self.index.holders().filter(|holder| self.index.covered(*holder)).collect();
        for holder in covered {
            self.forget(runner, SeqId(holder.0));
        }
    }

    /// Sends the least recently used prefixes but the newest to the host tier while they tax every step.
    fn thin_out(&mut self, runner: &mut dyn ModelRunner, newest: SeqId) {
        while self.shares_cells
            && self.index.n_distinct_tokens()
                > MAX_KEPT_IN_SHARED_CELLS + self.index.n_tokens_of(HolderId(newest.0))
            && self.evict(runner, Some(newest))
        {}
    }

    fn forget(&mut self, runner: &mut dyn ModelRunner, holder: SeqId) {
        runner.release(holder);
        self.index.remove(HolderId(holder.0));
        self.free.push(holder);
    }

    /// Frees the least recently used prefix but `except`, after a copy to the host tier. `false`: there is none.
    pub(super) fn evict(&mut self, runner: &mut dyn ModelRunner, except: Option<SeqId>) -> bool {
        let except = except.map(|holder| HolderId(holder.0));
        let Some(victim) = self.index.least_recent(Among::Leaves, |holder| Some(holder) != except) else {
            return false;
        };
        self.save(runner, victim);
        self.forget(runner, SeqId(victim.0));
        true
    }

    fn save(&self, runner: &mut dyn ModelRunner, holder: HolderId) -> bool {
        self.tier.is_none() || self.to_host(runner, SeqId(holder.0), &self.index.tokens(holder))
    }

    /// Copies a sequence of these tokens to the host tier, unless it has them. `false`: the tier has no room at once.
    pub(super) fn to_host(&self, runner: &mut dyn ModelRunner, seq: SeqId, tokens: &[TokenId]) -> bool {
        let Some(tier) = self.tier.as_ref() else { return true };
        if tokens.len() < MIN_FROM_HOST as usize || tier.covers(tokens) {
            return true;
        }
        match runner.snapshot(seq) {
            Ok(snapshot) if snapshot.n_tokens as usize == tokens.len() => {
                return tier.put(tokens, snapshot) != Put::Refused;
            }
            Ok(_) => tracing::debug!("a sequence's snapshot is not of its tokens"),
            Err(error) => tracing::debug!(error = %error.chain(), "a prefix could not be saved"),
        }
        true
    }

    /// Puts `n_tokens` of a snapshot into an unused sequence. `false`: it did not work, and the sequence is unused.
    pub(super) fn restore(
        &self,
        runner: &mut dyn ModelRunner,
        seq: SeqId,
        snapshot: &crate::runner::SequenceSnapshot,
        n_tokens: u32,
    ) -> bool {
        if !self.can_snapshot || (snapshot.n_tokens > n_tokens && !self.can_truncate) {
            return false;
        }
        let restored = runner.restore(seq, snapshot).and_then(|()| runner.truncate(seq, n_tokens));
        match restored {
            Ok(true) => true,
            Ok(false) => {
                runner.release(seq);
                false
            }
            Err(error) => {
                tracing::debug!(error = %error.chain(), "a prefix from the host was no use");
                runner.release(seq);
                false
            }
        }
    }

    /// Saves everything that is kept for the next process, the last used first, until the time is over, and closes the host
    /// tier. Where nothing outlives the process there is nothing to do.
    pub(super) fn persist(&mut self, runner: &mut dyn ModelRunner, timeout: Duration) {
        if !self.on_disk || self.tier.is_none() {
            return;
        }
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        for holder in self.index.by_last_use().into_iter().rev() {
            // What is on its way to the disk makes room when it is there.
            if !self.save(runner, holder)
                && let Some(tier) = self.tier.as_ref()
            {
                tier.flush(left());
                self.save(runner, holder);
            }
            if left().is_zero() {
                break;
            }
        }
        let flushed = self.tier.take().map(|tier| tier.close(left()));
        if let Some(n) = flushed.map(|flushed| flushed.n_unsaved).filter(|n| *n > 0) {
            tracing::warn!(n, "prefixes were not saved: no time or no room");
        }
    }

    /// Forgets what the engine's cache holds; the host tier stays.
    pub(super) fn clear(&mut self, runner: &mut dyn ModelRunner) {
        let holders: Vec<HolderId> = self.index.holders().collect();
        for holder in holders {
            self.forget(runner, SeqId(holder.0));
        }
    }
}
