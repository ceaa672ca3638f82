//! One replica of the core, who waits for its answers, and the lock around both. Events go in here; effects are
//! handed to [`crate::replicate`], which spawns what takes time.
//!
//! Nothing below the lock waits: the core's look-ups are the engine's synchronous ones.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chunkserver_core::{
    Done, Effect, Fault, Io, Limits, Listed, Refusal, Replica, Stage, Start, Store, Token, View,
};
use coord_types::{ChunkKey, DiskId, Epoch, Fence, GroupId, Stamp, Version};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::disks::{Disk, fault};
use crate::load::Load;
use crate::node::{Node, clock_nanos};
use crate::replicate;

/// Chunks of a group's list looked at, or sent, at a time.
pub(crate) const LIST_PAGE: usize = 1024;

/// The content of a write as it travels: bytes are shared, checksums stay as they came from the wire.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) offset_bytes: u32,
    pub(crate) chunk_size_bytes: u32,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Data { data: Bytes, block_crcs: Bytes },
    Punch { len_bytes: u32 },
}

/// A group's replica on one disk.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) disk_id: DiskId,
    pub(crate) disk: Arc<Disk>,
    /// Written by clients, as primary, since the last heartbeat.
    pub(crate) load: Load,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    replica: Replica<Content>,
    effects: Vec<Effect<Content>>,
    waiting: HashMap<Token, oneshot::Sender<Result<Done, Refusal>>>,
    /// The other serving members, for news of commits and for space.
    peers: Arc<[DiskId]>,
}

/// What an event may do to the replica.
pub(crate) type Lookup<'a> = Io<'a, DiskStore<'a>, Content>;

/// The engine, as the core may look things up in it.
#[derive(Debug)]
pub(crate) struct DiskStore<'a> {
    disk: &'a Disk,
    group: GroupId,
}

impl Store for DiskStore<'_> {
    fn version(&self, key: ChunkKey) -> Result<Version, Fault> {
        let meta = self.disk.engine.stat(key).map_err(|error| fault(&error))?;
        Ok(meta.map_or(Version::NONE, |meta| meta.version))
    }

    fn seen(&self, key: ChunkKey, stamp: Stamp) -> Result<bool, Fault> {
        self.disk.engine.seen(key, stamp).map_err(|error| fault(&error))
    }

    fn fence(&self, record: ChunkKey) -> Result<Fence, Fault> {
        self.disk.engine.fence(record).map_err(|error| fault(&error))
    }

    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault> {
        let mut chunks =
            self.disk.engine.list(self.group, after, LIST_PAGE).map_err(|error| fault(&error))?;
        let mut truncated = chunks.len() >= LIST_PAGE;
        if let Some(upto) = upto {
            let within = chunks.partition_point(|(key, _)| *key <= upto);
            truncated &= within == chunks.len() && chunks.last().is_some_and(|(key, _)| *key < upto);
            chunks.truncate(within);
        }
        Ok(Listed { chunks, truncated })
    }
}

impl Group {
    pub(crate) fn new(id: GroupId, disk_id: DiskId, disk: Arc<Disk>, promised: Epoch) -> Self {
        let replica = Replica::new(Start { me: disk_id, promised, limits: Limits::default() });
        let inner = Inner { replica, effects: Vec::new(), waiting: HashMap::new(), peers: Arc::from([]) };
        Self { id, disk_id, disk, load: Load::default(), inner: Mutex::new(inner) }
    }

