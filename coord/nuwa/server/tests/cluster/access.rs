//! Who may do what: each call needs its rights where it does something, sessions are their owners', and what is taken back is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kuafu::{CallOptions, Client, Code, Method, Status};
use nuwa_api::client::Freshness;
use nuwa_api::ops::{self, make_directory, put, rename};
use nuwa_api::proto::command::What as CommandKind;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{
    self, ChangeRequest, Command, Compare, Lock, NUWA_ADMIN_METHODS, NUWA_METHODS, NuwaAdminClient,
    NuwaClient as Wire, Operation, Put, ReadRequest, Reply, Stamp, Txn, WatchRequest, reply,
};
use nuwa_api::{ClientError, Session};
use prost::Message;
use zhongkui::Rights;
use zhongkui_access::{Access, directory};

use crate::fixture::{Cluster, LONG, PATIENCE, soon, until};

const ALL: Rights = Rights::all();

/// A call that was made ready, and what it needs.
struct Call {
    what: String,
    method: &'static Method,
    message: Vec<u8>,
    needs: Rights,
}

fn call(what: &str, index: usize, message: &impl Message, needs: Rights) -> Call {
    Call { what: what.to_owned(), method: &NUWA_METHODS[index], message: message.encode_to_vec(), needs }
}

fn change(what: &str, command: CommandKind, needs: Rights) -> Call {
    let request = ChangeRequest { stamp: None, command: Some(Command { what: Some(command) }) };
    call(what, 0, &request, needs)
}

fn operation(what: &str, operation: impl Into<Operation>, needs: Rights) -> Call {
    let txn = Txn { then: vec![operation.into()], ..Txn::default() };
    change(what, CommandKind::Txn(txn), needs)
}

fn read(what: &str, question: Question) -> Call {
    let request = ReadRequest { what: Some(question), ..ReadRequest::default() };
    call(what, 1, &request, Rights::READ)
}

/// All that can be done below a directory that is there, each of it once, so that each succeeds who may do it.
fn calls(directory: &str, session: u64) -> Vec<Call> {
    let at = |name: &str| format!("{directory}{name}");
    let sequential = Put { sequential: true, ..put(at("n"), "") };
    let compare = Compare { path: at("x"), relation: 0, with: Some(proto::compare::With::Exists(true)) };
    let compared = Txn { compares: vec![compare], ..Txn::default() };
    let otherwise = Txn { otherwise: vec![put(at("never"), "").into()], ..Txn::default() };
    let lock = Lock { session, path: at("x"), ..Lock::default() };
    let unlock = proto::Unlock { session, path: at("x"), owner: 0 };
    let quota = proto::SetQuota { path: directory.to_owned(), entries_max: 1000, bytes_max: 0 };
    let list = proto::List { path: directory.to_owned(), ..proto::List::default() };
    let watch = WatchRequest { path: directory.to_owned(), from_revision: 1, ..WatchRequest::default() };
    let write = Rights::WRITE;
    vec![
        operation("put", put(at("x"), "1"), write),
        operation("a sequential put", sequential, write),
        operation("make a directory", make_directory(at("d/")), write),
        operation("get", ops::get(at("x")), Rights::READ),
        change("compare", CommandKind::Txn(compared), Rights::READ),
        change("what is done otherwise", CommandKind::Txn(otherwise), write),
        operation("rename", rename(at("d/"), at("e/")), Rights::READ | write),
        operation("delete", ops::delete(at("e/")), write),
        change("lock", CommandKind::Lock(lock.clone()), Rights::LOCK),
        change("unlock", CommandKind::Unlock(unlock.clone()), Rights::LOCK),
        change(
            "lock with a file",
            CommandKind::Lock(Lock { with_file: true, ..lock.clone() }),
            Rights::LOCK | write,
        ),
        change("unlock again", CommandKind::Unlock(unlock.clone()), Rights::LOCK),
        change("elect", CommandKind::Lock(Lock { value: Some("me".into()), ..lock }), Rights::LOCK | write),
        change("unlock once more", CommandKind::Unlock(unlock), Rights::LOCK),
        change("set a quota", CommandKind::SetQuota(quota), Rights::ADMINISTER),
        read("read an entry", Question::Get(ops::get(at("x")))),
        read("read a list", Question::List(list)),
        read("read a lock", Question::Lock(proto::GetLock { path: at("x") })),
        read("read a quota", Question::Quota(proto::GetQuota { path: directory.to_owned() })),
        call("watch", 2, &watch, Rights::READ),
    ]
}

