//! A master: `master-core` over a store in memory, driven as `master-server` drives it. Each handler names the file it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use coord_kv::{Durability, Kv as _, MemKv};
use coord_types::ServerId;
use master_core::health::{GroupNews, Limits, Moment, ServerSeen, Ward};
use master_core::table::change::{CHANGES_PER_COMMAND, Change, GroupChange};
use master_core::table::plan::{Health, Seen, may_drop, plan};
use master_core::{Command, CommandReply, Context};
use master_model::{Table, proto};

use crate::bug::Bug;
use crate::clock::{Clock, MS, Micros};
use crate::message::{Answer, End, Failure, Reply, Request};
use crate::world::{Event, LEASE, REPLACE_AFTER, SLOW, World};

/// `background/groups.rs`
const TICK: Micros = 100 * MS;
const RETRY: Micros = 100 * MS;
/// `background/probe.rs`
const PROBES: u32 = 10;
const PROBE_PAUSE: Micros = 10 * MS;

/// What is done when a proposal has its effect (or nobody knows).
#[derive(Debug)]
pub(crate) enum After {
    Register { call: u64, request: proto::RegisterServerRequest },
    ChangeGroups { term: u64 },
    Nothing,
}

/// A call for the next table that is held here (`service/cluster.rs`, `get_table`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    call: u64,
    known: u64,
    pub(crate) server: Option<ServerId>,
}

/// What a master knows while it leads.
#[derive(Debug)]
pub(crate) struct Leading {
    pub(crate) term: u64,
    pub(crate) ward: Ward,
    looking: BTreeSet<ServerId>,
    /// The last round saw this and found nothing to do.
    looked: Option<(u64, Seen)>,
    /// A proposal failed: whether it is applied is not known.
    open: bool,
    /// A round waits for its proposal.
    busy: bool,
}

#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) up: bool,
    /// Grows with each start.
    pub(crate) life: u64,
    pub(crate) clock: Clock,
    pub(crate) kv: MemKv,
    /// Entries of the log it has applied.
    pub(crate) applied: usize,
    pub(crate) leading: Option<Leading>,
    table: Arc<Table>,
    pub(crate) held: Vec<Held>,
}

impl Master {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            up: true,
            life: 1,
            clock,
            kv: MemKv::new(),
            applied: 0,
            leading: None,
            table: Arc::new(Table::default()),
            held: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, command: &[u8], time_nanos: u64) -> Bytes {
        let context = Context { time_nanos };
        let applied = master_core::apply(&self.kv, context, command).expect("memory does not fail");
        self.kv.write(applied.batch, Durability::Logged).expect("memory does not fail");
        self.applied += 1;
        applied.reply
    }

    /// The newest table, over the wire and back.
    pub(crate) fn table(&mut self) -> Arc<Table> {
        let counters = master_core::counters(&self.kv).expect("memory does not fail");
        let version = counters.map_or(0, |counters| counters.table_version);
        if self.table.version != version {
            let table = master_core::table::table(&self.kv).expect("memory does not fail");
            let wire = proto::Table::from(&table);
            self.table = Arc::new(Table::try_from(wire).expect("what a master says is valid"));
        }
        self.table.clone()
    }

    /// The process dies; the store loses a suffix of what was not flushed.
    pub(crate) fn crash(&mut self, kept: usize) {
        let pending = self.kv.pending();
        self.kv.crash(kept.min(pending));
        self.applied -= pending - kept.min(pending);
        self.table = Arc::new(Table::default());
        self.up = false;
        self.leading = None;
        self.held.clear();
    }
}

impl World {
    fn limits(&self) -> Limits {
        let lease = if self.options.bug == Some(Bug::LeaseWait) { LEASE / 10 } else { LEASE };
        Limits { lease, replace_after: REPLACE_AFTER, slow: SLOW }
    }

    /// Applies what is committed; gives the last reply.
    pub(crate) fn apply_all(&mut self, master: usize) -> Option<Bytes> {
        let World { masters, log, .. } = self;
        let master = &mut masters[master];
        let mut last = None;
        for entry in log.entries.iter().skip(master.applied) {
            last = Some(master.apply(&entry.command, entry.time_nanos));
        }
        if self.dice.chance(100) {
            master.kv.flush().expect("memory does not fail");
        }
        last
    }

