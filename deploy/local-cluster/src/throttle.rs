//! Slow disks: the kernel lets a process write to a device a few times a second only (cgroup `blkio.throttle`, or `io.max` of
//! version two). Device-mapper's delay is not in every kernel, and this is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::error::Error;

/// A process that is held back; dropping it lets the process go.
#[derive(Debug)]
pub struct Throttle {
    folder: PathBuf,
}

impl Throttle {
    /// Whether this kernel can do it, for this user.
    #[must_use]
    pub fn is_possible() -> bool {
        nix::unistd::geteuid().is_root() && Version::find().is_some()
    }

    /// Lets a process write only so often to the device of the file system that `below` is in.
    pub fn start(below: &Path, pid: u32, writes_per_s: u64) -> Result<Self, Error> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { action, path, source }
        };
        let version = Version::find().ok_or_else(|| io::ErrorKind::Unsupported.into());
        let version = version.map_err(failed("find what limits disks in", Path::new("/sys/fs/cgroup")))?;
        let device = device(below).map_err(failed("find the device of", below))?;
        let name = format!("feitian-{}-{pid}-{}", std::process::id(), device.replace(':', "-"));
        let folder = Path::new(version.folder()).join(name);
        fs::create_dir(&folder).map_err(failed("make", &folder))?;
        // From here on it is removed, whatever fails.
        let throttle = Self { folder };
        let (file, line) = match version {
            Version::One => ("blkio.throttle.write_iops_device", format!("{device} {writes_per_s}")),
            Version::Two => ("io.max", format!("{device} wiops={writes_per_s}")),
        };
        let limit = throttle.folder.join(file);
        fs::write(&limit, line).map_err(failed("write", &limit))?;
        let members = throttle.folder.join("cgroup.procs");
        fs::write(&members, pid.to_string()).map_err(failed("write", &members))?;
        Ok(throttle)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let Some(parent) = self.folder.parent() else { return };
        for pid in fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default().lines() {
            // It may have ended meanwhile.
            drop(fs::write(parent.join("cgroup.procs"), pid));
        }
        drop(fs::remove_dir(&self.folder));
    }
}

/// "8:0": the disk, also if the file system is on a part of it; limits are for whole disks only.
fn device(below: &Path) -> io::Result<String> {
    let number = fs::metadata(below)?.dev();
    let own = format!("{}:{}", major(number), minor(number));
    let about = fs::canonicalize(format!("/sys/dev/block/{own}"))?;
    if !about.join("partition").exists() {
        return Ok(own);
    }
    let whole = about.parent().ok_or(io::ErrorKind::NotFound)?;
    Ok(fs::read_to_string(whole.join("dev"))?.trim().to_owned())
}

/// Control groups have two.
#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Version {
    fn find() -> Option<Self> {
        if Path::new("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device").exists() {
            return Some(Self::One);
        }
        let on = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+io");
        on.is_ok().then_some(Self::Two)
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::One => "/sys/fs/cgroup/blkio",
            Self::Two => "/sys/fs/cgroup",
        }
    }
}
