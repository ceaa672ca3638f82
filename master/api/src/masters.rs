//! Where masters are found: listed by a cluster's description, registered under their name in Nuwa, or both.

use std::fmt;

use kuafu::{Address, Endpoint, Endpoints};
use tokio::sync::watch;

/// The name under which masters register: `nuwa://CLUSTER/pangu-master`.
pub const SERVICE: &str = "pangu-master";

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Masters {
    pub listed: Vec<Address>,
    /// Those that are registered, now and as they change.
    pub registered: Option<watch::Receiver<Endpoints>>,
}

impl Masters {
    /// Nobody can ever be found.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.listed.is_empty() && self.registered.is_none()
    }

    /// Who is registered, if that changed since it was last asked.
    pub fn news(&mut self) -> Option<Vec<Address>> {
        let registered =
            self.registered.as_mut().filter(|registered| registered.has_changed().unwrap_or(false))?;
        let list = registered.borrow_and_update().clone()?;
        Some(list.iter().map(|Endpoint { address, .. }| address.clone()).collect())
    }
}

impl From<Vec<Address>> for Masters {
    fn from(listed: Vec<Address>) -> Self {
        Self { listed, registered: None }
    }
}

impl fmt::Display for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.listed.iter().map(ToString::to_string);
        let registered = self.registered.iter().map(|_| "the addresses registered in Nuwa".to_owned());
        f.write_str(&listed.chain(registered).collect::<Vec<_>>().join(", "))
    }
}
