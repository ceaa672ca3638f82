//! Which endpoint is asked next: pure; time and chance are the caller's.

use std::time::{Duration, Instant};

use super::Endpoint;
use crate::status::{Code, Status};

/// Failures in a row after which an endpoint is ejected.
const FAILURES_MAX: u32 = 3;
/// How long the first time; doubled by each further ejection in a row, up to the second.
const EJECTION_MIN: Duration = Duration::from_millis(100);
const EJECTION_MAX: Duration = Duration::from_secs(10);
/// Endpoints used of one service: each may cost a connection.
const ENDPOINTS_MAX: usize = 1024;

/// An endpoint for as long as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId(u64);

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answered, be it with a refusal.
    Answered,
    /// It has too much to do, or another one leads.
    Elsewhere,
    /// It could not be reached, or goes away.
    Away,
    /// It broke off, was late, or failed inside.
    Failed,
    /// Nobody waited for the end.
    GivenUp,
}

impl Outcome {
    pub(super) fn of(failure: Option<&Status>) -> Self {
        let Some(status) = failure else { return Self::Answered };
        match status.code {
            Code::Busy | Code::NotLeader => Self::Elsewhere,
            Code::Unavailable if status.was_not_executed() => Self::Away,
            Code::Unavailable | Code::DeadlineExceeded | Code::Internal => Self::Failed,
            Code::Cancelled => Self::GivenUp,
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Stale
            | Code::NotCommitted
            | Code::PermissionDenied
            | Code::DataLoss
            | Code::Unimplemented
            | Code::Full => Self::Answered,
        }
    }
}

#[derive(Debug)]
struct Slot<C> {
    id: SlotId,
    endpoint: Endpoint,
    client: C,
    in_flight: u32,
    /// In a row.
    failures: u32,
    /// The same.
    ejections: u32,
    ejected_until: Option<Instant>,
}

impl<C> Slot<C> {
    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    fn eject(&mut self, now: Instant, spread: u32) {
        let full = (EJECTION_MIN * 2u32.saturating_pow(self.ejections.min(16))).min(EJECTION_MAX);
        let part = 0.5 + f64::from(spread) / f64::from(u32::MAX) / 2.0;
        self.ejected_until = Some(now + full.mul_f64(part));
        self.ejections = self.ejections.saturating_add(1);
        // When it is asked again, one more is enough.
        self.failures = FAILURES_MAX - 1;
    }

    /// Whether it has fewer calls for its weight than the other.
    fn is_freer_than(&self, other: &Self) -> bool {
        let load =
            |this: &Self, other: &Self| (u64::from(this.in_flight) + 1) * u64::from(other.endpoint.weight);
        load(self, other) < load(other, self)
    }
}

/// The endpoints of a service, and how they fare. `C` is what an endpoint is called with.
#[derive(Debug)]
pub(super) struct Pool<C> {
    rack: String,
    slots: Vec<Slot<C>>,
    next_id: u64,
}

impl<C: Clone> Pool<C> {
    pub(super) fn new(rack: String) -> Self {
        Self { rack, slots: Vec::new(), next_id: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Another list. One without anybody is not believed.
    pub(super) fn update(&mut self, list: &[Endpoint], connect: impl Fn(&Endpoint) -> C) {
        if list.is_empty() {
            return;
        }
        let mut old = std::mem::take(&mut self.slots);
        for endpoint in list.iter().take(ENDPOINTS_MAX) {
            if self.slots.iter().any(|slot| slot.endpoint.address == endpoint.address) {
                continue;
            }
            let known = old.iter().position(|slot| slot.endpoint.address == endpoint.address);
            let slot = known.map_or_else(
                || {
                    self.next_id += 1;
                    Slot {
                        id: SlotId(self.next_id),
                        endpoint: endpoint.clone(),
                        client: connect(endpoint),
                        in_flight: 0,
                        failures: 0,
                        ejections: 0,
                        ejected_until: None,
                    }
                },
                |at| Slot { endpoint: endpoint.clone(), ..old.swap_remove(at) },
            );
            self.slots.push(slot);
        }
    }

    /// The endpoint to ask, whose call is counted until it [`ended`](Self::ended); `None` if all were tried.
    pub(super) fn pick(
        &mut self,
        tried: &[SlotId],
        now: Instant,
        mut random: impl FnMut() -> u32,
    ) -> Option<(SlotId, C)> {
        let rank = |slot: &Slot<C>| -> Option<u8> {
            if tried.contains(&slot.id) {
                return None;
            }
            let refuses = slot.endpoint.stopping || slot.endpoint.weight == 0;
            let near = !self.rack.is_empty() && slot.endpoint.rack == self.rack;
            Some(match (refuses, slot.is_ejected(now), near) {
                (false, false, true) => 0,
                (false, false, false) => 1,
                (false, true, _) => 2,
                (true, _, _) => 3,
            })
        };
        let best = self.slots.iter().filter_map(rank).min()?;
        let of_best: Vec<usize> =
            (0..self.slots.len()).filter(|at| rank(&self.slots[*at]) == Some(best)).collect();
        let mut draw = |from: usize| ((u64::from(random()) * from as u64) >> 32) as usize;
        let first = draw(of_best.len());
        let mut chosen = of_best[first];
        if of_best.len() > 1 {
            // One of the others.
            let second = draw(of_best.len() - 1);
            let second = of_best[if second < first { second } else { second + 1 }];
            if self.slots[second].is_freer_than(&self.slots[chosen]) {
                chosen = second;
            }
        }
        let slot = &mut self.slots[chosen];
        slot.in_flight += 1;
        Some((slot.id, slot.client.clone()))
    }

    /// A call at an endpoint came to its end. `spread` is drawn by the caller.
    pub(super) fn ended(&mut self, id: SlotId, outcome: Outcome, now: Instant, spread: u32) {
        // It may have gone from the list meanwhile.
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) else { return };
        slot.in_flight = slot.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Answered => (slot.failures, slot.ejections, slot.ejected_until) = (0, 0, None),
            Outcome::Elsewhere | Outcome::GivenUp => {}
            // Calls that were under way when it was ejected say nothing new.
            Outcome::Away | Outcome::Failed if slot.is_ejected(now) => {}
            Outcome::Away => slot.eject(now, spread),
            Outcome::Failed => {
                slot.failures += 1;
                if slot.failures >= FAILURES_MAX {
                    slot.eject(now, spread);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
