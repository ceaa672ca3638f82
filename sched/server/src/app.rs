//! What the services of a master share.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::leading::Leading;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct App {
    /// Set while this master leads and knows the spool.
    leading: RwLock<Option<Arc<Leading>>>,
}

impl App {
    pub(crate) fn leading(&self) -> Option<Arc<Leading>> {
        self.leading.read().clone()
    }

    pub(crate) fn set_leading(&self, leading: Option<Arc<Leading>>) {
        *self.leading.write() = leading;
    }
}
