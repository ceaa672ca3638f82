//! Nobody gets at what his capability does not cover: by a mount, by the client library, or by frames of his own making, at masters and at
//! chunkservers; and each refusal is in the audit log of the server that refused.
//!
//! Holds: a check that finds a door open is written down and the rest goes on, so that one run shows all ([`scene::Scene::finish`]); what must be refused
//! stands beside the same thing done by somebody who may, so that no check passes because nothing works.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "access/audit.rs"]
mod audit;
#[path = "access/people.rs"]
mod people;
#[path = "access/scene.rs"]
mod scene;
#[path = "access/wire.rs"]
mod wire;

#[path = "access/capabilities.rs"]
mod capabilities;
#[path = "access/chunks.rs"]
mod chunks;
#[path = "access/directory.rs"]
mod directory;
#[path = "access/mounts.rs"]
mod mounts;
#[path = "access/moved.rs"]
mod moved;
#[path = "access/nobody.rs"]
mod nobody;
#[path = "access/posix.rs"]
mod posix;
#[path = "access/read_only.rs"]
mod read_only;
