//! The folder with the authority's keys and what it knows of users.
//!
//! | file | what |
//! | --- | --- |
//! | `authority.key`, `authority.pub` | the key pair that grants; the secret half only on the machine that does |
//! | `NAME.user` | a user: uid, gids, epoch |
//! | `NAME.key`, `NAME.pub`, `NAME.cap` | the user's key pair, if it was made here, and the capability that was granted last |

use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use zhongkui::{Authorities, SecretKey, User, UserEpoch, UserName, keyring};

/// What the authority knows of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserRecord {
    pub(crate) uid: u32,
    pub(crate) gids: Vec<u32>,
    pub(crate) epoch: u32,
}

#[derive(Debug)]
pub(crate) struct KeyDirectory(PathBuf);

impl KeyDirectory {
    /// The one that was named, or the usual one.
    pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(named) = named {
            return Ok(Self(named.to_owned()));
        }
        // As for `cluster.toml`: the system's for root, a user's own for others.
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty() && home != "/root");
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| Some(PathBuf::from(home?).join(".config")));
        Ok(Self(config.unwrap_or_else(|| PathBuf::from("/etc")).join("feitian/keys")))
    }

    /// Makes it, for its owner alone, if it is not there.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.with_context(|| format!("make {}", self.0.display()))
    }

    pub(crate) fn path(&self, name: impl std::fmt::Display, kind: &str) -> PathBuf {
        self.0.join(format!("{name}.{kind}"))
    }

    pub(crate) fn authority(&self) -> anyhow::Result<SecretKey> {
        keyring::read_secret_key(&self.path("authority", "key"))
            .context("only the cluster's authority grants ('zhongkui init' makes the one of a new cluster)")
    }

    /// `None`: its key is not here.
    pub(crate) fn authorities(&self) -> anyhow::Result<Option<Authorities>> {
        let path = self.path("authority", "pub");
        if !path.try_exists().with_context(|| format!("look for {}", path.display()))? {
            return Ok(None);
        }
        Ok(Some([keyring::read_public_key(&path)?].into_iter().collect()))
    }

    pub(crate) fn user(&self, name: &UserName) -> anyhow::Result<User> {
        let path = self.path(name, "user");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("read {}: 'zhongkui user add {name}' makes a user", path.display()))?;
        let record: UserRecord = toml::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        let user = User::new(name.clone(), UserEpoch(record.epoch), record.uid, record.gids);
        user.with_context(|| format!("read {}", path.display()))
    }

    /// A user that was not there.
    pub(crate) fn add_user(&self, name: &UserName, record: &UserRecord) -> anyhow::Result<()> {
        let path = self.path(name, "user");
        let text = toml::to_string(record).context("write a user down")?;
        let mut file =
            tempfile::NamedTempFile::new_in(&self.0).with_context(|| format!("write {}", path.display()))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("write {}", path.display()))?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!("there is a user {name} already ({})", path.display())
            }
            Err(error) => Err(error.error).with_context(|| format!("write {}", path.display())),
        }
    }
}
