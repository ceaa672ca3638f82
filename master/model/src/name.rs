//! Names that were checked: of directory entries, of extended attributes, and the targets of symbolic links.

use std::fmt;

use bytes::Bytes;

use crate::Errno;

/// The longest name of a directory entry (NAME_MAX).
pub const NAME_MAX_BYTES: usize = 255;
/// The longest target of a symbolic link: PATH_MAX without its final NUL.
pub const SYMLINK_TARGET_MAX_BYTES: usize = 4095;
/// The longest name of an extended attribute (XATTR_NAME_MAX).
pub const XATTR_NAME_MAX_BYTES: usize = 255;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is {0} bytes long, more than 255")]
    TooLong(usize),
    #[error("a name is empty")]
    Empty,
    #[error("\".\" and \"..\" are no names of entries")]
    Dots,
    #[error("a name holds a slash or a NUL")]
    Separator,
    #[error("a symbolic link's target is {0} bytes long, more than 4095")]
    TargetTooLong(usize),
    #[error("the name of an extended attribute is {0} bytes long, more than 255")]
    XattrTooLong(usize),
}

impl NameError {
    /// What the caller of a system call gets.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::TooLong(_) | Self::TargetTooLong(_) => Errno::ENAMETOOLONG,
            Self::Empty => Errno::ENOENT,
            Self::Dots | Self::Separator => Errno::EINVAL,
            Self::XattrTooLong(_) => Errno::ERANGE,
        }
    }
}

/// A directory entry's name: 1 to 255 bytes, no slash, no NUL, not "." or "..".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Bytes);

/// A symbolic link's target: 1 to 4095 bytes, no NUL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SymlinkTarget(Bytes);

/// An extended attribute's name: 1 to 255 bytes, no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Bytes);

impl Name {
    /// # Errors
    /// See [`NameError`].
    pub fn new(name: impl Into<Bytes>) -> Result<Self, NameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_MAX_BYTES {
            return Err(NameError::TooLong(name.len()));
        }
        if &name[..] == b"." || &name[..] == b".." {
            return Err(NameError::Dots);
        }
        if name.iter().any(|byte| *byte == b'/' || *byte == 0) {
            return Err(NameError::Separator);
        }
        Ok(Self(name))
    }
}

impl SymlinkTarget {
    /// # Errors
    /// See [`NameError`].
    pub fn new(target: impl Into<Bytes>) -> Result<Self, NameError> {
        let target = target.into();
        if target.is_empty() {
            return Err(NameError::Empty);
        }
        if target.len() > SYMLINK_TARGET_MAX_BYTES {
            return Err(NameError::TargetTooLong(target.len()));
        }
        if target.contains(&0) {
            return Err(NameError::Separator);
        }
        Ok(Self(target))
    }
}

impl XattrName {
    /// # Errors
    /// See [`NameError`].
    pub fn new(name: impl Into<Bytes>) -> Result<Self, NameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(NameError::XattrTooLong(0));
        }
        if name.len() > XATTR_NAME_MAX_BYTES {
            return Err(NameError::XattrTooLong(name.len()));
        }
        if name.contains(&0) {
            return Err(NameError::Separator);
        }
        Ok(Self(name))
    }
}

macro_rules! bytes_inside {
    ($($type:ident)*) => {$(
        impl $type {
            #[must_use]
            pub fn as_slice(&self) -> &[u8] {
                &self.0
            }

            #[must_use]
            pub fn into_bytes(self) -> Bytes {
                self.0
            }
        }

        impl TryFrom<&[u8]> for $type {
            type Error = NameError;

            fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
                Self::new(Bytes::copy_from_slice(bytes))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.escape_ascii())
            }
        }
    )*};
}

bytes_inside!(Name SymlinkTarget XattrName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_no_entry_is_called() {
        let errno = |name: &[u8]| Name::try_from(name).map_err(NameError::errno).err();
        assert_eq!(errno(b"a"), None);
        assert_eq!(errno(&[0xff; 255]), None);
        assert_eq!(errno(&[b'x'; 256]), Some(Errno::ENAMETOOLONG));
        assert_eq!(errno(b""), Some(Errno::ENOENT));
        assert_eq!(errno(b"."), Some(Errno::EINVAL));
        assert_eq!(errno(b".."), Some(Errno::EINVAL));
        assert_eq!(errno(b"a/b"), Some(Errno::EINVAL));
        assert_eq!(errno(b"a\0"), Some(Errno::EINVAL));
        assert_eq!(errno(b"..."), None);
    }

    #[test]
    fn targets_end_at_4095() {
        assert!(SymlinkTarget::try_from([b'/'; 4095].as_slice()).is_ok());
        assert_eq!(
            SymlinkTarget::try_from([b'/'; 4096].as_slice()).map_err(NameError::errno),
            Err(Errno::ENAMETOOLONG)
        );
        let target = |bytes: &[u8]| SymlinkTarget::try_from(bytes).map_err(NameError::errno).err();
        assert_eq!((target(b""), target(b"a\0b")), (Some(Errno::ENOENT), Some(Errno::EINVAL)));
        let xattr = |bytes: &[u8]| XattrName::try_from(bytes).map_err(NameError::errno).err();
        assert_eq!((xattr(b""), xattr(&[b'u'; 256])), (Some(Errno::ERANGE), Some(Errno::ERANGE)));
        assert_eq!((xattr(&[b'u'; 255]), xattr(b"user.\0")), (None, Some(Errno::EINVAL)));
    }
}
