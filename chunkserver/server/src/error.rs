//! Why a chunkserver did not start.

use std::path::PathBuf;

use chunkserver_engine::{EngineError, OpenError};
use kuafu::BindError;
use kuafu::grpc::GrpcError;
use monitor_telemetry::MetricsError;

use crate::config::ConfigError;

/// Why a chunkserver did not start. Each says what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("make the data directory {path}")]
    MakeDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the data directory {path} cannot be written to: check its owner and permissions")]
    NotWritable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("ask how much space is free at {path}")]
    FreeSpace {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("format the disk {path}")]
    Format {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error("open the disk {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error("read or write the identity on the disk {path}")]
    Identity {
        path: PathBuf,
        #[source]
        source: EngineError,
    },
    #[error(
        "the identity on the disk {path} is {len_bytes} bytes long, not 16: run `pangu-chunkserver verify`"
    )]
    BadIdentity { path: PathBuf, len_bytes: usize },
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}
