//! Pangu chunkserver: the chunk engine of one disk.
