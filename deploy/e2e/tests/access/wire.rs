//! Frames of one's own making: calls without the client's good manners, credentials that are not true, and a handshake that is recorded and
//! played again.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use kuafu::frame::{HEADER_LEN, Header, Kind};
use kuafu::{Address, Binding, Bytes, CallOptions, Client, ClientConfig, Code, Credentials, Method, Status};
use master_api::model::{Mutation, Query};
use master_api::proto::{self, NamespaceClient};
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::Handle;
use zhongkui::SecretKey;

/// Longer than any server needs for an answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

pub(crate) fn options() -> CallOptions {
    CallOptions::within(ANSWER)
}

/// A connection to one server.
#[derive(Clone, Debug)]
pub(crate) struct Wire(pub(crate) Client);

impl Wire {
    pub(crate) fn new(runtime: &Handle, at: &str, credentials: Option<Arc<dyn Credentials>>) -> Self {
        let config = ClientConfig { credentials, ..ClientConfig::default() };
        let address: Address = at.parse().unwrap();
        Self(Client::with_runtime(address, config, runtime.clone()))
    }

    /// A call; what is answered does not matter.
    pub(crate) async fn call(&self, method: &'static Method, message: impl Message) -> Result<(), Status> {
        self.0.call::<_, ()>(method, &message, Bytes::new(), &options()).await.map(drop)
    }

    pub(crate) async fn call_with(
        &self,
        method: &'static Method,
        message: impl Message,
        payload: Bytes,
    ) -> Result<(), Status> {
        self.0.call::<_, ()>(method, &message, payload, &options().payload_covered()).await.map(drop)
    }
}

pub(crate) fn method(table: &'static [Method], name: &str) -> &'static Method {
    table.iter().find(|method| method.name == name).unwrap()
}

/// A session with a master, used by hand.
#[derive(Debug)]
pub(crate) struct Namespace {
    client: NamespaceClient,
    pub(crate) session: u64,
    sequence: AtomicU64,
}

impl Namespace {
    pub(crate) async fn open(wire: &Wire) -> Self {
        let client = NamespaceClient::new(wire.0.clone());
        let opened = client.open_session(&proto::OpenSessionRequest::default(), &options()).await.unwrap();
        Self { client, session: opened.message.session, sequence: AtomicU64::new(0) }
    }

    /// The same connection under another session; 0: none.
    pub(crate) fn under(&self, session: u64) -> Self {
        Self { client: self.client.clone(), session, sequence: AtomicU64::new(0) }
    }

    pub(crate) async fn query(&self, query: Query) -> Result<proto::QueryReply, Status> {
        let request = proto::QueryRequest { session: self.session, op: Some(query.into()) };
        Ok(self.client.query(&request, &options()).await?.message)
    }

    pub(crate) async fn mutate(&self, mutation: Mutation) -> Result<proto::MutateReply, Status> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let request = proto::MutateRequest {
            session: self.session,
            sequence,
            acknowledged_below: sequence,
            op: Some(mutation.into()),
        };
        Ok(self.client.mutate(&request, &options()).await?.message)
    }

    /// A token for one file.
    pub(crate) async fn token(&self, wanted: proto::TokenWanted) -> Result<Given, Status> {
        let request = proto::TokensRequest { session: self.session, wanted: vec![wanted] };
        let proto::TokensReply { given, signer } = self.client.tokens(&request, &options()).await?.message;
        let proto::TokenGiven { errno, token } = given.into_iter().next().unwrap();
        Ok(Given { errno, token, signer })
    }
}

/// What a master gave who was asked for a token.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) errno: u32,
    pub(crate) token: Bytes,
    pub(crate) signer: Bytes,
}

/// Whatever somebody wants to show, signed with whatever key he has (`coord/zhongkui/docs/connection.md`).
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) capability: Bytes,
}

impl Credentials for Shown {
    fn check_server(&self, _: &Binding, _: Option<&Bytes>) -> Result<(), Status> {
        Ok(())
    }

    fn generation(&self) -> u64 {
        1
    }

    fn present(&self, binding: &Binding, introduction: &Bytes) -> Bytes {
        let length = (introduction.len() as u64).to_le_bytes();
        let message: Vec<u8> = [
            &b"feitian client 1\0"[..],
            &binding.client_nonce,
            &binding.server_nonce,
            &length,
            introduction,
            &self.capability,
        ]
        .concat();
        [&self.key.sign(&message).0[..], &self.capability].concat().into()
    }
}

/// Bytes that are shown as a proof, whatever they are.
#[derive(Debug)]
pub(crate) struct Verbatim(pub(crate) Bytes);

impl Credentials for Verbatim {
    fn check_server(&self, _: &Binding, _: Option<&Bytes>) -> Result<(), Status> {
        Ok(())
    }

    fn generation(&self) -> u64 {
        1
    }

    fn present(&self, _: &Binding, _: &Bytes) -> Bytes {
        self.0.clone()
    }
}

/// Stands between a client and a server, and remembers what the client says on the one connection it takes.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) address: String,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    pub(crate) fn before(server: &str) -> Self {
        let server = server.strip_prefix("tcp://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let record = Arc::clone(&said);
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut upstream = TcpStream::connect(server).unwrap();
            let (mut answers, mut back) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            let mut buffer = vec![0; 65_536];
            while let Ok(n @ 1..) = client.read(&mut buffer) {
                record.lock().extend_from_slice(&buffer[..n]);
                if upstream.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = upstream.shutdown(Shutdown::Both);
        });
        Self { address, said }
    }

    /// What the client said up to now.
    pub(crate) fn said(&self) -> Vec<u8> {
        self.said.lock().clone()
    }
}

/// A frame as it came: its header and its message.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    /// All whole frames.
    pub(crate) fn all_in(mut bytes: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(head).unwrap();
            let len = HEADER_LEN + header.message_len as usize + header.payload_len as usize;
            let Some(whole) = bytes.get(..len) else { break };
            frames.push(Self { header, bytes: whole.to_vec() });
            bytes = &bytes[len..];
        }
        frames
    }
}

/// Says all of this to a server on a new connection, and gives what each request in it was answered: `Ok` or the code of an error.
pub(crate) fn play(server: &str, said: &[u8]) -> Vec<Code> {
    let requests = Frame::all_in(said).iter().filter(|frame| frame.header.kind == Kind::Request).count();
    let mut stream = TcpStream::connect(server.strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    stream.write_all(said).unwrap();
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        let answers: Vec<Code> = Frame::all_in(&heard)
            .iter()
            .filter_map(|frame| match frame.header.kind {
                Kind::Response => Some(Code::Ok),
                Kind::Error => Some(Code::from_wire(frame.header.method)),
                _ => None,
            })
            .collect();
        if answers.len() >= requests {
            return answers;
        }
        match stream.read(&mut buffer).unwrap() {
            0 => return answers,
            n => heard.extend_from_slice(&buffer[..n]),
        }
    }
}
