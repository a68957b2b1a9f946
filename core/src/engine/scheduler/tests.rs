//! The scheduler alone: order, admission, followers, preemption, and random traces that must end.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

fn ticket(key: u64, n_prompt: u32, max_tokens: u32) -> Ticket {
    Ticket { key, n_prompt, max_tokens, priority: Priority::Interactive }
}

fn scheduler(max_sequences: u32, kv_tokens: u32, slowdown: f32) -> Scheduler {
    Scheduler::new(SchedulerSettings { max_sequences, kv_tokens, slowdown, answer_reserve: ANSWER_RESERVE })
}

const PLENTY: StepLimits = StepLimits { max_tokens: 8, n_cells_free: 1000, run_ahead: false };

/// Admits whoever is next, at its beginning.
fn admit(scheduler: &mut Scheduler) -> Option<(u64, SeqId)> {
    let next = scheduler.next()?;
    Some((next.key, scheduler.admit(next.key, Start::Here)?))
}

fn step(scheduler: &mut Scheduler, id: u64, limits: StepLimits) -> Vec<PlannedRow> {
    let (mut rows, mut released) = (Vec::new(), Vec::new());
    scheduler.plan(limits, &mut rows);
    scheduler.submitted(StepId(id), &rows);
    scheduler.collected(StepId(id), &rows, &mut released);
    for row in rows.iter().filter(|row| row.yields_token()) {
        scheduler.token_known(row.seq, true);
    }
    rows
}

#[test]
fn decode_rows_come_before_prompt_chunks() {
    let mut scheduler = scheduler(2, 100, 100.0);
    scheduler.enqueue(ticket(1, 2, 5));
    assert_eq!(admit(&mut scheduler), Some((1, SeqId(0))));
    step(&mut scheduler, 0, PLENTY);
    scheduler.enqueue(ticket(2, 20, 5));
    assert_eq!(admit(&mut scheduler), Some((2, SeqId(1))));
    let mut rows = Vec::new();
    for _ in 0..50 {
        let load = [PlannedRow {
            seq: SeqId(0),
            position: 2,
            n_tokens: 1,
            kind: RowKind::Decode { in_flight: false },
        }];
        scheduler.took(&load, 0.01);
    }
    assert_eq!(scheduler.plan(PLENTY, &mut rows), Planned::Step);
    let decode =
        PlannedRow { seq: SeqId(0), position: 2, n_tokens: 1, kind: RowKind::Decode { in_flight: false } };
    let chunk =
        PlannedRow { seq: SeqId(1), position: 0, n_tokens: 7, kind: RowKind::Prefill { last: false } };
    assert_eq!(rows, [decode, chunk]);
}

#[test]
fn beside_streams_chunks_are_small_until_their_cost_is_known() {
    let mut scheduler = scheduler(2, 1000, 2.0);
    scheduler.enqueue(ticket(1, 2, 50));
    admit(&mut scheduler);
    let limits = StepLimits { max_tokens: 512, ..PLENTY };
    let rows = step(&mut scheduler, 0, limits);
    scheduler.took(&rows, 0.02);
    step(&mut scheduler, 1, limits);
    scheduler.enqueue(ticket(2, 400, 5));
    admit(&mut scheduler);
    assert!(step(&mut scheduler, 2, limits)[1].n_tokens <= 3);
}

#[test]
fn those_who_came_together_do_not_wait_for_the_first_to_stream() {
    let mut scheduler = scheduler(3, 1000, 2.0);
    for key in 0..2 {
        scheduler.enqueue(ticket(key, 100, 50));
        admit(&mut scheduler);
    }
    let limits = StepLimits { max_tokens: 100, ..PLENTY };
    step(&mut scheduler, 0, limits);
    // Came while the first prompt was being read.
    scheduler.enqueue(ticket(2, 100, 50));
    admit(&mut scheduler);
    let n_tokens = |rows: &[PlannedRow]| rows.iter().map(|row| row.n_tokens).collect::<Vec<_>>();
    assert_eq!(n_tokens(&step(&mut scheduler, 1, limits)), [1, 99]);
    assert_eq!(n_tokens(&step(&mut scheduler, 2, limits)), [1, 1, 98]);
}

