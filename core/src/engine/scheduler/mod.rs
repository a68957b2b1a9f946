//! Which rows go into the next step, and who gets cells. Pure: no tensors, no clock, no channels; everything it knows it
//! was told.
//!
//! * **Order.** The shortest first, by prompt tokens left; each token of work that the engine did for others since a
//!   request arrived counts for it like one token less. So nobody waits for more than about its own length's worth of
//!   others' work, and short requests hardly wait at all. A batch request starts with a handicap.
//! * **Admission.** A request gets a sequence when its projected cells fit: its prompt, and of its answer at most
//!   [`ANSWER_RESERVE`] tokens ahead, beside the same of all that run. Nobody overtakes the one whose turn it is, or a
//!   large request would never find room. Streams that outgrow their reserve take what is free; when nothing is, the
//!   caller drops kept prefixes, then preempts the [`Scheduler::victim`].
//! * **A step.** Decode rows first. Prompt chunks take the rest of the step's token budget, but beside streams that ran
//!   before it was admitted they take only what [`Pace`] grants. Of
//!   requests that come together the first to stream has no claim on the others' prompts: they would all be slower for it.
//! * **Followers.** A request whose prompt begins like one that is being read waits for that instead of reading it too.
//!
//! A sequence's life here: waiting → (following →) prefilling → decoding → draining (its last step may still be in
//! flight) → gone; preempted, it waits again.

mod cost;
mod pace;
#[cfg(test)]
mod tests;
mod waiting;

pub use cost::{CostModel, StepLoad};
use pace::Pace;
use waiting::WaitingRoom;

use crate::request::Priority;
use crate::runner::{SeqId, StepId};

/// Cells kept free ahead of each running stream, in tokens of its answer.
pub const ANSWER_RESERVE: u32 = 256;
/// Tokens of others' work that a batch request has to sit out on top of the rest.
pub const BATCH_HANDICAP: u32 = 16_384;

/// A request without a sequence. The key is the caller's and comes back on admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The caller's name for the request.
    pub key: u64,
    /// Tokens to evaluate before the next one can be sampled: the prompt, and after a preemption the answer so far; at
    /// least 1.
    pub n_prompt: u32,
    /// Most new tokens from here on.
    pub max_tokens: u32,
    /// How urgent it is.
    pub priority: Priority,
}

impl Ticket {
    /// KV cells the request can take at most: the last token is sampled and never evaluated.
    pub fn n_cells(&self) -> u32 {
        self.n_prompt.saturating_add(self.max_tokens).saturating_sub(1)
    }
}

/// Where an admitted request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once, from nothing or from what [`Scheduler::begin_at`] says.
    Here,
    /// It waits until another sequence has evaluated so many tokens that both begin with.
    Behind {
        /// The other sequence.
        leader: SeqId,
        /// Tokens in common; fewer than the prompt.
        n_tokens: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for `leader` to have evaluated `n_tokens`.
    Follow {
        leader: SeqId,
        n_tokens: u32,
    },
    Prefill,
    /// `awaiting`: the token to evaluate next is not known to the host yet.
    Decode {
        awaiting: bool,
    },
    /// Out of the batch until `resume` (its reader does not keep up).
    Parked {
        awaiting: bool,
    },
    Draining {
        until: Option<StepId>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    ticket: Ticket,
    phase: Phase,
    /// Tokens of the sequence submitted so far, in flight included.
    n_submitted: u32,
    /// Of these, tokens whose step was collected.
    n_evaluated: u32,
    /// Tokens at its beginning whose cells others hold too.
    n_shared: u32,
    /// New tokens sampled or being sampled.
    n_generated: u32,
    /// The newest step with a row of this sequence.
    last_step: Option<StepId>,
    /// The engine's work when the request arrived.
    arrived: u64,
    /// The engine's work when it got its sequence.
    began: u64,
    /// The engine's work when its first token was on its way.
    streams_since: Option<u64>,
    /// Order of admission.
    admitted: u64,
    /// Most tokens of its prompt in one step.
    max_chunk: u32,
}

impl Slot {
    /// Cells it may still take before it has to ask again, when `reserve` are kept free ahead of it.
    fn growth(&self, reserve: u32) -> u32 {
        if matches!(self.phase, Phase::Draining { .. }) {
            return 0;
        }
        let n_left = self.ticket.n_cells().saturating_sub(self.n_submitted);
        let n_prompt_left = self.ticket.n_prompt.saturating_sub(self.n_submitted);
        n_left.min(n_prompt_left.saturating_add(reserve))
    }
}

/// One row of a planned step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRow {
    /// The sequence.
    pub seq: SeqId,
    /// Position of the row's first token.
    pub position: u32,
    /// Tokens in the row.
    pub n_tokens: u32,
    /// What kind of row it is.
    pub kind: RowKind,
}

