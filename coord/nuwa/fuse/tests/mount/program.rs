//! A mount without a kernel: its calls are asked one by one, and can be interrupted at a certain place.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use coord_types::InodeId;
use fs_client::{Caller, Errno, Flock, HandleId, Op, OpReply, OpResult};
use fs_mount::Handler as _;
use nuwa_fuse::{Tree, tree::Owner};

use crate::fixture::{LEASE, PATIENCE, World};

/// See the module.
pub(crate) struct Program {
    pub(crate) tree: Tree,
}

/// An open file.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) ino: InodeId,
    handle: HandleId,
}

impl Program {
    pub(crate) fn start(world: &World) -> Self {
        let owner = Owner { uid: 0, gid: 0 };
        let tree = Tree::new(world.client().clone(), LEASE, "test".to_owned(), owner);
        world.ask(tree.ready()).unwrap();
        Self { tree }
    }

    /// An answer, within the patience of these tests.
    async fn ask(&self, op: Op<'_>) -> OpResult {
        let caller = Caller::default();
        let answer = self.tree.handle(&caller, op);
        tokio::time::timeout(PATIENCE, answer).await.expect("no answer")
    }

    /// Asks, and is interrupted as soon as `then` is over. No answer is taken meanwhile.
    async fn interrupt(&self, op: Op<'_>, then: impl Future<Output = ()>) {
        let caller = Caller::default();
        let mut answer = pin!(self.tree.handle(&caller, op));
        let first = poll_fn(|context| Poll::Ready(Pin::as_mut(&mut answer).poll(context))).await;
        assert!(first.is_pending(), "it was answered at once");
        tokio::time::timeout(PATIENCE, then).await.expect("what it is interrupted after did not happen");
    }

    /// In the root. Made if it is not there, unless another flag says what is to be done.
    pub(crate) async fn open(&self, name: &str, flags: i32) -> Opened {
        let (parent, name) = (InodeId::ROOT, name.as_bytes());
        let flags = flags | libc::O_CREAT | libc::O_RDWR;
        let created = self.ask(Op::Create { parent, name, mode: 0o644, flags }).await;
        let Ok(OpReply::Created { entry, handle, .. }) = created else { panic!("{created:?}") };
        Opened { ino: entry.attr.ino, handle }
    }

    /// As the kernel opens what it has looked up.
    pub(crate) async fn open_again(&self, name: &str) -> Opened {
        let looked_up = self.ask(Op::Lookup { parent: InodeId::ROOT, name: name.as_bytes() }).await;
        let Ok(OpReply::Entry(entry)) = looked_up else { panic!("{looked_up:?}") };
        let ino = entry.attr.ino;
        let opened = self.ask(Op::Open { ino, flags: libc::O_RDWR }).await;
        let Ok(OpReply::Opened { handle, .. }) = opened else { panic!("{opened:?}") };
        Opened { ino, handle }
    }

    pub(crate) async fn write(&self, file: Opened, data: &str) -> Result<(), Errno> {
        let Opened { ino, handle } = file;
        let (offset_bytes, kill_privileges, mapped) = (0, false, false);
        let op = Op::Write { ino, handle, offset_bytes, data: data.as_bytes(), kill_privileges, mapped };
        self.ask(op).await.map(drop)
    }

    pub(crate) async fn read(&self, file: Opened) -> String {
        let Opened { ino, handle } = file;
        let read = self.ask(Op::Read { ino, handle, offset_bytes: 0, len_bytes: 1000 }).await;
        let Ok(OpReply::Bytes(bytes)) = read else { panic!("{read:?}") };
        String::from_utf8(bytes.into()).unwrap()
    }

    fn flock_op(file: Opened, lock: Flock, wait: bool) -> Op<'static> {
        // The kernel makes it of an address, which the next open file may have again.
        Op::Flock { ino: file.ino, handle: file.handle, owner: 7, lock, wait }
    }

    pub(crate) async fn flock(&self, file: Opened, lock: Flock, wait: bool) -> Result<(), Errno> {
        self.ask(Self::flock_op(file, lock, wait)).await.map(drop)
    }

    pub(crate) async fn interrupt_flock(
        &self,
        file: Opened,
        lock: Flock,
        wait: bool,
        then: impl Future<Output = ()>,
    ) {
        self.interrupt(Self::flock_op(file, lock, wait), then).await;
    }

    pub(crate) async fn flush(&self, file: Opened) -> Result<(), Errno> {
        self.ask(Op::Flush { ino: file.ino, handle: file.handle }).await.map(drop)
    }

    pub(crate) async fn interrupt_flush(&self, file: Opened, then: impl Future<Output = ()>) {
        self.interrupt(Op::Flush { ino: file.ino, handle: file.handle }, then).await;
    }

    pub(crate) async fn release(&self, file: Opened) {
        self.ask(Op::Release { ino: file.ino, handle: file.handle }).await.unwrap();
    }

    /// Of the file's lock, as its attribute says it.
    pub(crate) async fn fence(&self, ino: InodeId) -> Result<u64, Errno> {
        match self.ask(Op::GetXattr { ino, name: b"user.nuwa.fence" }).await? {
            OpReply::Bytes(text) => Ok(std::str::from_utf8(&text).unwrap().parse().unwrap()),
            other => panic!("{other:?}"),
        }
    }
}
