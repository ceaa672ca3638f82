//! Which control files there are, and their inode numbers (`fs/docs/control-files.md`, "Numbers of inodes").

use coord_types::InodeId;

/// What the directory is called, in the root.
pub(crate) const TOP_NAME: &[u8] = b".pangu";

/// The control files' own volume.
const CONTROL: u16 = 0xFFFF;
/// Set in the number of a volume that mirrors another.
const MIRROR: u16 = 0x8000;
const VOLUME_SHIFT: u32 = 48;
const LOW: u64 = (1 << VOLUME_SHIFT) - 1;
/// Numbers of chunkservers' files begin here.
const SERVERS_FIRST: u64 = 1 << 40;
/// Numbers a chunkserver has.
const PER_SERVER: u64 = 16;

/// A control file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// `.pangu`
    Top,
    /// `.pangu/chunkservers`
    Servers,
    /// `.pangu/chunkservers/ID`
    Server(u32),
    File(File),
    /// `.pangu/where/PATH` of the inode that `/PATH` is.
    Mirror(InodeId),
}

/// A control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Health,
    Cluster,
    Groups,
    Recovery,
    Metrics,
    Errors,
    Whoami,
    Status(u32),
    Ctl(u32),
}

/// The files of `.pangu`, with their numbers.
const FILES: [(&[u8], File, u64); 7] = [
    (b"health", File::Health, 3),
    (b"cluster", File::Cluster, 4),
    (b"groups", File::Groups, 5),
    (b"recovery", File::Recovery, 6),
    (b"metrics", File::Metrics, 7),
    (b"errors", File::Errors, 8),
    (b"whoami", File::Whoami, 9),
];

const TOP: u64 = 1;
const SERVERS: u64 = 2;

impl Node {
    pub(crate) const WHERE: Self = Self::Mirror(InodeId::ROOT);

    pub(crate) const fn ino(self) -> InodeId {
        let low = match self {
            Self::Top => TOP,
            Self::Servers => SERVERS,
            Self::Server(id) => SERVERS_FIRST + id as u64 * PER_SERVER,
            Self::File(File::Status(id)) => SERVERS_FIRST + id as u64 * PER_SERVER + 1,
            Self::File(File::Ctl(id)) => SERVERS_FIRST + id as u64 * PER_SERVER + 2,
            Self::File(File::Health) => FILES[0].2,
            Self::File(File::Cluster) => FILES[1].2,
            Self::File(File::Groups) => FILES[2].2,
            Self::File(File::Recovery) => FILES[3].2,
            Self::File(File::Metrics) => FILES[4].2,
            Self::File(File::Errors) => FILES[5].2,
            Self::File(File::Whoami) => FILES[6].2,
            Self::Mirror(ino) => return InodeId(ino.0 | (MIRROR as u64) << VOLUME_SHIFT),
        };
        InodeId((CONTROL as u64) << VOLUME_SHIFT | low)
    }

    /// The node of an inode's number; `None` if it is a file's, or means nothing.
    pub(crate) fn of(ino: InodeId) -> Option<Self> {
        let low = ino.0 & LOW;
        match ino.volume() {
            CONTROL if low >= SERVERS_FIRST => {
                let at = low - SERVERS_FIRST;
                let id = u32::try_from(at / PER_SERVER).ok()?;
                match at % PER_SERVER {
                    0 => Some(Self::Server(id)),
                    1 => Some(Self::File(File::Status(id))),
                    2 => Some(Self::File(File::Ctl(id))),
                    _ => None,
                }
            }
            CONTROL => match low {
                TOP => Some(Self::Top),
                SERVERS => Some(Self::Servers),
                _ => FILES.iter().find(|(_, _, number)| *number == low).map(|(_, file, _)| Self::File(*file)),
            },
            volume if volume & MIRROR != 0 => {
                Some(Self::Mirror(InodeId(low | u64::from(volume & !MIRROR) << VOLUME_SHIFT)))
            }
            _ => None,
        }
    }

    /// Whether a number is one of ours. Asked for every operation.
    pub(crate) const fn is_ours(ino: InodeId) -> bool {
        ino.0 >> 63 == 1
    }
}

/// The fixed entries of `.pangu`.
pub(crate) fn top_entries() -> impl Iterator<Item = (&'static [u8], Node)> {
    let directories: [(&[u8], Node); 2] = [(b"chunkservers", Node::Servers), (b"where", Node::WHERE)];
    FILES.iter().map(|(name, file, _)| (*name, Node::File(*file))).chain(directories)
}

/// The entries of a chunkserver's directory.
pub(crate) fn server_entries(id: u32) -> [(&'static [u8], Node); 2] {
    [(b"status", Node::File(File::Status(id))), (b"ctl", Node::File(File::Ctl(id)))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        let mut nodes = vec![Node::Top, Node::Servers, Node::WHERE, Node::Mirror(InodeId((5 << 48) | 77))];
        nodes.extend(top_entries().map(|(_, node)| node));
        for id in [0, 3, u32::MAX] {
            nodes.push(Node::Server(id));
            nodes.extend(server_entries(id).map(|(_, node)| node));
        }
        for node in nodes {
            assert_eq!(Node::of(node.ino()), Some(node));
            assert!(Node::is_ours(node.ino()));
        }
        for file in [InodeId::ROOT, InodeId(u64::MAX >> 1)] {
            assert_eq!((Node::of(file), Node::is_ours(file)), (None, false));
        }
        assert_eq!(Node::of(InodeId(u64::MAX)), None);
    }
}
