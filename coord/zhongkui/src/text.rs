//! Keys and capabilities as lines of text, for files and arguments (`docs/capability.md`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::capability::Capability;
use crate::crypto::{KEY_BYTES, PublicKey, SecretKey};
use crate::unverified::{MalformedCapability, UnverifiedCapability};

/// What a line can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SecretKey,
    PublicKey,
    Capability,
}

impl Kind {
    const ALL: [Self; 3] = [Self::SecretKey, Self::PublicKey, Self::Capability];

    fn word(self) -> &'static str {
        match self {
            Self::SecretKey => "feitian-secret-key-1",
            Self::PublicKey => "feitian-public-key-1",
            Self::Capability => "feitian-capability-1",
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SecretKey => "secret key",
            Self::PublicKey => "public key",
            Self::Capability => "capability",
        })
    }
}

/// A text that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    #[error("there is nothing in it; a line 'feitian-…' is expected")]
    Empty,
    #[error("it has a {found} in it, where a {expected} is expected")]
    Other { found: Kind, expected: Kind },
    #[error("a line 'feitian-KIND-VERSION BASE64' is expected, there is something else")]
    Unknown,
    #[error("there is more than one line of that kind in it")]
    Several,
    #[error("it was cut off or changed: its checksum does not fit")]
    Damaged,
    #[error("a key has {KEY_BYTES} bytes, this one has {0}")]
    KeyLength(usize),
    #[error(transparent)]
    Capability(#[from] MalformedCapability),
}

#[must_use]
pub fn write_public_key(key: &PublicKey) -> String {
    line(Kind::PublicKey, &key.0)
}

/// To be kept from others' eyes.
#[must_use]
pub fn write_secret_key(key: &SecretKey) -> String {
    line(Kind::SecretKey, key.seed())
}

#[must_use]
pub fn write_capability(capability: &Capability) -> String {
    line(Kind::Capability, capability.bytes())
}

/// # Errors
/// It is none.
pub fn read_public_key(text: &str) -> Result<PublicKey, BadText> {
    key(text, Kind::PublicKey).map(PublicKey)
}

/// # Errors
/// It is none.
pub fn read_secret_key(text: &str) -> Result<SecretKey, BadText> {
    key(text, Kind::SecretKey).map(|seed| SecretKey::from_seed(&seed))
}

/// # Errors
/// It is none. Whether it is a true one is not looked at.
pub fn read_capability(text: &str) -> Result<UnverifiedCapability, BadText> {
    Ok(UnverifiedCapability::decode(&value(text, Kind::Capability)?)?)
}

fn line(kind: Kind, bytes: &[u8]) -> String {
    let crc = crc32c::crc32c(bytes).to_le_bytes();
    format!("{} {}", kind.word(), STANDARD.encode([bytes, &crc].concat()))
}

fn key(text: &str, kind: Kind) -> Result<[u8; KEY_BYTES], BadText> {
    let bytes = value(text, kind)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| BadText::KeyLength(bytes.len()))
}

fn value(text: &str, expected: Kind) -> Result<Vec<u8>, BadText> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next().ok_or(BadText::Empty)?;
    let (word, encoded) = line.split_once(' ').ok_or(BadText::Unknown)?;
    let found = Kind::of(word).ok_or(BadText::Unknown)?;
    if found != expected {
        return Err(BadText::Other { found, expected });
    }
    if lines.next().is_some() {
        return Err(BadText::Several);
    }
    let mut bytes = STANDARD.decode(encoded.trim()).map_err(|_| BadText::Damaged)?;
    let crc = bytes.len().checked_sub(4).map(|at| bytes.split_off(at)).ok_or(BadText::Damaged)?;
    if crc == crc32c::crc32c(&bytes).to_le_bytes() { Ok(bytes) } else { Err(BadText::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_told_apart() {
        let secret = SecretKey::from_seed(&[9; KEY_BYTES]);
        let (hidden, shown) = (write_secret_key(&secret), write_public_key(&secret.public()));
        assert_eq!(read_secret_key(&hidden).unwrap().seed(), secret.seed());
        assert_eq!(read_public_key(&format!("# alice's\n\n  {shown}\n")), Ok(secret.public()));
        let (found, expected) = (Kind::SecretKey, Kind::PublicKey);
        assert_eq!(read_public_key(&hidden), Err(BadText::Other { found, expected }));
        assert_eq!(read_public_key("# nothing\n"), Err(BadText::Empty));
        assert_eq!(read_public_key("ssh-ed25519 AAAA"), Err(BadText::Unknown));
        assert_eq!(read_public_key(&format!("{shown}\n{shown}")), Err(BadText::Several));
        assert_eq!(read_public_key(&shown[..shown.len() - 1]), Err(BadText::Damaged));
        assert_eq!(read_public_key(&line(Kind::PublicKey, b"short")), Err(BadText::KeyLength(5)));
    }

    #[test]
    fn one_wrong_letter_is_noticed() {
        let shown = write_public_key(&SecretKey::from_seed(&[9; KEY_BYTES]).public());
        let begin = shown.find(' ').unwrap() + 1;
        for at in begin..shown.trim_end_matches('=').len() {
            let mut letters = shown.clone().into_bytes();
            letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(letters).unwrap();
            assert_eq!(read_public_key(&wrong), Err(BadText::Damaged), "{wrong}");
        }
    }
}
