//! Who is let in, for every service alike. Kuafu asks it on each connection and for each request.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kuafu::{Authorizer, Binding, Method, PeerInfo, Principal, Status};
use tonic::metadata::MetadataMap;
use zhongkui::crypto::Signature;
use zhongkui::{Capability, Rights, Target};

use crate::access::Access;
use crate::audit::Event;
use crate::holder::{self, Holder};
use crate::proof::{self, Shown};

/// A gRPC proof is at most so far from this clock.
const GRPC_CLOCK_MAX_S: u32 = 60;
const GRPC_DOMAIN: &[u8] = b"feitian grpc 1\0";

/// What a method asks for before its handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// This right on the method itself.
    Right(Rights),
    /// A capability that is good now. The handler asks for what the request is about.
    Valid,
}

/// Says what methods ask for. What is not said: *administer* on the method, so a service that is added is closed.
#[derive(Debug)]
pub struct GuardBuilder {
    access: Access,
    asks: HashMap<u32, Asks>,
}

impl GuardBuilder {
    pub(crate) fn new(access: Access) -> Self {
        Self { access, asks: HashMap::new() }
    }

    /// A service whose handlers ask for what a request is about, by [`Holder::check`].
    #[must_use]
    pub fn asks_itself(mut self, methods: &'static [Method]) -> Self {
        self.asks.extend(methods.iter().map(|method| (method.id, Asks::Valid)));
        self
    }

    /// One method of a service that does.
    ///
    /// # Panics
    /// The service has no such method.
    #[must_use]
    pub fn asks_itself_in(mut self, methods: &'static [Method], name: &str) -> Self {
        self.asks.insert(id_of(methods, name), Asks::Valid);
        self
    }

    /// A method that only shows something: *read* on it is enough.
    ///
    /// # Panics
    /// The service has no such method.
    #[must_use]
    pub fn shows(mut self, methods: &'static [Method], name: &str) -> Self {
        self.asks.insert(id_of(methods, name), Asks::Right(Rights::READ));
        self
    }

    #[must_use]
    pub fn build(self) -> Arc<Guard> {
        let Self { access, asks } = self;
        Arc::new(Guard { access, asks })
    }
}

fn id_of(methods: &[Method], name: &str) -> u32 {
    methods.iter().find(|method| method.name == name).expect("the service has this method").id
}

/// Asks everybody for a capability.
pub struct Guard {
    access: Access,
    asks: HashMap<u32, Asks>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Guard {
    /// Somebody who proved to hold a capability that is good now.
    fn admit(&self, peer: &PeerInfo, capability: Arc<Capability>) -> Result<Principal, Status> {
        let access = &self.access;
        let holder =
            Holder::new(capability, peer.clone(), Arc::clone(access.revoked()), access.audit().clone());
        holder.check_valid()?;
        access.audit().note(Event::admitted(peer, holder.capability()));
        Ok(Principal::new(holder.name().to_owned(), Arc::new(holder)))
    }

    fn refuse(&self, peer: &PeerInfo, capability: Option<&Capability>, what: &str, why: &str) -> Status {
        self.access.audit().note(Event::refused(peer, capability, what, &why));
        Status::permission_denied(format!("the capability is refused: {why}"))
    }

    fn asks(&self, holder: &Holder, id: u32, service: &str, name: &str) -> Result<(), Status> {
        match self.asks.get(&id).copied().unwrap_or(Asks::Right(Rights::ADMINISTER)) {
            Asks::Valid => holder.check_valid(),
            Asks::Right(right) => holder.check(right, &Target::Method(&format!("{service}/{name}"))),
        }
    }
}

impl Authorizer for Guard {
    fn tls(&self) -> bool {
        self.access.tls()
    }

    fn introduce(&self, binding: &Binding) -> Result<Option<Bytes>, Status> {
        if !crate::CHECKS {
            return Ok(None);
        }
        let (key, capability) = self.access.keyring().pair();
        Ok(Some(proof::introduction(&key, &capability, binding)))
    }

