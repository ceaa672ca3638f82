//! A mount of one directory, by somebody who may touch nothing outside of it.

use fs_client::{DirEntry, Entry};

use super::*;

const ROOT: InodeId = InodeId::ROOT;

impl Mount {
    async fn mkdir(&self, parent: InodeId, name: &str) -> InodeId {
        let op = Op::Mkdir { parent, name: name.as_bytes(), mode: 0o755 };
        entry(self.ask(op).await).attr.ino
    }

    /// As the kernel asks: at once, if that is possible.
    async fn either(&self, op: Op<'_>) -> OpResult {
        match self.0.try_now(&CALLER, &op) {
            Some(answer) => answer,
            None => self.ask(op).await,
        }
    }

    async fn lookup(&self, parent: InodeId, name: &str) -> Result<FileAttr, Errno> {
        match self.either(Op::Lookup { parent, name: name.as_bytes() }).await? {
            OpReply::Entry(entry) => Ok(entry.attr),
            other => panic!("{other:?}"),
        }
    }

    async fn list(&self, ino: InodeId, attributes: bool) -> Vec<DirEntry> {
        let handle = match self.either(Op::OpenDir { ino }).await.unwrap() {
            OpReply::Opened { handle, .. } => handle,
            other => panic!("{other:?}"),
        };
        let op = Op::ReadDir { ino, handle, offset: 0, limit: 100, attributes };
        let OpReply::Entries(entries) = self.ask(op).await.unwrap() else { panic!("no entries") };
        self.either(Op::ReleaseDir { ino, handle }).await.unwrap();
        entries.to_vec()
    }
}

fn entry(reply: OpResult) -> Entry {
    match reply.unwrap() {
        OpReply::Entry(entry) | OpReply::Created { entry, .. } => entry,
        other => panic!("{other:?}"),
    }
}

fn numbers(entries: &[DirEntry]) -> Vec<(&str, InodeId)> {
    entries.iter().map(|entry| (std::str::from_utf8(&entry.name).unwrap(), entry.ino)).collect()
}

/// A cluster with `/shown` and `/beside`, a mount of everything, and one of `/shown`, whose number comes along.
struct World {
    cluster: Arc<Cluster>,
    whole: Mount,
    mount: Mount,
    shown: InodeId,
    beside: InodeId,
}

impl World {
    async fn new(seed: u64) -> Self {
        let cluster = Cluster::new(seed);
        // Asked anew each time: the tests look at both.
        let whole = Mount(cluster.link().mount(ClientConfig { ttl: Duration::ZERO, ..quiet() }));
        let (shown, beside) = (whole.mkdir(ROOT, "shown").await, whole.mkdir(ROOT, "beside").await);
        let config = ClientConfig { root: shown, ..quiet() };
        let mount = Mount(cluster.link().below(shown).mount(config));
        Self { cluster, whole, mount, shown, beside }
    }
}

#[tokio::test]
async fn its_root_is_the_directory() {
    let World { cluster, whole, mount, shown, .. } = World::new(1).await;
    let changes = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    let OpReply::Attr { attr, .. } = mount.ask(Op::SetAttr { ino: ROOT, changes }).await.unwrap() else {
        panic!("no attributes")
    };
    assert_eq!((attr.ino, attr.mode & 0o7777), (ROOT, 0o700));
    assert_eq!(mount.attr(ROOT).await, attr, "also what our own change told");
    let there = whole.attr(shown).await;
    assert_eq!((there.ino, there.mode & 0o7777), (shown, 0o700));
    // Extended attributes are those of the directory, too.
    mount.ask(Op::SetXattr { ino: ROOT, name: b"user.a", value: b"v", flags: 0 }).await.unwrap();
    let value = whole.ask(Op::GetXattr { ino: shown, name: b"user.a" }).await;
    assert!(matches!(value, Ok(OpReply::Bytes(value)) if value == "v"));
    assert!(matches!(mount.ask(Op::StatFs).await, Ok(OpReply::StatFs(_))), "of the whole cluster");
    mount.ask(Op::FsyncDir { ino: ROOT }).await.unwrap();
    assert_eq!(mount.0.rooted().root(), shown);
    cluster.check();
}

