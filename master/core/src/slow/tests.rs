//! Slow disks, heard second by second.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { percent_max: 50, ..Rules::DEFAULT };

/// A disk on each of the servers 1.., with these latencies in milliseconds; 0: not known.
fn measures(latencies: &[u64]) -> Vec<Measure> {
    let measure = |(id, ms): (u32, &u64)| Measure {
        disk: DiskId(id),
        server: ServerId(id),
        capacity_bytes: 1 << 40,
        latency: (*ms > 0).then(|| Duration::from_millis(*ms)),
        away: false,
    };
    (1..).zip(latencies).map(measure).collect()
}

/// A judge and its clock.
struct Court {
    judge: Judge,
    begun: Instant,
    now: Instant,
    rules: Rules,
}

impl Court {
    fn new(rules: Rules) -> Self {
        let begun = Instant::now();
        let now = begun + rules.after;
        Self { judge: Judge::default(), begun, now, rules }
    }

    /// Each second for so long; then who is out.
    fn sit(&mut self, seconds: u64, measures: &[Measure]) -> Vec<u32> {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.judge.judge(measures, &self.rules, self.begun, self.now);
        }
        self.judge.out().map(|disk| disk.0).collect()
    }

    fn hear(&mut self, seconds: u64, latencies: &[u64]) -> Vec<u32> {
        self.sit(seconds, &measures(latencies))
    }
}

#[test]
fn who_is_slow_for_a_while_is_out_and_comes_back_when_it_was_fast_for_longer() {
    let mut court = Court::new(RULES);
    assert_eq!(court.hear(10, &[3, 3, 400, 2]), [0; 0], "not long enough");
    assert_eq!(court.judge.pace(DiskId(3)), Pace::Usual);
    assert_eq!(court.hear(1, &[3, 3, 400, 2]), [3]);
    assert_eq!(court.judge.pace(DiskId(3)), Pace::Out);
    assert_eq!(court.hear(600, &[3, 3, 30, 2]), [3], "less than slow is not fast");
    assert_eq!(court.hear(60, &[3, 3, 10, 2]), [3]);
    assert_eq!(court.hear(1, &[3, 3, 10, 2]), [0; 0]);
    // The next time it takes twice as long.
    assert_eq!(court.hear(11, &[3, 3, 400, 2]), [3]);
    assert_eq!(court.hear(120, &[3, 3, 10, 2]), [3]);
    assert_eq!(court.hear(1, &[3, 3, 10, 2]), [0; 0]);
    assert_eq!(court.hear(3601, &[3, 3, 10, 2]), [0; 0]);
    assert_eq!(court.hear(11, &[3, 3, 400, 2]), [3]);
    assert_eq!(court.hear(61, &[3, 3, 10, 2]), [0; 0], "it is forgiven");
}

#[test]
fn a_break_begins_the_time_anew() {
    let mut court = Court::new(RULES);
    for _ in 0..20 {
        assert_eq!(court.hear(10, &[3, 3, 400, 2]), [0; 0]);
        assert_eq!(court.hear(1, &[3, 3, 20, 2]), [0; 0]);
    }
    assert_eq!(court.hear(10, &[3, 3, 400, 2]), [0; 0]);
    assert_eq!(court.hear(1, &[3, 3, 0, 2]), [0; 0], "not heard");
    assert_eq!(court.hear(10, &[3, 3, 400, 2]), [0; 0]);
}

#[test]
fn a_busy_cluster_condemns_nobody() {
    let mut court = Court::new(RULES);
    assert_eq!(court.hear(100, &[900, 2000, 700, 400]), [0; 0]);
    assert_eq!(court.hear(100, &[900, 2, 900, 900]), [0; 0], "most of it");
    assert_eq!(court.hear(100, &[40, 1, 1, 1]), [0; 0], "nobody feels that");
    assert_eq!(court.hear(100, &[900, 1]), [0; 0], "two have no usual");
    assert_eq!(court.hear(100, &[900, 1, 0, 0]), [0; 0]);
}

#[test]
fn a_slow_server_is_out_with_all_its_disks_and_counts_once() {
    let mut all = measures(&[900, 800, 3, 3, 3, 3, 700]);
    all[1].server = all[0].server;
    let mut court = Court::new(RULES);
    assert_eq!(court.sit(20, &all), [1, 2], "the third is another server's");
    assert_eq!(court.judge.pace(DiskId(7)), Pace::Slow);
    all[6].capacity_bytes = 1 << 50;
    let rules = Rules { servers_max: 9, ..RULES };
    assert_eq!(Court::new(rules).sit(20, &all), [1, 2], "it has most of all capacity");
    assert_eq!(Court::new(Rules { servers_max: 0, ..rules }).sit(20, &all), [0; 0], "switched off");
    // The slower one of those that are slow for as long.
    assert_eq!(Court::new(RULES).hear(20, &[3, 700, 3, 900, 3, 3]), [4]);
}

