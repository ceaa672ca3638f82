//! Plans are applied until nothing is due: what becomes of whole tables.

use master_model::{DiskState, Server};

use super::*;
use crate::table::change::changed;

/// Servers 1.. in racks of their own with one disk each, `groups` groups of the first three.
pub(super) fn table(servers: u32, groups: u32) -> Table {
    let server = |id: u32| Server {
        id: ServerId(id),
        address: format!("tcp://10.0.0.{id}:1"),
        location: format!("/r/rack{id}/h"),
        disks: vec![(
            DiskId(id),
            DiskState {
                uuid: [0; 16],
                capacity_bytes: 1,
                used_bytes: 0,
                failed: false,
                draining: false,
                scrub: master_model::Scrub::default(),
                vitals: master_model::Vitals::default(),
            },
        )],
        incarnation: 1,
        silent_ms: 0,
    };
    let member = |disk| master_model::Member { disk: DiskId(disk), state: MemberState::Serving };
    let group = |id: u32| {
        let mut members = [1, 2, 3].map(member).to_vec();
        members.rotate_left(id as usize % 3);
        Group { id: GroupId(id), epoch: Epoch(1), members }
    };
    let table = Table::new(1, (1..=servers).map(server).collect(), (1..=groups).map(group).collect());
    table.with_replicas(3, 2)
}

pub(super) fn well(servers: &[u32]) -> Seen {
    let servers = servers.iter().map(|id| (ServerId(*id), Health::Well)).collect();
    Seen { servers, ..Seen::default() }
}

/// Applies what is due until nothing is.
pub(super) fn settle(table: Table, seen: &Seen) -> Table {
    let mut table = table;
    for _ in 0..100 {
        let before = table.version;
        table = settle_once(table, seen);
        if table.version == before {
            return table;
        }
    }
    panic!("never at rest: {:?}", plan(&table, seen, 100));
}

/// Applies what is due once.
pub(super) fn settle_once(table: Table, seen: &Seen) -> Table {
    let due = plan(&table, seen, 100);
    if due.is_empty() {
        return table;
    }
    let servers = table.servers().cloned().collect();
    let mut groups: Vec<_> = table.groups().cloned().collect();
    for GroupChange { group: id, epoch, change } in due {
        let group = groups.iter_mut().find(|group| group.id == id).expect("a group of the table");
        assert_eq!(group.epoch, epoch);
        *group = changed(group, change, rules(&table)).expect("only what is allowed is due");
    }
    let (replicas, least) = (table.replicas, table.min_replicas);
    Table::new(table.version + 1, servers, groups).with_replicas(replicas, least)
}

#[test]
fn nothing_is_due_when_all_is_well_or_merely_quiet() {
    assert_eq!(plan(&table(3, 9), &well(&[1, 2, 3]), 100), []);
    assert_eq!(plan(&table(3, 9), &Seen::default(), 100), []);
    assert_eq!(plan(&table(3, 10), &well(&[1, 2, 3]), 100), [], "one disk must lead one more");
}

#[test]
fn who_is_gone_leaves_every_group_but_two_stay() {
    let mut seen = well(&[1, 2, 3]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(3, 9), &seen);
    assert!(without.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Offline)));
    assert!(without.groups().all(|group| group.primary() != Some(DiskId(1)) && group.epoch == Epoch(2)));
    seen.servers.insert(ServerId(2), Health::Gone);
    let still = settle(without.clone(), &seen);
    assert_eq!(still, without, "the last two wait");
}

#[test]
fn who_comes_back_is_filled_joins_and_leads_again() {
    let mut seen = well(&[1, 2, 3]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(3, 9), &seen);
    let seen = well(&[1, 2, 3]);
    let back = settle(without, &seen);
    assert!(back.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Syncing)));
    let level = back.groups().map(|group| (group.id, group.epoch, DiskId(1))).collect();
    let joined = settle(back, &Seen { level, ..seen.clone() });
    assert!(joined.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Joining)));
    let active = joined.groups().map(|group| (group.id, group.epoch)).collect();
    let whole = settle(joined, &Seen { active, ..seen });
    for disk in 1..=3 {
        let leads = whole.groups().filter(|group| group.primary() == Some(DiskId(disk))).count();
        assert!((2..=4).contains(&leads), "disk {disk} leads {leads} of 9");
    }
}

