//! What the leader knows and no log holds: who was heard when, whose process is known dead, what primaries reported. Lost
//! with the leader, made anew by the next.
//!
//! Invariants:
//! - a session or chunkserver is never called silent before it had a whole lease to speak to *this* leader;
//! - no lease is granted to a chunkserver between the decision to take it out and the effect of that (`condemned`);
//! - nor to one whose lease is called back: once it said that it has none it gets none until it is `called_back` no more;
//! - what is kept is bounded by the sessions, servers and groups there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use coord_types::{DiskId, Epoch, GroupId, ServerId, SessionId};
use master_api::model::{DiskState, Table};
use master_core::table::plan::{Health, Seen};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A chunkserver as its last heartbeat described it.
#[derive(Clone, Debug)]
pub(crate) struct ServerSeen {
    pub(crate) incarnation: u64,
    pub(crate) heard: Instant,
    pub(crate) disks: Vec<master_api::proto::Disk>,
}

/// What a primary has to say of one of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupNews {
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) what: News,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// This syncing member is level.
    Level(DiskId),
    /// The epoch is active.
    Active,
    /// The primary cannot read a chunk in which the members differ.
    Damaged,
}

/// A process that serves no more.
#[derive(Clone, Copy, Debug)]
struct Gone {
    incarnation: u64,
    since: Instant,
    /// It said so itself.
    goodbye: bool,
}

#[derive(Debug, Default)]
struct Inner {
    /// When this master began to lead, if it does.
    leading_since: Option<Instant>,
    sessions: HashMap<SessionId, Instant>,
    servers: HashMap<ServerId, ServerSeen>,
    /// Calls for the next table that wait here, by the chunkserver that made them.
    streams: HashMap<ServerId, usize>,
    /// Processes known to be dead or to have stopped serving.
    gone: HashMap<ServerId, Gone>,
    /// Servers about to be taken out.
    condemned: BTreeSet<ServerId>,
    /// Servers whose lease is called back, and whether they said that they hold none.
    called_back: BTreeMap<ServerId, bool>,
    /// Servers to be looked at.
    suspects: BTreeSet<ServerId>,
    /// When a member's disk was first seen offline by this leader.
    offline_since: BTreeMap<DiskId, Instant>,
    level: BTreeSet<(GroupId, Epoch, DiskId)>,
    active: BTreeMap<GroupId, Epoch>,
    damaged: BTreeMap<GroupId, Epoch>,
}

/// Shared by the services and the background jobs. Held for look-ups only, never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Soft {
    inner: Mutex<Inner>,
    /// Something was heard or happened that may make a change of groups due.
    pub(crate) news: Notify,
    /// There are suspects.
    pub(crate) suspected: Notify,
}

impl Soft {
    /// Leadership began (or ended): everybody gets a fresh lease.
    pub(crate) fn set_leading(&self, since: Option<Instant>) {
        let mut inner = self.inner.lock();
        // Calls that wait belong to connections, not to a time of leadership: each ends by itself.
        let streams = std::mem::take(&mut inner.streams);
        *inner = Inner { leading_since: since, streams, ..Inner::default() };
    }

    pub(crate) fn heard_session(&self, session: SessionId, now: Instant) {
        self.inner.lock().sessions.insert(session, now);
    }

    pub(crate) fn forget_session(&self, session: SessionId) {
        self.inner.lock().sessions.remove(&session);
    }

    /// How long `session` has been silent towards this leader; `None` if this master does not lead.
    pub(crate) fn session_silence(&self, session: SessionId, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.leading_since?;
        let heard = inner.sessions.get(&session).copied().unwrap_or(since);
        Some(now.saturating_duration_since(heard))
    }

