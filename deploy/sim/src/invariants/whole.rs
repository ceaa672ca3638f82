//! **I2** A write is on a disk whole or not at all: every block there has its checksum.

use crate::world::World;

pub(super) fn check(world: &mut World) {
    let damaged = world.servers.iter().find_map(|server| {
        let torn = server.disk.chunks.iter().find(|(_, rec)| !rec.intact());
        torn.map(|(key, _)| (server.at, *key))
    });
    if let Some((at, key)) = damaged {
        world.violate("I2", || format!("{key:?} on server {at} has a block without its checksum"));
    }
}
