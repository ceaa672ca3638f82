//! The smaller records: counters, the cluster, sessions, deletions, servers, disks, groups.
//!
//! The counters are written with every create and are encoded by hand; the others are rare and are protobuf messages behind
//! a version byte, declared here because they are nobody else's business.

use coord_types::{GroupId, Layout};
use prost::Message;

use crate::codec::{Reader, put_varint};
use crate::error::{OpError, corrupt};
use crate::inode;

/// First byte of every record here.
const VERSION: u8 = 1;

/// Numbers that are handed out, and sums that would be dear to count. One record, read and written by most commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// The next inode or data id.
    pub next_id: u64,
    pub next_session: u64,
    pub next_server: u32,
    pub next_disk: u32,
    /// Groups are numbered 1..=groups without gaps: a layout needs no look at the table.
    pub groups: u32,
    pub table_version: u64,
    pub inodes: u64,
    pub allocated_bytes: u64,
    pub deletions_pending: u64,
    pub sessions: u64,
}

impl Counters {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.push(VERSION);
        for number in [
            self.next_id,
            self.next_session,
            self.next_server.into(),
            self.next_disk.into(),
            self.groups.into(),
            self.table_version,
            self.inodes,
            self.allocated_bytes,
            self.deletions_pending,
            self.sessions,
        ] {
            put_varint(&mut out, number);
        }
        out
    }

    /// # Errors
    /// A record that is not one.
    pub fn decode(record: &[u8]) -> Result<Self, OpError> {
        let decode = || {
            let mut reader = Reader::new(record);
            if reader.byte()? != VERSION {
                return None;
            }
            Some(Self {
                next_id: reader.varint()?,
                next_session: reader.varint()?,
                next_server: reader.varint32()?,
                next_disk: reader.varint32()?,
                groups: reader.varint32()?,
                table_version: reader.varint()?,
                inodes: reader.varint()?,
                allocated_bytes: reader.varint()?,
                deletions_pending: reader.varint()?,
                sessions: reader.varint()?,
            })
        };
        decode().ok_or_else(|| corrupt("the counters"))
    }
}

/// Deleted data whose chunks are still to be freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was deleted, in nanoseconds since 1970.
    pub time_nanos: u64,
    pub groups: Vec<GroupId>,
}

impl Deletion {
    /// The record of data with this layout.
    #[must_use]
    pub fn encode(time_nanos: u64, layout: &Layout) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, time_nanos);
        inode::put_layout(&mut out, layout);
        out
    }

    /// # Errors
    /// A record that is not one.
    pub fn decode(record: &[u8]) -> Result<Self, OpError> {
        let decode = || {
            let mut reader = Reader::new(record);
            if reader.byte()? != VERSION {
                return None;
            }
            let time_nanos = reader.varint()?;
            Some(Self { time_nanos, groups: inode::layout(&mut reader)?.groups().to_vec() })
        };
        decode().ok_or_else(|| corrupt("a deletion"))
    }
}

/// The cluster, as it was initialised.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClusterRecord {
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    #[prost(uint32, tag = "2")]
    pub replicas: u32,
    #[prost(uint32, tag = "3")]
    pub min_replicas: u32,
    #[prost(uint32, tag = "4")]
    pub groups_per_disk: u32,
    /// Raised by `NewEpoch` alone.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// What `min_replicas` is to be as soon as every group has so many. At most `min_replicas`: no more than it is.
    #[prost(uint32, tag = "6")]
    pub min_replicas_wanted: u32,
}

/// A client's session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SessionRecord {
    #[prost(string, tag = "1")]
    pub description: String,
    #[prost(uint64, tag = "2")]
    pub opened_nanos: u64,
    /// Empty: it was opened in an older release.
    #[prost(string, tag = "3")]
    pub owner: String,
}

/// A chunkserver.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ServerRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub uuid: Vec<u8>,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(string, tag = "3")]
    pub location: String,
    #[prost(uint64, tag = "4")]
    pub incarnation: u64,
}

/// A disk of a chunkserver.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DiskRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub uuid: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub server: u32,
    #[prost(uint64, tag = "3")]
    pub capacity_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub used_bytes: u64,
    /// The server said so, or no longer has the disk.
    #[prost(bool, tag = "5")]
    pub failed: bool,
    /// An operator wants it empty.
    #[prost(bool, tag = "6")]
    pub draining: bool,
}

/// A replica group.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GroupRecord {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<MemberRecord>,
}

/// A member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct MemberRecord {
    #[prost(uint32, tag = "1")]
    pub disk: u32,
    /// As `MemberState` on the wire.
    #[prost(int32, tag = "2")]
    pub state: i32,
}

/// A version byte, then the message.
pub(crate) fn encode(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(VERSION);
    message.encode(&mut out).expect("a Vec grows as needed");
    out
}

/// The inverse of [`encode`].
pub(crate) fn decode<M: Message + Default>(what: &str, record: &[u8]) -> Result<M, OpError> {
    match record.split_first() {
        Some((&VERSION, message)) => {
            M::decode(message).map_err(|error| corrupt(format_args!("the record of {what}: {error}")))
        }
        _ => Err(corrupt(format_args!("the record of {what}: unknown version"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_nonsense_is_refused() {
        let counters = Counters {
            next_id: 1 << 40,
            next_session: 2,
            next_server: 3,
            next_disk: 4,
            groups: 5,
            table_version: 6,
            inodes: 7,
            allocated_bytes: 8,
            deletions_pending: 9,
            sessions: 10,
        };
        let record = counters.encode();
        assert_eq!(Counters::decode(&record).unwrap(), counters);
        assert!(Counters::decode(&record[..record.len() - 1]).is_err());
        assert!(Counters::decode(&[&[VERSION + 1], &record[1..]].concat()).is_err());
        let layout = Layout::new(1 << 20, vec![GroupId(3), GroupId(900)]).unwrap();
        let record = Deletion::encode(55, &layout);
        let deletion = Deletion { time_nanos: 55, groups: layout.groups().to_vec() };
        assert_eq!(Deletion::decode(&record).unwrap(), deletion);
        assert!(Deletion::decode(&[9, 1]).is_err());
        let cluster = ClusterRecord { cluster_id: "x".into(), replicas: 3, ..ClusterRecord::default() };
        assert_eq!(decode::<ClusterRecord>("c", &encode(&cluster)).unwrap(), cluster);
        assert!(decode::<ClusterRecord>("c", b"\x02").is_err());
        let older = SessionRecord { description: "d".into(), opened_nanos: 5, owner: String::new() };
        assert_eq!(decode::<SessionRecord>("s", b"\x01\x0a\x01d\x10\x05").unwrap(), older);
    }
}
