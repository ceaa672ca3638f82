//! Every method of every service of masters and chunkservers, called by nobody and by somebody whose capability is about something else.

use std::collections::BTreeMap;

use chunkserver_api::pb;
use deploy_local_cluster::Role;
use kuafu::{Code, Method};
use master_api::proto;
use zhongkui::{Grant, Resource, Rights};

use crate::audit::By;
use crate::people::{Person, Wanted};
use crate::scene::{MASTER, Scene};
use crate::wire::Wire;

/// Raft's messages are nobody's business, so their code is not either: the methods are read where they are written.
const RAFT: &str = include_str!("../../../../coord/raft/proto/raft/v1/raft.proto");

fn raft_methods() -> Vec<&'static Method> {
    let names = RAFT.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    let methods = names.map(|name| Method::new("feitian.raft.v1.RaftPeer", name.to_owned().leak(), true));
    methods.map(|method| &*Box::leak(Box::new(method))).collect()
}

fn methods(role: Role) -> Vec<&'static Method> {
    let tables: [&'static [Method]; 3] = match role {
        MASTER => [&proto::NAMESPACE_METHODS, &proto::CLUSTER_METHODS, &proto::ADMIN_METHODS],
        _ => [&pb::CHUNK_METHODS, &pb::REPLICA_METHODS, &pb::CHUNK_ADMIN_METHODS],
    };
    let raft = if role == MASTER { raft_methods() } else { Vec::new() };
    tables.into_iter().flatten().chain(raft).collect()
}

/// What an empty message of somebody with any good capability is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Anybody may: it says nothing about anything of others, and changes nothing of theirs.
    Served,
    /// It asks nothing, which is said before it is asked who may. What asks something is refused, as `directory` and `chunks` test.
    Means(Code),
}

/// The methods that do not answer PERMISSION_DENIED to it. Whoever adds a method that is to stand here has to say why.
fn others() -> BTreeMap<&'static str, Answer> {
    use Answer::{Means, Served};
    [
        // A session of one's own. Without a grant on files nothing can be done under it.
        ("Namespace/OpenSession", Served),
        // Of session 0, which nobody has.
        ("Namespace/RenewSession", Means(Code::NotFound)),
        ("Namespace/CloseSession", Served),
        // An empty mutation is EINVAL, in an answer.
        ("Namespace/Mutate", Served),
        ("Namespace/Query", Means(Code::InvalidArgument)),
        ("Namespace/Tokens", Means(Code::NotFound)),
        // It needs a session; then each directory is asked about, and refused one by one.
        ("Namespace/Watch", Means(Code::NotFound)),
        // Where servers and groups are: every client needs it.
        ("Cluster/GetTable", Served),
        // A suspicion, after which the master looks for itself.
        ("Cluster/Report", Served),
        ("Admin/Where", Means(Code::InvalidArgument)),
        ("Chunk/Write", Means(Code::InvalidArgument)),
        ("Chunk/Read", Means(Code::InvalidArgument)),
        ("Chunk/Punch", Means(Code::InvalidArgument)),
        ("Chunk/Map", Means(Code::InvalidArgument)),
        ("Chunk/RaiseFence", Means(Code::InvalidArgument)),
    ]
    .into()
}

fn short(method: &Method) -> String {
    format!("{}/{}", method.service.rsplit('.').next().unwrap(), method.name)
}

#[test]
fn nobody_gets_in_without_a_capability_for_it() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let nothing = vec![Grant::new(Rights::all(), Resource::nuwa("/nothing/").unwrap()).unwrap()];
    let mut others = others();
    for role in [MASTER, Role::Chunkserver(1)] {
        let methods = methods(role);
        // Were one of them not served it would be answered UNIMPLEMENTED, and the test says so.
        let nobody = Wire::new(scene.runtime(), &scene.address(role), None);
        for method in &methods {
            let what = format!("{} by nobody", short(method));
            scene.refused(role, &By::Unproved, &what, nobody.call(method, ()));
        }
        // Rights of all kinds, on something else; the right to serve among them.
        let name = if role == MASTER { "elsewhere" } else { "elsewhere-too" };
        let person = Person::granted(&keys, &Wanted::new(name, 0, nothing.clone()));
        let wire = scene.wire(&person.access, role);
        for method in &methods {
            let name = short(method);
            let Some(answer) = others.remove(name.as_str()) else {
                let what = format!("{name} by somebody from elsewhere");
                scene.refused(role, &person.by(), &what, wire.call(method, ()));
                continue;
            };
            let answered = scene.run(wire.call(method, ()));
            let as_expected = match (&answered, answer) {
                (Ok(()), Answer::Served) => true,
                (Err(status), Answer::Means(code)) => status.code == code,
                _ => false,
            };
            scene.holds(&format!("{name} answers {answer:?}, and not {answered:?}"), as_expected);
        }
    }
    assert!(others.is_empty(), "no such method: {others:?}");
    scene.finish();
}