    /// A chunkserver spoke, and holds a lease or not. Whether it gets one: not if it is about to be taken out, nor after its
    /// goodbye, nor while its lease is called back.
    pub(crate) fn heard_server(&self, server: ServerId, seen: ServerSeen, leased: bool) -> bool {
        let mut inner = self.inner.lock();
        if inner.leading_since.is_none() || inner.condemned.contains(&server) {
            return false;
        }
        // What it sent before it died may arrive after. A process that goes on speaking was not dead.
        let silenced = inner.gone.get(&server).is_some_and(|gone| {
            let lately = seen.heard.saturating_duration_since(gone.since) < GONE_MIN;
            gone.incarnation >= seen.incarnation && (gone.goodbye || lately)
        });
        if silenced {
            return false;
        }
        inner.gone.remove(&server);
        let news = inner.servers.get(&server).is_none_or(|known| {
            let failed = |disks: &[master_api::proto::Disk]| disks.iter().filter(|disk| disk.failed).count();
            known.incarnation != seen.incarnation || failed(&known.disks) != failed(&seen.disks)
        });
        inner.servers.insert(server, seen);
        let called_back = match inner.called_back.get_mut(&server) {
            None => false,
            Some(released) => {
                if !leased && !std::mem::replace(released, true) {
                    self.news.notify_one();
                }
                true
            }
        };
        if news {
            self.news.notify_one();
        }
        !called_back
    }

    pub(crate) fn server(&self, server: ServerId) -> Option<ServerSeen> {
        self.inner.lock().servers.get(&server).cloned()
    }

    /// How long `server` has been silent towards this leader.
    pub(crate) fn server_silence(&self, server: ServerId, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.leading_since?;
        let heard = inner.servers.get(&server).map_or(since, |seen| seen.heard);
        Some(now.saturating_duration_since(heard))
    }

    /// A call of a chunkserver waits here.
    pub(crate) fn stream_opened(&self, server: ServerId) {
        *self.inner.lock().streams.entry(server).or_default() += 1;
    }

    /// The call has ended. `broken`: by the loss of its connection.
    pub(crate) fn stream_closed(&self, server: ServerId, broken: bool) {
        let mut inner = self.inner.lock();
        if let Some(count) = inner.streams.get_mut(&server) {
            *count -= 1;
            if *count == 0 {
                inner.streams.remove(&server);
            }
        }
        drop(inner);
        if broken {
            self.suspect(server);
        }
    }

    pub(crate) fn has_stream(&self, server: ServerId) -> bool {
        self.inner.lock().streams.contains_key(&server)
    }

    /// The server should be looked at.
    pub(crate) fn suspect(&self, server: ServerId) {
        let mut inner = self.inner.lock();
        if inner.leading_since.is_some() && inner.suspects.insert(server) {
            self.suspected.notify_one();
        }
    }

    pub(crate) fn take_suspects(&self) -> BTreeSet<ServerId> {
        std::mem::take(&mut self.inner.lock().suspects)
    }

    /// The process with this incarnation serves no more, by its own word (`goodbye`) or because it is dead.
    pub(crate) fn gone(&self, server: ServerId, incarnation: u64, goodbye: bool) {
        let gone = Gone { incarnation, since: Instant::now(), goodbye };
        self.inner.lock().gone.insert(server, gone);
        self.news.notify_one();
    }

    /// A primary's news, repeated until the table shows their effect.
    pub(crate) fn group_news(&self, news: impl Iterator<Item = GroupNews>) {
        let mut inner = self.inner.lock();
        let mut new = false;
        for GroupNews { group, epoch, what } in news {
            new |= match what {
                News::Level(disk) => inner.level.insert((group, epoch, disk)),
                News::Active => inner.active.insert(group, epoch) != Some(epoch),
                News::Damaged => inner.damaged.insert(group, epoch) != Some(epoch),
            };
        }
        if new {
            self.news.notify_one();
        }
    }

