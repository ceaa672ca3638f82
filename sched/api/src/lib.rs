//! Fuxi: messages and services between its processes. Who calls what is in `sched/docs/design.md`.

/// The messages and services of `fuxi/v1/fuxi.proto`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
pub mod proto {
    kuafu::include_proto!("feitian.fuxi.v1");
}

/// The name under which masters are found: `nuwa://CLUSTER/fuxi-master`.
pub const MASTER_SERVICE: &str = "fuxi-master";
