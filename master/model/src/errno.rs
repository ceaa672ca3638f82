//! Linux error numbers, as the master answers them.
//!
//! The master speaks errno because its clients are file systems; the numbers are Linux's on every architecture
//! we run on, and are part of the wire format.

use std::fmt;

/// A Linux error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// Name and meaning, if it is one we use.
            #[must_use]
            pub const fn describe(self) -> Option<(&'static str, &'static str)> {
                match self.0 {
                    $($number => Some((stringify!($name), $text)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    EIO = 5, "input/output error";
    E2BIG = 7, "argument list too long";
    EAGAIN = 11, "try again";
    EACCES = 13, "permission denied";
    EEXIST = 17, "file exists";
    EXDEV = 18, "invalid cross-device link";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left on device";
    EMLINK = 31, "too many links";
    ERANGE = 34, "result too large";
    ENAMETOOLONG = 36, "file name too long";
    ENOTEMPTY = 39, "directory not empty";
    ENODATA = 61, "no data available";
    EOPNOTSUPP = 95, "operation not supported";
    ETIMEDOUT = 110, "timed out";
    ELOOP = 40, "too many levels of directories";
    ESTALE = 116, "stale file handle";
}

impl Errno {
    /// The errno with this number; `None` for 0 and for what no errno can be.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        if number == 0 || number > 4095 { None } else { Some(Self(number as i32)) }
    }

    /// As libc has it.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// As the wire has it.
    #[must_use]
    pub const fn wire(self) -> u32 {
        self.0.unsigned_abs()
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((name, text)) => write!(f, "{text} ({name})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_linux_numbers() {
        assert_eq!(Errno::from_number(39), Some(Errno::ENOTEMPTY));
        assert_eq!(Errno::from_number(0), None);
        assert_eq!(Errno::from_number(4096), None);
        assert_eq!(Errno::ENOTEMPTY.to_string(), "directory not empty (ENOTEMPTY)");
        assert_eq!(Errno::from_number(Errno::EIO.wire()), Some(Errno::EIO));
    }
}