    /// What is known of all servers and groups of the table, for [`master_core::table::plan::plan`].
    pub(crate) fn seen(&self, table: &Table, limits: &Limits, now: Instant) -> Seen {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        // Of epochs that are over nothing need be known.
        let at = |group: &GroupId, epoch: &Epoch| table.group(*group).is_some_and(|g| g.epoch == *epoch);
        inner.level.retain(|(group, epoch, _)| at(group, epoch));
        inner.active.retain(|group, epoch| at(group, epoch));
        inner.damaged.retain(|group, epoch| at(group, epoch));
        let offline: BTreeSet<DiskId> = table
            .groups()
            .flat_map(|group| group.in_state(master_api::model::MemberState::Offline))
            .collect();
        inner.offline_since.retain(|disk, _| offline.contains(disk));
        for disk in offline {
            inner.offline_since.entry(disk).or_insert(now);
        }
        let absent = inner.offline_since.iter();
        let absent =
            absent.filter(|(_, since)| now.saturating_duration_since(**since) >= limits.replace_after);
        let failed_of = |seen: &ServerSeen| {
            let failed = seen.disks.iter().filter(|disk| disk.failed);
            failed.filter_map(|disk| DiskState::try_from(disk).ok()).map(|disk| disk.uuid).collect::<Vec<_>>()
        };
        let mut seen = Seen {
            absent: absent.map(|(disk, _)| *disk).collect(),
            level: inner.level.clone(),
            active: inner.active.clone(),
            damaged: inner.damaged.clone(),
            ..Seen::default()
        };
        for server in table.servers() {
            seen.servers.insert(server.id, inner.health(server.id, limits, now));
            let failed = inner.servers.get(&server.id).map(failed_of).unwrap_or_default();
            let failed = server.disks.iter().filter(|(_, disk)| failed.contains(&disk.uuid));
            seen.failed.extend(failed.map(|(disk, _)| *disk));
        }
        seen.leaseless = inner.called_back.iter().filter(|(_, none)| **none).map(|(id, _)| *id).collect();
        seen
    }

    /// Marks those that are still gone; the others were heard meanwhile, and stay.
    pub(crate) fn condemn(
        &self,
        servers: &BTreeSet<ServerId>,
        limits: &Limits,
        now: Instant,
    ) -> BTreeSet<ServerId> {
        let mut inner = self.inner.lock();
        let still: BTreeSet<_> = servers
            .iter()
            .copied()
            .filter(|server| inner.health(*server, limits, now) == Health::Gone)
            .collect();
        inner.condemned.extend(&still);
        still
    }

    /// These servers get no lease from now on. Others do again, unless a decision against them may still have its effect
    /// (`open`). Gives those that hold none.
    pub(crate) fn call_back(&self, servers: &BTreeSet<ServerId>, open: bool) -> BTreeSet<ServerId> {
        let mut inner = self.inner.lock();
        inner.called_back.retain(|server, _| open || servers.contains(server));
        for server in servers {
            inner.called_back.entry(*server).or_default();
        }
        inner.called_back.iter().filter(|(_, released)| **released).map(|(server, _)| *server).collect()
    }

    /// All decisions have their effect.
    pub(crate) fn pardon_all(&self) {
        self.inner.lock().condemned.clear();
    }
}

/// A process taken for dead that is heard this long after was not.
const GONE_MIN: Duration = Duration::from_secs(5);

/// How long what may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) lease: Duration,
    pub(crate) replace_after: Duration,
}

impl Limits {
    /// A lease has run out at the server, by any clock that is less than 5 % off.
    fn lease_over(&self) -> Duration {
        self.lease + self.lease / 20
    }
}

impl Inner {
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

#[cfg(test)]
mod tests {
    use master_api::model::{Group, Member, MemberState, Server};

    use super::*;

    const ONE: ServerId = ServerId(1);
    const DISK: DiskId = DiskId(1);
    const GROUP: GroupId = GroupId(1);
    const LIMITS: Limits = Limits { lease: Duration::from_secs(3), replace_after: Duration::from_secs(60) };

    fn beat(incarnation: u64, heard: Instant) -> ServerSeen {
        ServerSeen { incarnation, heard, disks: Vec::new() }
    }

    fn health(soft: &Soft, now: Instant) -> Health {
        seen(soft, &table(1, MemberState::Serving), now).servers[&ONE]
    }

