//! What the leader has heard of chunkservers, and what it may do with it: whom to believe gone, whom to give a lease, which changes
//! may be proposed. Held in the leader's memory only, made anew by the next one. Time comes in with each call, by the leader's
//! monotonic clock. `master/docs/groups.md`, "Leases", has the argument.
//!
//! Invariants:
//! - a chunkserver is never called silent before it had a whole lease to speak to *this* leader;
//! - no lease is granted to a chunkserver between the decision to take it out and the effect of that (`condemned`);
//! - nor to one whose lease is called back: once it said that it has none it gets none until it is `called_back` no more;
//! - what is kept is bounded by the servers and groups there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use coord_types::{DiskId, Epoch, GroupId, ServerId};
use master_model::{DiskState, MemberState, Pace, Table, proto};

use crate::load::Loads;
use crate::slow::{self, Judge, Measure};
use crate::table::change::{Change, GroupChange};
use crate::table::plan::{Health, Seen};

/// A process taken for dead that is heard this long after was not.
const GONE_MIN: Duration = Duration::from_secs(5);

/// A chunkserver as its last heartbeat described it.
#[derive(Clone, Debug)]
pub struct ServerSeen {
    pub incarnation: u64,
    /// Of the heartbeat; 0: it has none.
    pub number: u64,
    pub heard: Instant,
    pub disks: Vec<proto::Disk>,
}

/// What a primary has to say of one of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupNews {
    pub group: GroupId,
    pub epoch: Epoch,
    pub what: News,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// This syncing member is level.
    Level(DiskId),
    /// The epoch is active.
    Active,
    /// The primary cannot read a chunk in which the members differ.
    Damaged,
}

impl From<&proto::GroupNews> for GroupNews {
    fn from(news: &proto::GroupNews) -> Self {
        Self {
            group: GroupId(news.group),
            epoch: Epoch(news.epoch),
            what: match news.level_disk {
                0 if news.damaged => News::Damaged,
                0 => News::Active,
                disk => News::Level(DiskId(disk)),
            },
        }
    }
}

/// A process that serves no more.
#[derive(Clone, Copy, Debug)]
struct Gone {
    incarnation: u64,
    since: Instant,
    /// It said so itself.
    goodbye: bool,
}

/// How long what may last.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub lease: Duration,
    pub replace_after: Duration,
    pub slow: slow::Rules,
}

impl Limits {
    /// A lease has run out at the server, by any clock that is less than 5 % off.
    fn lease_over(&self) -> Duration {
        self.lease + self.lease / 20
    }
}

/// What a leader answers a chunkserver that spoke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// It gets a lease.
    pub leased: bool,
    /// What it said may make a change of groups due.
    pub news: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ward {
    /// When this master began to lead, if it does.
    leading_since: Option<Instant>,
    servers: HashMap<ServerId, ServerSeen>,
    /// Processes known to be dead or to have stopped serving.
    gone: HashMap<ServerId, Gone>,
    /// Servers about to be taken out.
    condemned: BTreeSet<ServerId>,
    /// Servers whose lease is called back, and whether they said that they hold none.
    called_back: BTreeMap<ServerId, bool>,
    /// When a member's disk was first seen offline by this leader.
    offline_since: BTreeMap<DiskId, Instant>,
    level: BTreeSet<(GroupId, Epoch, DiskId)>,
    active: BTreeMap<GroupId, Epoch>,
    damaged: BTreeMap<GroupId, Epoch>,
    judge: Judge,
    loads: Loads,
}

impl Ward {
    /// Leadership began (or ended): everybody gets a fresh lease.
    #[must_use]
    pub fn new(leading_since: Option<Instant>) -> Self {
        Self { leading_since, ..Self::default() }
    }

    #[must_use]
    pub const fn leading_since(&self) -> Option<Instant> {
        self.leading_since
    }

    /// A chunkserver spoke, and holds a lease or not. It gets one, but not if it is about to be taken out, nor after its goodbye,
    /// nor while its lease is called back.
    pub fn heard(&mut self, server: ServerId, mut seen: ServerSeen, leased: bool) -> Heard {
        if self.leading_since.is_none() || self.condemned.contains(&server) {
            return Heard::default();
        }
        // What it sent before it died may arrive after. A process that goes on speaking was not dead.
        let silenced = self.gone.get(&server).is_some_and(|gone| {
            let lately = seen.heard.saturating_duration_since(gone.since) < GONE_MIN;
            gone.incarnation >= seen.incarnation && (gone.goodbye || lately)
        });
        if silenced {
            return Heard::default();
        }
        if let Some(known) = self.servers.get(&server).filter(|known| known.incarnation == seen.incarnation) {
            // What comes late must not give back a lease that was granted since it was sent.
            if seen.number != 0 && seen.number <= known.number {
                return Heard::default();
            }
            seen.number = seen.number.max(known.number);
        }
        self.gone.remove(&server);
        let mut news = self.servers.get(&server).is_none_or(|known| {
            let failed = |disks: &[proto::Disk]| disks.iter().filter(|disk| disk.failed).count();
            known.incarnation != seen.incarnation || failed(&known.disks) != failed(&seen.disks)
        });
        self.servers.insert(server, seen);
        let called_back = match self.called_back.get_mut(&server) {
            None => false,
            Some(released) => {
                news |= !leased && !std::mem::replace(released, true);
                true
            }
        };
        Heard { leased: !called_back, news }
    }

