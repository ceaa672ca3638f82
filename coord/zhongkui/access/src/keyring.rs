//! The key and the capability that a process shows. They are exchanged while it runs: whoever rotates keys writes new files, and what is open
//! goes on with them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kuafu::{Binding, Credentials, Status};
use parking_lot::RwLock;
use zhongkui::keyring::{self, KeyringError};
use zhongkui::terms::Root;
use zhongkui::{
    Authorities, Capability, CapabilityId, Forged, Grant, PublicKey, Resource, Rights, SecretKey, Terms,
    Timestamp, User, UserEpoch, UserName, Validity, crypto,
};

use crate::proof::{self, Shown};

/// How often files are looked at for new keys.
pub const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// Keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    File(#[from] KeyringError),
    #[error("look for the authority's public keys in {}", .path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "there is no authority*.pub in {}: copy the cluster's authority.pub there ('zhongkui init' makes the keys of a new cluster)",
        .0.display()
    )]
    NoAuthority(PathBuf),
    #[error("{}", .path.display())]
    Forged {
        path: PathBuf,
        #[source]
        source: Forged,
    },
    #[error(
        "the key {} is {key}, but the capability {} is for {holder}: name the two that belong together",
        .key_file.display(), .capability_file.display()
    )]
    NotTheHolder {
        key_file: PathBuf,
        capability_file: PathBuf,
        key: zhongkui::KeyId,
        holder: zhongkui::KeyId,
    },
}

/// Where a keyring's parts are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    pub key: PathBuf,
    pub capability: PathBuf,
    /// The folder with the authorities' public keys, `authority*.pub`.
    pub authorities: PathBuf,
}

/// What is shown now.
struct Current {
    key: Arc<SecretKey>,
    capability: Arc<Capability>,
}

/// A key, the capability it holds, and the authorities that are trusted. Shared by all connections of a process.
pub struct Keyring {
    files: Option<KeyFiles>,
    current: RwLock<Current>,
    /// From files.
    listed: RwLock<Authorities>,
    /// All that are trusted: those from files, and those they vouched for.
    authorities: RwLock<Arc<Authorities>>,
    generation: AtomicU64,
}

impl Keyring {
    /// # Errors
    /// See [`KeysError`].
    pub fn open(files: KeyFiles) -> Result<Self, KeysError> {
        let authorities = read_authorities(&files.authorities)?;
        let current = read(&files, &authorities)?;
        Ok(Self {
            files: Some(files),
            current: RwLock::new(current),
            authorities: RwLock::new(Arc::new(authorities.clone())),
            listed: RwLock::new(authorities),
            generation: AtomicU64::new(1),
        })
    }

    /// A new authority that nobody else knows, and everything granted by it to a new key: whoever shares this keyring trusts the others who do, and
    /// nobody else.
    ///
    /// # Panics
    /// The system has no random bytes.
    #[must_use]
    pub fn ephemeral() -> Self {
        let authority = SecretKey::generate().expect("the system gives random bytes");
        let key = SecretKey::generate().expect("the system gives random bytes");
        let capability = everything(&authority, key.public(), "process")
            .expect("a capability with one grant is short enough");
        let authorities: Authorities = [authority.public()].into_iter().collect();
        Self {
            files: None,
            current: RwLock::new(Current { key: Arc::new(key), capability: Arc::new(capability) }),
            authorities: RwLock::new(Arc::new(authorities.clone())),
            listed: RwLock::new(authorities),
            generation: AtomicU64::new(1),
        }
    }

    /// Looks at the files again. True: there was something new. A pair that does not belong together is half written: the old one stays.
    ///
    /// # Errors
    /// Files that cannot be used; what was read before stays in use.
    pub fn refresh(&self) -> Result<bool, KeysError> {
        let Some(files) = &self.files else { return Ok(false) };
        let mut changed = false;
        let listed = read_authorities(&files.authorities)?;
        if listed != *self.listed.read() {
            let vouched = self.authorities.read().keys().copied().collect::<Vec<_>>();
            *self.listed.write() = listed.clone();
            *self.authorities.write() = Arc::new(listed.keys().copied().chain(vouched).collect());
            changed = true;
        }
        let authorities = self.authorities();
        let new = match read(files, &authorities) {
            Err(KeysError::NotTheHolder { .. }) => return Ok(changed),
            other => other?,
        };
        let same = {
            let current = self.current.read();
            current.capability.bytes() == new.capability.bytes()
        };
        if !same {
            *self.current.write() = new;
            self.generation.fetch_add(1, Ordering::Release);
        }
        Ok(changed || !same)
    }

    /// Authorities that those from the files vouch for are trusted as well from now on.
    pub(crate) fn vouched(&self, keys: impl IntoIterator<Item = PublicKey>) {
        let all: Authorities = self.listed.read().keys().copied().chain(keys).collect();
        *self.authorities.write() = Arc::new(all);
    }

