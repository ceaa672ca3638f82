//! The same services by gRPC.

use nuwa_api::proto::grpc::nuwa_admin_client::NuwaAdminClient;
use nuwa_api::proto::grpc::nuwa_client::NuwaClient;
use nuwa_api::proto::{
    self, ChangeRequest, Command, ReadRequest, Txn, command, read_reply, read_request, reply,
};

use crate::fixture::{Cluster, until};

#[tokio::test]
async fn other_languages_read_change_and_watch() {
    let cluster = Cluster::start_with(1, |config| config.grpc = Some(([127, 0, 0, 1], 0).into())).await;
    let address = format!("http://{}", cluster.running[&1].grpc_address().unwrap());
    let mut nuwa = NuwaClient::connect(address.clone()).await.unwrap();
    let then = vec![nuwa_api::ops::put("/x", "1").into()];
    let what = Some(command::What::Txn(Txn { then, ..Txn::default() }));
    let request = ChangeRequest { stamp: None, command: Some(Command { what }) };
    cluster.leader().await;
    let reply = nuwa.change(request).await.unwrap().into_inner();
    assert!(matches!(reply.what, Some(reply::What::Txn(done)) if done.succeeded));
    let what = Some(read_request::What::Get(nuwa_api::ops::get("/x")));
    let read = nuwa.read(ReadRequest { what, ..ReadRequest::default() }).await.unwrap().into_inner();
    let Some(read_reply::What::Entry(proto::EntryReply { entry: Some(entry) })) = read.what else {
        panic!("{read:?}");
    };
    assert_eq!(entry.value.as_ref(), b"1");
    let watch =
        proto::WatchRequest { path: "/".to_owned(), from_revision: 1, ..proto::WatchRequest::default() };
    let told = nuwa.watch(watch).await.unwrap().into_inner();
    assert_eq!((told.events.len(), told.next_revision), (1, 2));
    let mut admin = NuwaAdminClient::connect(address).await.unwrap();
    until("it leads", async || admin.status(proto::StatusRequest {}).await.unwrap().into_inner().leads).await;
    cluster.shutdown().await;
}
