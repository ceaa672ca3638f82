//! Pangu mount: FUSE transports under the client's operations.
