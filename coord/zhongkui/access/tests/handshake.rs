//! Who is let in, through real sockets: a server with a guard, and clients with keys of all kinds.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::time::Duration;

use kuafu::{
    Address, Bytes, CallOptions, CancellationToken, Client, ClientConfig, Code, HandlerFuture, Method,
    PayloadCheck, RawRequest, RawResponse, Server, Service, Status,
};
use tempfile::TempDir;
use zhongkui::terms::Root;
use zhongkui::{
    Capability, CapabilityId, Grant, KeyId, Resource, Rights, SecretKey, Terms, Timestamp, User, UserEpoch,
    UserName, Validity, keyring,
};
use zhongkui_access::keyring::KeyFiles;
use zhongkui_access::{Access, Audit, Holder, KeyDirectory, Keyring, directory};

static METHODS: [Method; 2] =
    [Method::new("test.v1.Door", "Knock", true), Method::new("test.v1.Door", "Show", true)];

/// Says who knocked.
struct Door;

impl Service for Door {
    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn call(&self, _index: usize, request: RawRequest) -> HandlerFuture {
        let holder = Holder::from_principal(request.principal.as_ref());
        Box::pin(async move {
            let name = holder?.name().to_owned().into_bytes();
            Ok(RawResponse { message: Bytes::new(), payload: name.into(), payload_check: PayloadCheck::Crc })
        })
    }
}

/// A cluster's keys, and a server that opens with them.
struct Scene {
    folder: TempDir,
    keys: KeyDirectory,
    access: Access,
    address: Address,
    stop: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(access: &Access, socket: &Path) -> (Address, CancellationToken) {
    let guard = access.guard().shows(&METHODS, "Show").build();
    let server = Server::builder().authorizer(guard).service(Door).build();
    let address: Address = format!("unix://{}", socket.display()).parse().unwrap();
    let (bound, stop) = (server.bind(&address).await.unwrap(), CancellationToken::new());
    tokio::spawn(bound.serve(stop.clone()));
    (address, stop)
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyDirectory::at(folder.path().join("keys"));
        keys.init().unwrap();
        let access = keys.access(directory::MASTER, Audit::to(&folder.path().join("audit.log"))).unwrap();
        let (address, stop) = serve(&access, &folder.path().join("door.sock")).await;
        Self { folder, keys, access, address, stop }
    }

    /// Somebody with a new key, and what this authority grants to it.
    fn somebody(&self, authority: &SecretKey, name: &str, rights: Rights, until: Timestamp) -> Access {
        let key = SecretKey::generate().unwrap();
        let capability = granted(authority, &key, name, rights, until);
        let path = |kind: &str| self.folder.path().join(format!("{name}.{kind}"));
        keyring::replace_secret_key(&path("key"), &key).unwrap();
        keyring::replace_capability(&path("cap"), &capability).unwrap();
        let files = KeyFiles {
            key: path("key"),
            capability: path("cap"),
            authorities: self.keys.folder().to_owned(),
        };
        Access::new(Keyring::open(files).unwrap(), Audit::none())
    }

    fn granted(&self, name: &str, rights: Rights) -> Access {
        self.somebody(&self.keys.authority().unwrap(), name, rights, Timestamp::FOREVER)
    }

    fn refusals(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["event"] == "refused").collect()
    }
}

fn granted(
    authority: &SecretKey,
    key: &SecretKey,
    name: &str,
    rights: Rights,
    until: Timestamp,
) -> Capability {
    let user = User::new(UserName::new(name).unwrap(), UserEpoch(0), 7, vec![7]).unwrap();
    let root = Root { id: CapabilityId(7), issuer: authority.public().id(), user };
    let grant = Grant::new(rights, Resource::Everything).unwrap();
    let validity = Validity::new(Timestamp(0), until).unwrap();
    Capability::grant(authority, root, Terms::new(key.public(), validity, vec![grant]).unwrap()).unwrap()
}

async fn call(client: &Client, method: &'static Method) -> Result<Bytes, Status> {
    let options = CallOptions::within(Duration::from_secs(20));
    client.call::<(), ()>(method, &(), Bytes::new(), &options).await.map(|answer| answer.payload)
}

async fn knock(address: &Address, transport: ClientConfig) -> Result<Bytes, Status> {
    call(&Client::new(address.clone(), transport), &METHODS[0]).await
}

fn denied(result: Result<Bytes, Status>, why: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code, Code::PermissionDenied, "{status}");
    assert!(status.message.contains(why), "{status}");
}

