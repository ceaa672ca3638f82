//! Fuxi's job file: TOML to a checked job.
