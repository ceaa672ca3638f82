//! The control files over masters and a file system that are doubles: each keeps what reached it.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use futures::future::BoxFuture;
use kuafu::Status;
use master_api::ClientError;
use master_api::model::{self, Answer, Query};
use master_api::proto::{self, MemberState, StatusReply, WhereReply};

use zhongkui::keyring;
use zhongkui::terms::Root;
use zhongkui::{
    Capability, CapabilityId, Grant, Resource, Rights, SecretKey, Terms, User, UserEpoch, UserName, Validity,
};
use zhongkui_access::keyring::KeyFiles;
use zhongkui_access::{Audit, Keyring};

use super::*;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1 };
/// The one file of the tree behind.
const FILE: InodeId = InodeId(7);

/// Behind the control files: says what reached it.
#[derive(Debug, Default)]
struct Behind {
    rooted: Rooted,
}

impl Handler for Behind {
    async fn handle(&self, _: &Caller, op: Op<'_>) -> OpResult {
        match op {
            Op::Read { .. } => Err(Errno::EIO),
            _ => Ok(OpReply::Offset(77)),
        }
    }

    fn try_now(&self, _: &Caller, _: &Op<'_>) -> Option<OpResult> {
        Some(Ok(OpReply::Offset(78)))
    }
}

impl Local for Behind {
    fn errors(&self) -> Vec<ErrorRecord> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        Usage { open_handles: 3, ..Usage::default() }
    }

    fn rooted(&self) -> Rooted {
        self.rooted
    }
}

/// The masters: two chunkservers (4 and 6), one file called "file"; or nobody.
#[derive(Debug)]
struct Masters {
    silent: AtomicBool,
    /// Nothing is allowed.
    denies: AtomicBool,
    /// The directory that "file" is in.
    root: InodeId,
    asked: AtomicUsize,
    /// Until when the last question waits.
    deadline: Mutex<Option<Instant>>,
    drained: Mutex<Vec<(Vec<u32>, bool)>>,
}

impl Masters {
    fn answer<T: Send + 'static>(
        &self,
        deadline: Instant,
        answer: Result<T, ClientError>,
    ) -> BoxFuture<'_, Result<T, ClientError>> {
        *self.deadline.lock() = Some(deadline);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = if self.silent.load(Ordering::Relaxed) {
            Err(ClientError::Deadline { last: String::new() })
        } else if self.denies.load(Ordering::Relaxed) {
            let status = Status::permission_denied("alice may not");
            Err(ClientError::Refused { address: "tcp://m:1".to_owned(), status })
        } else {
            answer
        };
        Box::pin(async move {
            tokio::task::yield_now().await;
            answer
        })
    }
}

fn attr() -> Attr {
    let proto = proto::Attr {
        ino: FILE.0,
        mode: libc::S_IFREG | 0o640,
        nlink: 1,
        uid: 12,
        atime: Some(proto::Time::default()),
        mtime: Some(proto::Time::default()),
        ctime: Some(proto::Time::default()),
        layout: Some(proto::Layout { chunk_size_bytes: 8 << 20, groups: vec![1] }),
        ..proto::Attr::default()
    };
    Attr::try_from(proto).unwrap()
}

fn root(ino: InodeId) -> Attr {
    Attr { ino, mode: libc::S_IFDIR | 0o755, layout: None, ..attr() }
}

