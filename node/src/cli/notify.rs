//! "I run": what a node tells whoever started it, as systemd's `Type=notify` asks for it, and the ear for it.
//!
//! One datagram to the socket that the environment names. Telling must never keep a node from running, and
//! whoever listens learns nothing else from it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Names the socket. What begins with `@` is no path but a name that the kernel keeps.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET";
/// The line that counts.
const READY: &[u8] = b"READY=1";
/// Bytes of a message that are read.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Tells whoever wants to know that this node runs.
pub(super) fn ready() {
    let Some(name) = std::env::var_os(VARIABLE) else { return };
    if let Err(error) = tell(&name) {
        tracing::warn!(%error, socket = %name.display(), "whoever started this node cannot be told that it runs");
    }
}

fn tell(name: &OsStr) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A full queue must not hold the node up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(READY, &address).map(drop)
}

/// A socket at which a node says that it runs.
#[derive(Debug)]
pub(super) struct Listener {
    name: String,
    socket: tokio::net::UnixDatagram,
}

impl Listener {
    /// Opens one; none where the system refuses, which must not keep a node from being started. Must be
    /// called inside a runtime.
    pub(super) fn open() -> Option<Self> {
        let open = || -> io::Result<Self> {
            let name = format!("updraft-launch-{:032x}", rand::random::<u128>());
            let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
            socket.set_nonblocking(true)?;
            Ok(Self { name: format!("@{name}"), socket: tokio::net::UnixDatagram::from_std(socket)? })
        };
        open()
            .inspect_err(|error| tracing::warn!(%error, "the node cannot say that it runs: that it stays up must do"))
            .ok()
    }

    /// What the node's environment names it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Waits until somebody says at `listener` that it runs; for ever where there is none.
pub(super) async fn heard(listener: Option<&Listener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let mut buffer = [0; MAX_MESSAGE_BYTES];
    loop {
        match listener.socket.recv(&mut buffer).await {
            Ok(length) if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == READY) => return,
            Ok(_) => {}
            // Nothing more comes from it.
            Err(_) => return std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_is_heard_and_nothing_else_counts() {
        let listener = Listener::open().expect("a socket");
        let other = UnixDatagram::unbound().expect("a socket");
        let name = listener.name().strip_prefix('@').expect("no path");
        let address = SocketAddr::from_abstract_name(name).expect("short");
        other.send_to_addr(b"STATUS=thinking", &address).expect("sent");
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), heard(Some(&listener))).await;
        assert!(early.is_err(), "it did not say that it runs");
        tell(OsStr::new(listener.name())).expect("told");
        heard(Some(&listener)).await;
    }

    #[test]
    fn a_socket_may_be_a_path_and_one_that_is_not_there_is_an_error() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("socket");
        assert!(tell(path.as_os_str()).is_err());
        let socket = UnixDatagram::bind(&path).expect("a socket");
        tell(path.as_os_str()).expect("told");
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("a message");
        assert_eq!(&buffer[..length], READY);
    }
}