    pub(crate) fn master_elected(&mut self, at: usize, term: u64) {
        if self.log.term != term || !self.masters[at].up {
            return;
        }
        self.apply_all(at);
        let since = self.masters[at].clock.instant(self.now);
        self.masters[at].leading = Some(Leading {
            term,
            ward: Ward::new(Some(since)),
            looking: BTreeSet::new(),
            looked: None,
            open: false,
            busy: false,
        });
        self.groups_tick(at, term);
        self.answer_held(at);
    }

    pub(crate) fn master_deposed(&mut self, at: usize) {
        self.masters[at].leading = None;
        for held in std::mem::take(&mut self.masters[at].held) {
            self.reply(End::Master(at), held.call, Err(Failure::NotLeader(None)));
        }
    }

    fn groups_tick(&mut self, at: usize, term: u64) {
        let life = self.masters[at].life;
        self.at(self.now, Event::GroupsRound { master: at, life, term, tick: true });
    }

    /// Something was heard that may make a change due.
    fn groups_news(&mut self, at: usize) {
        let Some(term) = self.masters[at].leading.as_ref().map(|leading| leading.term) else { return };
        let life = self.masters[at].life;
        let delay = self.dice.between(100, MS);
        self.at(self.now + delay, Event::GroupsRound { master: at, life, term, tick: false });
    }

    /// `background/groups.rs`, `round`.
    pub(crate) fn groups_round(&mut self, at: usize, life: u64, term: u64, tick: bool) {
        let alive = self.masters[at].life == life && self.masters[at].up;
        let leads = self.masters[at].leading.as_ref().is_some_and(|leading| leading.term == term);
        if !alive || !leads {
            return;
        }
        if tick {
            self.at(self.now + TICK, Event::GroupsRound { master: at, life, term, tick: true });
        }
        // The read barrier.
        if !self.truly_leads(at) || self.masters[at].leading.as_ref().is_some_and(|leading| leading.busy) {
            return;
        }
        self.apply_all(at);
        let (limits, now) = (self.limits(), self.masters[at].clock.instant(self.now));
        let table = self.masters[at].table();
        let Some(leading) = &mut self.masters[at].leading else { return };
        let seen = leading.ward.seen(&table, &limits, now);
        let same = leading
            .looked
            .as_ref()
            .is_some_and(|(version, known)| (*version, known) == (table.version, &seen));
        if same && !leading.open {
            return;
        }
        let all = plan(&table, &seen, CHANGES_PER_COMMAND);
        let mut due =
            leading.ward.clear(all.clone(), &table, &seen, Moment { limits, now, open: leading.open });
        let is_slow = |change: &GroupChange| match change.change {
            Change::Out(disk) => {
                let server = table.server_of(disk).and_then(|server| seen.servers.get(&server.id));
                seen.slow.contains(&disk) && server == Some(&Health::Well)
            }
            _ => false,
        };
        if self.options.bug == Some(Bug::SlowLease) {
            due.extend(
                all.into_iter().filter(is_slow).filter(|change| !due.contains(change)).collect::<Vec<_>>(),
            );
        }
        let slow = due.iter().filter(|change| is_slow(change)).count() as u64;
        if due.is_empty() && !leading.open {
            leading.looked = Some((table.version, seen));
            return;
        }
        leading.open = true;
        leading.busy = true;
        leading.looked = None;
        self.count_many("slow members taken out", slow);
        self.trace(|| format!("master {at} proposes {due:?}"));
        let command = Command::ChangeGroups { changes: due }.encode();
        self.propose(at, command, After::ChangeGroups { term });
    }

    /// A proposal was applied, or nobody knows (`None`).
    pub(crate) fn proposed(&mut self, at: usize, after: After, reply: Option<&Bytes>) {
        let reply = reply.map(|reply| CommandReply::decode(reply).expect("a reply of ours"));
        match (after, reply) {
            (After::ChangeGroups { term }, reply) => {
                let life = self.masters[at].life;
                let leading = self.masters[at].leading.as_mut();
                // It may lead again, and not know of this any more.
                let Some(leading) = leading.filter(|leading| leading.term == term) else { return };
                leading.busy = false;
                match reply {
                    Some(CommandReply::Changed(_)) => {
                        leading.open = false;
                        leading.looked = None;
                        leading.ward.pardon_all();
                        self.groups_news(at);
                    }
                    Some(other) => panic!("{other:?}"),
                    None => {
                        let again = Event::GroupsRound { master: at, life, term, tick: false };
                        self.at(self.now + RETRY, again);
                    }
                }
            }
            (After::Register { call, request }, Some(CommandReply::Registered(registered))) => {
                let heard = self.masters[at].clock.instant(self.now);
                let seen =
                    ServerSeen { incarnation: request.incarnation, number: 0, heard, disks: request.disks };
                if let Some(leading) = &mut self.masters[at].leading {
                    leading.ward.heard(registered.server, seen, true);
                }
                let answer = Reply::Registered { server: registered.server, disk: registered.disks[0] };
                self.reply(End::Master(at), call, Ok(answer));
                self.groups_news(at);
            }
            (After::Register { call, .. }, other) => {
                assert!(other.is_none(), "{other:?}");
                self.reply(End::Master(at), call, Err(Failure::Deadline));
            }
            (After::Nothing, _) => {}
        }
        if self.masters[at].leading.is_some() {
            self.answer_held(at);
        }
    }

