//! `zhongkui rotate`: new keys in the place of old ones, while everything goes on.
//!
//! Both are good for a while. What is open shows the new ones as soon as they are in its files (twice a second), so nothing is
//! interrupted; the old ones are revoked later, when nobody needs them any more. A crash at any point leaves files that work, and the same
//! command goes on from there: a new key is written before anything refers to it, and a capability and its key that do not belong
//! together are not taken up by anybody.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use zhongkui::terms::Root;
use zhongkui::{Capability, CapabilityId, KeyId, SecretKey, Terms, UserName, crypto, keyring};
use zhongkui_access::{KeyDirectory, revoked};

use crate::cluster::ClusterFlags;

/// Until every server has heard of a new authority: well above the second that is promised.
const HEARD: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Whose keys; 'authority' is the cluster's own [default: the authority's, then those of all users whose keys are here]
    names: Vec<String>,
    #[command(flatten)]
    cluster: ClusterFlags,
}

pub(crate) fn run(flags: &Rotate, keys: &KeyDirectory) -> anyhow::Result<()> {
    let all = flags.names.is_empty();
    let wants = |name: &str| all || flags.names.iter().any(|named| named == name);
    let old = if wants("authority") { Some(authority(flags, keys)?) } else { None };
    let authority = keys.authority()?;
    let mut done = Vec::new();
    for name in users(keys)? {
        if wants(name.as_str()) && keys.path(&name, "key").exists() {
            let before = keyring::read_secret_key(&keys.path(&name, "key"))?.public().id();
            user(keys, &authority, &name)?;
            println!("{name}: new key and capability; the old key is {before}");
            done.push(before);
        } else if old.is_some() && keys.path(&name, "cap").exists() {
            grant_anew(keys, &authority, &name, None)?;
            println!("{name}: granted anew by the new authority");
        }
    }
    if let Some(missing) =
        flags.names.iter().find(|name| *name != "authority" && !keys.path(name, "user").exists())
    {
        anyhow::bail!("there is no user {missing}");
    }
    println!(
        "Copy the new files to where the old ones are in use; programs take them up by themselves. Then:"
    );
    for id in old.into_iter().chain(done) {
        println!("  zhongkui revoke key {id}");
    }
    Ok(())
}

/// A new authority, which the old one vouches for. Gives the old one.
fn authority(flags: &Rotate, keys: &KeyDirectory) -> anyhow::Result<KeyId> {
    let old = keys.authority()?;
    let new = SecretKey::generate().context("make a key")?;
    let (old_id, new_id) = (old.public().id(), new.public().id());
    let beside = format!("authority-{new_id}");
    keyring::write_secret_key(&keys.path(&beside, "key"), &new)?;
    keyring::write_public_key(&keys.path(&beside, "pub"), &new.public())?;
    let told = flags.cluster.open(keys)?;
    told.write("authorities", &new_id.to_string(), &revoked::write_authority(&new.public(), &old))?;
    told.close();
    // Nothing is signed by it before everybody knows it.
    std::thread::sleep(HEARD);
    let kept = format!("authority-{old_id}");
    let rename = |from: &str, to: &str, kind: &str| {
        let (from, to) = (keys.path(from, kind), keys.path(to, kind));
        fs::rename(&from, &to).with_context(|| format!("rename {} to {}", from.display(), to.display()))
    };
    // The old one stays beside the new one, and is trusted, for as long as it is in the folder.
    // Synced before it is replaced: half a public key would keep every server from starting.
    keyring::replace_public_key(&keys.path(&kept, "pub"), &old.public())?;
    keyring::replace_secret_key(&keys.path(&kept, "key"), &old)?;
    for kind in ["pub", "key"] {
        rename(&beside, "authority", kind)?;
    }
    println!("authority {new_id} is the one that grants now; {old_id} is still followed");
    Ok(old_id)
}

fn users(keys: &KeyDirectory) -> anyhow::Result<Vec<UserName>> {
    let mut users = Vec::new();
    for entry in fs::read_dir(keys.folder()).with_context(|| format!("read {}", keys.folder().display()))? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".user"));
        users.extend(name.and_then(|name| UserName::new(name).ok()));
    }
    users.sort_by(|a: &UserName, b| a.as_str().cmp(b.as_str()));
    Ok(users)
}

/// The key first, then the capability that it holds: whoever reads in between finds two that do not belong together, and goes on with what
/// he has.
fn user(keys: &KeyDirectory, authority: &SecretKey, name: &UserName) -> anyhow::Result<()> {
    let key = SecretKey::generate().context("make a key")?;
    keyring::replace_secret_key(&keys.path(name, "key"), &key)?;
    keyring::replace_public_key(&keys.path(name, "pub"), &key.public())?;
    if keys.path(name, "cap").exists() {
        grant_anew(keys, authority, name, Some(&key))?;
    }
    Ok(())
}

/// The same grants until the same time, by this authority, to a new key or the old one.
fn grant_anew(
    keys: &KeyDirectory,
    authority: &SecretKey,
    name: &UserName,
    key: Option<&SecretKey>,
) -> anyhow::Result<()> {
    let path = keys.path(name, "cap");
    let before = keyring::read_capability(&path)?
        .verify(&keys.authorities()?)
        .with_context(|| path.display().to_string())?;
    let terms = before.terms().next().context("a capability has a root")?;
    let holder = key.map_or(terms.holder, SecretKey::public);
    let terms = Terms::new(holder, terms.validity, terms.grants().to_vec())?;
    let id = CapabilityId(u64::from_le_bytes(crypto::random().context("draw a number")?));
    let root = Root { id, issuer: authority.public().id(), user: keys.user(name)? };
    keyring::replace_capability(&path, &Capability::grant(authority, root, terms)?)?;
    Ok(())
}
