//! Helpers of tests: a member that leads, alone, and a tree in memory that knows how much of it was read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coord_kv::{Durability, Family, Kv as _, MemKv, Pair, Range, Read};
use nuwa_api::proto::{Command, OpenSession, Operation, Reply, Txn, command, reply};
use prost::Message as _;
use tempfile::TempDir;
use zhongkui_access::Access;

use crate::{Config, NuwaServer};

/// Longer than anything here may take on a busy machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// The only member of its cluster.
pub(crate) struct Single {
    pub(crate) server: NuwaServer,
    _dir: TempDir,
}

impl Single {
    /// It leads when this returns, and keeps leases.
    pub(crate) async fn start() -> Self {
        Self::start_as(Access::process()).await
    }

    /// The same with keys, and knowledge of what was taken back, of its own.
    pub(crate) async fn start_as(access: Access) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = kuafu::Address::Unix(dir.path().join("1.sock"));
        let mut config = Config::new(1, [(1, address)].into(), dir.path().join("data"));
        config.access = access;
        let server = NuwaServer::start(config).await.unwrap();
        let (single, end) = (Self { server, _dir: dir }, soon());
        while single.server.app().leases.len() == 0 {
            assert!(Instant::now() < end, "it does not lead");
            let what = command::What::OpenSession(OpenSession { ttl_ms: 600_000, ..OpenSession::default() });
            if single.propose(what).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        single
    }

    async fn propose(&self, what: command::What) -> Option<Reply> {
        let command = Command { what: Some(what) }.encode_to_vec().into();
        self.server.app().propose(None, command, soon()).await.ok()
    }

    /// Its number.
    pub(crate) async fn open_session(&self, ttl: Duration) -> u64 {
        let ttl_ms = u32::try_from(ttl.as_millis()).unwrap();
        let open = OpenSession { ttl_ms, ..OpenSession::default() };
        match self.propose(command::What::OpenSession(open)).await.unwrap().what {
            Some(reply::What::Session(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Gives the revision of it.
    pub(crate) async fn put(&self, path: &str) -> u64 {
        self.txn(vec![nuwa_api::ops::put(path, "x").into()]).await
    }

    /// The same of some operations.
    pub(crate) async fn txn(&self, then: Vec<Operation>) -> u64 {
        self.propose(command::What::Txn(Txn { then, ..Txn::default() })).await.unwrap().revision
    }
}

#[derive(Default)]
/// See the module.
pub(crate) struct Counted {
    kv: MemKv,
    bytes: AtomicUsize,
}

impl Counted {
    /// `/d/` with so many files, whose names are numbers, each with a value of so many bytes.
    pub(crate) fn with_files(files: usize, value_bytes: usize) -> Self {
        let tree = Self::default();
        for file in 0..files {
            let put = nuwa_api::ops::put(format!("/d/{file:04}"), vec![b'x'; value_bytes]);
            let put = nuwa_api::proto::Put { with_parents: true, ..put };
            let what = command::What::Txn(Txn { then: vec![put.into()], ..Txn::default() });
            let command = Command { what: Some(what) }.encode_to_vec();
            let applied = nuwa_core::apply(&tree.kv, 1, &command).unwrap();
            tree.kv.write(applied.batch, Durability::Synced).unwrap();
        }
        tree
    }

    /// Bytes of the values that were read since this was asked before.
    pub(crate) fn take_bytes(&self) -> usize {
        self.bytes.swap(0, Ordering::Relaxed)
    }
}

impl Read for Counted {
    fn get(&self, family: Family, key: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        self.kv.get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<Pair>> {
        let pairs = self.kv.scan(family, range, limit)?;
        self.bytes.fetch_add(pairs.iter().map(|(_, value)| value.len()).sum(), Ordering::Relaxed);
        Ok(pairs)
    }
}