#[test]
fn a_new_leader_leaves_out_who_was_out() {
    let mut all = measures(&[3, 3, 400, 2]);
    all[2].away = true;
    let mut court = Court::new(RULES);
    court.now = court.begun;
    assert_eq!(court.sit(1, &all), [3], "at once");
    let mut early = all.clone();
    early.iter_mut().for_each(|measure| measure.latency = measure.latency.filter(|_| measure.disk.0 == 3));
    let mut court = Court::new(RULES);
    court.now = court.begun;
    assert_eq!(court.sit(1, &early), [3], "before it heard of others");
    assert_eq!(Court::new(RULES).sit(1, &all), [0; 0], "later on it would know");
}

#[test]
fn who_is_gone_makes_room() {
    let mut court = Court::new(RULES);
    let mut all = measures(&[3, 3, 400, 3, 300]);
    assert_eq!(court.sit(20, &all), [3]);
    all.remove(2);
    assert_eq!(court.sit(1, &all), [5]);
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (0_u32..4, 0_u32..=100, 1_u32..8, 1_u64..20).prop_map(|(servers_max, percent_max, ratio, after)| Rules {
        servers_max,
        percent_max,
        ratio,
        after: Duration::from_secs(after),
        ..Rules::DEFAULT
    })
}

/// Disks of up to five servers, of different sizes.
fn any_measures() -> impl Strategy<Value = Vec<Measure>> {
    let one = (1_u32..6, 1_u64..1000, prop::option::of(1_u64..3000), any::<bool>());
    prop::collection::vec(one, 1..12).prop_map(|disks| {
        let measure =
            |(id, (server, capacity_bytes, ms, away)): (u32, (u32, u64, Option<u64>, bool))| Measure {
                disk: DiskId(id),
                server: ServerId(server),
                capacity_bytes,
                latency: ms.map(Duration::from_millis),
                away,
            };
        (1..).zip(disks).map(measure).collect()
    })
}

proptest! {
    /// Measures jump about, disks come and go: the budget holds at every moment, and each that is out was slow for long enough.
    #[test]
    fn never_more_are_out_than_may_be(
        rules in any_rules(),
        days in prop::collection::vec((any_measures(), 1_u64..200), 1..8),
    ) {
        let mut court = Court::new(rules);
        for (measures, seconds) in days {
            for second in 0..seconds {
                let before: Vec<_> = court.judge.out().collect();
                let out: BTreeSet<_> = court.sit(1, &measures).into_iter().map(DiskId).collect();
                let is_out = |measure: &&Measure| out.contains(&measure.disk);
                let added = out.iter().any(|disk| !before.contains(disk));
                // Of those that are there: sizes and owners are others each day.
                if added {
                    let servers: BTreeSet<_> = measures.iter().filter(is_out).map(|m| m.server).collect();
                    prop_assert!(servers.len() <= rules.servers_max as usize);
                    let bytes = |measure: &Measure| u128::from(measure.capacity_bytes);
                    let all: u128 = measures.iter().map(bytes).sum();
                    let gone: u128 = measures.iter().filter(is_out).map(bytes).sum();
                    prop_assert!(gone * 100 <= all * u128::from(rules.percent_max));
                }
                for disk in out.iter().filter(|disk| !before.contains(disk)) {
                    let measure = measures.iter().find(|m| m.disk == *disk).unwrap();
                    prop_assert!(measure.latency.unwrap() > rules.floor);
                }
                let _ = second;
            }
        }
    }

    /// Whatever the load, as long as it is the same for all within the ratio.
    #[test]
    fn equals_are_all_in(base in 1_u64..5000, spread in prop::collection::vec(0_u64..=400, 2..10)) {
        let latencies: Vec<_> = spread.iter().map(|percent| base * 100 + base * percent).collect();
        let all: Vec<_> = measures(&latencies)
            .into_iter()
            .map(|m| Measure { latency: m.latency.map(|latency| latency / 100), ..m })
            .collect();
        prop_assert_eq!(Court::new(RULES).sit(300, &all), [0; 0]);
    }

    #[test]
    fn what_does_not_change_comes_to_rest(
        rules in any_rules(), before in any_measures(), measures in any_measures(),
    ) {
        let mut court = Court::new(rules);
        court.sit(100, &before);
        // Each may come back once, and another may take its place.
        court.sit(3 * 60 + 60, &measures);
        let out = court.sit(1, &measures);
        for _ in 0..200 {
            prop_assert_eq!(&court.sit(1, &measures), &out);
        }
    }
}
