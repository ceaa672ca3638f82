//! Pangu master: wire definitions, domain types and client.
