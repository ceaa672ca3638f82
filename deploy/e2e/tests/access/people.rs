//! Who asks: people with capabilities, granted as an administrator would.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coord_types::InodeId;
use deploy_e2e::run_ok;
use deploy_local_cluster::Cluster;
use zhongkui::terms::Root;
use zhongkui::{
    Capability, CapabilityId, Grant, Resource, Rights, SecretKey, Terms, Timestamp, User, UserEpoch,
    UserName, Validity, crypto, keyring,
};
use zhongkui_access::keyring::KeyFiles;
use zhongkui_access::{Access, Audit, KeyDirectory, Keyring};

use crate::audit::By;

/// For what reads and writes on behalf of many.
pub(crate) const MOUNT: Rights = Rights::READ.union(Rights::WRITE).union(Rights::ACT_AS);
/// For one user's own.
pub(crate) const OWN: Rights = Rights::READ.union(Rights::WRITE);

pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// From long ago until long from now.
pub(crate) fn always() -> Validity {
    Validity::new(Timestamp(0), Timestamp::FOREVER).unwrap()
}

pub(crate) fn on(rights: Rights, directory: InodeId) -> Vec<Grant> {
    vec![Grant::new(rights, Resource::Directory(directory)).unwrap()]
}

/// What somebody is granted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    pub(crate) uid: u32,
    pub(crate) epoch: u32,
    pub(crate) validity: Validity,
    pub(crate) grants: Vec<Grant>,
}

impl Wanted {
    pub(crate) fn new(name: &'static str, uid: u32, grants: Vec<Grant>) -> Self {
        Self { name, uid, epoch: 0, validity: always(), grants }
    }

    /// The first block, for a key.
    pub(crate) fn granted_by(&self, authority: &SecretKey, key: &SecretKey) -> Capability {
        let id = CapabilityId(u64::from_le_bytes(crypto::random().unwrap()));
        let name = UserName::new(self.name).unwrap();
        let user = User::new(name, UserEpoch(self.epoch), self.uid, vec![self.uid]).unwrap();
        let root = Root { id, issuer: authority.public().id(), user };
        let terms = Terms::new(key.public(), self.validity, self.grants.clone()).unwrap();
        Capability::grant(authority, root, terms).unwrap()
    }
}

/// Somebody with a key and a capability that the cluster's authority granted.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) capability: Arc<Capability>,
    pub(crate) access: Access,
    pub(crate) key_file: PathBuf,
    pub(crate) capability_file: PathBuf,
}

impl Person {
    /// By the library.
    pub(crate) fn granted(keys: &KeyDirectory, wanted: &Wanted) -> Self {
        let key = SecretKey::generate().unwrap();
        let capability = wanted.granted_by(&keys.authority().unwrap(), &key);
        Self::kept(keys, wanted.name, &key, &capability)
    }

    /// A key and a capability, in files beside the others.
    pub(crate) fn kept(keys: &KeyDirectory, name: &str, key: &SecretKey, capability: &Capability) -> Self {
        keyring::write_secret_key(&keys.path(name, "key"), key).unwrap();
        keyring::write_capability(&keys.path(name, "cap"), capability).unwrap();
        Self::read(keys, name)
    }

    /// By the program, as people do it.
    pub(crate) fn granted_by_program(cluster: &Cluster, name: &str, uid: u32, grant: &str) -> Self {
        let keys = cluster.keys();
        let run = |arguments: &[&str]| {
            let mut command = Command::new(cluster.binaries().join("zhongkui"));
            command.arg("--keys").arg(keys.folder()).args(arguments);
            run_ok(&mut command, Duration::from_secs(20))
        };
        run(&["user", "add", name, "--uid", &uid.to_string()]);
        run(&["grant", name, grant, "--for", "1h"]);
        Self::read(&keys, name)
    }

    fn read(keys: &KeyDirectory, name: &str) -> Self {
        let [key_file, capability_file] = ["key", "cap"].map(|kind| keys.path(name, kind));
        let files = KeyFiles {
            key: key_file.clone(),
            capability: capability_file.clone(),
            authorities: keys.folder().to_owned(),
        };
        let access = Access::new(Keyring::open(files).unwrap(), Audit::none());
        let (key, capability) = access.keyring().pair();
        Self { key, capability, access, key_file, capability_file }
    }

    /// As audit logs name it.
    pub(crate) fn by(&self) -> By {
        By::Id(self.capability.holder_id().to_string())
    }
}
