//! Which processes use a mount: for the message that says why it is not gone yet.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// More names would not help.
const SHOWN_MAX: usize = 5;

/// It is not known who.
pub(crate) const SOMEBODY: &str = "somebody";
/// The kernel makes who reads these links wait for a process that is within execve, and that one may be waiting for the mount.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// As [`of`], or [`SOMEBODY`] if that takes too long. The thread that looks goes on, and ends at the latest with the mount.
pub(crate) async fn of_soon(mountpoint: &Path) -> String {
    let (tell, told) = tokio::sync::oneshot::channel();
    let mountpoint = mountpoint.to_owned();
    let looking = std::thread::Builder::new().name("mount-users".into()).spawn(move || {
        let _late = tell.send(of(&mountpoint));
    });
    match (looking, tokio::time::timeout(LOOK_MAX, told).await) {
        (Ok(_), Ok(Ok(users))) => users,
        _ => SOMEBODY.to_owned(),
    }
}

/// "cat (pid 17), bash (pid 5)": processes with a file, a working directory or a root below `mountpoint`. Empty if none
/// can be seen. Reads links of /proc only, which never asks the mounted file system.
fn of(mountpoint: &Path) -> String {
    let Ok(processes) = fs::read_dir("/proc") else { return String::new() };
    let mut users: Vec<String> = processes
        .flatten()
        .filter(|process| process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter(|process| uses(&process.path(), mountpoint))
        .map(|process| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("{} (pid {})", name.trim(), process.file_name().display())
        })
        .take(SHOWN_MAX + 1)
        .collect();
    if users.len() > SHOWN_MAX {
        users[SHOWN_MAX] = "...".to_owned();
    }
    users.join(", ")
}

fn uses(process: &Path, mountpoint: &Path) -> bool {
    let points = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint));
    if points(&process.join("cwd")) || points(&process.join("root")) {
        return true;
    }
    fs::read_dir(process.join("fd")).is_ok_and(|mut fds| fds.any(|fd| fd.is_ok_and(|fd| points(&fd.path()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_who_holds_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert_eq!(of(&path), "");
        let _held = fs::File::create(path.join("held")).unwrap();
        assert!(of(&path).contains(&format!("(pid {})", std::process::id())), "{}", of(&path));
    }
}
