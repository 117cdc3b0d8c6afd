//! TLS 1.3 as libp2p speaks it (`/tls/1.0.0`), with the cipher that the machine is fastest at.
//!
//! The stock upgrade lists `ChaCha20` first, so that two Rust nodes never use the AES instructions
//! nearly every server has; encryption is the largest part of what a byte costs. Here AES-GCM comes
//! first where both ends have those instructions. All else is as the libp2p TLS specification
//! demands, so that stock nodes connect in both directions.
//!
//! It must never accept a certificate that libp2p's own check refuses, never resume a session (the
//! certificate is who the remote is, and it is sent in full handshakes only), and never log keys,
//! whatever the environment asks for.

mod verifier;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::tls::certificate::{self, GenError, ParseError};
use libp2p::{PeerId, identity};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, CommonState, NoKeyLog, ServerConfig, SupportedCipherSuite};
use thiserror::Error;

use self::verifier::Verifier;

/// The name under which libp2p negotiates this upgrade.
pub(super) const PROTOCOL: &str = "/tls/1.0.0";
/// What both ends must call the protocol within TLS.
const ALPN: &[u8] = b"libp2p";

/// Why a connection could not be secured by TLS.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    /// This node's own certificate could not be made.
    #[error("this node's TLS certificate cannot be made: {0}")]
    Certificate(#[from] GenError),
    /// This node's settings are not accepted by the TLS library.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// The handshake did not come to an end.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    /// The remote's certificate does not say who it is.
    #[error("the remote's TLS certificate is not valid: {0}")]
    Remote(#[from] ParseError),
    /// The remote presented no certificate, or several.
    #[error("the remote presented {0} TLS certificates instead of one")]
    Certificates(usize),
}

/// The upgrade: this node's certificate, and how to check the remote's.
#[derive(Clone)]
pub(super) struct Config {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Config").finish_non_exhaustive()
    }
}

impl Config {
    /// With a fresh certificate, signed by the node's key. Its own key lives in memory only.
    pub(super) fn new(keypair: &identity::Keypair) -> Result<Self, TlsError> {
        let (certificate, key) = certificate::generate(keypair)?;
        let provider = provider(has_aes_instructions());
        let key = provider.key_provider.load_private_key(key)?;
        Self::with_certificates(provider, CertifiedKey::new(vec![certificate], key))
    }

    /// With the certificates and ciphers given: neither is checked.
    pub(super) fn with_certificates(provider: CryptoProvider, own: CertifiedKey) -> Result<Self, TlsError> {
        let prefers_own_order = provider.cipher_suites.first() == Some(&cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
        let (provider, own) = (Arc::new(provider), Arc::new(SingleCertAndKey::from(own)));

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier))
            .with_client_cert_resolver(Arc::clone(&own) as _);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.key_log = Arc::new(NoKeyLog);

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Verifier))
            .with_cert_resolver(own);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.key_log = Arc::new(NoKeyLog);
        // The weaker end decides: without AES instructions we insist on our order, with them the
        // dialler's stands.
        server.ignore_client_order = prefers_own_order;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// TLS 1.3 ciphers, the fastest of this machine first.
pub(super) fn provider(aes_instructions: bool) -> CryptoProvider {
    let aes = [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];
    let chacha = [cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    let cipher_suites: Vec<SupportedCipherSuite> =
        if aes_instructions { [&aes[..], &chacha].concat() } else { [&chacha[..], &aes].concat() };
    CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() }
}

/// Whether AES-GCM (its cipher and its checksum) runs in hardware here.
fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, TlsStream<C>);
    type Error = TlsError;
    type Future = BoxFuture<'static, Result<Self::Output, TlsError>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let stream = TlsAcceptor::from(self.server).accept(socket).await?;
            Ok((remote(stream.get_ref().1)?, TlsStream::from(stream)))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, TlsStream<C>);
    type Error = TlsError;
    type Future = BoxFuture<'static, Result<Self::Output, TlsError>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            // libp2p names nobody: an address makes rustls leave the server's name out.
            let nobody = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
            let stream = TlsConnector::from(self.client).connect(nobody, socket).await?;
            Ok((remote(stream.get_ref().1)?, TlsStream::from(stream)))
        }
        .boxed()
    }
}

/// Who the remote has proved to be. That it is who was dialled, the swarm checks.
fn remote(state: &CommonState) -> Result<PeerId, TlsError> {
    match state.peer_certificates() {
        Some([certificate]) => Ok(certificate::parse(certificate)?.peer_id()),
        others => Err(TlsError::Certificates(others.map_or(0, <[_]>::len))),
    }
}