    fn seen(soft: &Soft, table: &Table, now: Instant) -> Seen {
        soft.seen(table, &LIMITS, now)
    }

    /// One server with one disk, which is all of one group.
    fn table(epoch: u64, state: MemberState) -> Table {
        let disk = DiskState::try_from(&proto_disk(false)).expect("a disk as it is sent");
        let server = Server {
            id: ONE,
            address: String::new(),
            location: String::new(),
            disks: vec![(DISK, disk)],
            incarnation: 1,
            silent_ms: 0,
        };
        let group = Group { id: GROUP, epoch: Epoch(epoch), members: vec![Member { disk: DISK, state }] };
        Table::new(1, vec![server], vec![group])
    }

    fn proto_disk(failed: bool) -> master_api::proto::Disk {
        master_api::proto::Disk { uuid: vec![7; 16].into(), failed, ..master_api::proto::Disk::default() }
    }

    #[test]
    fn a_new_leader_gives_everybody_a_whole_lease() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(soft.session_silence(SessionId(1), start), None);
        soft.set_leading(Some(start));
        soft.heard_session(SessionId(1), at(10));
        assert_eq!(soft.session_silence(SessionId(1), at(12)), Some(Duration::from_secs(2)));
        assert_eq!(soft.session_silence(SessionId(2), at(12)), Some(Duration::from_secs(12)));
        soft.set_leading(Some(at(20)));
        assert_eq!(soft.session_silence(SessionId(1), at(21)), Some(Duration::from_secs(1)));
        assert_eq!((health(&soft, at(22)), health(&soft, at(24))), (Health::Quiet, Health::Gone));
        soft.set_leading(None);
        assert_eq!(soft.server_silence(ONE, at(30)), None);
    }

