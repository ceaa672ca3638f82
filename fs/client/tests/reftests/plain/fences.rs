//! Fences: who opened a file before it was raised writes it no more, wherever the bytes are.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const FENCE: &[u8] = b"user.pangu.fence";

impl Mount {
    async fn raise(&self, ino: InodeId, value: &str) -> OpResult {
        self.ask(Op::SetXattr { ino, name: FENCE, value: value.as_bytes(), flags: 0 }).await
    }

    async fn fence(&self, ino: InodeId) -> Result<String, Errno> {
        // As the kernel asks: at once, if that is possible.
        let op = Op::GetXattr { ino, name: FENCE };
        assert!(self.0.try_now(&CALLER, &op).is_none(), "only the master knows");
        match self.ask(op).await? {
            OpReply::Bytes(value) => Ok(String::from_utf8(value.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    async fn opened(&self, ino: InodeId) -> File {
        self.open(ino, libc::O_RDWR).await.unwrap().0
    }

    async fn fallocate(&self, file: File, mode: i32) -> OpResult {
        let File { ino, handle } = file;
        self.ask(Op::Fallocate { ino, handle, offset_bytes: 0, len_bytes: 5000, mode }).await
    }

    async fn write_mapped(&self, file: File, data: &[u8]) -> OpResult {
        let File { ino, handle } = file;
        let op = Op::Write { ino, handle, offset_bytes: 0, data, kill_privileges: false, mapped: true };
        self.ask(op).await
    }
}

/// A cluster, the mount that is to be fenced off, another one, and a third that only reads.
fn three(seed: u64) -> (Arc<Cluster>, Mount, Mount, Mount) {
    let cluster = Cluster::new(seed);
    let mount = || Mount(cluster.link().mount(quiet()));
    let (one, two, three) = (mount(), mount(), mount());
    (cluster, one, two, three)
}

async fn contents(mount: &Mount, ino: InodeId) -> Vec<u8> {
    let (file, _) = mount.open(ino, libc::O_RDONLY).await.unwrap();
    let bytes = mount.read(file, 0, 1 << 20).await.unwrap();
    mount.close(file).await.unwrap();
    bytes
}

fn stale(result: OpResult) {
    assert_eq!(result.unwrap_err(), Errno::ESTALE);
}

#[tokio::test]
async fn the_attribute_is_a_number_that_only_grows() {
    let (_, one, two, _) = three(1);
    let ino = one.create("f").await.ino;
    assert_eq!(one.fence(ino).await.unwrap_err(), Errno::ENODATA);
    for no_number in ["", "x", "-1", "7\n", "18446744073709551616"] {
        assert_eq!(one.raise(ino, no_number).await.unwrap_err(), Errno::EINVAL);
    }
    one.raise(ino, "7").await.unwrap();
    one.raise(ino, "7").await.unwrap();
    assert_eq!(two.fence(ino).await.unwrap(), "7");
    stale(two.raise(ino, "6").await);
    two.raise(ino, "8").await.unwrap();
    assert_eq!(one.fence(ino).await.unwrap(), "8");
    let remove = Op::RemoveXattr { ino, name: FENCE };
    assert_eq!(one.ask(remove).await.unwrap_err(), Errno::EPERM);
    let create = Op::SetXattr { ino, name: FENCE, value: b"9", flags: libc::XATTR_CREATE };
    assert_eq!(one.ask(create).await.unwrap_err(), Errno::EINVAL);
    assert!(matches!(one.ask(Op::ListXattr { ino }).await, Ok(OpReply::Names(names)) if names.is_empty()));
    assert_eq!(one.raise(InodeId::ROOT, "1").await.unwrap_err(), Errno::EISDIR);
}

#[tokio::test]
async fn what_was_buffered_before_a_raise_goes_no_further() {
    let (cluster, one, two, three) = three(2);
    let old = one.create("f").await;
    one.write(old, 0, b"first").await.unwrap();
    one.fsync(old).await.unwrap();
    one.write(old, 3, b"buffered").await.unwrap();
    two.raise(old.ino, "7").await.unwrap();
    let new = two.opened(old.ino).await;
    two.write(new, 0, b"SECOND").await.unwrap();
    two.close(new).await.unwrap();
    // It has not heard of anything, so it takes more; the end is bitter.
    one.write(old, 1 << 20, b"more").await.unwrap();
    stale(one.fsync(old).await);
    stale(one.fsync(old).await);
    stale(one.write(old, 0, b"again").await);
    stale(one.ftruncate(old, 0).await);
    stale(one.close(old).await);
    assert_eq!(contents(&three, old.ino).await, b"SECOND");
    assert_eq!(contents(&one, old.ino).await, b"SECOND");
    cluster.check();
}

#[tokio::test]
async fn writes_in_flight_are_refused_when_they_arrive_after_the_raise() {
    let (cluster, one, two, three) = three(3);
    let old = one.create("f").await;
    cluster.set(Faults { stuck: true, ..Faults::default() });
    one.write(old, 0, b"stuck").await.unwrap();
    let syncing = one.fsync(old);
    tokio::pin!(syncing);
    settle().await;
    assert!(syncing.as_mut().now_or_never().is_none());
    two.raise(old.ino, "7").await.unwrap();
    cluster.set(Faults::default());
    stale(syncing.await);
    assert_eq!(contents(&three, old.ino).await, b"");
}

#[tokio::test]
async fn a_length_that_was_not_told_before_the_raise_is_not_told_after_it() {
    let (cluster, one, two, three) = three(4);
    let ino = one.create("f").await.ino;
    let (direct, _) = one.open(ino, libc::O_WRONLY | libc::O_DIRECT).await.unwrap();
    one.write(direct, 0, b"at the servers").await.unwrap();
    assert_eq!(cluster.counts().writes, 1);
    one.ask(Op::SetAttr { ino, changes: SetAttr { mode: Some(0o600), ..SetAttr::default() } }).await.unwrap();
    two.raise(ino, "7").await.unwrap();
    stale(one.fsync(direct).await);
    assert_eq!((two.attr(ino).await.size_bytes, contents(&three, ino).await), (0, Vec::new()));
    // Whoever makes it longer finds zeros, not what was left there.
    let new = two.opened(ino).await;
    two.ftruncate(new, 20).await.unwrap();
    two.close(new).await.unwrap();
    assert_eq!(contents(&three, ino).await, [0; 20]);
    stale(one.close(direct).await);
    settle().await;
    one.0.shutdown().await.unwrap();
    assert_eq!(three.attr(ino).await.mode & 0o777, 0o600, "what was set by name is not the writer's");
}

#[tokio::test]
async fn lengths_and_holes_are_refused_through_old_handles() {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    for step in 0..5 {
        let (cluster, one, two, three) = three(5);
        let old = one.create("f").await;
        one.write(old, 0, &[1; 10_000]).await.unwrap();
        one.fsync(old).await.unwrap();
        two.raise(old.ino, "7").await.unwrap();
        // It knows nothing of the fence: the servers do.
        stale(match step {
            0 => one.ftruncate(old, 0).await,
            1 => one.ftruncate(old, 5000).await,
            2 => one.fallocate(old, PUNCH).await,
            3 => one.fallocate(old, libc::FALLOC_FL_ZERO_RANGE).await,
            _ => {
                one.ftruncate(old, 20_000).await.unwrap();
                one.fsync(old).await
            }
        });
        stale(one.fallocate(old, 0).await);
        assert_eq!(contents(&three, old.ino).await, [1; 10_000], "step {step}");
        cluster.check();
    }
}

/// What was written and not yet told the master was set aside while a length was refused, and came back afterwards: the next commit
/// told its length under the new fence, and the file grew after it was fenced.
#[tokio::test]
async fn a_refused_length_brings_nothing_back_that_was_written_before() {
    for size in [0, 5000, 20_000] {
        let (cluster, one, two, three) = three(5);
        let old = one.create("f").await;
        one.write(old, 0, &[1; 10_000]).await.unwrap();
        two.raise(old.ino, "7").await.unwrap();
        let shaped = one.ftruncate(old, size).await;
        // The others need not ask the master: nothing of the file was told it yet.
        if size == 0 {
            stale(shaped);
        }
        stale(one.fsync(old).await);
        stale(one.close(old).await);
        let seen = three.attr(old.ino).await.size_bytes;
        assert_eq!(seen, 0, "truncated to {size}");
        cluster.check();
    }
}

/// A change by name is as if the file were opened for it.
#[tokio::test]
async fn a_truncation_by_name_is_not_fenced() {
    for size in [0, 5000, 20_000] {
        let (_, one, two, three) = three(6);
        let old = one.create("f").await;
        one.write(old, 0, &[1; 10_000]).await.unwrap();
        one.fsync(old).await.unwrap();
        two.raise(old.ino, "7").await.unwrap();
        one.truncate(old, size).await;
        stale(one.fsync(old).await);
        assert_eq!(three.attr(old.ino).await.size_bytes, size);
    }
}

#[tokio::test]
async fn handles_opened_after_the_raise_work_beside_old_ones() {
    let (_, one, two, three) = three(7);
    let old = one.create("f").await;
    one.write(old, 0, b"old").await.unwrap();
    let (reader, _) = one.open(old.ino, libc::O_RDONLY).await.unwrap();
    two.raise(old.ino, "7").await.unwrap();
    let new = one.opened(old.ino).await;
    stale(one.write(old, 0, b"old").await);
    stale(one.fsync(reader).await);
    one.write(new, 0, b"new").await.unwrap();
    assert!(one.fsync(new).await.is_ok(), "it hears nothing of what was before");
    assert_eq!(one.read(reader, 0, 9).await.unwrap(), b"new");
    assert_eq!(contents(&three, old.ino).await, b"new");
    // The kernel may write a page back that was changed through the old one.
    stale(one.write_mapped(new, b"who?").await);
    stale(one.close(old).await);
    one.write_mapped(new, b"me").await.unwrap();
    one.close(new).await.unwrap();
    assert_eq!(contents(&three, old.ino).await, b"mew");
}

#[tokio::test]
async fn what_was_written_here_before_a_raise_from_here_is_kept() {
    let (_, one, _, three) = three(8);
    let old = one.create("f").await;
    one.write(old, 0, b"kept").await.unwrap();
    one.raise(old.ino, "7").await.unwrap();
    stale(one.write(old, 0, b"lost").await);
    stale(one.close(old).await);
    assert_eq!(contents(&three, old.ino).await, b"kept");
}

/// The writes of who was fenced off go to data that is no more, or are refused.
#[tokio::test]
async fn a_file_that_was_replaced_since_is_not_written_either() {
    for heard in [false, true] {
        let (_, one, two, three) = three(9);
        let old = one.create("f").await;
        one.write(old, 0, b"old, and longer").await.unwrap();
        two.raise(old.ino, "7").await.unwrap();
        let (new, _) = two.open(old.ino, libc::O_RDWR | libc::O_TRUNC).await.unwrap();
        two.write(new, 0, b"new").await.unwrap();
        two.close(new).await.unwrap();
        if heard {
            one.open(old.ino, libc::O_RDWR).await.unwrap();
        }
        stale(one.close(old).await);
        assert_eq!(contents(&three, old.ino).await, b"new");
    }
}

/// Handles of several ages on several mounts write bytes that name their fence, over a network that loses, doubles and delays. Once a
/// raise was answered, no byte of a lower fence appears where there was none.
async fn nothing_old_appears(seed: u64, faults: Faults) {
    const LEN: u64 = 40_000;
    const MOUNTS: usize = 3;
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::new(seed);
    let config =
        ClientConfig { flush_age: Duration::from_millis(1), ttl: Duration::from_millis(2), ..quiet() };
    let mounts: Vec<_> = (0..MOUNTS).map(|_| Mount(cluster.link().mount(config.clone()))).collect();
    let reader = Mount(cluster.link().mount(ClientConfig { ttl: Duration::ZERO, ..config }));
    let ino = mounts[0].create("f").await.ino;
    let (mut fence, mut seen) = (1, Vec::new());
    mounts[0].raise(ino, "1").await.unwrap();
    let mut open: Vec<(usize, File, u8)> = Vec::new();
    for _ in 0..60 {
        cluster.set(if random.random_bool(0.7) { faults } else { Faults::default() });
        let at = random.random_range(0..MOUNTS);
        match random.random_range(0..10) {
            0 => {
                fence += 1;
                mounts[at].raise(ino, &fence.to_string()).await.unwrap();
                cluster.set(Faults::default());
                seen = contents(&reader, ino).await;
            }
            1..3 => open.push((at, mounts[at].opened(ino).await, fence)),
            3..8 if !open.is_empty() => {
                let (at, file, under) = open[random.random_range(0..open.len())];
                let offset = random.random_range(0..LEN);
                let len = random.random_range(1..8000);
                let written = mounts[at].write(file, offset, &vec![under; len]).await;
                assert!(under < fence || written.is_ok(), "{written:?}");
            }
            8 if !open.is_empty() => {
                let (at, file, under) = open[random.random_range(0..open.len())];
                let synced = mounts[at].fsync(file).await;
                assert!(under < fence || synced.is_ok(), "{synced:?}");
            }
            9 if !open.is_empty() => {
                let (at, file, _) = open.swap_remove(random.random_range(0..open.len()));
                let _ = mounts[at].close(file).await;
            }
            _ => settle().await,
        }
        cluster.set(Faults::default());
        for (at, byte) in contents(&reader, ino).await.iter().enumerate() {
            let old = *byte != 0 && *byte < fence;
            assert!(!old || seen.get(at) == Some(byte), "byte {at} is of {byte} under {fence}");
        }
    }
    for (at, file, under) in open {
        let closed = mounts[at].close(file).await;
        assert!(under < fence || closed.is_ok(), "{closed:?}");
    }
    cluster.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_an_older_fence_ever_appears(seed: u64, per_mille in 0..200u32, delay_max in 0..40u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(nothing_old_appears(seed, Faults { per_mille, delay_max, ..Faults::default() }));
    }
}
