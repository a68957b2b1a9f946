//! Requests without a sequence, and whose turn is next.

use super::{BATCH_HANDICAP, Ticket};
use crate::request::Priority;

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    /// The engine's work when the request arrived.
    arrived: u64,
    held: bool,
}

/// Few enough that a scan is cheaper than keeping an order which changes with age.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom(Vec<Waiting>);

impl WaitingRoom {
    pub(super) fn enter(&mut self, ticket: Ticket, arrived: u64) {
        self.0.push(Waiting { ticket, arrived, held: false });
    }

    pub(super) fn leave(&mut self, key: u64) -> Option<(Ticket, u64)> {
        let index = self.0.iter().position(|waiting| waiting.ticket.key == key)?;
        // In order, so that equals stay first come, first served.
        let waiting = self.0.remove(index);
        Some((waiting.ticket, waiting.arrived))
    }

    pub(super) fn set_held(&mut self, key: u64, held: bool) {
        if let Some(waiting) = self.0.iter_mut().find(|waiting| waiting.ticket.key == key) {
            waiting.held = held;
        }
    }

    /// Whose turn it is when the engine has done so much work.
    pub(super) fn first(&self, work: u64) -> Option<Ticket> {
        (self.0.iter())
            .filter(|waiting| !waiting.held)
            .min_by_key(|waiting| {
                (
                    rank(waiting.ticket.n_prompt, waiting.ticket.priority, work - waiting.arrived),
                    waiting.arrived,
                )
            })
            .map(|waiting| waiting.ticket)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Tokens left, less those that were evaluated for others meanwhile. Lower goes first.
pub(super) fn rank(n_left: u32, priority: Priority, waited: u64) -> i64 {
    let handicap = match priority {
        Priority::Interactive => 0,
        Priority::Batch => i64::from(BATCH_HANDICAP),
    };
    i64::from(n_left) + handicap - i64::try_from(waited).unwrap_or(i64::MAX / 2)
}
