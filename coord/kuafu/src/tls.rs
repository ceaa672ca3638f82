//! TLS 1.3 under connections over TCP, for secrecy alone (`docs/tls.md`).
//!
//! Certificates say nothing here: a server makes a new one each time it listens, and a client takes any. Who is at the other
//! end is proved inside, by the [`Authorizer`](crate::Authorizer) and the [`Credentials`](crate::Credentials), which sign
//! the [`channel`] of their own TLS session: whoever ends the client's session and begins another one to the server has two of them.

mod mismatch;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, Connection, DigitallySignedStruct, ServerConfig, SignatureScheme};

pub(crate) use self::mismatch::{
    FIRST_BYTE, Mismatch, PLAIN_CLIENT, PLAIN_SERVER, REFUSED_PLAIN, REFUSED_TLS, is_tls,
};
use crate::auth::CHANNEL_BYTES;

/// A server gives a client this long for the handshake. A client's own bound is that for the whole connect.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Handshakes under way at once at one listener; a connection more is closed. Each costs the server a signature and a key exchange.
pub(crate) const HANDSHAKES_AT_ONCE_MAX: usize = 1024;

/// RFC 9266.
const CHANNEL_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// What frames and gRPC name themselves in the handshake, so that neither is taken for the other.
pub(crate) const FRAMES: &[u8] = b"feitian-kuafu";
pub(crate) const GRPC: &[u8] = b"h2";

/// Why a server cannot offer TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("make a key and a certificate for TLS: does this machine give random bytes?")]
    Certificate(#[source] rcgen::Error),
    #[error("offer TLS with a certificate just made")]
    Config(#[source] rustls::Error),
}

/// What a server offers: TLS 1.3 with a key that was made for this, and is nowhere else.
///
/// # Errors
/// See [`TlsError`].
pub(crate) fn server(protocol: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["feitian".to_owned()]).map_err(TlsError::Certificate)?;
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Config)?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .map_err(TlsError::Config)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    // Nobody resumes: connections live long, and a ticket would be one more thing to keep secret.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// How all clients of this process begin TLS.
pub(crate) fn client() -> Arc<ClientConfig> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let made = CLIENT.get_or_init(|| {
        let provider = provider();
        let verifier = AnyCertificate(provider.signature_verification_algorithms);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![FRAMES.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Arc::new(config)
    });
    Arc::clone(made)
}

/// For the type only: the name is neither sent nor looked at.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("feitian").expect("a plain word is a DNS name")
}

/// What both ends of one TLS session know, and nobody else: the binding `tls-exporter` of RFC 9266.
///
/// # Errors
/// The handshake is not over.
pub(crate) fn channel(session: &Connection) -> Result<[u8; CHANNEL_BYTES], rustls::Error> {
    session.export_keying_material([0; CHANNEL_BYTES], CHANNEL_LABEL, Some(b""))
}

/// AES-128 first: 128 bits are enough, and it has fewer rounds than AES-256.
fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

/// Takes every certificate, but lets its key be proved: the session is then with whoever has that key.
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl fmt::Debug for AnyCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyCertificate")
    }
}

impl ServerCertVerifier for AnyCertificate {
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
        Err(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