/// What a row evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// Prompt tokens `position..position + n_tokens`; the last chunk yields a token.
    Prefill {
        /// The chunk ends the prompt.
        last: bool,
    },
    /// The newest token; `in_flight` if only the device knows it.
    Decode {
        /// The step before this one samples it.
        in_flight: bool,
    },
}

impl PlannedRow {
    /// Whether a token is sampled after this row.
    pub fn yields_token(&self) -> bool {
        !matches!(self.kind, RowKind::Prefill { last: false })
    }
}

/// What a plan has to keep within.
#[derive(Debug, Clone, Copy)]
pub struct StepLimits {
    /// Most tokens of the step.
    pub max_tokens: u32,
    /// Cells that no sequence holds.
    pub n_cells_free: u32,
    /// Rows may continue a sequence whose newest token is still being sampled on the device.
    pub run_ahead: bool,
}

/// What came of planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// There are rows.
    Step,
    /// Nobody can run.
    Nothing,
    /// Somebody could run if there were cells.
    NoCells,
}

/// A follower whose leader has got far enough: fork the leader to it, then [`Scheduler::caught_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUp {
    /// The sequence that waits.
    pub follower: SeqId,
    /// The one that it waits for.
    pub leader: SeqId,
    /// Evaluated tokens that both begin with.
    pub n_tokens: u32,
}

/// What a scheduler is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SchedulerSettings {
    /// Sequences that can run at once.
    pub max_sequences: u32,
    /// KV cells that they and kept prefixes share.
    pub kv_tokens: u32,
    /// How much slower streams may get, on the whole, while prompts are read beside them; below 1.1 counts as 1.1.
    pub slowdown: f32,
    /// Cells kept free ahead of each running stream, in tokens of its answer; [`ANSWER_RESERVE`] unless there is a reason.
    pub answer_reserve: u32,
}

/// The state of all requests of one model.
#[derive(Debug)]
pub struct Scheduler {
    slots: Vec<Option<Slot>>,
    waiting: WaitingRoom,
    pace: Pace,
    settings: SchedulerSettings,
    n_admitted: u64,
    /// Tokens submitted since the beginning: the clock by which requests age.
    work: u64,
}

impl Scheduler {
    /// A scheduler without requests.
    pub fn new(settings: SchedulerSettings) -> Self {
        Self {
            slots: vec![None; settings.max_sequences as usize],
            waiting: WaitingRoom::default(),
            pace: Pace::new(f64::from(settings.slowdown)),
            settings,
            n_admitted: 0,
            work: 0,
        }
    }

    /// Queues a request. The caller has checked that it can ever fit: `n_cells() ≤ kv_tokens`.
    pub fn enqueue(&mut self, ticket: Ticket) {
        self.waiting.enter(ticket, self.work);
    }

    /// Takes a waiting request out again. `false` if it is not waiting.
    pub fn withdraw(&mut self, key: u64) -> bool {
        self.waiting.leave(key).is_some()
    }

    /// Lets a waiting request be passed over, because something it needs is still on its way, or not any more.
    pub fn set_held(&mut self, key: u64, held: bool) {
        self.waiting.set_held(key, held);
    }

    /// Whose turn it is to be admitted, if a sequence is free.
    pub fn next(&self) -> Option<Ticket> {
        self.slots.iter().any(Option::is_none).then(|| self.waiting.first(self.work))?
    }

    /// Whether the request fits beside all that run, now that `n_cells_used` are taken, kept prefixes included.
    /// `n_shared`: tokens of it whose cells are among those already.
    pub fn fits(&self, ticket: &Ticket, n_shared: u32, n_cells_used: u32) -> bool {
        let wanted = self.projected(ticket).saturating_sub(n_shared);
        let taken = u64::from(n_cells_used) + self.n_cells_promised();
        taken + u64::from(wanted) <= u64::from(self.settings.kv_tokens)
    }

