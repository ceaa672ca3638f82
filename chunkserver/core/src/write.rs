//! Writes at the primary: ordered when they come, committed when all members have them, in order per chunk.

use coord_types::{ChunkKey, DiskId, Version};

use crate::chunk::{Chunk, Local, Op, Waiter};
use crate::event::{Done, Effect, Fault, Io, PeerError, Refusal, Store, Token, Write};
use crate::prepare::Step;
use crate::replica::{Replica, Role, look_up, start};

impl<C: Clone> Replica<C> {
    /// A client's write, punch or raise.
    pub fn write(&mut self, write: Write<C>, io: &mut Io<'_, impl Store, C>) {
        let Role::Primary(primary) = &self.role else {
            io.answer(write.token, Err(Refusal::NotPrimary));
            return;
        };
        if write.epoch != self.promised.0 {
            io.answer(write.token, Err(self.stale()));
            return;
        }
        if primary.step != Step::Active || self.is_short() {
            if self.queue.len() < self.limits.queue_max {
                self.queue.push_back(write);
            } else {
                io.answer(write.token, Err(Refusal::Busy));
            }
            return;
        }
        self.order(write, io);
    }

    /// Gives the write its version and sends it everywhere; unless it is a retry.
    fn order(&mut self, write: Write<C>, io: &mut Io<'_, impl Store, C>) {
        let Write { token, key, stamp, fence, content, .. } = write;
        match self.fence_of(key, io) {
            Err(fault) => return io.answer(token, Err(Refusal::Fault(fault))),
            // Also a retry of what was applied before the raise: nobody relies on what is refused.
            Ok(current) if fence < current => {
                return io.answer(token, Err(Refusal::Fenced { fence: current }));
            }
            Ok(_) => {}
        }
        if self.broken.contains(&key) {
            io.answer(token, Err(Refusal::Fault(Fault::Damaged)));
            return;
        }
        if let Some(stamp) = stamp {
            if let Some(chunk) = self.chunks.get_mut(&key)
                && let Some(op) = chunk.ops.iter_mut().find(|op| op.stamp == Some(stamp))
            {
                op.joined.push(Waiter { token, own: true });
                return;
            }
            match io.store.seen(key, stamp) {
                Err(fault) => return io.answer(token, Err(Refusal::Fault(fault))),
                Ok(true) => return self.answer_seen(token, key, io),
                Ok(false) => {}
            }
        }
        if self.in_flight >= self.limits.in_flight_max {
            io.answer(token, Err(Refusal::Busy));
            return;
        }
        let (epoch, activation) = self.promised;
        let fills = self.fills();
        let Role::Primary(primary) = &self.role else {
            return io.answer(token, Err(Refusal::NotPrimary));
        };
        let chunk = match look_up(&mut self.chunks, key, io) {
            Ok(chunk) => chunk,
            Err(fault) => return io.answer(token, Err(Refusal::Fault(fault))),
        };
        let previous = chunk.ordered;
        let version = previous.next(epoch);
        chunk.ordered = version;
        self.in_flight += 1;
        chunk.ops.push_back(Op {
            version,
            previous,
            stamp,
            fence,
            content: Some(content.clone()),
            forward: fills.then(|| content.clone()),
            waiter: Waiter { token, own: true },
            joined: Vec::new(),
            awaiting: primary.everybody(),
            local: Local::Queued,
        });
        if let Some(op) = chunk.startable(self.limits.local_depth) {
            self.local_running += 1;
            // First the disk, which then works while the bytes are copied into sockets.
            start(key, op, io);
        }
        for peer in &primary.peers {
            io.emit(Effect::Replicate {
                peer: peer.disk,
                epoch,
                activation,
                key,
                previous,
                version,
                stamp,
                content: content.clone(),
            });
        }
    }

    /// Nobody waits for this write any more. One that is not ordered yet never will be; one that is goes on.
    pub fn abandon(&mut self, token: Token) {
        self.queue.retain(|write| write.token != token);
    }

    /// The write was applied before: it is done when all that is ordered of its chunk is.
    fn answer_seen(&mut self, token: Token, key: ChunkKey, io: &mut Io<'_, impl Store, C>) {
        if let Some(op) = self.chunks.get_mut(&key).and_then(|chunk| chunk.ops.back_mut()) {
            op.joined.push(Waiter { token, own: false });
            return;
        }
        let result = io.store.version(key).map(|version| Done { version, allocated_delta_bytes: 0 });
        io.answer(token, result.map_err(Refusal::Fault));
    }

