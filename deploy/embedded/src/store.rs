//! A data directory: who may use it, what it is made of, and where its parts are.
//!
//! ```text
//! DATA/lock             held (flock) while a process uses the store; its id inside
//! DATA/store.toml       what the store is made of
//! DATA/cluster.toml     the cluster description: `pangu --cluster DATA/cluster.toml` works while it runs
//! DATA/master/          the master's state
//! DATA/chunkserver-N/   one chunkserver's disk
//! DATA/nuwa/            the state of Nuwa's member, if it was ever asked for
//! DATA/run/*.sock       the servers' sockets (elsewhere if that path is too long for a socket)
//! ```
//!
//! `store.toml` is written before any server first starts and only ever grows; a crash in between leaves a store that
//! the next start fills in. Its format: `version = 1`, `replicas`, `chunkservers`. Version 2 has `adopted` besides, "begun" or "done": the
//! store belongs to a cluster, or is on its way there, and is not started as an embedded one again.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coord_cluster::ClusterConfig;
use coord_kv_rocks::create_dir_durably;
use kuafu::Address;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use zhongkui_access::KeyDirectory;

use crate::config::{ConfigError, EmbeddedConfig, Shape};

/// `sun_path` holds 108 bytes with the zero at its end.
const SOCKET_PATH_MAX: usize = 107;
const VERSION: u32 = 1;
const NUWA: &str = "nuwa";
/// Of a store that was adopted by a cluster: who does not know that must not start it.
const VERSION_ADOPTED: u32 = 2;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{action} {path}", path = path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the data in {path} is in use by process {pid}{what}: unmount that first, or choose another place with --data",
        path = path.display()
    )]
    InUse { path: PathBuf, pid: String, what: String },
    #[error("{path} is not readable as a store's description: {reason}", path = path.display())]
    Description { path: PathBuf, reason: String },
    #[error(
        "the store in {path} was made by a newer version (format {found}, known up to {VERSION_ADOPTED}): upgrade",
        path = path.display()
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "the sockets' directory {path} belongs to somebody else or is open to others: remove it, or set \
         XDG_RUNTIME_DIR",
        path = path.display()
    )]
    Sockets { path: PathBuf },
    #[error(
        "the store in {path} is the first node of a cluster: mount it with `pangu-fuse MOUNT --cluster {path}/cluster.toml`",
        path = path.display()
    )]
    Adopted { path: PathBuf },
    #[error(
        "the store in {path} is on its way to be the first node of a cluster: `pangu adopt {path}` again, with all that was said \
         then, finishes it",
        path = path.display()
    )]
    HalfAdopted { path: PathBuf },
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    version: u32,
    replicas: u32,
    chunkservers: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adopted: Option<Adopted>,
}

/// How far a store is on its way into a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Adopted {
    Begun,
    Done,
}

/// A data directory in use by this process.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    sockets: PathBuf,
    pub(crate) shape: Shape,
    /// Chunkservers that were there before this start.
    pub(crate) chunkservers_before: u32,
    pub(crate) adopted: Option<Adopted>,
    /// There is a member of Nuwa.
    pub(crate) has_nuwa: bool,
    /// Held as long as the store is open.
    _lock: Flock<File>,
}

impl Store {
    /// Takes the directory, makes it if it is not there, and settles what it is made of.
    pub(crate) fn open(config: &EmbeddedConfig) -> Result<Self, StoreError> {
        let (store, found) = Self::take(config)?;
        let path = store.dir.clone();
        match store.adopted {
            None => {}
            Some(Adopted::Begun) => return Err(StoreError::HalfAdopted { path }),
            Some(Adopted::Done) => return Err(StoreError::Adopted { path }),
        }
        if found != Some(store.shape) {
            store.describe(None)?;
        }
        let nuwa = store.has_nuwa.then(|| store.nuwa_address());
        store.write_cluster("embedded", &store.master_address(), nuwa.as_ref())?;
        Ok(store)
    }

    /// Takes a directory that is a store, adopted or not, and leaves it as it is.
    pub(crate) fn open_to_adopt(config: &EmbeddedConfig) -> Result<Self, StoreError> {
        Self::take(config).map(|(store, _)| store)
    }

