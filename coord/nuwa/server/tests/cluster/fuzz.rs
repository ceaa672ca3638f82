//! Random, absurd and mutated requests to a member that serves: it answers each, none with INTERNAL, refused ones change nothing, and it serves
//! on. From a seed, so that a failure comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use kuafu::{CallOptions, Client, Code, Method, Status};
use nuwa_api::client::Freshness;
use nuwa_api::ops;
use nuwa_api::proto::{self, Command, Reply, command, read_request, reply};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, skip_field};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::AsyncWriteExt as _;

use crate::fixture::{Cluster, soon, transport};

const REQUESTS: usize = 4000;
/// Of one request. Some wait for what never comes.
const TIMEOUT: Duration = Duration::from_millis(100);

/// Any bytes, as a message.
#[derive(Debug, Default)]
struct Raw(Bytes);

impl Message for Raw {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What people send, and what nobody would.
struct Random(StdRng);

impl Random {
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_range(0..n) == 0
    }

    fn number(&mut self) -> u64 {
        match self.0.random_range(0..8) {
            0 => u64::MAX,
            1 => 1 << 63,
            2 => u64::MAX - 1,
            3 => self.0.random(),
            _ => self.0.random_range(0..5),
        }
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.number() & u64::from(u32::MAX)).unwrap()
    }

    fn path(&mut self) -> String {
        match self.0.random_range(0..12) {
            0 => String::new(),
            1 => "/".to_owned(),
            2 => "//".to_owned(),
            3 => "/a".repeat(self.0.random_range(0..3000)),
            4 => format!("/{}", "n".repeat(self.0.random_range(0..300))),
            5 => "/a\0/../b".to_owned(),
            6 => "..".to_owned(),
            7 => "/\u{fffd}\u{10ffff}/".to_owned(),
            _ => {
                let mut path = String::new();
                for _ in 0..self.0.random_range(1..4) {
                    path += ["/a", "/b", "/c"].choose(&mut self.0).unwrap();
                }
                if self.one_in(3) { path + "/" } else { path }
            }
        }
    }

    fn value(&mut self) -> Bytes {
        let len = match self.0.random_range(0..50) {
            0 => (1 << 20) + self.0.random_range(0..3) - 1,
            1 => 200_000,
            _ => self.0.random_range(0..20),
        };
        vec![7; len].into()
    }

    fn operation(&mut self) -> proto::Operation {
        let (owned, sequential, with_parents) = self.0.random();
        match self.0.random_range(0..8) {
            0 => proto::Operation::default(),
            1 => ops::make_directory(self.path()).into(),
            2 => proto::Delete { subtree: owned, ..ops::delete(self.path()) }.into(),
            3 => ops::rename(self.path(), self.path()).into(),
            4 => ops::get(self.path()).into(),
            _ => {
                let existence = self.0.random_range(-1..5);
                let put = ops::put(self.path(), self.value());
                proto::Put { owned, sequential, with_parents, existence, ..put }.into()
            }
        }
    }

    fn operations(&mut self) -> Vec<proto::Operation> {
        // Huge lists of small things, too.
        let many = if self.one_in(100) { 5000 } else { self.0.random_range(0..4) };
        let first = self.operation();
        if many > 4 && first.encoded_len() < 100 {
            return vec![first; many];
        }
        (0..many.min(4)).map(|_| self.operation()).collect()
    }

    fn restore(&mut self) -> command::What {
        let header = proto::SnapshotHeader {
            revision: self.number(),
            next_session: self.number(),
            ..proto::SnapshotHeader::default()
        };
        let record = proto::SnapshotRecord {
            path: self.path(),
            value: self.value(),
            version: self.number(),
            created: self.number(),
            modified: self.number(),
            ..proto::SnapshotRecord::default()
        };
        let records = Some(proto::SnapshotRecords { records: vec![record] });
        let step = match self.0.random_range(0..6) {
            0 => None,
            1 => Some(proto::restore::Step::Abandon(proto::RestoreAbandon {})),
            2 => Some(proto::restore::Step::Finish(proto::RestoreFinish { records: self.number() })),
            3 => Some(proto::restore::Step::Block(proto::RestoreBlock { number: self.number(), records })),
            _ => {
                let header = Some(header).filter(|_| self.one_in(2));
                let revision_bump = self.number();
                Some(proto::restore::Step::Begin(proto::RestoreBegin { header, revision_bump }))
            }
        };
        command::What::Restore(proto::Restore { restore: self.number(), step })
    }

    fn change(&mut self) -> proto::ChangeRequest {
        let session = self.number();
        let what = match self.0.random_range(0..12) {
            0 => None,
            1 => Some(command::What::OpenSession(proto::OpenSession {
                // None ends by itself meanwhile.
                ttl_ms: if self.one_in(2) { 600_000 } else { self.small() | 1 << 20 },
                description: "x".repeat(self.0.random_range(0..300)),
                owner: String::new(),
            })),
            2 => Some(command::What::EndSession(proto::EndSession { session })),
            3 => Some(command::What::Lock(proto::Lock {
                session,
                path: self.path(),
                owner: self.number(),
                shared: self.0.random(),
                wait: self.0.random(),
                with_file: self.0.random(),
                value: Some(self.value()).filter(|value| value.len() < 2000),
            })),
            4 => Some(command::What::Unlock(proto::Unlock {
                session,
                path: self.path(),
                owner: self.number(),
            })),
            5 => Some(command::What::SetQuota(proto::SetQuota {
                path: self.path(),
                entries_max: self.number(),
                bytes_max: self.number(),
            })),
            6 => Some(command::What::SetHistory(proto::SetHistory {
                events_max: self.number(),
                bytes_max: self.number(),
            })),
            7 => Some(self.restore()),
            _ => {
                let compare = proto::Compare {
                    path: self.path(),
                    relation: self.0.random_range(-1..6),
                    with: Some(proto::compare::With::Version(self.number())).filter(|_| !self.one_in(3)),
                };
                let compares = if self.one_in(2) { vec![compare] } else { Vec::new() };
                let (then, otherwise) = (self.operations(), self.operations());
                Some(command::What::Txn(proto::Txn { session, compares, then, otherwise }))
            }
        };
        let stamp = proto::Stamp { session, sequence: self.number(), acknowledged_below: self.number() };
        let command = Some(Command { what }).filter(|_| !self.one_in(20));
        proto::ChangeRequest { stamp: Some(stamp).filter(|_| self.one_in(3)), command }
    }

    fn read(&mut self) -> proto::ReadRequest {
        let path = self.path();
        let what = match self.0.random_range(0..8) {
            0 => None,
            1 => Some(read_request::What::Get(proto::Get { path })),
            2 => Some(read_request::What::Lock(proto::GetLock { path })),
            3 => Some(read_request::What::Session(proto::GetSession { session: self.number() })),
            4 => Some(read_request::What::Quota(proto::GetQuota { path })),
            5 => Some(read_request::What::Summary(proto::GetSummary {})),
            _ => Some(read_request::What::List(proto::List {
                path,
                after: self.path(),
                entries_max: self.small(),
                with_values: self.0.random(),
            })),
        };
        let at_least = if self.one_in(20) { self.number() } else { 0 };
        proto::ReadRequest { stale: self.0.random(), at_least, what }
    }

    /// A method and a message for it.
    fn request(&mut self) -> (&'static Method, Vec<u8>) {
        let [change, read, watch, renew] = &proto::NUWA_METHODS;
        let [status, add, remove, export] = &proto::NUWA_ADMIN_METHODS;
        match self.0.random_range(0..24) {
            0..10 => (change, self.change().encode_to_vec()),
            10..17 => (read, self.read().encode_to_vec()),
            17 | 18 => {
                let request = proto::WatchRequest {
                    path: self.path(),
                    from_revision: self.number(),
                    from_number: self.small(),
                    wait_ms: self.0.random_range(0..30),
                    events_max: self.small(),
                };
                (watch, request.encode_to_vec())
            }
            19 => (renew, proto::RenewRequest { session: self.number() }.encode_to_vec()),
            20 => (status, Vec::new()),
            21 => {
                let address = ["unix:///nowhere.sock", "tcp://", "", "nuwa://x/y", "tcp://[::1]:99999"];
                let address = (*address.choose(&mut self.0).unwrap()).to_owned();
                (add, proto::AddMemberRequest { address }.encode_to_vec())
            }
            22 => (remove, proto::RemoveMemberRequest { id: self.number() }.encode_to_vec()),
            _ => {
                let request = proto::ExportRequest {
                    export: self.number(),
                    at_least: if self.one_in(4) { self.number() } else { 0 },
                    after: if self.one_in(2) { self.path() } else { String::new() },
                    end: self.one_in(2),
                };
                (export, request.encode_to_vec())
            }
        }
    }

    fn mutated(&mut self, mut message: Vec<u8>) -> Vec<u8> {
        if self.one_in(30) {
            message = vec![0; self.0.random_range(0..200)];
            self.0.fill_bytes(&mut message);
        }
        for _ in 0..self.0.random_range(1..4) {
            if message.is_empty() {
                break;
            }
            let at = self.0.random_range(0..message.len());
            match self.0.random_range(0..3) {
                0 => message[at] = self.0.random(),
                1 => message.truncate(at),
                _ => message.insert(at, self.0.random()),
            }
        }
        message
    }
}

