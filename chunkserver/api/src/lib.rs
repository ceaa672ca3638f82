//! Pangu chunkserver: wire definitions, domain types and client.