#[test]
fn without_streams_a_prompt_takes_the_whole_step() {
    let mut scheduler = scheduler(2, 1000, 2.0);
    scheduler.enqueue(ticket(1, 400, 5));
    admit(&mut scheduler);
    assert_eq!(step(&mut scheduler, 0, StepLimits { max_tokens: 512, ..PLENTY })[0].n_tokens, 400);
}

#[test]
fn the_shortest_goes_first_but_nobody_waits_for_ever() {
    let mut scheduler = scheduler(1, 100_000, 2.0);
    scheduler.enqueue(ticket(0, 1000, 1));
    let limits = StepLimits { max_tokens: 100_000, n_cells_free: 100_000, run_ahead: false };
    let mut n_before = 0;
    for key in 1.. {
        scheduler.enqueue(ticket(key, 100, 1));
        let (served, seq) = admit(&mut scheduler).expect("one is waiting");
        if served == 0 {
            break;
        }
        n_before += 1;
        step(&mut scheduler, key, limits);
        assert!(scheduler.finish(seq, None));
    }
    assert!((8..=11).contains(&n_before), "its own length's worth of others' work: {n_before}");
}

#[test]
fn batch_requests_let_interactive_ones_pass() {
    let mut scheduler = scheduler(1, 100_000, 2.0);
    scheduler.enqueue(Ticket { priority: Priority::Batch, ..ticket(1, 10, 1) });
    scheduler.enqueue(ticket(2, 5000, 1));
    assert_eq!(scheduler.next().map(|next| next.key), Some(2));
}

#[test]
fn equals_are_served_in_order_of_arrival() {
    let mut scheduler = scheduler(3, 1000, 2.0);
    for key in 0..3 {
        scheduler.enqueue(ticket(key, 10, 1));
    }
    for key in 0..3 {
        assert_eq!(admit(&mut scheduler), Some((key, SeqId(key as u32))));
    }
}

#[test]
fn a_held_request_is_passed_over() {
    let mut scheduler = scheduler(2, 1000, 2.0);
    scheduler.enqueue(ticket(1, 10, 1));
    scheduler.enqueue(ticket(2, 20, 1));
    scheduler.set_held(1, true);
    assert_eq!(scheduler.next().map(|next| next.key), Some(2));
    scheduler.set_held(1, false);
    assert_eq!(scheduler.next().map(|next| next.key), Some(1));
    assert!(scheduler.withdraw(1) && !scheduler.withdraw(1));
}

#[test]
fn cells_are_promised_for_the_prompt_and_some_of_the_answer() {
    let mut scheduler = scheduler(4, 1000, 2.0);
    let long = ticket(1, 100, 800);
    assert!(scheduler.fits(&long, 0, 0));
    scheduler.enqueue(long);
    admit(&mut scheduler);
    assert_eq!(scheduler.n_cells_promised(), 100 + u64::from(ANSWER_RESERVE));
    assert!(scheduler.fits(&long, 0, 0), "not its whole answer is set aside");
    assert!(!scheduler.fits(&long, 0, 300));
    assert!(scheduler.could_fit(&long, 0), "300 kept cells can be dropped");
    let huge = ticket(2, 700, 5);
    assert!(!scheduler.fits(&huge, 0, 0) && !scheduler.could_fit(&huge, 0));
    assert!(scheduler.fits(&huge, 690, 0), "what is there already is not taken again");
}

#[test]
fn a_sequence_with_a_step_in_flight_is_released_after_it() {
    let mut scheduler = scheduler(1, 30, 2.0);
    let (mut rows, mut released) = (Vec::new(), Vec::new());
    let ahead = StepLimits { run_ahead: true, ..PLENTY };
    scheduler.enqueue(ticket(1, 3, 5));
    admit(&mut scheduler);
    scheduler.plan(ahead, &mut rows);
    scheduler.submitted(StepId(0), &rows);
    scheduler.plan(ahead, &mut rows);
    assert_eq!(rows[0].kind, RowKind::Decode { in_flight: true });
    scheduler.submitted(StepId(1), &rows);
    assert!(!scheduler.finish(SeqId(0), Some(StepId(0))));
    scheduler.collected(StepId(0), &[], &mut released);
    assert!(released.is_empty());
    assert_eq!(scheduler.plan(ahead, &mut rows), Planned::Nothing, "a finished sequence gets no more rows");
    scheduler.collected(StepId(1), &[], &mut released);
    assert_eq!(released, [SeqId(0)]);
    assert_eq!((scheduler.n_running(), scheduler.n_cells_promised()), (0, 0));
}

