//! Which disks are slow beside the others, and which of them groups go on without: slow is failed, with a budget. Pure: measures and
//! time come in, see `master/docs/groups.md`, "Slow disks".
//!
//! Invariants, whatever the measures:
//! - what is out for slowness is on at most [`Rules::servers_max`] servers and has at most [`Rules::percent_max`] percent of the capacity;
//! - a disk is compared with those of other servers only, and with the slower half of them: what makes all of them slow condemns none;
//! - with measures that stay as they are, so does after a while who is out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use coord_types::{DiskId, ServerId};
use master_model::Pace;

/// Fewer others say nothing of what is usual.
const PEERS_MIN: usize = 2;
/// A disk that was out waits twice as long the next time, at most so many times.
const DOUBLINGS_MAX: u32 = 6;
/// A disk that was in use for so long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

/// When a disk is slow, and how many may be out for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A durable write that takes less is never slow.
    pub floor: Duration,
    /// Nor is one that takes less than so many times what it takes the others.
    pub ratio: u32,
    /// For so long without a break.
    pub after: Duration,
    /// It comes back when it was fast for so long: at less than half of what makes it slow.
    pub return_after: Duration,
    /// Servers with disks that are out for slowness. 0: none ever is.
    pub servers_max: u32,
    /// Of all capacity, what is out for slowness.
    pub percent_max: u32,
}

impl Rules {
    pub const DEFAULT: Self = Self {
        floor: Duration::from_millis(50),
        ratio: 5,
        after: Duration::from_secs(10),
        return_after: Duration::from_secs(60),
        servers_max: 1,
        percent_max: 34,
    };
}

impl Default for Rules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is known of a disk whose server is not gone.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    pub disk: DiskId,
    pub server: ServerId,
    pub capacity_bytes: u64,
    /// What a durable write takes. `None`: not known, or not heard lately.
    pub latency: Option<Duration>,
    /// It is an offline member of some group.
    pub away: bool,
}

/// How it goes with one disk.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    slow_since: Option<Instant>,
    fast_since: Option<Instant>,
    out: bool,
    /// Times it was out, and when it came back.
    outs: u32,
    back: Option<Instant>,
    pace: Pace,
}

/// See the module. What is kept is bounded by the disks there are.
#[derive(Debug, Default)]
pub struct Judge {
    courses: BTreeMap<DiskId, Course>,
}

impl Judge {
    /// Looks at all disks. `begun`: when this master began to lead. One that just began does not know who was out before: a disk
    /// that is away and slow is taken to have been.
    pub fn judge(&mut self, measures: &[Measure], rules: &Rules, begun: Instant, now: Instant) {
        let known: BTreeSet<_> = measures.iter().map(|measure| measure.disk).collect();
        self.courses.retain(|disk, _| known.contains(disk));
        let lasting =
            |since: Option<Instant>, time| since.is_some_and(|at| now.saturating_duration_since(at) >= time);
        let is_new = !lasting(Some(begun), rules.after);
        let mut slow = Vec::new();
        for measure in measures {
            let usual = self.usual(measure, measures);
            let course = self.courses.entry(measure.disk).or_default();
            let Some(latency) = measure.latency else {
                (course.slow_since, course.fast_since) = (None, None);
                course.pace = if course.out { Pace::Out } else { Pace::Usual };
                continue;
            };
            let limit = rules.floor.max(usual.unwrap_or_default().saturating_mul(rules.ratio));
            let is_slow = latency > limit && usual.is_some();
            course.slow_since = course.slow_since.or(Some(now)).filter(|_| is_slow);
            course.fast_since = course.fast_since.or(Some(now)).filter(|_| latency < limit / 2);
            let wait =
                rules.return_after.saturating_mul(1 << course.outs.saturating_sub(1).min(DOUBLINGS_MAX));
            if course.out && lasting(course.fast_since, wait) {
                course.out = false;
                course.back = Some(now);
            }
            if !course.out && lasting(course.back, FORGIVEN_AFTER) {
                (course.outs, course.back) = (0, None);
            }
            let was_out = is_new && measure.away && latency > limit;
            let is_lasting = lasting(course.slow_since, rules.after);
            course.pace = match (course.out, is_lasting) {
                (true, _) => Pace::Out,
                (false, true) => Pace::Slow,
                (false, false) => Pace::Usual,
            };
            if !course.out && (is_lasting || was_out) {
                // Who was out before first, then who is slow for the longest time, then the slowest.
                slow.push(((!was_out, course.slow_since, std::cmp::Reverse(latency), measure.disk), measure));
            }
        }
        slow.sort_unstable_by_key(|(rank, _)| *rank);
        for (_, measure) in slow {
            if self.has_room(measure, measures, rules) {
                let course = self.courses.entry(measure.disk).or_default();
                course.out = true;
                course.outs += 1;
                course.pace = Pace::Out;
            }
        }
    }

    #[must_use]
    pub fn pace(&self, disk: DiskId) -> Pace {
        self.courses.get(&disk).map(|course| course.pace).unwrap_or_default()
    }

    /// The disks that groups should go on without.
    pub fn out(&self) -> impl Iterator<Item = DiskId> + '_ {
        self.courses.iter().filter(|(_, course)| course.out).map(|(disk, _)| *disk)
    }

    fn is_out(&self, disk: DiskId) -> bool {
        self.courses.get(&disk).is_some_and(|course| course.out)
    }

    /// The median of the disks of other servers; of two in the middle the slower one.
    fn usual(&self, of: &Measure, measures: &[Measure]) -> Option<Duration> {
        let others = measures.iter().filter(|other| other.server != of.server && !self.is_out(other.disk));
        let mut latencies: Vec<_> = others.filter_map(|other| other.latency).collect();
        latencies.sort_unstable();
        latencies.get(latencies.len() / 2).copied().filter(|_| latencies.len() >= PEERS_MIN)
    }

    /// Whether one more may be out.
    fn has_room(&self, more: &Measure, measures: &[Measure], rules: &Rules) -> bool {
        let out = || measures.iter().filter(|measure| measure.disk == more.disk || self.is_out(measure.disk));
        let servers: BTreeSet<_> = out().map(|measure| measure.server).collect();
        let bytes = |measure: &Measure| u128::from(measure.capacity_bytes);
        let all: u128 = measures.iter().map(bytes).sum();
        servers.len() <= rules.servers_max as usize
            && out().map(bytes).sum::<u128>() * 100 <= all * u128::from(rules.percent_max)
    }
}

#[cfg(test)]
mod tests;
