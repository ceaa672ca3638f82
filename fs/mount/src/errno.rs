//! Errors as the kernel takes them. The client has chosen the errno already; here it only changes its type.

use fs_client::Errno;

/// The kernel refuses a reply whose error is not in `1..=511` and then the caller would wait for ever.
const ERRNO_MAX: i32 = 511;

/// The client's errno as fuser's. One that no system call may return becomes EIO.
pub(crate) fn to_fuse(errno: Errno) -> fuser::Errno {
    let raw = errno.raw();
    if (1..=ERRNO_MAX).contains(&raw) { fuser::Errno::from_i32(raw) } else { fuser::Errno::EIO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_nonsense_becomes_eio() {
        for raw in [libc::ENOENT, libc::EINTR, libc::EDQUOT, 1, 511] {
            let errno = Errno::new(raw).unwrap();
            assert_eq!(i32::from(to_fuse(errno)), raw);
        }
        for raw in [-5, 512, i32::MAX, i32::MIN] {
            assert_eq!(i32::from(to_fuse(Errno::new(raw).unwrap())), libc::EIO);
        }
    }
}
