//! The inode record: compact, because there are 10^8 of them and every create writes two.

use bytes::Bytes;
use coord_types::{DataId, Fence, GroupId, InodeId, Layout};
use master_model::{Attr, Time, mode};

use crate::codec::{Reader, put_signed, put_varint};
use crate::error::{OpError, corrupt};

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub attr: Attr,
    /// A directory it has a name in. Directories have it always (the root's is itself), and no other: walking up finds loops
    /// before a rename makes one. Of the others see [`crate::names`].
    pub parent: Option<InodeId>,
    /// Of a symbolic link, and of nothing else.
    pub target: Option<Bytes>,
}

/// First byte of a record.
const VERSION: u8 = 1;

const MTIME_IS_CTIME: u8 = 1;
const ATIME_IS_CTIME: u8 = 1 << 1;
const HAS_DATA: u8 = 1 << 2;
const HAS_RDEV: u8 = 1 << 3;
const HAS_XATTRS: u8 = 1 << 4;
const HAS_GARBAGE: u8 = 1 << 5;
const HAS_FENCE: u8 = 1 << 6;
/// The last flag: what comes next takes a new version. Directories have a parent without it.
const HAS_PARENT: u8 = 1 << 7;

impl Inode {
    /// The record. The inode's number is its key.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let attr = &self.attr;
        let flag = |condition, flag| if condition { flag } else { 0 };
        let flags = flag(attr.mtime == attr.ctime, MTIME_IS_CTIME)
            | flag(attr.atime == attr.ctime, ATIME_IS_CTIME)
            | flag(attr.layout.is_some(), HAS_DATA)
            | flag(attr.rdev != 0, HAS_RDEV)
            | flag(attr.has_xattrs, HAS_XATTRS)
            | flag(attr.garbage_end_bytes != 0, HAS_GARBAGE)
            | flag(attr.fence != Fence::NONE, HAS_FENCE)
            | flag(self.parent.is_some() && !attr.is_directory(), HAS_PARENT);
        let mut out = Vec::with_capacity(80);
        out.push(VERSION);
        out.push(flags);
        for number in [attr.mode, attr.nlink, attr.uid, attr.gid] {
            put_varint(&mut out, number.into());
        }
        for number in [attr.size_bytes, attr.allocated_bytes, attr.change] {
            put_varint(&mut out, number);
        }
        put_time(&mut out, attr.ctime);
        if flags & MTIME_IS_CTIME == 0 {
            put_time(&mut out, attr.mtime);
        }
        if flags & ATIME_IS_CTIME == 0 {
            put_time(&mut out, attr.atime);
        }
        if flags & HAS_RDEV != 0 {
            put_varint(&mut out, attr.rdev.into());
        }
        if flags & HAS_GARBAGE != 0 {
            put_varint(&mut out, attr.garbage_end_bytes);
        }
        if flags & HAS_FENCE != 0 {
            put_varint(&mut out, attr.fence.0);
        }
        if let Some(parent) = self.parent {
            put_varint(&mut out, parent.0);
        }
        if let Some(layout) = &attr.layout {
            put_varint(&mut out, attr.data.0);
            put_layout(&mut out, layout);
        }
        if let Some(target) = &self.target {
            out.extend_from_slice(target);
        }
        out
    }

    /// # Errors
    /// A record that is not one.
    pub fn decode(ino: InodeId, record: &[u8]) -> Result<Self, OpError> {
        decode(ino, record).ok_or_else(|| corrupt(format_args!("the record of inode {ino} ({record:02x?})")))
    }
}

fn decode(ino: InodeId, record: &[u8]) -> Option<Inode> {
    let mut reader = Reader::new(record);
    if reader.byte()? != VERSION {
        return None;
    }
    let flags = reader.byte()?;
    let (mode, nlink, uid, gid) =
        (reader.varint32()?, reader.varint32()?, reader.varint32()?, reader.varint32()?);
    let (size_bytes, allocated_bytes, change) = (reader.varint()?, reader.varint()?, reader.varint()?);
    let ctime = time(&mut reader)?;
    let mtime = if flags & MTIME_IS_CTIME == 0 { time(&mut reader)? } else { ctime };
    let atime = if flags & ATIME_IS_CTIME == 0 { time(&mut reader)? } else { ctime };
    let rdev = if flags & HAS_RDEV == 0 { 0 } else { reader.varint32()? };
    let garbage_end_bytes = if flags & HAS_GARBAGE == 0 { 0 } else { reader.varint()? };
    let fence = if flags & HAS_FENCE == 0 { Fence::NONE } else { Fence(reader.varint()?) };
    let is_directory = mode & mode::TYPE == mode::DIRECTORY;
    let parent = match (is_directory, flags & HAS_PARENT != 0) {
        (true, true) => return None,
        (false, false) => None,
        _ => Some(InodeId(reader.varint()?)),
    };
    let (data, layout) = if flags & HAS_DATA == 0 {
        (DataId(0), None)
    } else {
        (DataId(reader.varint()?), Some(layout(&mut reader)?))
    };
    let is_symlink = mode & mode::TYPE == mode::SYMLINK;
    let target = is_symlink.then(|| Bytes::copy_from_slice(reader.rest()));
    let attr = Attr {
        ino,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        size_bytes,
        allocated_bytes,
        atime,
        mtime,
        ctime,
        data,
        layout,
        garbage_end_bytes,
        change,
        has_xattrs: flags & HAS_XATTRS != 0,
        fence,
    };
    Some(Inode { attr, parent, target })
}

