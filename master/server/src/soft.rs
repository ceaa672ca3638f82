//! What the leader knows and no log holds, shared by the services and the background jobs: sessions, who was heard when
//! ([`Ward`]), whom to look at. Lost with the leader, made anew by the next.
//!
//! Invariants:
//! - a session is never called silent before it had a whole lease to speak to *this* leader; [`Ward`] has those of chunkservers;
//! - what is kept is bounded by the sessions, servers and groups there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_types::{DiskId, ServerId, SessionId};
use master_api::model::{Pace, Table};
use master_core::health::{GroupNews, Limits, Moment, ServerSeen, Ward};
use master_core::table::change::GroupChange;
use master_core::table::plan::Seen;
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<SessionId, Instant>,
    /// Whose they are, of those that were used here.
    owners: HashMap<SessionId, Arc<str>>,
    /// Calls for the next table that wait here, by the chunkserver that made them.
    streams: HashMap<ServerId, usize>,
    /// Servers to be looked at.
    suspects: BTreeSet<ServerId>,
    ward: Ward,
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
        *inner = Inner { streams, ward: Ward::new(since), ..Inner::default() };
    }

    pub(crate) fn heard_session(&self, session: SessionId, now: Instant) {
        self.inner.lock().sessions.insert(session, now);
    }

    pub(crate) fn forget_session(&self, session: SessionId) {
        let mut inner = self.inner.lock();
        inner.sessions.remove(&session);
        inner.owners.remove(&session);
    }

    /// Whose a session is, if that was noted.
    pub(crate) fn session_owner(&self, session: SessionId) -> Option<Arc<str>> {
        self.inner.lock().owners.get(&session).cloned()
    }

    /// Gives the owner back.
    pub(crate) fn note_session_owner(&self, session: SessionId, owner: String) -> Arc<str> {
        let owner: Arc<str> = owner.into();
        self.inner.lock().owners.insert(session, Arc::clone(&owner));
        owner
    }

    /// How long `session` has been silent towards this leader; `None` if this master does not lead.
    pub(crate) fn session_silence(&self, session: SessionId, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.ward.leading_since()?;
        let heard = inner.sessions.get(&session).copied().unwrap_or(since);
        Some(now.saturating_duration_since(heard))
    }

    /// A chunkserver spoke, and holds a lease or not. Whether it gets one.
    pub(crate) fn heard_server(&self, server: ServerId, seen: ServerSeen, leased: bool) -> bool {
        let heard = self.inner.lock().ward.heard(server, seen, leased);
        if heard.news {
            self.news.notify_one();
        }
        heard.leased
    }

    /// How fast a disk was found beside the others.
    pub(crate) fn pace(&self, disk: DiskId) -> Pace {
        self.inner.lock().ward.pace(disk)
    }

    pub(crate) fn server(&self, server: ServerId) -> Option<ServerSeen> {
        self.inner.lock().ward.server(server).cloned()
    }

    /// How long `server` has been silent towards this leader.
    pub(crate) fn server_silence(&self, server: ServerId, now: Instant) -> Option<Duration> {
        self.inner.lock().ward.silence(server, now)
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
        if inner.ward.leading_since().is_some() && inner.suspects.insert(server) {
            self.suspected.notify_one();
        }
    }

    pub(crate) fn take_suspects(&self) -> BTreeSet<ServerId> {
        std::mem::take(&mut self.inner.lock().suspects)
    }

    /// The process with this incarnation serves no more, by its own word (`goodbye`) or because it is dead.
    pub(crate) fn gone(&self, server: ServerId, incarnation: u64, goodbye: bool) {
        self.inner.lock().ward.gone(server, incarnation, goodbye, Instant::now());
        self.news.notify_one();
    }

    /// A primary's news, repeated until the table shows their effect.
    pub(crate) fn group_news(&self, news: impl Iterator<Item = GroupNews>) {
        if self.inner.lock().ward.group_news(news) {
            self.news.notify_one();
        }
    }

    /// What primaries say is written to their groups.
    pub(crate) fn group_loads(&self, loads: &[master_api::proto::GroupLoad], now: Instant) {
        self.inner.lock().ward.group_loads(loads, now);
    }

    /// What is known of all servers and groups of the table, for [`master_core::table::plan::plan`].
    pub(crate) fn seen(&self, table: &Table, limits: &Limits, now: Instant) -> Seen {
        self.inner.lock().ward.seen(table, limits, now)
    }

    /// Which of the changes that are due may be proposed now.
    pub(crate) fn clear(
        &self,
        due: Vec<GroupChange>,
        table: &Table,
        seen: &Seen,
        at: Moment,
    ) -> Vec<GroupChange> {
        self.inner.lock().ward.clear(due, table, seen, at)
    }

    /// All decisions have their effect.
    pub(crate) fn pardon_all(&self) {
        self.inner.lock().ward.pardon_all();
    }

    #[cfg(test)]
    fn condemn(&self, servers: &BTreeSet<ServerId>, limits: &Limits, now: Instant) -> BTreeSet<ServerId> {
        self.inner.lock().ward.condemn(servers, limits, now)
    }

    #[cfg(test)]
    fn call_back(&self, servers: &BTreeSet<ServerId>, open: bool) -> BTreeSet<ServerId> {
        self.inner.lock().ward.call_back(servers, open)
    }
}

