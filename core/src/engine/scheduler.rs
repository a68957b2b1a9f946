//! Which rows go into the next step. Pure: no tensors, no clock, no channels; everything it knows it was told.
//!
//! Policy: a request is admitted when a sequence is free and its projected KV cells (prompt + most new tokens) fit beside
//! those of the admitted ones, in order of arrival, so that a running stream can never run out of cells. In a step,
//! decode rows come first; prompt chunks fill the rest of the token budget, oldest request first.
//!
//! A sequence's life here: waiting → prefilling → decoding → draining (its last step may still be in flight) → gone.

use std::collections::VecDeque;

use crate::runner::{SeqId, StepId};

/// A request before it has a sequence. The key is the caller's and comes back on admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The caller's name for the request.
    pub key: u64,
    /// Tokens of the prompt; at least 1.
    pub n_prompt: u32,
    /// Most new tokens.
    pub max_tokens: u32,
}

impl Ticket {
    /// KV cells the request can take at most: the last token is sampled and never evaluated.
    pub fn n_cells(&self) -> u32 {
        self.n_prompt.saturating_add(self.max_tokens).saturating_sub(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
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
    /// New tokens sampled or being sampled.
    n_generated: u32,
    /// The newest step with a row of this sequence.
    last_step: Option<StepId>,
    /// Order of admission.
    arrival: u64,
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

/// The state of all requests of one model.
#[derive(Debug)]
pub struct Scheduler {
    slots: Vec<Option<Slot>>,
    waiting: VecDeque<Ticket>,
    kv_tokens: u32,
    n_cells_reserved: u32,
    n_arrivals: u64,
}

impl Scheduler {
    /// For so many sequences over so many shared KV cells.
    pub fn new(max_sequences: u32, kv_tokens: u32) -> Self {
        Self {
            slots: vec![None; max_sequences as usize],
            waiting: VecDeque::new(),
            kv_tokens,
            n_cells_reserved: 0,
            n_arrivals: 0,
        }
    }

    /// Queues a request. The caller has checked that it can ever fit: `n_cells() ≤ kv_tokens`.
    pub fn enqueue(&mut self, ticket: Ticket) {
        self.waiting.push_back(ticket);
    }

    /// Takes a waiting request out again. `false` if it is not waiting.
    pub fn withdraw(&mut self, key: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|ticket| ticket.key != key);
        self.waiting.len() < before
    }

    /// Admits the oldest waiting request if a sequence and cells are free; gives its key and sequence.
    pub fn admit(&mut self) -> Option<(u64, SeqId)> {
        let ticket = *self.waiting.front()?;
        let free = self.slots.iter().position(Option::is_none)?;
        if self.n_cells_reserved.saturating_add(ticket.n_cells()) > self.kv_tokens {
            return None;
        }
        self.waiting.pop_front();
        self.n_cells_reserved += ticket.n_cells();
        self.slots[free] = Some(Slot {
            ticket,
            phase: Phase::Prefill,
            n_submitted: 0,
            n_generated: 0,
            last_step: None,
            arrival: self.n_arrivals,
        });
        self.n_arrivals += 1;
        Some((ticket.key, SeqId(free as u32)))
    }

    /// Fills `rows` with the next step, in rising order of sequence; empty if nothing can run.
    ///
    /// `run_ahead`: rows may continue a sequence whose newest token is still being sampled on the device.
    pub fn plan(&mut self, max_tokens: u32, run_ahead: bool, rows: &mut Vec<PlannedRow>) {
        rows.clear();
        let mut budget = max_tokens;
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let Phase::Decode { awaiting } = slot.phase else { continue };
            let exhausted = slot.n_generated >= slot.ticket.max_tokens;
            if budget == 0 || exhausted || (awaiting && !run_ahead) {
                continue;
            }
            budget -= 1;
            rows.push(PlannedRow {
                seq: SeqId(index as u32),
                position: slot.n_submitted,
                n_tokens: 1,
                kind: RowKind::Decode { in_flight: awaiting },
            });
        }
        // Oldest prompt first; a handful of slots, so a scan per chunk is cheaper than keeping an order.
        let mut after: Option<u64> = None;
        while budget > 0 {
            let next = self
                .slots
                .iter()
                .enumerate()
                .filter_map(|(index, slot)| slot.as_ref().map(|slot| (index, slot)))
                .filter(|(_, slot)| {
                    slot.phase == Phase::Prefill && after.is_none_or(|seen| slot.arrival > seen)
                })
                .min_by_key(|(_, slot)| slot.arrival);
            let Some((index, slot)) = next else { break };
            after = Some(slot.arrival);
            let n_left = slot.ticket.n_prompt - slot.n_submitted;
            let n_tokens = n_left.min(budget);
            budget -= n_tokens;
            rows.push(PlannedRow {
                seq: SeqId(index as u32),
                position: slot.n_submitted,
                n_tokens,
                kind: RowKind::Prefill { last: n_tokens == n_left },
            });
        }
        rows.sort_unstable_by_key(|row| row.seq);
    }

    /// The step planned last was submitted under this id.
    pub fn submitted(&mut self, step: StepId, rows: &[PlannedRow]) {
        for row in rows {
            let Some(slot) = self.slots[row.seq.0 as usize].as_mut() else { continue };
            slot.n_submitted += row.n_tokens;
            slot.last_step = Some(step);
            if row.yields_token() {
                slot.n_generated += 1;
                slot.phase = Phase::Decode { awaiting: true };
            }
        }
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
        let in_flight = match (slot.last_step, oldest_in_flight) {
            (Some(last), Some(oldest)) => last >= oldest,
            _ => false,
        };
        if in_flight {
            slot.phase = Phase::Draining { until: slot.last_step };
            return false;
        }
        self.free(seq);
        true
    }

    /// A step was collected: fills `released` with the sequences that ended before and had their last row in it.
    pub fn collected(&mut self, step: StepId, released: &mut Vec<SeqId>) {
        released.clear();
        for index in 0..self.slots.len() {
            if let Some(Slot { phase: Phase::Draining { until: Some(until) }, .. }) = self.slots[index]
                && until <= step
            {
                let seq = SeqId(index as u32);
                self.free(seq);
                released.push(seq);
            }
        }
    }

    fn free(&mut self, seq: SeqId) {
        if let Some(slot) = self.slots[seq.0 as usize].take() {
            self.n_cells_reserved -= slot.ticket.n_cells();
        }
    }

    /// Requests without a sequence.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences in use, draining ones included.
    pub fn n_running(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Cells promised to admitted requests.
    pub fn n_cells_reserved(&self) -> u32 {
        self.n_cells_reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket(key: u64, n_prompt: u32, max_tokens: u32) -> Ticket {
        Ticket { key, n_prompt, max_tokens }
    }

    #[test]
    fn decode_rows_come_before_prompt_chunks() {
        let mut scheduler = Scheduler::new(2, 100);
        let mut rows = Vec::new();
        scheduler.enqueue(ticket(1, 2, 5));
        assert_eq!(scheduler.admit(), Some((1, SeqId(0))));
        scheduler.plan(8, false, &mut rows);
        scheduler.submitted(StepId(0), &rows);
        scheduler.token_known(SeqId(0), true);
        scheduler.enqueue(ticket(2, 20, 5));
        assert_eq!(scheduler.admit(), Some((2, SeqId(1))));
        scheduler.plan(8, false, &mut rows);
        assert_eq!(
            rows,
            [
                PlannedRow {
                    seq: SeqId(0),
                    position: 2,
                    n_tokens: 1,
                    kind: RowKind::Decode { in_flight: false }
                },
                PlannedRow {
                    seq: SeqId(1),
                    position: 0,
                    n_tokens: 7,
                    kind: RowKind::Prefill { last: false }
                },
            ]
        );
    }

    #[test]
    fn a_request_waits_for_cells_and_not_only_for_a_sequence() {
        let mut scheduler = Scheduler::new(4, 30);
        scheduler.enqueue(ticket(1, 10, 11));
        scheduler.enqueue(ticket(2, 10, 11));
        assert!(scheduler.admit().is_some());
        assert_eq!(scheduler.admit(), None, "20 cells are taken, 20 more do not fit 30");
        assert!(scheduler.finish(SeqId(0), None));
        assert_eq!(scheduler.admit(), Some((2, SeqId(0))));
    }

    #[test]
    fn a_sequence_with_a_step_in_flight_is_released_after_it() {
        let mut scheduler = Scheduler::new(1, 30);
        let (mut rows, mut released) = (Vec::new(), Vec::new());
        scheduler.enqueue(ticket(1, 3, 5));
        scheduler.admit();
        scheduler.plan(8, true, &mut rows);
        scheduler.submitted(StepId(0), &rows);
        scheduler.plan(8, true, &mut rows);
        assert_eq!(rows[0].kind, RowKind::Decode { in_flight: true });
        scheduler.submitted(StepId(1), &rows);
        assert!(!scheduler.finish(SeqId(0), Some(StepId(0))));
        scheduler.collected(StepId(0), &mut released);
        assert!(released.is_empty());
        scheduler.plan(8, true, &mut rows);
        assert!(rows.is_empty(), "a finished sequence gets no more rows");
        scheduler.collected(StepId(1), &mut released);
        assert_eq!(released, [SeqId(0)]);
        assert_eq!((scheduler.n_running(), scheduler.n_cells_reserved()), (0, 0));
    }

    proptest! {
        /// Random arrivals, ends and in-flight depths: positions are consecutive, budgets hold, no cell is lost.
        #[test]
        fn random_traces_keep_the_books(
            requests in prop::collection::vec((1u32..40, 1u32..12), 1..24),
            choices in prop::collection::vec(0u8..10, 0..400),
            max_sequences in 1u32..5, budget in 1u32..16, depth in 1usize..3,
        ) {
            let kv_tokens = 64;
            let mut scheduler = Scheduler::new(max_sequences, kv_tokens);
            let mut pending: VecDeque<Ticket> = requests.iter().enumerate()
                .map(|(key, &(n_prompt, max_tokens))| ticket(key as u64, n_prompt, max_tokens)).collect();
            let mut running: Vec<Option<(u64, u32, u32)>> = vec![None; max_sequences as usize]; // key, position, known tokens
            let mut in_flight: VecDeque<(StepId, Vec<PlannedRow>)> = VecDeque::new();
            let (mut rows, mut released) = (Vec::new(), Vec::new());
            let mut n_done = 0;
            let mut step = 0;
            let mut choices = choices.into_iter().chain(std::iter::repeat(9));
            for _ in 0..20_000 {
                if n_done == requests.len() && in_flight.is_empty() { break; }
                if let Some(next) = pending.pop_front() { scheduler.enqueue(next); }
                while let Some((key, seq)) = scheduler.admit() {
                    prop_assert!(running[seq.0 as usize].is_none());
                    running[seq.0 as usize] = Some((key, 0, 0));
                }
                prop_assert!(scheduler.n_cells_reserved() <= kv_tokens);
                if in_flight.len() < depth {
                    scheduler.plan(budget, depth > 1, &mut rows);
                    let n: u32 = rows.iter().map(|row| row.n_tokens).sum();
                    prop_assert!(n <= budget);
                    prop_assert!(rows.windows(2).all(|pair| pair[0].seq < pair[1].seq));
                    for row in &rows {
                        let (key, position, _) = running[row.seq.0 as usize].as_mut().expect("rows only for running ones");
                        prop_assert_eq!(*position, row.position);
                        *position += row.n_tokens;
                        let (n_prompt, max_tokens) = requests[*key as usize];
                        prop_assert!(*position < n_prompt + max_tokens);
                        prop_assert!(row.n_tokens > 0);
                    }
                    if !rows.is_empty() {
                        scheduler.submitted(StepId(step), &rows);
                        in_flight.push_back((StepId(step), rows.clone()));
                        step += 1;
                        if in_flight.len() < depth { continue; }
                    }
                }
                let Some((id, collected)) = in_flight.pop_front() else {
                    prop_assert!(n_done == requests.len() || !pending.is_empty() || scheduler.n_waiting() > 0
                        || scheduler.n_running() > 0);
                    continue;
                };
                scheduler.collected(id, &mut released);
                for seq in &released { prop_assert!(running[seq.0 as usize].take().is_some()); }
                for row in collected.iter().filter(|row| row.yields_token()) {
                    let Some((key, _, n_tokens)) = running[row.seq.0 as usize].as_mut() else { continue };
                    if *n_tokens == u32::MAX { continue; } // ended before, its last step was in flight
                    *n_tokens += 1;
                    let newest = !in_flight.iter().any(|(_, rows)| rows.iter().any(|other| other.seq == row.seq));
                    scheduler.token_known(row.seq, newest);
                    let stop = choices.next() == Some(0);
                    if stop || *n_tokens == requests[*key as usize].1 {
                        n_done += 1;
                        if scheduler.finish(row.seq, in_flight.front().map(|(id, _)| *id)) {
                            running[row.seq.0 as usize] = None;
                        } else {
                            *n_tokens = u32::MAX;
                        }
                    }
                }
            }
            prop_assert_eq!(n_done, requests.len(), "every request ends");
            prop_assert_eq!((scheduler.n_running(), scheduler.n_cells_reserved(), scheduler.n_waiting()), (0, 0, 0));
        }
    }
}