/// What is wrong with an answer, if anything.
fn wrong(method: &Method, answer: &Result<(), Status>) -> Option<String> {
    match answer {
        Ok(()) => None,
        Err(status) if status.message.is_empty() => {
            Some(format!("{}: {:?} says nothing", method.name, status.code))
        }
        Err(status) => match status.code {
            Code::InvalidArgument
            | Code::NotFound
            | Code::DeadlineExceeded
            | Code::Unavailable
            | Code::Busy
            | Code::Full => None,
            _ => Some(format!("{}: {status}", method.name)),
        },
    }
}

async fn fuzz(seed: u64, are_mutated: bool) {
    let panics = Arc::new(AtomicUsize::new(0));
    let (counted, told) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::SeqCst);
        told(panic);
    }));
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    session.put("/kept", "kept", soon()).await.unwrap();
    let client = Client::new(cluster.address(1), transport());
    let mut random = Random(StdRng::seed_from_u64(seed));
    let options = CallOptions::within(TIMEOUT);
    let (mut refusals, mut done) = (0, 0);
    for n in 0..REQUESTS {
        let (method, message) = random.request();
        let message = if are_mutated && random.one_in(2) { random.mutated(message) } else { message };
        let before = session.client().newest();
        let began = Instant::now();
        let context = || format!("seed {seed}, request {n}: {} {message:02x?}", method.name);
        let raw = Raw(message.clone().into());
        let answer = if method.name == "Change" {
            let reply = client.call::<Raw, Reply>(method, &raw, Bytes::new(), &options).await;
            let reply = reply.map(|reply| reply.message);
            if let Ok(Reply { revision, what: Some(reply::What::Refused(refused)) }) = &reply {
                refusals += 1;
                assert!(!refused.message.is_empty(), "{}", context());
                // A session that a mutated request opened may just have ended.
                assert!(are_mutated || *revision == before, "a refused one changes nothing: {}", context());
            }
            reply.map(drop)
        } else {
            client.call::<Raw, Raw>(method, &raw, Bytes::new(), &options).await.map(drop)
        };
        done += usize::from(answer.is_ok());
        if let Some(wrong) = wrong(method, &answer) {
            panic!("{wrong}; {}", context());
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it hangs: {}", context());
        // It serves on; and what the client has seen last is the newest before the next request.
        let summary = read_request::What::Summary(proto::GetSummary {});
        session.client().read(summary, Freshness::Linearizable, soon()).await.unwrap();
        assert_eq!(panics.load(Ordering::SeqCst), 0, "{}", context());
    }
    assert!(refusals > REQUESTS / 50 && done > REQUESTS / 10, "{refusals} refused, {done} answered");
    // None of it reached what is nobody's business.
    let kept = session.client().get("/kept", Freshness::Linearizable, soon()).await.unwrap().unwrap();
    assert_eq!((kept.value.as_ref(), kept.version, kept.owner), (&b"kept"[..], 1, 0));
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test]
async fn absurd_requests_are_answered() {
    fuzz(1, false).await;
}

#[tokio::test]
async fn mutated_requests_are_answered() {
    fuzz(2, true).await;
}

/// Whatever comes instead of frames is dropped with its connection; others go on.
#[tokio::test]
async fn bytes_that_are_no_frames_cost_only_their_connection() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    let kuafu::Address::Unix(path) = cluster.address(1) else { panic!("members listen on Unix sockets") };
    let mut random = StdRng::seed_from_u64(3);
    for n in 0..100 {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let mut bytes = vec![0; random.random_range(1..5000)];
        random.fill_bytes(&mut bytes);
        if n % 2 == 0 {
            bytes.splice(..bytes.len().min(4), *b"KUAF");
        }
        // The server may have closed it already.
        let _ = stream.write_all(&bytes).await;
        session.put("/n", n.to_string(), soon()).await.unwrap();
    }
    cluster.shutdown().await;
}
