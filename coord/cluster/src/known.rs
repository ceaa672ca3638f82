//! The cluster a person means who named none. For commands only: a server that took up whatever it finds could join the wrong cluster.

use std::path::{Path, PathBuf};

use crate::{ClusterConfig, ConfigError};

impl ClusterConfig {
    /// The description to use: as [`ClusterConfig::find`], else that of this user's embedded platform, else that of the newest mount of
    /// the type `fs_type`, whose source it is. `None` if there is none anywhere.
    ///
    /// # Errors
    /// As [`ClusterConfig::find`].
    pub fn known(flag: Option<&Path>, fs_type: &str) -> Result<Option<(PathBuf, Self)>, ConfigError> {
        if let Some(found) = Self::find(flag)? {
            return Ok(Some(found));
        }
        let embedded = default_data_dir().map(|dir| dir.join("cluster.toml"));
        // Without the table there are no mounts to be found, and that is no reason to fail.
        let table = std::fs::read("/proc/self/mounts").unwrap_or_default();
        let mounts = sources(&String::from_utf8_lossy(&table), fs_type);
        Self::first_of(embedded.into_iter().chain(mounts))
    }
}

/// Where an embedded platform keeps its data unless told otherwise: `/var/lib/feitian` for root,
/// `$XDG_DATA_HOME/feitian` or `~/.local/share/feitian` for others. `None` if there is no home.
#[must_use]
pub fn default_data_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/feitian"));
    }
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || named("HOME").map(|home| home.join(Path::new(".local/share")));
    named("XDG_DATA_HOME").or_else(home).map(|base| base.join("feitian"))
}

/// What the mounts of a type were made of, the newest first.
fn sources(table: &str, fs_type: &str) -> Vec<PathBuf> {
    let source = |line: &str| {
        let mut fields = line.split(' ');
        let (source, kind) = (fields.next()?, fields.nth(1)?);
        (kind == fs_type).then(|| PathBuf::from(unescaped(source)))
    };
    table.lines().rev().filter_map(source).collect()
}

/// A field of the table as it was before the kernel wrote it: see getmntent(3). The backslash last, or it would make new escapes.
fn unescaped(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\043", "#"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |field, (escape, byte)| field.replace(escape, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_mount_of_the_type_comes_first() {
        let table = "/dev/vda / ext4 rw 0 0\n/a/cluster.toml /mnt/a fuse.nuwa rw 0 0\n\
            /a/cluster.toml /mnt/p fuse.pangu rw 0 0\n/b\\040\\134040/c.toml /mnt/b\\040b fuse.nuwa rw 0 0\nrubbish\n";
        assert_eq!(sources(table, "fuse.nuwa"), [Path::new("/b \\040/c.toml"), Path::new("/a/cluster.toml")]);
        assert_eq!(sources(table, "fuse.pangu"), [Path::new("/a/cluster.toml")]);
        assert!(sources(table, "fuse.other").is_empty());
    }

    #[test]
    fn descriptions_that_are_gone_are_passed_over_and_wrong_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let [gone, there, wrong] = ["gone", "there", "wrong"].map(|name| dir.path().join(name));
        std::fs::write(&there, "name = \"x\"\nnuwa = [\"unix:///n.sock\"]\n").unwrap();
        std::fs::write(&wrong, "name = 1").unwrap();
        let first_of = |paths: [&PathBuf; 2]| ClusterConfig::first_of(paths.map(PathBuf::clone));
        let found = first_of([&gone, &there]).unwrap().map(|(path, cluster)| (path, cluster.name));
        assert_eq!(found, Some((there.clone(), "x".to_owned())));
        assert_eq!(first_of([&gone, &gone]).unwrap(), None);
        assert!(first_of([&wrong, &there]).is_err());
    }
}
