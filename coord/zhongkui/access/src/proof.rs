//! What the two sides of a connection show each other (`docs/connection.md`). Pure.

use bytes::Bytes;
use kuafu::Binding;
use zhongkui::crypto::{SIGNATURE_BYTES, Signature};
use zhongkui::{Capability, SecretKey};

const SERVER_DOMAIN: &[u8] = b"feitian server 1\0";
const CLIENT_DOMAIN: &[u8] = b"feitian client 1\0";

/// A capability, and a signature of its holder that is good on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    signature: Signature,
    capability: Bytes,
}

impl Shown {
    /// `None`: too short to be one.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let signature = Signature(*bytes.first_chunk::<SIGNATURE_BYTES>()?);
        Some(Self { signature, capability: bytes.slice(SIGNATURE_BYTES..) })
    }

    /// The capability's bytes, as they came.
    #[must_use]
    pub fn capability(&self) -> &Bytes {
        &self.capability
    }

    /// Whether the holder of this capability said who it is, as a server on this connection.
    #[must_use]
    pub fn introduces(&self, capability: &Capability, binding: &Binding) -> bool {
        capability.holder().signed(&server_message(binding, capability.bytes()), &self.signature)
    }

    /// Whether the holder of this capability proved it, as a client on this connection, to the server that introduced itself so.
    #[must_use]
    pub fn proves(&self, capability: &Capability, binding: &Binding, introduction: &[u8]) -> bool {
        let message = client_message(binding, introduction, capability.bytes());
        capability.holder().signed(&message, &self.signature)
    }
}

/// What a server says of itself.
#[must_use]
pub fn introduction(key: &SecretKey, capability: &Capability, binding: &Binding) -> Bytes {
    shown(key, capability, &server_message(binding, capability.bytes()))
}

/// What a client shows to the server that introduced itself so.
#[must_use]
pub fn proof(key: &SecretKey, capability: &Capability, binding: &Binding, introduction: &[u8]) -> Bytes {
    shown(key, capability, &client_message(binding, introduction, capability.bytes()))
}

fn shown(key: &SecretKey, capability: &Capability, message: &[u8]) -> Bytes {
    [&key.sign(message).0[..], capability.bytes()].concat().into()
}

fn server_message(binding: &Binding, capability: &[u8]) -> Vec<u8> {
    [SERVER_DOMAIN, &binding.client_nonce, &binding.server_nonce, capability].concat()
}

fn client_message(binding: &Binding, introduction: &[u8], capability: &[u8]) -> Vec<u8> {
    let length = (introduction.len() as u64).to_le_bytes();
    [CLIENT_DOMAIN, &binding.client_nonce, &binding.server_nonce, &length, introduction, capability].concat()
}
