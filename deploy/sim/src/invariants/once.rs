//! **I5** A write that is retried is applied once.

use std::collections::BTreeSet;

use crate::world::World;

pub(super) fn check(world: &mut World) {
    let mut wrong = None;
    for server in &world.servers {
        for (key, rec) in &server.disk.chunks {
            let mut seen = BTreeSet::new();
            if let Some(twice) = rec.writes.iter().find(|write| !seen.insert(**write)) {
                wrong = Some((server.at, *key, *twice));
            }
        }
    }
    if let Some((at, key, write)) = wrong {
        world.violate("I5", || format!("write {write} of {key:?} was applied twice on server {at}"));
    }
}
