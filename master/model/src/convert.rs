//! Between the wire's messages and the domain types.
//!
//! Messages from the network become domain types only through `TryFrom`, which checks all that can be checked without
//! looking at the file system; each refusal has an errno, because the other end is a system call. The other
//! direction cannot fail. `attr` and `table` are the parts both directions share.

mod attr;
mod event;
mod mutation;
mod query;
mod table;

pub use event::watched;
pub use mutation::mutated;
pub use query::answer;
pub use table::member_state;

use coord_types::InodeId;

use crate::Errno;
use crate::{FlagsError, NameError};
use coord_types::LayoutError;

/// Why a message means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("{message} has no {field}")]
    Missing { message: &'static str, field: &'static str },
    #[error("{field}: {source}")]
    Name {
        field: &'static str,
        #[source]
        source: NameError,
    },
    #[error("a time has {0} nanoseconds, not below 10^9")]
    Nanos(u32),
    #[error(transparent)]
    Flags(#[from] FlagsError),
    #[error("mode {0:#o} is not a type that can be made with mknod")]
    Mode(u32),
    #[error("held-back attributes hold a size")]
    HeldSize,
    #[error("layout: {0}")]
    Layout(#[from] LayoutError),
    #[error("a {what} has {len} bytes, not 16")]
    Uuid { what: &'static str, len: usize },
    #[error("errno {0} is none of Linux")]
    Errno(u32),
    #[error("member state {0} is not known")]
    MemberState(i32),
    #[error("event kind {0} is not known")]
    EventKind(i32),
}

impl Invalid {
    /// What the caller of a system call gets.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Name { source, .. } => source.errno(),
            Self::Missing { .. }
            | Self::Nanos(_)
            | Self::Flags(_)
            | Self::Mode(_)
            | Self::HeldSize
            | Self::Layout(_)
            | Self::Uuid { .. }
            | Self::Errno(_)
            | Self::MemberState(_)
            | Self::EventKind(_) => Errno::EINVAL,
        }
    }
}

const fn inode(number: u64) -> InodeId {
    InodeId(number)
}

const fn optional_inode(number: u64) -> Option<InodeId> {
    if number == 0 { None } else { Some(InodeId(number)) }
}

fn number(ino: Option<InodeId>) -> u64 {
    ino.map_or(0, |ino| ino.0)
}

/// 16 bytes, as a uuid has.
///
/// # Errors
/// If there are more or fewer.
pub fn uuid(what: &'static str, bytes: &[u8]) -> Result<[u8; 16], Invalid> {
    bytes.try_into().map_err(|_| Invalid::Uuid { what, len: bytes.len() })
}

#[cfg(test)]
mod tests {
    use coord_types::{DataId, Fence, GroupId, Layout};

    use super::*;
    use crate::{Attr, Time, proto};

    /// Attributes no two of which are the same.
    pub(super) fn attr(ino: u64) -> Attr {
        let time = |seconds| Time::new(seconds, 5).unwrap();
        Attr {
            ino: InodeId(ino),
            mode: 0o100_644,
            nlink: 2,
            uid: 3,
            gid: 4,
            rdev: 5,
            size_bytes: 6,
            allocated_bytes: 7,
            atime: time(-8),
            mtime: time(9),
            ctime: time(10),
            data: DataId(11),
            layout: Some(Layout::new(1 << 20, vec![GroupId(12), GroupId(13)]).unwrap()),
            garbage_end_bytes: 14,
            change: 15,
            has_xattrs: true,
            fence: Fence(12),
        }
    }

    #[test]
    fn attributes_survive_the_wire_and_need_their_times() {
        let wire = proto::Attr::from(&attr(1));
        assert_eq!(Attr::try_from(wire.clone()), Ok(attr(1)));
        assert!(Attr::try_from(proto::Attr { mtime: None, ..wire.clone() }).is_err());
        let time = proto::Time { seconds: 1, nanos: 1_000_000_000 };
        assert!(Attr::try_from(proto::Attr { ctime: Some(time), ..wire.clone() }).is_err());
        let layout = proto::Layout { chunk_size_bytes: 3, groups: vec![1] };
        assert!(Attr::try_from(proto::Attr { layout: Some(layout), ..wire }).is_err());
    }

    #[test]
    fn a_uuid_has_16_bytes() {
        assert_eq!(uuid("x", &[7; 16]), Ok([7; 16]));
        for len in [0, 15, 17] {
            assert_eq!(uuid("x", &vec![7; len]), Err(Invalid::Uuid { what: "x", len }));
        }
    }
}
