//! The secondary: promises, lets itself be made equal, applies the primary's writes in order.

use coord_types::{ChunkKey, Epoch, Fence, Version};

use crate::chunk::{Local, Op, Waiter};
use crate::event::{Done, Effect, Fault, Io, Refusal, Replicate, Store, Token};
use crate::replica::{Replica, Role, look_up, start};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Secondary {
    /// It is being filled: takes committed writes and whole chunks in any order, and is never activated.
    pub(crate) fill: bool,
    /// Activated with the promised activation.
    pub(crate) active: bool,
    /// Answers to Prepare that wait until the disk is at rest.
    pub(crate) waiting: Vec<Token>,
}

/// A write that overtook an earlier one.
pub(crate) type Early<C> = Replicate<C>;

impl<C: Clone> Replica<C> {
    /// The primary wants to begin an attempt, or the next page of it. When the answer is `Ok`, the server answers with
    /// the list (and this process's incarnation). `fill`: as a syncing member.
    pub fn prepare(&mut self, token: Token, at: (Epoch, u64), fill: bool, io: &mut Io<'_, impl Store, C>) {
        let conflicts = at.0 == self.promised.0 && self.is_primary();
        if at < self.promised || conflicts {
            // Two primaries of one epoch cannot be: one of them does not read the master's table.
            io.answer(token, Err(self.stale()));
            return;
        }
        if at.0 > self.promised.0 {
            self.new_life(false, at.0, io);
            self.role = Role::Secondary(Secondary { fill, ..Secondary::default() });
            io.emit(Effect::Outdated { epoch: at.0 });
        }
        if !matches!(self.role, Role::Secondary(_)) {
            // The table has not come yet; the primary's word is as good.
            self.role = Role::Secondary(Secondary { fill, ..Secondary::default() });
        }
        let newer = at > self.promised;
        self.promised = at;
        let stale = self.stale();
        let Role::Secondary(secondary) = &mut self.role else { return };
        if newer {
            secondary.active = false;
            for token in std::mem::take(&mut secondary.waiting) {
                io.answer(token, Err(stale));
            }
        }
        secondary.waiting.push(token);
        if newer {
            self.refuse_early(io);
        }
        self.promise(io);
        self.proceed_if_drained(io);
    }

    /// Whether Install and Activate of this attempt may go on.
    ///
    /// # Errors
    /// [`Refusal::Stale`] if another attempt is promised, or this one is over.
    pub fn check_preparing(&self, at: (Epoch, u64)) -> Result<(), Refusal> {
        match &self.role {
            Role::Secondary(secondary)
                if at == self.promised && self.durable >= at.0 && !secondary.active =>
            {
                Ok(())
            }
            Role::Secondary(_) | Role::Primary(_) | Role::Out => Err(self.stale()),
        }
    }

    /// Whether a committed write may be taken by a member that is being filled.
    fn takes_forwards(&self) -> bool {
        matches!(&self.role, Role::Secondary(secondary) if secondary.fill && secondary.waiting.is_empty())
            && self.durable >= self.promised.0
    }

    /// All pieces of a chunk are here: the server may put it in place (or remove it), then calls
    /// [`installed`](Self::installed). Until the activation the chunk counts as not committed.
    ///
    /// # Errors
    /// As [`check_preparing`](Self::check_preparing).
    pub fn install(
        &mut self,
        at: (Epoch, u64),
        key: ChunkKey,
        io: &mut Io<'_, impl Store, C>,
    ) -> Result<(), Refusal> {
        self.check_preparing(at)?;
        look_up(&mut self.chunks, key, io).map_err(Refusal::Fault)?.closed = true;
        self.local_running += 1;
        Ok(())
    }

    /// The disk did what [`install`](Self::install) allowed, or failed.
    pub fn installed(&mut self, key: ChunkKey, io: &mut Io<'_, impl Store, C>) {
        self.local_running = self.local_running.checked_sub(1).expect("only what runs ends");
        if matches!(&self.role, Role::Secondary(secondary) if secondary.fill) {
            self.reopen(key, io);
        }
        self.proceed_if_drained(io);
    }

    /// A chunk of a member that is being filled is what the disk has now: what follows it may be taken again.
    fn reopen(&mut self, key: ChunkKey, io: &mut Io<'_, impl Store, C>) {
        if let Some(chunk) = self.chunks.remove(&key) {
            self.in_flight -= chunk.ops.len();
            for op in chunk.ops {
                for waiter in op.waiters() {
                    io.answer(waiter.token, Err(Refusal::Fault(Fault::Conflict)));
                }
            }
        }
        if self.early.iter().any(|write| write.key == key) && look_up(&mut self.chunks, key, io).is_ok() {
            self.accept_early(key, io);
            self.forget_if_idle(key);
        }
    }

