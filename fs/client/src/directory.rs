//! Reading directories: pages from the master, the next one fetched while the last is handed out.
//!
//! Offsets: 0 begins with ".", 1 with "..", 2 with the first entry of the master; a greater one is the master's cookie of
//! the last entry seen. An offset stays good over changes of the directory, which is what POSIX asks of readdir while
//! files come and go.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use coord_types::InodeId;
use master_api::model::attr::mode;
use master_api::model::{self, Query};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::handle::DirHandle;
use crate::inode::Source;
use crate::{DirEntry, Errno, OpReply, OpResult};

/// Entries of a page: about 100 KiB with attributes, a few round trips' worth of work for the kernel.
const PAGE: u32 = 1000;
/// Offsets up to this one begin with the master's first entry.
const FIRST: u64 = 2;

/// A page of the directory.
#[derive(Debug)]
struct Page {
    /// The cookie it follows.
    after: u64,
    entries: Vec<model::DirEntry>,
    end: bool,
    attributes: bool,
    at: Instant,
}

/// Where a directory's reader is.
#[derive(Debug, Default)]
pub(crate) struct DirStream {
    page: Option<Page>,
    /// The page after it, on its way: at most one.
    next: Option<JoinHandle<Result<Page, Errno>>>,
}

/// What readdir asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) offset: u64,
    pub(crate) limit: u32,
    pub(crate) attributes: bool,
}

impl Page {
    fn last_cookie(&self) -> u64 {
        self.entries.last().map_or(self.after, |entry| entry.cookie)
    }

    /// The entries after a cookie, if they are of this page.
    fn after(&self, cookie: u64) -> Option<&[model::DirEntry]> {
        if cookie < self.after || (cookie >= self.last_cookie() && !self.end) {
            return None;
        }
        let seen = self.entries.partition_point(|entry| entry.cookie <= cookie);
        Some(&self.entries[seen..])
    }
}

async fn fetch(client: Arc<Client>, ino: InodeId, after: u64, attributes: bool) -> Result<Page, Errno> {
    let page = model::ReadDir { ino, after_cookie: after, limit: PAGE, with_attributes: attributes };
    let at = Instant::now();
    let answer = client.meta.query(Query::ReadDir(page)).await?;
    for attr in answer.entries.iter().filter_map(|entry| entry.attr.as_ref()) {
        client.bare.told(attr, at);
    }
    // A page without entries that is not the end would be asked for for ever.
    let end = answer.end || answer.entries.is_empty();
    Ok(Page { after, entries: answer.entries, end, attributes, at })
}

impl Client {
    pub(crate) fn open_dir(&self, ino: InodeId) -> OpReply {
        let handle = self.handles.add_dir(DirHandle { ino, stream: tokio::sync::Mutex::default() });
        OpReply::Opened { handle, mode: crate::OpenMode::default() }
    }

    /// The root has itself. Another mount may have moved it into a directory that was seen below it once.
    fn parent_of(&self, ino: InodeId) -> InodeId {
        if ino == self.config.root { ino } else { self.inodes.parent_of(ino) }
    }

    pub(crate) async fn read_dir(self: &Arc<Self>, dir: &DirHandle, wanted: Wanted) -> OpResult {
        let limit = wanted.limit.max(1) as usize;
        let mut out = Vec::with_capacity(limit.min(PAGE as usize));
        for (offset, name) in [(0, "."), (1, "..")] {
            if wanted.offset <= offset && out.len() < limit {
                let ino = if offset == 0 { dir.ino } else { self.parent_of(dir.ino) };
                let name = Bytes::from_static(name.as_bytes());
                out.push(DirEntry { ino, name, kind: mode::DIRECTORY, next_offset: offset + 1, entry: None });
            }
        }
        let mut stream = dir.stream.lock().await;
        if wanted.offset == 0 {
            // rewinddir: what changed since is to be seen.
            *stream = DirStream::default();
        }
        let after = if wanted.offset <= FIRST { 0 } else { wanted.offset };
        if out.len() < limit {
            self.turn_to(&mut stream, dir.ino, after, wanted.attributes).await?;
            let entries = stream.page.as_ref().and_then(|page| page.after(after)).unwrap_or_default();
            for entry in &entries[..entries.len().min(limit - out.len())] {
                out.push(self.dir_entry(dir.ino, entry, wanted.attributes));
            }
        }
        Ok(OpReply::Entries(out.into()))
    }

    /// Makes the stream's page the one that goes on after a cookie, and sends for the one behind it.
    async fn turn_to(
        self: &Arc<Self>,
        stream: &mut DirStream,
        ino: InodeId,
        after: u64,
        attributes: bool,
    ) -> Result<(), Errno> {
        let good = |page: &Page| {
            let old = attributes && (!page.attributes || page.at.elapsed() >= self.config.ttl);
            !old && page.after(after).is_some()
        };
        if stream.page.as_ref().is_some_and(good) {
            return Ok(());
        }
        let on_its_way = match stream.next.take() {
            Some(next) => next.await.ok().and_then(Result::ok).filter(good),
            None => None,
        };
        let page = match on_its_way {
            Some(page) => page,
            None => fetch(Arc::clone(self), ino, after, attributes).await?,
        };
        if !page.end {
            stream.next =
                Some(self.runtime.spawn(fetch(Arc::clone(self), ino, page.last_cookie(), attributes)));
        }
        stream.page = Some(page);
        Ok(())
    }

    fn dir_entry(&self, directory: InodeId, entry: &model::DirEntry, attributes: bool) -> DirEntry {
        if entry.kind == mode::DIRECTORY {
            self.inodes.note_parent(entry.ino, directory);
        }
        DirEntry {
            ino: entry.ino,
            name: entry.name.clone(),
            kind: entry.kind,
            next_offset: entry.cookie,
            entry: entry.attr.as_ref().filter(|_| attributes).map(|attr| self.entry(attr, Source::Question)),
        }
    }
}
