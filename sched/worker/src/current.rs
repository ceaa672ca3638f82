//! What runs now, and ending it from another thread.
//!
//! A process's number belongs to it until it is waited for, so signals are sent only under the lock and only while the runner has not yet
//! waited: [`Current::end`] is called when the process has ended and is still a zombie. No signal can reach a stranger.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::attempt::Attempt;

/// Why a program is ended by the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Cancel,
    Timeout,
}

#[derive(Debug)]
struct Running {
    attempt: Attempt,
    /// The leader of its process group, once it was started.
    group: Option<libc::pid_t>,
    deadline: Option<Instant>,
    since: Instant,
    stop: Option<Stop>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Current {
    running: Mutex<Option<Running>>,
    /// True while what runs is to end: for executors that look at it themselves.
    flag: AtomicBool,
    /// Of 1,000,000.
    ppm: AtomicU32,
}

impl Current {
    /// An attempt is about to run.
    pub fn prepare(&self, attempt: Attempt) {
        let running = Running { attempt, group: None, deadline: None, since: Instant::now(), stop: None };
        let mut current = self.running.lock();
        self.flag.store(false, Ordering::Relaxed);
        self.ppm.store(0, Ordering::Relaxed);
        *current = Some(running);
    }

    /// Its time is counted from now.
    pub fn limit(&self, timeout: Option<Duration>) {
        if let Some(running) = self.running.lock().as_mut() {
            running.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        }
    }

    /// It started a process that leads a group. If it was stopped before, that is made good now.
    pub fn started(&self, group: libc::pid_t) {
        if let Some(running) = self.running.lock().as_mut() {
            running.group = Some(group);
            if running.stop.is_some() {
                kill_group(group);
            }
        }
    }

    /// Its process has ended and was not waited for: kills what is left of the group.
    pub fn end(&self) {
        if let Some(running) = self.running.lock().as_mut()
            && let Some(group) = running.group.take()
        {
            kill_group(group);
        }
    }

    /// Whether the worker has ended it, or is to do so.
    #[must_use]
    pub fn stopped(&self) -> Option<Stop> {
        self.running.lock().as_ref().and_then(|running| running.stop)
    }

    /// Ends this attempt, if it runs.
    pub fn stop(&self, attempt: Attempt, why: Stop) {
        if let Some(running) = self.running.lock().as_mut().filter(|running| running.attempt == attempt) {
            self.flag.store(true, Ordering::Relaxed);
            running.stop_for(why);
        }
    }

    /// True while what runs is to end.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// It has done so much of all.
    pub fn progress(&self, done: u64, all: u64) {
        let ppm = u128::from(done) * 1_000_000 / u128::from(all.max(1));
        self.ppm.store(u32::try_from(ppm.min(1_000_000)).unwrap_or(0), Ordering::Relaxed);
    }

    /// How far it is, of 1,000,000; 0 if it does not say.
    #[must_use]
    pub fn ppm(&self) -> u32 {
        self.ppm.load(Ordering::Relaxed)
    }

    /// Nothing runs any more.
    pub fn clear(&self) {
        *self.running.lock() = None;
    }

    /// Ends it if its time is up. How long it has been running, if anything does.
    pub fn check(&self, now: Instant) -> Option<Duration> {
        let mut current = self.running.lock();
        let running = current.as_mut()?;
        if running.deadline.is_some_and(|deadline| deadline <= now) {
            self.flag.store(true, Ordering::Relaxed);
            running.stop_for(Stop::Timeout);
        }
        Some(now.saturating_duration_since(running.since))
    }
}

impl Running {
    fn stop_for(&mut self, why: Stop) {
        // The first reason is the one that counts.
        self.stop.get_or_insert(why);
        if let Some(group) = self.group {
            kill_group(group);
        }
    }
}

fn kill_group(group: libc::pid_t) {
    // SAFETY: kill takes no pointers. The group's leader was not waited for (see the module), so the number is its own.
    let _ = unsafe { libc::kill(-group, libc::SIGKILL) };
}
