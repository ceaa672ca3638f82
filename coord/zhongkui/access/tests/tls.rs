//! Who stands between a client and a server and ends TLS towards both is refused: both sign their own session. He has a certificate
//! like any server, as none says anything, and passes every byte on, so all the rest of the handshake is true.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;
use std::time::Duration;

use kuafu::{
    Address, Binding, Bytes, CallOptions, CancellationToken, Client, ClientConfig, Code, Credentials,
    HandlerFuture, Method, PayloadCheck, RawRequest, RawResponse, Server, Service, Status,
};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zhongkui_access::{Access, Audit, Keyring};

static METHODS: [Method; 1] = [Method::new("test.v1.Door", "Knock", true)];
const SECRET: &[u8] = b"what is behind the door";

struct Door;

impl Service for Door {
    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn call(&self, _index: usize, _: RawRequest) -> HandlerFuture {
        let payload = Bytes::from_static(SECRET);
        Box::pin(async {
            Ok(RawResponse { message: Bytes::new(), payload, payload_check: PayloadCheck::Crc })
        })
    }
}

/// A server that asks who comes, by TLS.
async fn serve(access: &Access) -> Address {
    let server = Server::builder().authorizer(access.guard().build()).service(Door).build();
    let bound = server.bind(&Address::Tcp("127.0.0.1:0".to_owned())).await.unwrap();
    let address = bound.local_address().clone();
    tokio::spawn(bound.serve(CancellationToken::new()));
    address
}

async fn knock(address: &Address, transport: ClientConfig) -> Result<Bytes, Status> {
    let client = Client::new(address.clone(), transport);
    let options = CallOptions::within(Duration::from_secs(20));
    client.call::<(), ()>(&METHODS[0], &(), Bytes::new(), &options).await.map(|answer| answer.payload)
}

/// What he reads.
type Read = Arc<Mutex<Vec<u8>>>;

/// Ends TLS towards whoever comes, and begins it towards the server.
async fn man_in_the_middle(server: &Address) -> (Address, Read) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let Address::Tcp(server) = server.clone() else { panic!("not TCP") };
    let read = Read::default();
    tokio::spawn({
        let read = Arc::clone(&read);
        async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, read) = (server.clone(), Arc::clone(&read));
                tokio::spawn(async move {
                    let towards_client =
                        TlsAcceptor::from(Arc::new(accepting())).accept(client).await.unwrap();
                    let server = TcpStream::connect(server).await.unwrap();
                    let name = ServerName::try_from("feitian").unwrap();
                    let towards_server =
                        TlsConnector::from(Arc::new(connecting())).connect(name, server).await.unwrap();
                    let (from_client, to_client) = tokio::io::split(towards_client);
                    let (from_server, to_server) = tokio::io::split(towards_server);
                    tokio::join!(
                        pass(from_client, to_server, Arc::clone(&read)),
                        pass(from_server, to_client, read)
                    );
                });
            }
        }
    });
    (address, read)
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, read: Read) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        read.lock().extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

const PROTOCOL: &[u8] = b"feitian-kuafu";

fn accepting() -> rustls::ServerConfig {
    let made = rcgen::generate_simple_self_signed(["feitian".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config
}

fn connecting() -> rustls::ClientConfig {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config
}

/// He does not care whom he speaks to.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn access() -> Access {
    Access::new(Keyring::ephemeral(), Audit::none()).over_tls(true)
}

fn contains(read: &Read, bytes: &[u8]) -> bool {
    read.lock().windows(bytes.len()).any(|window| window == bytes)
}

/// The client hears it first: the introduction it gets is signed for another session, and it shows nothing.
#[tokio::test]
async fn the_client_refuses_who_ends_tls_in_between() {
    let access = access();
    let server = serve(&access).await;
    assert_eq!(knock(&server, access.transport()).await.unwrap(), SECRET);
    let (between, read) = man_in_the_middle(&server).await;
    let refused = knock(&between, access.transport()).await.unwrap_err();
    assert_eq!(refused.code, Code::PermissionDenied, "{refused}");
    assert!(refused.message.contains("somebody who is in between ends the TLS"), "{refused}");
    assert!(contains(&read, b"KUAF"), "he read what came so far, the two hellos");
    assert!(!contains(&read, SECRET));
}

/// A client that does not look whom it speaks to.
#[derive(Debug)]
struct Careless(Arc<Keyring>);

impl Credentials for Careless {
    fn check_server(&self, _: &Binding, _: Option<&Bytes>) -> Result<(), Status> {
        Ok(())
    }

    fn generation(&self) -> u64 {
        1
    }

    fn present(&self, binding: &Binding, introduction: &Bytes) -> Bytes {
        self.0.present(binding, introduction)
    }
}

/// The server does not rely on that: the proof it gets is signed for another session.
#[tokio::test]
async fn the_server_refuses_him_too() {
    let access = access();
    let server = serve(&access).await;
    let careless = || {
        let credentials: Arc<dyn Credentials> = Arc::new(Careless(Arc::clone(access.keyring())));
        ClientConfig { credentials: Some(credentials), ..access.transport() }
    };
    assert_eq!(knock(&server, careless()).await.unwrap(), SECRET);
    let (between, read) = man_in_the_middle(&server).await;
    let refused = knock(&between, careless()).await.unwrap_err();
    assert_eq!(refused.code, Code::PermissionDenied, "{refused}");
    assert!(
        refused.message.contains("did not prove to have its holder's key on this connection"),
        "{refused}"
    );
    assert!(!contains(&read, SECRET));
}
