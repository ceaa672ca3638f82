//! The service registry: who serves what, in Nuwa's tree. `coord/nuwa/docs/naming.md` has the records and what is promised.
//!
//! [`record`]: the file of an endpoint. [`registration`]: a server keeps its own there. [`resolver`]: `nuwa://` addresses for Kuafu.

pub mod record;
pub mod registration;
pub mod resolver;
pub mod security;

pub use registration::{Registration, withdraw};
pub use resolver::NuwaResolver;

/// The directory of all services.
pub const SERVICES: &str = "/services/";

/// The directory of one service's endpoints.
#[must_use]
pub fn directory(service: &str) -> String {
    format!("{SERVICES}{service}/")
}