/// A message that was encoded before; and an answer that nobody decodes.
#[derive(Clone, Default, Debug)]
struct Raw(Vec<u8>);

impl Message for Raw {
    fn encode_raw(&self, buf: &mut impl bytes::BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buf: &mut impl bytes::Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What the tree said against it, if it came so far.
async fn make(client: &Client, call: &Call) -> Result<String, Status> {
    let (message, options) = (Raw(call.message.clone()), CallOptions::within(PATIENCE));
    if call.method.name != "Change" {
        return client
            .call::<_, Raw>(call.method, &message, Bytes::new(), &options)
            .await
            .map(|_| String::new());
    }
    let reply = client.call::<_, Reply>(call.method, &message, Bytes::new(), &options).await?;
    Ok(match reply.message.what {
        Some(reply::What::Refused(refused)) => refused.message,
        _ => String::new(),
    })
}

fn is_denied<T>(answer: &Result<T, Status>) -> bool {
    matches!(answer, Err(status) if status.code == Code::PermissionDenied)
}

fn connect(cluster: &Cluster, access: &Access) -> Client {
    Client::new(cluster.address(1), access.transport())
}

async fn opened(client: &Client) -> u64 {
    let open = CommandKind::OpenSession(proto::OpenSession { ttl_ms: 600_000, ..Default::default() });
    let request = ChangeRequest { stamp: None, command: Some(Command { what: Some(open) }) };
    let reply = Wire::new(client.clone()).change(&request, &CallOptions::within(PATIENCE)).await.unwrap();
    match reply.message.what {
        Some(reply::What::Session(session)) => session,
        other => panic!("{other:?}"),
    }
}

/// `/a/` and `/b/`, with a file each.
async fn prepared() -> (Cluster, Session) {
    let cluster = Cluster::start_with_keys(1).await;
    let admin = cluster.session().await;
    for directory in ["/a/", "/b/"] {
        admin.change_one(make_directory(directory), soon()).await.unwrap();
        admin.put(&format!("{directory}x"), "", soon()).await.unwrap();
    }
    (cluster, admin)
}

#[tokio::test]
async fn a_capability_opens_its_directory_and_nothing_beside() {
    let (cluster, admin) = prepared().await;
    let client = connect(&cluster, &cluster.keys().user("alice", &[(ALL, "nuwa:/a/")]));
    let session = opened(&client).await;
    for call in calls("/a/", session) {
        assert_eq!(make(&client, &call).await, Ok(String::new()), "{}", call.what);
    }
    let before = admin.client().get("/b/", Freshness::Linearizable, soon()).await.unwrap();
    for call in calls("/b/", session) {
        let answer = make(&client, &call).await;
        assert!(is_denied(&answer), "{}: {answer:?}", call.what);
    }
    // From one to the other, with one operation of many, and what is all of the tree.
    let both = vec![put("/a/x", "").into(), put("/b/x", "").into()];
    let history = CommandKind::SetHistory(proto::SetHistory { events_max: 1, bytes_max: 1 });
    let of_all = WatchRequest { path: "/".to_owned(), from_revision: 1, ..WatchRequest::default() };
    for call in [
        operation("move out", rename("/a/x", "/b/y"), ALL),
        operation("move in", rename("/b/x", "/a/y"), ALL),
        change("both", CommandKind::Txn(Txn { then: both, ..Txn::default() }), ALL),
        operation("beside", put("/ab", ""), ALL),
        operation("numbered beside", Put { sequential: true, ..put("/a", "") }, ALL),
        operation("no path", put("a", ""), ALL),
        operation("no path, and far too long", put("x".repeat(1 << 20), ""), ALL),
        change("history", history, ALL),
        change("restore", CommandKind::Restore(proto::Restore::default()), ALL),
        call("watch all", 2, &of_all, ALL),
    ] {
        let answer = make(&client, &call).await;
        assert!(is_denied(&answer), "{}: {answer:?}", call.what);
        assert!(answer.unwrap_err().message.len() < 6000, "{}", call.what);
    }
    assert_eq!(admin.client().get("/b/", Freshness::Linearizable, soon()).await.unwrap(), before);
    // What is about no path is for whoever has any capability that is good.
    let read_one = |what| ReadRequest { what: Some(what), ..ReadRequest::default() };
    for call in [
        call("summary", 1, &read_one(Question::Summary(proto::GetSummary {})), ALL),
        call("session", 1, &read_one(Question::Session(proto::GetSession { session })), ALL),
    ] {
        assert_eq!(make(&client, &call).await, Ok(String::new()), "{}", call.what);
    }
    cluster.shutdown().await;
}

/// Every call, by users with each right alone, and with all but each.
#[tokio::test]
async fn each_call_needs_its_rights_and_no_others() {
    let (cluster, _admin) = prepared().await;
    let single = [Rights::READ, Rights::WRITE, Rights::LOCK, Rights::ADMINISTER];
    let others = [Rights::RUN | Rights::ACT_AS | Rights::SUPERUSER | Rights::SERVE];
    for rights in single.into_iter().chain(single.map(|right| ALL - right)).chain(others) {
        let client = connect(&cluster, &cluster.keys().user("alice", &[(rights, "nuwa:/a/")]));
        let session = opened(&client).await;
        for call in calls("/a/", session) {
            let answer = make(&client, &call).await;
            let may = rights.contains(call.needs);
            assert_eq!(
                (answer.is_ok(), is_denied(&answer)),
                (may, !may),
                "{} with {rights}: {answer:?}",
                call.what
            );
        }
    }
    cluster.shutdown().await;
}

/// The members, and the tree as a whole.
#[tokio::test]
async fn administration_needs_rights_on_its_methods() {
    let (cluster, _admin) = prepared().await;
    let within = CallOptions::within(PATIENCE);
    let admin = |grants: &[(Rights, &str)]| {
        NuwaAdminClient::new(connect(&cluster, &cluster.keys().user("alice", grants)))
    };
    let all_of_tree = admin(&[(ALL, "nuwa:/")]);
    for method in &NUWA_ADMIN_METHODS {
        let call = Call { what: String::new(), method, message: Vec::new(), needs: ALL };
        let client = connect(&cluster, &cluster.keys().user("alice", &[(ALL, "nuwa:/")]));
        assert!(is_denied(&make(&client, &call).await), "{method:?}");
    }
    let export = proto::ExportRequest::default();
    assert!(is_denied(&all_of_tree.export(&export, &within).await));
    const EXPORT: &str = "service:feitian.nuwa.v1.NuwaAdmin/Export";
    assert!(is_denied(&admin(&[(Rights::READ, EXPORT)]).export(&export, &within).await));
    assert!(is_denied(
        &admin(&[(Rights::READ, EXPORT), (Rights::READ, "nuwa:/a/")]).export(&export, &within).await
    ));
    let backup = admin(&[(Rights::READ, EXPORT), (Rights::READ, "nuwa:/")]);
    backup.export(&export, &within).await.unwrap();
    let shown = admin(&[(Rights::READ, "service:feitian.nuwa.v1.NuwaAdmin")]);
    shown.status(&proto::StatusRequest {}, &within).await.unwrap();
    let remove = proto::RemoveMemberRequest { id: 9 };
    assert!(is_denied(&shown.remove_member(&remove, &within).await));
    let operator = admin(&[(Rights::ADMINISTER, "service:feitian.nuwa.v1.NuwaAdmin")]);
    assert!(!is_denied(&operator.remove_member(&remove, &within).await));
    cluster.shutdown().await;
}

/// By number anybody could renew it, end it, change the tree or take locks in its name, or be told what it was answered.
#[tokio::test]
async fn a_session_is_its_owners() {
    let (cluster, _admin) = prepared().await;
    let grant = [(ALL, "nuwa:/a/")];
    let first = cluster.keys().user("alice", &grant);
    let alice = connect(&cluster, &first);
    let session = opened(&alice).await;
    let stamped = |stamp: u64, command: CommandKind| {
        let stamp = Some(Stamp { session: stamp, sequence: 1, acknowledged_below: 0 });
        call("stamped", 0, &ChangeRequest { stamp, command: Some(Command { what: Some(command) }) }, ALL)
    };
    let txn =
        |session| CommandKind::Txn(Txn { session, then: vec![put("/a/x", "mine").into()], ..Txn::default() });
    assert_eq!(make(&alice, &stamped(session, txn(session))).await, Ok(String::new()));
    let lock = Lock { session, path: "/a/x".to_owned(), ..Lock::default() };
    let unlock = proto::Unlock { session, path: "/a/x".to_owned(), owner: 0 };
    let all = |own: u64| {
        vec![
            call("renew", 3, &proto::RenewRequest { session }, ALL),
            change("in its name", txn(session), ALL),
            stamped(session, txn(0)),
            stamped(session, CommandKind::OpenSession(proto::OpenSession::default())),
            stamped(own, txn(session)),
            change("lock", CommandKind::Lock(lock.clone()), ALL),
            change("unlock", CommandKind::Unlock(unlock.clone()), ALL),
            change("end", CommandKind::EndSession(proto::EndSession { session }), ALL),
        ]
    };
    let bob = cluster.keys().user("bob", &grant);
    // Handed on by Alice: another holder, who is not to take over what she has.
    let narrowed = cluster.keys().narrowed(&first, &grant);
    for access in [bob, narrowed] {
        let other = connect(&cluster, &access);
        let own = opened(&other).await;
        for call in all(own) {
            let answer = make(&other, &call).await;
            assert!(is_denied(&answer), "{}: {answer:?}", call.what);
        }
        let message = make(&other, &all(own)[0]).await.unwrap_err().message;
        assert!(message.contains(&format!("session {session} is alice's")), "{message}");
    }
    // A capability that was granted to her later is as good.
    let alice = connect(&cluster, &cluster.keys().user("alice", &grant));
    let own = opened(&alice).await;
    for call in all(own) {
        assert_eq!(make(&alice, &call).await, Ok(String::new()), "{}", call.what);
    }
    // It is over: for everybody the same.
    let renew = proto::RenewRequest { session };
    let renewed = Wire::new(alice).renew(&renew, &CallOptions::within(PATIENCE)).await.unwrap().message;
    assert!(!renewed.open);
    cluster.shutdown().await;
}

/// One of the next numbers, which somebody else is about to get.
#[tokio::test]
async fn what_names_a_session_before_there_is_one_is_not_done_later() {
    let (cluster, _admin) = prepared().await;
    let bob = connect(&cluster, &cluster.keys().user("bob", &[(ALL, "nuwa:/a/")]));
    let alice = connect(&cluster, &cluster.keys().user("alice", &[(ALL, "nuwa:/a/")]));
    let next = opened(&bob).await + 1;
    let end = change("end", CommandKind::EndSession(proto::EndSession { session: next }), ALL);
    assert_eq!(make(&bob, &end).await, Ok(String::new()));
    let then = vec![Put { owned: true, ..put("/a/y", "") }.into()];
    let txn = change("txn", CommandKind::Txn(Txn { session: next, then, ..Txn::default() }), ALL);
    assert!(make(&bob, &txn).await.unwrap().contains("is over"));
    assert_eq!(opened(&alice).await, next);
    assert!(is_denied(&make(&bob, &txn).await));
    assert_eq!(make(&alice, &txn).await, Ok(String::new()));
    cluster.shutdown().await;
}

/// A refusal is an answer: clients that wait for members to come back do not wait for that.
#[tokio::test]
async fn who_is_refused_hears_of_it_at_once() {
    let (cluster, admin) = prepared().await;
    let stranger = Cluster::start_with_keys(1).await;
    let alice = cluster.client_as(cluster.keys().user("alice", &[(ALL, "nuwa:/a/")]).transport());
    let session = alice.open_session(LONG, "", None).await.unwrap();
    let nobody = cluster.client_as(kuafu::ClientConfig::default());
    let foreign = cluster.client_as(stranger.keys().of(directory::ADMIN).transport());
    let began = Instant::now();
    let denied = |error: ClientError| {
        assert!(error.is_denied() && !error.retryable(), "{error}");
    };
    denied(alice.get("/b/x", Freshness::Linearizable, None).await.unwrap_err());
    denied(alice.get("/b/x", Freshness::Stale, None).await.unwrap_err());
    denied(alice.watch("/b/", nuwa_api::Place::NOW).next().await.unwrap_err());
    denied(session.put("/b/x", "", None).await.unwrap_err());
    let lock = nuwa_api::LockRequest { path: "/b/x".to_owned(), ..Default::default() };
    denied(session.lock(&lock, None).await.unwrap_err());
    denied(nobody.open_session(LONG, "", None).await.unwrap_err());
    denied(nobody.get("/a/x", Freshness::Linearizable, None).await.unwrap_err());
    denied(foreign.get("/a/x", Freshness::Linearizable, None).await.unwrap_err());
    denied(alice.remove_member(9, None).await.unwrap_err());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // What it may do it does as before.
    session.put("/a/x", "", soon()).await.unwrap();
    drop(admin);
    stranger.shutdown().await;
    cluster.shutdown().await;
}

/// By gRPC the same is asked.
#[tokio::test]
async fn nobody_is_let_in_by_grpc_who_shows_nothing() {
    let cluster = Cluster::start_with_keys(1).await;
    let address = format!("http://{}", cluster.running[&1].grpc_address().unwrap());
    let mut nuwa = proto::grpc::nuwa_client::NuwaClient::connect(address.clone()).await.unwrap();
    let mut admin = proto::grpc::nuwa_admin_client::NuwaAdminClient::connect(address).await.unwrap();
    let codes = [
        nuwa.change(ChangeRequest::default()).await.unwrap_err().code(),
        nuwa.read(ReadRequest::default()).await.unwrap_err().code(),
        nuwa.watch(WatchRequest::default()).await.unwrap_err().code(),
        nuwa.renew(proto::RenewRequest::default()).await.unwrap_err().code(),
        admin.status(proto::StatusRequest {}).await.unwrap_err().code(),
        admin.add_member(proto::AddMemberRequest::default()).await.unwrap_err().code(),
        admin.remove_member(proto::RemoveMemberRequest::default()).await.unwrap_err().code(),
        admin.export(proto::ExportRequest::default()).await.unwrap_err().code(),
    ];
    assert_eq!(codes, [tonic::Code::PermissionDenied; 8]);
    cluster.shutdown().await;
}

/// Every member hears of it by its own state, on connections that are open and after a restart.
#[tokio::test]
async fn what_is_taken_back_is_refused_at_every_member() {
    let mut cluster = Cluster::start_with_keys(3).await;
    let admin = cluster.session().await;
    admin.change_one(make_directory("/a/"), soon()).await.unwrap();
    let alice = cluster.keys().user("alice", &[(ALL, "nuwa:/a/")]);
    let stale =
        ReadRequest { stale: true, what: Some(Question::Get(ops::get("/a/"))), ..ReadRequest::default() };
    let read = call("stale read", 1, &stale, Rights::READ);
    let clients: Vec<_> = (1..=3).map(|id| Client::new(cluster.address(id), alice.transport())).collect();
    for client in &clients {
        assert_eq!(make(client, &read).await, Ok(String::new()));
    }
    let raised = Put { with_parents: true, ..put("/zhongkui/users/alice", "1\n") };
    admin.change_one(raised, soon()).await.unwrap();
    let began = Instant::now();
    for client in &clients {
        until("it is refused", async || is_denied(&make(client, &read).await)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    cluster.stop_one(2).await;
    cluster.start_one(2).await;
    let again = Client::new(cluster.address(2), alice.transport());
    assert!(is_denied(&make(&again, &read).await), "it is known from the start");
    admin.change_one(ops::delete("/zhongkui/users/alice"), soon()).await.unwrap();
    // On a connection where it was refused from the start the client does not show it a second time.
    let anew = Client::new(cluster.address(2), alice.transport());
    for client in [&clients[0], &clients[2], &anew] {
        until("it is not refused any more", async || make(client, &read).await.is_ok()).await;
    }
    cluster.shutdown().await;
}