    fn take(config: &EmbeddedConfig) -> Result<(Self, Option<Shape>), StoreError> {
        make_dir(&config.data_dir)?;
        let dir = fs::canonicalize(&config.data_dir).map_err(failed("find", &config.data_dir))?;
        let lock = take(&dir)?;
        let said = read(&dir)?;
        let found =
            said.as_ref().map(|said| Shape { replicas: said.replicas, chunkservers: said.chunkservers });
        let adopted = said.and_then(|said| said.adopted);
        // What a cluster made of it is no setting of an embedded store any more.
        let shape = match (found, adopted) {
            (Some(found), Some(_)) => found,
            _ => config.shape(found)?,
        };
        let sockets = socket_dir(&dir)?;
        let chunkservers_before = found.map_or(0, |found| found.chunkservers);
        let has_nuwa = config.nuwa || dir.join(NUWA).exists();
        Ok((Self { sockets, shape, chunkservers_before, adopted, has_nuwa, _lock: lock, dir }, found))
    }

    /// Writes `store.toml`.
    pub(crate) fn describe(&self, adopted: Option<Adopted>) -> Result<(), StoreError> {
        let Shape { replicas, chunkservers } = self.shape;
        let version = if adopted.is_some() { VERSION_ADOPTED } else { VERSION };
        let text = toml::to_string(&Description { version, replicas, chunkservers, adopted })
            .expect("three numbers and a word are TOML");
        replace(&self.dir.join("store.toml"), &text)
    }

    /// Writes `cluster.toml`.
    pub(crate) fn write_cluster(
        &self,
        name: &str,
        master: &Address,
        nuwa: Option<&Address>,
    ) -> Result<(), StoreError> {
        let by =
            if name == "embedded" { "at each start by the embedded platform" } else { "by `pangu adopt`" };
        let list = |address: &Address| toml::Value::from(vec![address.to_string()]);
        let (name, master) = (toml::Value::from(name), list(master));
        let nuwa = nuwa.map_or_else(String::new, |nuwa| format!("nuwa = {}\n", list(nuwa)));
        replace(&self.cluster_file(), &format!("# Written {by}.\nname = {name}\nmasters = {master}\n{nuwa}"))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn master_dir(&self) -> PathBuf {
        self.dir.join("master")
    }

    pub(crate) fn nuwa_dir(&self) -> PathBuf {
        self.dir.join(NUWA)
    }

    pub(crate) fn chunkserver_dir(&self, n: u32) -> PathBuf {
        self.dir.join(format!("chunkserver-{n}"))
    }

    pub(crate) fn fuxi_address(&self) -> Address {
        Address::Unix(self.sockets.join("fuxi.sock"))
    }

    pub(crate) fn master_address(&self) -> Address {
        Address::Unix(self.sockets.join("master.sock"))
    }

    pub(crate) fn nuwa_address(&self) -> Address {
        Address::Unix(self.sockets.join("nuwa.sock"))
    }

    pub(crate) fn chunkserver_address(&self, n: u32) -> Address {
        Address::Unix(self.sockets.join(format!("chunkserver-{n}.sock")))
    }

    pub(crate) fn cluster_file(&self) -> PathBuf {
        self.dir.join("cluster.toml")
    }

    /// Beside the description, where everybody looks for them.
    pub(crate) fn keys(&self) -> KeyDirectory {
        KeyDirectory::at(self.dir.join("keys"))
    }

    /// The description, as it was written.
    pub(crate) fn description(&self) -> Result<ClusterConfig, coord_cluster::ConfigError> {
        ClusterConfig::load(&self.cluster_file())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { action, path, source }
}

/// Makes a directory only its owner can enter, durably; one that is there stays as it is.
fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| create_dir_durably(path)).map_err(failed("make the directory", path))
}

/// Takes the lock; says who has it if somebody has.
fn take(dir: &Path) -> Result<Flock<File>, StoreError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            // Without a number the message is only less helpful.
            let _ = file.read_to_string(&mut pid);
            return Err(in_use(dir, pid.trim()));
        }
        Err((_, errno)) => return Err(failed("lock", &path)(errno.into())),
    };
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut lock).map_err(failed("write", &path))?;
    Ok(lock)
}

fn in_use(dir: &Path, pid: &str) -> StoreError {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let what = if command.is_empty() { String::new() } else { format!(" ({command})") };
    let pid = if pid.is_empty() { "unknown" } else { pid }.to_owned();
    StoreError::InUse { path: dir.to_owned(), pid, what }
}

