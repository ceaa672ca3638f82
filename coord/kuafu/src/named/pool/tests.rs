//! Who is asked: weights, racks, ejections, lists.

use super::*;

const RACKS: [&str; 4] = ["r1", "r1", "r2", "r3"];

fn endpoint(number: usize) -> Endpoint {
    let address = format!("tcp://h{number}:1").parse().unwrap();
    Endpoint { rack: RACKS[number % 4].to_owned(), ..Endpoint::new(address) }
}

fn pool(rack: &str, endpoints: &[Endpoint]) -> Pool<String> {
    let mut pool = Pool::new(rack.to_owned());
    pool.update(endpoints, |endpoint| endpoint.address.to_string());
    pool
}

/// A generator that repeats itself each run.
fn dice() -> impl FnMut() -> u32 {
    let mut state = 0x9e37_79b9_u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    }
}

/// Picks `calls` times without an end, and counts who got how many.
fn counts(pool: &mut Pool<String>, calls: usize, now: Instant) -> Vec<usize> {
    let mut dice = dice();
    let mut counts = vec![0; 4];
    for _ in 0..calls {
        let (_, address) = pool.pick(&[], now, &mut dice).unwrap();
        counts[address["tcp://h".len()..].split(':').next().unwrap().parse::<usize>().unwrap()] += 1;
    }
    counts
}

#[test]
fn calls_spread_by_weight() {
    let mut four: Vec<Endpoint> = (0..4).map(endpoint).collect();
    four[3].weight = 300;
    four[2].weight = 0;
    let counts = counts(&mut pool("", &four), 5000, Instant::now());
    assert_eq!(counts[2], 0);
    assert!(counts[0].abs_diff(counts[1]) < 20, "{counts:?}");
    assert!((2.8..3.2).contains(&(counts[3] as f64 / counts[0] as f64)), "{counts:?}");
}

#[test]
fn the_rack_comes_first_while_it_has_anybody() {
    let now = Instant::now();
    let four: Vec<Endpoint> = (0..4).map(endpoint).collect();
    let mut pool = pool("r1", &four);
    assert_eq!(counts(&mut pool, 100, now)[2..], [0, 0]);
    let mut dice = dice();
    let (first, _) = pool.pick(&[], now, &mut dice).unwrap();
    let (second, _) = pool.pick(&[first], now, &mut dice).unwrap();
    pool.ended(first, Outcome::Away, now, 0);
    pool.ended(second, Outcome::Away, now, 0);
    assert_eq!(counts(&mut pool, 100, now)[..2], [0, 0]);
    assert!(counts(&mut pool, 100, now + EJECTION_MIN)[..2].iter().all(|n| *n > 0));
    assert!(counts(&mut self::pool("r9", &four), 400, now).iter().all(|n| *n > 80), "no such rack");
}

#[test]
fn failures_eject_for_longer_and_longer_until_a_success() {
    let now = Instant::now();
    let mut pool = pool("", &[endpoint(0), endpoint(1)]);
    let (bad, _) = pool.pick(&[], now, || 0).unwrap();
    let only_good = |pool: &Pool<String>, at: Instant| {
        pool.slots.iter().any(|slot| slot.id == bad && slot.is_ejected(at))
    };
    for failures in 1..FAILURES_MAX {
        pool.ended(bad, Outcome::Failed, now, u32::MAX);
        assert!(!only_good(&pool, now), "{failures} failures");
    }
    let mut at = now;
    for ejection in 0..10 {
        pool.ended(bad, Outcome::Failed, at, u32::MAX);
        let length = (EJECTION_MIN * (1 << ejection)).min(EJECTION_MAX);
        assert!(only_good(&pool, at + length - Duration::from_millis(1)), "{ejection}");
        // Late ends of calls from before change nothing.
        pool.ended(bad, Outcome::Failed, at, u32::MAX);
        at += length;
        assert!(!only_good(&pool, at), "{ejection}");
    }
    pool.ended(bad, Outcome::Answered, at, 0);
    pool.ended(bad, Outcome::Failed, at, 0);
    assert!(!only_good(&pool, at));
    pool.ended(bad, Outcome::Away, at, 0);
    assert!(
        only_good(&pool, at + EJECTION_MIN / 2 - Duration::from_millis(1)),
        "at once, the shortest time again"
    );
    assert!(!only_good(&pool, at + EJECTION_MIN / 2));
}

#[test]
fn nobody_is_tried_twice_and_the_unwilling_come_last() {
    let now = Instant::now();
    let mut three: Vec<Endpoint> = (0..3).map(endpoint).collect();
    three[0].stopping = true;
    let mut pool = pool("r1", &three);
    let mut dice = dice();
    let (ejected, _) = pool.pick(&[], now, &mut dice).unwrap();
    pool.ended(ejected, Outcome::Away, now, u32::MAX);
    let mut tried = Vec::new();
    while let Some((slot, _)) = pool.pick(&tried, now, &mut dice) {
        tried.push(slot);
    }
    assert_eq!(tried.len(), 3);
    assert_eq!(tried[1], ejected, "an ejected one before one that is stopping");
}

#[test]
fn a_list_replaces_another_unless_it_is_empty() {
    let now = Instant::now();
    let mut pool = pool("", &[endpoint(0), endpoint(1)]);
    let (slot, gone) = pool.pick(&[], now, || 0).unwrap();
    pool.update(&[], |_| unreachable!());
    assert_eq!(pool.slots.len(), 2);
    let moved = Endpoint { rack: "elsewhere".to_owned(), ..endpoint(1) };
    pool.update(&[moved.clone(), moved, endpoint(2)], |endpoint| endpoint.address.to_string());
    assert_eq!(gone, "tcp://h0:1");
    assert_eq!(pool.slots.iter().map(|slot| slot.id).collect::<Vec<_>>(), [SlotId(2), SlotId(3)]);
    assert_eq!(pool.slots[0].endpoint.rack, "elsewhere");
    pool.ended(slot, Outcome::Failed, now, 0);
}