    /// Whether it would fit if no prefix were kept beside the running ones.
    pub fn could_fit(&self, ticket: &Ticket, n_shared: u32) -> bool {
        let running: u64 =
            self.slots.iter().flatten().map(|slot| u64::from(slot.n_submitted - slot.n_shared)).sum();
        let wanted = self.projected(ticket).saturating_sub(n_shared);
        running + self.n_cells_promised() + u64::from(wanted) <= u64::from(self.settings.kv_tokens)
    }

    /// Gives the waiting request the lowest free sequence; `None` if it is not waiting or none is free.
    pub fn admit(&mut self, key: u64, start: Start) -> Option<SeqId> {
        let free = self.slots.iter().position(Option::is_none)?;
        let (ticket, arrived) = self.waiting.leave(key)?;
        let phase = match start {
            Start::Here => Phase::Prefill,
            Start::Behind { leader, n_tokens } => Phase::Follow { leader, n_tokens },
        };
        self.slots[free] = Some(Slot {
            ticket,
            phase,
            n_submitted: 0,
            n_evaluated: 0,
            n_shared: 0,
            n_generated: 0,
            last_step: None,
            arrived,
            began: self.work,
            streams_since: None,
            admitted: self.n_admitted,
            max_chunk: u32::MAX,
        });
        self.n_admitted += 1;
        Some(SeqId(free as u32))
    }

    /// No step takes more than so many tokens of the sequence's prompt.
    pub fn limit_chunks(&mut self, seq: SeqId, max_chunk: u32) {
        if let Some(slot) = self.slots[seq.0 as usize].as_mut() {
            slot.max_chunk = max_chunk.max(1);
        }
    }

    /// Fills `ready` with the followers whose leaders have got far enough.
    pub fn ready_followers(&self, ready: &mut Vec<CatchUp>) {
        ready.clear();
        for (follower, leader, n_tokens) in self.followers() {
            if self.n_evaluated(leader) >= n_tokens {
                ready.push(CatchUp { follower, leader, n_tokens });
            }
        }
    }

    /// A sequence is about to go. Of those who wait for it, the one that has most in common with it is to take what there
    /// is, by a fork now, and the others wait for that one from here on. `None`: nobody waits.
    pub fn succeed(&mut self, leader: SeqId) -> Option<CatchUp> {
        let (heir, _, wanted) =
            self.followers().filter(|(_, of, _)| *of == leader).max_by_key(|(_, _, n_tokens)| *n_tokens)?;
        for slot in self.slots.iter_mut().flatten() {
            if let Phase::Follow { leader: of, n_tokens } = &mut slot.phase
                && *of == leader
            {
                // What both have in common with the one that goes, they have in common.
                (*of, *n_tokens) = (heir, (*n_tokens).min(wanted));
            }
        }
        Some(CatchUp { follower: heir, leader, n_tokens: self.n_evaluated(leader).min(wanted) })
    }

