//! The engine beside fio: the same block size, depth and sync policy on the same disk.
//!
//! `cargo bench -p chunkserver-engine` (in `$TMPDIR` or `--dir DIR`; `--seconds N` a line, `--quick`, `--only TEXT` a line's name has). Writes are
//! durable on both sides: the engine answers after data and metadata are, fio opens with O_DSYNC and overwrites a file
//! written before. Runs take turns and the median of three is shown, because a shared disk changes its mind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chunkserver_engine::{BufferPool, Engine, EngineConfig, FormatOptions, WriteOp};
use coord_types::{BLOCK_SIZE, ChunkKey, DataId, Epoch, GroupId, SessionId, Stamp, Version};
use rand::{Rng, SeedableRng};

const CHUNK: u32 = 8 << 20;
/// Bytes the runs range over: more than fits a device's cache of a laptop, less than a minute of writing.
const SPAN_BYTES: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Write,
    Read,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    size: usize,
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    cpu_s_per_gib: f64,
}

impl Case {
    fn name(self) -> String {
        format!("{:?} {} KiB, depth {}", self.kind, self.size >> 10, self.depth)
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1).cloned());
    let base = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let quick = args.iter().any(|arg| arg == "--quick");
    let seconds: f64 =
        value("--seconds").map_or(if quick { 1.0 } else { 3.0 }, |s| s.parse().expect("a number"));
    let rounds = if quick { 1 } else { 3 };
    let dir = tempfile::tempdir_in(base).expect("a directory to work in");
    let fio_file = dir.path().join("fio");
    lay_out(&fio_file);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = runtime.block_on(Bench::prepare(&dir.path().join("engine")));
    println!(
        "{:<22} {:>11} {:>9} {:>9}   {:>11} {:>9} {:>9}   ratio",
        "", "engine", "p50 us", "cpu s/GiB", "fio", "p50 us", "cpu s/GiB"
    );
    for kind in [Kind::Write, Kind::Read] {
        for size in [4096, 1 << 20] {
            for depth in [1, 8, 32] {
                let case = Case { kind, size, depth };
                if value("--only").is_some_and(|only| !case.name().contains(&only)) {
                    continue;
                }
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                for _ in 0..rounds {
                    ours.push(runtime.block_on(bench.run(case, seconds)));
                    theirs.push(fio(&fio_file, case, seconds));
                }
                report(case, median(ours), median(theirs));
                if args.iter().any(|arg| arg == "--stats") {
                    println!("{:?}", bench.engine.stats());
                }
            }
        }
    }
    runtime.block_on(bench.engine.close());
}

fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    figures[figures.len() / 2]
}

fn report(case: Case, ours: Figures, theirs: Figures) {
    let name = case.name();
    let rate = |figures: Figures| {
        if case.size > BLOCK_SIZE {
            format!("{:.0} MB/s", figures.per_second * case.size as f64 / 1e6)
        } else {
            format!("{:.0} /s", figures.per_second)
        }
    };
    println!(
        "{name:<22} {:>11} {:>9.0} {:>9.3}   {:>11} {:>9.0} {:>9.3}   {:.2}",
        rate(ours),
        ours.p50_us,
        ours.cpu_s_per_gib,
        rate(theirs),
        theirs.p50_us,
        theirs.cpu_s_per_gib,
        ours.per_second / theirs.per_second,
    );
}

struct Bench {
    engine: Engine,
    pool: Arc<BufferPool>,
    versions: std::cell::RefCell<Vec<u64>>,
}

fn key(chunk: u32) -> ChunkKey {
    ChunkKey::new(GroupId(1), DataId(1), chunk)
}

fn version(counter: u64) -> Version {
    if counter == 0 { Version::NONE } else { Version { epoch: Epoch(1), counter } }
}

impl Bench {
    async fn prepare(dir: &Path) -> Self {
        Engine::format(dir, &FormatOptions::new(4 << 30)).expect("format");
        let pool = BufferPool::new(64 << 20);
        let engine = Engine::open(dir, EngineConfig::new(pool.clone())).await.expect("open");
        let chunks = usize::try_from(SPAN_BYTES / u64::from(CHUNK)).expect("small");
        let bench = Self { engine, pool, versions: std::cell::RefCell::new(vec![0; chunks]) };
        let piece = bench.payload(1 << 20);
        for chunk in 0..chunks as u32 {
            for at in 0..CHUNK >> 20 {
                bench.write(chunk, at << 20, &piece).await;
            }
        }
        bench
    }

