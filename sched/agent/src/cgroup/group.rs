//! The control groups of one grant: one directory in each hierarchy.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;

use super::{Controller, Hierarchy, Version, write};
use crate::config::CpuLimit;

/// What a grant may use.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    /// 1/1000 cores.
    pub cpu_milli: Option<u64>,
    pub cpu: CpuLimit,
    pub memory_bytes: Option<u64>,
    pub pids_max: u64,
}

/// The kernel's period of cpu quotas.
const PERIOD_US: u64 = 100_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// In version 2 several controllers have one directory.
    parts: Vec<(Hierarchy, PathBuf)>,
}

impl Group {
    /// Makes the groups of that name, or takes them over, and sets their limits.
    ///
    /// # Errors
    /// A limit cannot be set: the text says which.
    pub fn make(hierarchies: &[Hierarchy], name: &str, wants: &Wants) -> io::Result<Self> {
        let group = Self::of(hierarchies, name);
        for (hierarchy, path) in &group.parts {
            fs::create_dir_all(path)?;
            limit(hierarchy, path, wants)?;
        }
        Ok(group)
    }

    /// Those of that name, whether or not they are there.
    #[must_use]
    pub fn of(hierarchies: &[Hierarchy], name: &str) -> Self {
        let parts = hierarchies.iter().map(|hierarchy| (hierarchy.clone(), hierarchy.group(name))).collect();
        Self { parts }
    }

    /// No controller is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn paths(&self) -> BTreeSet<&PathBuf> {
        self.parts.iter().map(|(_, path)| path).collect()
    }

    /// Open files; a process that writes 0 to each is in the group.
    ///
    /// # Errors
    /// There is no such group.
    pub fn doors(&self) -> io::Result<Vec<File>> {
        self.paths()
            .iter()
            .map(|path| OpenOptions::new().write(true).open(path.join("cgroup.procs")))
            .collect()
    }

    /// All processes in it.
    #[must_use]
    pub fn processes(&self) -> BTreeSet<i32> {
        let texts =
            self.paths().into_iter().filter_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok());
        texts.flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// No process in it can start another one from now on: what is being killed cannot run ahead.
    pub fn forbid_forks(&self) {
        for (hierarchy, path) in &self.parts {
            if hierarchy.controller == Controller::Pids {
                let _ = write(&path.join("pids.max"), "0");
            }
        }
    }

    /// Kills all of it at once, where the kernel can (version 2).
    pub fn kill(&self) {
        for (hierarchy, path) in &self.parts {
            if hierarchy.version == Version::V2 {
                let _ = write(&path.join("cgroup.kill"), "1");
            }
        }
    }

    /// The file in which the kernel counts processes that it killed for want of memory.
    #[must_use]
    pub fn oom_file(&self) -> Option<PathBuf> {
        let memory = self.parts.iter().find(|(hierarchy, _)| hierarchy.controller == Controller::Memory)?;
        Some(memory.1.join(match memory.0.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        }))
    }

    /// Puts a process into it that ends at once.
    pub(super) fn try_once(&self) -> io::Result<()> {
        let mut command = std::process::Command::new("/bin/true");
        crate::launch::enter(&mut command, self.doors()?);
        command.status().map(|_| ())
    }

    /// Removes it; it must be empty. One that is busy still is left for the next agent.
    pub fn remove(&self) {
        for path in self.paths() {
            if let Err(error) = fs::remove_dir(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, group = %path.display(), "a control group cannot be removed");
            }
        }
    }
}

fn limit(hierarchy: &Hierarchy, path: &std::path::Path, wants: &Wants) -> io::Result<()> {
    let set = |file: &str, text: String| write(&path.join(file), &text);
    match (hierarchy.controller, hierarchy.version) {
        (Controller::Pids, _) => set("pids.max", wants.pids_max.to_string()),
        (Controller::Memory, Version::V1) => {
            let Some(bytes) = wants.memory_bytes else { return Ok(()) };
            set("memory.limit_in_bytes", bytes.to_string())?;
            // There only where swap is counted; then memory with swap may not be more either.
            if path.join("memory.memsw.limit_in_bytes").exists() {
                set("memory.memsw.limit_in_bytes", bytes.to_string())?;
            }
            Ok(())
        }
        (Controller::Memory, Version::V2) => {
            let Some(bytes) = wants.memory_bytes else { return Ok(()) };
            set("memory.max", bytes.to_string())?;
            if path.join("memory.swap.max").exists() {
                set("memory.swap.max", "0".to_owned())?;
            }
            Ok(())
        }
        (Controller::Cpu, version) => {
            let Some(milli) = wants.cpu_milli else { return Ok(()) };
            match version {
                Version::V1 => {
                    set("cpu.shares", (milli.saturating_mul(1024) / 1000).clamp(2, 262_144).to_string())?
                }
                Version::V2 => set("cpu.weight", (milli / 10).clamp(1, 10_000).to_string())?,
            }
            if wants.cpu == CpuLimit::Shares {
                return Ok(());
            }
            let quota_us = (milli.saturating_mul(PERIOD_US) / 1000).max(1000);
            match version {
                Version::V1 => {
                    set("cpu.cfs_period_us", PERIOD_US.to_string())?;
                    set("cpu.cfs_quota_us", quota_us.to_string())
                }
                Version::V2 => set("cpu.max", format!("{quota_us} {PERIOD_US}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(version: Version) -> Vec<(String, String)> {
        let root = tempfile::tempdir().unwrap();
        let of = |controller: Controller| Hierarchy { controller, version, base: root.path().into() };
        let wants =
            Wants { cpu_milli: Some(1500), cpu: CpuLimit::Quota, memory_bytes: Some(1 << 30), pids_max: 9 };
        Group::make(&Controller::ALL.map(of), "g", &wants).unwrap();
        let mut files: Vec<_> = fs::read_dir(root.path().join("g"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(file, text)| (file.to_owned(), text.to_owned())).collect()
    }

    #[test]
    fn each_version_has_its_files() {
        let v1 = [
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "150000"),
            ("cpu.shares", "1536"),
            ("memory.limit_in_bytes", "1073741824"),
            ("pids.max", "9"),
        ];
        assert_eq!(limits(Version::V1), pairs(&v1));
        let v2 = [
            ("cpu.max", "150000 100000"),
            ("cpu.weight", "150"),
            ("memory.max", "1073741824"),
            ("pids.max", "9"),
        ];
        assert_eq!(limits(Version::V2), pairs(&v2));
    }
}