    #[test]
    fn silence_is_waited_out_and_death_is_not() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        soft.set_leading(Some(start));
        assert!(soft.heard_server(ONE, beat(5, start), false));
        assert_eq!(health(&soft, at(2900)), Health::Well);
        assert_eq!(health(&soft, at(3100)), Health::Quiet, "its clock may be slow");
        assert_eq!(health(&soft, at(3200)), Health::Gone);
        assert!(soft.heard_server(ONE, beat(5, at(3300)), false));
        assert_eq!(health(&soft, at(3400)), Health::Well);
        soft.gone(ONE, 5, false);
        assert_eq!(health(&soft, at(3400)), Health::Gone);
        assert!(!soft.heard_server(ONE, beat(5, at(3500)), false), "what it sent before it died");
        assert!(soft.heard_server(ONE, beat(6, at(3600)), false), "another process");
        assert_eq!(health(&soft, at(3700)), Health::Well);
    }

    #[test]
    fn no_lease_while_a_decision_is_under_way() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        soft.set_leading(Some(start));
        let all = BTreeSet::from([ONE]);
        soft.heard_server(ONE, beat(5, start), false);
        assert_eq!(soft.condemn(&all, &LIMITS, at(1000)), BTreeSet::new(), "it was heard");
        assert_eq!(soft.condemn(&all, &LIMITS, at(4000)), all);
        assert!(!soft.heard_server(ONE, beat(5, at(4100)), false));
        soft.pardon_all();
        assert!(soft.heard_server(ONE, beat(5, at(4200)), false));
    }

    #[test]
    fn a_lease_that_is_called_back_is_waited_for() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        soft.set_leading(Some(start));
        assert!(soft.heard_server(ONE, beat(5, start), false));
        let one = BTreeSet::from([ONE]);
        assert_eq!(soft.call_back(&one, false), BTreeSet::new(), "it may hold one");
        assert!(!soft.heard_server(ONE, beat(5, at(100)), true), "it holds one and gets no other");
        assert_eq!(soft.call_back(&one, false), BTreeSet::new());
        assert_eq!(seen(&soft, &table(1, MemberState::Serving), at(150)).leaseless, BTreeSet::new());
        assert!(!soft.heard_server(ONE, beat(5, at(200)), false));
        assert_eq!(soft.call_back(&one, false), one);
        assert_eq!(seen(&soft, &table(1, MemberState::Serving), at(250)).leaseless, one);
        assert!(!soft.heard_server(ONE, beat(5, at(300)), false), "not before it is over");
        assert_eq!(soft.call_back(&BTreeSet::new(), true), one, "what was decided may still come");
        assert!(!soft.heard_server(ONE, beat(5, at(350)), false));
        assert_eq!(soft.call_back(&BTreeSet::new(), false), BTreeSet::new());
        assert!(soft.heard_server(ONE, beat(5, at(400)), false));
        assert_eq!(soft.call_back(&one, false), BTreeSet::new(), "forgotten with the call");
    }

    #[test]
    fn who_said_goodbye_is_believed_and_who_was_taken_for_dead_may_speak() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        soft.set_leading(Some(start));
        soft.gone(ONE, 5, false);
        assert!(!soft.heard_server(ONE, beat(5, at(4)), false), "it may have been sent before");
        assert!(soft.heard_server(ONE, beat(5, at(8)), false), "it goes on speaking");
        soft.gone(ONE, 5, true);
        assert!(!soft.heard_server(ONE, beat(5, at(60)), false), "by its own word");
        assert!(soft.heard_server(ONE, beat(6, at(61)), false));
        // What is known of the process before it comes late.
        soft.gone(ONE, 5, true);
        assert_eq!(health(&soft, at(62)), Health::Well);
    }

    #[test]
    fn news_of_an_epoch_are_forgotten_with_it() {
        let soft = Soft::default();
        let now = Instant::now();
        soft.set_leading(Some(now));
        let news = [News::Level(DISK), News::Active, News::Damaged];
        soft.group_news(news.map(|what| GroupNews { group: GROUP, epoch: Epoch(1), what }).into_iter());
        let told = |epoch| {
            let seen = seen(&soft, &table(epoch, MemberState::Syncing), now);
            (seen.level.len(), seen.active.len(), seen.damaged.len())
        };
        assert_eq!(told(1), (1, 1, 1));
        assert_eq!(told(2), (0, 0, 0));
        assert_eq!(told(1), (0, 0, 0));
    }

    #[test]
    fn a_disk_is_absent_when_it_was_away_in_one_go() {
        let soft = Soft::default();
        let start = Instant::now();
        soft.set_leading(Some(start));
        let absent = |state, seconds| {
            seen(&soft, &table(1, state), start + Duration::from_secs(seconds)).absent.contains(&DISK)
        };
        assert!(!absent(MemberState::Offline, 1));
        assert!(!absent(MemberState::Offline, 60));
        assert!(absent(MemberState::Offline, 61));
        assert!(!absent(MemberState::Syncing, 62));
        assert!(!absent(MemberState::Offline, 63), "it was back");
    }

    #[test]
    fn a_disk_failed_if_its_server_says_so() {
        let soft = Soft::default();
        let now = Instant::now();
        soft.set_leading(Some(now));
        let failed = |disks| {
            soft.heard_server(ONE, ServerSeen { disks, ..beat(5, now) }, false);
            seen(&soft, &table(1, MemberState::Serving), now).failed.contains(&DISK)
        };
        assert!(!failed(vec![proto_disk(false)]));
        assert!(failed(vec![proto_disk(true)]));
    }

    #[test]
    fn calls_that_wait_outlive_a_time_of_leadership() {
        let soft = Soft::default();
        soft.set_leading(Some(Instant::now()));
        soft.stream_opened(ONE);
        soft.stream_opened(ONE);
        soft.stream_closed(ONE, false);
        assert!(soft.has_stream(ONE), "the other one");
        soft.set_leading(Some(Instant::now()));
        assert!(soft.has_stream(ONE));
        assert_eq!(soft.take_suspects(), BTreeSet::new());
        soft.stream_closed(ONE, true);
        assert_eq!((soft.has_stream(ONE), soft.take_suspects()), (false, BTreeSet::from([ONE])));
    }
}