    fn payload(&self, size: usize) -> (Bytes, Vec<u32>) {
        let mut buffer = self.pool.allocate(size);
        rand::rngs::StdRng::seed_from_u64(1).fill(&mut buffer[..]);
        let data = buffer.freeze();
        let crcs = data.chunks(BLOCK_SIZE).map(crc32c::crc32c).collect();
        (data, crcs)
    }

    async fn write(&self, chunk: u32, offset_bytes: u32, payload: &(Bytes, Vec<u32>)) {
        let before = {
            let mut versions = self.versions.borrow_mut();
            versions[chunk as usize] += 1;
            versions[chunk as usize] - 1
        };
        let op = WriteOp {
            key: key(chunk),
            expect: version(before),
            version: version(before + 1),
            offset_bytes,
            data: payload.0.clone(),
            block_crcs: payload.1.clone(),
            stamp: Some(Stamp { session: SessionId(1), seq: before }),
            chunk_size_bytes: CHUNK,
        };
        self.engine.write(op).await.expect("write");
    }

    /// `depth` loops of one operation after another: small ones at random, large ones in sequence.
    async fn run(&self, case: Case, seconds: f64) -> Figures {
        let payload = self.payload(case.size);
        let next = std::cell::Cell::new(0_u64);
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(seconds);
        let cpu = cpu_seconds();
        let loops = (0..case.depth).map(|_| async {
            let mut latencies = Vec::new();
            let places = SPAN_BYTES / case.size as u64;
            while Instant::now() < end {
                let place = if case.size == BLOCK_SIZE {
                    rand::rng().random_range(0..places)
                } else {
                    next.replace(next.get() + 1) % places
                };
                let offset = place * case.size as u64;
                let (chunk, within) =
                    ((offset / u64::from(CHUNK)) as u32, (offset % u64::from(CHUNK)) as u32);
                let from = Instant::now();
                match case.kind {
                    Kind::Write => self.write(chunk, within, &payload).await,
                    Kind::Read => {
                        let read =
                            self.engine.read(key(chunk), within, case.size as u32).await.expect("read");
                        assert_eq!(read.data.len(), case.size);
                    }
                }
                latencies.push(from.elapsed());
            }
            latencies
        });
        let mut latencies: Vec<Duration> =
            futures::future::join_all(loops).await.into_iter().flatten().collect();
        latencies.sort();
        let wall = begin.elapsed().as_secs_f64();
        let gib = latencies.len() as f64 * case.size as f64 / f64::from(1 << 30);
        Figures {
            per_second: latencies.len() as f64 / wall,
            p50_us: latencies[latencies.len() / 2].as_secs_f64() * 1e6,
            cpu_s_per_gib: (cpu_seconds() - cpu) / gib,
        }
    }
}

fn cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("getrusage");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn lay_out(file: &Path) {
    let status = Command::new("fio")
        .args(["--name=lay", "--rw=write", "--bs=1m", "--direct=1", "--end_fsync=1", "--output-format=terse"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={SPAN_BYTES}"))
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("fio runs (apt-get install fio)").success(), "fio failed");
}

fn fio(file: &Path, case: Case, seconds: f64) -> Figures {
    let pattern = match (case.kind, case.size == BLOCK_SIZE) {
        (Kind::Write, true) => "randwrite",
        (Kind::Write, false) => "write",
        (Kind::Read, true) => "randread",
        (Kind::Read, false) => "read",
    };
    let mut command = Command::new("fio");
    command
        .args([
            "--name=x",
            "--ioengine=io_uring",
            "--direct=1",
            "--time_based",
            "--overwrite=1",
            "--output-format=json",
        ])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={SPAN_BYTES}"))
        .arg(format!("--rw={pattern}"))
        .arg(format!("--bs={}", case.size))
        .arg(format!("--iodepth={}", case.depth))
        .arg(format!("--runtime={seconds}"));
    if case.kind == Kind::Write {
        command.arg("--sync=dsync");
    }
    let output = command.output().expect("fio runs");
    assert!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').expect("json")..]).expect("json");
    let job = &json["jobs"][0];
    let side = &job[if case.kind == Kind::Write { "write" } else { "read" }];
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let runtime_s = number(&side["runtime"]) / 1e3;
    let cpu_s = (number(&job["usr_cpu"]) + number(&job["sys_cpu"])) / 100.0 * runtime_s;
    Figures {
        per_second: number(&side["iops"]),
        p50_us: number(&side["clat_ns"]["percentile"]["50.000000"]) / 1e3,
        cpu_s_per_gib: cpu_s / (number(&side["io_bytes"]) / f64::from(1 << 30)),
    }
}
