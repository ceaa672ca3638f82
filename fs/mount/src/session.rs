//! A mount's life: made, served, taken down.
//!
//! Taking down always ends: the mount leaves the tree at once (lazily if files are open), the kernel's connection is
//! given time to end by itself, then it is aborted, and whoever still waits gets an error.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use coord_types::InodeId;
use fs_client::{Caller, Errno, Op};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::fuse::{Around, Transport};
use crate::handler::Handler;
use crate::last_known::{LastKnown, Question};
use crate::mountpoint::{self, MountEntry, MountpointError};
use crate::options::{Access, MountOptions};
use crate::watch::{Table, Watchdog};

/// Why a mount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(transparent)]
    Mountpoint(#[from] MountpointError),
    #[error("/dev/fuse is missing: load the kernel module with `sudo modprobe fuse`")]
    NoDevice(#[source] io::Error),
    #[error(
        "no permission to open /dev/fuse: run as root, or join the group that owns it (`ls -l /dev/fuse`)"
    )]
    DevicePermission(#[source] io::Error),
    #[error(
        "letting other users in needs `user_allow_other` in /etc/fuse.conf: add that line, run as root, or mount \
         without --allow-other"
    )]
    OthersRefused(#[source] io::Error),
    #[error(
        "an ordinary user mounts through fusermount3, which is missing: run `sudo apt-get install fuse3`"
    )]
    NoHelper,
    #[error("mounting on {path} failed", path = path.display())]
    Mount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a thread for the mount")]
    Thread(#[source] io::Error),
}

/// How taking a mount down went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmountReport {
    /// Nobody used it.
    Clean,
    /// Files were open; they were closed in time.
    Drained,
    /// Files were open until the end; their users get errors from now on.
    Aborted,
}

/// A live mount. Dropped, it is taken down without waiting for whoever uses it.
pub struct Mounted {
    mountpoint: PathBuf,
    entry: Option<MountEntry>,
    unmounter: Arc<Mutex<SessionUnmounter>>,
    /// `Some` once the session is over, with how it ended.
    ended: watch::Receiver<Option<Result<(), Arc<io::Error>>>>,
    table: Arc<Table>,
    closed: Arc<AtomicBool>,
    // Dropped last of all: until then it lets callers go.
    _watchdog: Watchdog,
}

/// Mounts `handler`. Its futures run on `runtime`. The mount point must be ready ([`mountpoint::make_ready`]).
///
/// # Errors
/// See [`MountError`]: each says what to do.
pub fn mount<H: Handler>(
    handler: Arc<H>,
    options: &MountOptions,
    runtime: &Handle,
) -> Result<Mounted, MountError> {
    check_device()?;
    let table = Table::new();
    let known = Arc::new(LastKnown::default());
    let closed = Arc::new(AtomicBool::new(false));
    let transport = Transport::new(
        Arc::clone(&handler),
        Around {
            runtime: runtime.clone(),
            table: Arc::clone(&table),
            known: Arc::clone(&known),
            closed: Arc::clone(&closed),
            max_background: options.max_background,
            lists_attributes: options.lists_attributes,
            locks: options.locks,
            polls: options.polls,
        },
    );
    let mountpoint = options
        .mountpoint
        .canonicalize()
        .map_err(|source| MountError::Mount { path: options.mountpoint.clone(), source })?;
    let mut session = Session::new(transport, &mountpoint, &config(options))
        .map_err(|error| mount_failed(&mountpoint, error))?;
    let unmounter = Arc::new(Mutex::new(session.unmount_callable()));
    runtime.spawn(ask_first(handler, Arc::clone(&known)));
    let watchdog = Watchdog::start(Arc::clone(&table), known).map_err(MountError::Thread)?;
    let (tell, ended) = watch::channel(None);
    thread::Builder::new()
        .name("mount-session".into())
        .spawn(move || {
            let result = session.run().map_err(Arc::new);
            tell.send_replace(Some(result));
        })
        .map_err(MountError::Thread)?;
    // Not through the path: looking it up would ask ourselves.
    let entry = mountpoint::mounts()?.into_iter().rfind(|mount| mount.mountpoint == mountpoint);
    if let Some(entry) = &entry {
        raise_read_ahead(entry, options.read_ahead_kb);
    }
    Ok(Mounted { mountpoint, entry, unmounter, ended, table, closed, _watchdog: watchdog })
}

/// Asks once what must never hang, so that there is an answer to fall back on from the start.
async fn ask_first<H: Handler>(handler: Arc<H>, known: Arc<LastKnown>) {
    let caller = Caller::default();
    known.note(Question::StatFs, &handler.handle(&caller, Op::StatFs).await);
    let root = Op::GetAttr { ino: InodeId::ROOT, handle: None };
    known.note(Question::RootAttr, &handler.handle(&caller, root).await);
}

impl Mounted {
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Its line in the kernel's table, as it was after mounting.
    #[must_use]
    pub fn entry(&self) -> Option<&MountEntry> {
        self.entry.as_ref()
    }

    /// Waits until the mount is gone: unmounted by anybody, or broken.
    ///
    /// # Errors
    /// If the connection to the kernel broke.
    pub async fn ended(&self) -> Result<(), Arc<io::Error>> {
        let mut ended = self.ended.clone();
        // The sender only goes away with its thread, after it has told.
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        end.unwrap_or(Ok(()))
    }

    /// Takes the mount out of the tree. `false` if it is still in use: it then goes on for the files that are open.
    ///
    /// # Errors
    /// If it could not even be taken out of the tree.
    pub async fn detach(&self) -> Result<bool, MountpointError> {
        if self.is_over() {
            return Ok(true);
        }
        let leaving = self.leaving();
        // The kernel writes back mapped pages first, which we have to serve: never on a thread of the runtime.
        let left = tokio::task::spawn_blocking(move || leaving.leave());
        left.await.unwrap_or_else(|_| self.leaving().leave())
    }

