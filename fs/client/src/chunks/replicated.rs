//! Asks the right member until it answers: [`Chunks`] over [`Members`].
//!
//! | what an attempt says | a write or punch does | a read or map does |
//! | --- | --- | --- |
//! | stale, not primary, unavailable | reports the member, fetches the table, pauses, goes on with the same stamp | next member |
//! | busy, deadline | pauses, goes on with the same stamp | next member |
//! | not committed | - | the primary |
//! | no space, fenced | ends | - |
//! | damaged, checksum wrong | again, [`DAMAGED_ROUNDS`] times, then ends and is recorded | next member; if all are, again that often, then ends and is recorded |
//! | refused | again, [`REFUSED_MAX`] times, then ends and is recorded | next member, and after [`REFUSED_MAX`] rounds the same |
//!
//! A read that takes longer than usual is asked of the next member, too (`hedge`), and the first answer is taken.
//!
//! An attempt ends as "unavailable" when a new table comes that does not name its member for it any more.
//!
//! Everything else goes on for ever: a server that is away is waited for, and whoever does not want to wait drops the
//! future. Pauses double from [`RetryPauses::min`] to [`RetryPauses::max`], with jitter.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chunkserver_api::{ChunkError, Map, Punch, RaiseFence, Read, Write, Written};
use coord_types::{BLOCK_SIZE, ChunkKey, Epoch, Fence, Stamp};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use kuafu::Code;
use master_api::model::{Group, Table};
use parking_lot::Mutex;

use super::hedge::Hedging;
use super::log::ErrorLog;
use super::members::Members;
use super::stamps::{Stamps, Ticket};
use super::{ChunkPunch, ChunkRead, ChunkWrite, Chunks, DataError};

/// A write waits this long for one attempt: longer than a primary holds it while it brings its group together.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A read waits this long for one member before it asks the next.
const READ_TIMEOUT: Duration = Duration::from_secs(4);
/// Damage is asked about again this often, for about a second: bytes may have changed on the wire only, and a member that
/// found damage on its disk is repairing it.
const DAMAGED_ROUNDS: u32 = 8;
/// A refusal is a mistake of one of the programs, but also what a server says that is just stopping.
const REFUSED_MAX: u32 = 8;
/// A member that did not answer is asked last for this long.
const SHUN: Duration = Duration::from_secs(1);

/// Pauses between attempts.
#[derive(Clone, Copy, Debug)]
pub struct RetryPauses {
    pub min: Duration,
    pub max: Duration,
}

/// The chunkservers' groups, as one.
pub struct ReplicatedChunks<M> {
    members: M,
    pauses: RetryPauses,
    stamps: Arc<Stamps>,
    errors: Arc<ErrorLog>,
    /// Addresses that did not answer, and until when they are asked last.
    shunned: Mutex<HashMap<String, Instant>>,
    hedging: Hedging,
}

/// One call's attempts.
struct Attempts {
    pauses: RetryPauses,
    next: Duration,
    refused: u32,
    damaged: u32,
}

/// What a failed attempt of a write leads to.
enum Step {
    Again,
    AgainWithNewTable,
    AgainAfter(Duration),
    End(DataError),
}

impl Attempts {
    const fn new(pauses: RetryPauses) -> Self {
        Self { pauses, next: pauses.min, refused: 0, damaged: 0 }
    }

    async fn pause(&mut self, members: &impl Members) {
        let full = self.next;
        self.next = (full * 2).min(self.pauses.max);
        if full.is_zero() {
            return tokio::task::yield_now().await;
        }
        members.sleep(full.mul_f64(0.5 + members.jitter() / 2.0)).await;
    }

    fn failed(&mut self, error: &ChunkError) -> Step {
        match error {
            ChunkError::Stale { .. } | ChunkError::NotPrimary | ChunkError::Unavailable { .. } => {
                Step::AgainWithNewTable
            }
            ChunkError::NotCommitted | ChunkError::Deadline => Step::Again,
            ChunkError::Busy { retry_after } => Step::AgainAfter(*retry_after),
            ChunkError::NoSpace { .. } => Step::End(DataError::NoSpace),
            ChunkError::Fenced { fence } => Step::End(DataError::Fenced(*fence)),
            ChunkError::Damaged { .. } => {
                self.damaged += 1;
                if self.damaged >= DAMAGED_ROUNDS { Step::End(DataError::Damaged) } else { Step::Again }
            }
            ChunkError::NeedsToken { .. } | ChunkError::Refused { code: Code::PermissionDenied, .. } => {
                Step::End(DataError::Denied)
            }
            ChunkError::Refused { code: Code::InvalidArgument | Code::Unimplemented, .. } => {
                Step::End(DataError::Refused)
            }
            ChunkError::Refused { .. } | ChunkError::Answer(_) => {
                self.refused += 1;
                if self.refused >= REFUSED_MAX { Step::End(DataError::Refused) } else { Step::Again }
            }
        }
    }
}

