//! Pangu chunkserver: the process, replication and heartbeats.
