//! Generates frame and gRPC services from one .proto, without protoc.
