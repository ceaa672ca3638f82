//! The whole platform in one process, for the first mount: a single-voter master and one or more chunkservers, the same
//! code and the same formats as in a cluster, over Unix sockets in its own data directory.
//!
//! Read in this order: [`EmbeddedConfig`] (what is wanted), `store` (what a data directory is: its lock, its
//! description, where the sockets go), [`Embedded`] (start and stop), [`adopt`](fn@adopt) (it becomes a cluster), `member` (Nuwa's part
//! of that).

mod adopt;
mod config;
mod fuxi;
mod member;
mod platform;
mod store;

pub use adopt::{AdoptError, Adoption, FirstNode, adopt, quoted};
pub use config::{ConfigError, EmbeddedConfig};
pub use coord_cluster::default_data_dir;
pub use fuxi::{Fuxi, FuxiError, FuxiOf};
pub use member::MemberError;
pub use platform::{Embedded, EmbeddedError};
pub use store::StoreError;