fn read(dir: &Path) -> Result<Option<Description>, StoreError> {
    let path = dir.join("store.toml");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let said: Description = toml::from_str(&text).map_err(|error| StoreError::Description {
        path: path.clone(),
        reason: error.message().to_owned(),
    })?;
    if said.version > VERSION_ADOPTED {
        return Err(StoreError::Newer { path: dir.to_owned(), found: said.version });
    }
    Ok(Some(said))
}

/// Writes a file so that a crash leaves the old one or the new one: new name, sync, rename, sync of the directory.
fn replace(path: &Path, text: &str) -> Result<(), StoreError> {
    let mut new = path.as_os_str().to_owned();
    new.push(OsString::from(".new"));
    let new = PathBuf::from(new);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(failed("write", path))
}

/// Where the sockets go: beside the data, or, if that path is too long for a socket, a directory of their own named
/// after it.
fn socket_dir(dir: &Path) -> Result<PathBuf, StoreError> {
    let fits = |sockets: &Path| sockets.join("chunkserver-99.sock").as_os_str().len() <= SOCKET_PATH_MAX;
    let beside = dir.join("run");
    let sockets = if fits(&beside) {
        beside
    } else {
        let mut hasher = DefaultHasher::new();
        dir.hash(&mut hasher);
        let name = format!("feitian-{:016x}", hasher.finish());
        let base =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|base| fits(&base.join(&name)));
        base.unwrap_or_else(|| PathBuf::from("/tmp")).join(name)
    };
    make_dir(&sockets)?;
    let meta = fs::symlink_metadata(&sockets).map_err(failed("look at", &sockets))?;
    let ours = meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if ours { Ok(sockets) } else { Err(StoreError::Sockets { path: sockets }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_found_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EmbeddedConfig::new(dir.path().join("a/b"));
        config.replicas = Some(2);
        config.chunkservers = Some(3);
        let made = Store::open(&config).unwrap();
        assert_eq!((made.shape.replicas, made.shape.chunkservers, made.chunkservers_before), (2, 3, 0));
        assert_eq!(fs::metadata(made.dir()).unwrap().mode() & 0o777, 0o700);
        let cluster = fs::read_to_string(made.cluster_file()).unwrap();
        assert!(cluster.contains(&format!("masters = [\"{}\"]", made.master_address())), "{cluster}");
        drop(made);
        let again = Store::open(&EmbeddedConfig::new(&config.data_dir)).unwrap();
        assert_eq!((again.shape.replicas, again.shape.chunkservers, again.chunkservers_before), (2, 3, 3));
    }

    #[test]
    fn two_cannot_share_it_and_the_second_learns_why() {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path());
        let _first = Store::open(&config).unwrap();
        let refused = Store::open(&config).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {} (", std::process::id())), "{refused}");
    }

    #[test]
    fn a_long_path_gets_its_sockets_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path().join("x".repeat(100)));
        let store = Store::open(&config).unwrap();
        let address = store.chunkserver_address(1).to_string();
        assert!(address.parse::<Address>().is_ok(), "{address}");
        fs::remove_dir_all(&store.sockets).unwrap();
    }

    #[test]
    fn an_adopted_store_is_not_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path());
        drop(Store::open(&config).unwrap());
        for (adopted, says) in [(Adopted::Begun, "pangu adopt"), (Adopted::Done, "--cluster")] {
            let store = Store::open_to_adopt(&config).unwrap();
            store.describe(Some(adopted)).unwrap();
            drop(store);
            let refused = Store::open(&config).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
            assert_eq!(Store::open_to_adopt(&config).unwrap().adopted, Some(adopted));
        }
    }

    #[test]
    fn nonsense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.toml");
        fs::write(&path, "version = \"x\"").unwrap();
        let refused = Store::open(&EmbeddedConfig::new(dir.path())).unwrap_err().to_string();
        assert!(refused.contains("store.toml is not readable"), "{refused}");
        fs::write(&path, "version = 9\nreplicas = 1\nchunkservers = 1\n").unwrap();
        let refused = Store::open(&EmbeddedConfig::new(dir.path())).unwrap_err().to_string();
        assert!(refused.contains("newer version (format 9"), "{refused}");
    }
}