impl<M: Members> ReplicatedChunks<M> {
    #[must_use]
    pub fn new(members: M, pauses: RetryPauses, errors: Arc<ErrorLog>) -> Self {
        Self {
            members,
            pauses,
            stamps: Arc::default(),
            errors,
            shunned: Mutex::default(),
            hedging: Hedging::default(),
        }
    }

    /// The servers behind this.
    #[must_use]
    pub const fn members(&self) -> &M {
        &self.members
    }

    /// The group and its primary's address; waits until the table names both.
    async fn primary(&self, key: ChunkKey, attempts: &mut Attempts) -> (Epoch, String) {
        loop {
            let table = self.members.table();
            let found = table.group(key.group).and_then(|group| {
                let server = table.server_of(group.primary()?)?;
                Some((group.epoch, server.address.clone()))
            });
            match found {
                Some(found) => return found,
                None => {
                    self.members.refresh(table.version).await;
                    if self.members.table().version == table.version {
                        attempts.pause(&self.members).await;
                    }
                }
            }
        }
    }

    /// What both a write and a punch do; `attempt` asks one member once.
    async fn change<'s, F>(&'s self, key: ChunkKey, what: &str, attempt: F) -> Result<i64, DataError>
    where
        F: Fn(String, Epoch, Stamp) -> BoxFuture<'s, Result<Written, ChunkError>> + Send + Sync,
    {
        let ticket: Ticket = self.stamps.next(key).await;
        let Some(session) = self.members.session().await else { return Err(DataError::Refused) };
        // Kept over all attempts, also if the session ends meanwhile: a chunk knows a retry by it.
        let stamp = Stamp { session, seq: ticket.seq };
        let attempt = |address, epoch| attempt(address, epoch, stamp);
        self.ask_primary(key, what, attempt).await.map(|written| written.allocated_delta_bytes)
    }

    /// Asks the primary until it did it, or it is no use to ask again.
    async fn ask_primary<'s, T, F>(&'s self, key: ChunkKey, what: &str, attempt: F) -> Result<T, DataError>
    where
        F: Fn(String, Epoch) -> BoxFuture<'s, Result<T, ChunkError>> + Send + Sync,
    {
        let mut attempts = Attempts::new(self.pauses);
        loop {
            let known = self.members.table().version;
            let (epoch, address) = self.primary(key, &mut attempts).await;
            let leads = |table: &Table| {
                let primary = table.group(key.group).and_then(Group::primary);
                primary.and_then(|disk| table.server_of(disk)).is_some_and(|s| s.address == address)
            };
            let error = match self.while_in_table(known, attempt(address.clone(), epoch), leads).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tracing::debug!(?key, address, %error, what, "attempt failed");
            match attempts.failed(&error) {
                Step::Again => attempts.pause(&self.members).await,
                Step::AgainAfter(pause) => self.members.sleep(pause.min(self.pauses.max)).await,
                Step::AgainWithNewTable => {
                    if matches!(error, ChunkError::Unavailable { .. }) {
                        self.members.report(&address);
                    }
                    self.pause_for_table(known, &mut attempts).await;
                }
                Step::End(end) => {
                    self.errors
                        .add(key, format!("{what} at epoch {epoch}: the primary {address} said: {error}"));
                    return Err(end);
                }
            }
        }
    }

    /// An attempt at a member, given up when a table comes that does not name the member for it any more: one that is
    /// cut off would be waited for in vain.
    async fn while_in_table<T>(
        &self,
        mut known: u64,
        mut attempt: BoxFuture<'_, Result<T, ChunkError>>,
        named: impl Fn(&Table) -> bool,
    ) -> Result<T, ChunkError> {
        loop {
            tokio::select! {
                biased;
                result = &mut attempt => return result,
                table = self.members.newer_table(known) => {
                    if !named(&table) {
                        let message = "a new table no longer names this member".to_owned();
                        return Err(ChunkError::Unavailable { message });
                    }
                    known = table.version;
                }
            }
        }
    }

    /// Pauses, but not longer than until there is a table newer than the one that led to the failure.
    async fn pause_for_table(&self, known: u64, attempts: &mut Attempts) {
        if self.members.table().version == known {
            tokio::select! {
                biased;
                _ = self.members.newer_table(known) => {}
                () = self.members.refresh(known) => {}
            }
        }
        if self.members.table().version > known {
            // News: the first pause again, for whoever is named now may need a moment to begin.
            attempts.next = self.pauses.min;
            return attempts.pause(&self.members).await;
        }
        let changed = self.members.newer_table(known);
        tokio::select! {
            biased;
            _ = changed => attempts.next = self.pauses.min,
            () = attempts.pause(&self.members) => {}
        }
    }

    /// The serving members' addresses in the order they are to be asked.
    fn order(&self, table: &Table, group: &Group, key: ChunkKey) -> Vec<String> {
        let mut addresses: Vec<&str> = group
            .serving()
            .filter_map(|disk| table.server_of(disk).map(|server| server.address.as_str()))
            .collect();
        if addresses.is_empty() {
            return Vec::new();
        }
        // Spread by chunk, so that all members' disks and caches serve, each its own chunks.
        let start = (key.chunk.data.0 as usize).wrapping_mul(31).wrapping_add(key.chunk.index as usize);
        let len = addresses.len();
        addresses.rotate_left(start % len);
        let now = self.members.now();
        let shunned = self.shunned.lock();
        let mut order: Vec<String> = addresses.into_iter().map(str::to_owned).collect();
        order.sort_by_key(|address| shunned.get(address).is_some_and(|until| *until > now));
        order
    }

    /// `by` answered. Members that were asked before it are asked last for a while.
    fn answered(&self, waiting: &[(String, Instant)], by: &str) {
        for (address, since) in waiting {
            self.hedging.took(self.members.now().saturating_duration_since(*since));
            if address == by {
                return;
            }
            tracing::debug!(address, by, "a member took longer than usual, and another one answered");
            self.shunned.lock().insert(address.clone(), self.members.now() + SHUN);
        }
    }

    fn note(&self, address: &str, error: &ChunkError) {
        if matches!(error, ChunkError::Unavailable { .. } | ChunkError::Deadline) {
            self.members.report(address);
            self.shunned.lock().insert(address.to_owned(), self.members.now() + SHUN);
        }
    }

    /// What both a read and a map do: asks the members in turn, the next one also when the one before takes longer than
    /// usual; `attempt` asks one once.
    async fn ask<'s, T, F>(&'s self, key: ChunkKey, what: &str, attempt: F) -> Result<T, DataError>
    where
        F: Fn(String, Epoch) -> BoxFuture<'s, Result<T, ChunkError>> + Send + Sync,
        T: Send,
    {
        let mut attempts = Attempts::new(self.pauses);
        loop {
            let table = self.members.table();
            let mut order = match table.group(key.group) {
                Some(group) => self.order(&table, group, key),
                None => Vec::new(),
            }
            .into_iter();
            let epoch = table.group(key.group).map_or_else(Epoch::default, |group| group.epoch);
            let ask_one = async |address: String| {
                let serves = |table: &Table| {
                    let serving = table.group(key.group).into_iter().flat_map(Group::serving);
                    serving.filter_map(|disk| table.server_of(disk)).any(|server| server.address == address)
                };
                let answer =
                    self.while_in_table(table.version, attempt(address.clone(), epoch), serves).await;
                (address, answer)
            };
            let mut said: Vec<(String, ChunkError)> = Vec::new();
            let mut ask_primary = false;
            // Who was asked and has not answered, in the order they were asked, and since when.
            let mut waiting: Vec<(String, Instant)> = Vec::new();
            let mut asked = FuturesUnordered::new();
            let patience = self.hedging.begin();
            let mut hedges = true;
            loop {
                if asked.is_empty() {
                    let Some(address) = order.next() else { break };
                    waiting.push((address.clone(), self.members.now()));
                    asked.push(ask_one(address));
                }
                let answered = if hedges && order.len() > 0 {
                    tokio::select! {
                        biased;
                        answered = asked.next() => Some(answered),
                        () = self.members.sleep(patience) => None,
                    }
                } else {
                    Some(asked.next().await)
                };
                let Some(answered) = answered else {
                    hedges = self.hedging.take();
                    if let Some(address) = order.next().filter(|_| hedges) {
                        waiting.push((address.clone(), self.members.now()));
                        asked.push(ask_one(address));
                    }
                    continue;
                };
                let Some((address, answer)) = answered else { break };
                match answer {
                    Ok(answer) => {
                        self.answered(&waiting, &address);
                        return Ok(answer);
                    }
                    Err(error) => {
                        tracing::debug!(?key, address, %error, what, "attempt failed");
                        self.note(&address, &error);
                        waiting.retain(|(other, _)| *other != address);
                        let not_committed = matches!(error, ChunkError::NotCommitted);
                        said.push((address, error));
                        if not_committed {
                            ask_primary = true;
                            break;
                        }
                    }
                }
            }
            drop(asked);
            if ask_primary {
                let (epoch, address) = self.primary(key, &mut attempts).await;
                match attempt(address.clone(), epoch).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        self.note(&address, &error);
                        said.push((address, error));
                    }
                }
            }
            if let Some(end) = attempts.round_failed(&said) {
                self.errors.add(key, describe(what, epoch, &said));
                return Err(end);
            }
            if said.is_empty() || said.iter().any(|(_, error)| error.refresh_table()) {
                self.pause_for_table(table.version, &mut attempts).await;
            } else {
                attempts.pause(&self.members).await;
            }
        }
    }
}

