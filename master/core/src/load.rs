//! How much is written to each group, as its primary says with each heartbeat: smoothed, so that what lasts counts and what comes and
//! goes does not. Of one leader's time: a new one begins anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coord_types::GroupId;

/// What was said so long ago has half the weight.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Who said nothing for so long has nothing to say: the load is gone.
const SILENT: Duration = Duration::from_secs(5);
/// The means are shown to the planner anew this often: it looks only at what changed.
const SHOWN_FOR: Duration = Duration::from_secs(30);
/// What a leader heard in less time does not last.
pub const HEARD_MIN: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
struct Mean {
    bytes_per_s: f64,
    at: Instant,
}

impl Mean {
    fn note(&mut self, bytes_per_s: f64, now: Instant) {
        let half_lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let kept = (-half_lives).exp2();
        self.bytes_per_s = self.bytes_per_s * kept + bytes_per_s * (1.0 - kept);
        self.at = now;
    }
}

/// See the module. What is kept is bounded by the groups there are.
#[derive(Debug, Default)]
pub struct Loads {
    means: BTreeMap<GroupId, Mean>,
    shown: BTreeMap<GroupId, u64>,
    shown_at: Option<Instant>,
}

impl Loads {
    pub fn note(&mut self, group: GroupId, bytes_per_s: u64, now: Instant) {
        let mean = self.means.entry(group).or_insert(Mean { bytes_per_s: 0.0, at: now });
        mean.note(bytes_per_s as f64, now);
    }

    /// What lasts of loads, in bytes a second. Empty until this master has led for a while, since `begun`.
    pub fn shown(
        &mut self,
        exists: impl Fn(GroupId) -> bool,
        begun: Instant,
        now: Instant,
    ) -> &BTreeMap<GroupId, u64> {
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_due = self.shown_at.is_none_or(|at| since(at) >= SHOWN_FOR);
        if since(begun) >= HEARD_MIN && is_due {
            self.shown_at = Some(now);
            self.means.retain(|group, _| exists(*group));
            for mean in self.means.values_mut().filter(|mean| since(mean.at) >= SILENT) {
                mean.note(0.0, now);
            }
            let rounded = self.means.iter().map(|(group, mean)| (*group, mean.bytes_per_s.round() as u64));
            self.shown = rounded.filter(|(_, bytes_per_s)| *bytes_per_s > 0).collect();
        }
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_shown_and_what_is_over_fades() {
        let mut loads = Loads::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut shown = |upto: u64, rate: Option<u64>, from: u64| {
            for second in from..upto {
                if let Some(rate) = rate {
                    loads.note(GroupId(1), rate, at(second));
                }
                loads.shown(|_| true, begun, at(second));
            }
            loads.shown(|_| true, begun, at(upto)).get(&GroupId(1)).copied()
        };
        assert_eq!(shown(119, Some(1000), 0), None, "it may not last");
        let lasting = shown(600, Some(1000), 119).unwrap();
        assert!((990..=1000).contains(&lasting), "{lasting}");
        let burst = shown(630, Some(9000), 600).unwrap();
        assert!((1001..4000).contains(&burst), "{burst}");
        let faded = shown(900, None, 630).unwrap();
        assert!(faded < burst / 8, "{faded}");
        assert_eq!(loads.shown(|_| false, begun, at(2000)).len(), 0, "the group is gone");
    }
}
