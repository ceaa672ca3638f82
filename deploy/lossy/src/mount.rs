//! A mounted disk: power on, frozen, off.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::dice::{Loss, Report};
use crate::fuse::Adapter;
use crate::state::{ROOT, Result, State};
use crate::tree::Ino;

/// Requests served at a time: as many syncs take their time beside each other.
const THREADS: usize = 16;
/// A frozen disk that nobody cuts fails whoever waits after this.
const FROZEN_MAX: Duration = Duration::from_secs(30);
/// Inode numbers of the kernel have the number of power cuts above these bits, so that nothing it knows of the time
/// before is taken for something of now.
pub(crate) const INO_BITS: u32 = 40;

/// How the disk behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How long a sync takes, a synced write included.
    pub sync_delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Frozen,
    Off,
}

#[derive(Debug)]
pub(crate) struct Guarded {
    pub(crate) state: State,
    power: Power,
    cuts: u64,
    ignore_syncs: bool,
}

/// What the mount and its owner share.
#[derive(Debug)]
pub(crate) struct Disk {
    guarded: Mutex<Guarded>,
    changed: Condvar,
    options: Options,
}

impl Guarded {
    /// The kernel's number of an inode.
    pub(crate) fn number(&self, ino: Ino) -> u64 {
        if ino == ROOT { ROOT } else { self.cuts << INO_BITS | ino }
    }
}

impl Disk {
    /// For one request about an inode, when there is power.
    pub(crate) fn enter(&self, number: u64) -> Result<(MutexGuard<'_, Guarded>, Ino)> {
        let mut guarded = self.guarded.lock();
        let cuts = guarded.cuts;
        while guarded.power == Power::Frozen {
            if self.changed.wait_for(&mut guarded, FROZEN_MAX).timed_out() {
                return Err(Errno::EIO);
            }
        }
        let ino = number & ((1 << INO_BITS) - 1);
        let of_now = guarded.cuts == cuts && guarded.number(ino) == number;
        if guarded.power == Power::On && of_now { Ok((guarded, ino)) } else { Err(Errno::EIO) }
    }

    /// Makes something durable, which takes its time and happens at its end.
    pub(crate) fn sync(&self, number: u64, what: impl FnOnce(&mut State, Ino) -> Result<()>) -> Result<()> {
        if !self.options.sync_delay.is_zero() {
            drop(self.enter(number)?);
            thread::sleep(self.options.sync_delay);
        }
        let (mut guarded, ino) = self.enter(number)?;
        if guarded.ignore_syncs { Ok(()) } else { what(&mut guarded.state, ino) }
    }
}

/// A mounted disk; unmounted when it goes.
#[derive(Debug)]
pub struct LossyDisk {
    disk: Arc<Disk>,
    path: PathBuf,
    // Ends the mount when it is dropped.
    _session: BackgroundSession,
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        // Lazily: files may be open still, those of an io_uring for a while after the ring is closed.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

impl LossyDisk {
    /// An empty disk at `path`, a directory that is there; its bytes lie below `backing`.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(path: &Path, backing: &Path, options: Options) -> io::Result<Self> {
        let guarded = Guarded { state: State::new(backing), power: Power::On, cuts: 0, ignore_syncs: false };
        let disk = Arc::new(Disk { guarded: Mutex::new(guarded), changed: Condvar::new(), options });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("lossy".to_owned()), MountOption::NoAtime];
        config.acl = SessionACL::Owner;
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Adapter::new(Arc::clone(&disk)), path, &config)?;
        Ok(Self { disk, path: path.to_owned(), _session: session })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops at this moment: nothing becomes durable from here on, whoever calls waits for [`Self::cut`].
    pub fn freeze(&self) {
        self.disk.guarded.lock().power = Power::Frozen;
    }

    /// The power goes: what was not synced is lost, and calls fail until [`Self::power_on`].
    ///
    /// # Errors
    /// The backing directory fails.
    pub fn cut(&self, loss: Loss) -> io::Result<Report> {
        let mut guarded = self.disk.guarded.lock();
        guarded.power = Power::Off;
        guarded.cuts += 1;
        let report = guarded.state.cut(loss);
        self.disk.changed.notify_all();
        report
    }

    /// The disk answers again. To be called when nobody of before the cut is left.
    pub fn power_on(&self) {
        self.disk.guarded.lock().power = Power::On;
        self.disk.changed.notify_all();
    }

    /// From here on syncs are answered and do nothing: for tests that show that they would notice.
    pub fn ignore_syncs(&self, ignore: bool) {
        self.disk.guarded.lock().ignore_syncs = ignore;
    }
}
