//! Loads that stay as they are, and what the planner makes of them.

use coord_types::{Epoch, ServerId};
use master_model::{DiskState, Member, MemberState, Scrub, Server, Vitals};
use proptest::prelude::*;

use super::super::plan::{Health, plan};
use super::*;
use crate::table::change::{Rules, changed};

const RULES: Rules = Rules { replicas: 3, min_replicas: 2 };
const MIB: u64 = 1 << 20;

/// Servers in racks of their own with a disk each, of these sizes; groups of these disks.
fn table(sizes: &[u64], groups: &[[u32; 3]]) -> Table {
    let server = |(id, capacity_bytes): (u32, &u64)| {
        let (scrub, vitals) = (Scrub::default(), Vitals::default());
        let state = DiskState {
            uuid: [0; 16],
            capacity_bytes: *capacity_bytes,
            used_bytes: 0,
            failed: false,
            draining: false,
            scrub,
            vitals,
        };
        Server {
            id: ServerId(id),
            address: String::new(),
            location: format!("/r/rack{id}/h"),
            disks: vec![(DiskId(id), state)],
            incarnation: 1,
            silent_ms: 0,
        }
    };
    let member = |disk: &u32| Member { disk: DiskId(*disk), state: MemberState::Serving };
    let group = |(id, disks): (u32, &[u32; 3])| Group {
        id: GroupId(id),
        epoch: Epoch(1),
        members: disks.iter().map(member).collect(),
    };
    let servers = (1..).zip(sizes).map(server).collect();
    Table::new(1, servers, (1..).zip(groups).map(group).collect()).with_replicas(3, 2)
}

fn seen(table: &Table, loads: &[u64]) -> Seen {
    Seen {
        servers: table.servers().map(|server| (server.id, Health::Well)).collect(),
        loads: (1..).map(GroupId).zip(loads.iter().copied()).collect(),
        ..Seen::default()
    }
}

/// Does what is due, and what chunkservers do then, until nothing is due. The table, and how many groups got another disk and how
/// many another primary.
fn work(mut table: Table, seen: &Seen) -> (Table, usize, usize) {
    let (mut moved, mut led) = (0, 0);
    for _ in 0..4000 {
        let groups = || table.groups();
        let filled =
            groups().flat_map(|g| g.in_state(MemberState::Syncing).map(|disk| (g.id, g.epoch, disk)));
        let active = groups().map(|group| (group.id, group.epoch)).collect();
        let due = plan(&table, &Seen { level: filled.collect(), active, ..seen.clone() }, 100);
        if due.is_empty() {
            return (table, moved, led);
        }
        moved += due.iter().filter(|due| matches!(due.change, Change::Add(_))).count();
        led += due.iter().filter(|due| matches!(due.change, Change::Lead(_))).count();
        let mut groups: Vec<_> = table.groups().cloned().collect();
        for GroupChange { group: id, change, .. } in due {
            let group = groups.iter_mut().find(|group| group.id == id).unwrap();
            *group = changed(group, change, RULES).expect("only what is allowed is due");
        }
        let servers = table.servers().cloned().collect();
        table = Table::new(table.version + 1, servers, groups).with_replicas(3, 2);
    }
    panic!("never at rest: {:?}", plan(&table, seen, 100));
}

/// Of each disk: groups, groups led, bytes written, bytes written to groups it leads (MiB).
fn shares(table: &Table, seen: &Seen) -> Vec<(usize, usize, u64, u64)> {
    let disks = table.servers().flat_map(|server| &server.disks);
    let share = |disk: DiskId| {
        let load = |group: &&Group| seen.loads.get(&group.id).copied().unwrap_or(0) / MIB;
        let on: Vec<_> = table.groups().filter(|group| group.state_of(disk).is_some()).collect();
        let led: Vec<_> = on.iter().copied().filter(|group| group.primary() == Some(disk)).collect();
        (on.len(), led.len(), on.iter().map(load).sum(), led.iter().map(load).sum())
    };
    disks.map(|(disk, _)| share(*disk)).collect()
}

/// Eight groups on the first three disks and eight on the last three, led by each in turn.
fn two_halves() -> Table {
    let half = |at: usize| if at.is_multiple_of(2) { [1, 2, 3] } else { [4, 5, 6] };
    let groups = (0..16).map(|at| {
        let mut disks = half(at);
        disks.rotate_left(at / 2 % 3);
        disks
    });
    table(&[1; 6], &groups.collect::<Vec<_>>())
}