#[tokio::test]
async fn names_in_its_root_are_names_in_the_directory() {
    let World { cluster, whole, mount, shown, .. } = World::new(2).await;
    let file = mount.create("f").await;
    mount.write(file, 0, b"text").await.unwrap();
    mount.close(file).await.unwrap();
    let dir = mount.mkdir(ROOT, "d").await;
    let mknod = Op::Mknod { parent: ROOT, name: b"pipe", mode: libc::S_IFIFO | 0o600, rdev: 0 };
    mount.ask(mknod).await.unwrap();
    let symlink = Op::Symlink { parent: ROOT, name: b"link", target: b"f" };
    mount.ask(symlink).await.unwrap();
    for (name, ino) in [("f", file.ino), ("d", dir)] {
        assert_eq!(mount.lookup(ROOT, name).await.unwrap().ino, ino);
        assert_eq!(whole.lookup(shown, name).await.unwrap().ino, ino, "all others keep their numbers");
    }
    // Absence is known without asking of a directory that was made here, and asked of the root.
    for parent in [ROOT, dir] {
        assert_eq!(mount.lookup(parent, "absent").await.unwrap_err(), Errno::ENOENT);
    }
    let (found, _) = whole.open(file.ino, libc::O_RDONLY).await.unwrap();
    assert_eq!(whole.read(found, 0, 9).await.unwrap(), b"text");
    whole.close(found).await.unwrap();

    let rename =
        |parent, name, new_parent, new_name| Op::Rename { parent, name, new_parent, new_name, flags: 0 };
    mount.ask(rename(ROOT, b"f", dir, b"g")).await.unwrap();
    assert_eq!(mount.lookup(ROOT, "f").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(whole.lookup(dir, "g").await.unwrap().ino, file.ino);
    mount.ask(rename(dir, b"g", ROOT, b"h")).await.unwrap();
    assert_eq!(whole.lookup(shown, "h").await.unwrap().ino, file.ino);

    let linked = entry(mount.ask(Op::Link { ino: file.ino, new_parent: ROOT, new_name: b"i" }).await);
    assert_eq!((linked.attr.ino, linked.attr.nlink), (file.ino, 2));
    mount.ask(Op::Unlink { parent: ROOT, name: b"h" }).await.unwrap();
    assert_eq!(mount.attr(file.ino).await.nlink, 1);
    mount.ask(Op::Rmdir { parent: ROOT, name: b"d" }).await.unwrap();
    for name in [b"i".as_slice(), b"pipe", b"link"] {
        mount.ask(Op::Unlink { parent: ROOT, name }).await.unwrap();
    }
    assert_eq!(numbers(&whole.list(shown, false).await).len(), 2, "nothing but the dots");
    settle().await;
    assert_eq!(cluster.blocks(), 0);
    cluster.check();
}

#[tokio::test]
async fn lists_say_numbers_as_the_kernel_knows_them() {
    let World { whole, mount, shown, .. } = World::new(3).await;
    let dir = mount.mkdir(ROOT, "d").await;
    let file = mount.create("f").await;
    let below = mount.mkdir(dir, "e").await;
    for attributes in [false, true] {
        let entries = mount.list(ROOT, attributes).await;
        // In the masters' order, which names do not tell.
        assert_eq!(numbers(&entries)[..2], [(".", ROOT), ("..", ROOT)]);
        let mut names = numbers(&entries)[2..].to_vec();
        names.sort_unstable();
        assert_eq!(names, [("d", dir), ("f", file.ino)]);
        for entry in &entries[2..] {
            assert_eq!(entry.entry.map(|with| with.attr.ino), attributes.then_some(entry.ino));
        }
        assert_eq!(numbers(&mount.list(dir, attributes).await), [(".", dir), ("..", ROOT), ("e", below)]);
        assert_eq!(numbers(&mount.list(below, attributes).await), [(".", below), ("..", dir)]);
    }
    let above = whole.list(shown, false).await;
    assert_eq!(numbers(&above)[..2], [(".", shown), ("..", ROOT)], "the whole tree's root is another one");
}

#[tokio::test]
async fn what_is_outside_is_refused() {
    let World { whole, mount, shown, beside, .. } = World::new(4).await;
    let outside = whole.create("outside").await;
    let inside = mount.create("f").await;
    assert_eq!(mount.lookup(ROOT, "shown").await.unwrap_err(), Errno::ENOENT);
    let denied = |reply: OpResult| assert_eq!(reply.unwrap_err(), Errno::EACCES);
    denied(mount.ask(Op::Lookup { parent: beside, name: b"x" }).await);
    denied(mount.ask(Op::GetAttr { ino: outside.ino, handle: None }).await);
    denied(mount.ask(Op::Open { ino: outside.ino, flags: libc::O_RDONLY }).await);
    denied(mount.ask(Op::Link { ino: outside.ino, new_parent: ROOT, new_name: b"mine" }).await);
    let rename = |new_parent| Op::Rename { parent: ROOT, name: b"f", new_parent, new_name: b"x", flags: 0 };
    denied(mount.ask(rename(beside)).await);

    // Somebody else moves the file away while it is open.
    mount.write(inside, 0, b"text").await.unwrap();
    let away = Op::Rename { parent: shown, name: b"f", new_parent: beside, new_name: b"f", flags: 0 };
    whole.ask(away).await.unwrap();
    denied(mount.fsync(inside).await);
    assert!(mount.close(inside).await.is_ok(), "told once");
}

/// Somebody who may do more, too, is told of nothing above.
#[tokio::test]
async fn a_root_that_is_moved_below_itself_has_itself_as_its_parent() {
    let World { cluster, whole, shown, .. } = World::new(5).await;
    let mount = Mount(cluster.link().mount(ClientConfig { root: shown, ttl: Duration::ZERO, ..quiet() }));
    let dir = mount.mkdir(ROOT, "d").await;
    let rename =
        |parent, name, new_parent, new_name| Op::Rename { parent, name, new_parent, new_name, flags: 0 };
    whole.ask(rename(shown, b"d", ROOT, b"d")).await.unwrap();
    whole.ask(rename(ROOT, b"shown", dir, b"shown")).await.unwrap();
    // The kernel takes no entry that is the root.
    assert_eq!(numbers(&mount.list(dir, true).await)[2], ("shown", ROOT));
    assert_eq!(numbers(&mount.list(ROOT, true).await)[..2], [(".", ROOT), ("..", ROOT)]);
}

#[tokio::test]
async fn an_open_file_without_a_name_is_held_there_too() {
    let World { cluster, mount, .. } = World::new(6).await;
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 5000]).await.unwrap();
    mount.ask(Op::Unlink { parent: ROOT, name: b"f" }).await.unwrap();
    mount.fsync(file).await.unwrap();
    assert_eq!((mount.attr(file.ino).await.ino, mount.attr(file.ino).await.nlink), (file.ino, 0));
    assert_eq!(mount.read(file, 0, 10).await.unwrap(), [1; 10]);
    mount.close(file).await.unwrap();
    settle().await;
    assert_eq!(cluster.blocks(), 0);
    cluster.check();
}