impl Cluster for Masters {
    fn status(&self, deadline: Instant) -> BoxFuture<'_, Result<StatusReply, ClientError>> {
        let table = self.table();
        self.answer(deadline, Ok(StatusReply { table: Some(table), term: 5, ..StatusReply::default() }))
    }

    fn where_is(&self, ino: InodeId, deadline: Instant) -> BoxFuture<'_, Result<WhereReply, ClientError>> {
        assert_eq!(ino, FILE);
        self.answer(deadline, Ok(WhereReply { attr: Some((&attr()).into()), ..WhereReply::default() }))
    }

    fn query(&self, query: Query, deadline: Instant) -> BoxFuture<'_, Result<Answer, ClientError>> {
        if let Query::ReadDir(page) = &query {
            assert!(page.limit <= PAGE, "{} entries at once", page.limit);
        }
        self.answer(
            deadline,
            match query {
                Query::GetAttr(FILE) => Ok(Answer { attr: Some(attr()), ..Answer::default() }),
                Query::GetAttr(ino) if ino == self.root => {
                    Ok(Answer { attr: Some(root(ino)), ..Answer::default() })
                }
                Query::Lookup { parent, name } if parent == self.root && name.as_slice() == b"file" => {
                    Ok(Answer { attr: Some(attr()), ..Answer::default() })
                }
                Query::ReadDir(page) if page.ino == self.root && page.after_cookie == 0 => {
                    let entry = model::DirEntry {
                        ino: FILE,
                        name: Bytes::from_static(b"file"),
                        kind: libc::S_IFREG,
                        cookie: 900,
                        attr: Some(attr()),
                    };
                    Ok(Answer { entries: vec![entry], end: true, ..Answer::default() })
                }
                Query::ReadDir(_) => Ok(Answer { end: true, ..Answer::default() }),
                _ => Err(ClientError::Errno(model::Errno::ENOENT)),
            },
        )
    }

    fn drain(
        &self,
        disks: Vec<u32>,
        draining: bool,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ClientError>> {
        self.drained.lock().push((disks, draining));
        self.answer(deadline, Ok(()))
    }

    fn table(&self) -> proto::Table {
        let server = |id, disks: &[u32]| proto::Server {
            id,
            disks: disks.to_vec(),
            disk_states: vec![proto::Disk::default(); disks.len()],
            ..proto::Server::default()
        };
        let servers = vec![server(4, &[40, 41]), server(6, &[60])];
        let member = proto::Member { disk: 40, state: MemberState::Serving.into() };
        let group = proto::Group { id: 1, epoch: 1, members: vec![member] };
        proto::Table { servers, groups: vec![group], replicas: 1, min_replicas: 1, version: 2 }
    }
}

struct World {
    files: ControlFiles<Behind>,
    masters: Arc<Masters>,
}

impl World {
    fn new() -> Self {
        Self::at(InodeId::ROOT, Access::process())
    }

    fn at(root: InodeId, access: Access) -> Self {
        let masters = Arc::new(Masters {
            silent: AtomicBool::default(),
            denies: AtomicBool::default(),
            root,
            asked: AtomicUsize::default(),
            deadline: Mutex::default(),
            drained: Mutex::default(),
        });
        let mount = Mount {
            name: "c".to_owned(),
            description: "/c.toml".to_owned(),
            uid: 1,
            gid: 2,
            access,
            read_only: true,
        };
        let behind = Behind { rooted: Rooted::at(root) };
        Self { files: ControlFiles::new(behind, Arc::clone(&masters) as Arc<dyn Cluster>, mount), masters }
    }

    async fn handle(&self, op: Op<'_>) -> OpResult {
        self.files.handle(&CALLER, op).await
    }

    async fn walk(&self, path: &str) -> Result<FileAttr, Errno> {
        let mut parent = InodeId::ROOT;
        let mut found = None;
        for name in path.split('/') {
            let OpReply::Entry(entry) = self.handle(Op::Lookup { parent, name: name.as_bytes() }).await?
            else {
                panic!("no entry");
            };
            parent = entry.attr.ino;
            found = Some(entry.attr);
        }
        Ok(found.expect("a path has a name"))
    }

    async fn read(&self, path: &str) -> Result<String, Errno> {
        let ino = self.walk(path).await?.ino;
        let OpReply::Opened { handle, mode } = self.handle(Op::Open { ino, flags: libc::O_RDONLY }).await?
        else {
            panic!("not opened");
        };
        assert!(mode.direct_io);
        let mut text = Vec::new();
        loop {
            let read = Op::Read { ino, handle, offset_bytes: text.len() as u64, len_bytes: 100 };
            let OpReply::Data(data) = self.handle(read).await? else { panic!("no data") };
            if data.concat().is_empty() {
                break;
            }
            text.extend(data.concat());
        }
        let beyond = Op::Read { ino, handle, offset_bytes: u64::MAX, len_bytes: 100 };
        assert!(matches!(self.handle(beyond).await?, OpReply::Data(data) if data.concat().is_empty()));
        self.handle(Op::Release { ino, handle }).await?;
        let gone = Op::Read { ino, handle, offset_bytes: 0, len_bytes: 1 };
        assert_eq!(self.handle(gone).await.unwrap_err(), Errno::EBADF);
        Ok(String::from_utf8(text).expect("it is text"))
    }

