//! The state of one member of one group, and what both roles share: the promise, draining, changes of the table.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coord_types::{ChunkKey, DiskId, Epoch, Version};

use crate::chunk::{Chunk, Local, Op};
use crate::event::{Done, Effect, Fault, Io, Limits, Refusal, Store, View, Write};
use crate::member::{Early, Secondary};
use crate::prepare::{Primary, Step};

/// One member of one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica<C> {
    pub(crate) me: DiskId,
    pub(crate) limits: Limits,
    /// The table's newest view. Its epoch may be behind `promised` if a primary brought the news first.
    pub(crate) view: Option<View>,
    /// The newest (epoch, activation) this member follows; older messages are refused.
    pub(crate) promised: (Epoch, u64),
    /// The newest epoch that is durable as promised.
    pub(crate) durable: Epoch,
    pub(crate) role: Role<C>,
    /// Activated at least once in this life.
    pub(crate) serving: bool,
    /// Grows when a chunk here may be another than what a reader has just read, though its version does not say so.
    pub(crate) generation: u64,
    pub(crate) chunks: BTreeMap<ChunkKey, Chunk<C>>,
    /// Ops in flight in all chunks.
    pub(crate) in_flight: usize,
    /// Writes and installs the disk works on, whatever became of their callers.
    pub(crate) local_running: usize,
    /// Client writes that wait for the activation.
    pub(crate) queue: VecDeque<Write<C>>,
    /// Replicated writes that wait for an earlier one.
    pub(crate) early: Vec<Early<C>>,
    /// Chunks this disk cannot read, so that other members may differ.
    pub(crate) broken: BTreeSet<ChunkKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role<C> {
    /// In no part of the group, or nothing is known yet.
    Out,
    Primary(Primary<C>),
    Secondary(Secondary),
}

/// Where a member is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In no part of the group, as far as it knows.
    Out,
    /// Being filled.
    Syncing,
    /// Primary or secondary, between activations.
    Preparing,
    Active,
}

/// What a member is made of.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub me: DiskId,
    /// As found on the disk.
    pub promised: Epoch,
    pub limits: Limits,
}

impl<C: Clone> Replica<C> {
    /// A member whose process just started.
    #[must_use]
    pub const fn new(start: Start) -> Self {
        Self {
            me: start.me,
            limits: start.limits,
            view: None,
            promised: (start.promised, 0),
            durable: start.promised,
            role: Role::Out,
            serving: false,
            generation: 0,
            chunks: BTreeMap::new(),
            in_flight: 0,
            local_running: 0,
            queue: VecDeque::new(),
            early: Vec::new(),
            broken: BTreeSet::new(),
        }
    }

