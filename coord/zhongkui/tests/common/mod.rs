//! What the tests of capabilities share: people, and a tree of inodes.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

pub mod tokens;

use coord_types::InodeId;
use zhongkui::resource::Place;
use zhongkui::terms::Root;
use zhongkui::{
    Authorities, Capability, CapabilityId, Grant, KeyId, SecretKey, Terms, Timestamp, User, UserEpoch,
    UserName, Validity,
};

pub const BEGIN: Timestamp = Timestamp(1_000_000);
pub const NOW: Timestamp = Timestamp(1_500_000);
pub const END: Timestamp = Timestamp(2_000_000);

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn authority() -> SecretKey {
    key(1)
}

pub fn authorities() -> Authorities {
    [authority().public()].into_iter().collect()
}

pub fn root() -> Root {
    let name = UserName::new("alice").unwrap();
    let user = User::new(name, UserEpoch(3), 1000, vec![100, 27]).unwrap();
    Root { id: CapabilityId(0x1234_5678_9abc_def0), issuer: KeyId([0; 8]), user }
}

/// `read,write on directory:5`
pub fn grant(text: &str) -> Grant {
    let (rights, resource) = text.split_once(" on ").unwrap();
    Grant::new(rights.parse().unwrap(), resource.parse().unwrap()).unwrap()
}

pub fn terms(holder: &SecretKey, grants: &[&str]) -> Terms {
    let validity = Validity::new(BEGIN, END).unwrap();
    Terms::new(holder.public(), validity, grants.iter().map(|text| grant(text)).collect()).unwrap()
}

/// Granted to `holder` by the authority.
pub fn granted(holder: &SecretKey, grants: &[&str]) -> Capability {
    Capability::grant(&authority(), root(), terms(holder, grants)).unwrap()
}

/// An inode whose directories are its number, halved again and again: 13 is in 6, 3 and 1.
#[derive(Clone, Copy, Debug)]
pub struct Heap(pub u64);

impl Place for Heap {
    fn inode(&self) -> InodeId {
        InodeId(self.0)
    }
    fn within(&self, directory: InodeId) -> bool {
        std::iter::successors(Some(self.0), |at| (*at > 1).then_some(at / 2)).any(|at| at == directory.0)
    }
}
