//! Files behind a small HTTP/1.0 server on loopback that remembers what it was asked for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::process::DEADLINE;

/// What the server does when it is asked for a path.
#[derive(Debug, Clone)]
enum Reply {
    /// Sends the file.
    File(Vec<u8>),
    /// Sends these very bytes, headers and all, and closes the connection.
    Raw(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    replies: BTreeMap<String, Reply>,
    asked: Vec<String>,
    closed: bool,
}

/// The server. It answers one connection after the other, and stops when dropped.
#[derive(Debug)]
pub struct Shelf {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// An empty one.
    ///
    /// # Panics
    /// Where loopback has no free port.
    pub fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&shared).closed {
                    return;
                }
                // A client that goes away in the middle is a client's right.
                let _ = stream.and_then(|stream| answer(stream, &shared));
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// The URL of a path, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts a file there, in place of what was there.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        lock(&self.state).replies.insert(path.to_owned(), Reply::File(bytes.to_vec()));
    }

    /// Answers `path` with these bytes, headers and all.
    pub fn put_raw(&self, path: &str, bytes: &[u8]) {
        lock(&self.state).replies.insert(path.to_owned(), Reply::Raw(bytes.to_vec()));
    }

    /// Takes a file away.
    pub fn take(&self, path: &str) {
        lock(&self.state).replies.remove(path);
    }

    /// The paths asked for since the last call, as they stood in the requests.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).asked)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        lock(&self.state).closed = true;
        // Wakes the thread up; if this fails it has ended by itself.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    request.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if request.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = {
        let mut state = lock(state);
        state.asked.push(path.clone());
        state.replies.get(&path).cloned()
    };
    match reply {
        Some(Reply::Raw(bytes)) => stream.write_all(&bytes),
        Some(Reply::File(bytes)) => {
            stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes())?;
            stream.write_all(&bytes)
        }
        None => stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno such file"),
    }
}
