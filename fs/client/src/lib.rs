//! Pangu client: a file system without a kernel.
