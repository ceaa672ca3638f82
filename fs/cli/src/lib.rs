//! Pangu's programs: `pangu-fuse` mounts, `pangu` looks and asks.
//!
//! Read in this order: [`fuse`] (the flags of `pangu-fuse` and what they mean), `daemon` (leaving the terminal),
//! `serve` (a mount's life from start to clean end), then [`admin`] (the commands of `pangu`), `find` (which cluster a
//! path or flag means), `text` (aligned tables and sizes for people).

pub mod admin;
mod daemon;
mod find;
pub mod fuse;
mod serve;
mod text;
mod users;
