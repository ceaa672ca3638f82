//! The same services by gRPC, with health and reflection.

use nuwa_api::proto::grpc::nuwa_admin_client::NuwaAdminClient;
use nuwa_api::proto::grpc::nuwa_client::NuwaClient;
use nuwa_api::proto::{
    self, ChangeRequest, Command, ReadRequest, Txn, command, read_reply, read_request, reply,
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Cluster, PATIENCE, grpc_request, until};

#[tokio::test]
async fn other_languages_read_change_and_watch() {
    let cluster = Cluster::start_with(1, |config| config.grpc = Some(([127, 0, 0, 1], 0).into())).await;
    let address = format!("http://{}", cluster.running[&1].grpc_address().unwrap());
    let mut nuwa = NuwaClient::connect(address.clone()).await.unwrap();
    let then = vec![nuwa_api::ops::put("/x", "1").into()];
    let what = Some(command::What::Txn(Txn { then, ..Txn::default() }));
    let request = ChangeRequest { stamp: None, command: Some(Command { what }) };
    cluster.leader().await;
    let [change, read, watch, _] = &proto::NUWA_METHODS;
    let reply = nuwa.change(grpc_request(change, request)).await.unwrap().into_inner();
    assert!(matches!(reply.what, Some(reply::What::Txn(done)) if done.succeeded));
    let what = Some(read_request::What::Get(nuwa_api::ops::get("/x")));
    let answer = nuwa
        .read(grpc_request(read, ReadRequest { what, ..ReadRequest::default() }))
        .await
        .unwrap()
        .into_inner();
    let Some(read_reply::What::Entry(proto::EntryReply { entry: Some(entry) })) = answer.what else {
        panic!("{answer:?}");
    };
    assert_eq!(entry.value.as_ref(), b"1");
    let request =
        proto::WatchRequest { path: "/".to_owned(), from_revision: 1, ..proto::WatchRequest::default() };
    let told = nuwa.watch(grpc_request(watch, request)).await.unwrap().into_inner();
    assert_eq!((told.events.len(), told.next_revision), (1, 2));
    let mut admin = NuwaAdminClient::connect(address).await.unwrap();
    let [status, ..] = &proto::NUWA_ADMIN_METHODS;
    let leads = async || {
        let request = grpc_request(status, proto::StatusRequest {});
        admin.status(request).await.unwrap().into_inner().leads
    };
    until("it leads", leads).await;
    cluster.shutdown().await;
}

/// The messages of `grpc.health.v1` and `grpc.reflection.v1` that are needed here.
mod standard {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct HealthCheckRequest {
        #[prost(string, tag = "1")]
        pub(super) service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct HealthCheckResponse {
        /// 1: serving.
        #[prost(int32, tag = "1")]
        pub(super) status: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ServerReflectionRequest {
        #[prost(string, optional, tag = "4")]
        pub(super) file_containing_symbol: Option<String>,
        #[prost(string, optional, tag = "7")]
        pub(super) list_services: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ServerReflectionResponse {
        #[prost(message, optional, tag = "4")]
        pub(super) files: Option<Files>,
        #[prost(message, optional, tag = "6")]
        pub(super) services: Option<Services>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Files {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(super) descriptors: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Services {
        #[prost(message, repeated, tag = "1")]
        pub(super) services: Vec<Service>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Service {
        #[prost(string, tag = "1")]
        pub(super) name: String,
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// As HPACK has it: one byte of length, then the text, not compressed.
fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

/// One call on a connection of its own, byte by byte as any program in another language makes it: what answers here is not asked by
/// the library that it is made of. `None`: an error instead of a message.
async fn call<A: prost::Message + Default>(
    address: std::net::SocketAddr,
    method: &str,
    request: &impl prost::Message,
) -> Option<A> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // POST, http, :path, :authority, content-type, te.
    let headers = [
        &[0x83, 0x86, 0x04][..],
        &text(method),
        &[0x01],
        &text("nuwa"),
        &[0x0f, 0x10],
        &text("application/grpc"),
        &[0x00],
        &text("te"),
        &text("trailers"),
    ];
    let message = request.encode_to_vec();
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frames = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &headers.concat()),
        frame(DATA, END_STREAM, 1, &[&[0][..], &len, &message].concat()),
    ];
    stream.write_all(&frames.concat()).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer(&mut stream)).await.unwrap();
    // A byte that says "not compressed", and four of the length.
    answer.get(5..).map(|message| A::decode(message).unwrap())
}

/// The data of the call, up to its end.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        let (kind, flags, stream) = (head[3], head[4], head[8]);
        if kind == DATA {
            answer.extend(payload);
        }
        if stream == 1 && [DATA, HEADERS].contains(&kind) && flags & END_STREAM != 0 {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_stranger_asks_for_health_and_for_what_there_is() {
    use standard::{
        HealthCheckRequest, HealthCheckResponse, ServerReflectionRequest, ServerReflectionResponse,
    };
    const SERVICES: [&str; 2] = ["feitian.nuwa.v1.Nuwa", "feitian.nuwa.v1.NuwaAdmin"];
    let cluster = Cluster::start_with(1, |config| config.grpc = Some(([127, 0, 0, 1], 0).into())).await;
    let address = cluster.running[&1].grpc_address().unwrap();

    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = call::<HealthCheckResponse>(address, "/grpc.health.v1.Health/Check", &request).await;
        assert_eq!(health, Some(HealthCheckResponse { status: 1 }), "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "x".to_owned() };
    assert_eq!(call::<HealthCheckResponse>(address, "/grpc.health.v1.Health/Check", &unknown).await, None);

    let ask = async |request: ServerReflectionRequest| {
        let method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        call::<ServerReflectionResponse>(address, method, &request).await.unwrap()
    };
    let list = ServerReflectionRequest { list_services: Some(String::new()), ..Default::default() };
    let listed = ask(list).await.services.unwrap().services;
    for service in SERVICES {
        assert!(listed.iter().any(|listed| listed.name == service), "{listed:?}");
    }
    for symbol in ["feitian.nuwa.v1.Nuwa.Change", "feitian.nuwa.v1.NuwaAdmin.Status"] {
        let file_containing_symbol = Some(symbol.to_owned());
        let files = ask(ServerReflectionRequest { file_containing_symbol, ..Default::default() }).await.files;
        let described = |name: &str| {
            let has = |file: &Vec<u8>| file.windows(name.len()).any(|bytes| bytes == name.as_bytes());
            files.iter().flat_map(|files| &files.descriptors).any(has)
        };
        let method = symbol.rsplit('.').next().unwrap();
        assert!(described("feitian.nuwa.v1") && described(method), "{symbol}");
    }
    cluster.shutdown().await;
}
