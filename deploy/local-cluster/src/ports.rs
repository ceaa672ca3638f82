//! Free ports on the loopback.
//!
//! Only ports below 32768 are given out: from there up the kernel chooses local ports of outgoing connections, and a
//! client that keeps trying a server that is down could be given that very port (and even connect to itself).

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;

const FROM: u16 = 12_000;
const UPTO: u16 = 31_999;

/// Ports given out by this process; each is given once.
static GIVEN: AtomicU32 = AtomicU32::new(0);

/// A port on 127.0.0.1 that nobody listens on now.
///
/// Processes start at different places of the range, so that two test runs hardly meet; if they do, the one that
/// comes second finds the port taken here.
pub fn free_port() -> Result<u16, Error> {
    let range = u32::from(UPTO - FROM) + 1;
    for _ in 0..range {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(97).wrapping_add(step) % range;
        let port = FROM + u16::try_from(offset).expect("smaller than the range, which is of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::NoPort { from: FROM, upto: UPTO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_stay_out_of_the_kernels_range() {
        let (a, b) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(a, b);
        assert!(a < 32_768 && b < 32_768);
    }

    #[test]
    fn a_taken_port_is_not_given() {
        let first = free_port().unwrap();
        let _taken = TcpListener::bind(("127.0.0.1", first + 1));
        assert_ne!(free_port().unwrap(), first + 1);
    }
}
