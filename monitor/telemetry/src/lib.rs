//! Logs, metrics and signals as every process of the platform sets them up: one set of flags, one format.
//!
//! [`logs`] is called once by a program's `main`; [`metrics`] answers Prometheus at `--metrics ADDR`.

pub mod logs;
pub mod metrics;
pub mod signals;

pub use logs::{LogFlags, LogFormat};
pub use metrics::{BoundMetrics, MetricsError};
pub use signals::stop_signal;