    /// A member made a write durable, or did not.
    pub fn replicated(
        &mut self,
        peer: DiskId,
        activation: u64,
        at: (ChunkKey, Version),
        result: Result<(), PeerError>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        let Role::Primary(primary) = &self.role else { return };
        if primary.step != Step::Active || activation != self.promised.1 {
            return;
        }
        let Some(bit) = primary.bit(peer) else { return };
        if let Err(error) = result {
            self.heed(error, io);
            self.begin_attempt(io);
            return;
        }
        let (key, version) = at;
        if let Some(op) = self.chunks.get_mut(&key).and_then(|chunk| chunk.op_mut(version)) {
            op.awaiting &= !bit;
            self.commit_ready(key, io);
        }
    }

    /// Commits what is durable everywhere, oldest first.
    pub(crate) fn commit_ready(&mut self, key: ChunkKey, io: &mut Io<'_, impl Store, C>) {
        let barrier = self.raise_barrier(key);
        let Some(chunk) = self.chunks.get_mut(&key) else { return };
        let before = chunk.committed;
        let mut forwards = Vec::new();
        while let Some(op) = chunk.ops.front()
            && op.awaiting == 0
            && barrier.is_none_or(|lowest| lowest >= op.fence)
            && let Local::Durable { allocated_delta_bytes } = op.local
        {
            chunk.committed = op.version;
            answer_done(op, allocated_delta_bytes, io);
            forwards.extend(chunk.ops.pop_front().and_then(Op::into_forward));
            self.in_flight -= 1;
        }
        if chunk.committed > before {
            io.emit(Effect::Committed { key, version: chunk.committed });
            release_readers(chunk, io);
            self.forget_if_idle(key);
        }
        for forward in forwards {
            self.forward_all(key, &forward, io);
        }
        self.raise_after(key, io);
    }

    /// The disk is at rest before an attempt: what is durable here will be on all members when the attempt succeeds;
    /// what failed here, and what came behind it, is taken off the others by it.
    pub(crate) fn settle_in_flight(&mut self, io: &mut Io<'_, impl Store, C>) {
        for chunk in self.chunks.values_mut() {
            let Some(failed) = chunk.ops.iter().position(|op| !matches!(op.local, Local::Durable { .. }))
            else {
                continue;
            };
            for (index, op) in chunk.ops.drain(failed..).enumerate() {
                self.in_flight -= 1;
                let refusal = match op.local {
                    Local::Failed(fault) if index == 0 => Refusal::Fault(fault),
                    // It failed, or was not begun, because of the one before it: nothing is wrong with it.
                    Local::Failed(_) | Local::Queued | Local::Running => Refusal::NotServing,
                    Local::Durable { .. } => {
                        panic!("the disk made {} durable without the write before it", op.version)
                    }
                };
                for waiter in op.waiters() {
                    io.answer(waiter.token, Err(refusal));
                }
            }
            chunk.ordered = chunk.ops.back().map_or(chunk.committed, |op| op.version);
        }
        self.chunks.retain(|_, chunk| !chunk.idle());
    }

    /// All members are equal: everything in flight is committed, and what waited is ordered.
    pub(crate) fn commit_everything(&mut self, io: &mut Io<'_, impl Store, C>) {
        let short = self.is_short();
        for (key, mut chunk) in std::mem::take(&mut self.chunks) {
            let broken = self.broken.contains(&key);
            for op in &chunk.ops {
                let Local::Durable { allocated_delta_bytes } = op.local else {
                    panic!("{} is in flight and not durable after an activation", op.version);
                };
                let refusal = match (broken, short) {
                    (true, _) => Refusal::Fault(Fault::Damaged),
                    (false, true) => Refusal::NotServing,
                    (false, false) => {
                        answer_done(op, allocated_delta_bytes, io);
                        continue;
                    }
                };
                for waiter in op.waiters() {
                    io.answer(waiter.token, Err(refusal));
                }
            }
            chunk.committed = chunk.ordered;
            release_readers(&mut chunk, io);
        }
        self.in_flight = 0;
        if short {
            return;
        }
        for write in std::mem::take(&mut self.queue) {
            self.write(write, io);
        }
    }
}

fn answer_done<S, C>(op: &Op<C>, allocated_delta_bytes: i64, io: &mut Io<'_, S, C>) {
    for waiter in op.waiters() {
        let delta = if waiter.own { allocated_delta_bytes } else { 0 };
        io.answer(waiter.token, Ok(Done { version: op.version, allocated_delta_bytes: delta }));
    }
}

fn release_readers<S, C>(chunk: &mut Chunk<C>, io: &mut Io<'_, S, C>) {
    let committed = chunk.committed;
    chunk.readers.retain(|(token, version)| {
        let waits = *version > committed;
        if !waits {
            io.answer(*token, Ok(Done { version: *version, allocated_delta_bytes: 0 }));
        }
        waits
    });
}
