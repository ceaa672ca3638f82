//! What a call costs over loopback, beside a raw blocking socket that moves the same bytes: the limit of this machine.
//! Client and server are separate processes, each with one single-threaded runtime, as ours run.
//!
//!     cargo bench -p kuafu --bench loopback [-- WORD: only rows with this word in their title]
//!
//! "tls" is TCP with TLS under the frames; the raw socket beside it has none. CPU is user and system time of both processes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::{
    Address, Authorizer, Bytes, CallOptions, CancellationToken, Client, ClientConfig, Request, Response,
    Server, Status,
};

mod proto {
    #![allow(dead_code, unreachable_pub, missing_debug_implementations)]
    kuafu::include_proto!("feitian.kuafu.test.v1");
}
use proto::*;

/// Long enough for a stable number, short enough to be run often. `KUAFU_BENCH_SECONDS` changes it.
const SECONDS_DEFAULT: f64 = 2.0;
const SMALL: usize = 64;
const LARGE: usize = 1 << 20;

struct Service;

impl Echo for Service {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let EchoRequest { text, blob } = request.message;
        // A long payload is data on its way to the disk: it is not sent back.
        let payload = if request.payload.len() > SMALL { Bytes::new() } else { request.payload };
        Ok(Response::with_payload(EchoReply { text, blob }, payload))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitReply>, Status> {
        // Not ready at the first poll: what a handler costs that has to wait.
        tokio::task::yield_now().await;
        Ok(Response::new(WaitReply { gate: request.message.gate }))
    }

    async fn fail(&self, _: Request<FailRequest>) -> Result<Response<FailReply>, Status> {
        Err(Status::internal("not benchmarked"))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("serve-frames") => serve_frames(&arguments[2], &arguments[3]),
        Some("serve-raw") => serve_raw(&arguments[2]),
        // `cargo test --benches` only asks whether it runs.
        Some("--test") => Bench { seconds: 0.05, filter: String::new() }.run(),
        _ => {
            // What cargo itself passes begins with dashes; anything else chooses rows.
            let filter = arguments[1..].iter().find(|argument| !argument.starts_with('-'));
            Bench { seconds: seconds(), filter: filter.cloned().unwrap_or_default() }.run();
        }
    }
}