    /// Names and, with attributes, inodes.
    async fn list(&self, path: &str, attributes: bool) -> Vec<String> {
        let ino = self.walk(path).await.unwrap().ino;
        let OpReply::Opened { handle, .. } = self.handle(Op::OpenDir { ino }).await.unwrap() else {
            panic!("not opened");
        };
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            // Two at a time: what is left is found again by its offset.
            let op = Op::ReadDir { ino, handle, offset, limit: 2, attributes };
            let OpReply::Entries(entries) = self.handle(op).await.unwrap() else { panic!("no entries") };
            assert!(entries.len() <= 2, "{entries:?}");
            let Some(last) = entries.last() else { break };
            offset = last.next_offset;
            for entry in entries.iter() {
                let dot = entry.name.starts_with(b".");
                assert_eq!(entry.entry.is_some(), attributes && !dot, "{entry:?}");
                assert!(entry.entry.is_none_or(|known| known.attr.ino == entry.ino));
                names.push(String::from_utf8_lossy(&entry.name).into_owned());
            }
        }
        names
    }
}

#[tokio::test]
async fn each_file_has_its_text() {
    let world = World::new();
    assert_eq!(world.read(".pangu/health").await.unwrap(), "ok\n");
    assert!(world.read(".pangu/cluster").await.unwrap().contains("raft     term 5"));
    assert!(world.read(".pangu/groups").await.unwrap().contains("40 serving"));
    assert_eq!(world.read(".pangu/recovery").await.unwrap(), "nothing to recover\n");
    assert_eq!(world.read(".pangu/errors").await.unwrap(), "no errors\n");
    assert!(world.read(".pangu/chunkservers/4/status").await.unwrap().starts_with("chunkserver 4\n"));
    assert!(world.read(".pangu/chunkservers/4/ctl").await.unwrap().contains("undrain"));
    assert!(world.read(".pangu/where/file").await.unwrap().starts_with("this file"));
    let where_is = |ino| world.handle(Op::GetXattr { ino, name: WHERE_XATTR });
    let place = world.read(".pangu/where/file").await.unwrap();
    assert!(matches!(where_is(FILE).await, Ok(OpReply::Bytes(text)) if text == place));
    let own = world.walk(".pangu/where/file").await.unwrap().ino;
    assert_eq!(where_is(own).await.unwrap_err(), Errno::ENODATA);
    for absent in [".pangu/absent", ".pangu/chunkservers/5", ".pangu/chunkservers/04", ".pangu/where/absent"]
    {
        assert_eq!(world.walk(absent).await.unwrap_err(), Errno::ENOENT, "{absent}");
    }
    // A chunkserver that is gone since its name was looked up.
    let gone = Op::Open { ino: Node::File(File::Status(5)).ino(), flags: libc::O_RDONLY };
    assert_eq!(world.handle(gone).await.unwrap_err(), Errno::ENOENT);
    let dir = Attr { mode: libc::S_IFDIR | 0o753, ..attr() };
    assert_eq!(world.files.mirrored(&dir).mode, libc::S_IFDIR | 0o551, "who may look may look here");
    let mirror = world.walk(".pangu/where/file").await.unwrap();
    assert_eq!((mirror.mode, mirror.uid, mirror.nlink), (libc::S_IFREG | 0o444, 12, 1));
    let asked = world.handle(Op::GetAttr { ino: mirror.ino, handle: None }).await;
    assert!(matches!(asked, Ok(OpReply::Attr { attr, .. }) if attr == mirror));
    assert_eq!(world.walk(".pangu/chunkservers/4/ctl").await.unwrap().mode, libc::S_IFREG | 0o600);
}

#[tokio::test]
async fn directories_are_listed_from_any_offset() {
    let world = World::new();
    for attributes in [false, true] {
        assert_eq!(
            world.list(".pangu", attributes).await,
            [
                ".",
                "..",
                "health",
                "cluster",
                "groups",
                "recovery",
                "metrics",
                "errors",
                "whoami",
                "chunkservers",
                "where"
            ]
        );
        assert_eq!(world.list(".pangu/chunkservers", attributes).await, [".", "..", "4", "6"]);
        assert_eq!(world.list(".pangu/chunkservers/4", attributes).await, [".", "..", "status", "ctl"]);
        assert_eq!(world.list(".pangu/where", attributes).await, [".", "..", "file"]);
    }
    let all = Op::ReadDir {
        ino: Node::WHERE.ino(),
        handle: HandleId(0),
        offset: 0,
        limit: u32::MAX,
        attributes: false,
    };
    assert!(matches!(world.handle(all).await, Ok(OpReply::Entries(entries)) if entries.len() == 3));
}

