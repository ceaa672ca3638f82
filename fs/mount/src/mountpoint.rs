//! What stands where a mount is wanted: nothing yet, a live mount, or the remains of one whose process died.
//!
//! Every question is put to `/proc/self/mountinfo` first. Touching the path itself can hang (a file system whose
//! process is stopped) or fail with "Transport endpoint is not connected" (one whose process died).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

/// The type of our mounts in `/proc/mounts`.
pub const FS_TYPE: &str = "fuse.pangu";
/// Dead mounts of these are cleared away.
const OUR_TYPES: [&str; 2] = [FS_TYPE, "fuse.nuwa"];
/// How long a live file system may take to say so.
const PROBE: Duration = Duration::from_secs(2);
/// Dead mounts piled on one path that are cleared in one go.
const STALE_MAX: usize = 16;

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    pub major: u32,
    pub minor: u32,
    pub mountpoint: PathBuf,
    pub fs_type: String,
    pub source: String,
}

/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// A directory that is no mount point.
    Directory { empty: bool },
    /// A mount whose process is gone.
    Stale(MountEntry),
    /// A mount that answers, or at least does not say it is dead.
    Mounted(MountEntry),
}

/// Why a path cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum MountpointError {
    #[error("mount point {path} does not exist: create it with `mkdir -p {path}`", path = .0.display())]
    Missing(PathBuf),
    #[error("mount point {path} is not a directory: choose one, or create it with `mkdir -p`", path = .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "{path} is a mount point already ({kind}, {source_name}): unmount it with `umount {path}` or choose another",
        path = path.display()
    )]
    Mounted { path: PathBuf, kind: String, source_name: String },
    #[error(
        "{path} holds the remains of a mount whose process died (\"Transport endpoint is not connected\"), and \
         clearing it was refused: run `{command}`",
        path = path.display()
    )]
    Stale { path: PathBuf, command: String },
    #[error("cannot look at mount point {path}", path = path.display())]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read /proc/self/mountinfo")]
    Mountinfo(#[source] io::Error),
}

/// All mounts, in the order they were made.
///
/// # Errors
/// If `/proc` is not there.
pub fn mounts() -> Result<Vec<MountEntry>, MountpointError> {
    let text = fs::read("/proc/self/mountinfo").map_err(MountpointError::Mountinfo)?;
    Ok(parse(&text))
}

/// The mount that `path` itself is the root of, if any; the newest if several are piled up.
///
/// # Errors
/// See [`MountpointError`].
pub fn mount_at(path: &Path) -> Result<Option<MountEntry>, MountpointError> {
    let path = absolute(path)?;
    Ok(mounts()?.into_iter().rfind(|mount| mount.mountpoint == path))
}

/// The mount that `path` lies in.
///
/// # Errors
/// See [`MountpointError`].
pub fn mount_of(path: &Path) -> Result<Option<MountEntry>, MountpointError> {
    let path = absolute(path)?;
    let depth = |mount: &MountEntry| mount.mountpoint.components().count();
    // Of equal depth the later one is on top.
    Ok(mounts()?.into_iter().filter(|mount| path.starts_with(&mount.mountpoint)).max_by_key(depth))
}

/// Says what stands at `path`.
///
/// # Errors
/// See [`MountpointError`].
pub fn look(path: &Path) -> Result<Standing, MountpointError> {
    if let Some(mount) = mount_at(path)? {
        let dead = mount.fs_type.starts_with("fuse") && probe(&mount.mountpoint) == Probe::Dead;
        return Ok(if dead { Standing::Stale(mount) } else { Standing::Mounted(mount) });
    }
    let failed = |source| MountpointError::Look { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountpointError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory => MountpointError::NotADirectory(path.to_owned()),
        _ => failed(error),
    })?;
    if !meta.is_dir() {
        return Err(MountpointError::NotADirectory(path.to_owned()));
    }
    // A directory we may not list may still be mounted on; call it empty then.
    let empty = fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    Ok(Standing::Directory { empty })
}

/// What [`make_ready`] did and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Dead mounts that were cleared away.
    pub cleared: usize,
    /// The directory holds something, which the mount will hide.
    pub hides_files: bool,
}

/// Makes sure that `path` can be mounted on, clearing away dead Pangu mounts.
///
/// # Errors
/// See [`MountpointError`]: each says what to do.
pub fn make_ready(path: &Path) -> Result<Ready, MountpointError> {
    let mut ready = Ready::default();
    loop {
        match look(path)? {
            Standing::Directory { empty } => {
                ready.hides_files = !empty;
                return Ok(ready);
            }
            Standing::Stale(mount) if OUR_TYPES.contains(&&*mount.fs_type) && ready.cleared < STALE_MAX => {
                clear(&mount.mountpoint)?;
                ready.cleared += 1;
            }
            Standing::Stale(mount) => return Err(stale(&mount.mountpoint)),
            Standing::Mounted(mount) => {
                return Err(MountpointError::Mounted {
                    path: path.to_owned(),
                    kind: mount.fs_type,
                    source_name: mount.source,
                });
            }
        }
    }
}

