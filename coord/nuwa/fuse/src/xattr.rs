//! Extended attributes: what Nuwa knows of an entry, and compare-and-set.

use bytes::Bytes;
use fs_client::Errno;
use nuwa_api::proto::Entry;

const PREFIX: &str = "user.nuwa.";

/// One that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Version,
    Revision,
    Owner,
    Fence,
}

impl Attribute {
    pub(crate) const ALL: [Self; 4] = [Self::Version, Self::Revision, Self::Owner, Self::Fence];

    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|attribute| attribute.name().as_bytes() == name)
    }

    pub(crate) fn name(self) -> String {
        let last = match self {
            Self::Version => "version",
            Self::Revision => "revision",
            Self::Owner => "owner",
            Self::Fence => "fence",
        };
        format!("{PREFIX}{last}")
    }

    /// `None`: the entry has none. `fence`: of its lock.
    pub(crate) fn value(self, entry: &Entry, fence: Option<u64>) -> Option<Bytes> {
        let number = match self {
            Self::Version => Some(entry.version),
            Self::Revision => Some(entry.modified),
            Self::Owner => Some(entry.owner).filter(|owner| *owner != 0),
            Self::Fence => fence,
        };
        number.map(|number| number.to_string().into())
    }
}

/// Whether `name` is the one that compares and sets.
pub(crate) fn is_cas(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX.as_bytes()) == Some(b"cas")
}

/// What it is set to: the version the file must have, and its new value.
pub(crate) fn parse_cas(text: &[u8]) -> Result<(u64, Bytes), Errno> {
    let at = text.iter().position(|byte| *byte == b' ').ok_or(Errno::EINVAL)?;
    let version = std::str::from_utf8(&text[..at]).ok().and_then(|text| text.parse().ok());
    Ok((version.ok_or(Errno::EINVAL)?, Bytes::copy_from_slice(&text[at + 1..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compare_and_set_is_a_version_and_a_value() {
        assert_eq!(parse_cas(b"3 new value").unwrap(), (3, Bytes::from_static(b"new value")));
        assert_eq!(parse_cas(b"12 ").unwrap(), (12, Bytes::new()));
        for bad in [&b"3"[..], b"", b"x y", b"-1 y", b" y"] {
            assert_eq!(parse_cas(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert!(is_cas(b"user.nuwa.cas") && !is_cas(b"user.nuwa.version"));
        assert_eq!(Attribute::named(b"user.nuwa.fence"), Some(Attribute::Fence));
        assert_eq!(Attribute::named(b"user.other"), None);
    }
}
