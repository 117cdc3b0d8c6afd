//! TLS against itself, against stock libp2p, and against certificates that lie.

use std::fmt::Display;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::{Keypair, PublicKey};
use libp2p::{PeerId, tls as stock};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, HandshakeKind};
use tokio::io::{DuplexStream, duplex};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::harness::within;
use crate::swarm::tls::{Config, PROTOCOL, provider};

type Socket = Compat<DuplexStream>;
type Verdict = Result<PeerId, String>;

fn sockets() -> (Socket, Socket) {
    let (one, other) = duplex(64 * 1024);
    (one.compat(), other.compat())
}

/// Who the remote is, once a message went each way: a dialler learns only then that it was refused.
async fn converse<S, E>(upgrade: impl Future<Output = Result<(PeerId, S), E>>) -> Verdict
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Display,
{
    let (peer, mut stream) = upgrade.await.map_err(|error| error.to_string())?;
    let mut message = *b"ping";
    stream.write_all(&message).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    stream.read_exact(&mut message).await.map_err(|error| error.to_string())?;
    assert_eq!(&message, b"ping");
    Ok(peer)
}

/// What the dialler and the listener think of each other.
async fn meet<D, L, S, T>(dialler: D, listener: L) -> (Verdict, Verdict)
where
    D: OutboundConnectionUpgrade<Socket, Info = &'static str, Output = (PeerId, S)>,
    L: InboundConnectionUpgrade<Socket, Info = &'static str, Output = (PeerId, T)>,
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
    D::Error: Display,
    L::Error: Display,
{
    let (one, other) = sockets();
    let dialler = converse(dialler.upgrade_outbound(one, PROTOCOL));
    let listener = converse(listener.upgrade_inbound(other, PROTOCOL));
    within("a handshake", async { futures::join!(dialler, listener) }).await
}

fn ours(keypair: &Keypair) -> Config {
    Config::new(keypair).expect("TLS can be set up")
}

fn theirs(keypair: &Keypair) -> stock::Config {
    stock::Config::new(keypair).expect("TLS can be set up")
}

/// A node with a certificate that the test wrote.
fn with_certificates(aes_instructions: bool, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Config {
    let provider = provider(aes_instructions);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider.key_provider.load_private_key(key).expect("a P-256 key");
    Config::with_certificates(provider, CertifiedKey::new(chain, key)).expect("TLS can be set up")
}

fn certificate_key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("randomness")
}

/// One element of DER, short as all here are.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 128).expect("a short element");
    [&[tag, length], content].concat()
}

/// libp2p's extension: whose certificate it claims to be, and a signature for a certificate's key.
fn extension(claimed: &PublicKey, signer: &Keypair, key: &KeyPair) -> CustomExtension {
    let message = [b"libp2p-tls-handshake:".as_slice(), &key.public_key_der()].concat();
    let signature = signer.sign(&message).expect("Ed25519 signs anything");
    let parts = [element(4, &claimed.encode_protobuf()), element(4, &signature)].concat();
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], element(0x30, &parts));
    extension.set_criticality(true);
    extension
}

fn params(extensions: Vec<CustomExtension>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = extensions;
    params
}

/// What a node with these keys presents if it is honest.
fn honest(keypair: &Keypair, key: &KeyPair) -> CertificateParams {
    params(vec![extension(&keypair.public(), keypair, key)])
}

fn signed(params: CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
    params.self_signed(key).expect("it can be signed").into()
}

/// Dials ours and is dialled by ours; then the same with a stock node, which must judge alike.
async fn is_refused(what: &str, hostile: Config) {
    let keypair = Keypair::generate_ed25519();
    let verdicts = [
        ("ours listens", meet(hostile.clone(), ours(&keypair)).await.1),
        ("ours dials", meet(ours(&keypair), hostile.clone()).await.0),
        ("stock listens", meet(hostile.clone(), theirs(&keypair)).await.1),
        ("stock dials", meet(theirs(&keypair), hostile).await.0),
    ];
    for (role, verdict) in verdicts {
        assert!(verdict.is_err(), "{what}: {role}: {verdict:?}");
    }
}