#[test]
fn small_loads_move_nothing() {
    let mut loads = vec![0; 16];
    loads[0] = 7 * MIB;
    let quiet = two_halves();
    assert_eq!(plan(&quiet, &seen(&quiet, &loads), 100), []);
}

#[test]
fn a_hot_half_shares_with_the_cold_one_and_counts_stay_even() {
    let loads: Vec<_> = (0..16_u32).map(|at| if at.is_multiple_of(2) { 40 * MIB } else { 0 }).collect();
    let before = two_halves();
    let seen = seen(&before, &loads);
    let first = plan(&before, &seen, 100);
    assert!(first.len() <= MOVES_MAX, "few at a time: {first:?}");
    let (after, moved, _) = work(before, &seen);
    let shares = shares(&after, &seen);
    assert!(shares.iter().all(|(count, ..)| (7..=9).contains(count)), "{shares:?}");
    assert!(shares.iter().all(|(_, _, load, _)| (120..=200).contains(load)), "of 160 each: {shares:?}");
    assert!(moved <= 30, "{moved} moves");
}

#[test]
fn primaries_of_hot_groups_are_spread_before_any_data_moves() {
    let groups: Vec<_> = (0..12).map(|at| [[1, 2, 3], [2, 3, 1], [3, 1, 2]][at % 3]).collect();
    let loads: Vec<_> = (0..12).map(|at: u32| if at.is_multiple_of(3) { 30 * MIB } else { MIB }).collect();
    let before = table(&[1; 3], &groups);
    let seen = seen(&before, &loads);
    assert_eq!(shares(&before, &seen).iter().map(|share| share.3).collect::<Vec<_>>(), [120, 4, 4]);
    let due = plan(&before, &seen, 100);
    assert!(due.len() == 2 && due.iter().all(|due| matches!(due.change, Change::Lead(_))), "{due:?}");
    let (after, moved, _) = work(before, &seen);
    assert_eq!(moved, 0);
    let shares = shares(&after, &seen);
    assert!(
        shares.iter().all(|share| (30..=64).contains(&share.3) && (3..=5).contains(&share.1)),
        "{shares:?}"
    );
}

proptest! {
    /// Whatever the sizes, the places and the loads, as long as they stay: it comes to rest (`work` panics if not), no data or primary
    /// moves that does not make it more even, and no disk that could be relieved is left with far more than its share.
    #[test]
    fn constant_loads_come_to_rest(
        sizes in prop::collection::vec(1_u64..4, 4..8),
        seeds in prop::collection::vec((any::<u32>(), 0_u64..40), 1..40),
    ) {
        let disks = u32::try_from(sizes.len()).unwrap();
        let place = |seed: u32| {
            let first = seed % disks;
            let second = (first + 1 + seed / 7 % (disks - 1)) % disks;
            let third = (0..disks).map(|more| (second + more) % disks).find(|at| ![first, second].contains(at)).unwrap();
            [first + 1, second + 1, third + 1]
        };
        let groups: Vec<_> = seeds.iter().map(|(seed, _)| place(*seed)).collect();
        let loads: Vec<_> = seeds.iter().map(|(_, mib)| mib * mib * MIB / 4).collect();
        let before = table(&sizes, &groups);
        let seen = seen(&before, &loads);
        let (after, _, _) = work(before.clone(), &seen);
        prop_assert!(after.groups().all(|group| group.members.len() == 3));
        let (_, moved, led) = work(after.clone(), &seen);
        prop_assert_eq!((moved, led), (0, 0));
        let uneven = |table: &Table| {
            let spares = Spares::new(table, &seen);
            let loads = Loads::new(table, &seen, &spares)?;
            let part = |share: &Share| {
                share.count.powi(2) / share.size * loads.scale.per_group + share.load.powi(2) * loads.scale.per_load
            };
            Some(loads.shares.values().map(part).sum::<f64>())
        };
        if let (Some(was), Some(is)) = (uneven(&before), uneven(&after)) {
            prop_assert!(is <= was + ROUNDING, "{is} after {was}");
        }
    }
}
