//! The error of an operation, as the kernel wants it. This is the only place of the client that knows numbers of
//! errors: layers below speak in their own types and are translated here, exhaustively.

use std::fmt;

/// A Linux errno, never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(pub const $name: Self = Self(libc::$name);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL
    ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE ERANGE ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP
    ENODATA ENOTCONN EOVERFLOW EOPNOTSUPP ETIMEDOUT ESTALE EDQUOT
}

impl Errno {
    /// `None` for 0.
    #[must_use]
    pub const fn new(raw: i32) -> Option<Self> {
        if raw == 0 { None } else { Some(Self(raw)) }
    }

    /// The number, as `errno(3)` has it: positive.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_error_and_names_are_shown() {
        assert_eq!(Errno::new(0), None);
        assert_eq!(Errno::new(libc::ENOSPC), Some(Errno::ENOSPC));
        assert_eq!(Errno::ENOSPC.to_string(), "ENOSPC");
        assert_eq!(Errno(9999).to_string(), "errno 9999");
    }
}
