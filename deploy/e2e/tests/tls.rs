//! A cluster whose processes speak TLS to each other works as any other, and whoever captures its packets finds nothing of what
//! is written, which without TLS he finds at once.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use deploy_local_cluster::{Options, Role};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};

/// Of what is written, again and again. Longer than what chance makes, and no divisor of a block.
const WORD: &[u8] = b"nobody but who may read this file reads this sentence. ";
const FILE_BYTES: usize = 8 << 20;

/// Everything that passes this machine's interfaces, loopback included.
struct Capture {
    packets: Arc<AtomicUsize>,
    found: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Capture {
    fn start() -> Self {
        let raw =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll).unwrap();
        // What does not fit is lost: the word comes so often that this changes nothing.
        setsockopt(&raw, sockopt::RcvBuf, &(8 << 20)).unwrap();
        setsockopt(&raw, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 100_000)).unwrap();
        let (packets, found) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let ends = Arc::<AtomicBool>::default();
        let thread = std::thread::spawn({
            let (packets, found, ends) = (Arc::clone(&packets), Arc::clone(&found), Arc::clone(&ends));
            move || listen(&raw, &packets, &found, &ends)
        });
        Self { packets, found, ends, thread }
    }

    /// How many packets there were, and how many of them with the word.
    fn end(self) -> (usize, usize) {
        self.ends.store(true, Ordering::Release);
        self.thread.join().unwrap();
        (self.packets.load(Ordering::Acquire), self.found.load(Ordering::Acquire))
    }
}

fn listen(raw: &OwnedFd, packets: &AtomicUsize, found: &AtomicUsize, ends: &AtomicBool) {
    let mut buffer = vec![0; 128 << 10];
    while !ends.load(Ordering::Acquire) {
        // Nothing came within the timeout.
        let Ok(n) = recv(raw.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
        packets.fetch_add(1, Ordering::AcqRel);
        if buffer[..n].windows(WORD.len()).any(|window| window == WORD) {
            found.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn content() -> Vec<u8> {
    WORD.iter().copied().cycle().take(FILE_BYTES).collect()
}

fn write(path: &Path) {
    fs::write(path, content()).unwrap();
    fs::File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn a_cluster_with_tls_says_nothing_to_who_listens() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can capture packets: not tested");
        return;
    }
    for tls in [false, true] {
        let mut options = Options::new(3, 3);
        options.tls = tls;
        options.nuwa = 1;
        let mut cluster = options.start().unwrap();
        let mount = cluster.mount().unwrap();
        let capture = Capture::start();
        write(&mount.join("before"));
        // From here on they say that they miss one.
        cluster.announce(" WARN ");
        cluster.kill(Role::Chunkserver(2)).unwrap();
        write(&mount.join("after"));
        // A mount with nothing in its memory.
        let other = cluster.mount().unwrap();
        for name in ["before", "after"] {
            assert!(fs::read(other.join(name)).unwrap() == content(), "{name}, tls = {tls}");
        }
        let status = cluster.pangu(&["status"]).unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        let (packets, found) = capture.end();
        println!("tls = {tls}: {packets} packets, {found} of them with the word");
        assert!(packets > 100, "{packets} packets");
        assert_eq!(found > 0, !tls, "tls = {tls}: {found} of {packets} packets");
        cluster.finish().unwrap();
    }
}