    /// Lets the kernel write back what programs changed in mapped files. Their own fsync is not waited for otherwise
    /// when the connection is broken under them.
    pub async fn write_back(&self, deadline: Duration) -> bool {
        let path = self.mountpoint.clone();
        let sync = tokio::task::spawn_blocking(move || {
            fs::File::open(path).is_ok_and(|root| nix::unistd::syncfs(&root).is_ok())
        });
        matches!(tokio::time::timeout(deadline, sync).await, Ok(Ok(true)))
    }

    fn is_over(&self) -> bool {
        self.ended.borrow().is_some()
    }

    fn leaving(&self) -> Leaving {
        Leaving {
            unmounter: Arc::clone(&self.unmounter),
            mountpoint: self.mountpoint.clone(),
            entry: self.entry.clone(),
        }
    }

    /// Waits `grace` for the connection to end by itself and then breaks it.
    pub async fn finish(&self, grace: Duration) -> UnmountReport {
        if self.over_within(Duration::from_millis(200)).await {
            return UnmountReport::Clean;
        }
        if self.over_within(grace).await {
            return UnmountReport::Drained;
        }
        self.abort();
        UnmountReport::Aborted
    }

    /// Breaks the connection: every request, waiting or new, fails with ENOTCONN or ECONNABORTED.
    pub fn abort(&self) {
        // We refuse what still comes, whether or not the kernel can be told to.
        self.closed.store(true, Ordering::Release);
        self.table.give_up_all(Errno::ENOTCONN);
        let Some(entry) = &self.entry else { return };
        // Where fusectl is not mounted, closing /dev/fuse with the end of this process does the same.
        let path = format!("/sys/fs/fuse/connections/{}/abort", entry.minor);
        if let Err(error) = fs::write(&path, "1") {
            tracing::debug!(path, %error, "the connection ends with this process");
        }
    }

    async fn over_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.ended()).await.is_ok()
    }
}

/// What it takes to leave the tree.
struct Leaving {
    unmounter: Arc<Mutex<SessionUnmounter>>,
    mountpoint: PathBuf,
    entry: Option<MountEntry>,
}

impl Leaving {
    /// `false` if the mount is still in use. Blocks.
    fn leave(&self) -> Result<bool, MountpointError> {
        if self.unmounter.lock().unmount().is_ok() {
            return Ok(true);
        }
        // Only if it is still ours that stands there.
        let there = mountpoint::mounts()?.into_iter().rfind(|mount| mount.mountpoint == self.mountpoint);
        if there.is_some() && there == self.entry {
            mountpoint::clear(&self.mountpoint)?;
        }
        Ok(false)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_over() {
            return;
        }
        match self.leaving().leave() {
            Ok(true) => {}
            Ok(false) => self.abort(),
            Err(error) => tracing::warn!(%error, "a mount was left behind"),
        }
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounted").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.acl = match options.access {
        Access::Everybody => SessionACL::All,
        Access::Owner => SessionACL::Owner,
    };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let wanted = [
        (true, MountOption::FSName(options.fs_name.clone())),
        // The kernel takes it as an option; fuser would only pass its own `Subtype` on to fusermount3.
        (true, MountOption::CUSTOM(format!("subtype={}", options.fs_type))),
        (true, MountOption::DefaultPermissions),
        (options.read_only, MountOption::RO),
        (options.set_id, MountOption::Suid),
        (options.devices, MountOption::Dev),
        (options.no_exec, MountOption::NoExec),
    ];
    config.mount_options = wanted.into_iter().filter(|(on, _)| *on).map(|(_, option)| option).collect();
    config
}

fn check_device() -> Result<(), MountError> {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Err(MountError::NoDevice(error)),
            io::ErrorKind::PermissionDenied => Err(MountError::DevicePermission(error)),
            _ => Err(MountError::NoDevice(error)),
        },
    }
}

/// What an error of mounting means.
fn mount_failed(path: &Path, error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => MountError::OthersRefused(error),
        io::ErrorKind::NotFound => MountError::NoHelper,
        _ => MountError::Mount { path: path.to_owned(), source: error },
    }
}

/// The kernel reads 128 KiB ahead unless told otherwise, and INIT cannot ask for more. Only root may; for others
/// buffered reads stay slower.
fn raise_read_ahead(entry: &MountEntry, kb: u32) {
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", entry.major, entry.minor);
    if let Err(error) = fs::write(&path, kb.to_string()) {
        tracing::info!(path, %error, "cannot raise the read-ahead; buffered reads will be slower");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_mount_options() {
        let mut options = MountOptions::new("/mnt/x");
        let plain = config(&options);
        assert_eq!(plain.acl, SessionACL::All);
        assert!(plain.mount_options.contains(&MountOption::DefaultPermissions));
        assert!(!plain.mount_options.contains(&MountOption::RO));
        options.read_only = true;
        options.set_id = true;
        options.access = Access::Owner;
        let other = config(&options);
        assert_eq!(other.acl, SessionACL::Owner);
        assert!(
            other.mount_options.contains(&MountOption::RO)
                && other.mount_options.contains(&MountOption::Suid)
        );
    }

    #[test]
    fn errors_say_what_to_do() {
        let path = Path::new("/mnt/x");
        let denied = mount_failed(path, io::ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().contains("user_allow_other"), "{denied}");
        let missing = mount_failed(path, io::ErrorKind::NotFound.into());
        assert!(missing.to_string().contains("fuse3"), "{missing}");
    }
}