impl Attempts {
    /// Every member was asked and none had an answer. `Some`: it is no use to ask again.
    fn round_failed(&mut self, said: &[(String, ChunkError)]) -> Option<DataError> {
        if said.is_empty() {
            return None;
        }
        if said.iter().all(|(_, error)| matches!(error, ChunkError::Damaged { .. })) {
            self.damaged += 1;
            return (self.damaged >= DAMAGED_ROUNDS).then_some(DataError::Damaged);
        }
        let denied = |error: &ChunkError| {
            matches!(
                error,
                ChunkError::NeedsToken { .. } | ChunkError::Refused { code: Code::PermissionDenied, .. }
            )
        };
        if said.iter().all(|(_, error)| denied(error)) {
            return Some(DataError::Denied);
        }
        if said.iter().all(|(_, error)| {
            denied(error) || matches!(error, ChunkError::Refused { .. } | ChunkError::Answer(_))
        }) {
            self.refused += 1;
            return (self.refused >= REFUSED_MAX).then_some(DataError::Refused);
        }
        None
    }
}

fn describe(what: &str, epoch: Epoch, said: &[(String, ChunkError)]) -> String {
    let mut text = format!("{what} at epoch {epoch}");
    for (address, error) in said {
        let _ = write!(text, "; {address} said: {error}");
    }
    text
}

