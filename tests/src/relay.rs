//! A TCP relay with a rate: a slow link on a machine whose loopback is too fast to be caught midway.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes forwarded at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// A relay. Its threads end with the connections that they forward, at the latest with the process.
#[derive(Debug)]
pub struct Relay {
    /// Where to connect instead.
    pub address: SocketAddr,
    /// From the target.
    pace: Arc<Pace>,
    /// To the target.
    upload: Arc<Pace>,
}

/// What all connections of a relay together may forward in one direction.
#[derive(Debug)]
struct Pace {
    bytes_per_second: AtomicU64,
    /// Nanoseconds since `start` at which the link is free again.
    free_at_ns: AtomicU64,
    start: Instant,
}

impl Pace {
    fn unlimited() -> Arc<Self> {
        let (bytes_per_second, free_at_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { bytes_per_second, free_at_ns, start: Instant::now() })
    }

    /// Bytes to take at a time: on a link that is slower than a chunk a second, those of a second.
    fn chunk(&self) -> usize {
        match usize::try_from(self.bytes_per_second.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => CHUNK_BYTES,
            Ok(rate) => rate.min(CHUNK_BYTES),
        }
    }

    /// Waits until `bytes` have passed a link of this rate.
    fn pass(&self, bytes: usize) {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let cost = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000_000) / rate;
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let book = |free_at: u64| Some(free_at.max(now).saturating_add(cost));
        let before = self.free_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, book).unwrap_or(now);
        thread::sleep(Duration::from_nanos(before.max(now).saturating_add(cost) - now));
    }
}

impl Relay {
    /// Forwards connections to `target`, as fast as they go.
    ///
    /// # Panics
    /// Where there is no free port on loopback.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (pace, upload) = (Pace::unlimited(), Pace::unlimited());
        let shared = (Arc::clone(&pace), Arc::clone(&upload));
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (Ok(client_end), Ok(server_end)) = (client.try_clone(), server.try_clone()) else { continue };
                let (pace, upload) = shared.clone();
                thread::spawn(move || forward(client_end, server, &upload));
                thread::spawn(move || forward(server_end, client, &pace));
            }
        });
        Self { address, pace, upload }
    }

    /// From now on all connections together get so many bytes a second from the target; 0 is no limit.
    pub fn limit(&self, bytes_per_second: u64) {
        self.pace.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// From now on all connections together send so many bytes a second to the target; 0 is no limit.
    pub fn limit_upload(&self, bytes_per_second: u64) {
        self.upload.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, pace: &Pace) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer[..pace.chunk()]) {
        pace.pass(count);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Either end may be gone already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