#[test]
fn followers_wait_for_their_leader_and_then_read_the_rest() {
    let mut scheduler = scheduler(3, 1000, 2.0);
    let (mut rows, mut ready) = (Vec::new(), Vec::new());
    for key in 0..3 {
        scheduler.enqueue(ticket(key, 20, 4));
    }
    admit(&mut scheduler);
    for key in 1..3 {
        scheduler.admit(key, Start::Behind { leader: SeqId(0), n_tokens: 15 });
    }
    assert_eq!(step(&mut scheduler, 0, PLENTY).len(), 1, "only the leader reads");
    scheduler.ready_followers(&mut ready);
    assert!(ready.is_empty());
    step(&mut scheduler, 1, PLENTY);
    scheduler.ready_followers(&mut ready);
    assert_eq!(ready.iter().map(|catch_up| catch_up.follower.0).collect::<Vec<_>>(), [1, 2]);
    for catch_up in ready {
        scheduler.begin_at(catch_up.follower, catch_up.n_tokens, 15);
    }
    scheduler.plan(PLENTY, &mut rows);
    assert_eq!(
        rows.iter().map(|row| row.position).collect::<Vec<_>>(),
        [16, 15],
        "the leader, then as far as 8 go"
    );
}

#[test]
fn when_a_leader_goes_one_follower_leads_the_others() {
    let mut scheduler = scheduler(4, 1000, 2.0);
    for key in 0..4 {
        scheduler.enqueue(ticket(key, 20, 4));
    }
    admit(&mut scheduler);
    for (key, n_tokens) in [(1, 10), (2, 18), (3, 12)] {
        scheduler.admit(key, Start::Behind { leader: SeqId(0), n_tokens });
    }
    step(&mut scheduler, 0, PLENTY);
    let heir = scheduler.succeed(SeqId(0)).expect("three wait");
    assert_eq!(heir, CatchUp { follower: SeqId(2), leader: SeqId(0), n_tokens: 8 });
    scheduler.begin_at(heir.follower, 8, 0);
    assert!(scheduler.finish(SeqId(0), None));
    assert_eq!(scheduler.succeed(SeqId(0)), None);
    step(&mut scheduler, 1, PLENTY);
    let mut ready = Vec::new();
    scheduler.ready_followers(&mut ready);
    assert_eq!(
        ready.iter().map(|c| (c.follower.0, c.leader.0, c.n_tokens)).collect::<Vec<_>>(),
        [(1, 2, 10), (3, 2, 12)]
    );
}

#[test]
fn the_youngest_gives_way_and_a_parked_one_before_it() {
    let mut scheduler = scheduler(3, 1000, 2.0);
    assert_eq!(scheduler.victim(), None);
    for key in 0..3 {
        scheduler.enqueue(ticket(key, 2, 40));
        admit(&mut scheduler);
        for id in 0..3 {
            step(&mut scheduler, key * 3 + id, PLENTY);
        }
    }
    assert_eq!(scheduler.victim(), Some(SeqId(2)));
    scheduler.set_parked(SeqId(1), true);
    assert_eq!(scheduler.victim(), Some(SeqId(1)));
    assert_eq!(scheduler.preempt(SeqId(1), 4, 38), Some(1));
    assert_eq!(scheduler.victim(), Some(SeqId(2)));
    scheduler.preempt(SeqId(2), 4, 38);
    assert_eq!(scheduler.victim(), None, "it would only begin again");
}

