//! The name of a service, `nuwa://cluster/Service`, and what can be called: that, or an address.

use std::fmt;
use std::str::FromStr;

use crate::address::{Address, AddressError};

/// A service of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    cluster: String,
    service: String,
}

/// Why a text is no name of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} names no service: write nuwa://CLUSTER/SERVICE")]
    Form(String),
    #[error(
        "{name:?}: {part:?} has {found:?}; names of clusters and services have letters, digits, '.', '-' and '_', \
         and begin with a letter or digit"
    )]
    Character { name: String, part: String, found: char },
    #[error("{name:?}: a name has at most {LEN_MAX} bytes")]
    TooLong { name: String },
}

/// Of a cluster's name, and of a service's.
const LEN_MAX: usize = 128;

impl Name {
    /// # Errors
    /// See [`NameError`].
    pub fn new(cluster: &str, service: &str) -> Result<Self, NameError> {
        format!("nuwa://{cluster}/{service}").parse()
    }

    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts = text.strip_prefix("nuwa://").and_then(|rest| rest.split_once('/'));
        let Some((cluster, service)) =
            parts.filter(|(cluster, service)| !cluster.is_empty() && !service.is_empty())
        else {
            return Err(NameError::Form(text.to_owned()));
        };
        for part in [cluster, service] {
            if part.len() > LEN_MAX {
                return Err(NameError::TooLong { name: text.to_owned() });
            }
            let fits = |(at, c): (usize, char)| {
                c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '.' | '-' | '_'))
            };
            if let Some((_, found)) = part.char_indices().find(|place| !fits(*place)) {
                return Err(NameError::Character { name: text.to_owned(), part: part.to_owned(), found });
            }
        }
        Ok(Self { cluster: cluster.to_owned(), service: service.to_owned() })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nuwa://{}/{}", self.cluster, self.service)
    }
}

/// What can be called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One server.
    Address(Address),
    /// Whichever servers there are of a service.
    Name(Name),
}

/// Why a text names nothing that can be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.starts_with("nuwa://") {
            Ok(Self::Name(text.parse()?))
        } else {
            Ok(Self::Address(text.parse()?))
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in ["nuwa://dev/pangu-master", "nuwa://c.1/Echo_2", "tcp://h:1", "unix:///run/x"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!(Name::new("dev", "Echo").unwrap().to_string(), "nuwa://dev/Echo");
    }

    #[test]
    fn every_error() {
        for text in ["nuwa://", "nuwa://dev", "nuwa://dev/", "nuwa:///Echo", "http://dev/Echo"] {
            assert_eq!(text.parse::<Name>(), Err(NameError::Form(text.to_owned())));
        }
        for (text, found) in
            [("nuwa://d/a/b", '/'), ("nuwa://d/.a", '.'), ("nuwa://d e/a", ' '), ("nuwa://d/ä", 'ä')]
        {
            assert!(
                matches!(text.parse::<Name>(), Err(NameError::Character { found: f, .. }) if f == found),
                "{text}"
            );
        }
        let long = format!("nuwa://dev/{}", "x".repeat(LEN_MAX + 1));
        assert!(matches!(long.parse::<Name>(), Err(NameError::TooLong { .. })));
        assert!(matches!("http://x".parse::<Target>(), Err(TargetError::Address(AddressError::NoScheme(_)))));
    }
}
