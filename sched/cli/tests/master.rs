//! What is asked of the master: of one that says what it is told to, behind the guard of a real one.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::Arc;

use common::Place;
use kuafu::{CancellationToken, Request, Response, Server, Status};
use sched_api::proto::*;
use zhongkui_access::{Audit, KeyDirectory, directory};

const NODES: &str = r#"[{"node":"n1","state":"ok","location":"/r/k/n1","capacity":{"cpu":4000},"used":{"cpu":500},"running":1,"silent_ms":3,"warning":""}]"#;
const QUEUES: &str = r#"[{"queue":"batch","used":{"cpu":500},"min":{},"max":{}}]"#;
const JOBS: &str = r#"[{"job":"a-1","queue":"batch","state":"running","priority":100,"uid":0,"grants":1,"instances":4,"instances_done":2,"why":"runs"}]"#;

struct Master {
    leads: bool,
}

impl Fuxi for Master {
    async fn agent(&self, _: Request<AgentRequest>) -> Result<Response<AgentReply>, Status> {
        Err(Status::permission_denied("people ask for an overview only"))
    }
    async fn job(&self, _: Request<JobRequest>) -> Result<Response<JobReply>, Status> {
        Err(Status::permission_denied("people ask for an overview only"))
    }
    async fn find_job(&self, _: Request<FindJobRequest>) -> Result<Response<FindJobReply>, Status> {
        Err(Status::permission_denied("people ask for an overview only"))
    }
    async fn overview(&self, _: Request<OverviewRequest>) -> Result<Response<OverviewReply>, Status> {
        if !self.leads {
            return Err(Status::unavailable("this master does not lead; ask another one"));
        }
        let [nodes, queues, jobs] = [NODES, QUEUES, JOBS].map(str::to_owned);
        Ok(Response::new(OverviewReply { nodes, queues, jobs }))
    }
}

/// A cluster with keys.
fn cluster() -> Place {
    let place = Place::new();
    KeyDirectory::at(place.folder().join("keys")).init().unwrap();
    place.file("cluster.toml", "name = \"c\"\nmasters = [\"tcp://127.0.0.1:1\"]\n");
    place
}

/// Runs while a master serves; it gets the flag that names it.
fn with_master(place: &Place, leads: bool, run: impl FnOnce(&str)) {
    let keys = KeyDirectory::at(place.folder().join("keys"));
    let access = keys.access(directory::FUXI, Audit::none()).unwrap();
    let address = format!("unix://{}", place.folder().join("fuxi.sock").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let stop = CancellationToken::new();
    let bound = runtime.block_on(async {
        // As the real one does (sched/server/src/server.rs).
        let guard = access.guard().shows(&FUXI_METHODS, "Overview").build();
        let service = FuxiServer::new(Arc::new(Master { leads }));
        let server = Server::builder().authorizer(guard).service(service).build();
        server.bind(&address.parse().unwrap()).await.unwrap()
    });
    let serving = runtime.spawn(bound.serve(stop.clone()));
    run(&format!("--master={address}"));
    stop.cancel();
    runtime.block_on(serving).unwrap();
}

#[test]
fn tables_and_documents_are_those_of_the_master() {
    let place = cluster();
    with_master(&place, true, |master| {
        let table = place.run(&["nodes", master]).done();
        assert!(table.contains("n1    ok     0s ago  1        /r/k/n1   cpu 0.5/4\n"), "{table}");
        let table = place.run(&["quota", master]).done();
        assert!(table.contains("batch  cpu       0.5   0    none\n"), "{table}");
        let page = place.run(&["top", master]).done();
        assert!(page.starts_with("1 of 1 machines  cpu 0.5/4\n") && page.contains("2/4   runs"), "{page}");
        for (command, document) in [("nodes", NODES), ("quota", QUEUES), ("top", JOBS)] {
            assert_eq!(place.run(&[command, master, "--json"]).done(), format!("{document}\n"));
        }
    });
}

#[test]
fn the_master_of_an_embedded_platform_is_found_beside_pangus() {
    let place = cluster();
    let socket = place.folder().join("master.sock");
    let description = format!("name = \"c\"\nmasters = [\"unix://{}\"]\n", socket.display());
    place.file("cluster.toml", &description);
    with_master(&place, true, |_| assert!(place.run(&["nodes"]).done().contains("n1")));
}

#[test]
fn who_has_no_keys_of_the_cluster_is_told_nothing() {
    let (place, other) = (cluster(), cluster());
    with_master(&place, true, |master| {
        place.run(&["nodes", master]).done();
        let keys = other.folder().join("keys");
        let said = place.run(&["nodes", master, "--keys", keys.to_str().unwrap(), "--timeout", "2"]);
        assert!(said.code == 1 && said.out.is_empty(), "{} {}", said.out, said.err);
        assert!(said.err.contains("ask unix://"), "{}", said.err);
    });
}

#[test]
fn a_master_that_can_not_be_asked_is_told_with_what_to_do() {
    let place = Place::new();
    let said = place.run(&["nodes"]);
    assert!(said.code == 1 && said.err.contains("cluster.toml"), "{}", said.err);
    let place = cluster();
    let said = place.run(&["top"]);
    assert!(said.code == 1 && said.err.contains("give --master ADDRESS"), "{}", said.err);
    let nobody = format!("--master=unix://{}", place.folder().join("nobody.sock").display());
    let said = place.run(&["quota", &nobody, "--timeout", "1"]);
    assert!(said.code == 1 && said.err.contains("does a fuxi-master run?"), "{}", said.err);
    with_master(&place, false, |master| {
        let said = place.run(&["nodes", master, "--timeout", "1", "--json"]);
        assert!(said.code == 1 && said.err.contains("does not lead"), "{}", said.err);
    });
    assert_eq!(place.run(&["nodes", "--master", "nonsense"]).code, 2);
}