#[tokio::test]
async fn who_has_the_right_is_let_in_and_each_refusal_is_written_down() {
    let scene = Scene::new().await;
    let admin = scene.granted("ann", Rights::ADMINISTER);
    assert_eq!(&knock(&scene.address, admin.transport()).await.unwrap()[..], b"ann");
    // A method that nobody said anything of needs more than to read; one that only shows something does not.
    let reader = Client::new(scene.address.clone(), scene.granted("bob", Rights::READ).transport());
    denied(call(&reader, &METHODS[0]).await, "needs administer on method test.v1.Door/Knock");
    assert_eq!(&call(&reader, &METHODS[1]).await.unwrap()[..], b"bob");
    denied(knock(&scene.address, ClientConfig::default()).await, "no capability was presented");
    let refusals = scene.refusals();
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert_eq!((&refusals[0]["who"], &refusals[1]["who"]), (&"bob".into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn what_is_not_granted_by_the_authority_or_out_of_time_opens_nothing() {
    let scene = Scene::new().await;
    let authority = scene.keys.authority().unwrap();
    let expired = scene.somebody(&authority, "old", Rights::all(), Timestamp(1000));
    denied(knock(&scene.address, expired.transport()).await, "expired");
    // One's own authority: the client believes in it, the server does not.
    let own = Access::new(Keyring::ephemeral(), Audit::none());
    let status = knock(&scene.address, own.transport()).await.unwrap_err();
    assert_eq!(status.code, Code::PermissionDenied);
    assert!(
        status.message.contains("no server of ours"),
        "to that client the server is a stranger: {status}"
    );
    assert_eq!(scene.refusals().len(), 1);
}

#[tokio::test]
async fn a_user_cannot_pose_as_a_server() {
    let scene = Scene::new().await;
    let user = scene.granted("eve", Rights::all() - Rights::SERVE);
    let (address, stop) = serve(&user, &scene.folder.path().join("eve.sock")).await;
    denied(knock(&address, scene.granted("ann", Rights::all()).transport()).await, "eve may not serve");
    stop.cancel();
}

/// Somebody who stands in between passes everything on. He is no server, so the client does not speak to him; and if he were one, what the client
/// signs for him is good at nobody else's.
#[tokio::test]
async fn a_proof_for_one_server_is_no_proof_for_another() {
    use kuafu::{Authorizer as _, Binding, Credentials as _, PeerInfo};
    let scene = Scene::new().await;
    let ann = scene.granted("ann", Rights::all());
    let other = scene.keys.access(directory::CHUNKSERVER, Audit::none()).unwrap();
    let (here, there) = (scene.access.guard().build(), other.guard().build());
    let binding = Binding { client_nonce: [1; 32], server_nonce: [2; 32], channel: None };
    let said = there.introduce(&binding).unwrap().unwrap();
    ann.keyring().check_server(&binding, Some(&said)).unwrap();
    let proof = ann.keyring().present(&binding, &said);
    there.identify(&PeerInfo::local(), &binding, &said, &proof).unwrap();
    let ours = here.introduce(&binding).unwrap().unwrap();
    let refused = here.identify(&PeerInfo::local(), &binding, &ours, &proof).unwrap_err();
    assert!(refused.message.contains("did not prove"), "{refused}");
    for changed in
        [Binding { client_nonce: [3; 32], ..binding }, Binding { server_nonce: [3; 32], ..binding }]
    {
        assert!(there.identify(&PeerInfo::local(), &changed, &said, &proof).is_err(), "replayed");
        assert!(ann.keyring().check_server(&changed, Some(&said)).is_err(), "an old introduction");
    }
    // Neither is an introduction a proof, nor the other way round.
    assert!(there.identify(&PeerInfo::local(), &binding, &said, &said).is_err());
    assert!(ann.keyring().check_server(&binding, Some(&proof)).is_err());
}

#[tokio::test]
async fn what_is_taken_back_is_refused_on_connections_that_are_open() {
    let scene = Scene::new().await;
    let ann = scene.granted("ann", Rights::all());
    let client = Client::new(scene.address.clone(), ann.transport());
    let key: KeyId = ann.keyring().capability().holder().id();
    let records = [
        ("/zhongkui/users/ann".to_owned(), "1"),
        (format!("/zhongkui/keys/{key}"), ""),
        ("/zhongkui/capabilities/0000000000000007".to_owned(), ""),
    ];
    for (path, content) in &records {
        assert!(call(&client, &METHODS[0]).await.is_ok(), "before {path}");
        scene.access.follow([(path.as_str(), content.as_bytes())]);
        denied(call(&client, &METHODS[0]).await, "revoked");
        scene.access.follow([]);
    }
}

#[tokio::test]
async fn new_files_are_taken_up_when_they_belong_together() {
    let scene = Scene::new().await;
    let ann = scene.granted("ann", Rights::all());
    let client = Client::new(scene.address.clone(), ann.transport());
    assert!(call(&client, &METHODS[0]).await.is_ok());
    let (authority, next) = (scene.keys.authority().unwrap(), SecretKey::generate().unwrap());
    let path = |kind: &str| scene.folder.path().join(format!("ann.{kind}"));
    keyring::replace_secret_key(&path("key"), &next).unwrap();
    assert!(!ann.keyring().refresh().unwrap(), "a key without its capability");
    let anew = granted(&authority, &next, "ann-2", Rights::all(), Timestamp::FOREVER);
    keyring::replace_capability(&path("cap"), &anew).unwrap();
    assert!(ann.keyring().refresh().unwrap());
    assert_eq!(&call(&client, &METHODS[0]).await.unwrap()[..], b"ann-2");
    assert!(!ann.keyring().refresh().unwrap(), "nothing new");
    // A new authority that the old one vouches for.
    let young = SecretKey::generate().unwrap();
    let record = zhongkui_access::revoked::write_authority(&young.public(), &authority);
    let name = format!("/zhongkui/authorities/{}", young.public().id());
    scene.access.follow([(name.as_str(), record.as_bytes())]);
    ann.follow([(name.as_str(), record.as_bytes())]);
    let by_young = granted(&young, &next, "ann-3", Rights::all(), Timestamp::FOREVER);
    keyring::replace_capability(&path("cap"), &by_young).unwrap();
    assert!(ann.keyring().refresh().unwrap());
    assert_eq!(&call(&client, &METHODS[0]).await.unwrap()[..], b"ann-3");
    let old = authority.public().id();
    let revoked = format!("/zhongkui/keys/{old}");
    scene.access.follow([(name.as_str(), record.as_bytes()), (revoked.as_str(), b"")]);
    // Whom a revoked key vouched for is vouched for no more: by then its public key is in the folders.
    denied(knock(&scene.address, ann.transport()).await, "");
}
