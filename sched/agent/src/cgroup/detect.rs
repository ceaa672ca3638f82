//! Which controllers can be used here, tried by doing it once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupUse, Controller, Group, Hierarchy, Version, Wants, write};
use crate::config::CpuLimit;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Detected {
    pub hierarchies: Vec<Hierarchy>,
    /// Controllers that cannot be used, and why, for people.
    pub missing: BTreeMap<Controller, String>,
}

impl Detected {
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controller == controller)
    }
}

impl Detected {
    /// Removes the agent's own groups; those in which something runs stay.
    pub fn remove(&self) {
        for hierarchy in &self.hierarchies {
            if let Err(error) = fs::remove_dir(&hierarchy.base) {
                tracing::debug!(%error, group = %hierarchy.base.display(), "the agent's control group stays");
            }
        }
    }
}

/// Where a controller is: its mount, and this process's group in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    version: Version,
    mount: PathBuf,
    own: PathBuf,
}

/// Looks at this machine. `name` is that of the agent's group.
#[must_use]
pub fn detect(usage: CgroupUse, name: &str) -> Detected {
    let mut detected = Detected::default();
    if usage == CgroupUse::Off {
        for controller in Controller::ALL {
            detected.missing.insert(controller, "the agent was told to use no control groups".to_owned());
        }
        return detected;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for controller in Controller::ALL {
        let found = place(controller, &mounts, &own)
            .ok_or_else(|| "no control groups of this kind are mounted".to_owned())
            .and_then(|place| try_place(controller, &place, usage, name));
        match found {
            Ok(hierarchy) => detected.hierarchies.push(hierarchy),
            Err(why) => {
                detected.missing.insert(controller, why);
            }
        }
    }
    detected
}

/// Reads where a controller is from what the kernel says of mounts and of this process.
fn place(controller: Controller, mounts: &str, own: &str) -> Option<Place> {
    // ID:CONTROLLERS:PATH, of which version 2 has neither an id nor controllers.
    let line = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            wanted(controllers).then(|| PathBuf::from(path.trim_start_matches('/')))
        })
    };
    let name = controller.name();
    if let Some(own) = line(&|controllers| controllers.split(',').any(|one| one == name)) {
        let is_it = |kind: &str, options: &str| kind == "cgroup" && options.split(',').any(|one| one == name);
        return Some(Place { version: Version::V1, mount: mount(mounts, is_it)?, own });
    }
    let own = line(&str::is_empty)?;
    let mount = mount(mounts, |kind, _| kind == "cgroup2")?;
    let offered = fs::read_to_string(mount.join(&own).join("cgroup.controllers")).ok()?;
    offered.split_whitespace().any(|one| one == name).then_some(Place { version: Version::V2, mount, own })
}

/// The first mount of a kind: `… MOUNT_POINT OPTIONS … - KIND SOURCE SUPER_OPTIONS`.
fn mount(mounts: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        is_it(kind, options).then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn try_place(
    controller: Controller,
    place: &Place,
    usage: CgroupUse,
    name: &str,
) -> Result<Hierarchy, String> {
    let own = place.mount.join(&place.own);
    let is_root = place.own.as_os_str().is_empty();
    if usage == CgroupUse::Own && !is_root && !is_delegated(&own) {
        return Err(format!(
            "the agent runs in the control group {}, which was not delegated to it",
            own.display()
        ));
    }
    let hierarchy = Hierarchy { controller, version: place.version, base: own.join(name) };
    try_hierarchy(&hierarchy, &own).map_err(|error| error.to_string())?;
    Ok(hierarchy)
}

/// The mark that systemd leaves on what it delegates.
fn is_delegated(group: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = std::ffi::CString::new(group.as_os_str().as_bytes()) else { return false };
    [c"trusted.delegate", c"user.delegate"].iter().any(|name| {
        let mut value = [0u8; 8];
        // SAFETY: two C strings, and a buffer of the length that is given.
        let len =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        usize::try_from(len).is_ok_and(|len| value[..len] == *b"1")
    })
}

/// Makes the agent's group, and a grant's in it, limits it, puts a process into it, and removes it.
fn try_hierarchy(hierarchy: &Hierarchy, own: &Path) -> io::Result<()> {
    if hierarchy.version == Version::V2 {
        pass_on(own, hierarchy.controller)?;
    }
    match fs::create_dir(&hierarchy.base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if hierarchy.version == Version::V2 {
        pass_on(&hierarchy.base, hierarchy.controller)?;
    }
    let wants =
        Wants { cpu_milli: Some(1000), cpu: CpuLimit::Shares, memory_bytes: Some(64 << 20), pids_max: 64 };
    let group = Group::make(std::slice::from_ref(hierarchy), "probe", &wants)?;
    let tried = group.try_once();
    group.remove();
    tried
}

/// Groups below may use the controller. A group of version 2 that does this has no processes itself, so the agent moves into one below.
fn pass_on(group: &Path, controller: Controller) -> io::Result<()> {
    let control = group.join("cgroup.subtree_control");
    let text = format!("+{}", controller.name());
    match write(&control, &text) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let leaf = group.join("fuxi-agent");
            fs::create_dir_all(&leaf)?;
            write(&leaf.join("cgroup.procs"), "0")?;
            write(&control, &text)
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n\
        31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn controllers_are_found_where_they_are_mounted() {
        let own = "5:cpu,cpuacct:/\n4:memory:/a/b\n0::/c\n";
        let cpu = place(Controller::Cpu, MOUNTS, own).unwrap();
        let expected =
            Place { version: Version::V1, mount: "/sys/fs/cgroup/cpu".into(), own: PathBuf::new() };
        assert_eq!(cpu, expected);
        assert_eq!(place(Controller::Memory, MOUNTS, own).unwrap().own, PathBuf::from("a/b"));
        assert_eq!(place(Controller::Pids, MOUNTS, own), None, "version 2 is mounted and does not offer it");
    }

    #[test]
    fn version_2_is_used_for_what_it_offers() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("unit")).unwrap();
        fs::write(root.path().join("unit/cgroup.controllers"), "cpu memory\n").unwrap();
        let mounts = format!("33 30 0:29 / {} rw - cgroup2 cgroup2 rw\n", root.path().display());
        let memory = place(Controller::Memory, &mounts, "0::/unit\n").unwrap();
        assert_eq!((memory.version, memory.own), (Version::V2, PathBuf::from("unit")));
        assert_eq!(place(Controller::Pids, &mounts, "0::/unit\n"), None);
    }

    #[test]
    fn a_group_of_somebody_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("theirs")).unwrap();
        let place = Place { version: Version::V1, mount: root.path().into(), own: "theirs".into() };
        let why = try_place(Controller::Memory, &place, CgroupUse::Own, "fuxi").unwrap_err();
        assert!(why.contains("not delegated"), "{why}");
        assert_eq!(fs::read_dir(root.path().join("theirs")).unwrap().count(), 0);
    }
}