/// Whoever is being filled is level and settles, until nothing is due.
fn settle_filled(table: Table, seen: &Seen) -> Table {
    let mut table = table;
    for _ in 0..100 {
        let syncing = |g: &Group| g.in_state(MemberState::Syncing).collect::<Vec<_>>();
        let level = table.groups().flat_map(|g| syncing(g).into_iter().map(|disk| (g.id, g.epoch, disk)));
        let level = level.collect();
        let active = table.groups().map(|group| (group.id, group.epoch)).collect();
        let before = table.version;
        table = settle_once(table, &Seen { level, active, ..seen.clone() });
        if table.version == before {
            return table;
        }
    }
    panic!("never at rest: {:?}", plan(&table, seen, 100));
}

/// Groups of the first disk only.
fn alone(groups: u32) -> Vec<Group> {
    let members = vec![master_model::Member { disk: DiskId(1), state: MemberState::Serving }];
    (1..=groups).map(|id| Group { id: GroupId(id), epoch: Epoch(1), members: members.clone() }).collect()
}

/// A cluster that kept one copy of everything, and is to keep three.
#[test]
fn groups_grow_as_racks_come() {
    const GROUPS: u32 = 20;
    let of = |servers: Vec<Server>, groups: &Table| {
        Table::new(1, servers, groups.groups().cloned().collect()).with_replicas(3, 1)
    };
    let all: Vec<_> = table(5, 0).servers().cloned().collect();
    let single = Table::new(1, all[..1].to_vec(), alone(GROUPS)).with_replicas(3, 1);
    assert_eq!(plan(&single, &well(&[1]), 100), [], "there is no other rack");

    // A second rack with two hosts: two copies, and no third in the same rack.
    let mut beside = all[2].clone();
    beside.location = "/r/rack2/other".to_owned();
    let two = of([&all[..2], &[beside]].concat(), &single);
    assert_eq!(plan(&two, &well(&[1, 2, 3]), 100).len(), MOVES_MAX, "not all at a time");
    let two = settle_filled(two, &well(&[1, 2, 3]));
    assert!(two.groups().all(|group| group.members.len() == 2 && is_whole(group)));

    let four = of(
        vec![
            all[0].clone(),
            two.server(ServerId(2)).unwrap().clone(),
            two.server(ServerId(3)).unwrap().clone(),
            all[3].clone(),
        ],
        &two,
    );
    let three = settle_filled(four, &well(&[1, 2, 3, 4]));
    for group in three.groups() {
        let mut racks: Vec<_> =
            group.members.iter().map(|m| &three.server_of(m.disk).unwrap().location[..8]).collect();
        racks.sort_unstable();
        assert_eq!(racks, ["/r/rack1", "/r/rack2", "/r/rack4"], "{group:?}");
    }
}

/// Hosts, if there is one rack only.
#[test]
fn in_one_rack_groups_grow_over_hosts() {
    let mut servers: Vec<_> = table(3, 0).servers().cloned().collect();
    for (at, server) in servers.iter_mut().enumerate() {
        server.location = format!("/r/rack/h{}", at.min(1));
    }
    let single = Table::new(1, servers, alone(1)).with_replicas(3, 1);
    let grown = settle_filled(single, &well(&[1, 2, 3]));
    assert_eq!(grown.groups().next().unwrap().members.len(), 2, "the third would share a host");
}

/// Disks of 1000 bytes, of which so many are used.
fn used(table: &Table, used_bytes: &[u64]) -> Table {
    let mut servers: Vec<_> = table.servers().cloned().collect();
    for (server, used) in servers.iter_mut().zip(used_bytes) {
        for (_, state) in &mut server.disks {
            (state.capacity_bytes, state.used_bytes) = (1000, *used);
        }
    }
    let (replicas, least) = (table.replicas, table.min_replicas);
    Table::new(table.version, servers, table.groups().cloned().collect()).with_replicas(replicas, least)
}

