//! What the tests of tokens share: claims that differ, and batches of them.

use coord_types::{DataId, SessionId};
use zhongkui::token::sign;
use zhongkui::{Claims, DataRights, RootCache, Scope, SecretKey, UnverifiedToken, Validity};

use super::{BEGIN, END, key};

pub fn master() -> SecretKey {
    key(7)
}

/// Read and write data 9, in session 5 of whoever has key 2.
pub fn claims() -> Claims {
    Claims {
        holder: key(2).public().id(),
        session: SessionId(5),
        scope: Scope::Data(DataId(9)),
        rights: DataRights::BOTH,
        cluster_epoch: 3,
        validity: Validity::new(BEGIN, END).unwrap(),
    }
}

/// Each for other data.
pub fn batch(count: u16) -> Vec<Claims> {
    (0..count).map(|n| Claims { scope: Scope::Data(DataId(100 + u64::from(n))), ..claims() }).collect()
}

pub fn signed(claims: &[Claims]) -> Vec<Vec<u8>> {
    sign(&master(), claims).unwrap()
}

/// What a chunkserver that trusts the master takes it for.
pub fn taken(bytes: &[u8], roots: &mut RootCache) -> Option<Claims> {
    let find = |id| (id == master().public().id()).then(|| master().public());
    UnverifiedToken::decode(bytes).ok()?.verify_with(find, roots).ok()
}
