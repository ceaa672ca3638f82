//! How long a master that is killed with many files takes until it serves again.
//!
//! `cargo bench -p master-server --bench restart [-- FILES]`, a million unless told otherwise. Files are made as mounts make them, by
//! commands of a client, a thousand a directory; the master is a process of its own and is ended with SIGKILL in the middle of that
//! work, so that a restart has all to apply that was not written out yet. It serves when it answers for the last file. Data lies under $TMPDIR.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coord_types::InodeId;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kuafu::{Address, CallOptions, Client};
use master_api::model::{Create, Mkdir, Mutation, Name};
use master_api::proto::{self, ClusterClient};
use master_api::{ClientConfig, ClientError, MasterClient};

const FILES: u32 = 1_000_000;
const FILES_PER_DIRECTORY: u32 = 1_000;
/// As many as a busy mount has under way.
const IN_FLIGHT: usize = 512;
const RESTARTS: u32 = 3;
/// A restart that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let files = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(FILES);
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(dir.path(), files));
}

/// A master in a process of its own, and what it keeps.
struct Master<'a> {
    dir: &'a Path,
    address: Address,
    process: Child,
}

impl<'a> Master<'a> {
    fn start(dir: &'a Path) -> Self {
        // Below the range from which the kernel takes ports: nobody else sits there while the master is down.
        let free = (20_000..30_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let address = format!("tcp://127.0.0.1:{}", free.expect("a free port"));
        let text = format!("name = \"bench\"\nmasters = [\"{address}\"]\n");
        std::fs::write(dir.join("cluster.toml"), text).expect("the directory is writable");
        let address = address.parse().expect("an address");
        Self { dir, address, process: spawn(dir) }
    }

    fn restart(&mut self) {
        self.process.kill().expect("our own child");
        self.process.wait().expect("our own child");
        self.process = spawn(self.dir);
    }

    fn client(&self) -> MasterClient {
        MasterClient::new(ClientConfig::new(vec![self.address.clone()], "bench")).expect("one master")
    }
}

impl Drop for Master<'_> {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    Command::new(env!("CARGO_BIN_EXE_pangu-master"))
        .args(["--id", "1", "--data"])
        .arg(dir.join("data"))
        .arg("--cluster")
        .arg(dir.join("cluster.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second descriptor"))
        .stderr(log)
        .spawn()
        .expect("pangu-master starts")
}

async fn run(dir: &Path, files: u32) {
    let mut master = Master::start(dir);
    register(&master.address).await;
    let client = master.client();
    let began = Instant::now();
    let mut last = (InodeId::ROOT, Name::try_from(&b"d0"[..]).expect("a name"));
    for directory in 0..files.div_ceil(FILES_PER_DIRECTORY) {
        let count = FILES_PER_DIRECTORY.min(files - directory * FILES_PER_DIRECTORY);
        let parent = mkdir(&client, &format!("d{directory}")).await;
        fill(&client, parent, count).await.expect("files are made");
        last = (parent, name(&format!("f{}", count - 1)));
    }
    let took = began.elapsed();
    println!(
        "{files} files made in {:.1} s, {:.0}/s",
        took.as_secs_f64(),
        f64::from(files) / took.as_secs_f64()
    );
    println!("on disk: {} MiB", size(&dir.join("data")) >> 20);
    for round in 1..=RESTARTS {
        // The last round has had time to write everything out; the ones before are killed at work.
        if round < RESTARTS {
            let parent = mkdir(&client, &format!("more{round}")).await;
            fill(&client, parent, 20 * FILES_PER_DIRECTORY).await.expect("files are made");
        } else {
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        let began = Instant::now();
        master.restart();
        let fresh = master.client();
        let found = tokio::time::timeout(PATIENCE, fresh.lookup(last.0, last.1.clone())).await;
        found.expect("it serves in time").expect("the last file is there");
        let when = if round < RESTARTS { "at work" } else { "at rest" };
        println!("killed {when}: serves after {:.2} s", began.elapsed().as_secs_f64());
    }
}

async fn mkdir(client: &MasterClient, text: &str) -> InodeId {
    let op = Mkdir { parent: InodeId::ROOT, name: name(text), mode: 0o755, uid: 0, gid: 0 };
    let made = client.mutate(Mutation::Mkdir(op)).await.expect("a directory is made");
    made.attr.expect("it has attributes").ino
}

async fn fill(client: &MasterClient, parent: InodeId, count: u32) -> Result<(), ClientError> {
    let create = |n: u32| {
        let op =
            Create { parent, name: name(&format!("f{n}")), mode: 0o644, uid: 0, gid: 0, exclusive: true };
        client.mutate(Mutation::Create(op))
    };
    stream::iter(0..count).map(create).buffer_unordered(IN_FLIGHT).map_ok(drop).try_collect().await
}

/// Three chunkservers in three racks, which are nowhere: files need groups, and no data is written.
async fn register(address: &Address) {
    let master =
        ClusterClient::new(Client::new(address.clone(), zhongkui_access::Access::process().transport()));
    for number in 1..=3_u8 {
        let uuid = bytes::Bytes::from(vec![number; 16]);
        let disk = proto::Disk { uuid: uuid.clone(), capacity_bytes: 1 << 40, ..proto::Disk::default() };
        let request = proto::RegisterServerRequest {
            uuid,
            address: format!("unix:///nonexistent/{number}"),
            location: format!("/r/rack{number}/h"),
            disks: vec![disk],
            incarnation: 1,
            cluster_id: String::new(),
        };
        let until = Instant::now() + PATIENCE;
        while let Err(error) = master.register_server(&request, &CallOptions::within(PATIENCE)).await {
            assert!(Instant::now() < until, "register: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn name(text: &str) -> Name {
    Name::try_from(text.as_bytes()).expect("a name")
}

fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |path: &Path| {
        std::fs::symlink_metadata(path).map_or(0, |meta| if meta.is_dir() { size(path) } else { meta.len() })
    };
    entries.flatten().map(|entry| of(&entry.path())).sum()
}