#[test]
fn no_disk_is_given_more_than_it_has_room_for() {
    let mut seen = well(&[1, 2, 3, 4]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(4, 10), &seen);
    seen.absent.insert(DiskId(1));
    let coming = |table: &Table| table.groups().filter(|group| group.state_of(DiskId(4)).is_some()).count();
    // 50 bytes a group, and room for all.
    let whole = settle(used(&without, &[500, 500, 500, 0]), &seen);
    assert_eq!(coming(&whole), 10);
    // Its 700 bytes leave room for two groups of 73 bytes each: the others wait, however often that is asked.
    let some = settle(used(&without, &[500, 500, 500, 700]), &seen);
    assert_eq!(coming(&some), 2);
    assert!(!has_place_elsewhere(&some, &seen, DiskId(2)));
    assert_eq!(coming(&settle(used(&without, &[500, 500, 500, 890]), &seen)), 0);
}

#[test]
fn a_long_absence_is_made_good_in_another_rack() {
    let mut seen = well(&[1, 2, 3, 4, 5]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(5, 10), &seen);
    assert!(without.groups().all(|group| group.members.iter().any(|m| m.state == MemberState::Offline)));
    seen.absent.insert(DiskId(1));
    let replaced = settle(without.clone(), &seen);
    let taken = |disk| {
        replaced.groups().filter(|group| group.state_of(DiskId(disk)) == Some(MemberState::Syncing)).count()
    };
    assert_eq!((taken(4), taken(5)), (5, 5), "shared by those that have room");
    // With only three racks there is nowhere to go.
    let mut narrow = well(&[2, 3]);
    narrow.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(3, 10), &narrow);
    narrow.absent.insert(DiskId(1));
    assert_eq!(plan(&without, &narrow, 100), []);
}

/// What chunkservers do with what is due: who syncs gets level, who joined gets active.
pub(super) fn work(table: Table, seen: &Seen) -> Table {
    let mut table = table;
    for _ in 0..200 {
        let before = table.version;
        table = settle_once(table, seen);
        let groups = || table.groups();
        let level = groups()
            .flat_map(|g| g.in_state(MemberState::Syncing).map(|disk| (g.id, g.epoch, disk)))
            .collect();
        let active = groups().map(|group| (group.id, group.epoch)).collect();
        table = settle_once(table.clone(), &Seen { level, active, ..seen.clone() });
        if table.version == before {
            return table;
        }
    }
    panic!("never at rest: {:?}", plan(&table, seen, 100));
}

pub(super) fn counts(table: &Table, disks: u32) -> Vec<usize> {
    let on = |disk| table.groups().filter(|group| group.state_of(DiskId(disk)).is_some()).count();
    (1..=disks).map(on).collect()
}

fn marked(table: &Table, draining: &[u32]) -> Table {
    let mut servers: Vec<_> = table.servers().cloned().collect();
    for (disk, state) in servers.iter_mut().flat_map(|server| &mut server.disks) {
        state.draining = draining.contains(&disk.0);
    }
    Table::new(table.version + 1, servers, table.groups().cloned().collect()).with_replicas(3, 2)
}

/// It may lack what the primary cannot read: if it served, it could lead, and what it lacks would be removed everywhere.
#[test]
fn who_joins_under_a_primary_that_cannot_read_what_it_has_does_not_serve() {
    let whole = table(4, 1);
    let group = |table: &Table| table.groups().next().cloned().expect("a group");
    let mut seen = well(&[1, 2, 3, 4]);
    let mut now = {
        let mut groups: Vec<_> = whole.groups().cloned().collect();
        groups[0] = changed(&groups[0], Change::Add(DiskId(4)), rules(&whole)).expect("it is whole");
        groups[0] = changed(&groups[0], Change::Join(DiskId(4)), rules(&whole)).expect("it was filled");
        Table::new(2, whole.servers().cloned().collect(), groups).with_replicas(3, 2)
    };
    let joining = group(&now);
    seen.active.insert(joining.id, joining.epoch);
    seen.damaged.insert(joining.id, joining.epoch);
    now = settle_once(now, &seen);
    assert_eq!(group(&now).state_of(DiskId(4)), Some(MemberState::Offline));
    seen.damaged.clear();
    let settled = settle_once(now, &seen);
    assert_ne!(group(&settled).state_of(DiskId(4)), Some(MemberState::Serving));
}

