//! The same service by gRPC, with health and reflection, called by tonic's own clients.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::proto::grpc::echo_client::EchoClient;
use common::proto::*;
use common::*;
use kuafu::grpc::{GrpcError, GrpcServer};
use kuafu::{Bytes, CancellationToken};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const SERVICE: &str = "feitian.kuafu.test.v1.Echo";

struct Grpc {
    service: Arc<EchoService>,
    channel: Channel,
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), GrpcError>>,
}

async fn start() -> Grpc {
    let service = Arc::new(EchoService::default());
    let bound = GrpcServer::new(Arc::new(kuafu::AllowAll))
        .service(EchoGrpc::server(Arc::clone(&service)))
        .descriptors(FILE_DESCRIPTOR_SET)
        .bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = bound.local_address();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(bound.serve(shutdown.clone()));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    Grpc { service, channel, address, shutdown, serving }
}

#[tokio::test]
async fn calls_and_statuses() {
    let grpc = start().await;
    let mut client = EchoClient::new(grpc.channel);
    let request = EchoRequest { text: "hello".to_owned(), blob: Bytes::from_static(b"b") };
    let answer = client.echo(request).await.unwrap().into_inner();
    assert_eq!((answer.text.as_str(), &answer.blob[..]), ("hello", &b"b"[..]));
    for (code, expected) in [
        (2, tonic::Code::InvalidArgument),
        (3, tonic::Code::NotFound),
        (6, tonic::Code::ResourceExhausted),
        (7, tonic::Code::Unavailable),
        (8, tonic::Code::FailedPrecondition),
        (10, tonic::Code::PermissionDenied),
        (13, tonic::Code::Internal),
    ] {
        let status = client.fail(FailRequest { code }).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (expected, "as asked"));
    }
}

#[tokio::test]
async fn deadline_travels() {
    let grpc = start().await;
    let mut request = tonic::Request::new(WaitRequest { gate: 1 });
    request.set_timeout(std::time::Duration::from_millis(50));
    let status = EchoClient::new(grpc.channel).wait(request).await.unwrap_err();
    assert!(matches!(status.code(), tonic::Code::Cancelled | tonic::Code::DeadlineExceeded), "{status}");
    let gates = &grpc.service.gates;
    eventually("the handler is dropped", || gates.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn health() {
    let grpc = start().await;
    let mut client = HealthClient::new(grpc.channel);
    for service in ["", SERVICE] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
        assert_eq!(client.check(request).await.unwrap().into_inner().status(), serving);
    }
    let unknown = HealthCheckRequest { service: "x".to_owned() };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn reflection() {
    let grpc = start().await;
    let mut client = ServerReflectionClient::new(grpc.channel);
    let mut ask = async |request| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut answers =
            client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == SERVICE), "{names:?}");
    let symbol = MessageRequest::FileContainingSymbol(format!("{SERVICE}.Echo"));
    assert!(matches!(ask(symbol).await, MessageResponse::FileDescriptorResponse(_)));
}

#[tokio::test]
async fn address_in_use_and_stop() {
    let grpc = start().await;
    let error = GrpcServer::new(Arc::new(kuafu::AllowAll)).bind(grpc.address).await.unwrap_err();
    assert!(matches!(error, GrpcError::InUse { address } if address == grpc.address));
    grpc.shutdown.cancel();
    tokio::time::timeout(PATIENCE, grpc.serving).await.expect("stops").unwrap().unwrap();
}
