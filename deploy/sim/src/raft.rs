//! The masters' log, as a correct replicated log: one order of commands, leaders that change, commands that are applied late, and
//! proposals of which nobody learns what became. (Raft itself is openraft's; the log store has crash tests of its own.)
//!
//! Kept: a command is committed only by the leader of the newest term while it reaches a majority; what an earlier leader left
//! undecided is decided (in the log, or never) before the next leader begins.

use bytes::Bytes;

use crate::clock::{MS, Micros, SECOND};
use crate::master::After;
use crate::message::End;
use crate::world::{Event, World};

/// A leader that reaches no majority is followed by another after this.
const ELECTION: Micros = 300 * MS;
/// How often that is looked at.
pub(crate) const LOOK: Micros = 50 * MS;

/// A committed command.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) command: Bytes,
    pub(crate) time_nanos: u64,
}

/// A command that is not committed yet.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) id: u64,
    term: u64,
    master: usize,
    life: u64,
    entry: Entry,
    after: After,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    pub(crate) term: u64,
    /// The leader of the newest term.
    pub(crate) leader: Option<usize>,
    proposals: Vec<Proposal>,
    /// Since when the leader reaches no majority.
    cut_since: Option<Micros>,
}

impl World {
    /// The master, leading in `term`, proposes a command.
    pub(crate) fn propose(&mut self, master: usize, command: Bytes, after: After) {
        let Some(term) = self.masters[master].leading.as_ref().map(|leading| leading.term) else { return };
        let id = self.fresh();
        let wall = self.masters[master].clock.wall_nanos(self.now);
        let entry = Entry { command, time_nanos: wall };
        let life = self.masters[master].life;
        self.log.proposals.push(Proposal { id, term, master, life, entry, after });
        let delay = self.dice.between(MS, 6 * MS);
        self.at(self.now + delay, Event::Commit { proposal: id });
    }

    /// Whether the master reaches, and is reached by, more than half of all.
    pub(crate) fn has_majority(&self, master: usize) -> bool {
        let reaches = |other: usize| {
            let (a, b) = (End::Master(master), End::Master(other));
            other == master || (self.masters[other].up && self.net.open(a, b) && self.net.open(b, a))
        };
        self.masters[master].up
            && 2 * (0..self.masters.len()).filter(|m| reaches(*m)).count() > self.masters.len()
    }

    /// Whether what the master believes, that it leads, is true.
    pub(crate) fn truly_leads(&self, master: usize) -> bool {
        let believes =
            self.masters[master].leading.as_ref().is_some_and(|leading| leading.term == self.log.term);
        believes && self.log.leader == Some(master) && self.has_majority(master)
    }

    pub(crate) fn try_commit(&mut self, id: u64) {
        let Some(index) = self.log.proposals.iter().position(|proposal| proposal.id == id) else { return };
        let proposal = &self.log.proposals[index];
        if proposal.term != self.log.term {
            return;
        }
        if !self.has_majority(proposal.master) {
            self.at(self.now + 20 * MS, Event::Commit { proposal: id });
            return;
        }
        let Proposal { master, life, entry, after, .. } = self.log.proposals.remove(index);
        self.append(entry);
        if self.masters[master].life != life || !self.masters[master].up {
            return;
        }
        // A leader that is deposed right here has committed and does not know.
        if self.chance(self.faults.depose) {
            self.count("lost answers of masters");
            self.unknown(master, life, after);
            self.elect();
            return;
        }
        let reply = self.apply_all(master).expect("the entry was just appended");
        self.proposed(master, after, Some(&reply));
    }

    fn append(&mut self, mut entry: Entry) {
        let last = self.log.entries.last().map_or(0, |entry| entry.time_nanos);
        entry.time_nanos = entry.time_nanos.max(last);
        self.log.entries.push(entry);
        for master in 0..self.masters.len() {
            let delay = self.dice.between(MS, 200 * MS);
            self.at(self.now + delay, Event::Apply { master });
        }
        self.committed();
    }

    /// The proposer learns, some time, that it will not learn.
    fn unknown(&mut self, master: usize, life: u64, after: After) {
        let delay = self.dice.between(10 * MS, 500 * MS);
        self.at(self.now + delay, Event::Unknown { master, life, after: Box::new(after) });
    }

    /// Looks whether another leader is due.
    pub(crate) fn look_at_leader(&mut self) {
        self.at(self.now + LOOK, Event::LookAtLeader);
        let cut = self.log.leader.is_none_or(|leader| !self.has_majority(leader));
        if !cut {
            self.log.cut_since = None;
            return;
        }
        let since = *self.log.cut_since.get_or_insert(self.now);
        if self.now >= since + ELECTION {
            self.elect();
        }
    }

    /// Another master leads, if one can.
    pub(crate) fn elect(&mut self) {
        let able: Vec<_> = (0..self.masters.len()).filter(|master| self.has_majority(*master)).collect();
        let others: Vec<_> = able.iter().copied().filter(|master| Some(*master) != self.log.leader).collect();
        let Some(leader) = self.dice.pick(if others.is_empty() { &able } else { &others }) else { return };
        self.count("master leader changes");
        self.log.term += 1;
        self.log.cut_since = None;
        if let Some(old) = self.log.leader.replace(leader)
            && old != leader
        {
            // It finds out late.
            let delay = self.dice.between(MS, SECOND / 2);
            let (term, life) = (self.log.term, self.masters[old].life);
            self.at(self.now + delay, Event::Deposed { master: old, life, term });
        }
        // What the old leader left undecided is in the log, or never will be.
        for proposal in std::mem::take(&mut self.log.proposals) {
            let Proposal { master, life, term, entry, after, .. } = proposal;
            // Of a leader deposed before it proposed nothing gets into the log.
            if term + 1 == self.log.term && self.dice.chance(500) {
                self.append(entry);
            }
            self.count("lost answers of masters");
            self.unknown(master, life, after);
        }
        let (term, life) = (self.log.term, self.masters[leader].life);
        let delay = self.dice.between(MS, 50 * MS);
        self.at(self.now + delay, Event::Elected { master: leader, life, term });
        self.trace(|| format!("master {leader} is elected, term {term}"));
    }
}