fn seconds() -> f64 {
    std::env::var("KUAFU_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS_DEFAULT)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

struct Bench {
    seconds: f64,
    filter: String,
}

impl Bench {
    fn run(&self) {
        let dir = tempfile::tempdir().expect("a directory for sockets");
        println!("{:<34} {:>10} {:>9} {:>9} {:>10}", "", "calls/s", "p50 us", "p99 us", "CPU us/call");
        for over in ["tcp", "tls", "unix"] {
            self.small(over, dir.path());
        }
        println!("\n{:<34} {:>10} {:>9} {:>9} {:>10}", "", "MB/s", "p50 us", "p99 us", "CPU s/GiB");
        for over in ["tcp", "tls", "unix"] {
            self.large(over, dir.path());
        }
    }

    fn wanted(&self, title: &str) -> bool {
        title.contains(&self.filter)
    }

    fn small(&self, over: &str, dir: &Path) {
        let seconds = self.seconds;
        let raw = {
            let peer = Peer::start("serve-raw", over, dir);
            peer.measure(|address| raw_echo(address, SMALL, seconds))
        };
        print_small(&format!("{over}: raw socket, 64 B, 1"), &raw, None);
        let peer = Peer::start("serve-frames", over, dir);
        for (shape, what) in [(Shape::Echo, "64 B"), (Shape::Wait, "waiting handler")] {
            for in_flight in [1, 32] {
                let title = format!("{over}: frames, {what}, {in_flight}");
                if self.wanted(&title) {
                    let measured =
                        peer.measure(|address| small_calls(address, over, shape, in_flight, seconds));
                    print_small(&title, &measured, Some(&raw));
                }
            }
        }
    }

    fn large(&self, over: &str, dir: &Path) {
        let seconds = self.seconds;
        let raw = {
            let peer = Peer::start("serve-raw", over, dir);
            peer.measure(|address| raw_send(address, seconds))
        };
        print_large(&format!("{over}: raw socket, 1 MiB, 1"), &raw, None);
        let peer = Peer::start("serve-frames", over, dir);
        for in_flight in [1, 4, 16] {
            for (covered, check) in [(true, "covered"), (false, "crc")] {
                let title = format!("{over}: frames, 1 MiB {check}, {in_flight}");
                if self.wanted(&title) {
                    let measured =
                        peer.measure(|address| large_calls(address, over, covered, in_flight, seconds));
                    print_large(&title, &measured, Some(&raw));
                }
            }
        }
    }
}

// ---- measuring ----

struct Measured {
    latencies: Vec<Duration>,
    took: Duration,
    cpu: Duration,
}

impl Measured {
    fn percentile_us(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
        sorted[index].as_secs_f64() * 1e6
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    fn gib(&self) -> f64 {
        self.latencies.len() as f64 * LARGE as f64 / (1u64 << 30) as f64
    }
}

fn print_small(title: &str, measured: &Measured, raw: Option<&Measured>) {
    let ratio = raw.map_or_else(String::new, |raw| {
        let ratio = measured.percentile_us(0.5) / raw.percentile_us(0.5);
        let rate = measured.per_second() / raw.per_second();
        format!("  p50 {ratio:.2}x raw, rate {rate:.2}x")
    });
    println!(
        "{title:<34} {:>10.0} {:>9.1} {:>9.1} {:>10.2}{ratio}",
        measured.per_second(),
        measured.percentile_us(0.5),
        measured.percentile_us(0.99),
        measured.cpu.as_secs_f64() * 1e6 / measured.latencies.len() as f64,
    );
}

fn print_large(title: &str, measured: &Measured, raw: Option<&Measured>) {
    let mb_per_second = |m: &Measured| m.per_second() * LARGE as f64 / 1e6;
    let cpu = |m: &Measured| m.cpu.as_secs_f64() / m.gib();
    let ratio = raw.map_or_else(String::new, |raw| {
        format!(
            "  rate {:.2}x raw, CPU {:.2}x",
            mb_per_second(measured) / mb_per_second(raw),
            cpu(measured) / cpu(raw)
        )
    });
    println!(
        "{title:<34} {:>10.0} {:>9.1} {:>9.1} {:>10.3}{ratio}",
        mb_per_second(measured),
        measured.percentile_us(0.5),
        measured.percentile_us(0.99),
        cpu(measured),
    );
}

/// User and system time of a process.
fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is alive");
    let after_name = stat.rsplit_once(')').expect("stat has a name").1;
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().expect("ticks")).sum();
    // A tick is 10 ms on every Linux that matters.
    Duration::from_millis(ticks * 10)
}

/// A server in a process of its own.
struct Peer {
    child: Child,
    address: String,
}

impl Peer {
    fn start(what: &str, over: &str, dir: &Path) -> Self {
        let wanted = match over {
            "tcp" | "tls" => "tcp://127.0.0.1:0".to_owned(),
            _ => {
                let path = dir.join(what);
                // Left by the last one; absent at first.
                let _removed = std::fs::remove_file(&path);
                format!("unix://{}", path.display())
            }
        };
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args([what, &wanted, over])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the server");
        let mut line = Vec::new();
        let mut byte = [0];
        let stdout = child.stdout.as_mut().expect("piped");
        while stdout.read(&mut byte).expect("read the address") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        Self { child, address: String::from_utf8(line).expect("an address") }
    }

    fn measure(&self, run: impl FnOnce(&str) -> (Vec<Duration>, Duration)) -> Measured {
        let both = || cpu_of(self.child.id()) + cpu_of(std::process::id());
        let before = both();
        let (latencies, took) = run(&self.address);
        Measured { latencies, took, cpu: both() - before }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The server ends when its standard input does.
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}

fn exit_with_parent() {
    std::thread::spawn(|| {
        let _end = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}

fn announce(address: &str) {
    println!("{address}");
    std::io::stdout().flush().expect("tell the address");
}

// ---- frames ----

/// Everybody may call.
struct Anybody {
    tls: bool,
}

impl Authorizer for Anybody {
    fn tls(&self) -> bool {
        self.tls
    }
}

fn serve_frames(address: &str, over: &str) {
    exit_with_parent();
    runtime().block_on(async {
        let server = Server::builder()
            .authorizer(Arc::new(Anybody { tls: over == "tls" }))
            .service(EchoServer::new(Arc::new(Service)))
            .build();
        let bound = server.bind(&address.parse().expect("an address")).await.expect("listen");
        announce(&bound.local_address().to_string());
        bound.serve(CancellationToken::new()).await;
    });
}

#[derive(Clone, Copy)]
enum Shape {
    Echo,
    Wait,
}

fn small_calls(
    address: &str,
    over: &str,
    shape: Shape,
    in_flight: usize,
    seconds: f64,
) -> (Vec<Duration>, Duration) {
    let payload = Bytes::from(vec![7; SMALL]);
    drive(address, over, in_flight, seconds, move |client| {
        let payload = payload.clone();
        async move {
            let options = CallOptions::within(Duration::from_secs(10));
            match shape {
                Shape::Echo => {
                    let request = EchoRequest::default();
                    client.echo_with_payload(&request, payload, &options).await.map(|_| ())
                }
                Shape::Wait => client.wait(&WaitRequest { gate: 1 }, &options).await.map(|_| ()),
            }
        }
    })
}

fn large_calls(
    address: &str,
    over: &str,
    covered: bool,
    in_flight: usize,
    seconds: f64,
) -> (Vec<Duration>, Duration) {
    let payload = Bytes::from(vec![7; LARGE]);
    // As a chunk write has them: four bytes for each 4 KiB.
    let checksums = Bytes::from(vec![1; LARGE / 1024]);
    drive(address, over, in_flight, seconds, move |client| {
        let request = EchoRequest { text: String::new(), blob: checksums.clone() };
        let payload = payload.clone();
        async move {
            let mut options = CallOptions::within(Duration::from_secs(10));
            if covered {
                options = options.payload_covered();
            }
            client.echo_with_payload(&request, payload, &options).await.map(|_| ())
        }
    })
}

fn drive<F, Fut>(
    address: &str,
    over: &str,
    in_flight: usize,
    seconds: f64,
    call: F,
) -> (Vec<Duration>, Duration)
where
    F: Fn(EchoClient) -> Fut + Clone + 'static,
    Fut: Future<Output = Result<(), Status>> + 'static,
{
    let address: Address = address.parse().expect("an address");
    runtime().block_on(async {
        let client = EchoClient::new(Client::new(
            address,
            ClientConfig { tls: over == "tls", ..ClientConfig::default() },
        ));
        // Connects, and warms up.
        call(client.clone()).await.expect("a call");
        let began = Instant::now();
        let end = began + Duration::from_secs_f64(seconds);
        let callers = tokio::task::LocalSet::new();
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| {
                let (client, call) = (client.clone(), call.clone());
                callers.spawn_local(async move {
                    let mut latencies = Vec::new();
                    let mut now = Instant::now();
                    while now < end {
                        call(client.clone()).await.expect("a call");
                        let after = Instant::now();
                        latencies.push(after - now);
                        now = after;
                    }
                    latencies
                })
            })
            .collect();
        callers
            .run_until(async {
                let mut all = Vec::new();
                for task in tasks {
                    all.extend(task.await.expect("a caller"));
                }
                (all, began.elapsed())
            })
            .await
    })
}

// ---- the limit ----

/// A blocking socket of either kind.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn raw_connect(address: &str) -> Box<dyn Stream> {
    match address.parse().expect("an address") {
        Address::Tcp(host_port) => {
            let stream = TcpStream::connect(host_port).expect("connect");
            stream.set_nodelay(true).expect("nodelay");
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).expect("connect")),
    }
}

/// Reads a length, then so many bytes; answers with the first 64 of them.
fn serve_raw(address: &str) {
    exit_with_parent();
    let mut accept: Box<dyn FnMut() -> Box<dyn Stream>> = match address.parse().expect("an address") {
        Address::Tcp(host_port) => {
            let listener = TcpListener::bind(host_port).expect("listen");
            announce(&format!("tcp://{}", listener.local_addr().expect("an address")));
            Box::new(move || {
                let (stream, _) = listener.accept().expect("accept");
                stream.set_nodelay(true).expect("nodelay");
                Box::new(stream)
            })
        }
        Address::Unix(path) => {
            let listener = UnixListener::bind(path).expect("listen");
            announce(address);
            Box::new(move || Box::new(listener.accept().expect("accept").0))
        }
    };
    let mut buffer = vec![0; LARGE];
    loop {
        let mut stream = accept();
        let mut length = [0; 8];
        while stream.read_exact(&mut length).is_ok() {
            let length = usize::try_from(u64::from_le_bytes(length)).expect("a length");
            stream.read_exact(&mut buffer[..length]).expect("read");
            stream.write_all(&buffer[..SMALL]).expect("answer");
        }
    }
}

fn raw_echo(address: &str, len: usize, seconds: f64) -> (Vec<Duration>, Duration) {
    let mut request = (len as u64).to_le_bytes().to_vec();
    request.resize(8 + len, 7);
    raw_calls(address, &request, seconds)
}

fn raw_send(address: &str, seconds: f64) -> (Vec<Duration>, Duration) {
    let mut request = (LARGE as u64).to_le_bytes().to_vec();
    request.resize(8 + LARGE, 7);
    raw_calls(address, &request, seconds)
}

fn raw_calls(address: &str, request: &[u8], seconds: f64) -> (Vec<Duration>, Duration) {
    let mut stream = raw_connect(address);
    let mut answer = [0; SMALL];
    let mut latencies = Vec::new();
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(seconds);
    let mut now = began;
    while now < end {
        stream.write_all(request).expect("send");
        stream.read_exact(&mut answer).expect("receive");
        let after = Instant::now();
        latencies.push(after - now);
        now = after;
    }
    (latencies, began.elapsed())
}