    #[must_use]
    pub fn authorities(&self) -> Arc<Authorities> {
        Arc::clone(&self.authorities.read())
    }

    /// Those from the files alone.
    pub(crate) fn listed(&self) -> Authorities {
        self.listed.read().clone()
    }

    #[must_use]
    pub fn capability(&self) -> Arc<Capability> {
        Arc::clone(&self.current.read().capability)
    }

    /// The key and the capability that belongs to it.
    #[must_use]
    pub fn pair(&self) -> (Arc<SecretKey>, Arc<Capability>) {
        let current = self.current.read();
        (Arc::clone(&current.key), Arc::clone(&current.capability))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capability = self.capability();
        f.debug_struct("Keyring").field("user", &capability.root().user.name.as_str()).finish_non_exhaustive()
    }
}

impl Credentials for Keyring {
    fn check_server(&self, binding: &Binding, introduction: Option<&Bytes>) -> Result<(), Status> {
        if !crate::CHECKS {
            return Ok(());
        }
        let refuse =
            |why: String| Err(Status::permission_denied(format!("this is no server of ours: {why}")));
        let Some(shown) = introduction.and_then(Shown::decode) else {
            return refuse("it does not say who it is".to_owned());
        };
        let authorities = self.authorities();
        let capability = zhongkui::UnverifiedCapability::decode(shown.capability())
            .map_err(|error| error.to_string())
            .and_then(|sent| sent.verify(&authorities).map_err(|error| error.to_string()));
        let capability = match capability {
            Ok(capability) => capability,
            Err(why) => return refuse(why),
        };
        let name = &capability.root().user.name;
        if !shown.introduces(&capability, binding) {
            let between =
                if binding.channel.is_some() { ", or somebody who is in between ends the TLS" } else { "" };
            return refuse(format!("it shows the capability of {name}, but has not its key{between}"));
        }
        if !capability.may_serve() {
            return refuse(format!("{name} may not serve"));
        }
        let now = Timestamp::from(SystemTime::now());
        zhongkui::decide::valid(&capability, now).or_else(|refusal| refuse(refusal.to_string()))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn present(&self, binding: &Binding, introduction: &Bytes) -> Bytes {
        let (key, capability) = self.pair();
        proof::proof(&key, &capability, binding, introduction)
    }
}

/// All rights on everything, for ever: what servers of one process and the cluster's administrator are given.
///
/// # Errors
/// Never with a name that fits.
pub(crate) fn everything(
    authority: &SecretKey,
    holder: PublicKey,
    name: &str,
) -> Result<Capability, zhongkui::NarrowError> {
    let grants = vec![Grant::new(Rights::all(), Resource::Everything).expect("all rights are some")];
    forever(authority, holder, name, grants)
}

/// A capability for a server or an administrator, uid and gid 0, without an end.
pub(crate) fn forever(
    authority: &SecretKey,
    holder: PublicKey,
    name: &str,
    grants: Vec<Grant>,
) -> Result<Capability, zhongkui::NarrowError> {
    let name = UserName::new(name).expect("names of servers are plain");
    let user = User::new(name, UserEpoch(0), 0, vec![0]).expect("one group");
    let id = CapabilityId(u64::from_le_bytes(crypto::random().expect("the system gives random bytes")));
    let root = Root { id, issuer: authority.public().id(), user };
    // From long ago on: a machine whose clock is slow must not lock its own cluster's servers out.
    let validity = Validity::new(Timestamp(0), Timestamp::FOREVER).expect("it begins before it ends");
    Capability::grant(authority, root, Terms::new(holder, validity, grants).expect("few grants"))
}

fn read(files: &KeyFiles, authorities: &Authorities) -> Result<Current, KeysError> {
    let key = keyring::read_secret_key(&files.key)?;
    let capability = keyring::read_capability(&files.capability)?
        .verify(authorities)
        .map_err(|source| KeysError::Forged { path: files.capability.clone(), source })?;
    if key.public() != *capability.holder() {
        return Err(KeysError::NotTheHolder {
            key_file: files.key.clone(),
            capability_file: files.capability.clone(),
            key: key.public().id(),
            holder: capability.holder().id(),
        });
    }
    Ok(Current { key: Arc::new(key), capability: Arc::new(capability) })
}

/// Public keys of all authorities in a folder: `authority.pub`, and `authority-….pub` while keys are rotated.
pub(crate) fn read_authorities(folder: &Path) -> Result<Authorities, KeysError> {
    let failed = |source| KeysError::Folder { path: folder.to_owned(), source };
    let mut keys = Vec::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    files.sort();
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("authority") && name.ends_with(".pub") {
            keys.push(keyring::read_public_key(&path)?);
        }
    }
    if keys.is_empty() {
        Err(KeysError::NoAuthority(folder.to_owned()))
    } else {
        Ok(keys.into_iter().collect())
    }
}
