//! How long a command takes, and how many there are in a second, beside what the disk can do.
//!
//! `cargo bench -p coord-raft [-- SECONDS]`. Each member runs on a thread of its own with a current-thread runtime,
//! as the servers do; data lies under $TMPDIR, commands are proposed on the leader. The last column is the
//! rate of commands beside the rate of bare 4 KiB overwrites with RWF_DSYNC on the same file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use coord_raft::testing::Ledger;
use coord_raft::{Leadership, Proposal, RaftConfig, RaftNode};
use kuafu::{Address, CancellationToken, Server};

type Node = RaftNode;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(3);
    let run = Duration::from_secs(seconds);
    let dir = std::env::temp_dir().join(format!("raft-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let raw = raw_syncs(&dir, run.min(Duration::from_secs(2)));
    println!("raw 4 KiB overwrite, RWF_DSYNC: p50 {:?}, {:.0}/s", raw.p50, raw.rate);
    println!(
        "{:>7} {:>10} {:>10} {:>10} {:>10} {:>9}",
        "members", "in flight", "p50", "p99", "ops/s", "of raw"
    );
    for members in [1, 3] {
        let cluster = Cluster::start(members, dir.join(members.to_string()));
        for in_flight in [1, 64, 512] {
            let result = cluster.run(in_flight, run);
            println!(
                "{members:>7} {in_flight:>10} {:>10.1?} {:>10.1?} {:>10.0} {:>8.2}x",
                result.p50,
                result.p99,
                result.rate,
                result.rate / raw.rate
            );
        }
        println!("{members:>7} read barrier by lease: {:?}", cluster.barrier());
        cluster.stop();
    }
    std::fs::remove_dir_all(&dir).expect("nobody else uses the directory");
}

struct Measured {
    p50: Duration,
    p99: Duration,
    rate: f64,
}

fn measured(mut latencies: Vec<Duration>, elapsed: Duration) -> Measured {
    latencies.sort_unstable();
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
    Measured { p50: at(50), p99: at(99), rate: latencies.len() as f64 / elapsed.as_secs_f64() }
}

fn raw_syncs(dir: &Path, run: Duration) -> Measured {
    let file = File::create(dir.join("raw")).expect("the directory is writable");
    let block = vec![7_u8; 4096];
    for i in 0..2048 {
        file.write_all_at(&block, i * 4096).expect("there is room");
    }
    file.sync_all().expect("the disk works");
    let iovec = libc::iovec { iov_base: block.as_ptr().cast_mut().cast(), iov_len: block.len() };
    let start = Instant::now();
    let mut latencies = Vec::new();
    while start.elapsed() < run {
        let offset = i64::try_from(latencies.len() % 2048 * 4096).expect("within 8 MiB");
        let before = Instant::now();
        // SAFETY: the descriptor is open; the one iovec describes `block`, which outlives the call.
        let written =
            unsafe { libc::pwritev2(file.as_raw_fd(), &raw const iovec, 1, offset, libc::RWF_DSYNC) };
        assert_eq!(written, 4096);
        latencies.push(before.elapsed());
    }
    measured(latencies, start.elapsed())
}

/// A member on its thread.
struct Member {
    node: Node,
    runtime: tokio::runtime::Handle,
    shutdown: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    fn start(count: u64, dir: PathBuf) -> Self {
        let address = |id: u64| Address::Unix(dir.join(format!("{id}.sock")));
        std::fs::create_dir_all(&dir).expect("the directory is writable");
        let members: Vec<Member> = (1..=count).map(|id| launch(id, address(id), &dir)).collect();
        let addresses: BTreeMap<u64, String> = (1..=count).map(|id| (id, address(id).to_string())).collect();
        let first = members[0].node.clone();
        let formed = members[0].runtime.spawn(async move { first.initialize(addresses).await });
        futures::executor::block_on(formed).expect("no panic").expect("the members are fresh");
        Self { members }
    }

    fn leader(&self) -> &Member {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let leads = |member: &&Member| matches!(member.node.leadership(), Leadership::Leader { .. });
            match self.members.iter().find(leads) {
                Some(leader) => return leader,
                None => assert!(Instant::now() < deadline, "nobody leads"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn run(&self, in_flight: usize, run: Duration) -> Measured {
        let leader = self.leader();
        let node = leader.node.clone();
        let job = leader.runtime.spawn(async move {
            let start = Instant::now();
            let workers = (0..in_flight).map(|_| {
                let node = node.clone();
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while start.elapsed() < run {
                        let mut command = Ledger::add("x", 1).to_vec();
                        command.resize(128, b'x');
                        let before = Instant::now();
                        let proposal = Proposal { stamp: None, command: command.into() };
                        let deadline = before + Duration::from_secs(10);
                        node.propose(proposal, deadline).await.expect("the leader stays");
                        latencies.push(before.elapsed());
                    }
                    latencies
                })
            });
            let all = futures::future::join_all(workers).await;
            let latencies = all.into_iter().flat_map(|worker| worker.expect("no panic")).collect();
            measured(latencies, start.elapsed())
        });
        futures::executor::block_on(job).expect("no panic")
    }

    fn barrier(&self) -> Duration {
        let leader = self.leader();
        let node = leader.node.clone();
        let job = leader.runtime.spawn(async move {
            let start = Instant::now();
            for _ in 0..10_000 {
                node.read_barrier(start + Duration::from_secs(60)).await.expect("the leader stays");
            }
            start.elapsed() / 10_000
        });
        futures::executor::block_on(job).expect("no panic")
    }

    fn stop(self) {
        for member in self.members {
            let node = member.node.clone();
            futures::executor::block_on(member.runtime.spawn(async move { node.shutdown().await }))
                .expect("no panic");
            member.shutdown.cancel();
            member.thread.join().expect("no panic");
        }
    }
}

fn launch(id: u64, address: Address, dir: &Path) -> Member {
    let config = RaftConfig::new(id, address.to_string(), dir.join(id.to_string()));
    let shutdown = CancellationToken::new();
    let (send, receive) = mpsc::sync_channel(1);
    let until = shutdown.clone();
    let body = move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        runtime.block_on(async {
            let node = RaftNode::open(config, Ledger).await.expect("the member opens");
            let server = Server::builder().service(node.service()).build();
            let bound = server.bind(&address).await.expect("the socket is free");
            send.send((node, tokio::runtime::Handle::current())).expect("the starter waits");
            bound.serve(until).await;
        });
    };
    let thread =
        std::thread::Builder::new().name(format!("member-{id}")).spawn(body).expect("a thread starts");
    let (node, runtime) = receive.recv().expect("the member started");
    Member { node, runtime, shutdown, thread }
}
