//! What a worker holds: attempts it was given, the one that runs, and reports that nobody has acknowledged. Pure.
//!
//! What holds, whatever arrives in whatever order:
//! - an attempt is in at most one of the queue, the running place and the reports;
//! - it leaves the reports only by being acknowledged;
//! - there are never more than [`Desk::bound`] in all, however much somebody sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::attempt::{Attempt, Piece};
use crate::report::{Outcome, Report};
use crate::task::Task;

/// An attempt to be run.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub attempt: Attempt,
    pub task: Arc<Task>,
    pub input: Vec<Piece>,
}

/// What the job's master said.
#[derive(Clone, Debug, Default)]
pub struct News {
    pub acknowledged: Vec<Attempt>,
    pub tasks: Vec<(u32, Arc<Task>)>,
    pub cancel: Vec<Attempt>,
    pub work: Vec<(Attempt, Vec<Piece>)>,
}

/// What there is to do after news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// The attempt that runs is to be ended.
    pub stop: Option<Attempt>,
    /// Attempts that were sent and not taken: of tasks nobody described, or more than there is room for. The master sends them again,
    /// since they are not among what is held.
    pub refused: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    prefetch: usize,
    queue: VecDeque<(Attempt, Vec<Piece>)>,
    running: Option<Attempt>,
    finished: BTreeMap<Attempt, Report>,
    tasks: BTreeMap<u32, Arc<Task>>,
}

impl Desk {
    /// Takes up to `prefetch` attempts at once, at least one.
    #[must_use]
    pub fn new(prefetch: usize) -> Self {
        Self {
            prefetch: prefetch.max(1),
            queue: VecDeque::new(),
            running: None,
            finished: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    /// No more than so many attempts are ever here.
    #[must_use]
    pub fn bound(&self) -> usize {
        3 * self.prefetch
    }

    /// How many more it takes: fewer while reports pile up, none when two rounds of them did.
    #[must_use]
    pub fn room(&self) -> usize {
        let held = self.queue.len() + usize::from(self.running.is_some());
        let unreported = (2 * self.prefetch).saturating_sub(self.finished.len());
        (self.prefetch.saturating_sub(held)).min(unreported)
    }

    /// Given, and neither finished nor cancelled.
    pub fn holds(&self) -> impl Iterator<Item = Attempt> + '_ {
        self.running.iter().copied().chain(self.queue.iter().map(|(attempt, _)| *attempt))
    }

    /// Reports that are not acknowledged, in the order of their names.
    pub fn finished(&self) -> impl ExactSizeIterator<Item = (Attempt, &Report)> + '_ {
        self.finished.iter().map(|(attempt, report)| (*attempt, report))
    }

    /// Tasks that were described.
    pub fn tasks(&self) -> impl Iterator<Item = u32> + '_ {
        self.tasks.keys().copied()
    }

    /// The attempt that runs.
    #[must_use]
    pub fn running(&self) -> Option<Attempt> {
        self.running
    }

    /// Nothing runs and nothing is to be run.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.queue.is_empty()
    }

    /// Takes in what the master said.
    pub fn apply(&mut self, news: News) -> Todo {
        let mut todo = Todo::default();
        for attempt in &news.acknowledged {
            self.finished.remove(attempt);
        }
        self.tasks.extend(news.tasks);
        for attempt in news.cancel {
            if self.running == Some(attempt) {
                todo.stop = Some(attempt);
            } else if let Some(at) = self.queue.iter().position(|(queued, _)| *queued == attempt) {
                self.queue.remove(at);
                let report = Report::never_ran(Outcome::Cancelled, "cancelled before it began");
                self.finished.insert(attempt, report);
            }
        }
        let mut held: BTreeSet<Attempt> = self.holds().collect();
        for (attempt, input) in news.work {
            if held.contains(&attempt) || self.finished.contains_key(&attempt) {
                continue;
            }
            if self.room() == 0 || !self.tasks.contains_key(&attempt.task) {
                todo.refused += 1;
                continue;
            }
            held.insert(attempt);
            self.queue.push_back((attempt, input));
        }
        todo
    }

    /// The next attempt, which runs from now on; `None` while one does, or if there is none.
    pub fn begin(&mut self) -> Option<Assignment> {
        if self.running.is_some() {
            return None;
        }
        let (attempt, input) = self.queue.pop_front()?;
        let task = Arc::clone(self.tasks.get(&attempt.task)?);
        self.running = Some(attempt);
        Some(Assignment { attempt, task, input })
    }

    /// The attempt that ran has ended.
    pub fn end(&mut self, attempt: Attempt, report: Report) {
        debug_assert_eq!(self.running, Some(attempt), "only what runs can end");
        self.running = None;
        self.finished.insert(attempt, report);
    }
}

#[cfg(test)]
#[path = "desk/tests.rs"]
mod tests;
