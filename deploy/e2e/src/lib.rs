//! End-to-end tests on real mounts and real processes.
