//! The folder with a cluster's keys, and making those of a whole cluster.
//!
//! | file | what |
//! | --- | --- |
//! | `authority.key`, `authority.pub` | the key pair that grants; the secret half only on the machine that does |
//! | `authority-….pub` | further authorities, while keys are rotated |
//! | `NAME.user` | a user: uid, gids, epoch |
//! | `NAME.key`, `NAME.pub`, `NAME.cap` | the user's key pair, if it was made here, and the capability that was granted last |
//!
//! A server or a tool needs `authority.pub` and the key and capability under the name of its kind ([`MASTER`] and the others).

use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use coord_types::InodeId;
use serde::{Deserialize, Serialize};
use zhongkui::keyring::{self, KeyringError};
use zhongkui::{Authorities, Grant, Resource, Rights, SecretKey, User, UserEpoch, UserName};

use crate::access::Access;
use crate::audit::Audit;
use crate::keyring::{KeyFiles, Keyring, KeysError, forever, read_authorities};

/// Whoever runs the cluster, and mounts that many people use: everything but to serve.
pub const ADMIN: &str = "admin";
/// `pangu-master`
pub const MASTER: &str = "master";
/// `pangu-chunkserver`
pub const CHUNKSERVER: &str = "chunkserver";
/// `nuwa-server`
pub const NUWA: &str = "nuwa";
/// `fuxi-master`, `fuxi-agent`
pub const FUXI: &str = "fuxi";
/// The processes of Fuxi's jobs: their masters and workers.
pub const FUXI_JOB: &str = "fuxi-job";

/// Names the folder for processes that are not told by a flag.
pub const ENVIRONMENT: &str = "FEITIAN_KEYS";
/// The name of the folder beside a cluster's description.
const BESIDE: &str = "keys";

