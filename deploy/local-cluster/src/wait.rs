//! Waiting for conditions, never for time.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How often a condition is asked again: short beside what is waited for, long beside what the question costs.
const POLL: Duration = Duration::from_millis(10);

/// A moment until which several steps may take their time together.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    start: Instant,
    within: Duration,
}

impl Deadline {
    /// From now on.
    #[must_use]
    pub fn within(within: Duration) -> Self {
        Self { start: Instant::now(), within }
    }

    /// The time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.start.elapsed() >= self.within
    }

    /// The whole span.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.within
    }
}

/// Asks `condition` until it says true. An error of the condition ends the wait at once.
pub fn wait_until(
    what: &str,
    deadline: Deadline,
    mut condition: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    while !condition()? {
        if deadline.is_over() {
            return Err(Error::Late { what: what.to_owned(), within: deadline.span(), tails: String::new() });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut asked = 0;
        wait_until("three", Deadline::within(Duration::from_secs(10)), || {
            asked += 1;
            Ok(asked == 3)
        })
        .unwrap();
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_condition_that_never_comes_is_named() {
        let late = wait_until("the moon", Deadline::within(Duration::ZERO), || Ok(false)).unwrap_err();
        assert!(late.to_string().contains("the moon"), "{late}");
    }
}
