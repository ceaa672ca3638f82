//! The calls of one connection that wait for answers. Pure but for wakers.
//!
//! Each call has a slot; its id names the slot and how often that was used, so that an answer to an earlier call never
//! reaches a later one. A call given up keeps its slot, as its credit is out until the server answered.

use std::task::{Poll, Waker};
use std::time::Instant;

use crate::conn::Answer;
use crate::status::Status;

/// What a call ends with.
pub(super) type Outcome = Result<Answer, Status>;

#[derive(Debug)]
enum State {
    Free,
    Waiting(Option<Waker>),
    Done(Outcome),
    /// Its deadline passed; the caller has not looked yet, the answer is still to come.
    Expired,
    /// Nobody waits any more, but the answer is still to come.
    Abandoned,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
    deadline: Instant,
    credit_units: u32,
}

/// What the end of a call gives back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credit {
    pub(super) units: u32,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    free: Vec<u32>,
    waiting: usize,
    /// No call's deadline is earlier. May be too early, never too late.
    earliest: Option<Instant>,
    /// Set when the connection ended: no call can be added any more.
    failure: Option<Status>,
}

impl Calls {
    /// A new call. The second value says that its deadline is now the earliest.
    pub(super) fn insert(&mut self, deadline: Instant, credit_units: u32) -> Result<(u64, bool), Status> {
        if let Some(status) = &self.failure {
            return Err(status.clone());
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, state: State::Free, deadline, credit_units: 0 });
            u32::try_from(self.slots.len() - 1).expect("credit bounds the number of calls")
        });
        let slot = &mut self.slots[index as usize];
        // Generations start at 1: no id is 0.
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.state = State::Waiting(None);
        slot.deadline = deadline;
        slot.credit_units = credit_units;
        self.waiting += 1;
        let earliest = self.earliest.is_none_or(|earliest| deadline < earliest);
        if earliest {
            self.earliest = Some(deadline);
        }
        Ok((u64::from(slot.generation) << 32 | u64::from(index), earliest))
    }

    /// Whether any call waits.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// No call's deadline is earlier than this.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// Whether no answer is outstanding.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// An answer came. `None` if nobody can have asked: a duplicate, or one from another time.
    pub(super) fn complete(&mut self, id: u64, outcome: Outcome) -> Option<(Credit, Option<Waker>)> {
        let index = self.find(id)?;
        let slot = &mut self.slots[index as usize];
        let credit = Credit { units: slot.credit_units };
        match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Done(outcome);
                // Its credit is given back now, not when the caller looks.
                slot.credit_units = 0;
                self.waiting -= 1;
                Some((credit, waker))
            }
            State::Expired => {
                slot.state = State::Done(Err(expired()));
                Some((credit, None))
            }
            State::Abandoned => {
                self.release(index);
                Some((credit, None))
            }
            State::Free | State::Done(_) => None,
        }
    }

    /// The outcome, if it is there; the slot is free then. Otherwise `waker` is remembered.
    pub(super) fn poll(&mut self, id: u64, waker: &Waker) -> Poll<Outcome> {
        let index = self.find(id).expect("a call polls its own slot, until it has its outcome");
        let slot = &mut self.slots[index as usize];
        match &mut slot.state {
            State::Waiting(Some(known)) => known.clone_from(waker),
            State::Waiting(empty) => *empty = Some(waker.clone()),
            State::Expired => {
                slot.state = State::Abandoned;
                return Poll::Ready(Err(expired()));
            }
            State::Done(_) | State::Free | State::Abandoned => {
                let State::Done(outcome) = self.release(index) else {
                    unreachable!("the slot is its caller's until the caller has the outcome or gives up");
                };
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    }

    /// The caller does not wait any more. True: the server should be told.
    pub(super) fn abandon(&mut self, id: u64) -> bool {
        let Some(index) = self.find(id) else { return false };
        let slot = &mut self.slots[index as usize];
        match slot.state {
            State::Waiting(_) => {
                slot.state = State::Abandoned;
                self.waiting -= 1;
                true
            }
            State::Expired => {
                slot.state = State::Abandoned;
                false
            }
            State::Done(_) => {
                self.release(index);
                false
            }
            State::Free | State::Abandoned => false,
        }
    }

    /// Ends calls whose deadline passed; their wakers and ids (to cancel at the server) go into `ended`.
    pub(super) fn expire(&mut self, now: Instant, ended: &mut Vec<(u64, Option<Waker>)>) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        self.earliest = None;
        for (index, slot) in (0u32..).zip(&mut self.slots) {
            let State::Waiting(waker) = &mut slot.state else { continue };
            if now < slot.deadline {
                self.earliest = Some(self.earliest.map_or(slot.deadline, |at| at.min(slot.deadline)));
                continue;
            }
            let waker = waker.take();
            slot.state = State::Expired;
            self.waiting -= 1;
            ended.push((u64::from(slot.generation) << 32 | u64::from(index), waker));
        }
    }

    /// The connection ended: all calls that wait fail with `status`, and no call can be added any more.
    pub(super) fn fail_all(&mut self, status: &Status, wake: &mut Vec<Waker>) {
        self.failure.get_or_insert_with(|| status.clone());
        self.earliest = None;
        self.waiting = 0;
        for (index, slot) in (0u32..).zip(&mut self.slots) {
            match &mut slot.state {
                State::Waiting(waker) => {
                    wake.extend(waker.take());
                    slot.state = State::Done(Err(status.clone()));
                }
                State::Expired => slot.state = State::Done(Err(expired())),
                State::Abandoned => {
                    slot.state = State::Free;
                    self.free.push(index);
                }
                State::Free | State::Done(_) => {}
            }
        }
    }

    fn find(&self, id: u64) -> Option<u32> {
        let (generation, index) = ((id >> 32) as u32, id as u32);
        let slot = self.slots.get(index as usize)?;
        (slot.generation == generation).then_some(index)
    }

    fn release(&mut self, index: u32) -> State {
        self.free.push(index);
        std::mem::replace(&mut self.slots[index as usize].state, State::Free)
    }
}

fn expired() -> Status {
    Status::deadline_exceeded("no answer within the deadline")
}

#[cfg(test)]
mod tests;
