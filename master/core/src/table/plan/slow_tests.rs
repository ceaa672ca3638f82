//! Slow disks: groups go on without them, and take them back.

use proptest::prelude::*;

use super::tests::{counts, settle, settle_once, table, well, work};
use super::*;

const TWO: DiskId = DiskId(2);

fn slow(servers: &[u32], disks: &[u32]) -> Seen {
    Seen { slow: disks.iter().copied().map(DiskId).collect(), ..well(servers) }
}

fn in_state(table: &Table, disk: DiskId, state: MemberState) -> usize {
    table.groups().filter(|group| group.state_of(disk) == Some(state)).count()
}

#[test]
fn groups_go_on_without_a_slow_disk_until_it_is_fast() {
    let all = [1, 2, 3, 4];
    let without = work(table(4, 9), &slow(&all, &[2]));
    assert_eq!(in_state(&without, TWO, MemberState::Offline), 9);
    assert!(without.groups().all(|group| group.primary() != Some(TWO)));
    assert_eq!(plan(&without, &slow(&all, &[2]), 100), [], "nothing is done to and fro");
    let back = work(without.clone(), &well(&all));
    assert!(back.groups().all(is_whole));
    // Away for long, its place goes to another.
    let mut seen = slow(&all, &[2]);
    seen.absent.insert(TWO);
    let replaced = work(without, &seen);
    assert_eq!(counts(&replaced, 4), [9, 0, 9, 9]);
}

#[test]
fn a_slow_copy_is_better_than_none() {
    let without = settle(table(3, 3), &slow(&[1, 2, 3], &[2]));
    let mut seen = slow(&[2, 3], &[2]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let filled = work(without, &seen);
    assert!(filled.groups().all(|group| group.serving().any(|disk| disk == TWO)), "{filled:?}");
    let fast = |group: &Group| group.serving().all(|disk| disk != TWO) && group.serving().count() == 2;
    let returned = work(filled, &slow(&[1, 2, 3], &[2]));
    assert!(returned.groups().all(fast), "the other is back, and the slow one goes: {returned:?}");
}

#[test]
fn a_slow_member_stays_while_another_is_not_well() {
    let seen = slow(&[1, 2], &[2]);
    assert_eq!(plan(&table(3, 9), &seen, 100), [], "who is quiet may be gone");
    let mut failed = slow(&[1, 2, 3], &[2]);
    failed.failed.insert(DiskId(1));
    let left = settle(table(3, 9), &failed);
    assert_eq!(in_state(&left, TWO, MemberState::Serving), 9);
}

#[test]
fn a_group_that_needs_all_its_members_moves_off() {
    let pairs = |table: Table| {
        let servers: Vec<_> = table.servers().cloned().collect();
        let groups = table.groups().cloned().map(|mut group| {
            group.members.retain(|member| member.disk != DiskId(1));
            group
        });
        let groups = groups.collect();
        Table::new(1, servers, groups).with_replicas(2, 2)
    };
    let moved = work(pairs(table(4, 6)), &slow(&[1, 2, 3, 4], &[2]));
    assert_eq!(counts(&moved, 4)[1], 0);
    assert!(moved.groups().all(|group| is_whole(group) && group.members.len() == 2));
    let stuck = work(pairs(table(3, 6)), &slow(&[2, 3], &[2]));
    assert!(counts(&stuck, 3) == [0, 6, 6] && stuck.groups().all(is_whole), "nowhere to go");
}

#[test]
fn a_slow_disk_gets_no_groups() {
    let done = work(table(5, 30), &slow(&[1, 2, 3, 4, 5], &[5]));
    assert_eq!(counts(&done, 5)[4], 0);
}

proptest! {
    /// Whoever is slow, gone or quiet: no group is left with fewer members that take writes than it must have, all comes to rest, and
    /// then writes wait for a slow member only where there are too few others.
    #[test]
    fn nobody_loses_what_writes_need(
        slow_ones in prop::collection::btree_set(1_u32..6, 0..4),
        states in prop::collection::vec(0_u8..6, 5),
        groups in 1_u32..12,
        healed in any::<bool>(),
    ) {
        let all = [1, 2, 3, 4, 5];
        let mut seen = slow(&all, &slow_ones.iter().copied().collect::<Vec<_>>());
        for (server, state) in (1..).zip(states) {
            let state = match state {
                0 => Health::Gone,
                1 => Health::Quiet,
                _ => Health::Well,
            };
            seen.servers.insert(ServerId(server), state);
        }
        let mut now = table(5, groups);
        for _ in 0..10 {
            now = settle_once(now, &seen);
            for group in now.groups() {
                prop_assert!(group.serving().count() >= 2, "{:?}", group);
            }
        }
        let rest = work(now, &seen);
        for group in rest.groups() {
            prop_assert!(group.serving().count() >= 2, "{:?}", group);
            let fast = |disk: &DiskId| !seen.slow.contains(disk) && health(&rest, &seen, *disk) == Health::Well;
            let waits = group.serving().any(|disk| seen.is_only_slow(&rest, disk));
            prop_assert!(!waits || group.serving().filter(fast).count() < 2, "{:?}", group);
        }
        if healed {
            let whole = work(rest, &well(&all));
            prop_assert!(whole.groups().all(is_whole));
        }
    }
}
