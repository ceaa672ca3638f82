//! Attributes and times.

use coord_types::{DataId, Fence, GroupId, InodeId, Layout};

use super::Invalid;
use crate::proto;
use crate::{Attr, Changes, SetAttr, Time, TimeSet};

impl From<Time> for proto::Time {
    fn from(time: Time) -> Self {
        Self { seconds: time.seconds, nanos: time.nanos() }
    }
}

impl TryFrom<proto::Time> for Time {
    type Error = Invalid;

    fn try_from(time: proto::Time) -> Result<Self, Invalid> {
        Self::new(time.seconds, time.nanos).ok_or(Invalid::Nanos(time.nanos))
    }
}

impl From<TimeSet> for proto::TimeSet {
    fn from(set: TimeSet) -> Self {
        let value = match set {
            TimeSet::Now => proto::time_set::Value::Now(true),
            TimeSet::At(time) => proto::time_set::Value::At(time.into()),
        };
        Self { value: Some(value) }
    }
}

impl TryFrom<proto::TimeSet> for TimeSet {
    type Error = Invalid;

    fn try_from(set: proto::TimeSet) -> Result<Self, Invalid> {
        match set.value {
            Some(proto::time_set::Value::Now(_)) => Ok(Self::Now),
            Some(proto::time_set::Value::At(time)) => Ok(Self::At(time.try_into()?)),
            None => Err(Invalid::Missing { message: "time to set", field: "value" }),
        }
    }
}

impl From<&Layout> for proto::Layout {
    fn from(layout: &Layout) -> Self {
        Self {
            chunk_size_bytes: layout.chunk_size_bytes(),
            groups: layout.groups().iter().map(|group| group.0).collect(),
        }
    }
}

impl TryFrom<proto::Layout> for Layout {
    type Error = Invalid;

    fn try_from(layout: proto::Layout) -> Result<Self, Invalid> {
        Ok(Self::new(layout.chunk_size_bytes, layout.groups.into_iter().map(GroupId).collect())?)
    }
}

impl From<&Attr> for proto::Attr {
    fn from(attr: &Attr) -> Self {
        Self {
            ino: attr.ino.0,
            mode: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            size_bytes: attr.size_bytes,
            allocated_bytes: attr.allocated_bytes,
            atime: Some(attr.atime.into()),
            mtime: Some(attr.mtime.into()),
            ctime: Some(attr.ctime.into()),
            data: attr.data.0,
            layout: attr.layout.as_ref().map(Into::into),
            garbage_end_bytes: attr.garbage_end_bytes,
            change: attr.change,
            has_xattrs: attr.has_xattrs,
            fence: attr.fence.0,
        }
    }
}

impl TryFrom<proto::Attr> for Attr {
    type Error = Invalid;

    fn try_from(attr: proto::Attr) -> Result<Self, Invalid> {
        let time = |time: Option<proto::Time>, field| {
            time.ok_or(Invalid::Missing { message: "attributes", field })?.try_into()
        };
        Ok(Self {
            ino: InodeId(attr.ino),
            mode: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            size_bytes: attr.size_bytes,
            allocated_bytes: attr.allocated_bytes,
            atime: time(attr.atime, "atime")?,
            mtime: time(attr.mtime, "mtime")?,
            ctime: time(attr.ctime, "ctime")?,
            data: DataId(attr.data),
            layout: attr.layout.map(TryInto::try_into).transpose()?,
            garbage_end_bytes: attr.garbage_end_bytes,
            change: attr.change,
            has_xattrs: attr.has_xattrs,
            fence: Fence(attr.fence),
        })
    }
}

impl From<SetAttr> for proto::SetAttr {
    fn from(set: SetAttr) -> Self {
        let changes = set.changes;
        Self {
            ino: set.ino.0,
            mode: changes.mode,
            uid: changes.uid,
            gid: changes.gid,
            size_bytes: changes.size_bytes,
            atime: changes.atime.map(Into::into),
            mtime: changes.mtime.map(Into::into),
            kill_privileges: changes.kill_privileges,
            fence: changes.fence.map(|fence| fence.0),
        }
    }
}

impl TryFrom<proto::SetAttr> for SetAttr {
    type Error = Invalid;

    fn try_from(set: proto::SetAttr) -> Result<Self, Invalid> {
        Ok(Self {
            ino: InodeId(set.ino),
            changes: Changes {
                mode: set.mode,
                uid: set.uid,
                gid: set.gid,
                size_bytes: set.size_bytes,
                atime: set.atime.map(TryInto::try_into).transpose()?,
                mtime: set.mtime.map(TryInto::try_into).transpose()?,
                kill_privileges: set.kill_privileges,
                fence: set.fence.map(Fence),
            },
        })
    }
}
