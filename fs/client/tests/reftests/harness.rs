//! Runs random steps on both file systems and compares.

mod names;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use coord_types::InodeId;
use fs_client::{
    Caller, ClientConfig, DirEntry, Errno, FileAttr, FileSystem, HandleId, Op, OpReply, OpResult, SetAttr,
};
use futures::FutureExt as _;
use proptest::prelude::*;

use crate::cluster::{Cluster, Faults, Link};
use crate::generators::{Dir, Spot, Step, steps};
use crate::reference::Model;

const CALLER: Caller = Caller { uid: 1000, gid: 1000, pid: 1 };

struct Open {
    id: HandleId,
    file: u64,
    readable: bool,
    writable: bool,
}

struct Harness {
    cluster: Arc<Cluster>,
    /// The directory that is mounted, and that the capability is for.
    root: InodeId,
    link: Link,
    fs: FileSystem,
    model: Model,
    open: Vec<Open>,
}

fn config(root: InodeId) -> ClientConfig {
    ClientConfig {
        root,
        memory_bytes: 8 << 20,
        flush_age: Duration::from_millis(3),
        ttl: Duration::from_millis(20),
        ..ClientConfig::default()
    }
}

fn name(name: usize) -> [u8; 2] {
    [b'f', b'0' + u8::try_from(name).unwrap()]
}

fn dir_name(dir: Dir) -> [u8; 2] {
    [b'd', b'0' + u8::try_from(dir).unwrap()]
}

fn attr_of(reply: OpResult) -> FileAttr {
    match reply.unwrap() {
        OpReply::Attr { attr, .. } => attr,
        OpReply::Entry(entry) | OpReply::Created { entry, .. } => entry.attr,
        other => panic!("{other:?}"),
    }
}

fn err(reply: OpResult) -> Option<Errno> {
    reply.err()
}

/// A directory, two levels down.
async fn make_directory(cluster: &Arc<Cluster>) -> InodeId {
    let fs = cluster.link().mount(config(InodeId::ROOT));
    let mut parent = InodeId::ROOT;
    for name in [b"above", b"shown"] {
        parent = attr_of(fs.handle(&CALLER, Op::Mkdir { parent, name, mode: 0o755 }).await).ino;
    }
    parent
}

impl Harness {
    async fn new(seed: u64, per_mille: u32, delay_max: u32) -> Self {
        let cluster = Cluster::new(seed);
        // Half of all mounts show one directory.
        let root = if seed.is_multiple_of(2) { InodeId::ROOT } else { make_directory(&cluster).await };
        cluster.set(Faults { per_mille, delay_max, ..Faults::default() });
        let link = cluster.link().below(root);
        let fs = link.mount(config(root));
        Self { cluster, root, link, fs, model: Model::new(), open: Vec::new() }
    }

    /// Another client in place of this one.
    fn mount_again(&mut self) {
        self.link = self.cluster.link().below(self.root);
        self.fs = self.link.mount(config(self.root));
    }

    async fn ask(&self, op: Op<'_>) -> OpResult {
        // Half of what can be answered at once is, as a transport would.
        if let Some(answer) = self.fs.try_now(&CALLER, &op) {
            return answer;
        }
        self.fs.handle(&CALLER, op).await
    }

    fn ino(&self, file: u64) -> InodeId {
        self.model.files[&file].ino
    }

    fn dir(&self, spot: Spot) -> Option<InodeId> {
        self.model.dirs[spot.dir]
    }

    async fn read_all(&self, ino: InodeId) -> Vec<u8> {
        let handle = match self.ask(Op::Open { ino, flags: libc::O_RDONLY }).await.unwrap() {
            OpReply::Opened { handle, .. } => handle,
            other => panic!("{other:?}"),
        };
        let data = self.read_through(ino, handle).await;
        self.ask(Op::Flush { ino, handle }).await.unwrap();
        self.ask(Op::Release { ino, handle }).await.unwrap();
        data
    }

