//! Which encryption a TCP connection gets: TLS, or Noise with those that speak nothing else.
//!
//! libp2p negotiates it by name before a byte is encrypted; both ways prove the remote's peer id, so
//! that who interferes with the negotiation gains a slower connection and no more.

use futures::future::{BoxFuture, Either, FutureExt};
use futures::{AsyncRead, AsyncWrite};
use futures_rustls::TlsStream;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{PeerId, identity, noise};
use thiserror::Error;

use super::tls;

/// The name under which libp2p negotiates Noise.
const NOISE_PROTOCOL: &str = "/noise";

/// Why a connection could not be secured.
#[derive(Debug, Error)]
pub(super) enum SecurityError {
    /// TLS was agreed upon and failed.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Noise was agreed upon and failed.
    #[error("the Noise handshake failed: {0}")]
    Noise(#[from] noise::Error),
}

/// The upgrade from a bare connection to one whose remote is known.
#[derive(Clone)]
pub(super) struct Config {
    tls: tls::Config,
    noise: noise::Config,
}

impl Config {
    pub(super) fn new(keypair: &identity::Keypair) -> Result<Self, SecurityError> {
        Ok(Self { tls: tls::Config::new(keypair)?, noise: noise::Config::new(keypair)? })
    }
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = [Self::Info; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [tls::PROTOCOL, NOISE_PROTOCOL]
    }
}

/// A secured connection of either kind.
type Output<C> = (PeerId, Either<TlsStream<C>, noise::Output<C>>);

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = Output<C>;
    type Error = SecurityError;
    type Future = BoxFuture<'static, Result<Self::Output, SecurityError>>;

    fn upgrade_inbound(self, socket: C, name: Self::Info) -> Self::Future {
        async move {
            if name == tls::PROTOCOL {
                let (peer, stream) = self.tls.upgrade_inbound(socket, name).await?;
                return Ok((peer, Either::Left(stream)));
            }
            let (peer, stream) = self.noise.upgrade_inbound(socket, name).await?;
            Ok((peer, Either::Right(stream)))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Output<C>;
    type Error = SecurityError;
    type Future = BoxFuture<'static, Result<Self::Output, SecurityError>>;

    fn upgrade_outbound(self, socket: C, name: Self::Info) -> Self::Future {
        async move {
            if name == tls::PROTOCOL {
                let (peer, stream) = self.tls.upgrade_outbound(socket, name).await?;
                return Ok((peer, Either::Left(stream)));
            }
            let (peer, stream) = self.noise.upgrade_outbound(socket, name).await?;
            Ok((peer, Either::Right(stream)))
        }
        .boxed()
    }
}