    /// An event: `event` runs on the replica, and what it asks for is begun.
    pub(crate) fn event<R>(
        self: &Arc<Self>,
        node: &Arc<Node>,
        event: impl FnOnce(&mut Replica<Content>, &mut Lookup<'_>) -> R,
    ) -> R {
        let mut inner = self.inner.lock();
        self.event_locked(node, &mut inner, event)
    }

    fn event_locked<R>(
        self: &Arc<Self>,
        node: &Arc<Node>,
        inner: &mut Inner,
        event: impl FnOnce(&mut Replica<Content>, &mut Lookup<'_>) -> R,
    ) -> R {
        let Inner { replica, effects, waiting, peers } = inner;
        let stage = replica.stage();
        let store = DiskStore { disk: &self.disk, group: self.id };
        let result = event(replica, &mut Io { store: &store, effects });
        for effect in effects.drain(..) {
            match effect {
                Effect::Answer { token, result } => {
                    if let Some(waiter) = waiting.remove(&token) {
                        // A caller that is gone does not want it.
                        let _ = waiter.send(result);
                    }
                }
                Effect::Committed { key, version } => {
                    crate::commits::tell(node, peers.iter().copied(), key, version);
                }
                other => replicate::begin(node, self, other),
            }
        }
        if stage != replica.stage() {
            let (group, epoch, now) = (self.id, replica.epoch(), replica.stage());
            tracing::debug!(%group, %epoch, disk = %self.disk_id, ?now, "the group's state changed");
            if now == Stage::Active && replica.is_primary() {
                node.metrics.activations.add(1);
                // The master may wait for it.
                node.refresh.notify_one();
            }
        }
        result
    }

    /// An event with an answer: waits for it. Dropping the future gives the answer up.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        node: &Arc<Node>,
        event: impl FnOnce(Token, &mut Replica<Content>, &mut Lookup<'_>),
    ) -> Result<Done, Refusal> {
        let token = node.token();
        let (sender, receiver) = oneshot::channel();
        let waits = {
            let mut inner = self.inner.lock();
            inner.waiting.insert(token, sender);
            self.event_locked(node, &mut inner, |replica, io| event(token, replica, io));
            inner.waiting.contains_key(&token)
        };
        let _given_up = waits.then(|| GiveUp { group: self, token });
        receiver.await.unwrap_or(Err(Refusal::NotServing))
    }

    /// The table has this view of the group.
    pub(crate) fn table(self: &Arc<Self>, node: &Arc<Node>, view: View) {
        let mut inner = self.inner.lock();
        inner.peers =
            view.serving.iter().map(|member| member.disk).filter(|disk| *disk != self.disk_id).collect();
        self.event_locked(node, &mut inner, |replica, io| replica.table(view, clock_nanos(), io));
    }

    /// Whether it was in use.
    pub(crate) fn stop(self: &Arc<Self>, node: &Arc<Node>) -> bool {
        let mut inner = self.inner.lock();
        let was = inner.replica.stage() != Stage::Out || inner.replica.is_serving();
        self.event_locked(node, &mut inner, |replica, io| replica.stop(io));
        inner.waiting.clear();
        was
    }

    pub(crate) fn peers(&self) -> Arc<[DiskId]> {
        self.inner.lock().peers.clone()
    }

    /// Members that are being filled and have all there is.
    pub(crate) fn level(&self) -> Vec<DiskId> {
        self.inner.lock().replica.level().collect()
    }

    /// Chunks that members being filled are known to be behind.
    pub(crate) fn behind(&self) -> usize {
        self.inner.lock().replica.behind().map(|(_, chunks)| chunks).sum()
    }

    /// The other members of the write set of the epoch this member follows, if the table has told.
    pub(crate) fn others(&self) -> Option<Vec<DiskId>> {
        self.inner.lock().replica.others()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.inner.lock().replica.epoch()
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.inner.lock().replica.is_primary()
    }

    /// Another member should lead: this one cannot read a chunk in which the members differ.
    pub(crate) fn is_broken(&self) -> bool {
        self.inner.lock().replica.is_broken()
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.inner.lock().replica.is_serving()
    }

    pub(crate) fn stage(&self) -> Stage {
        self.inner.lock().replica.stage()
    }

    /// Writes in flight and waiting.
    pub(crate) fn backlog(&self) -> usize {
        self.inner.lock().replica.backlog()
    }
}

/// Forgets a caller that does not wait any more.
struct GiveUp<'a> {
    group: &'a Group,
    token: Token,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        let mut inner = self.group.inner.lock();
        if inner.waiting.remove(&self.token).is_some() {
            inner.replica.abandon(self.token);
        }
    }
}