/// Takes a mount out of the tree at once; it ends when its last file is closed.
///
/// # Errors
/// [`MountpointError::Stale`] with the command to run, if neither we nor fusermount3 may do it.
pub fn clear(path: &Path) -> Result<(), MountpointError> {
    if umount2(path, MntFlags::MNT_DETACH).is_ok() {
        return Ok(());
    }
    // Ordinary users unmount through the set-user-id helper.
    let helped = Command::new("fusermount3").args(["-u", "-z", "-q", "--"]).arg(path).status();
    if helped.is_ok_and(|status| status.success()) { Ok(()) } else { Err(stale(path)) }
}

fn stale(path: &Path) -> MountpointError {
    MountpointError::Stale { path: path.to_owned(), command: format!("sudo umount -l {}", path.display()) }
}

#[derive(Debug, PartialEq, Eq)]
enum Probe {
    Alive,
    Dead,
    /// No answer in time: somebody is there, but busy or stopped.
    Silent,
}

/// Asks a mounted file system how full it is, which no cache of the kernel answers: for a second after its death the
/// root's attributes still come from there. In a thread of its own, which is left behind if it hangs.
fn probe(path: &Path) -> Probe {
    let (tell, told) = mpsc::sync_channel(1);
    let path = path.to_owned();
    let asker = thread::Builder::new().name("mount-probe".into()).spawn(move || {
        let _ = tell.send(nix::sys::statvfs::statvfs(&path).err().map(|errno| errno as i32));
    });
    if asker.is_err() {
        return Probe::Silent;
    }
    match told.recv_timeout(PROBE) {
        Ok(Some(libc::ENOTCONN | libc::ECONNABORTED)) => Probe::Dead,
        Ok(_) => Probe::Alive,
        Err(_) => Probe::Silent,
    }
}

/// `path` without symbolic links, as mountinfo has it. The last component is not followed through the file system
/// that may be dead there: reading a link of a dead mount fails, so its parent is resolved and the name kept.
fn absolute(path: &Path) -> Result<PathBuf, MountpointError> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let failed = |source| MountpointError::Look { path: path.to_owned(), source };
    let whole = std::path::absolute(path).map_err(failed)?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else { return Ok(whole) };
    // Of a path that is not there, the part that is does for comparing.
    Ok(parent.canonicalize().unwrap_or_else(|_| parent.to_owned()).join(name))
}

/// Parses mountinfo, see proc(5). Lines it does not understand are left out.
fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mountpoint = unescape(fields.nth(1)?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = OsString::from_vec(unescape(rest.next()?)).to_string_lossy().into_owned();
    Some(MountEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        fs_type,
        source,
    })
}

/// Turns `\040` and its like into the bytes they stand for.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(&byte) = field.get(at) {
        let octal = field.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                out.push(value);
                at += 4;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mountinfo() {
        let text = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            51 27 0:45 / /mnt/a\\040b rw,nosuid shared:7 master:2 - fuse.pangu pangu:embedded rw,user_id=0\nrubbish\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].mountpoint, Path::new("/"));
        assert_eq!(
            mounts[1],
            MountEntry {
                major: 0,
                minor: 45,
                mountpoint: "/mnt/a b".into(),
                fs_type: "fuse.pangu".into(),
                source: "pangu:embedded".into(),
            }
        );
    }

    #[test]
    fn says_what_is_wrong_with_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert_eq!(look(path).unwrap(), Standing::Directory { empty: true });
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(make_ready(path).unwrap(), Ready { cleared: 0, hides_files: true });
        let missing = make_ready(&path.join("missing")).unwrap_err();
        assert!(missing.to_string().contains("mkdir -p"), "{missing}");
        let file = make_ready(&path.join("file")).unwrap_err();
        assert!(file.to_string().contains("is not a directory"), "{file}");
        let mounted = make_ready(Path::new("/proc")).unwrap_err();
        assert!(mounted.to_string().contains("mount point already (proc, proc)"), "{mounted}");
    }

    #[test]
    fn finds_the_mount_a_path_lies_in() {
        assert_eq!(mount_of(Path::new("/proc/self/status")).unwrap().unwrap().fs_type, "proc");
        let dir = tempfile::tempdir().unwrap();
        assert!(mount_at(dir.path()).unwrap().is_none());
    }
}