    #[must_use]
    pub fn server(&self, server: ServerId) -> Option<&ServerSeen> {
        self.servers.get(&server)
    }

    /// How long `server` has been silent towards this leader; `None` if this master does not lead.
    #[must_use]
    pub fn silence(&self, server: ServerId, now: Instant) -> Option<Duration> {
        let since = self.leading_since?;
        let heard = self.servers.get(&server).map_or(since, |seen| seen.heard);
        Some(now.saturating_duration_since(heard))
    }

    /// The process with this incarnation serves no more, by its own word (`goodbye`) or because it is dead.
    pub fn gone(&mut self, server: ServerId, incarnation: u64, goodbye: bool, now: Instant) {
        self.gone.insert(server, Gone { incarnation, since: now, goodbye });
    }

    /// A primary's news, repeated until the table shows their effect. Whether there was anything new.
    pub fn group_news(&mut self, news: impl Iterator<Item = GroupNews>) -> bool {
        let mut new = false;
        for GroupNews { group, epoch, what } in news {
            new |= match what {
                News::Level(disk) => self.level.insert((group, epoch, disk)),
                News::Active => self.active.insert(group, epoch) != Some(epoch),
                News::Damaged => self.damaged.insert(group, epoch) != Some(epoch),
            };
        }
        new
    }

    /// What primaries say is written to their groups.
    pub fn group_loads(&mut self, loads: &[proto::GroupLoad], now: Instant) {
        for load in loads {
            self.loads.note(GroupId(load.group), load.write_bytes_per_s, now);
        }
    }

    /// What is known of all servers and groups of the table, for [`plan`](crate::table::plan::plan).
    pub fn seen(&mut self, table: &Table, limits: &Limits, now: Instant) -> Seen {
        // Of epochs that are over nothing need be known.
        let at = |group: &GroupId, epoch: &Epoch| table.group(*group).is_some_and(|g| g.epoch == *epoch);
        self.level.retain(|(group, epoch, _)| at(group, epoch));
        self.active.retain(|group, epoch| at(group, epoch));
        self.damaged.retain(|group, epoch| at(group, epoch));
        let offline: BTreeSet<DiskId> =
            table.groups().flat_map(|group| group.in_state(MemberState::Offline)).collect();
        self.offline_since.retain(|disk, _| offline.contains(disk));
        for disk in offline {
            self.offline_since.entry(disk).or_insert(now);
        }
        let absent = self.offline_since.iter();
        let absent =
            absent.filter(|(_, since)| now.saturating_duration_since(**since) >= limits.replace_after);
        let failed_of = |seen: &ServerSeen| {
            let failed = seen.disks.iter().filter(|disk| disk.failed);
            failed.filter_map(|disk| DiskState::try_from(disk).ok()).map(|disk| disk.uuid).collect::<Vec<_>>()
        };
        let mut seen = Seen {
            absent: absent.map(|(disk, _)| *disk).collect(),
            level: self.level.clone(),
            active: self.active.clone(),
            damaged: self.damaged.clone(),
            ..Seen::default()
        };
        for server in table.servers() {
            seen.servers.insert(server.id, self.health(server.id, limits, now));
            let failed = self.servers.get(&server.id).map(failed_of).unwrap_or_default();
            let failed = server.disks.iter().filter(|(_, disk)| failed.contains(&disk.uuid));
            seen.failed.extend(failed.map(|(disk, _)| *disk));
        }
        if let Some(begun) = self.leading_since {
            let measures = self.measures(table, &seen);
            self.judge.judge(&measures, &limits.slow, begun, now);
            let exists = |group| table.group(group).is_some();
            seen.loads.clone_from(self.loads.shown(exists, begun, now));
        }
        seen.slow = self.judge.out().collect();
        seen.leaseless = self.called_back.iter().filter(|(_, none)| **none).map(|(id, _)| *id).collect();
        seen
    }

    /// How fast a disk was found beside the others.
    #[must_use]
    pub fn pace(&self, disk: DiskId) -> Pace {
        self.judge.pace(disk)
    }

