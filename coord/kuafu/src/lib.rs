//! Kuafu: RPC frames over TCP and Unix sockets, and gRPC from the same definition.