    fn followers(&self) -> impl Iterator<Item = (SeqId, SeqId, u32)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot.as_ref()?.phase {
            Phase::Follow { leader, n_tokens } => Some((SeqId(index as u32), leader, n_tokens)),
            _ => None,
        })
    }

    /// A sequence of which nothing was submitted has its first `n_cached` tokens in its cache, `n_shared` of them in cells
    /// that others hold too, and evaluates the rest itself.
    pub fn begin_at(&mut self, seq: SeqId, n_cached: u32, n_shared: u32) {
        if let Some(slot) = self.slots[seq.0 as usize].as_mut() {
            debug_assert!(slot.n_submitted == 0 && n_cached < slot.ticket.n_prompt);
            slot.phase = Phase::Prefill;
            (slot.n_submitted, slot.n_evaluated, slot.n_shared) = (n_cached, n_cached, n_shared);
        }
    }

    /// Fills `rows` with the next step, in rising order of sequence; empty unless [`Planned::Step`].
    pub fn plan(&self, limits: StepLimits, rows: &mut Vec<PlannedRow>) -> Planned {
        rows.clear();
        let mut load = StepLoad::default();
        let mut oldest_stream: Option<u64> = None;
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let Phase::Decode { awaiting } = slot.phase else { continue };
            oldest_stream = oldest_stream.into_iter().chain(slot.streams_since).min();
            let exhausted = slot.n_generated >= slot.ticket.max_tokens;
            if load.n_tokens == limits.max_tokens || exhausted || (awaiting && !limits.run_ahead) {
                continue;
            }
            load = load.with_row(slot.n_submitted, 1, true);
            rows.push(PlannedRow {
                seq: SeqId(index as u32),
                position: slot.n_submitted,
                n_tokens: 1,
                kind: RowKind::Decode { in_flight: awaiting },
            });
        }
        if load.n_tokens > limits.n_cells_free {
            rows.clear();
            return Planned::NoCells;
        }
        let lacks_cells = self.add_chunks(limits, load, oldest_stream, rows);
        rows.sort_unstable_by_key(|row| row.seq);
        match rows.is_empty() {
            false => Planned::Step,
            true if lacks_cells => Planned::NoCells,
            true => Planned::Nothing,
        }
    }

    /// Prompt chunks beside the decode rows in `decode`. `true`: a prompt found no cells.
    fn add_chunks(
        &self,
        limits: StepLimits,
        decode: StepLoad,
        oldest_stream: Option<u64>,
        rows: &mut Vec<PlannedRow>,
    ) -> bool {
        let mut n_cells = limits.n_cells_free - decode.n_tokens;
        let mut budget = limits.max_tokens - decode.n_tokens;
        let mut is_limited = false;
        // A handful of slots, so a scan per chunk is cheaper than keeping an order.
        let mut after: Option<(i64, u64)> = None;
        while budget > 0 {
            let order = |slot: &Slot| (self.rank(slot), slot.admitted);
            let next = (self.slots.iter().enumerate())
                .filter_map(|(index, slot)| slot.as_ref().map(|slot| (index, slot)))
                .filter(|(_, slot)| {
                    slot.phase == Phase::Prefill && after.is_none_or(|seen| order(slot) > seen)
                })
                .min_by_key(|(_, slot)| order(slot));
            let Some((index, slot)) = next else { break };
            after = Some(order(slot));
            let n_left = slot.ticket.n_prompt - slot.n_submitted;
            if !is_limited && oldest_stream.is_some_and(|since| since < slot.began) {
                let n_taken = limits.max_tokens - decode.n_tokens - budget;
                let chunk = self.pace.chunk(decode, slot.n_submitted, n_taken + n_left.min(budget));
                budget = budget.min(chunk.saturating_sub(n_taken));
                is_limited = true;
            }
            let n_tokens = n_left.min(budget).min(n_cells).min(slot.max_chunk);
            if budget == 0 {
                break; // others of this step have used up what streams allow
            }
            if n_tokens == 0 {
                return true;
            }
            (budget, n_cells) = (budget - n_tokens, n_cells - n_tokens);
            rows.push(PlannedRow {
                seq: SeqId(index as u32),
                position: slot.n_submitted,
                n_tokens,
                kind: RowKind::Prefill { last: n_tokens == n_left },
            });
        }
        false
    }

    /// Lower goes first.
    fn rank(&self, slot: &Slot) -> i64 {
        waiting::rank(slot.ticket.n_prompt - slot.n_submitted, slot.ticket.priority, self.work - slot.arrived)
    }

    /// The step planned last was submitted under this id.
    pub fn submitted(&mut self, step: StepId, rows: &[PlannedRow]) {
        for row in rows {
            let Some(slot) = self.slots[row.seq.0 as usize].as_mut() else { continue };
            slot.n_submitted += row.n_tokens;
            slot.last_step = Some(step);
            self.work += u64::from(row.n_tokens);
            if row.yields_token() {
                slot.streams_since.get_or_insert(self.work);
                slot.n_generated += 1;
                slot.phase = Phase::Decode { awaiting: true };
            }
        }
    }

    /// A step with these rows was collected: fills `released` with the sequences that ended before and had their last row
    /// in it. They are free when this returns.
    pub fn collected(&mut self, step: StepId, rows: &[PlannedRow], released: &mut Vec<SeqId>) {
        released.clear();
        for row in rows {
            if let Some(slot) = self.slots[row.seq.0 as usize].as_mut() {
                slot.n_evaluated = slot.n_evaluated.max(row.position + row.n_tokens);
            }
        }
        for index in 0..self.slots.len() {
            if let Some(Slot { phase: Phase::Draining { until: Some(until) }, .. }) = self.slots[index]
                && until <= step
            {
                self.slots[index] = None;
                released.push(SeqId(index as u32));
            }
        }
    }

    /// A collected step with these rows took so long.
    pub fn took(&mut self, rows: &[PlannedRow], seconds: f64) {
        let (mut decode, mut whole) = (StepLoad::default(), StepLoad::default());
        for row in rows {
            whole = whole.with_row(row.position, row.n_tokens, row.yields_token());
            if matches!(row.kind, RowKind::Decode { .. }) {
                decode = decode.with_row(row.position, 1, true);
            }
        }
        self.pace.took(decode, whole, seconds);
    }

    /// The host knows the sequence's newest token now.
    pub fn token_known(&mut self, seq: SeqId, newest: bool) {
        if let Some(slot) = self.slots[seq.0 as usize].as_mut() {
            match &mut slot.phase {
                Phase::Decode { awaiting } | Phase::Parked { awaiting } if newest => *awaiting = false,
                _ => {}
            }
        }
    }

    /// Takes the sequence out of the batch, or puts it back.
    pub fn set_parked(&mut self, seq: SeqId, parked: bool) {
        if let Some(slot) = self.slots[seq.0 as usize].as_mut() {
            slot.phase = match (slot.phase, parked) {
                (Phase::Decode { awaiting }, true) => Phase::Parked { awaiting },
                (Phase::Parked { awaiting }, false) => Phase::Decode { awaiting },
                (other, _) => other,
            };
        }
    }

    /// The request is over. `true`: nothing of it is in flight, the sequence can be released at once and its id is
    /// free again. `false`: [`Scheduler::collected`] will name it.
    pub fn finish(&mut self, seq: SeqId, oldest_in_flight: Option<StepId>) -> bool {
        let Some(slot) = self.slots[seq.0 as usize].as_mut() else { return false };
        if in_flight(slot, oldest_in_flight) {
            slot.phase = Phase::Draining { until: slot.last_step };
            return false;
        }
        self.slots[seq.0 as usize] = None;
        true
    }

    /// Who has to give up its cells when there are none and no step is in flight: a stream whose reader stands still, else
    /// a batch request, else the one admitted last. `None` if that would be the only one that could run with them.
    pub fn victim(&self) -> Option<SeqId> {
        let is_parked = |slot: &Slot| matches!(slot.phase, Phase::Parked { .. });
        let holders = (self.slots.iter().enumerate())
            .filter_map(|(index, slot)| slot.as_ref().map(|slot| (index, slot)))
            .filter(|(_, slot)| slot.n_submitted > 0 && !matches!(slot.phase, Phase::Draining { .. }));
        let n_active = self.slots.iter().flatten().filter(|slot| !is_parked(slot)).count();
        let (index, slot) = holders.max_by_key(|(_, slot)| {
            (is_parked(slot), slot.ticket.priority == Priority::Batch, slot.admitted)
        })?;
        (is_parked(slot) || n_active > 1).then_some(SeqId(index as u32))
    }

    /// The sequence loses its cells and its id; the request waits again, as old as it is, with what it has to evaluate
    /// then and may still generate. Gives its key.
    pub fn preempt(&mut self, seq: SeqId, n_prompt: u32, max_tokens: u32) -> Option<u64> {
        let slot = self.slots[seq.0 as usize].take()?;
        self.waiting.enter(Ticket { n_prompt, max_tokens, ..slot.ticket }, slot.arrived);
        Some(slot.ticket.key)
    }

    fn get(&self, seq: SeqId) -> Option<&Slot> {
        self.slots.get(seq.0 as usize)?.as_ref()
    }

    /// Tokens of a running sequence whose evaluation is certain; 0 if it does not run, or is about to go.
    pub fn n_evaluated(&self, seq: SeqId) -> u32 {
        match self.get(seq) {
            Some(slot) if !matches!(slot.phase, Phase::Draining { .. }) => slot.n_evaluated,
            _ => 0,
        }
    }

    /// Whether the sequence is reading its prompt, so that others may wait for it.
    pub fn is_prefilling(&self, seq: SeqId) -> bool {
        self.get(seq).is_some_and(|slot| slot.phase == Phase::Prefill)
    }

    /// Requests without a sequence.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences in use, draining ones included.
    pub fn n_running(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Cells that running requests may still take without asking again.
    pub fn n_cells_promised(&self) -> u64 {
        let reserve = self.settings.answer_reserve;
        self.slots.iter().flatten().map(|slot| u64::from(slot.growth(reserve))).sum()
    }

    /// Cells that a request is promised when it is admitted, from nothing.
    fn projected(&self, ticket: &Ticket) -> u32 {
        ticket.n_cells().min(ticket.n_prompt.saturating_add(self.settings.answer_reserve))
    }
}

fn in_flight(slot: &Slot, oldest: Option<StepId>) -> bool {
    matches!((slot.last_step, oldest), (Some(last), Some(oldest)) if last >= oldest)
}