#[test]
fn a_primary_that_cannot_read_what_it_has_lets_another_lead() {
    let group = |table: &Table| table.groups().next().cloned().expect("a group");
    let mut now = table(3, 1);
    let mut led = BTreeSet::new();
    for _ in 0..3 {
        let before = group(&now);
        led.insert(before.primary());
        let damaged = BTreeMap::from([(before.id, before.epoch)]);
        now = settle_once(now, &Seen { damaged: damaged.clone(), ..well(&[1, 2, 3]) });
        assert_eq!(group(&now).epoch.0, before.epoch.0 + 1);
        assert_eq!(plan(&now, &Seen { damaged, ..well(&[1, 2, 3]) }, 9), [], "said of an older epoch");
    }
    assert_eq!(led.len(), 3, "each has its turn");
}

#[test]
fn a_disk_to_be_emptied_is_left_once_another_has_its_data() {
    let seen = well(&[1, 2, 3, 4]);
    let draining = marked(&table(4, 40), &[2]);
    let due = plan(&draining, &seen, 100);
    assert_eq!(due.len(), MOVES_MAX, "not all at once");
    assert!(due.iter().all(|change| change.change == Change::Add(DiskId(4))));
    assert_eq!(plan(&settle_once(draining.clone(), &seen), &seen, 100), [], "until these are done");
    let done = work(draining, &seen);
    assert_eq!(counts(&done, 4)[1], 0);
    assert!(done.groups().all(|group| group.serving().count() == 3 && group.members.len() == 3));
    // Without a place to go it stays, and so do all copies.
    let stuck = marked(&table(3, 9), &[2]);
    assert_eq!(work(stuck.clone(), &well(&[1, 2, 3])), stuck);
    // Taken back, it gets its share again.
    let back = work(marked(&done, &[]), &seen);
    assert_eq!(counts(&back, 4), [30, 30, 30, 30]);
}

#[test]
fn a_disk_to_be_emptied_that_is_away_is_replaced_at_once() {
    let mut seen = well(&[1, 2, 3, 4]);
    seen.servers.insert(ServerId(2), Health::Gone);
    let done = work(marked(&table(4, 10), &[2]), &seen);
    assert_eq!(counts(&done, 4), [10, 0, 10, 10]);
}

#[test]
fn a_new_disk_gets_its_share_and_a_larger_one_a_larger_share() {
    let seen = well(&[1, 2, 3, 4, 5]);
    let even = work(table(5, 50), &seen);
    assert_eq!(counts(&even, 5), [30, 30, 30, 30, 30]);
    assert!(even.groups().all(|group| group.serving().count() == 3 && group.members.len() == 3));
    assert_eq!(work(even.clone(), &seen), even, "nothing moves to and fro");
    let mut servers: Vec<_> = table(5, 50).servers().cloned().collect();
    servers[4].disks[0].1.capacity_bytes = 3;
    let groups = table(5, 50).groups().cloned().collect();
    let uneven = work(Table::new(1, servers, groups).with_replicas(3, 2), &seen);
    let counts = counts(&uneven, 5);
    assert!(counts[4] >= 45 && counts[..4].iter().all(|count| *count <= 28), "{counts:?}");
}

#[test]
fn no_more_groups_move_than_make_disks_equal() {
    let due = plan(&table(4, 8), &well(&[1, 2, 3, 4]), 100);
    assert!(due.iter().all(|due| due.change == Change::Add(DiskId(4))), "{due:?}");
    assert_eq!(due.len(), 6, "of three times eight, a quarter");
}

#[test]
fn of_one_too_many_who_is_away_goes_first() {
    let whole = table(4, 1);
    let mut group = whole.group(GroupId(1)).unwrap().clone();
    group.members.push(Member { disk: DiskId(4), state: MemberState::Serving });
    for away in 1..=4 {
        let mut group = group.clone();
        let member = group.members.iter_mut().find(|member| member.disk == DiskId(away)).unwrap();
        member.state = MemberState::Offline;
        let table = Table::new(2, whole.servers().cloned().collect(), vec![group]).with_replicas(3, 2);
        let due = plan(&table, &well(&[1, 2, 3, 4]), 100);
        assert!(matches!(due[..], [due] if due.change == Change::Drop(DiskId(away))), "{due:?}");
    }
}

