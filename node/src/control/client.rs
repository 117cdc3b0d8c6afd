//! The command line's end of the control socket. Blocking: a command has nothing else to do.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::framing::{LineBuffer, Pushed};
use super::messages::{ErrorBody, Event, Line, Progress, Request};
use super::{MAX_REPLY_BYTES, server, socket};

/// Silence after which the node counts as hung: three heartbeats.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3 * server::HEARTBEAT.as_secs());

/// Why a node did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no node answers on {socket} ({source})")]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket belongs to someone else.
    #[error("the node's control socket {socket} may not be used by this user ({source})")]
    Denied {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node refused or failed.
    #[error("{0}")]
    Refused(ErrorBody),
    /// The connection ended before the answer did.
    #[error("the node on {socket} went away before it answered ({source})")]
    Interrupted {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node says nothing any more.
    #[error("the node on {socket} has said nothing for {} s", SILENCE_TIMEOUT.as_secs())]
    Silent {
        /// Where.
        socket: PathBuf,
    },
    /// The node's answer cannot be read.
    #[error("the node on {socket} answered something that this updraft cannot read: {reason}")]
    Unreadable {
        /// Where.
        socket: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The request cannot be written down.
    #[error("the request cannot be sent: {0}")]
    Unsendable(serde_json::Error),
}

/// A connection that has asked for nothing yet.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    socket: PathBuf,
}

/// A connection on which the node answers. Dropping it cancels the request.
#[derive(Debug)]
pub struct Conversation {
    reader: BufReader<UnixStream>,
    socket: PathBuf,
}

/// One part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<R> {
    /// How far the work is.
    Progress(Progress),
    /// Something happened.
    Event(Event),
    /// So many events were lost, because they were read too slowly.
    Dropped(u64),
    /// The end.
    End(R),
}

impl Client {
    /// Connects to the node that runs in `data_dir`.
    pub fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let path = socket::socket_path(data_dir);
        let stream = match socket::connect(data_dir) {
            Ok(stream) => stream,
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Denied { socket: path, source });
            }
            Err(source) => {
                return Err(ClientError::Unreachable { socket: path, source });
            }
        };
        let limits = stream
            .set_read_timeout(Some(SILENCE_TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(SILENCE_TIMEOUT)));
        match limits {
            Ok(()) => Ok(Self { stream, socket: path }),
            Err(source) => Err(ClientError::Unreachable { socket: path, source }),
        }
    }

    /// Sends the request.
    pub fn send(mut self, request: &Request) -> Result<Conversation, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(ClientError::Unsendable)?;
        line.push(b'\n');
        match self.stream.write_all(&line) {
            Ok(()) => {}
            // A node that refuses at once may close before it has read; its reason is still there to read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(broken(&self.socket, error)),
        }
        Ok(Conversation { reader: BufReader::new(self.stream), socket: self.socket })
    }
}

impl Conversation {
    /// Waits for the next part of the answer; heartbeats are waited through.
    pub fn receive<R: DeserializeOwned>(&mut self) -> Result<Reply<R>, ClientError> {
        loop {
            let line = self.line()?;
            let line = serde_json::from_slice::<Line<R>>(&line)
                .map_err(|error| ClientError::Unreadable { socket: self.socket.clone(), reason: error.to_string() })?;
            return match line {
                Line::Heartbeat {} => continue,
                Line::Progress(progress) => Ok(Reply::Progress(progress)),
                Line::Event(event) => Ok(Reply::Event(event)),
                Line::Dropped(count) => Ok(Reply::Dropped(count)),
                Line::Result(end) => Ok(Reply::End(end)),
                Line::Error(body) => Err(ClientError::Refused(body)),
            };
        }
    }

    /// Waits for the end, whatever comes before it.
    pub fn finish<R: DeserializeOwned>(mut self) -> Result<R, ClientError> {
        loop {
            if let Reply::End(end) = self.receive()? {
                return Ok(end);
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut buffer = LineBuffer::new(MAX_REPLY_BYTES);
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok([]) => return Err(broken(&self.socket, io::ErrorKind::UnexpectedEof.into())),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(&self.socket, error)),
            };
            let length = chunk.len();
            let pushed = buffer
                .push(chunk)
                .map_err(|error| ClientError::Unreadable { socket: self.socket.clone(), reason: error.to_string() })?;
            match pushed {
                Pushed::More => self.reader.consume(length),
                Pushed::Complete(count) => {
                    self.reader.consume(count);
                    return Ok(buffer.take());
                }
            }
        }
    }
}

fn broken(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_owned();
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent { socket },
        _ => ClientError::Interrupted { socket, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    #[test]
    fn without_a_node_the_error_names_the_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Client::connect(dir.path()).expect_err("nobody there");
        assert!(matches!(error, ClientError::Unreachable { .. }));
        assert!(error.to_string().contains("control.sock"), "{error}");
    }

    fn answered_with(text: &'static [u8]) -> Result<IgnoredAny, ClientError> {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = socket::bind(dir.path()).expect("binds");
        let client = Client::connect(dir.path()).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        let conversation = client.send(&Request::Peers {}).expect("sends");
        server.write_all(text).expect("writes");
        drop(server);
        conversation.finish()
    }

    #[test]
    fn heartbeats_are_waited_through() {
        assert!(answered_with(b"{\"heartbeat\":{}}\n{\"heartbeat\":{}}\n{\"result\":{}}\n").is_ok());
    }

    #[test]
    fn a_node_that_dies_in_the_middle_is_told_from_one_that_never_ran() {
        let error = answered_with(b"{\"heartbeat\":{}}\n{\"resu").expect_err("cut off");
        assert!(matches!(error, ClientError::Interrupted { .. }), "{error}");
    }

    #[test]
    fn an_unreadable_answer_is_an_error_not_a_panic() {
        let error = answered_with(b"what?\n").expect_err("no JSON");
        assert!(matches!(error, ClientError::Unreadable { .. }), "{error}");
    }
}
