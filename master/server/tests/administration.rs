//! Administration as a person or another language sees it: gRPC and the page of metrics.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;

use fixture::{Cluster, create, soon};
use master_api::model::mode;
use master_api::proto;
use master_api::proto::grpc::admin_client::AdminClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zhongkui_access::Access;
use zhongkui_access::guard::grpc_request;

#[tokio::test]
async fn status_and_places_by_grpc_and_metrics_by_http() {
    let cluster = Cluster::start_with(1, |config| {
        let any_port = "127.0.0.1:0".parse().expect("an address");
        config.grpc = Some(any_port);
        config.metrics = Some(any_port);
    })
    .await;
    cluster.register_three().await;
    let client = cluster.client();
    let file =
        client.mutate_by(create(coord_types::InodeId::ROOT, "f"), Some(soon())).await.unwrap().attr.unwrap();
    let grpc = cluster.running[&1].grpc_address().unwrap();
    let mut admin = AdminClient::connect(format!("http://{grpc}")).await.unwrap();
    let refused = admin.status(proto::StatusRequest {}).await.unwrap_err();
    assert!(refused.message().contains("zhongkui headers"), "{refused}");
    let path = "feitian.master.v1.Admin/Status";
    let request = grpc_request(&Access::process(), path, proto::StatusRequest {});
    let status = admin.status(request).await.unwrap().into_inner();
    assert_eq!((status.member_id, status.leader_id, status.members.len()), (1, 1, 1));
    assert_eq!(Some(status.cluster_id), client.cluster_id());
    let table = status.table.unwrap();
    assert_eq!((table.servers.len(), table.groups.len()), (3, 64));
    assert_eq!(status.usage.unwrap().inodes_used, 2);

    let places = admin
        .r#where(grpc_request(
            &Access::process(),
            "feitian.master.v1.Admin/Where",
            proto::WhereRequest { file: Some(proto::where_request::File::Path("/f".into())) },
        ))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(places.attr.unwrap().mode & mode::TYPE, mode::REGULAR);
    let groups: Vec<_> = places.groups.iter().map(|group| group.group).collect();
    assert_eq!(groups, file.layout.unwrap().groups().iter().map(|group| group.0).collect::<Vec<_>>());
    let mut racks: Vec<_> = places.groups[0].places.iter().map(|place| place.location.as_str()).collect();
    racks.sort_unstable();
    assert_eq!(racks, ["/r/rack1/host1", "/r/rack2/host2", "/r/rack3/host3"]);

    let metrics = cluster.running[&1].metrics_address().unwrap();
    let mut stream = TcpStream::connect(metrics).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    assert!(
        page.contains("\npangu_master_leader 1\n") && page.contains("\npangu_master_inodes 2\n"),
        "{page}"
    );
    cluster.shutdown().await;
}