#[cfg(test)]
mod tests {
    use coord_types::{Epoch, GroupId};
    use master_api::model::{DiskState, Group, Member, MemberState, Server};
    use master_core::health::News;
    use master_core::table::plan::Health;

    use super::*;

    const ONE: ServerId = ServerId(1);
    const DISK: DiskId = DiskId(1);
    const GROUP: GroupId = GroupId(1);
    const LIMITS: Limits = Limits {
        lease: Duration::from_secs(3),
        replace_after: Duration::from_secs(60),
        slow: master_core::slow::Rules::DEFAULT,
    };

    fn beat(incarnation: u64, heard: Instant) -> ServerSeen {
        ServerSeen { incarnation, number: 0, heard, disks: Vec::new() }
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

    /// A slow disk's server is well and answers reads: it must have no lease before groups go on without it.
    #[test]
    fn a_slow_disk_is_let_go_when_its_server_has_no_lease() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        soft.set_leading(Some(start));
        let servers = (1..4_u8).map(|id| Server {
            id: ServerId(id.into()),
            address: String::new(),
            location: format!("/r/rack{id}/h"),
            disks: vec![(DiskId(id.into()), DiskState::try_from(&fast_or_slow(id)).unwrap())],
            incarnation: 5,
            silent_ms: 0,
        });
        let member = |id| Member { disk: DiskId(id), state: MemberState::Serving };
        let group = Group { id: GROUP, epoch: Epoch(1), members: [1, 2, 3].map(member).to_vec() };
        let table = Table::new(1, servers.collect(), vec![group]).with_replicas(3, 2);
        let mut limits = LIMITS;
        limits.lease = Duration::from_secs(60);
        let say = |ms, leased| {
            for id in 1..4_u8 {
                let seen = ServerSeen { disks: vec![fast_or_slow(id)], ..beat(5, at(ms)) };
                soft.heard_server(ServerId(id.into()), seen, leased);
            }
        };
        let due = |ms| {
            let seen = soft.seen(&table, &limits, at(ms));
            let due = master_core::table::plan::plan(&table, &seen, 10);
            soft.clear(due, &table, &seen, Moment { limits, now: at(ms), open: false })
        };
        say(0, true);
        assert_eq!((due(0), due(10_000)), (vec![], vec![]), "it may hold a lease");
        assert_eq!(soft.pace(DISK), Pace::Out);
        say(10_100, true);
        assert_eq!(due(10_100), [], "it does hold one");
        say(10_200, false);
        let out = GroupChange {
            group: GROUP,
            epoch: Epoch(1),
            change: master_core::table::change::Change::Out(DISK),
        };
        assert_eq!(due(10_200), [out]);
    }

    /// The first is slow.
    fn fast_or_slow(id: u8) -> master_api::proto::Disk {
        let write_latency_us = if id == 1 { 900_000 } else { 2_000 };
        master_api::proto::Disk { uuid: vec![id; 16].into(), write_latency_us, ..proto_disk(false) }
    }

    /// A heartbeat that was given up, and is read after a later one, says that the server has no lease: it had none then.
    #[test]
    fn a_heartbeat_that_comes_late_gives_no_lease_back() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        soft.set_leading(Some(start));
        let numbered = |number, ms| ServerSeen { number, ..beat(5, at(ms)) };
        assert!(soft.heard_server(ONE, numbered(2, 100), false), "it gets one");
        let one = BTreeSet::from([ONE]);
        assert_eq!(soft.call_back(&one, false), BTreeSet::new());
        assert!(!soft.heard_server(ONE, numbered(1, 200), false), "from before that");
        assert!(!soft.heard_server(ONE, numbered(2, 300), false), "twice");
        soft.heard_server(ONE, beat(5, at(350)), true);
        assert!(!soft.heard_server(ONE, numbered(2, 400), false), "a registration does not make it newer");
        assert_eq!(soft.call_back(&one, false), BTreeSet::new(), "it may hold one");
        assert!(!soft.heard_server(ONE, numbered(3, 500), true));
        assert_eq!(soft.call_back(&one, false), BTreeSet::new());
        assert!(!soft.heard_server(ONE, numbered(4, 600), false));
        assert_eq!(soft.call_back(&one, false), one);
        assert!(!soft.heard_server(ONE, ServerSeen { number: 1, ..beat(5, at(700)) }, false));
        soft.call_back(&BTreeSet::new(), false);
        assert!(
            soft.heard_server(ONE, ServerSeen { number: 1, ..beat(6, at(800)) }, false),
            "another process"
        );
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