impl<M: Members> Chunks for ReplicatedChunks<M> {
    fn write(&self, write: ChunkWrite) -> BoxFuture<'_, Result<i64, DataError>> {
        Box::pin(async move {
            let ChunkWrite { key, offset_bytes, data, block_crcs, chunk_size_bytes, fence } = write;
            let template = Write {
                key,
                epoch: Epoch(0),
                offset_bytes,
                block_crcs,
                stamp: None,
                chunk_size_bytes,
                fence,
            };
            self.change(key, "write", |address, epoch, stamp| {
                let data = data.clone();
                let message = Write { epoch, stamp: Some(stamp), ..template.clone() };
                let members = &self.members;
                Box::pin(async move { members.write(&address, &message, data, WRITE_TIMEOUT).await })
            })
            .await
        })
    }

    fn punch(&self, punch: ChunkPunch) -> BoxFuture<'_, Result<i64, DataError>> {
        Box::pin(async move {
            let ChunkPunch { key, offset_bytes, len_bytes, chunk_size_bytes, fence } = punch;
            self.change(key, "punch", |address, epoch, stamp| {
                let members = &self.members;
                Box::pin(async move {
                    let stamp = Some(stamp);
                    let message =
                        Punch { key, epoch, offset_bytes, len_bytes, stamp, chunk_size_bytes, fence };
                    members.punch(&address, &message, WRITE_TIMEOUT).await
                })
            })
            .await
        })
    }

    fn raise_fence(&self, record: ChunkKey, fence: Fence) -> BoxFuture<'_, Result<(), DataError>> {
        Box::pin(async move {
            self.ask_primary(record, "raise of the fence", |address, epoch| {
                let members = &self.members;
                Box::pin(async move {
                    let message = RaiseFence { record, epoch, fence };
                    members.raise_fence(&address, &message, WRITE_TIMEOUT).await
                })
            })
            .await
        })
    }

    fn read(&self, read: ChunkRead) -> BoxFuture<'_, Result<Option<Bytes>, DataError>> {
        Box::pin(async move {
            let ChunkRead { key, offset_bytes, len_bytes } = read;
            self.ask(key, "read", |address, epoch| {
                let members = &self.members;
                Box::pin(async move {
                    let message = Read { key, epoch, offset_bytes, len_bytes };
                    let answer = members.read(&address, &message, READ_TIMEOUT).await?;
                    if answer.hole {
                        return Ok(None);
                    }
                    if let Some(at) = answer.verify() {
                        let message =
                            format!("the block at {at} came without its checksum (blocks of {BLOCK_SIZE})");
                        return Err(ChunkError::Damaged { message });
                    }
                    let skip = (offset_bytes - answer.data_offset_bytes) as usize;
                    Ok(Some(answer.data.slice(skip..skip + len_bytes as usize)))
                })
            })
            .await
        })
    }

    fn map(&self, key: ChunkKey) -> BoxFuture<'_, Result<Vec<(u32, u32)>, DataError>> {
        Box::pin(async move {
            self.ask(key, "map", |address, epoch| {
                let members = &self.members;
                Box::pin(async move { members.map(&address, &Map { key, epoch }, READ_TIMEOUT).await })
            })
            .await
        })
    }
}

impl<M> std::fmt::Debug for ReplicatedChunks<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicatedChunks").field("pauses", &self.pauses).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
