//! What to do when an attempt failed: a pure decision, and the waiting that goes with it.

use std::time::Duration;

use crate::status::{Code, Status};

/// First wait; short, because most failures are a leader that has just changed.
const WAIT_MIN: Duration = Duration::from_millis(5);
/// Longest wait: an election takes about a second, and whoever waits for it should not add much to that.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Hints followed at once. Two members that point at each other would otherwise keep a caller spinning.
const HINTS_MAX: u32 = 3;

/// Where to try next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Same,
    Next,
    /// The address a member named as the leader's.
    Leader(String),
}

/// What to do about a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Retry {
        target: Target,
        wait: Duration,
    },
    /// Trying again would give the same.
    GiveUp,
}

/// One call's attempts so far.
#[derive(Debug)]
pub(super) struct Attempts {
    members: u32,
    failures: u32,
    hints: u32,
}

impl Attempts {
    pub(super) fn new(members: usize) -> Self {
        Self { members: u32::try_from(members).unwrap_or(u32::MAX), failures: 0, hints: 0 }
    }

    /// `jitter` is drawn from 0..1 by the caller.
    pub(super) fn failed(&mut self, status: &Status, jitter: f64) -> Step {
        match status.code {
            Code::NotLeader => match std::str::from_utf8(&status.detail) {
                Ok(leader) if !leader.is_empty() => {
                    self.hints += 1;
                    let wait = if self.hints <= HINTS_MAX { Duration::ZERO } else { self.wait(jitter) };
                    Step::Retry { target: Target::Leader(leader.to_owned()), wait }
                }
                _ => Step::Retry { target: Target::Next, wait: self.wait_after_all(jitter) },
            },
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal => {
                Step::Retry { target: Target::Next, wait: self.wait_after_all(jitter) }
            }
            Code::Busy => {
                let wait = self.wait(jitter);
                Step::Retry { target: Target::Same, wait: status.retry_after.unwrap_or(wait).min(WAIT_MAX) }
            }
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Stale
            | Code::NotCommitted
            | Code::PermissionDenied
            | Code::DataLoss
            | Code::Unimplemented
            | Code::Full => Step::GiveUp,
        }
    }

    /// Every member is asked once before anybody waits.
    fn wait_after_all(&mut self, jitter: f64) -> Duration {
        if self.failures + 1 < self.members {
            self.failures += 1;
            return Duration::ZERO;
        }
        self.wait(jitter)
    }

    fn wait(&mut self, jitter: f64) -> Duration {
        let doublings = self.failures.saturating_sub(self.members.saturating_sub(1)).min(16);
        self.failures = self.failures.saturating_add(1);
        let full = (WAIT_MIN * (1 << doublings)).min(WAIT_MAX);
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, detail: &'static str) -> Status {
        let mut status = Status::new(code, "test");
        status.detail = detail.into();
        status
    }

    fn wait(step: Step) -> Duration {
        match step {
            Step::Retry { wait, .. } => wait,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn asks_every_member_once_before_it_waits() {
        let mut attempts = Attempts::new(3);
        let away = status(Code::Unavailable, "");
        assert_eq!(wait(attempts.failed(&away, 1.0)), Duration::ZERO);
        assert_eq!(wait(attempts.failed(&away, 1.0)), Duration::ZERO);
        assert_eq!(wait(attempts.failed(&away, 1.0)), WAIT_MIN);
        assert_eq!(wait(attempts.failed(&away, 1.0)), WAIT_MIN * 2);
        for _ in 0..20 {
            assert!(wait(attempts.failed(&away, 0.0)) <= WAIT_MAX);
        }
        assert_eq!(wait(attempts.failed(&away, 0.0)), WAIT_MAX / 2);
    }

    #[test]
    fn follows_a_hint_at_once_but_not_in_circles() {
        let mut attempts = Attempts::new(3);
        let hint = status(Code::NotLeader, "unix:///b");
        for _ in 0..HINTS_MAX {
            let expected = Step::Retry { target: Target::Leader("unix:///b".into()), wait: Duration::ZERO };
            assert_eq!(attempts.failed(&hint, 1.0), expected);
        }
        assert!(wait(attempts.failed(&hint, 1.0)) > Duration::ZERO);
    }

    #[test]
    fn asks_the_next_member_whatever_became_of_the_one_before() {
        for code in
            [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Internal, Code::NotLeader]
        {
            let expected = Step::Retry { target: Target::Next, wait: Duration::ZERO };
            assert_eq!(Attempts::new(3).failed(&status(code, ""), 1.0), expected, "{code:?}");
        }
    }

    #[test]
    fn gives_up_what_cannot_change() {
        let mut attempts = Attempts::new(1);
        assert_eq!(attempts.failed(&status(Code::InvalidArgument, ""), 0.5), Step::GiveUp);
        assert_eq!(attempts.failed(&status(Code::NotFound, ""), 0.5), Step::GiveUp);
        assert!(wait(attempts.failed(&status(Code::Unavailable, ""), 1.0)) > Duration::ZERO);
    }
}
