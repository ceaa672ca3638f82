//! Trying again: pauses that grow and are spread, within a deadline and a budget.
//!
//! A budget is shared by all calls to one service: retries are at most a share of the calls, so that a service in
//! trouble is not finished off by its clients.

use std::future::Future;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::status::{Code, Status};

/// How pauses grow.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The first pause. Default 5 ms.
    pub first: Duration,
    /// Doubled up to this. Default 500 ms.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first: Duration::from_millis(5), max: Duration::from_millis(500) }
    }
}

impl RetryPolicy {
    /// The pauses of one call.
    #[must_use]
    pub const fn pauses(self) -> Backoff {
        Backoff { policy: self, tried: 0 }
    }
}

/// The pauses of one call: each is between half of and its whole length, at random.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    tried: u32,
}

impl Backoff {
    /// The next pause; never shorter than what the server asked for.
    pub fn next_pause(&mut self, status: &Status) -> Duration {
        let full =
            self.policy.first.saturating_mul(2u32.saturating_pow(self.tried.min(20))).min(self.policy.max);
        self.tried = self.tried.saturating_add(1);
        let pause = full.mul_f64(rand::random_range(0.5..=1.0));
        status.retry_after.map_or(pause, |after| pause.max(after))
    }

    /// After a success or a change for the better: begin with short pauses again.
    pub const fn reset(&mut self) {
        self.tried = 0;
    }
}

/// Retries allowed: each call earns a share of one, up to a reserve.
#[derive(Debug)]
pub struct RetryBudget {
    /// In thousandths of a retry.
    tokens: Mutex<u64>,
    per_call: u64,
    reserve: u64,
}

const RETRY: u64 = 1000;

impl RetryBudget {
    /// At most `percent` retries per hundred calls, and a reserve of `reserve` retries.
    #[must_use]
    pub fn new(percent: u32, reserve: u32) -> Self {
        let reserve = u64::from(reserve) * RETRY;
        Self { tokens: Mutex::new(reserve), per_call: u64::from(percent) * RETRY / 100, reserve }
    }

    /// A call is made.
    pub fn earn(&self) {
        let mut tokens = self.tokens.lock();
        *tokens = (*tokens + self.per_call).min(self.reserve);
    }

    /// Whether a retry may be made; it is counted then.
    #[must_use]
    pub fn spend(&self) -> bool {
        let mut tokens = self.tokens.lock();
        let allowed = *tokens >= RETRY;
        if allowed {
            *tokens -= RETRY;
        }
        allowed
    }
}

/// Calls `attempt` until it succeeds, its status is not retryable, the deadline is too near for the next pause, or the
/// budget is spent. The status of the last attempt is returned then.
///
/// For idempotent methods only, or calls that carry their own stamp: after UNAVAILABLE the call may have been executed.
///
/// # Errors
/// The last attempt's.
pub async fn retry<T, F, Fut>(
    policy: RetryPolicy,
    budget: &RetryBudget,
    deadline: Instant,
    mut attempt: F,
) -> Result<T, Status>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    budget.earn();
    let mut pauses = policy.pauses();
    loop {
        let status = match attempt().await {
            Err(status) if status.retryable() => status,
            result => return result,
        };
        let pause = pauses.next_pause(&status);
        // BUSY was not executed and says when to come back: it costs the server next to nothing.
        let affordable = status.code == Code::Busy || budget.spend();
        if !affordable || Instant::now() + pause >= deadline {
            return Err(status);
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn pauses_grow_to_a_bound_and_heed_the_server() {
        let mut pauses = RetryPolicy { first: 10 * MS, max: 50 * MS }.pauses();
        let status = Status::unavailable("x");
        for full in [10, 20, 40, 50, 50] {
            let pause = pauses.next_pause(&status);
            assert!(pause >= full * MS / 2 && pause <= full * MS, "{pause:?} of {full}");
        }
        assert!(pauses.next_pause(&Status::busy("x", Duration::from_secs(2))) >= Duration::from_secs(2));
        pauses.reset();
        assert!(pauses.next_pause(&status) <= 10 * MS);
    }

    #[test]
    fn budget() {
        let budget = RetryBudget::new(50, 2);
        assert!(budget.spend() && budget.spend() && !budget.spend());
        budget.earn();
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        (0..100).for_each(|_| budget.earn());
        assert!(budget.spend() && budget.spend() && !budget.spend());
    }

    async fn attempts(
        statuses: &[Status],
        budget: &RetryBudget,
        deadline: Instant,
    ) -> (usize, Result<(), Status>) {
        let mut count = 0;
        let policy = RetryPolicy { first: MS, max: MS };
        let result = retry(policy, budget, deadline, || {
            count += 1;
            std::future::ready(statuses.get(count - 1).map_or(Ok(()), |status| Err(status.clone())))
        })
        .await;
        (count, result)
    }

    #[tokio::test]
    async fn retries_what_may_be_retried() {
        let away = Status::unavailable("away");
        let (count, result) =
            attempts(&[away.clone(), away.clone()], &RetryBudget::new(10, 10), soon()).await;
        assert_eq!((count, result), (3, Ok(())));
        let gone = Status::not_found("gone");
        let (count, result) = attempts(&[away, gone.clone()], &RetryBudget::new(10, 10), soon()).await;
        assert_eq!((count, result), (2, Err(gone)));
    }

    #[tokio::test]
    async fn stops_at_budget_and_deadline() {
        let away = vec![Status::unavailable("away"); 10];
        assert_eq!(attempts(&away, &RetryBudget::new(10, 3), soon()).await, (4, Err(away[0].clone())));
        assert_eq!(
            attempts(&away, &RetryBudget::new(10, 9), Instant::now()).await,
            (1, Err(away[0].clone()))
        );
        // BUSY costs no budget.
        let busy = vec![Status::busy("busy", MS); 5];
        assert_eq!(attempts(&busy, &RetryBudget::new(0, 0), soon()).await, (6, Ok(())));
    }
}
