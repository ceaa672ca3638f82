//! Kuafu: RPC over TCP and Unix sockets. One `.proto` defines a service for two transports: **frames** (this crate's
//! own, for the hot paths: `docs/wire.md`) and **gRPC** (tonic, for control and administration: [`grpc`]).
//!
//! Reading order: [`frame`] (bytes <-> header), [`conn`] (the protocol as a state machine without IO), then the
//! shells around it: [`client`], [`server`], `transport`. A service by its name (`nuwa://cluster/Service`): [`name`], [`named`], [`channel`]. What a service's code sees: [`message`], [`method`],
//! [`status`], [`service`], [`payload`]; generated code is written by `kuafu-build` and calls [`codegen`].

pub mod address;
pub mod auth;
pub mod channel;
pub mod client;
pub mod codegen;
pub mod conn;
pub mod frame;
pub mod grpc;
pub mod message;
pub mod method;
pub mod metrics;
pub mod name;
pub mod named;
pub mod payload;
mod presence;
pub mod replicated;
pub mod retry;
pub mod server;
pub mod service;
pub mod status;
pub mod tls;
mod transport;

pub use address::{Address, AddressError};
pub use auth::{AllowAll, Authorizer, Binding, Credentials, PeerInfo, PeerTransport, Principal};
/// Payloads and `bytes` fields.
pub use bytes::Bytes;
pub use channel::Channel;
pub use client::{Client, ClientConfig};
pub use message::{CallOptions, PayloadCheck, RawRequest, RawResponse, Request, Response};
pub use method::Method;
pub use name::{Name, NameError, Target, TargetError};
pub use named::{Endpoint, Endpoints, NamedClient, NamedConfig, Resolver, UnknownCluster};
pub use payload::{HeapAllocator, PayloadAllocator, PayloadBuf, PayloadBuffer, PoolAllocator};
pub use replicated::{CallError, Replicated, ReplicatedConfig};
pub use retry::{Backoff, RetryBudget, RetryPolicy, retry};
pub use server::{BindError, Bound, Server, ServerBuilder, ServerConfig};
pub use service::{HandlerFuture, Service};
pub use status::{Code, Status};
/// Stops a server: cancelled once, by whoever started it.
pub use tokio_util::sync::CancellationToken;

/// Includes what `kuafu-build` generated for a package: `pub mod proto { kuafu::include_proto!("feitian.x.v1"); }`.
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), concat!("/", $package, ".rs")));
    };
}
