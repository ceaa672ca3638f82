//! Fuxi: messages and services between its processes. Who calls what is in `sched/docs/design.md`.

/// The messages and services of `fuxi/v1/fuxi.proto`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
pub mod proto {
    kuafu::include_proto!("feitian.fuxi.v1");
}

/// The name under which masters are found: `nuwa://CLUSTER/fuxi-master`.
pub const MASTER_SERVICE: &str = "fuxi-master";

/// An error with its causes, as people read it in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