#[test]
fn no_cells_is_not_nothing() {
    let mut scheduler = scheduler(2, 1000, 2.0);
    let mut rows = Vec::new();
    let none = StepLimits { n_cells_free: 0, ..PLENTY };
    assert_eq!(scheduler.plan(none, &mut rows), Planned::Nothing);
    scheduler.enqueue(ticket(1, 2, 5));
    admit(&mut scheduler);
    assert_eq!(scheduler.plan(none, &mut rows), Planned::NoCells);
    step(&mut scheduler, 0, PLENTY);
    assert_eq!(scheduler.plan(none, &mut rows), Planned::NoCells);
    assert!(rows.is_empty());
}

/// An engine as far as the scheduler can tell: cells, positions, answers of random length.
struct World {
    scheduler: Scheduler,
    kv_tokens: u32,
    /// By sequence: request, tokens in the cache, tokens sampled.
    running: Vec<Option<(u64, u32, u32)>>,
    /// By request: tokens to read, answer tokens left, whether it was ever preempted.
    requests: BTreeMap<u64, (u32, u32)>,
    in_flight: VecDeque<(StepId, Vec<PlannedRow>)>,
    draining: Vec<bool>,
    n_steps: u64,
    n_done: usize,
    n_preempted: usize,
}

impl World {
    fn n_used(&self) -> u32 {
        self.running.iter().flatten().map(|(_, n, _)| n).sum()
    }

    fn admit(&mut self, follow: bool) {
        while let Some(next) = self.scheduler.next() {
            if !self.scheduler.fits(&next, 0, self.n_used()) {
                return;
            }
            let leader = (0..self.running.len() as u32).map(SeqId).find(|seq| {
                follow && self.scheduler.is_prefilling(*seq) && self.running[seq.0 as usize].is_some()
            });
            let start = match leader {
                Some(leader) if next.n_prompt > 1 => {
                    let theirs = self.running[leader.0 as usize].expect("running").0;
                    let n_tokens = (next.n_prompt - 1).min(self.requests[&theirs].0);
                    Start::Behind { leader, n_tokens }
                }
                _ => Start::Here,
            };
            let seq = self.scheduler.admit(next.key, start).expect("next() said that one is free");
            assert!(self.running[seq.0 as usize].is_none());
            self.running[seq.0 as usize] = Some((next.key, 0, 0));
        }
    }

    fn fork(&mut self, catch_up: CatchUp) {
        // A copy takes cells; without them the follower reads for itself.
        let n = if self.n_used() + catch_up.n_tokens <= self.kv_tokens { catch_up.n_tokens } else { 0 };
        self.scheduler.begin_at(catch_up.follower, n, 0);
        self.running[catch_up.follower.0 as usize].as_mut().expect("it runs").1 = n;
    }

    fn go(&mut self, seq: SeqId) {
        if let Some(heir) = self.scheduler.succeed(seq) {
            self.fork(heir);
        }
        if self.scheduler.finish(seq, self.in_flight.front().map(|(id, _)| *id)) {
            self.running[seq.0 as usize] = None;
        } else {
            self.draining[seq.0 as usize] = true;
        }
        self.n_done += 1;
    }

    fn preempt(&mut self) {
        let seq = self.scheduler.victim().expect("somebody can give way");
        if let Some(heir) = self.scheduler.succeed(seq) {
            self.fork(heir);
        }
        let (key, _, n_sampled) = self.running[seq.0 as usize].take().expect("victims run");
        let (n_prompt, left) = self.requests.get_mut(&key).expect("known");
        (*n_prompt, *left) = (*n_prompt + n_sampled, *left - n_sampled);
        assert_eq!(self.scheduler.preempt(seq, *n_prompt, *left), Some(key));
        self.n_preempted += 1;
    }

