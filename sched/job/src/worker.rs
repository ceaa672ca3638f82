//! A worker: one grant of one unit on one node, and what it was given.

use std::collections::VecDeque;

use crate::ids::{Time, UnitId};
use crate::nodes::NodeIx;

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) unit: UnitId,
    pub(crate) node: NodeIx,
    /// It has called; before, it is only granted.
    pub(crate) joined: bool,
    /// Since when it is as it is: granted, or without work.
    pub(crate) since: Time,
    /// What it was given and has not answered, in the order it runs them. The first is what runs.
    pub(crate) held: VecDeque<Held>,
    /// How many more it takes.
    pub(crate) room: u32,
}

/// One attempt of one instance of a stage, with all members of its gang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) stage: usize,
    pub(crate) instance: u32,
    pub(crate) number: u32,
    /// Members that have not answered, a bit each.
    pub(crate) left: u8,
    /// It was cancelled, and until when an answer is waited for.
    pub(crate) cancelled: Option<Time>,
}

/// What a report of one member means to its worker's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was not given that, or has answered it.
    Unknown,
    /// The member has answered before, others have not.
    Again,
    /// Other members are still to answer.
    More,
    /// That was the last; it is no longer in the list. `was_first` if it stood first.
    Last { was_first: bool },
}

impl Worker {
    pub(crate) fn new(unit: UnitId, node: NodeIx, since: Time) -> Worker {
        Worker { unit, node, joined: false, since, held: VecDeque::new(), room: 0 }
    }

    pub(crate) fn find(&self, stage: usize, instance: u32, number: u32) -> Option<usize> {
        self.held.iter().position(|h| h.stage == stage && h.instance == instance && h.number == number)
    }

    pub(crate) fn answer(&mut self, stage: usize, instance: u32, number: u32, member: u8) -> Answer {
        let Some(at) = self.find(stage, instance, number) else { return Answer::Unknown };
        let held = &mut self.held[at];
        if held.left & (1 << member) == 0 {
            return Answer::Again;
        }
        held.left &= !(1 << member);
        if held.left != 0 {
            return Answer::More;
        }
        self.held.remove(at);
        Answer::Last { was_first: at == 0 }
    }
}
