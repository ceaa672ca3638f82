//! What is known of the cluster: asked for, or remembered if nobody answers in time.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coord_types::InodeId;
use fs_client::{Errno, Rooted};
use futures::future::BoxFuture;
use master_api::model::{Answer, Attr, Name, Query, ReadDir};
use master_api::proto::{StatusReply, Table, WhereReply, where_request};
use master_api::{ClientError, MasterClient};
use parking_lot::Mutex;

use crate::text::ago;

/// How long a question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same after one that nobody answered.
const PATIENCE_SILENT: Duration = Duration::from_millis(100);
/// How long a change may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);
/// Opens that come within this share an answer.
const SHARED_FOR: Duration = Duration::from_millis(200);
/// Answers about single files that are remembered, of each kind. Beyond it, memory begins anew.
const REMEMBERED_MAX: usize = 4096;

/// Who knows the cluster: the masters. A trait so that tests need none.
pub trait Cluster: Send + Sync + 'static {
    fn status(&self, deadline: Instant) -> BoxFuture<'_, Result<StatusReply, ClientError>>;

    fn where_is(&self, ino: InodeId, deadline: Instant) -> BoxFuture<'_, Result<WhereReply, ClientError>>;

    fn query(&self, query: Query, deadline: Instant) -> BoxFuture<'_, Result<Answer, ClientError>>;

    fn drain(
        &self,
        disks: Vec<u32>,
        draining: bool,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ClientError>>;

    /// The newest table this client has, without asking.
    fn table(&self) -> Table;
}

impl Cluster for MasterClient {
    fn status(&self, deadline: Instant) -> BoxFuture<'_, Result<StatusReply, ClientError>> {
        // What masters say that are not followed is no state of this cluster.
        if let Some(refusal) = self.refusal() {
            return Box::pin(std::future::ready(Err(refusal.into())));
        }
        Box::pin(Self::status(self, Some(deadline)))
    }

    fn where_is(&self, ino: InodeId, deadline: Instant) -> BoxFuture<'_, Result<WhereReply, ClientError>> {
        Box::pin(Self::where_is(self, where_request::File::Ino(ino.0), Some(deadline)))
    }

    fn query(&self, query: Query, deadline: Instant) -> BoxFuture<'_, Result<Answer, ClientError>> {
        Box::pin(Self::query_by(self, query, Some(deadline)))
    }

    fn drain(
        &self,
        disks: Vec<u32>,
        draining: bool,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ClientError>> {
        Box::pin(Self::drain(self, disks, draining, Some(deadline)))
    }

    fn table(&self) -> Table {
        Table::from(&*Self::table(self))
    }
}

/// How old what is shown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A master just said so.
    Now,
    /// No master answers; the last one did so long ago.
    Ago(Duration),
    /// No master has told this mount: it is what the table of groups says.
    Never,
    /// This mount may not ask: it is what the table of groups says, which every client has.
    Denied,
}

impl Freshness {
    /// A line that says so; `None` if it is as it should be.
    #[must_use]
    pub fn note(self) -> Option<String> {
        match self {
            Self::Now => None,
            Self::Ago(age) => Some(format!("no master answers: this was so {}", ago(age.as_secs()))),
            Self::Never => {
                Some("no master has answered yet: this is what the table of groups says".to_owned())
            }
            Self::Denied => Some(
                "this mount's capability does not show the cluster's state (read on service:master.v1.Admin/Status): this is what the \
                 table of groups says"
                    .to_owned(),
            ),
        }
    }
}

/// Answers of one kind, by what was asked.
#[derive(Debug)]
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn note(&self, key: K, value: &V) {
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(key, (Instant::now(), value.clone()));
    }

    fn get(&self, key: &K) -> Option<(Freshness, V)> {
        self.0.lock().get(key).map(|(at, value)| (Freshness::Ago(at.elapsed()), value.clone()))
    }
}

#[derive(Debug, Default)]
struct Last {
    answered: Option<(Instant, Arc<StatusReply>)>,
    asked: Option<Instant>,
    /// The last question was refused.
    denied: bool,
}

/// The cluster, as it is known here. Inodes have the kernel's numbers.
pub(crate) struct View {
    cluster: Arc<dyn Cluster>,
    /// The masters know the cluster's.
    rooted: Rooted,
    /// Locked while the masters are asked: others wait for the answer and share it.
    last: tokio::sync::Mutex<Last>,
    /// The last question found nobody.
    silent: AtomicBool,
    places: Remembered<InodeId, WhereReply>,
    attrs: Remembered<InodeId, Attr>,
    names: Remembered<(InodeId, Name), Attr>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("last", &self.last).field("silent", &self.silent).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(cluster: Arc<dyn Cluster>, rooted: Rooted) -> Self {
        Self {
            cluster,
            rooted,
            last: tokio::sync::Mutex::default(),
            silent: AtomicBool::default(),
            places: Remembered::new(),
            attrs: Remembered::new(),
            names: Remembered::new(),
        }
    }