    /// Submits one step if there is one. `false`: there is nothing to submit.
    fn submit(&mut self, max_tokens: u32, run_ahead: bool) -> bool {
        let mut rows = Vec::new();
        let limits = StepLimits { max_tokens, n_cells_free: self.kv_tokens - self.n_used(), run_ahead };
        match self.scheduler.plan(limits, &mut rows) {
            Planned::Step => {}
            Planned::Nothing => return false,
            Planned::NoCells if !self.in_flight.is_empty() => return false,
            Planned::NoCells => {
                self.preempt();
                return self.submit(max_tokens, run_ahead);
            }
        }
        assert!(rows.iter().map(|row| row.n_tokens).sum::<u32>() <= max_tokens.min(limits.n_cells_free));
        assert!(rows.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        for row in &rows {
            assert!(!self.draining[row.seq.0 as usize] && row.n_tokens > 0);
            let (key, position, _) =
                self.running[row.seq.0 as usize].as_mut().expect("rows only for running ones");
            assert_eq!(*position, row.position);
            *position += row.n_tokens;
            let (n_prompt, left) = self.requests[key];
            assert!(*position < n_prompt + left);
        }
        self.scheduler.submitted(StepId(self.n_steps), &rows);
        self.in_flight.push_back((StepId(self.n_steps), rows));
        self.n_steps += 1;
        true
    }

    fn collect(&mut self, stop: &mut impl Iterator<Item = bool>) {
        let Some((id, rows)) = self.in_flight.pop_front() else { return };
        let mut released = Vec::new();
        self.scheduler.took(&rows, 0.001 * rows.len() as f64);
        self.scheduler.collected(id, &rows, &mut released);
        for seq in released {
            assert!(self.running[seq.0 as usize].take().is_some());
            self.draining[seq.0 as usize] = false;
        }
        for row in rows.iter().filter(|row| row.yields_token()) {
            let index = row.seq.0 as usize;
            if self.draining[index] {
                continue;
            }
            let Some((key, _, n_sampled)) = self.running[index].as_mut() else { continue };
            *n_sampled += 1;
            let over = *n_sampled == self.requests[key].1 || stop.next() == Some(true);
            let newest =
                !self.in_flight.iter().any(|(_, rows)| rows.iter().any(|other| other.seq == row.seq));
            self.scheduler.token_known(row.seq, newest);
            if over {
                self.go(row.seq);
            }
        }
    }
}

proptest! {
    /// Random arrivals, ends, followers, in-flight depths and too few cells: positions are consecutive, budgets hold, every
    /// request ends, no cell stays promised.
    #[test]
    fn random_traces_keep_the_books(
        requests in prop::collection::vec((1u32..60, 1u32..40, any::<bool>()), 1..24),
        stops in prop::collection::vec(0u8..12, 0..400), follows in prop::collection::vec(any::<bool>(), 0..60),
        max_sequences in 1u32..6, budget in 6u32..20, depth in 1usize..3, kv_tokens in 100u32..140, answer_reserve in 0u32..20,
    ) {
        let n = max_sequences as usize;
        let mut world = World {
            scheduler: Scheduler::new(SchedulerSettings { max_sequences, kv_tokens, slowdown: 2.0, answer_reserve }), kv_tokens, running: vec![None; n],
            requests: (0u64..).zip(requests.iter().map(|&(n_prompt, left, _)| (n_prompt, left))).collect(),
            in_flight: VecDeque::new(), draining: vec![false; n], n_steps: 0, n_done: 0, n_preempted: 0,
        };
        let mut arriving = (0u64..).zip(&requests);
        let mut stop = stops.into_iter().map(|choice| choice == 0);
        let mut follow = follows.into_iter();
        for _ in 0..30_000 {
            if let Some((key, &(n_prompt, max_tokens, batch))) = arriving.next() {
                let priority = if batch { Priority::Batch } else { Priority::Interactive };
                world.scheduler.enqueue(Ticket { key, n_prompt, max_tokens, priority });
            }
            if world.n_done == requests.len() && world.in_flight.is_empty() { break; }
            world.admit(follow.next() == Some(true));
            let mut ready = Vec::new();
            world.scheduler.ready_followers(&mut ready);
            for catch_up in ready { world.fork(catch_up); }
            prop_assert!(world.n_used() <= kv_tokens);
            while world.in_flight.len() < depth {
                let run_ahead = !world.in_flight.is_empty();
                if !world.submit(budget, run_ahead) { break; }
            }
            world.collect(&mut stop);
        }
        prop_assert_eq!(world.n_done, requests.len(), "every request ends");
        let scheduler = &world.scheduler;
        prop_assert_eq!((scheduler.n_running(), scheduler.n_cells_promised(), scheduler.n_waiting()), (0, 0, 0));
        prop_assert_eq!(world.n_used(), 0);
    }
}
