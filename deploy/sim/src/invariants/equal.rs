//! Equal versions of a chunk hold equal bytes, on whatever disk: what all comparing rests on.

use std::collections::BTreeMap;

use coord_types::{ChunkKey, Version};

use crate::world::World;

pub(super) fn check(world: &mut World) {
    let mut known: BTreeMap<(ChunkKey, Version), usize> = BTreeMap::new();
    let mut wrong = None;
    for (at, server) in world.servers.iter().enumerate() {
        for (key, rec) in &server.disk.chunks {
            let other = *known.entry((*key, rec.version)).or_insert(at);
            let theirs = &world.servers[other].disk.chunks[key];
            let same =
                theirs.writes == rec.writes && theirs.blocks == rec.blocks && theirs.windows == rec.windows;
            if !same && wrong.is_none() {
                wrong = Some((*key, rec.version, other, at));
            }
        }
    }
    if let Some((key, version, a, b)) = wrong {
        world.violate("equal versions", || {
            format!("version {version} of {key:?} differs between server {a} and server {b}")
        });
    }
}
