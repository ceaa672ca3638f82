//! Reading files of a job: they belong to somebody else, who may have put anything there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::fcntl::OFlag;

/// Of a text that is for people, as much as they can read.
pub(crate) const TEXT_MAX_BYTES: u64 = 1 << 20;

/// Opens a regular file. Not through a symbolic link, which could lead whoever looks, or writes, to files of their own; and
/// without waiting for the other end of a pipe.
///
/// # Errors
/// The system's; `InvalidInput` if it is no regular file.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

/// The beginning of a text; `None` if there is no such file.
///
/// # Errors
/// It is there and can not be read.
pub(crate) fn text(path: &Path) -> anyhow::Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = open(path, OpenOptions::new().read(true))
        .and_then(|file| file.take(TEXT_MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