#[tokio::test]
async fn two_of_ours_know_each_other() {
    let (one, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (listener, dialler) = meet(ours(&one), ours(&other)).await;
    assert_eq!((dialler, listener), (Ok(one.public().to_peer_id()), Ok(other.public().to_peer_id())));
}

#[tokio::test]
async fn a_stock_node_dials_ours() {
    let (stock, own) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (listener, dialler) = meet(theirs(&stock), ours(&own)).await;
    assert_eq!((dialler, listener), (Ok(stock.public().to_peer_id()), Ok(own.public().to_peer_id())));
}

#[tokio::test]
async fn ours_dials_a_stock_node() {
    let (stock, own) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (listener, dialler) = meet(ours(&own), theirs(&stock)).await;
    assert_eq!((dialler, listener), (Ok(own.public().to_peer_id()), Ok(stock.public().to_peer_id())));
}

/// The counterpart of all below: what they change is what gets them refused.
#[tokio::test]
async fn an_honest_certificate_written_here_is_accepted() {
    let (keypair, key, own) = (Keypair::generate_ed25519(), certificate_key(), Keypair::generate_ed25519());
    let written = with_certificates(true, vec![signed(honest(&keypair, &key), &key)], &key);
    let peer = keypair.public().to_peer_id();
    assert_eq!(meet(written.clone(), ours(&own)).await.1, Ok(peer));
    assert_eq!(meet(ours(&own), written).await.0, Ok(peer));
}

#[tokio::test]
async fn an_identity_signed_by_another_key_is_refused() {
    let (victim, liar, key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519(), certificate_key());
    let forged = params(vec![extension(&victim.public(), &liar, &key)]);
    is_refused("forged", with_certificates(true, vec![signed(forged, &key)], &key)).await;
}

#[tokio::test]
async fn an_identity_copied_from_another_certificate_is_refused() {
    let (victim, key) = (Keypair::generate_ed25519(), certificate_key());
    let copied = params(vec![extension(&victim.public(), &victim, &certificate_key())]);
    is_refused("copied", with_certificates(true, vec![signed(copied, &key)], &key)).await;
}

#[tokio::test]
async fn anothers_certificate_without_its_key_is_refused() {
    let (victim, key) = (Keypair::generate_ed25519(), certificate_key());
    let replayed = vec![signed(honest(&victim, &key), &key)];
    is_refused("replayed", with_certificates(true, replayed, &certificate_key())).await;
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    let (keypair, key) = (Keypair::generate_ed25519(), certificate_key());
    let mut expired = honest(&keypair, &key);
    expired.not_before = date_time_ymd(1990, 1, 1);
    expired.not_after = date_time_ymd(2000, 1, 1);
    is_refused("expired", with_certificates(true, vec![signed(expired, &key)], &key)).await;
    let mut early = honest(&keypair, &key);
    early.not_before = date_time_ymd(3000, 1, 1);
    is_refused("not yet valid", with_certificates(true, vec![signed(early, &key)], &key)).await;
}

#[tokio::test]
async fn a_certificate_without_an_identity_is_refused() {
    let key = certificate_key();
    is_refused("no extension", with_certificates(true, vec![signed(params(Vec::new()), &key)], &key)).await;
}

#[tokio::test]
async fn a_critical_extension_that_is_not_known_is_refused() {
    let (keypair, key) = (Keypair::generate_ed25519(), certificate_key());
    let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 9, 9], element(4, b"?"));
    unknown.set_criticality(true);
    let mut strange = honest(&keypair, &key);
    strange.custom_extensions.push(unknown);
    is_refused("unknown extension", with_certificates(true, vec![signed(strange, &key)], &key)).await;
}

#[tokio::test]
async fn a_certificate_signed_by_an_authority_is_refused() {
    let (keypair, key, authority_key) = (Keypair::generate_ed25519(), certificate_key(), certificate_key());
    let mut authority = params(Vec::new());
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = authority.self_signed(&authority_key).expect("it can be signed");
    let issued = honest(&keypair, &key).signed_by(&key, &authority, &authority_key).expect("it can be signed");
    is_refused("not self-signed", with_certificates(true, vec![issued.into()], &key)).await;
}

#[tokio::test]
async fn more_or_fewer_certificates_than_one_are_refused() {
    let (keypair, key) = (Keypair::generate_ed25519(), certificate_key());
    let certificate = signed(honest(&keypair, &key), &key);
    is_refused("two", with_certificates(true, vec![certificate.clone(), certificate], &key)).await;
    is_refused("none", with_certificates(true, Vec::new(), &key)).await;
}

#[tokio::test]
async fn aes_is_spoken_only_where_both_ends_have_its_instructions() {
    for (dials_aes, listens_aes) in [(true, true), (true, false), (false, true), (false, false)] {
        let (keypair, key) = (Keypair::generate_ed25519(), certificate_key());
        let chain = vec![signed(honest(&keypair, &key), &key)];
        let [one, other] = [dials_aes, listens_aes].map(|aes| with_certificates(aes, chain.clone(), &key));
        let (near, far) = sockets();
        let upgrades =
            async { futures::join!(one.upgrade_outbound(near, PROTOCOL), other.upgrade_inbound(far, PROTOCOL)) };
        let (connection, _remote) = within("a handshake", upgrades).await;
        let (_, stream) = connection.expect("both are honest");
        let expected = match (dials_aes, listens_aes) {
            (true, true) => CipherSuite::TLS13_AES_128_GCM_SHA256,
            _ => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        let spoken = stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite());
        assert_eq!(spoken, Some(expected), "dialler {dials_aes}, listener {listens_aes}");
    }
}

#[tokio::test]
async fn every_handshake_is_a_full_one() {
    let (one, other) = (ours(&Keypair::generate_ed25519()), ours(&Keypair::generate_ed25519()));
    for _ in 0..2 {
        let (near, far) = sockets();
        let upgrades = async {
            futures::join!(one.clone().upgrade_outbound(near, PROTOCOL), other.clone().upgrade_inbound(far, PROTOCOL))
        };
        let (dialled, listened) = within("a handshake", upgrades).await;
        let (_, mut listened) = listened.expect("both are honest");
        let (_, mut dialled) = dialled.expect("both are honest");
        listened.write_all(b"!").await.expect("written");
        listened.flush().await.expect("flushed");
        dialled.read_exact(&mut [0]).await.expect("what a ticket would have come with");
        assert_eq!(dialled.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}
