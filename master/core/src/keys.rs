//! What is stored where: the families, and every key in them. `master/docs/keys.md` is the byte map.
//!
//! Numbers in keys are big-endian, so that key order is number order and what belongs to one inode or directory
//! lies together.

use std::hash::Hasher as _;

use coord_kv::{Family, FamilySpec, Range};
use coord_types::{DataId, DiskId, GroupId, InodeId, ServerId, SessionId};
use siphasher::sip::SipHasher13;

pub const INODES: Family = Family(0);
pub const DENTRIES: Family = Family(1);
pub const XATTRS: Family = Family(2);
pub const DELETIONS: Family = Family(3);
pub const ORPHANS: Family = Family(4);
pub const SESSIONS: Family = Family(5);
pub const TABLE: Family = Family(6);
pub const SETTINGS: Family = Family(7);
pub const NAMES: Family = Family(8);

const FAMILIES: [FamilySpec; 9] = [
    FamilySpec { name: "master.inodes", bloom: false, prefix_len_bytes: None },
    // Most creates look up a name that is not there.
    FamilySpec { name: "master.dentries", bloom: true, prefix_len_bytes: Some(8) },
    FamilySpec { name: "master.xattrs", bloom: true, prefix_len_bytes: Some(8) },
    FamilySpec { name: "master.deletions", bloom: false, prefix_len_bytes: None },
    FamilySpec { name: "master.orphans", bloom: false, prefix_len_bytes: Some(8) },
    FamilySpec { name: "master.sessions", bloom: false, prefix_len_bytes: None },
    FamilySpec { name: "master.table", bloom: false, prefix_len_bytes: None },
    FamilySpec { name: "master.settings", bloom: false, prefix_len_bytes: None },
    FamilySpec { name: "master.names", bloom: false, prefix_len_bytes: Some(8) },
];

/// The master's families, in the order of their numbers.
#[must_use]
pub const fn families() -> &'static [FamilySpec] {
    &FAMILIES
}

/// Key of the counters in [`SETTINGS`].
pub const COUNTERS_KEY: &[u8] = b"counters";
/// Key of the cluster's record in [`SETTINGS`].
pub const CLUSTER_KEY: &[u8] = b"cluster";
/// Key of how far the parents of an older release's files are filled in, in [`SETTINGS`].
pub const PARENTS_KEY: &[u8] = b"parents";

#[must_use]
pub const fn inode(ino: InodeId) -> [u8; 8] {
    ino.0.to_be_bytes()
}

/// Positions in a directory below this are the client's own: 0 is the beginning, 1 and 2 come after "." and "..".
pub const COOKIE_MIN: u64 = 3;
/// A position is an `off_t`; its largest value means "the end" to some readers.
const COOKIE_MAX: u64 = i64::MAX as u64 - 1;

/// Where in its directory a name stands. The key is part of the format: it must never change.
#[must_use]
pub fn cookie(name: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x5061_6e67_7544_6972, 0x436f_6f6b_6965_7631);
    hasher.write(name);
    (hasher.finish() >> 1).clamp(COOKIE_MIN, COOKIE_MAX)
}

/// Bytes of a directory entry's key before the name.
const DENTRY_PREFIX_LEN: usize = 16;

#[must_use]
pub fn dentry(parent: InodeId, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(DENTRY_PREFIX_LEN + name.len());
    key.extend_from_slice(&parent.0.to_be_bytes());
    key.extend_from_slice(&cookie(name).to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// A directory entry's parent, cookie and name.
#[must_use]
pub fn split_dentry(key: &[u8]) -> Option<(InodeId, u64, &[u8])> {
    let (parent, rest) = key.split_first_chunk::<8>()?;
    let (cookie, name) = rest.split_first_chunk::<8>()?;
    Some((InodeId(u64::from_be_bytes(*parent)), u64::from_be_bytes(*cookie), name))
}

/// The entries of a directory behind a cookie.
#[must_use]
pub fn dentries_after(parent: InodeId, after_cookie: u64) -> Range {
    let mut range = Range::prefix(&parent.0.to_be_bytes());
    range.start.extend_from_slice(&after_cookie.saturating_add(1).to_be_bytes());
    range
}

#[must_use]
pub fn xattr(ino: InodeId, name: &[u8]) -> Vec<u8> {
    [&ino.0.to_be_bytes(), name].concat()
}

/// All extended attributes of an inode.
#[must_use]
pub fn xattrs(ino: InodeId) -> Range {
    Range::prefix(&ino.0.to_be_bytes())
}

/// The name in an extended attribute's key.
#[must_use]
pub fn split_xattr(key: &[u8]) -> Option<(InodeId, &[u8])> {
    let (ino, name) = key.split_first_chunk::<8>()?;
    Some((InodeId(u64::from_be_bytes(*ino)), name))
}

#[must_use]
pub const fn deletion(data: DataId) -> [u8; 8] {
    data.0.to_be_bytes()
}

#[must_use]
pub fn orphan(session: SessionId, ino: InodeId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&session.0.to_be_bytes());
    key[8..].copy_from_slice(&ino.0.to_be_bytes());
    key
}

/// All orphans of a session.
#[must_use]
pub fn orphans(session: SessionId) -> Range {
    Range::prefix(&session.0.to_be_bytes())
}

#[must_use]
pub fn split_orphan(key: &[u8]) -> Option<(SessionId, InodeId)> {
    let (session, ino) = key.split_first_chunk::<8>()?;
    Some((SessionId(u64::from_be_bytes(*session)), InodeId(u64::from_be_bytes(ino.try_into().ok()?))))
}

#[must_use]
pub fn name(ino: InodeId, parent: InodeId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&ino.0.to_be_bytes());
    key[8..].copy_from_slice(&parent.0.to_be_bytes());
    key
}

