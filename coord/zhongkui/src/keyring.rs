//! Files with keys and capabilities. A secret key is written so that only its owner can read it, and not read if others could.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::capability::Capability;
use crate::crypto::{PublicKey, SecretKey};
use crate::text::{self, BadText};
use crate::unverified::UnverifiedCapability;

/// The largest file that is read: a capability and what people write above it.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Read and write, by the owner only.
const OWNER_ONLY: u32 = 0o600;
/// Read by all.
const READABLE: u32 = 0o644;
/// What nobody but the owner may have.
const OTHERS: u32 = 0o077;

/// A file that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("{verb} {}", .path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{}", .path.display())]
    Content { path: PathBuf, source: BadText },
    #[error("{} has more than {FILE_BYTES_MAX} bytes: it is no file of a key or capability", .0.display())]
    TooLarge(PathBuf),
    #[error("{} can be read or written by others (mode {mode:04o}): chmod 600 {}", .path.display(), .path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} belongs to uid {owner}, not to this program's user: copy it to a file of your own", .path.display())]
    NotOwned { path: PathBuf, owner: u32 },
    #[error("{} is there already: choose another name, or remove it if nobody needs it any more", .0.display())]
    Exists(PathBuf),
}

/// # Errors
/// It cannot be read, has no key, or others can read it.
pub fn read_secret_key(path: &Path) -> Result<SecretKey, KeyringError> {
    let io = |source| KeyringError::Io { verb: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // Of the open file, so that nothing comes between the look and the reading.
    let metadata = file.metadata().map_err(io)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & OTHERS != 0 {
        return Err(KeyringError::Exposed { path: path.to_owned(), mode });
    }
    let user = nix::unistd::geteuid();
    if owner != user.as_raw() && !user.is_root() {
        return Err(KeyringError::NotOwned { path: path.to_owned(), owner });
    }
    parse(path, &read(path, file)?, text::read_secret_key)
}

/// # Errors
/// It cannot be read, or has no key.
pub fn read_public_key(path: &Path) -> Result<PublicKey, KeyringError> {
    parse(path, &open_and_read(path)?, text::read_public_key)
}

/// # Errors
/// It cannot be read, or has no capability.
pub fn read_capability(path: &Path) -> Result<UnverifiedCapability, KeyringError> {
    parse(path, &open_and_read(path)?, text::read_capability)
}

/// A new file, with mode 0600.
///
/// # Errors
/// It is there already, or cannot be written.
pub fn write_secret_key(path: &Path, key: &SecretKey) -> Result<(), KeyringError> {
    put(path, &secret_key_text(key), OWNER_ONLY, Existing::Keep)
}

/// A new file.
///
/// # Errors
/// It is there already, or cannot be written.
pub fn write_public_key(path: &Path, key: &PublicKey) -> Result<(), KeyringError> {
    put(path, &public_key_text(key), READABLE, Existing::Keep)
}

/// A new file, with what it says above it, for people. Not secret: only its holder can use it.
///
/// # Errors
/// It is there already, or cannot be written.
pub fn write_capability(path: &Path, capability: &Capability) -> Result<(), KeyringError> {
    put(path, &capability_text(capability), READABLE, Existing::Keep)
}

/// In the place of another, or new: whole at every moment.
///
/// # Errors
/// It cannot be written.
pub fn replace_secret_key(path: &Path, key: &SecretKey) -> Result<(), KeyringError> {
    put(path, &secret_key_text(key), OWNER_ONLY, Existing::Replace)
}

/// In the place of another, or new.
///
/// # Errors
/// It cannot be written.
pub fn replace_public_key(path: &Path, key: &PublicKey) -> Result<(), KeyringError> {
    put(path, &public_key_text(key), READABLE, Existing::Replace)
}

/// In the place of another, or new.
///
/// # Errors
/// It cannot be written.
pub fn replace_capability(path: &Path, capability: &Capability) -> Result<(), KeyringError> {
    put(path, &capability_text(capability), READABLE, Existing::Replace)
}

fn secret_key_text(key: &SecretKey) -> String {
    format!("{}\n", text::write_secret_key(key))
}

fn public_key_text(key: &PublicKey) -> String {
    format!("# key {}\n{}\n", key.id(), text::write_public_key(key))
}

fn capability_text(capability: &Capability) -> String {
    let said: String = capability.to_string().lines().map(|line| format!("# {line}\n")).collect();
    format!("{said}{}\n", text::write_capability(capability))
}

fn open_and_read(path: &Path) -> Result<String, KeyringError> {
    let file = File::open(path).map_err(|source| KeyringError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    })?;
    read(path, file)
}

fn read(path: &Path, file: File) -> Result<String, KeyringError> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|source| KeyringError::Io { verb: "read", path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_BYTES_MAX { Err(KeyringError::TooLarge(path.to_owned())) } else { Ok(text) }
}

fn parse<T>(path: &Path, text: &str, parse: impl Fn(&str) -> Result<T, BadText>) -> Result<T, KeyringError> {
    parse(text).map_err(|source| KeyringError::Content { path: path.to_owned(), source })
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy)]
enum Existing {
    Keep,
    Replace,
}

/// A file appears whole or not at all: written beside, synced, put in its place, and the folder
/// synced. A crash leaves nothing, or a file that begins with a dot, or all of it. The mode is there from the first byte on.
fn put(path: &Path, text: &str, mode: u32, existing: Existing) -> Result<(), KeyringError> {
    let io = |verb| move |source| KeyringError::Io { verb, path: path.to_owned(), source };
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new()
        .make_in(folder, |beside| OpenOptions::new().write(true).create_new(true).mode(mode).open(beside))
        .map_err(io("write"))?;
    file.write_all(text.as_bytes()).map_err(io("write"))?;
    file.as_file().sync_all().map_err(io("sync"))?;
    let persisted = match existing {
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    persisted.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => KeyringError::Exists(path.to_owned()),
        _ => io("write")(error.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of"))
}
