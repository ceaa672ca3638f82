//! What any bytes are put through, by `tests/bytes.rs` a little and by `fuzz/` for long: no decoder panics, what it takes has one
//! encoding, and nobody without the keys makes anything that is taken.
#![allow(dead_code, unreachable_pub, reason = "each user of it has a use for some")]

use zhongkui::text::read_capability;
use zhongkui::token::MalformedToken;
use zhongkui::{
    Authorities, MalformedCapability, PublicKey, RootCache, SecretKey, UnverifiedCapability, UnverifiedToken,
};

/// A key that nobody has who made the bytes.
fn trusted() -> PublicKey {
    SecretKey::from_seed(b"nobody who makes bytes has this!").public()
}

pub fn capability(bytes: &[u8]) -> Result<(), MalformedCapability> {
    let sent = UnverifiedCapability::decode(bytes)?;
    assert_eq!(sent.encode(), bytes, "two forms of one capability");
    let authorities: Authorities = [trusted()].into_iter().collect();
    assert!(sent.verify(&authorities).is_err(), "made without the key of an authority");
    Ok(())
}

pub fn token(bytes: &[u8]) -> Result<(), MalformedToken> {
    let sent = UnverifiedToken::decode(bytes)?;
    assert_eq!(sent.encode(), bytes, "two forms of one token");
    let mut roots = RootCache::default();
    let taken = sent.verify_with(|_| Some(trusted()), &mut roots);
    assert!(taken.is_err() && roots.is_empty(), "made without the key of a signer");
    Ok(())
}

/// Whether it is a capability.
pub fn text(bytes: &[u8]) -> bool {
    // Files are read as text, so other bytes do not come so far.
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(sent) = read_capability(text) else { return false };
    assert!(capability(&sent.encode()).is_ok());
    true
}
