//! The file of an endpoint: its name, and what it says.

use kuafu::{Address, AddressError, Endpoint};
use serde::{Deserialize, Serialize};

/// What an endpoint that says nothing weighs.
const WEIGHT: u32 = 100;

/// Why a file does not describe an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("it is no JSON object with an \"address\"")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// Whether it takes calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    #[default]
    Serving,
    Stopping,
}

#[derive(Serialize, Deserialize)]
struct Record {
    address: String,
    #[serde(default = "weight")]
    weight: u32,
    #[serde(default)]
    rack: String,
    #[serde(default)]
    health: Health,
}

const fn weight() -> u32 {
    WEIGHT
}

/// The name of an endpoint's file in its service's directory.
#[must_use]
pub fn file_name(address: &Address) -> String {
    address.to_string().replacen("://", ":", 1).replace('%', "%25").replace('/', "%2F")
}

/// What an endpoint's file says: one line.
#[must_use]
pub fn encode(endpoint: &Endpoint) -> String {
    let Endpoint { address, weight, rack, stopping } = endpoint.clone();
    let health = if stopping { Health::Stopping } else { Health::Serving };
    let record = Record { address: address.to_string(), weight, rack, health };
    let mut line = serde_json::to_string(&record).expect("strings and numbers are always JSON");
    line.push('\n');
    line
}

/// What an endpoint's file says.
///
/// # Errors
/// See [`RecordError`].
pub fn decode(value: &[u8]) -> Result<Endpoint, RecordError> {
    let Record { address, weight, rack, health } = serde_json::from_slice(value)?;
    Ok(Endpoint { address: address.parse()?, weight, rack, stopping: health == Health::Stopping })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_defaults() {
        let address: Address = "tcp://10.0.0.1:7101".parse().unwrap();
        let endpoint =
            Endpoint { address: address.clone(), weight: 7, rack: "/r/1".to_owned(), stopping: true };
        let line =
            "{\"address\":\"tcp://10.0.0.1:7101\",\"weight\":7,\"rack\":\"/r/1\",\"health\":\"stopping\"}\n";
        assert_eq!(encode(&endpoint), line);
        assert_eq!(decode(line.as_bytes()).unwrap(), endpoint);
        let least = br#"{"address": "tcp://10.0.0.1:7101", "of a newer version": 1}"#;
        assert_eq!(decode(least).unwrap(), Endpoint::new(address));
    }

    #[test]
    fn file_names() {
        let name = |text: &str| file_name(&text.parse().unwrap());
        assert_eq!(name("tcp://10.0.0.1:7101"), "tcp:10.0.0.1:7101");
        assert_eq!(name("unix:///run/a%b"), "unix:%2Frun%2Fa%25b");
    }

    #[test]
    fn what_is_no_record() {
        for bad in ["", "x", "{}", "[1]", r#"{"address": 1}"#, r#"{"address": "nowhere"}"#] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
