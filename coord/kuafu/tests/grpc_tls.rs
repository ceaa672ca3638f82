//! gRPC inside TLS: it is served, and who comes without is told why.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use common::proto::grpc::echo_client::EchoClient;
use common::proto::*;
use common::*;
use hyper_util::rt::TokioIo;
use kuafu::grpc::GrpcServer;
use kuafu::{Bytes, CancellationToken};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::Endpoint;

async fn start() -> SocketAddr {
    let bound = GrpcServer::new(Arc::new(Secret))
        .service(EchoGrpc::server(Arc::<EchoService>::default()))
        .bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = bound.local_address();
    tokio::spawn(bound.serve(CancellationToken::new()));
    address
}

/// As a tool does that is told to take any certificate (`grpcurl -insecure`).
#[derive(Clone)]
struct AnyCertificate;

impl Service<Uri> for AnyCertificate {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(common::trust::Anybody))
                .with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let stream = TcpStream::connect(uri.authority().unwrap().as_str()).await?;
            let name = ServerName::try_from("feitian").unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(TokioIo::new)
        })
    }
}

fn request() -> EchoRequest {
    EchoRequest { text: "hello".to_owned(), blob: Bytes::new() }
}

#[tokio::test]
async fn calls_go_through() {
    let address = start().await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(AnyCertificate).await.unwrap();
    let answer = EchoClient::new(channel).echo(request()).await.unwrap().into_inner();
    assert_eq!(answer.text, "hello");
}

#[tokio::test]
async fn who_comes_without_is_told_why() {
    let address = start().await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let error = match endpoint.connect().await {
        Ok(channel) => {
            let status = EchoClient::new(channel).echo(request()).await.unwrap_err();
            format!("{status:?}")
        }
        Err(error) => format!("{error:?}"),
    };
    assert!(error.contains("this server speaks only TLS"), "{error}");
}