    fn identify(
        &self,
        peer: &PeerInfo,
        binding: &Binding,
        introduction: &Bytes,
        shown: &Bytes,
    ) -> Result<Principal, Status> {
        let what = "a connection";
        let Some(shown) = Shown::decode(shown) else {
            return Err(self.refuse(peer, None, what, "it is too short to be one"));
        };
        let capability =
            self.access.prove(shown.capability()).map_err(|why| self.refuse(peer, None, what, &why))?;
        if !shown.proves(&capability, binding, introduction) {
            let why = "whoever shows it did not prove to have its holder's key on this connection";
            return Err(self.refuse(peer, Some(&capability), what, why));
        }
        self.admit(peer, capability)
    }

    fn request(&self, peer: &PeerInfo, principal: Option<&Principal>, method: &Method) -> Result<(), Status> {
        if !crate::CHECKS {
            return Ok(());
        }
        match principal.and_then(Principal::downcast_ref::<Holder>) {
            Some(holder) => self.asks(holder, method.id, method.service, method.name),
            None => {
                let what = format!("{}/{}", method.service, method.name);
                self.access.audit().note(Event::refused(peer, None, &what, &"no capability was presented"));
                Err(holder::nobody())
            }
        }
    }

    fn grpc_request(
        &self,
        peer: &PeerInfo,
        path: &str,
        metadata: &MetadataMap,
    ) -> Result<Option<Principal>, Status> {
        if !crate::CHECKS {
            return Ok(None);
        }
        let refused = |why: &str| self.refuse(peer, None, path, why);
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok());
        let bytes = |key: &str| text(key).and_then(|text| STANDARD.decode(text.trim()).ok());
        let (Some(capability), Some(time), Some(signature)) = (
            bytes("feitian-capability"),
            text("feitian-time").and_then(|time| time.trim().parse::<u32>().ok()),
            bytes("feitian-proof").and_then(|proof| proof.try_into().ok()),
        ) else {
            return Err(refused(&format!(
                "a call by gRPC says feitian-capability, feitian-time and feitian-proof ('zhongkui headers {path}' makes them)"
            )));
        };
        let capability = self.access.prove(&capability).map_err(|why| refused(&why))?;
        let here = holder::now().0;
        if here.abs_diff(time) > GRPC_CLOCK_MAX_S {
            return Err(refused(&format!(
                "its time is {time}, and here it is {here}: make new headers, or set the clocks"
            )));
        }
        if !capability.holder().signed(&grpc_message(time, path), &Signature(signature)) {
            return Err(refused("its proof is not of the holder, or for something else"));
        }
        let principal = self.admit(peer, capability)?;
        let holder = Holder::from_principal(Some(&principal))?;
        let (service, name) = path.split_once('/').unwrap_or((path, ""));
        self.asks(&holder, Method::id_of(service, name), service, name)?;
        Ok(Some(principal))
    }
}

fn grpc_message(time: u32, path: &str) -> Vec<u8> {
    [GRPC_DOMAIN, &u64::from(time).to_le_bytes(), path.as_bytes()].concat()
}

/// What a call of a method by gRPC says, in the order of `docs/connection.md`: keys and values.
#[must_use]
pub fn grpc_headers(access: &Access, path: &str) -> [(&'static str, String); 3] {
    let (key, capability) = access.keyring().pair();
    let time = holder::now().0;
    let signature = key.sign(&grpc_message(time, path));
    [
        ("feitian-capability", STANDARD.encode(capability.bytes())),
        ("feitian-time", time.to_string()),
        ("feitian-proof", STANDARD.encode(signature.0)),
    ]
}

/// A message as a call of a method by gRPC, with what it has to say.
#[must_use]
pub fn grpc_request<T>(access: &Access, path: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    for (key, value) in grpc_headers(access, path) {
        let value = value.parse().expect("base64 and digits are ASCII");
        request.metadata_mut().insert(key, value);
    }
    request
}

/// Stands for everybody where nobody is asked.
#[cfg(feature = "unchecked-for-measurement")]
pub(crate) fn anybody() -> Arc<Holder> {
    static ANYBODY: std::sync::OnceLock<Arc<Holder>> = std::sync::OnceLock::new();
    let made = ANYBODY.get_or_init(|| {
        let access = Access::process();
        Arc::new(Holder::new(
            access.keyring().capability(),
            PeerInfo::local(),
            Arc::clone(access.revoked()),
            access.audit().clone(),
        ))
    });
    Arc::clone(made)
}
