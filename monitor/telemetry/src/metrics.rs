//! Prometheus text over HTTP: a page a scraper reads every few seconds, so that no web framework is needed.
//!
//! One request a connection, answered whatever its path; a request line longer than [`REQUEST_BYTES_MAX`] or slower
//! than [`REQUEST_TIMEOUT`] is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The most a request's head may have: scrapers send some hundred bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// A scraper that takes longer is not one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("{address} is in use: another process listens there; choose another --metrics address")]
    InUse { address: SocketAddr },
    #[error("listen on {address} for metrics")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Listening, not yet answering.
#[derive(Debug)]
pub struct BoundMetrics {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundMetrics {
    /// # Errors
    /// See [`MetricsError`].
    pub async fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => MetricsError::InUse { address },
            _ => MetricsError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens: port 0 has become the real one.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Answers every request with what `render` gives, until `shutdown`.
    pub async fn serve(self, render: Arc<dyn Fn() -> String + Send + Sync>, shutdown: CancellationToken) {
        loop {
            let stream = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "accept a metrics connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            // One at a time: a page is some kilobytes, and a scraper that stalls is cut off.
            let _slow_or_gone = tokio::time::timeout(REQUEST_TIMEOUT, answer(stream, render())).await;
        }
    }
}

async fn answer(mut stream: TcpStream, page: String) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len(),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_a_scraper_and_refuses_a_taken_address() {
        let bound = BoundMetrics::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = bound.local_address();
        let error = BoundMetrics::bind(address).await.unwrap_err();
        assert!(matches!(error, MetricsError::InUse { .. }), "{error}");
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(bound.serve(Arc::new(|| "up 1\n".to_owned()), shutdown.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nup 1\n"), "{text}");
        shutdown.cancel();
        serving.await.unwrap();
    }
}
