//! Backups: a second attempt, on another node, of an instance that is much slower than the others of its task, and a third if the
//! second is no better. The first to end well wins, the others are cancelled.

use super::Job;
use crate::effect::EventKind;
use crate::ids::Time;
use crate::stage::{Live, Phase};

/// Finished instances whose median is worth something.
const SAMPLES_MIN: u64 = 3;

/// Attempts of one instance at a time. With two, one in a hundred instances of a job with a tenth of slow attempts is slow all the same, and
/// the simulated job waits for it at its end (133 % of the calm time instead of 114 %).
pub(super) const ATTEMPTS_AT_A_TIME: usize = 3;

/// Backups of one task that may always run at a time, however few of its instances run.
const AT_A_TIME_MIN: u32 = 2;

/// What makes an attempt of a stage slow, at a moment.
struct Slow {
    now: Time,
    median_ms: u64,
    /// So many have finished that the rest is late by the median alone.
    late: bool,
}

impl Job {
    pub(super) fn find_slow(&mut self, now: Time) {
        if !self.gives_out() {
            return;
        }
        for at in 0..self.stages.len() {
            if self.stages[at].spec.backup && !self.stages[at].announced && self.stages[at].running > 0 {
                self.find_slow_of(at, now);
            }
        }
    }

    fn find_slow_of(&mut self, at: usize, now: Time) {
        let stage = &self.stages[at];
        let finished = u64::from(stage.done.ones() + stage.promoting) * 100;
        let instances = u64::from(stage.spec.instances);
        let Some(median_ms) = stage.durations.median_ms() else { return };
        let late = finished >= instances * u64::from(self.settings.backup_after_percent);
        let rated = finished >= instances * u64::from(self.settings.backup_rate_after_percent);
        if stage.durations.count() < SAMPLES_MIN.min(instances / 2) || !(late || rated) {
            return;
        }
        let most = (stage.running * self.settings.backups_max_percent / 100).max(AT_A_TIME_MIN);
        let now_many = stage.backups_running + stage.backups_due.len() as u32;
        let slow = Slow { now, median_ms, late };
        let candidates = stage.live.iter().filter(|(instance, live)| {
            !stage.backups_due.contains(instance) && self.elapsed_if_slow(live, &slow).is_some()
        });
        let found: Vec<(u32, u64)> = candidates
            .take(most.saturating_sub(now_many) as usize)
            .map(|(instance, live)| (*instance, self.elapsed_if_slow(live, &slow).unwrap_or(0)))
            .collect();
        let name = self.stage_name(at).to_owned();
        for (instance, elapsed_ms) in found {
            self.stages[at].backups_due.insert(instance);
            let text = format!(
                "instance {instance} of {name} is slow: {elapsed_ms} ms, where half take less than {median_ms} ms; it gets a backup"
            );
            self.out.tell(now, EventKind::Backup, text);
            self.work_appeared = true;
            self.demand_changed = true;
        }
    }

    /// How long its newest attempt has run, in milliseconds, if all of them are slow and it may have another.
    fn elapsed_if_slow(&self, live: &Live, slow: &Slow) -> Option<u64> {
        if live.phase != Phase::Running || live.attempts.len() >= ATTEMPTS_AT_A_TIME {
            return None;
        }
        let mut least_ms = None;
        for attempt in &live.attempts {
            let elapsed_ms = slow.now.since_ms(attempt.started?);
            if elapsed_ms < self.settings.backup_min_ms {
                return None;
            }
            let is_late =
                slow.late && elapsed_ms * 100 > slow.median_ms * self.settings.backup_slower_percent;
            // At this rate it would take elapsed / done, of which the share in the settings is more than the median.
            let done_ppm = u128::from(attempt.done_ppm);
            let crawls = done_ppm > 0
                && u128::from(elapsed_ms) * 10_000 * u128::from(self.settings.backup_rate_percent)
                    > u128::from(slow.median_ms) * done_ppm;
            if !is_late && !crawls {
                return None;
            }
            least_ms = Some(least_ms.unwrap_or(u64::MAX).min(elapsed_ms));
        }
        least_ms
    }
}
