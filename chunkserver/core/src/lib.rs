//! Pangu chunkserver: the replication protocol, without IO.