    /// Asks with little patience; `None` if nobody answered. An answer is also what says no.
    async fn ask<T, F>(&self, question: impl FnOnce(Instant) -> F) -> Option<Result<T, Errno>>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let patience = if self.silent.load(Ordering::Relaxed) { PATIENCE_SILENT } else { PATIENCE };
        let answer = tokio::time::timeout(patience, question(Instant::now() + patience)).await;
        let answer = match answer {
            Ok(Ok(value)) => Some(Ok(value)),
            Ok(Err(ClientError::Errno(errno))) => Some(Err(errno.into())),
            Ok(Err(error)) if error.errno() == master_api::Errno::EACCES => Some(Err(Errno::EACCES)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "ask the masters for a control file");
                None
            }
            Err(_) => None,
        };
        self.silent.store(answer.is_none(), Ordering::Relaxed);
        answer
    }

    /// The cluster's state.
    pub(crate) async fn status(&self) -> (Freshness, Arc<StatusReply>) {
        let mut last = self.last.lock().await;
        if last.asked.is_none_or(|asked| asked.elapsed() >= SHARED_FOR) {
            let answer = self.ask(|deadline| self.cluster.status(deadline)).await;
            last.asked = Some(Instant::now());
            last.denied = matches!(answer, Some(Err(_)));
            if let Some(Ok(status)) = answer {
                last.answered = last.asked.map(|now| (now, Arc::new(status)));
            }
        }
        match &last.answered {
            _ if last.denied => (Freshness::Denied, self.by_table()),
            Some((at, status)) if last.asked == Some(*at) => (Freshness::Now, Arc::clone(status)),
            Some((at, status)) => (Freshness::Ago(at.elapsed()), Arc::clone(status)),
            None => (Freshness::Never, self.by_table()),
        }
    }

    fn by_table(&self) -> Arc<StatusReply> {
        Arc::new(StatusReply { table: Some(self.cluster.table()), ..StatusReply::default() })
    }

    /// The replicas of a file.
    pub(crate) async fn place(&self, ino: InodeId) -> Result<(Freshness, WhereReply), Errno> {
        match self.ask(|deadline| self.cluster.where_is(self.rooted.inward(ino), deadline)).await {
            Some(answer) => {
                let answer = answer?;
                self.places.note(ino, &answer);
                Ok((Freshness::Now, answer))
            }
            None => self.places.get(&ino).ok_or(Errno::ETIMEDOUT),
        }
    }

    pub(crate) async fn attr(&self, ino: InodeId) -> Result<Attr, Errno> {
        let query = Query::GetAttr(self.rooted.inward(ino));
        match self.ask(|deadline| self.cluster.query(query, deadline)).await {
            Some(answer) => {
                let attr = self.outward(answer?.attr.ok_or(Errno::EIO)?)?;
                self.attrs.note(ino, &attr);
                Ok(attr)
            }
            None => self.attrs.get(&ino).map(|(_, attr)| attr).ok_or(Errno::ETIMEDOUT),
        }
    }

    pub(crate) async fn look_up(&self, parent: InodeId, name: Name) -> Result<Attr, Errno> {
        let query = Query::Lookup { parent: self.rooted.inward(parent), name: name.clone() };
        match self.ask(|deadline| self.cluster.query(query, deadline)).await {
            Some(answer) => {
                let attr = self.outward(answer?.attr.ok_or(Errno::EIO)?)?;
                self.names.note((parent, name), &attr);
                self.attrs.note(attr.ino, &attr);
                Ok(attr)
            }
            None => self.names.get(&(parent, name)).map(|(_, attr)| attr).ok_or(Errno::ETIMEDOUT),
        }
    }

    pub(crate) async fn read_dir(&self, page: ReadDir) -> Result<Answer, Errno> {
        let page = ReadDir { ino: self.rooted.inward(page.ino), ..page };
        let answer = self.ask(|deadline| self.cluster.query(Query::ReadDir(page), deadline)).await;
        let mut answer = answer.ok_or(Errno::ETIMEDOUT)??;
        for attr in answer.entries.iter_mut().filter_map(|entry| entry.attr.as_mut()) {
            attr.ino = self.rooted.outward(attr.ino)?;
        }
        Ok(answer)
    }

    fn outward(&self, attr: Attr) -> Result<Attr, Errno> {
        Ok(Attr { ino: self.rooted.outward(attr.ino)?, ..attr })
    }

    /// Marks a chunkserver's disks, or takes that back. The next look at the cluster shows it.
    pub(crate) async fn drain(&self, server: u32, draining: bool) -> Result<(), Errno> {
        let (_, status) = self.status().await;
        let servers = status.table.iter().flat_map(|table| &table.servers);
        let disks =
            servers.filter(|known| known.id == server).flat_map(|known| known.disks.clone()).collect();
        let deadline = Instant::now() + CHANGE_PATIENCE;
        let marked = self.cluster.drain(disks, draining, deadline).await;
        self.last.lock().await.asked = None;
        marked.map_err(|error| {
            tracing::warn!(server, draining, %error, "a command of a control file was refused");
            error.errno().into()
        })
    }

    /// As if the last answer were old.
    #[cfg(test)]
    pub(crate) async fn forget_freshness(&self) {
        self.last.lock().await.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let remembered = Remembered::new();
        for key in 0..=REMEMBERED_MAX {
            remembered.note(key, &key);
        }
        assert!(remembered.get(&0).is_none());
        assert!(matches!(remembered.get(&REMEMBERED_MAX), Some((Freshness::Ago(_), REMEMBERED_MAX))));
        assert!(remembered.0.lock().len() <= REMEMBERED_MAX);
    }
}
