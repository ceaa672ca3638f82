//! Plain tests of single promises.
