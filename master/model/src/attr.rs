//! What a file is: attributes, times, and how they are changed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coord_types::{DataId, Fence, InodeId, Layout};

/// The bits of `st_mode`.
pub mod mode {
    pub const TYPE: u32 = 0o170_000;
    pub const SOCKET: u32 = 0o140_000;
    pub const SYMLINK: u32 = 0o120_000;
    pub const REGULAR: u32 = 0o100_000;
    pub const BLOCK: u32 = 0o060_000;
    pub const DIRECTORY: u32 = 0o040_000;
    pub const CHARACTER: u32 = 0o020_000;
    pub const FIFO: u32 = 0o010_000;
    /// Set-user-id.
    pub const SUID: u32 = 0o4000;
    /// Set-group-id.
    pub const SGID: u32 = 0o2000;
    /// In a directory: names go by the hand of the owner of the file or directory alone.
    pub const STICKY: u32 = 0o1000;
    /// Execution by the group.
    pub const GROUP_EXEC: u32 = 0o010;
    /// All that chmod can set.
    pub const PERMISSIONS: u32 = 0o7777;
}

/// A point in time as files have it: before 1970 and beyond 2038, to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub seconds: i64,
    /// Always below 10^9, and counted forwards also before 1970.
    nanos: u32,
}

const NANOS_PER_SECOND: u32 = 1_000_000_000;

impl Time {
    /// `None` if `nanos` is not below 10^9.
    #[must_use]
    pub const fn new(seconds: i64, nanos: u32) -> Option<Self> {
        if nanos < NANOS_PER_SECOND { Some(Self { seconds, nanos }) } else { None }
    }

    /// From nanoseconds since 1970.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        // Both fit: the quotient is below 2^35, the remainder below 10^9.
        Self {
            seconds: (nanos / NANOS_PER_SECOND as u64) as i64,
            nanos: (nanos % NANOS_PER_SECOND as u64) as u32,
        }
    }

    #[must_use]
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { seconds: -whole, nanos: 0 },
                    nanos => Self { seconds: -whole - 1, nanos: NANOS_PER_SECOND - nanos },
                }
            }
        }
    }
}

impl From<Time> for SystemTime {
    /// Times that `SystemTime` cannot hold become 1970: they can only be the work of a program that sets them so.
    fn from(time: Time) -> Self {
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        let base =
            if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        base.and_then(|base| base.checked_add(Duration::from_nanos(u64::from(time.nanos))))
            .unwrap_or(UNIX_EPOCH)
    }
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSet {
    /// The time of the change itself, by the master's clock.
    Now,
    At(Time),
}

/// All that is known about an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: InodeId,
    /// The whole `st_mode`: type and permissions.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Of a directory: how many names it holds.
    pub size_bytes: u64,
    pub allocated_bytes: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// The generation of a regular file's data; 0 for all others.
    pub data: DataId,
    /// Where that data lives; `None` for all others.
    pub layout: Option<Layout>,
    /// Chunks may hold bytes of an earlier, longer life of the file up to here. 0: none.
    pub garbage_end_bytes: u64,
    /// Raised by every change of this inode.
    pub change: u64,
    /// False: there are no extended attributes, no need to ask.
    pub has_xattrs: bool,
    /// What a handle opened now writes under.
    pub fence: Fence,
}

impl Attr {
    /// The type bits of the mode.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        self.mode & mode::TYPE
    }

    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.kind() == mode::DIRECTORY
    }

    #[must_use]
    pub const fn is_regular(&self) -> bool {
        self.kind() == mode::REGULAR
    }

    #[must_use]
    pub const fn is_symlink(&self) -> bool {
        self.kind() == mode::SYMLINK
    }
}

/// What setattr changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Permission bits.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Truncates or extends. To 0: fresh data generation. Shorter: the garbage end is raised to the old size.
    pub size_bytes: Option<u64>,
    pub atime: Option<TimeSet>,
    pub mtime: Option<TimeSet>,
    /// Clears set-user-id and set-group-id as a write or truncate by an unprivileged caller does.
    pub kill_privileges: bool,
    /// What the file was opened under by who asks: refused with ESTALE if the file's fence is higher. `None`: nothing was
    /// opened; in a [`CommitWrite`](super::CommitWrite): before there was a fence.
    pub fence: Option<Fence>,
}

/// Changes of one inode's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAttr {
    pub ino: InodeId,
    pub changes: Changes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_survive() {
        for (seconds, nanos) in [(-1, 999_999_999), (-2, 0), (0, 0), (1 << 33, 5), (-(1 << 33), 1)] {
            let time = Time::new(seconds, nanos).unwrap();
            assert_eq!(Time::from(SystemTime::from(time)), time);
        }
        assert_eq!(Time::new(0, 1_000_000_000), None);
        assert_eq!(Time::from(UNIX_EPOCH - Duration::from_nanos(1)), Time::new(-1, 999_999_999).unwrap());
        assert_eq!(Time::from_nanos(3_000_000_007), Time::new(3, 7).unwrap());
    }
}