/// A folder of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{verb} {}", .path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(
        "there are no keys in {}: 'zhongkui init --keys {}' makes those of a new cluster; for one that is at work copy authority.pub, \
         {name}.key and {name}.cap there, or name another folder with --keys",
        .folder.display(), .folder.display()
    )]
    None { folder: PathBuf, name: String },
    #[error("only the cluster's authority grants ('zhongkui init' makes the one of a new cluster)")]
    NoAuthority(#[source] KeyringError),
    #[error("read {}: 'zhongkui user add {name}' makes a user", .path.display())]
    NoUser {
        name: UserName,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {reason}", .path.display())]
    BadUser { path: PathBuf, reason: String },
    #[error("there is a user {name} already ({})", .path.display())]
    UserExists { name: UserName, path: PathBuf },
    #[error("the system gives no random bytes")]
    Random(#[source] std::io::Error),
}

/// What the authority knows of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRecord {
    pub uid: u32,
    pub gids: Vec<u32>,
    pub epoch: u32,
}

/// A folder with keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDirectory(PathBuf);

impl KeyDirectory {
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The one that was named, or the one of `$FEITIAN_KEYS`, or `keys` beside the cluster's description.
    #[must_use]
    pub fn find(named: Option<&Path>, description: &Path) -> Self {
        let environment =
            || std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = named.map(Path::to_path_buf).or_else(environment);
        Self(named.unwrap_or_else(|| description.with_file_name(BESIDE)))
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    #[must_use]
    pub fn path(&self, name: impl std::fmt::Display, kind: &str) -> PathBuf {
        self.0.join(format!("{name}.{kind}"))
    }

    /// The keys of a server or a tool, and an audit log, if it has a place for one.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn access(&self, name: &str, audit: Audit) -> Result<Access, DirectoryError> {
        let files = KeyFiles {
            key: self.path(name, "key"),
            capability: self.path(name, "cap"),
            authorities: self.0.clone(),
        };
        if !files.key.exists() {
            return Err(DirectoryError::None { folder: self.0.clone(), name: name.to_owned() });
        }
        Ok(Access::new(Keyring::open(files)?, audit))
    }

    /// Makes it, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(&self) -> Result<(), DirectoryError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|source| DirectoryError::Io { verb: "make", path: self.0.clone(), source })
    }

    /// The keys of a new cluster: an authority, and users for its administrator and each kind of server. After a crash it is called again, and
    /// makes what is missing.
    ///
    /// # Errors
    /// Something cannot be written, or the authority's secret key is elsewhere.
    pub fn init(&self) -> Result<(), DirectoryError> {
        self.make()?;
        let (secret, public) = (self.path("authority", "key"), self.path("authority", "pub"));
        // The secret half first: it is what must not be written over, and the public half follows from it.
        if !exists(&secret)? {
            keyring::write_secret_key(&secret, &generate()?)?;
        }
        let authority = self.authority()?;
        if !exists(&public)? {
            keyring::write_public_key(&public, &authority.public())?;
        }
        for (name, grants) in users() {
            self.init_user(&authority, name, grants)?;
        }
        Ok(())
    }

    fn init_user(&self, authority: &SecretKey, name: &str, grants: Vec<Grant>) -> Result<(), DirectoryError> {
        let (secret, public, capability) =
            (self.path(name, "key"), self.path(name, "pub"), self.path(name, "cap"));
        if !exists(&secret)? {
            keyring::write_secret_key(&secret, &generate()?)?;
        }
        let key = keyring::read_secret_key(&secret)?.public();
        if !exists(&public)? {
            keyring::write_public_key(&public, &key)?;
        }
        if !exists(&self.path(name, "user"))? {
            let user = UserName::new(name).expect("names of servers are plain");
            self.add_user(&user, &UserRecord { uid: 0, gids: vec![0], epoch: 0 })?;
        }
        if !exists(&capability)? {
            let granted = forever(authority, key, name, grants).expect("these grants fit into a capability");
            keyring::write_capability(&capability, &granted)?;
        }
        Ok(())
    }

    /// The authority's secret key.
    ///
    /// # Errors
    /// It is not here, or cannot be read.
    pub fn authority(&self) -> Result<SecretKey, DirectoryError> {
        keyring::read_secret_key(&self.path("authority", "key")).map_err(DirectoryError::NoAuthority)
    }

    /// All that are trusted by this folder.
    ///
    /// # Errors
    /// There is none, or one cannot be read.
    pub fn authorities(&self) -> Result<Authorities, DirectoryError> {
        Ok(read_authorities(&self.0)?)
    }

    /// # Errors
    /// There is no such user.
    pub fn user(&self, name: &UserName) -> Result<User, DirectoryError> {
        let record = self.user_record(name)?;
        let user = User::new(name.clone(), UserEpoch(record.epoch), record.uid, record.gids);
        user.map_err(|error| DirectoryError::BadUser {
            path: self.path(name, "user"),
            reason: error.to_string(),
        })
    }

    /// # Errors
    /// There is no such user.
    pub fn user_record(&self, name: &UserName) -> Result<UserRecord, DirectoryError> {
        let path = self.path(name, "user");
        let text = fs::read_to_string(&path).map_err(|source| DirectoryError::NoUser {
            name: name.clone(),
            path: path.clone(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| DirectoryError::BadUser { path, reason: error.to_string() })
    }

    /// A user that was not there.
    ///
    /// # Errors
    /// There is one of this name, or it cannot be written.
    pub fn add_user(&self, name: &UserName, record: &UserRecord) -> Result<(), DirectoryError> {
        let path = self.path(name, "user");
        let file = self.write_user(&path, record)?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(DirectoryError::UserExists { name: name.clone(), path })
            }
            Err(error) => Err(DirectoryError::Io { verb: "write", path, source: error.error }),
        }
    }

    /// What is known of a user from now on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn change_user(&self, name: &UserName, record: &UserRecord) -> Result<(), DirectoryError> {
        let path = self.path(name, "user");
        let file = self.write_user(&path, record)?;
        file.persist(&path).map(drop).map_err(|error| DirectoryError::Io {
            verb: "write",
            path,
            source: error.error,
        })
    }

    fn write_user(
        &self,
        path: &Path,
        record: &UserRecord,
    ) -> Result<tempfile::NamedTempFile, DirectoryError> {
        let io = |source| DirectoryError::Io { verb: "write", path: path.to_owned(), source };
        let text = toml::to_string(record).expect("numbers can be written as TOML");
        let mut file = tempfile::NamedTempFile::new_in(&self.0).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(io)?;
        Ok(file)
    }
}

fn exists(path: &Path) -> Result<bool, DirectoryError> {
    path.try_exists().map_err(|source| DirectoryError::Io { verb: "look for", path: path.to_owned(), source })
}

