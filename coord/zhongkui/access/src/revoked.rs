//! What was taken back, as it is kept in Nuwa, and as a process knows it.
//!
//! | path | content | means |
//! | --- | --- | --- |
//! | `/zhongkui/users/NAME` | the epoch, decimal | capabilities of older epochs are void |
//! | `/zhongkui/keys/KEYID` | why, for people | the key is followed no more |
//! | `/zhongkui/capabilities/ID` | why | the capability, and all that was handed on from it, is void |
//! | `/zhongkui/authorities/KEYID` | a public key, and who vouches for it | its capabilities are followed |
//!
//! Level-triggered: every change of the folder makes the whole anew, so nothing is lost by a missed event. What cannot be read is taken
//! for a revocation: a slip of the pen must not open anything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use zhongkui::crypto::Signature;
use zhongkui::{
    Authorities, CapabilityId, KeyId, PublicKey, Revocations, SecretKey, UserEpoch, UserName, text,
};

/// The folder in Nuwa with all of it.
pub const FOLDER: &str = "/zhongkui/";
const AUTHORITY_DOMAIN: &[u8] = b"feitian authority 1\0";

/// What a process knows of it. Shared by all its guards.
#[derive(Debug, Default)]
pub struct Revoked(RwLock<Revocations>);

impl Revoked {
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Revocations) -> T) -> T {
        look(&self.0.read())
    }

    /// A copy of all of it.
    #[must_use]
    pub fn get(&self) -> Revocations {
        self.0.read().clone()
    }

    pub(crate) fn set(&self, revocations: Revocations) {
        *self.0.write() = revocations;
    }
}

/// What the folder says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    pub revocations: Revocations,
    /// Records of authorities; who of them is to be trusted, [`trusted`] says.
    pub vouched: Vec<Vouched>,
    /// Paths that could not be made sense of.
    pub unreadable: Vec<String>,
}

/// A key of which another one says that it is an authority's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouched {
    pub key: PublicKey,
    pub by: KeyId,
    pub signature: Signature,
}

/// Reads the folder: full paths and contents.
pub fn read<'a>(records: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Folder {
    let mut folder = Folder::default();
    for (path, content) in records {
        if record(&mut folder, path, content).is_none() {
            folder.unreadable.push(path.to_owned());
        }
    }
    folder
}

fn record(folder: &mut Folder, path: &str, content: &[u8]) -> Option<()> {
    let (kind, name) = path.strip_prefix(FOLDER)?.split_once('/')?;
    if name.is_empty() {
        return Some(());
    }
    let Folder { revocations, vouched, .. } = folder;
    match kind {
        "users" => {
            let epoch = std::str::from_utf8(content).ok().and_then(|text| text.trim().parse().ok());
            revocations.users.insert(UserName::new(name).ok()?, UserEpoch(epoch.unwrap_or(u32::MAX)));
            epoch.map(drop)?;
        }
        "keys" => drop(revocations.keys.insert(KeyId(hex(name)?))),
        "capabilities" => {
            revocations.capabilities.insert(CapabilityId(u64::from_be_bytes(hex(name)?)));
        }
        "authorities" => vouched.push(authority(content)?),
        _ => return None,
    }
    Some(())
}

fn hex(text: &str) -> Option<[u8; 8]> {
    let plain =
        text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(u64::to_be_bytes)
}

fn authority(content: &[u8]) -> Option<Vouched> {
    let text = std::str::from_utf8(content).ok()?;
    let (key, vouched) = text.trim().split_once('\n')?;
    let (by, signature) = vouched.strip_prefix("vouched-by ")?.split_once(' ')?;
    let signature = STANDARD.decode(signature.trim()).ok()?.try_into().ok()?;
    Some(Vouched {
        key: text::read_public_key(key).ok()?,
        by: KeyId(hex(by)?),
        signature: Signature(signature),
    })
}

/// The record by which one authority vouches for another.
#[must_use]
pub fn write_authority(key: &PublicKey, by: &SecretKey) -> String {
    let signature = by.sign(&[AUTHORITY_DOMAIN, &key.0].concat());
    format!(
        "{}\nvouched-by {} {}\n",
        text::write_public_key(key),
        by.public().id(),
        STANDARD.encode(signature.0)
    )
}

/// The keys among `vouched` that lead back to one of `listed` which was not revoked. A key that was revoked vouches for nobody.
#[must_use]
pub fn trusted(listed: &Authorities, vouched: &[Vouched], revocations: &Revocations) -> Vec<PublicKey> {
    let good = |id: KeyId| !revocations.keys.contains(&id);
    let mut found: Vec<PublicKey> = Vec::new();
    loop {
        let known: Authorities = listed.keys().chain(&found).copied().filter(|key| good(key.id())).collect();
        let next = vouched.iter().find(|record| {
            let message = [AUTHORITY_DOMAIN, &record.key.0].concat();
            good(record.key.id())
                && known.find(record.key.id()).is_none()
                && known.find(record.by).is_some_and(|by| by.signed(&message, &record.signature))
        });
        match next {
            Some(record) => found.push(record.key),
            None => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    #[test]
    fn every_record_is_read() {
        let id = secret(1).public().id();
        let keys = format!("/zhongkui/keys/{id}");
        let records: [(&str, &[u8]); 4] = [
            ("/zhongkui/users/alice", b"3\n"),
            (&keys, b"stolen"),
            ("/zhongkui/capabilities/00000000000000ff", b""),
            ("/zhongkui/users/", b""),
        ];
        let folder = read(records);
        assert_eq!(folder.unreadable, [""; 0]);
        assert_eq!(folder.revocations.epoch(&"alice".parse().unwrap()), UserEpoch(3));
        assert_eq!(folder.revocations.epoch(&"bob".parse().unwrap()), UserEpoch(0));
        assert!(folder.revocations.keys.contains(&id));
        assert!(folder.revocations.capabilities.contains(&CapabilityId(255)));
    }

    #[test]
    fn what_cannot_be_read_opens_nothing() {
        let folder = read([
            ("/zhongkui/users/alice", &b"soon"[..]),
            ("/zhongkui/keys/short", b""),
            ("/zhongkui/else/x", b""),
            ("/zhongkui/authorities/0", b"x"),
        ]);
        assert_eq!(folder.unreadable.len(), 4);
        assert_eq!(folder.revocations.epoch(&"alice".parse().unwrap()), UserEpoch(u32::MAX));
    }

    #[test]
    fn authorities_vouch_in_a_chain_that_begins_at_home() {
        let (home, second, third, stranger) = (secret(1), secret(2), secret(3), secret(4));
        let listed: Authorities = [home.public()].into_iter().collect();
        let record = |key: &SecretKey, by: &SecretKey| write_authority(&key.public(), by);
        let texts = [record(&third, &second), record(&second, &home), record(&stranger, &stranger)];
        let paths = ["/zhongkui/authorities/3", "/zhongkui/authorities/2", "/zhongkui/authorities/4"];
        let folder = read(paths.into_iter().zip(texts.iter().map(|text| text.as_bytes())));
        let mut revocations = Revocations::default();
        assert_eq!(trusted(&listed, &folder.vouched, &revocations), [second.public(), third.public()]);
        revocations.keys.insert(second.public().id());
        assert_eq!(trusted(&listed, &folder.vouched, &revocations), []);
        let forged = Vouched { key: stranger.public(), ..folder.vouched[1] };
        assert_eq!(trusted(&listed, &[forged], &Revocations::default()), []);
    }
}