/// Two members of a group that moves within a rack, and a third one that is drained or lost: whoever leaves or comes, the
/// group is spread over racks in the end.
#[test]
fn a_move_within_a_rack_ends_with_racks_of_their_own() {
    let in_rack = |table: &mut Table, server: u32, rack: u32| {
        let found = table.servers_mut().find(|found| found.id == ServerId(server)).unwrap();
        found.location = format!("/r/rack{rack}/h{server}");
    };
    let mut moving = table(5, 1);
    in_rack(&mut moving, 4, 2);
    in_rack(&mut moving, 5, 3);
    let servers: Vec<_> = moving.servers().cloned().collect();
    let with = |state| {
        let member = |disk, state| Member { disk: DiskId(disk), state };
        let serving = [2, 3, 4].map(|disk| member(disk, MemberState::Serving));
        let members = serving.into_iter().chain([member(1, state)]).collect();
        let group = Group { id: GroupId(1), epoch: Epoch(9), members };
        Table::new(1, servers.clone(), vec![group]).with_replicas(3, 2)
    };
    let due = |table: &Table, seen: &Seen| {
        plan(table, seen, 100).into_iter().map(|change| change.change).collect::<Vec<_>>()
    };
    let drained = marked(&with(MemberState::Serving), &[1]);
    let dropped = due(&drained, &well(&[1, 2, 3, 4, 5]));
    assert!(matches!(dropped[..], [Change::Drop(DiskId(2 | 4))]), "{dropped:?}");
    let mut lost = well(&[2, 3, 4, 5]);
    lost.servers.insert(ServerId(1), Health::Gone);
    lost.absent.insert(DiskId(1));
    assert_eq!(
        due(&with(MemberState::Offline), &lost),
        [],
        "5 would be in a rack with 3, 2 and 4 are in one already"
    );
    let back = due(&with(MemberState::Offline), &well(&[1, 2, 3, 4, 5]));
    assert_eq!(back, [Change::Sync(DiskId(1))]);
}

#[test]
fn within_three_racks_a_group_keeps_one_member_in_each() {
    let mut servers: Vec<_> = table(6, 1).servers().cloned().collect();
    for server in &mut servers[3..] {
        server.location = format!("/r/rack{}/h{}", server.id.0 - 3, server.id.0);
    }
    let groups = table(3, 30).groups().cloned().collect();
    let done = work(Table::new(1, servers, groups).with_replicas(3, 2), &well(&[1, 2, 3, 4, 5, 6]));
    assert_eq!(counts(&done, 6), [15, 15, 15, 15, 15, 15]);
    for group in done.groups() {
        let mut racks: Vec<_> = group.members.iter().map(|member| (member.disk.0 - 1) % 3).collect();
        racks.sort_unstable();
        assert_eq!(racks, [0, 1, 2], "{group:?}");
    }
}

#[test]
fn who_dies_while_its_group_moves_is_let_go() {
    let seen = well(&[1, 2, 3, 4]);
    let moving = settle_once(marked(&table(4, 4), &[3]), &seen);
    let mut without = seen.clone();
    without.servers.insert(ServerId(1), Health::Gone);
    without.absent.insert(DiskId(1));
    let done = work(moving, &without);
    assert!(done.groups().all(|group| group.serving().count() >= 2));
    assert!(done.groups().all(|group| group.state_of(DiskId(4)) == Some(MemberState::Serving)));
    let healed = work(done, &seen);
    assert_eq!(counts(&healed, 4), [4, 4, 0, 4]);
}

#[test]
fn who_lost_its_disk_is_not_waited_for() {
    let mut seen = well(&[1, 2, 3]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(3, 3), &seen);
    let mut servers: Vec<_> = without.servers().cloned().collect();
    servers[1].disks[0].1.failed = true;
    let groups = without.groups().cloned().collect();
    let left = settle(Table::new(9, servers, groups).with_replicas(3, 2), &seen);
    assert!(left.groups().all(|group| group.serving().eq([DiskId(3)])));
}

