//! Zhongkui where requests are made and served. A server builds a [`Guard`] and hands it to Kuafu, which is all it takes to be
//! protected; a client hands Kuafu its [`Keyring`].
//!
//! Read in this order: [`directory`] (where keys are kept, and making those of a whole cluster), [`keyring`] (the key and capability that a
//! process shows, exchanged while it runs), [`proof`] (the bytes on a connection: `docs/connection.md`), [`guard`] (who is let in),
//! [`holder`] (what a handler asks about its caller), [`revoked`] (what was taken back), [`audit`]. [`Access`] bundles what a process
//! needs of them.

pub mod access;
pub mod audit;
pub mod directory;
pub mod guard;
pub mod holder;
pub mod keyring;
pub mod proof;
pub mod revoked;

/// False only in a build that measures what checks cost.
pub const CHECKS: bool = !cfg!(feature = "unchecked-for-measurement");

pub use access::Access;
pub use audit::Audit;
pub use directory::{DirectoryError, KeyDirectory};
pub use guard::{Guard, GuardBuilder};
pub use holder::Holder;
pub use keyring::{Keyring, KeysError};
pub use revoked::Revoked;
