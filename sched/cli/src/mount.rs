//! Where Pangu is mounted, if nobody says so: what the kernel's table of mounts and the current directory tell.

use std::path::{Path, PathBuf};

/// What `mount` shows as the type of a Pangu mount.
const FS_TYPE: &str = "fuse.pangu";
/// If nothing is mounted that could be meant.
const DEFAULT: &str = "/mnt/pangu";

/// Why it is not known which mount is meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} Pangu mounts are here, {mounts}: say which is meant with --mount DIR, or go there", count)]
pub(crate) struct Ambiguous {
    count: usize,
    mounts: String,
}

/// The mount to use.
///
/// # Errors
/// Several could be meant.
pub(crate) fn find(flag: Option<&Path>) -> Result<PathBuf, Ambiguous> {
    if let Some(mount) = flag.filter(|mount| !mount.as_os_str().is_empty()) {
        return Ok(mount.to_owned());
    }
    // Without a current directory nothing is to be found by it, and that is no reason to fail.
    let here = std::env::current_dir().unwrap_or_default();
    choose(&mounts(&table()), &here)
}

/// The description of the cluster that is mounted where [`find`] says: what the mount was made of. `None` if nothing is.
pub(crate) fn description(flag: Option<&Path>) -> Option<PathBuf> {
    let place = std::path::absolute(find(flag).ok()?).ok()?;
    mounted_at(mounts(&table()), &place)
}

fn mounted_at(mounts: Vec<Mount>, place: &Path) -> Option<PathBuf> {
    let mut pangu = mounts.into_iter().filter(|mount| mount.is_pangu);
    pangu.find(|mount| mount.place == place).map(|mount| mount.source)
}

struct Mount {
    source: PathBuf,
    place: PathBuf,
    is_pangu: bool,
}

/// Without the table there are no mounts to be found, and that is no reason to fail.
fn table() -> String {
    let table = std::fs::read("/proc/self/mounts").unwrap_or_default();
    String::from_utf8_lossy(&table).into_owned()
}

/// What is to be seen: what was mounted last on a place, or above it, hides what was there.
fn mounts(table: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for line in table.lines() {
        let mut fields = line.split(' ');
        if let (Some(source), Some(place), Some(fs_type)) = (fields.next(), fields.next(), fields.next()) {
            let [source, place] = [source, place].map(|field| PathBuf::from(unescaped(field)));
            mounts.retain(|below| !below.place.starts_with(&place));
            mounts.push(Mount { source, place, is_pangu: fs_type == FS_TYPE });
        }
    }
    mounts
}

fn choose(mounts: &[Mount], here: &Path) -> Result<PathBuf, Ambiguous> {
    let around = mounts.iter().filter(|mount| here.starts_with(&mount.place));
    if let Some(mount) = around.max_by_key(|mount| mount.place.components().count())
        && mount.is_pangu
    {
        return Ok(mount.place.clone());
    }
    let all: Vec<&PathBuf> = mounts.iter().filter(|mount| mount.is_pangu).map(|mount| &mount.place).collect();
    match all[..] {
        [] => Ok(PathBuf::from(DEFAULT)),
        [only] => Ok(only.clone()),
        _ => {
            let names: Vec<_> = all.iter().map(|place| place.display().to_string()).collect();
            Err(Ambiguous { count: all.len(), mounts: names.join(", ") })
        }
    }
}

/// A field of the table as it was before the kernel wrote it: see getmntent(3). The backslash last, or it would make new
/// escapes.
fn unescaped(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\043", "#"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |field, (escape, byte)| field.replace(escape, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/dev/vda / ext4 rw 0 0\n";

    fn chosen(mounts: &str, here: &str) -> Result<String, Ambiguous> {
        choose(&super::mounts(&format!("{ROOT}{mounts}")), Path::new(here))
            .map(|path| path.display().to_string())
    }

    #[test]
    fn the_mount_around_the_current_directory_is_meant_else_the_only_one() {
        let two = "c /mnt/a fuse.pangu rw 0 0\nc /mnt/b\\040b fuse.pangu rw 0 0\n";
        assert_eq!(chosen(two, "/mnt/b b/deep").as_deref(), Ok("/mnt/b b"));
        assert_eq!(chosen(two, "/mnt/a").as_deref(), Ok("/mnt/a"));
        let ambiguous = chosen(two, "/mnt/aa").unwrap_err().to_string();
        assert!(ambiguous.contains("/mnt/a, /mnt/b b"), "{ambiguous}");
        let one = "c /x fuse.pangu rw 0 0\nc /y fuse.nuwa rw 0 0\nrubbish\n";
        assert_eq!(chosen(one, "/y").as_deref(), Ok("/x"));
        assert_eq!(chosen("", "/").as_deref(), Ok("/mnt/pangu"));
    }

    #[test]
    fn what_is_hidden_by_another_mount_is_not_meant() {
        let hidden = "c /m fuse.pangu rw 0 0\nt /m tmpfs rw 0 0\n";
        assert_eq!(chosen(hidden, "/m").as_deref(), Ok("/mnt/pangu"));
        let twice = "c /m fuse.pangu rw 0 0\nc /m fuse.pangu rw 0 0\n";
        assert_eq!(chosen(twice, "/").as_deref(), Ok("/m"));
        let inside = "c /m fuse.pangu rw 0 0\nt /m/t tmpfs rw 0 0\nd /n fuse.pangu rw 0 0\n";
        assert!(chosen(inside, "/m/t/x").is_err());
    }

    #[test]
    fn a_mount_tells_of_which_cluster_it_is() {
        let table = format!("{ROOT}/a/c.toml /m fuse.pangu rw 0 0\n/b\\040b/c.toml /n fuse.pangu rw 0 0\n");
        let of = |place: &str| mounted_at(super::mounts(&table), Path::new(place));
        assert_eq!(of("/n"), Some(PathBuf::from("/b b/c.toml")));
        assert_eq!([of("/"), of("/m/x")], [None, None]);
    }
}