    /// A message came in. All of them need the leader; most of them a read barrier, which takes a round trip.
    pub(crate) fn master_request(&mut self, at: usize, from: End, call: u64, request: Request) {
        if self.masters[at].leading.is_none() {
            let hint = self.log.leader.filter(|_| self.dice.chance(500));
            return self.reply(End::Master(at), call, Err(Failure::NotLeader(hint)));
        }
        if let Request::Register(request) = request {
            self.trace(|| {
                let uuids: Vec<_> = request.disks.iter().map(|disk| disk.uuid.slice(..4)).collect();
                let (address, incarnation) = (&request.address, request.incarnation);
                format!("{address} registers at master {at}, incarnation {incarnation}, disks {uuids:?}")
            });
            let command = Command::RegisterServer(request.clone()).encode();
            return self.propose(at, command, After::Register { call, request });
        }
        if let (Request::GetTable(wanted), End::Server(_)) = (&request, from) {
            // The call waits here from its first moment.
            let held = Held { call, known: wanted.known_version, server: Some(ServerId(wanted.server)) };
            self.masters[at].held.push(held);
        }
        let life = self.masters[at].life;
        let delay = self.dice.between(200, 3 * MS);
        self.at(
            self.now + delay,
            Event::Barrier { master: at, life, from, call, request: Box::new(request) },
        );
    }

    /// The read barrier is over.
    pub(crate) fn master_reads(&mut self, at: usize, from: End, call: u64, request: Request) {
        if !self.truly_leads(at) {
            self.masters[at].held.retain(|held| held.call != call);
            return self.reply(End::Master(at), call, Err(Failure::NotLeader(None)));
        }
        self.apply_all(at);
        let now = self.masters[at].clock.instant(self.now);
        let table = self.masters[at].table();
        let answer: Answer = match request {
            Request::Heartbeat(beat) => Ok(self.heartbeat(at, beat, &table)),
            Request::GetTable(wanted) => {
                if table.version == wanted.known_version {
                    let held = Held {
                        call,
                        known: wanted.known_version,
                        server: matches!(from, End::Server(_)).then_some(ServerId(wanted.server)),
                    };
                    if held.server.is_none() {
                        self.masters[at].held.push(held);
                    }
                    let life = self.masters[at].life;
                    let end = self.now + wanted.wait_ms * MS;
                    self.at(end, Event::HeldOver { master: at, life, call });
                    return;
                }
                self.masters[at].held.retain(|held| held.call != call);
                Ok(Reply::Table(Some(table)))
            }
            Request::Report(server) => {
                self.suspect(at, server);
                Ok(Reply::Done)
            }
            Request::Goodbye { server, incarnation } => {
                if let Some(leading) = &mut self.masters[at].leading {
                    leading.ward.gone(server, incarnation, true, now);
                }
                self.groups_news(at);
                // The product answers when the groups go on without the server; that it stops earlier is harder.
                Ok(Reply::Done)
            }
            Request::MayDrop { disk, group } => {
                let limits = self.limits();
                let Some(leading) = &mut self.masters[at].leading else { return };
                let seen = leading.ward.seen(&table, &limits, now);
                let may = may_drop(&table, &seen, group, disk);
                if may {
                    self.check_may_drop(disk, group);
                }
                Ok(Reply::MayDrop(may))
            }
            other => panic!("not for a master: {other:?}"),
        };
        self.reply(End::Master(at), call, answer);
    }

