//! A cluster with two directories, each with files in it; whoever is to see one of them must not see the other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File, Permissions};
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use coord_types::{ChunkKey, Epoch, InodeId};
use deploy_e2e::Content;
use deploy_local_cluster::{Cluster, Options, Role};
use kuafu::{Code, Status};
use master_api::model::Attr;
use master_api::{ClientConfig, MasterClient};
use tokio::runtime::{Builder, Handle, Runtime};
use zhongkui_access::Access;

use crate::audit::{AuditLog, By};
use crate::people::Person;
use crate::wire::{Namespace, Wire};

pub(crate) const MASTER: Role = Role::Master(1);
/// Whose the directories and files are.
pub(crate) const OWNER: u32 = 1234;
/// Bytes of each file.
pub(crate) const LEN: usize = 100_000;
/// A server writes down 200 lines a second and counts the rest: checks come slower.
const PACE: Duration = Duration::from_millis(8);

/// A file, and where its first chunk is.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) ino: InodeId,
    pub(crate) attr: Attr,
    pub(crate) chunk: ChunkKey,
    pub(crate) epoch: Epoch,
}

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    /// The administrator's mount.
    pub(crate) root: PathBuf,
    pub(crate) admin: Access,
    pub(crate) a: InodeId,
    pub(crate) b: InodeId,
    audits: RefCell<BTreeMap<Role, AuditLog>>,
    /// What was not refused, or not written down.
    open: RefCell<Vec<String>>,
    // After all that uses it.
    runtime: Runtime,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::of(Options::new(1, 3))
    }

    /// Permissions let everybody do everything, so that nothing but capabilities refuses.
    pub(crate) fn of(options: Options) -> Self {
        let mut cluster = options.start().unwrap();
        let root = cluster.mount().unwrap();
        for (seed, name) in [(1, "a"), (2, "b")] {
            let folder = root.join(name);
            fs::create_dir_all(folder.join("sub")).unwrap();
            for path in [&folder, &folder.join("sub")] {
                open_to_all(path, 0o777);
            }
            write(&folder.join(format!("in-{name}")), seed);
            write(&folder.join("sub/deep"), seed + 10);
        }
        let number = |name: &str| InodeId(fs::metadata(root.join(name)).unwrap().ino());
        let (a, b) = (number("a"), number("b"));
        let logs = cluster.servers().into_iter().map(|role| (role, AuditLog::of(cluster.data_of(role))));
        Self {
            audits: RefCell::new(logs.collect()),
            admin: cluster.access().unwrap(),
            runtime: Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
            open: RefCell::default(),
            cluster,
            root,
            a,
            b,
        }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn address(&self, role: Role) -> String {
        self.cluster.address_of(role).unwrap()
    }

    pub(crate) fn chunkservers(&self) -> impl Iterator<Item = Role> {
        (1..=3).map(Role::Chunkserver)
    }

    /// A new connection of somebody to a server.
    pub(crate) fn wire(&self, access: &Access, role: Role) -> Wire {
        Wire::new(self.runtime(), &self.address(role), access.credentials())
    }

    /// The same to the master, with a session.
    pub(crate) fn namespace(&self, person: &Person) -> Namespace {
        self.run(Namespace::open(&self.wire(&person.access, MASTER)))
    }

    pub(crate) fn master_client(&self, access: &Access) -> MasterClient {
        let masters = vec![self.address(MASTER).parse().unwrap()];
        let mut config = ClientConfig::new(masters, "access");
        config.transport = access.transport();
        let _runtime = self.runtime.enter();
        MasterClient::new(config).unwrap()
    }

    /// A file as the administrator knows it.
    pub(crate) fn known(&self, path: &str) -> Known {
        let ino = InodeId(fs::metadata(self.root.join(path)).unwrap().ino());
        let client = self.master_client(&self.admin);
        self.run(async {
            client.ready().await.unwrap();
            let attr = client.get_attr(ino).await.unwrap();
            let table = client.refresh_table(0, None).await.unwrap();
            let chunk = attr.layout.as_ref().unwrap().chunk_at(attr.data, 0);
            let epoch = table.group(chunk.group).unwrap().epoch;
            Known { ino, attr, chunk, epoch }
        })
    }

    /// Something must be refused, and the server must have written it down.
    pub(crate) fn refused<T: Debug>(
        &self,
        at: Role,
        by: &By,
        what: &str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Option<Status> {
        self.check(at, by, what, || match self.run(call) {
            Err(status) if status.code == Code::PermissionDenied => Ok(status),
            other => Err(format!("{other:?}")),
        })
    }

    /// The same of whatever a server refuses in other ways: `call` says how it was, or `Err` what was not refused.
    pub(crate) fn check<T>(
        &self,
        at: Role,
        by: &By,
        what: &str,
        call: impl FnOnce() -> Result<T, String>,
    ) -> Option<T> {
        thread::sleep(PACE);
        self.news(at);
        let outcome = call();
        let news = self.news(at);
        let result = match outcome {
            Ok(refusal) => Some(refusal),
            Err(outcome) => {
                self.note(format!("{what}: not refused by {at}: {}", shorten(&outcome)));
                return None;
            }
        };
        if !news.iter().any(|line| by.is_refused_in(line)) {
            self.note(format!("{what}: refused by {at}, and its audit log says nothing of {by:?}: {news:?}"));
        }
        result
    }

    /// What a server wrote down since the last look.
    pub(crate) fn news(&self, at: Role) -> Vec<serde_json::Value> {
        self.audits.borrow_mut().get_mut(&at).unwrap().news()
    }

    /// Something is open that must not be.
    pub(crate) fn note(&self, what: String) {
        eprintln!("OPEN: {what}");
        self.open.borrow_mut().push(what);
    }

    pub(crate) fn holds(&self, what: &str, holds: bool) {
        if !holds {
            self.note(format!("{what} does not hold"));
        }
    }

    /// Everything in b is as it was made.
    pub(crate) fn b_is_untouched(&self) {
        let names = |path: &Path| {
            let entries = fs::read_dir(path).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let b = self.root.join("b");
        self.holds("b has the names it had", names(&b) == ["in-b", "sub"]);
        self.holds("b/sub has the names it had", names(&b.join("sub")) == ["deep"]);
        for (path, seed) in [("in-b", 2), ("sub/deep", 12)] {
            let found = fs::read(b.join(path)).unwrap();
            self.holds(&format!("b/{path} has the content it had"), found == Content::new(seed).bytes(LEN));
            let meta = fs::metadata(b.join(path)).unwrap();
            let found = (meta.mode() & 0o7777, meta.uid(), meta.nlink());
            self.holds(&format!("b/{path} has the attributes it had"), found == (0o666, OWNER, 1));
        }
        let known = self.known("b/in-b");
        let bare = !known.attr.has_xattrs && known.attr.fence == coord_types::Fence::NONE;
        self.holds("b/in-b has no attribute and no fence", bare);
    }

    /// Ends everything; fails if anything was open.
    pub(crate) fn finish(self) {
        let open = self.open.take();
        let Self { cluster, runtime, .. } = self;
        runtime.shutdown_timeout(Duration::from_secs(5));
        assert!(open.is_empty(), "{} times something was open:\n{}", open.len(), open.join("\n"));
        cluster.finish().unwrap();
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}

/// A file of everybody, durable.
pub(crate) fn write(path: &Path, seed: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(&Content::new(seed).bytes(LEN)).unwrap();
    file.sync_all().unwrap();
    open_to_all(path, 0o666);
}

fn open_to_all(path: &Path, mode: u32) {
    chown(path, Some(OWNER), Some(OWNER)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
