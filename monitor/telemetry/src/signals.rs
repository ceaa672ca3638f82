//! The signals that end a process in good order.

/// Resolves with the name of the first of SIGTERM and SIGINT.
///
/// # Errors
/// They cannot be listened for.
///
/// # Panics
/// Outside a tokio runtime.
pub fn stop_signal() -> std::io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
