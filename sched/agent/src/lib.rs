//! Fuxi's agent: starts and keeps what the master wants on this machine.
