//! All masters that applied the same log hold the same, byte for byte, whatever they crashed at.

use crate::world::World;

pub(super) fn check(world: &mut World) {
    let stores = world.stores();
    if stores.windows(2).any(|two| two[0] != two[1]) {
        world.violate("masters", || "their stores differ after the same log".to_owned());
    }
}