fn generate() -> Result<SecretKey, DirectoryError> {
    SecretKey::generate().map_err(|error| DirectoryError::Random(std::io::Error::other(error.to_string())))
}

/// Who is made with a cluster, and what they may do: servers no more than their work takes.
fn users() -> [(&'static str, Vec<Grant>); 6] {
    let on = |rights, resource| Grant::new(rights, resource).expect("some rights");
    let service = |rights, name: &str| {
        on(rights, Resource::Service(zhongkui::resource::Name::new(name).expect("a plain name")))
    };
    let nuwa_path = |rights, path: &str| on(rights, Resource::nuwa(path).expect("an absolute path"));
    let registry = || {
        [
            nuwa_path(Rights::READ | Rights::WRITE | Rights::LOCK, "/services/"),
            nuwa_path(Rights::READ, crate::revoked::FOLDER),
        ]
    };
    let work = Rights::READ | Rights::ADMINISTER;
    let mut master = vec![
        service(work | Rights::SERVE, "feitian.master.v1.Namespace"),
        service(work, "feitian.master.v1.Admin"),
        service(work, "feitian.raft.v1.RaftPeer"),
        service(work, "feitian.chunk.v1.Replica"),
    ];
    master.extend(registry());
    let mut chunkserver = vec![
        service(work | Rights::SERVE, "feitian.chunk.v1.Chunk"),
        service(work, "feitian.chunk.v1.Replica"),
        service(work, "feitian.master.v1.Cluster"),
    ];
    chunkserver.extend(registry());
    let mut nuwa = vec![
        service(work | Rights::SERVE, "feitian.nuwa.v1.Nuwa"),
        service(work, "feitian.nuwa.v1.NuwaAdmin"),
        service(work, "feitian.raft.v1.RaftPeer"),
    ];
    nuwa.extend(registry());
    let admin = vec![on(Rights::all() - Rights::SERVE, Resource::Everything)];
    let mut fuxi = vec![
        service(work | Rights::SERVE, "feitian.fuxi.v1.Fuxi"),
        service(work | Rights::SERVE, "feitian.fuxi.v1.Work"),
        nuwa_path(Rights::READ | Rights::WRITE | Rights::LOCK, "/fuxi/"),
        // What happens in the spool's directories.
        on(Rights::READ, Resource::Directory(InodeId::ROOT)),
    ];
    fuxi.extend(registry());
    // Whoever's job it is has this key: it speaks for jobs, and for no machine.
    let job = vec![
        service(work | Rights::SERVE, "feitian.fuxi.v1.Work"),
        service(work, "feitian.fuxi.v1.Fuxi/Job"),
        service(work, "feitian.fuxi.v1.Fuxi/FindJob"),
        nuwa_path(Rights::READ, "/services/"),
    ];
    [
        (ADMIN, admin),
        (MASTER, master),
        (CHUNKSERVER, chunkserver),
        (NUWA, nuwa),
        (FUXI, fuxi),
        (FUXI_JOB, job),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_made_once_and_what_a_crash_left_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyDirectory::at(folder.path().join("keys"));
        let missing = keys.access(ADMIN, Audit::none()).unwrap_err().to_string();
        assert!(missing.contains("zhongkui init --keys"), "{missing}");
        keys.init().unwrap();
        let before = keys.access(MASTER, Audit::none()).unwrap();
        for name in ["master.cap", "admin.key", "authority.pub"] {
            fs::remove_file(keys.folder().join(name)).unwrap();
        }
        // The administrator's capability was for the key that is lost.
        fs::remove_file(keys.folder().join("admin.pub")).unwrap();
        fs::remove_file(keys.folder().join("admin.cap")).unwrap();
        keys.init().unwrap();
        let after = keys.access(MASTER, Audit::none()).unwrap();
        assert_eq!(before.keyring().pair().0.public(), after.keyring().pair().0.public());
        for name in [ADMIN, MASTER, CHUNKSERVER, NUWA, FUXI, FUXI_JOB] {
            let serves = keys.access(name, Audit::none()).unwrap().keyring().capability().may_serve();
            assert_eq!(serves, name != ADMIN, "{name}");
        }
    }
}
