//! Queries and their answers.

use coord_types::InodeId;

use super::mutation::xattr_name;
use super::{Invalid, inode};
use crate::Errno;
use crate::proto;
use crate::proto::query_request::Op;
use crate::{Answer, Attr, DirEntry, Name, Query, ReadDir, StatFs};

impl TryFrom<Op> for Query {
    type Error = Invalid;

    fn try_from(op: Op) -> Result<Self, Invalid> {
        Ok(match op {
            Op::Lookup(op) => Self::Lookup {
                parent: inode(op.parent),
                name: Name::new(op.name).map_err(|source| Invalid::Name { field: "name", source })?,
            },
            Op::GetAttr(op) => Self::GetAttr(inode(op.ino)),
            Op::ReadLink(op) => Self::ReadLink(inode(op.ino)),
            Op::ReadDir(op) => Self::ReadDir(ReadDir {
                ino: inode(op.ino),
                after_cookie: op.after_cookie,
                limit: op.limit,
                with_attributes: op.with_attributes,
            }),
            Op::GetXattr(op) => Self::GetXattr { ino: inode(op.ino), name: xattr_name(op.name)? },
            Op::ListXattr(op) => Self::ListXattr(inode(op.ino)),
            Op::StatFs(proto::StatFs {}) => Self::StatFs,
            Op::Resolve(op) => Self::Resolve(op.path),
        })
    }
}

impl From<Query> for Op {
    fn from(query: Query) -> Self {
        match query {
            Query::Lookup { parent, name } => {
                Self::Lookup(proto::Lookup { parent: parent.0, name: name.into_bytes() })
            }
            Query::GetAttr(ino) => Self::GetAttr(proto::GetAttr { ino: ino.0 }),
            Query::ReadLink(ino) => Self::ReadLink(proto::ReadLink { ino: ino.0 }),
            Query::ReadDir(op) => Self::ReadDir(proto::ReadDir {
                ino: op.ino.0,
                after_cookie: op.after_cookie,
                limit: op.limit,
                with_attributes: op.with_attributes,
            }),
            Query::GetXattr { ino, name } => {
                Self::GetXattr(proto::GetXattr { ino: ino.0, name: name.into_bytes() })
            }
            Query::ListXattr(ino) => Self::ListXattr(proto::ListXattr { ino: ino.0 }),
            Query::StatFs => Self::StatFs(proto::StatFs {}),
            Query::Resolve(path) => Self::Resolve(proto::Resolve { path }),
        }
    }
}

impl From<StatFs> for proto::StatFsReply {
    fn from(stat: StatFs) -> Self {
        Self { total_bytes: stat.total_bytes, used_bytes: stat.used_bytes, inodes_used: stat.inodes_used }
    }
}

impl From<proto::StatFsReply> for StatFs {
    fn from(stat: proto::StatFsReply) -> Self {
        Self { total_bytes: stat.total_bytes, used_bytes: stat.used_bytes, inodes_used: stat.inodes_used }
    }
}

impl From<DirEntry> for proto::DirEntry {
    fn from(entry: DirEntry) -> Self {
        Self {
            name: entry.name,
            ino: entry.ino.0,
            kind: entry.kind,
            cookie: entry.cookie,
            attr: entry.attr.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::DirEntry> for DirEntry {
    type Error = Invalid;

    fn try_from(entry: proto::DirEntry) -> Result<Self, Invalid> {
        Ok(Self {
            name: entry.name,
            ino: InodeId(entry.ino),
            kind: entry.kind,
            cookie: entry.cookie,
            attr: entry.attr.map(Attr::try_from).transpose()?,
        })
    }
}

impl From<Result<Answer, Errno>> for proto::QueryReply {
    fn from(result: Result<Answer, Errno>) -> Self {
        match result {
            Ok(answer) => Self {
                errno: 0,
                attr: answer.attr.as_ref().map(Into::into),
                parent: answer.parent.as_ref().map(Into::into),
                value: answer.value,
                names: answer.names,
                entries: answer.entries.into_iter().map(Into::into).collect(),
                end: answer.end,
                stat_fs: answer.stat_fs.map(Into::into),
            },
            Err(errno) => Self { errno: errno.wire(), ..Self::default() },
        }
    }
}

/// What the master answered a query.
///
/// # Errors
/// [`Invalid`] if the reply means nothing; inside, the errno it carries.
pub fn answer(reply: proto::QueryReply) -> Result<Result<Answer, Errno>, Invalid> {
    if reply.errno != 0 {
        return Ok(Err(Errno::from_number(reply.errno).ok_or(Invalid::Errno(reply.errno))?));
    }
    Ok(Ok(Answer {
        attr: reply.attr.map(Attr::try_from).transpose()?,
        parent: reply.parent.map(Attr::try_from).transpose()?,
        value: reply.value,
        names: reply.names,
        entries: reply.entries.into_iter().map(DirEntry::try_from).collect::<Result<_, _>>()?,
        end: reply.end,
        stat_fs: reply.stat_fs.map(Into::into),
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::XattrName;

    #[test]
    fn every_query_survives_the_wire() {
        let ino = InodeId(4);
        for query in [
            Query::Lookup { parent: ino, name: Name::new("x").unwrap() },
            Query::GetAttr(ino),
            Query::ReadLink(ino),
            Query::ReadDir(ReadDir { ino, after_cookie: 5, limit: 6, with_attributes: true }),
            Query::GetXattr { ino, name: XattrName::new("user.x").unwrap() },
            Query::ListXattr(ino),
            Query::StatFs,
            Query::Resolve(Bytes::from_static(b"/a/b")),
        ] {
            assert_eq!(Query::try_from(Op::from(query.clone())), Ok(query));
        }
    }

    #[test]
    fn an_answer_is_an_errno_or_the_rest() {
        assert_eq!(answer(Err(Errno::ENOENT).into()), Ok(Err(Errno::ENOENT)));
        let attr = super::super::tests::attr;
        let entry = |attr| DirEntry { name: "e".into(), ino: InodeId(2), kind: 1, cookie: 3, attr };
        let full = Answer {
            attr: Some(attr(1)),
            parent: Some(attr(2)),
            value: Bytes::from_static(b"v"),
            names: vec![Bytes::from_static(b"n")],
            entries: vec![entry(None), entry(Some(attr(3)))],
            end: true,
            stat_fs: Some(StatFs { total_bytes: 1, used_bytes: 2, inodes_used: 3 }),
        };
        assert_eq!(answer(Ok(full.clone()).into()), Ok(Ok(full)));
    }
}