    /// `service/cluster.rs`, `heartbeat`.
    fn heartbeat(&mut self, at: usize, beat: proto::HeartbeatRequest, table: &Arc<Table>) -> Reply {
        let server = ServerId(beat.server);
        let heard = self.masters[at].clock.instant(self.now);
        let Some(leading) = &mut self.masters[at].leading else { unreachable!("it was just found to lead") };
        let registered = match leading.ward.server(server) {
            Some(seen) => seen.incarnation == beat.incarnation,
            None => table.server(server).is_some_and(|known| known.incarnation == beat.incarnation),
        };
        let mut leased = false;
        if registered {
            let seen =
                ServerSeen { incarnation: beat.incarnation, number: beat.number, heard, disks: beat.disks };
            let answer = leading.ward.heard(server, seen, beat.leased);
            leased = answer.leased;
            let news = leading.ward.group_news(beat.news.iter().map(GroupNews::from));
            if news || answer.news {
                self.groups_news(at);
            }
            for suspect in beat.suspects {
                self.suspect(at, ServerId(suspect));
            }
        }
        let newer = (table.version != beat.table_version).then(|| table.clone());
        Reply::Beat { leased, register_again: !registered, version: table.version, table: newer }
    }

    /// Answers the calls for the next table that can be.
    fn answer_held(&mut self, at: usize) {
        let table = self.masters[at].table();
        let (ready, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.masters[at].held)
            .into_iter()
            .partition(|held| held.known != table.version);
        self.masters[at].held = held;
        for held in ready {
            self.reply(End::Master(at), held.call, Ok(Reply::Table(Some(table.clone()))));
        }
    }

    pub(crate) fn held_over(&mut self, at: usize, call: u64) {
        let before = self.masters[at].held.len();
        self.masters[at].held.retain(|held| held.call != call);
        if self.masters[at].held.len() < before {
            self.reply(End::Master(at), call, Ok(Reply::Table(None)));
        }
    }

    /// A server's connections broke: the calls it had waiting here end.
    pub(crate) fn streams_broken(&mut self, at: usize, server: ServerId) {
        let before = self.masters[at].held.len();
        self.masters[at].held.retain(|held| held.server != Some(server));
        if self.masters[at].held.len() < before {
            self.suspect(at, server);
        }
    }

    /// `background/probe.rs`, `look`: the process that is looked at is the one known now.
    fn suspect(&mut self, at: usize, server: ServerId) {
        let table = self.masters[at].table();
        let Some(record) = table.server(server).map(|server| server.incarnation) else { return };
        let Some(leading) = &mut self.masters[at].leading else { return };
        if !leading.looking.insert(server) {
            return;
        }
        let heard = leading.ward.server(server).map_or(0, |seen| seen.incarnation);
        let (life, incarnation) = (self.masters[at].life, heard.max(record));
        let delay = self.dice.between(100, 2 * MS);
        self.at(self.now + delay, Event::Probe { master: at, life, server, incarnation, left: PROBES });
    }

    pub(crate) fn probe(&mut self, at: usize, life: u64, server: ServerId, incarnation: u64, left: u32) {
        let Some(target) = self.find_server(server) else { return };
        let (here, there) = (End::Master(at), End::Server(target));
        let streams = self.masters[at].held.iter().any(|held| held.server == Some(server));
        let now = self.masters[at].clock.instant(self.now);
        let Some(leading) = &mut self.masters[at].leading else { return };
        let open = self.net.open(here, there) && self.net.open(there, here);
        let refused = open && !self.servers[target].up;
        if refused && !streams {
            leading.ward.gone(server, incarnation, false, now);
            self.trace(|| format!("master {at} finds {server:?} dead, incarnation {incarnation}"));
            let Some(leading) = &mut self.masters[at].leading else { return };
            leading.looking.remove(&server);
            self.count("servers found dead by a refused connection");
            return self.groups_news(at);
        }
        if !open || left == 0 {
            leading.looking.remove(&server);
            return;
        }
        self.at(
            self.now + PROBE_PAUSE,
            Event::Probe { master: at, life, server, incarnation, left: left - 1 },
        );
    }
}

/// By family and key.
pub(crate) type Dump = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// Everything in a master's store, to compare masters.
pub(crate) fn dump(kv: &MemKv) -> Dump {
    use coord_kv::{Family, Range, Read as _};
    let mut all = BTreeMap::new();
    for family in 0..master_core::families().len() {
        let family = u8::try_from(family).expect("few families");
        let range = Range { start: Vec::new(), end_exclusive: None };
        let pairs = kv.scan(Family(family), &range, usize::MAX).expect("memory does not fail");
        all.extend(pairs.into_iter().map(|(key, value)| ((family, key), value)));
    }
    all
}