#[tokio::test]
async fn what_is_no_control_file_goes_behind_and_is_counted() {
    let world = World::new();
    let (ino, handle) = (FILE, HandleId(1));
    for op in [
        Op::Lookup { parent: InodeId::ROOT, name: b"file" },
        // The name means something only in the root.
        Op::Mkdir { parent: FILE, name: TOP_NAME, mode: 0o755 },
        Op::ReadDir { ino: InodeId::ROOT, handle, offset: 0, limit: 9, attributes: false },
        Op::StatFs,
    ] {
        assert!(matches!(world.handle(op).await, Ok(OpReply::Offset(77))));
    }
    let read = Op::Read { ino, handle, offset_bytes: 0, len_bytes: 1 };
    assert_eq!(world.handle(read).await.unwrap_err(), Errno::EIO);
    let at_once = |ino| world.files.try_now(&CALLER, &Op::GetAttr { ino, handle: None });
    assert!(matches!(at_once(FILE), Some(Ok(OpReply::Offset(78)))));
    assert!(at_once(Node::Top.ino()).is_none(), "a control file is no file of the tree behind");
    let text = world.read(".pangu/metrics").await.unwrap();
    for line in [
        "pangu_mount_open_handles 3\n",
        "pangu_mount_operations_total{op=\"read\"} 1\n",
        "pangu_mount_operations_failed_total{op=\"read\"} 1\n",
        "pangu_mount_operations_total{op=\"change\"} 1\n",
        "pangu_mount_operations_total{op=\"attr\"} 1\n",
        "pangu_mount_operations_failed_total{op=\"change\"} 0\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[tokio::test]
async fn nothing_is_made_or_taken_away() {
    let world = World::new();
    let root = InodeId::ROOT;
    let top = world.walk(".pangu").await.unwrap().ino;
    let health = world.walk(".pangu/health").await.unwrap().ino;
    let ctl = world.walk(".pangu/chunkservers/4/ctl").await.unwrap().ino;
    for (op, errno) in [
        (Op::Mkdir { parent: root, name: TOP_NAME, mode: 0 }, Errno::EEXIST),
        (Op::Create { parent: root, name: TOP_NAME, mode: 0, flags: 0 }, Errno::EEXIST),
        (Op::Link { ino: FILE, new_parent: root, new_name: TOP_NAME }, Errno::EEXIST),
        (
            Op::Rename { parent: root, name: b"a", new_parent: root, new_name: TOP_NAME, flags: 0 },
            Errno::EEXIST,
        ),
        (
            Op::Rename { parent: root, name: TOP_NAME, new_parent: root, new_name: b"a", flags: 0 },
            Errno::EPERM,
        ),
        (Op::Rename { parent: root, name: b"a", new_parent: top, new_name: b"a", flags: 0 }, Errno::EPERM),
        (
            Op::Rename { parent: top, name: b"health", new_parent: root, new_name: b"a", flags: 0 },
            Errno::EPERM,
        ),
        (Op::Rmdir { parent: root, name: TOP_NAME }, Errno::EPERM),
        (Op::Unlink { parent: top, name: b"health" }, Errno::EPERM),
        (Op::Create { parent: top, name: b"new", mode: 0, flags: 0 }, Errno::EPERM),
        (Op::Link { ino: health, new_parent: root, new_name: b"a" }, Errno::EPERM),
        (Op::Open { ino: health, flags: libc::O_WRONLY }, Errno::EACCES),
        (
            Op::SetAttr { ino: health, changes: SetAttr { mode: Some(0o777), ..SetAttr::default() } },
            Errno::EPERM,
        ),
        (
            Op::SetAttr { ino: ctl, changes: SetAttr { mode: Some(0o666), ..SetAttr::default() } },
            Errno::EPERM,
        ),
        (Op::Lookup { parent: health, name: b"a" }, Errno::ENOTDIR),
        (Op::SetXattr { ino: health, name: b"user.a", value: b"", flags: 0 }, Errno::EOPNOTSUPP),
        (Op::GetXattr { ino: health, name: b"user.a" }, Errno::ENODATA),
        (Op::SetXattr { ino: FILE, name: WHERE_XATTR, value: b"", flags: 0 }, Errno::EPERM),
        (Op::RemoveXattr { ino: FILE, name: WHERE_XATTR }, Errno::EPERM),
        (Op::GetAttr { ino: InodeId(u64::MAX), handle: None }, Errno::ESTALE),
    ] {
        let text = format!("{op:?}");
        assert_eq!(world.handle(op).await.unwrap_err(), errno, "{text}");
    }
}

#[tokio::test]
async fn ctl_takes_commands() {
    let world = World::new();
    let ino = world.walk(".pangu/chunkservers/4/ctl").await.unwrap().ino;
    let OpReply::Opened { handle, .. } = world.handle(Op::Open { ino, flags: libc::O_WRONLY }).await.unwrap()
    else {
        panic!("not opened");
    };
    let write = |data: &'static [u8]| {
        world.handle(Op::Write { ino, handle, offset_bytes: 0, data, kill_privileges: false, mapped: false })
    };
    assert!(matches!(write(b"drain\n").await, Ok(OpReply::Written(6))));
    let asked = world.masters.asked.load(Ordering::Relaxed);
    assert_eq!(world.read(".pangu/recovery").await.unwrap(), "nothing to recover\n");
    assert!(world.masters.asked.load(Ordering::Relaxed) > asked, "what was told before the command is old");
    assert!(matches!(write(b"undrain").await, Ok(OpReply::Written(7))));
    assert_eq!(write(b"explode").await.unwrap_err(), Errno::EINVAL);
    world.masters.silent.store(true, Ordering::Relaxed);
    assert_eq!(write(b"drain").await.unwrap_err(), Errno::ETIMEDOUT);
    let drained = std::mem::take(&mut *world.masters.drained.lock());
    assert_eq!(drained, [(vec![40, 41], true), (vec![40, 41], false), (vec![40, 41], true)]);
    // A shell empties what it writes to.
    let cut = SetAttr { size_bytes: Some(0), ..SetAttr::default() };
    assert!(world.handle(Op::SetAttr { ino, changes: cut }).await.is_ok());
}

#[tokio::test]
async fn without_a_master_the_last_answer_stands() {
    let world = World::new();
    world.masters.silent.store(true, Ordering::Relaxed);
    let never = world.read(".pangu/health").await.unwrap();
    assert!(never.starts_with("unreachable\nno master has answered yet"), "{never}");
    assert!(world.read(".pangu/groups").await.unwrap().contains("40 serving"), "the table is always known");
    assert_eq!(world.walk(".pangu/where/file").await.unwrap_err(), Errno::ETIMEDOUT);

    let world = World::new();
    world.read(".pangu/cluster").await.unwrap();
    world.read(".pangu/where/file").await.unwrap();
    world.masters.silent.store(true, Ordering::Relaxed);
    world.files.view.forget_freshness().await;
    let ino = world.walk(".pangu/where/file").await.unwrap().ino;
    let known = world.handle(Op::GetAttr { ino, handle: None }).await;
    assert!(matches!(known, Ok(OpReply::Attr { attr, .. }) if attr.ino == ino), "{known:?}");
    let text = world.read(".pangu/cluster").await.unwrap();
    assert!(text.starts_with("no master answers: this was so 0 s ago\ncluster"), "{text}");
    let place = world.read(".pangu/where/file").await.unwrap();
    assert!(place.starts_with("no master answers: this was so 0 s ago\nthis file"), "{place}");
    assert_eq!(world.walk(".pangu/where/other").await.unwrap_err(), Errno::ETIMEDOUT);
}

#[tokio::test]
async fn opens_at_the_same_time_share_an_answer() {
    let world = World::new();
    let ino = world.walk(".pangu/cluster").await.unwrap().ino;
    let opens = (0..50).map(|_| world.handle(Op::Open { ino, flags: libc::O_RDONLY }));
    let opened = futures::future::join_all(opens).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(world.masters.asked.load(Ordering::Relaxed), 1);
}

/// Listing a directory must not take a second for each of its entries.
#[tokio::test]
async fn who_did_not_answer_is_not_waited_for_as_long_again() {
    const LONG: Duration = Duration::from_millis(500);
    let world = World::new();
    world.masters.silent.store(true, Ordering::Relaxed);
    let mut before = Instant::now();
    for long in [true, false, false] {
        assert_eq!(world.walk(".pangu/where/file").await.unwrap_err(), Errno::ETIMEDOUT);
        let deadline = world.masters.deadline.lock().take().expect("it was asked");
        assert!(if long { deadline > before + LONG } else { deadline < Instant::now() + LONG });
    }
    world.masters.silent.store(false, Ordering::Relaxed);
    world.walk(".pangu/where/file").await.unwrap();
    before = Instant::now();
    world.walk(".pangu/where/file").await.unwrap();
    assert!(world.masters.deadline.lock().is_some_and(|deadline| deadline > before + LONG));
}

#[tokio::test]
async fn whoami_follows_the_keys_and_asks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let files = KeyFiles {
        key: dir.path().join("alice.key"),
        capability: dir.path().join("alice.cap"),
        authorities: dir.path().to_owned(),
    };
    let (authority, key) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let granted = |id, rights| {
        let user = User::new(UserName::new("alice").unwrap(), UserEpoch(0), 1000, vec![1000]).unwrap();
        let root = Root { id: CapabilityId(id), issuer: authority.public().id(), user };
        let grants = vec![Grant::new(rights, Resource::Everything).unwrap()];
        let validity = Validity::new(Timestamp(0), Timestamp::FOREVER).unwrap();
        Capability::grant(&authority, root, Terms::new(key.public(), validity, grants).unwrap()).unwrap()
    };
    keyring::write_public_key(&dir.path().join("authority.pub"), &authority.public()).unwrap();
    keyring::write_secret_key(&files.key, &key).unwrap();
    keyring::write_capability(&files.capability, &granted(1, Rights::READ)).unwrap();
    let access = Access::new(Keyring::open(files.clone()).unwrap(), Audit::none());

    let world = World::at(InodeId(99), access.clone());
    world.masters.silent.store(true, Ordering::Relaxed);
    let before = world.read(".pangu/whoami").await.unwrap();
    for line in [
        "user       alice, uid 1000, gids 1000\n",
        "now        good\n",
        "cluster    c (/c.toml)\n",
        "root       one directory and what is below it (inode 99, shown as 1)\n",
        "mount      read-only\n",
        "may        read, everywhere below the root\n",
    ] {
        assert!(before.contains(line), "{line:?} is not in\n{before}");
    }
    std::fs::remove_file(&files.capability).unwrap();
    keyring::write_capability(&files.capability, &granted(2, Rights::READ | Rights::WRITE)).unwrap();
    assert!(access.keyring().refresh().unwrap());
    let after = world.read(".pangu/whoami").await.unwrap();
    assert!(after.contains("may        read, write, everywhere below the root\n"), "{after}");
    access.follow([("/zhongkui/capabilities/0000000000000002", b"lost".as_slice())]);
    let revoked = world.read(".pangu/whoami").await.unwrap();
    assert!(revoked.contains("now        refused: capability 0000000000000002 was revoked"), "{revoked}");
    assert_eq!(world.masters.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn of_a_mount_of_one_directory_the_masters_are_asked_by_its_number() {
    let world = World::at(InodeId(99), Access::process());
    assert_eq!(world.walk(".pangu/where/file").await.unwrap().ino, Node::Mirror(FILE).ino());
    assert!(world.read(".pangu/where/file").await.unwrap().starts_with("this file"));
    assert_eq!(world.list(".pangu/where", true).await, [".", "..", "file"]);
    let top = world.files.view.attr(InodeId::ROOT).await.unwrap();
    assert_eq!(top.ino, InodeId::ROOT, "and answer with the kernel's");
}

/// Somebody with a capability for some files may ask about those and nothing else.
#[tokio::test]
async fn what_may_not_be_asked_is_no_silence() {
    let world = World::new();
    world.read(".pangu/cluster").await.unwrap();
    world.masters.denies.store(true, Ordering::Relaxed);
    world.files.view.forget_freshness().await;
    let health = world.read(".pangu/health").await.unwrap();
    assert!(health.starts_with("ok\nthis mount's capability does not show"), "{health}");
    assert!(world.read(".pangu/groups").await.unwrap().contains("40 serving"), "the table is always known");
    assert_eq!(world.walk(".pangu/where/file").await.unwrap_err(), Errno::EACCES);
    let name = WHERE_XATTR;
    assert_eq!(world.handle(Op::GetXattr { ino: FILE, name }).await.unwrap_err(), Errno::EACCES);
    let ino = Node::File(File::Ctl(4)).ino();
    let handle = HandleId(0);
    let drain =
        Op::Write { ino, handle, offset_bytes: 0, data: b"drain", kill_privileges: false, mapped: false };
    assert_eq!(world.handle(drain).await.unwrap_err(), Errno::EACCES);
    world.masters.denies.store(false, Ordering::Relaxed);
    world.files.view.forget_freshness().await;
    assert_eq!(world.read(".pangu/health").await.unwrap(), "ok\n");
}