    /// The epoch this member follows.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.promised.0
    }

    /// The newest activation it follows.
    #[must_use]
    pub const fn activation(&self) -> u64 {
        self.promised.1
    }

    #[must_use]
    pub const fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Whether the primary could not make all members equal, because it cannot read what it has itself.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.step == Step::Active)
            && !self.broken.is_empty()
    }

    /// Whether it may be read.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        self.serving
    }

    #[must_use]
    pub const fn stage(&self) -> Stage {
        match &self.role {
            Role::Out => Stage::Out,
            Role::Primary(primary) => match primary.step {
                Step::Active => Stage::Active,
                Step::Draining | Step::Promising | Step::Listing | Step::Activating | Step::Waiting => {
                    Stage::Preparing
                }
            },
            Role::Secondary(secondary) => {
                if secondary.fill {
                    Stage::Syncing
                } else if secondary.active {
                    Stage::Active
                } else {
                    Stage::Preparing
                }
            }
        }
    }

    /// The other members that take part in writes of the epoch this one follows. `None`: the table has not told yet; a
    /// primary brought the news of the epoch.
    #[must_use]
    pub fn others(&self) -> Option<Vec<DiskId>> {
        let view = self.view.as_ref().filter(|view| view.epoch == self.promised.0)?;
        Some(view.serving.iter().map(|member| member.disk).filter(|disk| *disk != self.me).collect())
    }

    /// Too few members are left to acknowledge a write.
    pub(crate) fn is_short(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.short)
    }

    /// Writes in flight and waiting.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.in_flight + self.queue.len()
    }

    /// The table has this view now. `clock` seeds activations: nanoseconds since 1970.
    pub fn table(&mut self, view: View, clock: u64, io: &mut Io<'_, impl Store, C>) {
        if view.epoch < self.promised.0 {
            // A primary brought newer news than this table; the next table will have them.
            return;
        }
        let same_epoch =
            view.epoch == self.promised.0 && self.view.as_ref().is_some_and(|v| v.epoch == view.epoch);
        if same_epoch {
            let members: Vec<_> = view.serving.iter().chain(&view.syncing).copied().collect();
            self.view = Some(view);
            for member in members {
                self.heard_of(member.disk, member.incarnation, io);
            }
            return;
        }
        let newer = view.epoch > self.promised.0;
        let mine = view.serving.iter().position(|member| member.disk == self.me);
        let stays_primary = self.is_primary() && mine == Some(0);
        if newer {
            self.new_life(stays_primary, view.epoch, io);
        }
        let fill = view.syncing.iter().any(|member| member.disk == self.me);
        match mine {
            Some(0) => {
                let peers = &view.serving[1..];
                let activation = clock.max(self.promised.1);
                self.promised.1 = activation;
                self.role = Role::Primary(Primary::new(peers, &view.syncing));
            }
            None if !fill => self.role = Role::Out,
            Some(_) | None => {
                // The primary may have brought the news, and begun, before the table came.
                if newer || !matches!(self.role, Role::Secondary(_)) {
                    self.role = Role::Secondary(Secondary { fill, ..Secondary::default() });
                }
            }
        }
        self.view = Some(view);
        self.promise(io);
        if self.is_primary() {
            self.begin_attempt(io);
        }
    }

    /// The epoch is durable as promised.
    pub fn promised(&mut self, epoch: Epoch, io: &mut Io<'_, impl Store, C>) {
        self.durable = self.durable.max(epoch);
        self.proceed_if_drained(io);
    }

    /// The disk did (or did not do) what [`Effect::Apply`] asked.
    pub fn applied(
        &mut self,
        key: ChunkKey,
        version: Version,
        result: Result<i64, Fault>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        self.local_running = self.local_running.checked_sub(1).expect("only what runs ends");
        let depth = self.limits.local_depth;
        if let Some(chunk) = self.chunks.get_mut(&key) {
            if let Some(op) = chunk.op_mut(version).filter(|op| op.local == Local::Running) {
                op.local = match result {
                    Ok(allocated_delta_bytes) => Local::Durable { allocated_delta_bytes },
                    Err(fault) => Local::Failed(fault),
                };
                chunk.running -= 1;
                while let Some(op) = chunk.startable(depth) {
                    self.local_running += 1;
                    start(key, op, io);
                }
            }
            match &self.role {
                Role::Primary(primary) if primary.step == Step::Active => match result {
                    Ok(_) => self.commit_ready(key, io),
                    Err(_) => self.begin_attempt(io),
                },
                Role::Primary(_) | Role::Out => {}
                Role::Secondary(_) => self.acknowledge(key, io),
            }
        }
        self.proceed_if_drained(io);
    }

    /// The disk is gone: everybody who waits is told, and nothing is served any more.
    pub fn stop(&mut self, io: &mut Io<'_, impl Store, C>) {
        self.refuse_everybody(Refusal::NotServing, io);
        self.serving = false;
        self.role = Role::Out;
        self.view = None;
    }

    /// A life ends with its epoch: what is known as committed or in flight belongs to the old one. A primary that
    /// stays primary keeps its writes: its copy decides them in the new epoch.
    pub(crate) fn new_life(&mut self, keeps_writes: bool, epoch: Epoch, io: &mut Io<'_, impl Store, C>) {
        self.promised = (epoch, 0);
        self.serving = false;
        self.generation += 1;
        if !keeps_writes {
            self.refuse_everybody(Refusal::Stale { epoch, activation: 0 }, io);
        }
    }

    /// Everybody who waits here is refused. What the disk works on goes on without a caller.
    fn refuse_everybody(&mut self, refusal: Refusal, io: &mut Io<'_, impl Store, C>) {
        for (_, chunk) in std::mem::take(&mut self.chunks) {
            for (token, _) in chunk.readers {
                io.answer(token, Err(refusal));
            }
            for op in chunk.ops {
                for waiter in op.waiters() {
                    io.answer(waiter.token, Err(refusal));
                }
            }
        }
        self.in_flight = 0;
        for write in std::mem::take(&mut self.queue) {
            io.answer(write.token, Err(refusal));
        }
        self.refuse_early(io);
        if let Role::Secondary(secondary) = &mut self.role {
            for token in std::mem::take(&mut secondary.waiting) {
                io.answer(token, Err(refusal));
            }
        }
    }

    pub(crate) const fn stale(&self) -> Refusal {
        Refusal::Stale { epoch: self.promised.0, activation: self.promised.1 }
    }

    /// Asks for the promised epoch to be made durable, if it is not.
    pub(crate) fn promise(&self, io: &mut Io<'_, impl Store, C>) {
        if self.durable < self.promised.0 {
            io.emit(Effect::Promise { epoch: self.promised.0 });
        }
    }

    /// The disk works on nothing of the group, and the promise is durable: what waited for that goes on.
    pub(crate) fn proceed_if_drained(&mut self, io: &mut Io<'_, impl Store, C>) {
        if self.local_running > 0 || self.durable < self.promised.0 {
            return;
        }
        match &mut self.role {
            Role::Primary(primary) => {
                if primary.step == Step::Draining {
                    self.drained(io);
                }
            }
            Role::Secondary(secondary) => {
                for token in std::mem::take(&mut secondary.waiting) {
                    io.answer(token, Ok(Done::default()));
                }
            }
            Role::Out => {}
        }
    }

    /// Forgets the chunk if nothing of it is in flight.
    pub(crate) fn forget_if_idle(&mut self, key: ChunkKey) {
        if self.chunks.get(&key).is_some_and(Chunk::idle) {
            self.chunks.remove(&key);
        }
    }
}

/// The chunk's state, begun from what is stored if nothing of it was in flight.
pub(crate) fn look_up<'a, C>(
    chunks: &'a mut BTreeMap<ChunkKey, Chunk<C>>,
    key: ChunkKey,
    io: &Io<'_, impl Store, C>,
) -> Result<&'a mut Chunk<C>, Fault> {
    match chunks.entry(key) {
        Entry::Occupied(chunk) => Ok(chunk.into_mut()),
        Entry::Vacant(place) => Ok(place.insert(Chunk::new(io.store.version(key)?))),
    }
}

/// Hands an op to the disk.
pub(crate) fn start<C: Clone>(key: ChunkKey, op: &mut Op<C>, io: &mut Io<'_, impl Store, C>) {
    let content = op.content.take().expect("an op is started once");
    io.emit(Effect::Apply { key, previous: op.previous, version: op.version, stamp: op.stamp, content });
}
