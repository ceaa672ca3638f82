//! Where a server listens: `tcp://host:port` or `unix:///path`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `sun_path` of a Unix socket holds 108 bytes, the last one a zero.
const UNIX_PATH_LEN_MAX: usize = 107;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `host:port`; the host may be a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp(String),
    /// An absolute path.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{0:?} is no address: it must begin with tcp:// or unix:// (tcp://host:port, unix:///path)")]
    NoScheme(String),
    #[error("{0:?} has no port: write tcp://host:port")]
    NoPort(String),
    #[error("{0:?} has no host: write tcp://host:port")]
    NoHost(String),
    #[error("{address:?}: {port:?} is no port number (0 to 65535)")]
    BadPort { address: String, port: String },
    #[error("{0:?}: put an IPv6 address in brackets: tcp://[::1]:port")]
    Unbracketed(String),
    #[error("{0:?}: the path of a Unix socket must be absolute: unix:///path")]
    RelativePath(String),
    #[error("{address:?}: the path has {len_bytes} bytes, a Unix socket takes at most {UNIX_PATH_LEN_MAX}")]
    PathTooLong { address: String, len_bytes: usize },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("tcp://") {
            check_host_port(text, rest)?;
            Ok(Self::Tcp(rest.to_owned()))
        } else if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(AddressError::RelativePath(text.to_owned()));
            }
            if path.len() > UNIX_PATH_LEN_MAX {
                return Err(AddressError::PathTooLong { address: text.to_owned(), len_bytes: path.len() });
            }
            Ok(Self::Unix(PathBuf::from(path)))
        } else {
            Err(AddressError::NoScheme(text.to_owned()))
        }
    }
}

fn check_host_port(text: &str, rest: &str) -> Result<(), AddressError> {
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
    if host.is_empty() {
        return Err(AddressError::NoHost(text.to_owned()));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(AddressError::Unbracketed(text.to_owned()));
    }
    port.parse::<u16>()
        .map(|_| ())
        .map_err(|_| AddressError::BadPort { address: text.to_owned(), port: port.to_owned() })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => write!(f, "tcp://{host_port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in
            ["tcp://127.0.0.1:7101", "tcp://[::1]:0", "tcp://host.example:65535", "unix:///run/x.sock"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_error() {
        let parse = |text: &str| text.parse::<Address>().unwrap_err();
        let owned = |text: &str| text.to_owned();
        assert_eq!(parse("127.0.0.1:1"), AddressError::NoScheme(owned("127.0.0.1:1")));
        assert_eq!(parse("tcp://host"), AddressError::NoPort(owned("tcp://host")));
        assert_eq!(parse("tcp://:1"), AddressError::NoHost(owned("tcp://:1")));
        assert!(matches!(parse("tcp://h:65536"), AddressError::BadPort { port, .. } if port == "65536"));
        assert_eq!(parse("tcp://::1:5"), AddressError::Unbracketed(owned("tcp://::1:5")));
        assert_eq!(parse("unix://x"), AddressError::RelativePath(owned("unix://x")));
        let long = format!("unix:///{}", "x".repeat(107));
        assert!(matches!(parse(&long), AddressError::PathTooLong { len_bytes: 108, .. }));
    }
}