    async fn read_through(&self, ino: InodeId, handle: HandleId) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let offset_bytes = data.len() as u64;
            let part = self.read(ino, handle, offset_bytes, 1 << 20).await;
            if part.is_empty() {
                return data;
            }
            data.extend(part);
        }
    }

    async fn read(&self, ino: InodeId, handle: HandleId, offset_bytes: u64, len_bytes: u32) -> Vec<u8> {
        match self.ask(Op::Read { ino, handle, offset_bytes, len_bytes }).await.unwrap() {
            OpReply::Data(parts) => parts.concat(),
            other => panic!("{other:?}"),
        }
    }

    /// A file's contents and attributes are the model's.
    async fn compare(&self, file: u64) {
        let expected = &self.model.files[&file];
        let attr = attr_of(self.ask(Op::GetAttr { ino: expected.ino, handle: None }).await);
        self.compare_attr(file, &attr);
        let through = self.open.iter().find(|open| open.file == file && open.readable);
        let found = match through {
            Some(open) => self.read_through(expected.ino, open.id).await,
            None if self.model.nlink(file) > 0 => self.read_all(expected.ino).await,
            None => return,
        };
        assert_same(&found, &expected.data);
    }

    fn compare_attr(&self, file: u64, attr: &FileAttr) {
        let expected = &self.model.files[&file];
        assert_eq!(attr.ino, expected.ino);
        assert_eq!(attr.size_bytes, expected.data.len() as u64, "size");
        assert_eq!(attr.mode, 0o100_000 | expected.mode, "mode {:o}", attr.mode);
        assert_eq!(attr.nlink, self.model.nlink(file), "links");
        if let Some(seconds) = expected.mtime {
            assert_eq!(attr.mtime, UNIX_EPOCH + Duration::from_secs(u64::from(seconds)));
        } else {
            assert!(attr.mtime.elapsed().is_ok_and(|age| age < Duration::from_secs(60)), "{:?}", attr.mtime);
        }
    }

    /// Everything is the model's.
    async fn compare_all(&self) {
        for dir in 0..3 {
            if self.model.dirs[dir].is_some() {
                self.list(dir).await;
            }
        }
        for (&(dir, at), &file) in &self.model.names {
            let parent = self.model.dirs[dir].unwrap();
            let found = attr_of(self.ask(Op::Lookup { parent, name: &name(at) }).await);
            self.compare_attr(file, &found);
        }
        for file in self.model.files.keys() {
            self.compare(*file).await;
        }
        self.cluster.check();
    }

    async fn list(&self, dir: Dir) {
        let ino = self.model.dirs[dir].unwrap();
        let handle = match self.ask(Op::OpenDir { ino }).await.unwrap() {
            OpReply::Opened { handle, .. } => handle,
            other => panic!("{other:?}"),
        };
        let mut found: Vec<DirEntry> = Vec::new();
        loop {
            let offset = found.last().map_or(0, |entry| entry.next_offset);
            let op = Op::ReadDir { ino, handle, offset, limit: 3, attributes: true };
            match self.ask(op).await.unwrap() {
                OpReply::Entries(entries) if entries.is_empty() => break,
                OpReply::Entries(entries) => found.extend(entries.iter().cloned()),
                other => panic!("{other:?}"),
            }
        }
        self.ask(Op::ReleaseDir { ino, handle }).await.unwrap();
        let dots: Vec<_> =
            found.iter().filter(|entry| entry.name.starts_with(b".")).map(|entry| entry.ino).collect();
        assert_eq!(dots, [ino, InodeId::ROOT]);
        for entry in &found {
            let file = self.model.names.iter().find(|((at, n), _)| *at == dir && name(*n) == entry.name[..]);
            if let (Some((_, file)), Some(with)) = (file, &entry.entry) {
                self.compare_attr(*file, &with.attr);
            }
        }
        let mut expected: BTreeSet<Vec<u8>> = [b".".to_vec(), b"..".to_vec()].into();
        expected.extend(self.model.names.keys().filter(|(at, _)| *at == dir).map(|(_, n)| name(*n).to_vec()));
        if dir == 0 {
            expected.extend((1..3).filter(|d| self.model.dirs[*d].is_some()).map(|d| dir_name(d).to_vec()));
        }
        assert_eq!(found.len(), expected.len(), "every entry once");
        assert_eq!(found.iter().map(|entry| entry.name.to_vec()).collect::<BTreeSet<_>>(), expected);
    }

    async fn close(&mut self, at: usize) {
        let Open { id: handle, file, writable, .. } = self.open.swap_remove(at);
        let ino = self.ino(file);
        self.ask(Op::Flush { ino, handle }).await.unwrap();
        self.ask(Op::Release { ino, handle }).await.unwrap();
        if writable {
            self.model.files.get_mut(&file).unwrap().synced();
        }
        self.drop_unreachable();
    }

    /// Files without names and handles are gone.
    fn drop_unreachable(&mut self) {
        let model = &self.model;
        let gone: Vec<u64> = model
            .files
            .keys()
            .filter(|file| model.nlink(**file) == 0 && !self.open.iter().any(|open| open.file == **file))
            .copied()
            .collect();
        for file in gone {
            self.model.files.remove(&file);
        }
    }

    fn opened(&mut self, id: HandleId, file: u64, access: i32) {
        let (readable, writable) = (access != libc::O_WRONLY, access != libc::O_RDONLY);
        self.open.push(Open { id, file, readable, writable });
    }

    async fn create(&mut self, spot: Spot, exclusive: bool, truncate: bool, access: i32) {
        let Some(parent) = self.dir(spot) else { return };
        let flags = access
            | if exclusive { libc::O_EXCL } else { 0 }
            | if truncate && access != libc::O_RDONLY { libc::O_TRUNC } else { 0 };
        let reply = self.ask(Op::Create { parent, name: &name(spot.name), mode: 0o644, flags }).await;
        let existing = self.model.at(spot);
        if exclusive && existing.is_some() {
            assert_eq!(err(reply), Some(Errno::EEXIST));
            return;
        }
        let OpReply::Created { entry, handle, .. } = reply.unwrap() else { panic!("not created") };
        let file = match existing {
            Some(file) => {
                if flags & libc::O_TRUNC != 0 {
                    let file = self.model.files.get_mut(&file).unwrap();
                    file.resize(0);
                    file.kill_privileges();
                }
                file
            }
            None => self.model.create(spot, entry.attr.ino, 0o644),
        };
        self.opened(handle, file, access);
        self.compare(file).await;
    }

    async fn open(&mut self, spot: Spot, truncate: bool, access: i32, through: i32) {
        let Some(file) = self.model.at(spot) else { return };
        let truncate = truncate && access != libc::O_RDONLY;
        let flags = access | through | if truncate { libc::O_TRUNC } else { 0 };
        let OpReply::Opened { handle, mode } =
            self.ask(Op::Open { ino: self.ino(file), flags }).await.unwrap()
        else {
            panic!("not opened")
        };
        assert_eq!(mode.direct_io, access == libc::O_WRONLY || through == libc::O_DIRECT);
        if truncate {
            let file = self.model.files.get_mut(&file).unwrap();
            file.resize(0);
            file.kill_privileges();
        }
        self.opened(handle, file, access);
        self.compare(file).await;
    }

    fn pick(&self, handle: usize) -> Option<(usize, HandleId, u64)> {
        let at = handle.checked_rem(self.open.len())?;
        Some((at, self.open[at].id, self.open[at].file))
    }

    async fn truncate(&mut self, file: u64, handle: Option<HandleId>, size: u64) {
        let changes = SetAttr { size_bytes: Some(size), handle, ..SetAttr::default() };
        let attr = attr_of(self.ask(Op::SetAttr { ino: self.ino(file), changes }).await);
        let model = self.model.files.get_mut(&file).unwrap();
        model.resize(size);
        model.kill_privileges();
        self.compare_attr(file, &attr);
        self.compare(file).await;
    }

    async fn file_step(&mut self, step: &Step) {
        match *step {
            Step::Write { handle, offset, len, fill, sending } => {
                let Some((at, handle, file)) = self.pick(handle) else { return };
                if sending {
                    self.begin_fsync(file, handle, 1).await;
                }
                let data: Vec<u8> = (0..len).map(|i| fill.wrapping_add((i / 7) as u8) | 1).collect();
                let op = Op::Write {
                    ino: self.ino(file),
                    handle,
                    offset_bytes: offset,
                    data: &data,
                    kill_privileges: fill % 4 == 0,
                    mapped: false,
                };
                let reply = self.ask(op).await;
                if !self.open[at].writable {
                    assert_eq!(err(reply), Some(Errno::EBADF));
                    return;
                }
                assert!(matches!(reply, Ok(OpReply::Written(n)) if n as usize == len));
                let model = self.model.files.get_mut(&file).unwrap();
                model.write(offset, &data);
                if fill % 4 == 0 {
                    model.kill_privileges();
                }
                self.compare(file).await;
            }
            Step::Read { handle, offset, len } => {
                let Some((at, handle, file)) = self.pick(handle) else { return };
                if self.open[at].readable {
                    let found = self.read(self.ino(file), handle, offset, len).await;
                    assert_same(&found, self.model.files[&file].read(offset, len));
                }
            }
            Step::Truncate { handle, size } => {
                if let Some((at, handle, file)) = self.pick(handle)
                    && self.open[at].writable
                {
                    self.truncate(file, Some(handle), size).await;
                }
            }
            Step::TruncatePath { spot, size } => {
                if let Some(file) = self.model.at(spot) {
                    self.truncate(file, None, size).await;
                }
            }
            Step::Fallocate { handle, offset, len, mode } => {
                let Some((at, handle, file)) = self.pick(handle) else { return };
                let op =
                    Op::Fallocate { ino: self.ino(file), handle, offset_bytes: offset, len_bytes: len, mode };
                let reply = self.ask(op).await;
                if !self.open[at].writable {
                    assert_eq!(err(reply), Some(Errno::EBADF));
                    return;
                }
                reply.unwrap();
                let model = self.model.files.get_mut(&file).unwrap();
                let size = model.data.len() as u64;
                let mtime = model.mtime;
                if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
                    model.zero(offset, offset + len);
                    model.mtime = if offset < size { None } else { mtime };
                }
                if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && offset + len > size {
                    model.resize(offset + len);
                }
                self.compare(file).await;
            }
            Step::Seek { handle, offset } => {
                let Some((_, handle, file)) = self.pick(handle) else { return };
                self.seek(file, handle, offset).await;
            }
            Step::Fsync { handle, data_only } => {
                let Some((_, handle, file)) = self.pick(handle) else { return };
                self.ask(Op::Fsync { ino: self.ino(file), handle, data_only }).await.unwrap();
                let model = self.model.files.get_mut(&file).unwrap();
                model.past.clear();
                model.attributes_at_risk &= data_only;
            }
            Step::Interrupted { handle, polls } => {
                let Some((_, handle, file)) = self.pick(handle) else { return };
                self.begin_fsync(file, handle, polls).await;
            }
            _ => unreachable!("not a step of a file"),
        }
    }

    /// Asks for fsync and gives up after so many polls.
    async fn begin_fsync(&self, file: u64, handle: HandleId, polls: usize) {
        let op = Op::Fsync { ino: self.ino(file), handle, data_only: false };
        let mut waiting = Box::pin(self.fs.handle(&CALLER, op));
        for poll in 0..polls {
            if poll > 0 {
                tokio::task::yield_now().await;
            }
            if waiting.as_mut().now_or_never().is_some() {
                return;
            }
        }
    }

    /// What SEEK_HOLE calls a hole is zero, and what SEEK_DATA skips too.
    async fn seek(&self, file: u64, handle: HandleId, offset_bytes: u64) {
        let data = &self.model.files[&file].data;
        let ino = self.ino(file);
        let size = data.len() as u64;
        let ask = async |whence| match self.ask(Op::Seek { ino, handle, offset_bytes, whence }).await {
            Ok(OpReply::Offset(at)) => Some(at),
            Err(Errno::ENXIO) => None,
            other => panic!("{other:?}"),
        };
        let (next_data, next_hole) = (ask(libc::SEEK_DATA).await, ask(libc::SEEK_HOLE).await);
        if offset_bytes >= size {
            assert_eq!((next_data, next_hole), (None, None));
            return;
        }
        let skipped = offset_bytes..next_data.unwrap_or(size);
        assert!(skipped.clone().all(|at| data[usize::try_from(at).unwrap()] == 0), "data was called a hole");
        let hole = next_hole.expect("there is a hole at the end");
        assert!(hole >= offset_bytes && hole <= size);
        assert!(next_data != Some(offset_bytes) || hole > offset_bytes);
    }

    async fn crash(&mut self) {
        self.link.crash();
        self.open.clear();
        self.drop_unreachable();
        self.mount_again();
        let files: Vec<u64> = self.model.files.keys().copied().collect();
        for id in files {
            let ino = self.ino(id);
            let found = self.read_all(ino).await;
            let attr = attr_of(self.ask(Op::GetAttr { ino, handle: None }).await);
            let at_risk = {
                let file = &self.model.files[&id];
                file.survived_as(&found).unwrap_or_else(|why| panic!("{ino}: {why}"));
                file.attributes_at_risk || !file.past.is_empty()
            };
            if at_risk {
                let file = self.model.files.get_mut(&id).unwrap();
                file.mode = attr.mode & 0o7777;
                let since = attr.mtime.duration_since(UNIX_EPOCH).unwrap();
                let old = attr.mtime.elapsed().map_or(true, |age| age > Duration::from_secs(50));
                file.mtime = if old { u32::try_from(since.as_secs()).ok() } else { None };
            }
            let file = self.model.files.get_mut(&id).unwrap();
            file.data = found;
            file.synced();
        }
        self.compare_all().await;
    }

    async fn remount(&mut self) {
        while !self.open.is_empty() {
            self.close(0).await;
        }
        self.fs.shutdown().await.unwrap();
        self.model.files.values_mut().for_each(crate::reference::File::synced);
        self.mount_again();
        self.compare_all().await;
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Create { spot, exclusive, truncate, access } => {
                self.create(spot, exclusive, truncate, access).await;
            }
            Step::Open { spot, truncate, access, through } => {
                self.open(spot, truncate, access, through).await
            }
            Step::Close { handle } => {
                if let Some((at, ..)) = self.pick(handle) {
                    self.close(at).await;
                }
            }
            Step::Write { .. }
            | Step::Read { .. }
            | Step::Truncate { .. }
            | Step::TruncatePath { .. }
            | Step::Fallocate { .. }
            | Step::Seek { .. }
            | Step::Fsync { .. }
            | Step::Interrupted { .. } => self.file_step(step).await,
            Step::Rename { .. }
            | Step::Link { .. }
            | Step::Unlink { .. }
            | Step::Mkdir { .. }
            | Step::Rmdir { .. }
            | Step::Chmod { .. }
            | Step::Utimes { .. }
            | Step::ReadDir { .. } => self.name_step(step).await,
            Step::Rest { times } => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
            Step::Crash => self.crash().await,
            Step::Remount => self.remount().await,
        }
    }
}

fn assert_same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "length");
    if let Some(at) = (0..found.len()).find(|at| found[*at] != expected[*at]) {
        panic!("byte {at} is {} and should be {}", found[at], expected[at]);
    }
}

fn run(seed: u64, per_mille: u32, delay_max: u32, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let all = async {
            let mut harness = Harness::new(seed, per_mille, delay_max).await;
            for step in steps {
                harness.step(step).await;
            }
            harness.remount().await;
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("an operation hangs");
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_like_the_model(seed: u64, steps in steps(60)) {
        run(seed, 0, 3, &steps);
    }

    #[test]
    fn behaves_like_the_model_while_servers_misbehave(seed: u64, steps in steps(60)) {
        run(seed, 150, 20, &steps);
    }
}