    /// Of disks that work, on servers that are not gone.
    fn measures(&self, table: &Table, seen: &Seen) -> Vec<Measure> {
        let health = |server| seen.servers.get(&server).copied().unwrap_or(Health::Quiet);
        let servers = table.servers().filter(|server| health(server.id) != Health::Gone);
        let disks = servers.flat_map(|server| server.disks.iter().map(move |disk| (server.id, disk)));
        let works = disks.filter(|(_, (id, state))| !state.failed && !seen.failed.contains(id));
        works
            .map(|(server, (disk, state))| {
                let heard = self.servers.get(&server).filter(|_| health(server) == Health::Well);
                let said =
                    heard.and_then(|heard| heard.disks.iter().find(|said| said.uuid[..] == state.uuid[..]));
                let latency_us = said.map(|said| said.write_latency_us).filter(|us| *us > 0);
                Measure {
                    disk: *disk,
                    server,
                    capacity_bytes: state.capacity_bytes,
                    latency: latency_us.map(Duration::from_micros),
                    away: self.offline_since.contains_key(disk),
                }
            })
            .collect()
    }

    /// Which of the changes that are due may be proposed now. Who is taken out for being gone is marked, if it still is;
    /// who is dropped or too slow must have no lease first, which is called back. `open`: the fate of an earlier proposal is not known.
    #[must_use]
    pub fn clear(
        &mut self,
        mut due: Vec<GroupChange>,
        table: &Table,
        seen: &Seen,
        at: Moment,
    ) -> Vec<GroupChange> {
        let leaving = leaving(&due, table, seen);
        let condemned = self.condemn(&leaving, &at.limits, at.now);
        due.retain(|change| match change.change {
            Change::Out(disk) | Change::Lost(disk) => {
                let server = table.server_of(disk).map(|server| server.id);
                server.is_none_or(|server| !leaving.contains(&server) || condemned.contains(&server))
            }
            _ => true,
        });
        // Who is well and let go serves reads until it knows, unless it has no lease.
        let let_go = |change: &GroupChange| let_go(change, table, seen);
        let leaseless = self.call_back(&due.iter().filter_map(let_go).collect(), at.open);
        due.retain(|change| let_go(change).is_none_or(|server| leaseless.contains(&server)));
        due
    }

    /// Marks those that are still gone; the others were heard meanwhile, and stay.
    pub fn condemn(
        &mut self,
        servers: &BTreeSet<ServerId>,
        limits: &Limits,
        now: Instant,
    ) -> BTreeSet<ServerId> {
        let still: BTreeSet<_> = servers
            .iter()
            .copied()
            .filter(|server| self.health(*server, limits, now) == Health::Gone)
            .collect();
        self.condemned.extend(&still);
        still
    }

    /// These servers get no lease from now on. Others do again, unless a decision against them may still have its effect
    /// (`open`). Gives those that hold none.
    pub fn call_back(&mut self, servers: &BTreeSet<ServerId>, open: bool) -> BTreeSet<ServerId> {
        self.called_back.retain(|server, _| open || servers.contains(server));
        for server in servers {
            self.called_back.entry(*server).or_default();
        }
        self.called_back.iter().filter(|(_, released)| **released).map(|(server, _)| *server).collect()
    }

    /// All decisions have their effect.
    pub fn pardon_all(&mut self) {
        self.condemned.clear();
    }

    fn health(&self, server: ServerId, limits: &Limits, now: Instant) -> Health {
        let Some(since) = self.leading_since else { return Health::Quiet };
        let seen = self.servers.get(&server);
        let incarnation = seen.map_or(0, |seen| seen.incarnation);
        if self.gone.get(&server).is_some_and(|gone| gone.incarnation >= incarnation) {
            return Health::Gone;
        }
        let silence = now.saturating_duration_since(seen.map_or(since, |seen| seen.heard));
        if silence > limits.lease_over() {
            Health::Gone
        } else if seen.is_some() && silence < limits.lease && !self.condemned.contains(&server) {
            Health::Well
        } else {
            Health::Quiet
        }
    }
}

/// When [`Ward::clear`] is asked, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub limits: Limits,
    pub now: Instant,
    /// A proposal failed: whether it is applied is not known.
    pub open: bool,
}

/// The servers that are taken out because they are gone (and not for a disk of theirs).
fn leaving(due: &[GroupChange], table: &Table, seen: &Seen) -> BTreeSet<ServerId> {
    let outs = due.iter().filter_map(|change| match change.change {
        Change::Out(disk) | Change::Lost(disk) => table.server_of(disk).map(|server| server.id),
        _ => None,
    });
    outs.filter(|server| seen.servers.get(server) == Some(&Health::Gone)).collect()
}

/// The server of a member that may be read and is to be dropped, or to be taken out although it is well.
fn let_go(change: &GroupChange, table: &Table, seen: &Seen) -> Option<ServerId> {
    let disk = match change.change {
        Change::Drop(disk) => disk,
        // Who is gone has no lease, and a server stops the groups of a disk that failed before it says so.
        Change::Out(disk) if seen.is_only_slow(table, disk) => disk,
        _ => return None,
    };
    let state = table.group(change.group)?.state_of(disk)?;
    let read = matches!(state, MemberState::Serving | MemberState::Joining);
    table.server_of(disk).filter(|_| read).map(|server| server.id)
}