/// The parents of an inode with several names.
#[must_use]
pub fn names(ino: InodeId) -> Range {
    Range::prefix(&ino.0.to_be_bytes())
}

/// The inode and the parent in a key of [`NAMES`].
#[must_use]
pub fn split_name(key: &[u8]) -> Option<(InodeId, InodeId)> {
    let (ino, parent) = key.split_first_chunk::<8>()?;
    Some((InodeId(u64::from_be_bytes(*ino)), InodeId(u64::from_be_bytes(parent.try_into().ok()?))))
}

#[must_use]
pub const fn session(session: SessionId) -> [u8; 8] {
    session.0.to_be_bytes()
}

/// An id that is eight big-endian bytes.
#[must_use]
pub fn split_id(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

const SERVER: u8 = 1;
const DISK: u8 = 2;
const GROUP: u8 = 3;
const SERVER_UUID: u8 = 4;
const DISK_UUID: u8 = 5;

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(tag);
    key.extend_from_slice(rest);
    key
}

#[must_use]
pub fn server(id: ServerId) -> Vec<u8> {
    tagged(SERVER, &id.0.to_be_bytes())
}

#[must_use]
pub fn servers() -> Range {
    Range::prefix(&[SERVER])
}

#[must_use]
pub fn disk(id: DiskId) -> Vec<u8> {
    tagged(DISK, &id.0.to_be_bytes())
}

#[must_use]
pub fn disks() -> Range {
    Range::prefix(&[DISK])
}

#[must_use]
pub fn group(id: GroupId) -> Vec<u8> {
    tagged(GROUP, &id.0.to_be_bytes())
}

#[must_use]
pub fn groups() -> Range {
    Range::prefix(&[GROUP])
}

#[must_use]
pub fn server_uuid(uuid: [u8; 16]) -> Vec<u8> {
    tagged(SERVER_UUID, &uuid)
}

#[must_use]
pub fn disk_uuid(uuid: [u8; 16]) -> Vec<u8> {
    tagged(DISK_UUID, &uuid)
}

/// The number in a server's, disk's or group's key.
#[must_use]
pub fn split_table(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_at_their_numbers() {
        let numbered = [
            (INODES, "inodes"),
            (DENTRIES, "dentries"),
            (XATTRS, "xattrs"),
            (DELETIONS, "deletions"),
            (ORPHANS, "orphans"),
            (SESSIONS, "sessions"),
            (TABLE, "table"),
            (SETTINGS, "settings"),
            (NAMES, "names"),
        ];
        for (family, name) in numbered {
            assert_eq!(families()[usize::from(family.0)].name, format!("master.{name}"));
        }
        assert_eq!(families().len(), numbered.len());
    }

    #[test]
    fn cookies_never_change() {
        // On disk since the first version.
        assert_eq!(cookie(b"a"), cookie(b"a"));
        assert_eq!([cookie(b"hello"), cookie(b"")], [HELLO, EMPTY]);
        const HELLO: u64 = 261_830_377_457_385_650;
        const EMPTY: u64 = 7_568_150_951_831_157_771;
    }

    #[test]
    fn keys_come_apart_again() {
        let key = dentry(InodeId(7), b"name");
        assert_eq!(split_dentry(&key), Some((InodeId(7), cookie(b"name"), b"name".as_slice())));
        assert!(dentries_after(InodeId(7), 0).contains(&key));
        assert!(dentries_after(InodeId(7), cookie(b"name") - 1).contains(&key));
        assert!(!dentries_after(InodeId(7), cookie(b"name")).contains(&key));
        assert!(!dentries_after(InodeId(6), 0).contains(&key));
        assert_eq!(split_orphan(&orphan(SessionId(1), InodeId(2))), Some((SessionId(1), InodeId(2))));
        assert_eq!(split_name(&name(InodeId(1), InodeId(2))), Some((InodeId(1), InodeId(2))));
        assert!(names(InodeId(1)).contains(&name(InodeId(1), InodeId(u64::MAX))));
        assert_eq!(split_table(&disk(DiskId(9))), Some(9));
        assert!(servers().contains(&server(ServerId(u32::MAX))) && !servers().contains(&disk(DiskId(0))));
        assert_eq!(split_dentry(b"short"), None);
    }
}