fn put_time(out: &mut Vec<u8>, time: Time) {
    put_signed(out, time.seconds);
    put_varint(out, time.nanos().into());
}

fn time(reader: &mut Reader<'_>) -> Option<Time> {
    Time::new(reader.signed()?, reader.varint32()?)
}

/// A layout: the chunk size's power of two, the width, the groups.
pub(crate) fn put_layout(out: &mut Vec<u8>, layout: &Layout) {
    // The chunk size is a power of two, the width at most 16: both fit a byte.
    out.push(layout.chunk_size_bytes().trailing_zeros() as u8);
    out.push(layout.groups().len() as u8);
    for group in layout.groups() {
        put_varint(out, group.0.into());
    }
}

/// The inverse of [`put_layout`].
pub(crate) fn layout(reader: &mut Reader<'_>) -> Option<Layout> {
    let chunk_size_bytes = 1_u32.checked_shl(reader.byte()?.into())?;
    let width = reader.byte()?;
    let groups = (0..width).map(|_| reader.varint32().map(GroupId)).collect::<Option<_>>()?;
    Layout::new(chunk_size_bytes, groups).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times() -> impl Strategy<Value = Time> {
        (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Time::new(seconds, nanos).unwrap())
    }

    prop_compose! {
        fn inodes()(
            kind in prop::sample::select(vec![mode::REGULAR, mode::DIRECTORY, mode::SYMLINK, mode::FIFO, mode::BLOCK]),
            permissions in 0..=mode::PERMISSIONS,
            numbers: [u32; 4],
            sizes: [u64; 6],
            times in [times(), times(), times()],
            same: [bool; 2],
            has_xattrs: bool,
            groups in prop::collection::vec(any::<u32>(), 1..=16),
            target in prop::collection::vec(any::<u8>(), 1..200),
            parent: Option<u64>,
        ) -> Inode {
            let regular = kind == mode::REGULAR;
            let attr = Attr {
                ino: InodeId(77),
                mode: kind | permissions,
                nlink: numbers[0],
                uid: numbers[1],
                gid: numbers[2],
                rdev: numbers[3],
                size_bytes: sizes[0],
                allocated_bytes: sizes[1],
                ctime: times[0],
                mtime: if same[0] { times[0] } else { times[1] },
                atime: if same[1] { times[0] } else { times[2] },
                data: DataId(if regular { sizes[2] } else { 0 }),
                layout: regular.then(|| {
                    Layout::new(8 << 20, groups.iter().map(|group| GroupId(*group)).collect()).unwrap()
                }),
                garbage_end_bytes: sizes[3],
                change: sizes[4],
                has_xattrs,
                fence: Fence(if regular { sizes[5] } else { 0 }),
            };
            let parent = if kind == mode::DIRECTORY { Some(sizes[2]) } else { parent };
            let target = (kind == mode::SYMLINK).then(|| target.into());
            Inode { attr, parent: parent.map(InodeId), target }
        }
    }

    proptest! {
        #[test]
        fn records_survive(inode in inodes()) {
            let record = inode.encode();
            prop_assert_eq!(Inode::decode(inode.attr.ino, &record).unwrap(), inode.clone());
            let mut newer = record.clone();
            newer[0] = VERSION + 1;
            prop_assert!(Inode::decode(inode.attr.ino, &newer).is_err());
            if inode.attr.is_directory() {
                let mut twice = record.clone();
                twice[1] |= HAS_PARENT;
                prop_assert!(Inode::decode(inode.attr.ino, &twice).is_err());
            }
            if inode.target.is_none() {
                for len in 0..record.len() {
                    prop_assert!(Inode::decode(inode.attr.ino, &record[..len]).is_err());
                }
            }
        }

        #[test]
        fn nonsense_is_refused_not_fatal(record: Vec<u8>) {
            let _ = Inode::decode(InodeId(1), &record);
        }
    }

    #[test]
    fn a_plain_file_is_small() {
        let now = Time::new(1_800_000_000, 999_999_999).unwrap();
        let attr = Attr {
            ino: InodeId(1 << 40),
            mode: mode::REGULAR | 0o644,
            nlink: 1,
            uid: 1000,
            gid: 1000,
            rdev: 0,
            size_bytes: 100_000,
            allocated_bytes: 102_400,
            atime: now,
            mtime: now,
            ctime: now,
            data: DataId(1 << 40),
            layout: Some(Layout::new(8 << 20, (200..204).map(GroupId).collect()).unwrap()),
            garbage_end_bytes: 0,
            change: 3,
            has_xattrs: false,
            fence: Fence::NONE,
        };
        // 10^8 of these in 5 GB; what a create writes.
        let parent = Some(InodeId(1 << 40));
        assert!(Inode { attr, parent, target: None }.encode().len() <= 50);
    }

    #[test]
    fn records_of_older_releases_have_no_parent() {
        // A symbolic link to "f" with one name, of 1970.
        let record = b"\x01\x03\xff\xc3\x02\x01\x00\x00\x01\x00\x01\x00\x00f";
        let link = Inode::decode(InodeId(2), record).unwrap();
        assert_eq!((link.attr.mode, link.parent), (mode::SYMLINK | 0o777, None));
        assert_eq!((link.target.as_deref(), link.encode()), (Some(b"f".as_slice()), record.to_vec()));
    }
}
