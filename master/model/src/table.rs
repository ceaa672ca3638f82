//! Where data lives: servers, their disks, and the groups of disks that hold the same chunks.

use std::collections::BTreeMap;

use coord_types::{DiskId, Epoch, GroupId, ServerId};

/// What a member of a group does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Takes part in every write, may be read.
    Serving,
    /// Receives writes, is being filled, is not read.
    Syncing,
    /// Known to hold older data; takes part in nothing.
    Offline,
    /// As serving, but not yet known to have been brought level by an activation: never the primary.
    Joining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub disk: DiskId,
    pub state: MemberState,
}

/// A replica group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    pub id: GroupId,
    pub epoch: Epoch,
    pub members: Vec<Member>,
}

impl Group {
    /// The first serving member.
    #[must_use]
    pub fn primary(&self) -> Option<DiskId> {
        self.in_state(MemberState::Serving).next()
    }

    /// The members that take part in every write: those that serve, the primary first, and behind them those that join.
    pub fn serving(&self) -> impl Iterator<Item = DiskId> + '_ {
        self.in_state(MemberState::Serving).chain(self.in_state(MemberState::Joining))
    }

    pub fn in_state(&self, state: MemberState) -> impl Iterator<Item = DiskId> + '_ {
        self.members.iter().filter(move |member| member.state == state).map(|member| member.disk)
    }

    /// What the disk is in this group, if it is in it.
    #[must_use]
    pub fn state_of(&self, disk: DiskId) -> Option<MemberState> {
        self.members.iter().find(|member| member.disk == disk).map(|member| member.state)
    }
}

/// A disk as its server last described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskState {
    pub uuid: [u8; 16],
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub failed: bool,
    /// An operator wants it empty. The table's word, not the server's.
    pub draining: bool,
    pub scrub: Scrub,
    pub vitals: Vitals,
}

/// How a disk does. Known from heartbeats only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// What a durable write takes, in microseconds; 0: not known.
    pub write_latency_us: u64,
    /// The leader's word.
    pub pace: Pace,
    /// Blocks found damaged and repaired within the last day.
    pub errors: u64,
    /// The leader's word: these are too many.
    pub failing: bool,
}

/// How fast a disk is beside the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    #[default]
    Usual,
    /// Much slower, for a while now; it stays in use.
    Slow,
    /// The same; groups go on without it.
    Out,
}

/// How the data of a disk was found. Known from heartbeats only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// When the pass over the disk began, and when the last one ended: milliseconds since 1970, 0: never.
    pub began_ms: u64,
    pub ended_ms: u64,
    /// Chunks known to be damaged and not repaired yet.
    pub damaged_chunks: u64,
}

/// A chunkserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub id: ServerId,
    /// A Kuafu address.
    pub address: String,
    /// "/region/rack/host"
    pub location: String,
    pub disks: Vec<(DiskId, DiskState)>,
    /// Drawn at each start of the process.
    pub incarnation: u64,
    /// Since the master last heard of it; not part of the versioned table.
    pub silent_ms: u64,
}

/// The versioned table of servers and groups that clients and chunkservers cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub version: u64,
    pub replicas: u32,
    pub min_replicas: u32,
    servers: BTreeMap<ServerId, Server>,
    groups: BTreeMap<GroupId, Group>,
    owners: BTreeMap<DiskId, ServerId>,
}

impl Table {
    #[must_use]
    pub fn new(version: u64, servers: Vec<Server>, groups: Vec<Group>) -> Self {
        let owners = servers
            .iter()
            .flat_map(|server| server.disks.iter().map(|(disk, _)| (*disk, server.id)))
            .collect();
        Self {
            version,
            replicas: 0,
            min_replicas: 0,
            servers: servers.into_iter().map(|server| (server.id, server)).collect(),
            groups: groups.into_iter().map(|group| (group.id, group)).collect(),
            owners,
        }
    }

    #[must_use]
    pub fn with_replicas(mut self, replicas: u32, min_replicas: u32) -> Self {
        self.replicas = replicas;
        self.min_replicas = min_replicas;
        self
    }

    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(&id)
    }

    /// The server a disk is in.
    #[must_use]
    pub fn server_of(&self, disk: DiskId) -> Option<&Server> {
        self.owners.get(&disk).and_then(|server| self.servers.get(server))
    }

    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values()
    }

    pub fn servers_mut(&mut self) -> impl Iterator<Item = &mut Server> {
        self.servers.values_mut()
    }
}