#[test]
fn what_is_left_is_dropped_only_while_all_members_are_well() {
    let whole = table(4, 1);
    let group = GroupId(1);
    assert!(may_drop(&whole, &well(&[1, 2, 3]), group, DiskId(4)));
    assert!(!may_drop(&whole, &well(&[1, 2, 3]), group, DiskId(3)), "it is a member");
    assert!(!may_drop(&whole, &well(&[1, 2]), group, DiskId(4)), "one is quiet");
    assert!(!may_drop(&whole, &well(&[1, 2, 3]), GroupId(2), DiskId(4)), "nobody knows that group");
    let more = whole.clone().with_replicas(4, 2);
    assert!(!may_drop(&more, &well(&[1, 2, 3]), group, DiskId(4)), "a member is missing");
    let mut syncing = whole.group(group).unwrap().clone();
    syncing.members[2].state = MemberState::Syncing;
    let filling = Table::new(2, whole.servers().cloned().collect(), vec![syncing]).with_replicas(3, 2);
    assert!(!may_drop(&filling, &well(&[1, 2, 3]), group, DiskId(4)), "one is being filled");
    let mut seen = well(&[1, 2, 3, 4]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(3, 1), &seen);
    assert!(!may_drop(&without, &well(&[1, 2, 3]), group, DiskId(4)), "one is offline");
}

#[test]
fn a_failed_disk_leaves_and_is_replaced_at_once() {
    let mut seen = well(&[1, 2, 3, 4]);
    seen.failed.insert(DiskId(1));
    let without = settle(table(4, 3), &seen);
    assert!(without.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Offline)));
    let mut servers: Vec<_> = without.servers().cloned().collect();
    servers[0].disks[0].1.failed = true;
    let groups = without.groups().cloned().collect();
    let lost = Table::new(9, servers, groups).with_replicas(3, 2);
    let replaced = settle(lost.clone(), &seen);
    assert!(replaced.groups().all(|group| group.state_of(DiskId(4)) == Some(MemberState::Syncing)));
    assert_eq!(plan(&lost, &well(&[1, 2, 3]), 100), [], "nobody knows how the only spare is");
}

#[test]
fn what_was_seen_of_another_epoch_counts_for_nothing() {
    let (one, group) = (DiskId(1), GroupId(1));
    let mut seen = well(&[1, 2, 3]);
    seen.servers.insert(ServerId(1), Health::Gone);
    let without = settle(table(3, 1), &seen);
    let back = settle(without, &well(&[1, 2, 3]));
    let epoch = back.group(group).unwrap().epoch;
    let older = Seen { level: [(group, Epoch(epoch.0 - 1), one)].into(), ..well(&[1, 2, 3]) };
    assert_eq!(plan(&back, &older, 100), []);
    let level = Seen { level: [(group, epoch, one)].into(), ..well(&[1, 2, 3]) };
    let joined = settle(back, &level);
    assert_eq!(joined.group(group).unwrap().state_of(one), Some(MemberState::Joining));
    let older = Seen { active: [(group, epoch)].into(), ..well(&[1, 2, 3]) };
    assert_eq!(plan(&joined, &older, 100), [], "it was active before the member joined");
}

#[test]
fn a_spare_is_on_a_host_of_its_own_if_the_group_was_spread_over_hosts() {
    let whole = table(5, 6);
    let mut servers: Vec<_> = whole.servers().cloned().collect();
    for (server, host) in servers.iter_mut().zip(["a", "b", "c", "b", "d"]) {
        server.location = format!("/r/rack/{host}");
    }
    let table = Table::new(1, servers, whole.groups().cloned().collect()).with_replicas(3, 2);
    let mut seen = well(&[2, 3, 4, 5]);
    seen.servers.insert(ServerId(1), Health::Gone);
    seen.absent.insert(DiskId(1));
    let replaced = settle(table, &seen);
    assert!(replaced.groups().all(|group| group.state_of(DiskId(5)) == Some(MemberState::Syncing)));
}

#[test]
fn few_primaries_move_at_a_time() {
    let whole = table(3, 9);
    let mut groups: Vec<_> = whole.groups().cloned().collect();
    groups.iter_mut().for_each(|group| group.members.sort_by_key(|member| member.disk));
    let servers = whole.servers().cloned().collect();
    let led_by_one = Table::new(1, servers, groups).with_replicas(3, 2);
    let due = plan(&led_by_one, &well(&[1, 2, 3]), 100);
    assert!(due.len() == LEADS_MAX && due.iter().all(|due| matches!(due.change, Change::Lead(_))), "{due:?}");
}

#[test]
fn one_command_is_bounded() {
    let mut seen = well(&[1, 2]);
    seen.servers.insert(ServerId(3), Health::Gone);
    assert_eq!(plan(&table(3, 9), &seen, 4).len(), 4);
}
