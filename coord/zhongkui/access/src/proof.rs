//! What the two sides of a connection show each other (`docs/connection.md`). Pure.

use bytes::Bytes;
use kuafu::Binding;
use zhongkui::crypto::{SIGNATURE_BYTES, Signature};
use zhongkui::{Capability, SecretKey};

const SERVER_DOMAIN: &[u8] = b"feitian server 1\0";
const CLIENT_DOMAIN: &[u8] = b"feitian client 1\0";
/// The same inside TLS: a signature without the session's binding is no signature with one, whatever bytes follow.
const SERVER_TLS_DOMAIN: &[u8] = b"feitian server tls 1\0";
const CLIENT_TLS_DOMAIN: &[u8] = b"feitian client tls 1\0";

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
    [&connection(SERVER_DOMAIN, SERVER_TLS_DOMAIN, binding)[..], capability].concat()
}

fn client_message(binding: &Binding, introduction: &[u8], capability: &[u8]) -> Vec<u8> {
    let length = (introduction.len() as u64).to_le_bytes();
    let connection = connection(CLIENT_DOMAIN, CLIENT_TLS_DOMAIN, binding);
    [&connection[..], &length, introduction, capability].concat()
}

/// What there is on this connection and on no other.
fn connection(plain: &[u8], tls: &[u8], binding: &Binding) -> Vec<u8> {
    let Binding { client_nonce, server_nonce, channel } = binding;
    match channel {
        None => [plain, client_nonce, server_nonce].concat(),
        Some(channel) => [tls, client_nonce, server_nonce, channel].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster that does not use TLS understands what its older and newer processes sign.
    #[test]
    fn without_tls_the_signed_bytes_are_as_they_always_were() {
        let binding = Binding { client_nonce: [1; 32], server_nonce: [2; 32], channel: None };
        let nonces = [[1; 32], [2; 32]].concat();
        let expected = [b"feitian server 1\0", &nonces[..], b"cap"].concat();
        assert_eq!(server_message(&binding, b"cap"), expected);
        let expected =
            [b"feitian client 1\0", &nonces[..], &[5, 0, 0, 0, 0, 0, 0, 0], b"intro", b"cap"].concat();
        assert_eq!(client_message(&binding, b"intro", b"cap"), expected);
    }

    #[test]
    fn inside_tls_both_sides_sign_the_session() {
        let plain = Binding { client_nonce: [1; 32], server_nonce: [2; 32], channel: None };
        let nonces = [[1; 32], [2; 32]].concat();
        let here = Binding { channel: Some([3; 32]), ..plain };
        let expected = [b"feitian server tls 1\0", &nonces[..], &[3; 32], b"cap"].concat();
        assert_eq!(server_message(&here, b"cap"), expected);
        for other in [plain, Binding { channel: Some([4; 32]), ..plain }] {
            assert_ne!(client_message(&here, b"i", b"c"), client_message(&other, b"i", b"c"));
        }
    }
}
