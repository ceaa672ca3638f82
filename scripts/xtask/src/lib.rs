//! Repository checks that are logic rather than shell.