    /// All members are equal now.
    pub fn activate(&mut self, token: Token, at: (Epoch, u64), io: &mut Io<'_, impl Store, C>) {
        let again =
            matches!(&self.role, Role::Secondary(secondary) if secondary.active) && at == self.promised;
        if !again {
            let fill = matches!(&self.role, Role::Secondary(secondary) if secondary.fill);
            let may = if fill { Err(self.stale()) } else { self.check_preparing(at) };
            if let Err(refusal) = may {
                io.answer(token, Err(refusal));
                return;
            }
            if self.local_running > 0 {
                // The primary gave up waiting for an Install it now takes for done.
                io.answer(token, Err(Refusal::NotServing));
                return;
            }
            let Role::Secondary(secondary) = &mut self.role else { return };
            secondary.active = true;
            self.serving = true;
            self.generation += 1;
            self.chunks.clear();
            self.in_flight = 0;
        }
        io.answer(token, Ok(Done::default()));
    }

    /// A write the primary ordered.
    pub fn replicate(&mut self, write: Replicate<C>, io: &mut Io<'_, impl Store, C>) {
        let active = matches!(&self.role, Role::Secondary(secondary) if secondary.active);
        if !(active || self.takes_forwards()) || (write.epoch, write.activation) != self.promised {
            io.answer(write.token, Err(self.stale()));
            return;
        }
        let key = write.key;
        if let Err(fault) = look_up(&mut self.chunks, key, io) {
            return io.answer(write.token, Err(Refusal::Fault(fault)));
        }
        self.accept(write, io);
        self.accept_early(key, io);
        self.forget_if_idle(key);
    }

    /// Takes the write if it is the chunk's next, holds it back if it is early.
    fn accept(&mut self, write: Replicate<C>, io: &mut Io<'_, impl Store, C>) {
        let key = write.key;
        let chunk = self.chunks.get_mut(&key).expect("the caller looked it up");
        if chunk.closed {
            io.answer(write.token, Err(Refusal::Fault(Fault::Conflict)));
            return;
        }
        if write.version <= chunk.ordered {
            match chunk.op_mut(write.version) {
                // Still on its way to the disk: one answer serves both.
                Some(op) => op.joined.push(Waiter { token: write.token, own: true }),
                None => io.answer(write.token, Ok(Done { version: write.version, allocated_delta_bytes: 0 })),
            }
            return;
        }
        if write.previous < chunk.ordered {
            io.answer(write.token, Err(Refusal::Fault(Fault::Conflict)));
            return;
        }
        if write.previous > chunk.ordered {
            if self.early.len() < self.limits.early_max {
                self.early.push(write);
            } else {
                io.answer(write.token, Err(Refusal::Busy));
            }
            return;
        }
        chunk.ordered = write.version;
        chunk.ops.push_back(Op {
            version: write.version,
            previous: write.previous,
            stamp: write.stamp,
            fence: Fence::NONE,
            content: Some(write.content),
            forward: None,
            waiter: Waiter { token: write.token, own: true },
            joined: Vec::new(),
            awaiting: 0,
            local: Local::Queued,
        });
        self.in_flight += 1;
        if let Some(op) = chunk.startable(self.limits.local_depth) {
            self.local_running += 1;
            start(key, op, io);
        }
    }

    /// Takes what was held back for the version the chunk has now.
    fn accept_early(&mut self, key: ChunkKey, io: &mut Io<'_, impl Store, C>) {
        while let Some(ordered) = self.chunks.get(&key).map(|chunk| chunk.ordered)
            && let Some(at) =
                self.early.iter().position(|write| write.key == key && write.previous <= ordered)
        {
            let write = self.early.swap_remove(at);
            self.accept(write, io);
        }
    }

    /// What is held back belongs to an attempt that is over.
    pub(crate) fn refuse_early(&mut self, io: &mut Io<'_, impl Store, C>) {
        let stale = self.stale();
        for write in std::mem::take(&mut self.early) {
            io.answer(write.token, Err(stale));
        }
    }

    /// Answers the primary for what the disk is done with. A write behind one that failed has failed too.
    pub(crate) fn acknowledge(&mut self, key: ChunkKey, io: &mut Io<'_, impl Store, C>) {
        let Some(chunk) = self.chunks.get_mut(&key) else { return };
        while let Some(op) = chunk.ops.front() {
            let result = match op.local {
                Local::Durable { allocated_delta_bytes } => {
                    Ok(Done { version: op.version, allocated_delta_bytes })
                }
                Local::Failed(fault) => Err(Refusal::Fault(fault)),
                // Behind a failed one nothing is begun any more.
                Local::Queued if chunk.closed => Err(Refusal::Fault(Fault::Conflict)),
                Local::Queued | Local::Running => break,
            };
            chunk.closed |= result.is_err();
            for waiter in op.waiters() {
                io.answer(waiter.token, result);
            }
            chunk.ops.pop_front();
            self.in_flight -= 1;
        }
        if matches!(&self.role, Role::Secondary(secondary) if secondary.fill) && chunk.ops.is_empty() {
            // Only what is committed is forwarded.
            chunk.committed = chunk.ordered;
        }
        self.forget_if_idle(key);
    }

    /// The primary says that all members have this version. True for ever, whenever it arrives.
    pub fn committed(&mut self, key: ChunkKey, version: Version) {
        if let Some(chunk) = self.chunks.get_mut(&key) {
            chunk.committed = chunk.committed.max(version);
            self.forget_if_idle(key);
        }
    }
}
