//! `zhongkui user`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use zhongkui::{SecretKey, User as ZhongkuiUser, UserEpoch, UserName, keyring};

use zhongkui_access::KeyDirectory;
use zhongkui_access::directory::UserRecord;

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Write a user down, and make a key pair
    Add {
        /// a-z, 0-9, '.', '_', '-'
        name: UserName,
        #[arg(long)]
        uid: u32,
        /// The primary group first; may be given again [default: the uid]
        #[arg(long = "gid", value_name = "GID")]
        gids: Vec<u32>,
        /// The user has made a key pair: take this public key
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
    },
}

pub(crate) fn run(user: &User, keys: &KeyDirectory) -> anyhow::Result<()> {
    let User::Add { name, uid, gids, public_key } = user;
    anyhow::ensure!(
        name.as_str() != "authority",
        "'authority' is the name of the cluster's own keys: choose another"
    );
    keys.authority()?;
    let gids = if gids.is_empty() { vec![*uid] } else { gids.clone() };
    ZhongkuiUser::new(name.clone(), UserEpoch(0), *uid, gids.clone())?;
    let (secret, public) = (keys.path(name, "key"), keys.path(name, "pub"));
    let given = public_key.as_deref().map(keyring::read_public_key).transpose()?;
    // Last what makes the user known: one whose keys could not be written is added again.
    let key = match given {
        Some(key) => key,
        None => {
            let key = SecretKey::generate().context("make a key")?;
            keyring::write_secret_key(&secret, &key)?;
            key.public()
        }
    };
    keyring::write_public_key(&public, &key)?;
    keys.add_user(name, &UserRecord { uid: *uid, gids, epoch: 0 })?;
    println!("user {name}, key {}", key.id());
    if given.is_none() {
        println!("  {}   give it to {name}, and to nobody else", secret.display());
    }
    Ok(())
}
