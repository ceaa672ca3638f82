//! Nuwa under faults: members in networks of their own, clients at several places, and a check of everything they saw.
//!
//! Read in this order: [`plan`] and [`nemesis`] (what is done to the members), [`worker`] (a client, and what it writes down in
//! its [`book`]), what the workers do and how it is judged ([`cells`], [`names`], [`locks`], [`sequences`], [`watchers`]),
//! [`history`] (what all that is laid beside), [`run`], [`verdict`].

mod book;
pub(crate) mod cells;
mod history;
pub(crate) mod locks;
mod names;
mod nemesis;
mod plan;
pub(crate) mod run;
mod sequences;
mod sites;
mod tree;
mod value;
mod verdict;
mod watchers;
mod worker;
