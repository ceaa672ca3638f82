//! A file system of its own for each chunkserver, in a file: to be filled, and to be slowed.
//!
//! Slow is a disk whose writes the kernel lets through a few at a time, as of a process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use deploy_local_cluster::Throttle;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

/// Of each: several segments, and room for the store's records.
const SIZE_BYTES: u64 = 4 << 30;
/// What is left of a disk when it is full: nothing, in blocks of this size.
const STEP_BYTES: u64 = 64 << 10;
/// Writes a second that a slow disk does.
const SLOW_WRITES: u64 = 40;

/// A disk; dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct Disk {
    device: PathBuf,
    point: PathBuf,
    throttle: Option<Throttle>,
}

impl Disk {
    /// Makes one below `folder` and puts a link to it where a server expects its data directory.
    pub(crate) fn make(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let image = folder.join(format!("{name}.img"));
        fs::File::create(&image)?.set_len(SIZE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1"]).arg(&image))?;
        let point = folder.join(format!("{name}.disk"));
        fs::create_dir(&point)?;
        let text = run(Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(&image))?;
        let device = PathBuf::from(text.trim());
        let disk = Self { device, point, throttle: None };
        mount(Some(&disk.device), &disk.point, Some("ext4"), MsFlags::MS_NOATIME, None::<&str>)
            .with_context(|| format!("mount {}", disk.device.display()))?;
        // From here on it goes with its mount.
        run(Command::new("losetup").arg("--detach").arg(&disk.device))?;
        fs::create_dir(disk.point.join("data"))?;
        symlink(disk.point.join("data"), folder.join(name))?;
        Ok(disk)
    }

    /// Where the server has its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.point.join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.point.join("ballast")
    }

    /// Takes all space that is left.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let file = fs::File::create(self.ballast())?;
        let mut length = 0;
        loop {
            let stat = statvfs(&self.point)?;
            let mut step = (stat.blocks_available() * stat.fragment_size()).max(STEP_BYTES);
            loop {
                let taken = nix::fcntl::fallocate(
                    &file,
                    nix::fcntl::FallocateFlags::empty(),
                    i64::try_from(length)?,
                    i64::try_from(step)?,
                );
                match taken {
                    Ok(()) => break,
                    Err(nix::errno::Errno::ENOSPC) if step > STEP_BYTES => step /= 2,
                    Err(nix::errno::Errno::ENOSPC) => return Ok(()),
                    Err(errno) => return Err(errno).context("fill a disk"),
                }
            }
            length += step;
        }
    }

    /// Gives the space back.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.ballast()).context("free a disk")
    }

    /// Lets a process write to it a few times a second only.
    pub(crate) fn slow(&mut self, pid: u32) -> anyhow::Result<()> {
        self.throttle = Some(Throttle::start(&self.point, pid, SLOW_WRITES)?);
        Ok(())
    }

    /// As fast as before.
    pub(crate) fn fast(&mut self) {
        self.throttle = None;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.fast();
        if umount2(&self.point, MntFlags::empty()).is_err() {
            let _later = umount2(&self.point, MntFlags::MNT_DETACH);
        }
    }
}

pub(crate) const NO_THROTTLE: &str =
    "this kernel limits no disks: neither cgroup blkio.throttle nor io.max is there";

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_filled_and_freed() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("only root can mount: not tested");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::make(folder.path(), "one").unwrap();
        let data = folder.path().join("one");
        fs::write(data.join("before"), b"x").unwrap();
        disk.fill().unwrap();
        let full = fs::write(data.join("after"), vec![1; 200_000]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        disk.free().unwrap();
        fs::write(data.join("after"), vec![1; 200_000]).unwrap();
        let point = disk.point.clone();
        drop(disk);
        assert!(!point.join("data").exists(), "unmounted");
    }
}
