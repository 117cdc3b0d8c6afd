//! How fast blocks move, and at what cost: run by hand, in a release build.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use updraft_protocol::transfer::{BlockRange, Control, Hello, ObjectId};

use super::harness::{MIB, OBJECT, QUIC, TCP, block, config, identity};
use crate::engine::effect::SwarmEffect;
use crate::engine::input::{BlockOutcome, SwarmInput};
use crate::swarm::{BlockIo, SwarmHandle, spawn};

/// Reads zeros, writes nowhere.
#[derive(Debug, Default)]
struct Null {
    bytes: AtomicU64,
}

impl BlockIo for Null {
    fn read(&self, _: &ObjectId, block: BlockRange, buffer: &mut Vec<u8>) -> Result<(), String> {
        buffer.resize(buffer.len() + block.length as usize, 0);
        Ok(())
    }

    fn write(&self, _: &ObjectId, _: BlockRange, bytes: &[u8]) -> BlockOutcome {
        self.bytes.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Ordering::Relaxed);
        BlockOutcome::Stored
    }
}

/// User and system time of this process, in clock ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
}

fn greeting() -> Control {
    Control::Hello(Hello { repository: vec![0; 32], ..Hello::default() })
}

struct End {
    handle: SwarmHandle,
    inputs: mpsc::Receiver<SwarmInput>,
}

impl End {
    fn start(seed: u16, listen: &str) -> Self {
        let (sender, inputs) = mpsc::channel(1024);
        let handle = spawn(&config(identity(seed), &[listen]), Arc::new(Null::default()), sender).expect("loopback");
        Self { handle, inputs }
    }

    async fn tell(&self, effect: SwarmEffect) {
        self.handle.effects().send(effect).await.expect("the shell runs");
    }
}

async fn measure(listen: &str, gib: u64, depth: u64) {
    let (mut from, mut to) = (End::start(1, listen), End::start(2, listen));
    let Some(SwarmInput::Listening { address }) = from.inputs.recv().await else { panic!("it listens") };
    to.tell(SwarmEffect::Dial { peer: None, addresses: vec![address] }).await;
    let serve = tokio::spawn(async move {
        while let Some(input) = from.inputs.recv().await {
            match input {
                SwarmInput::Connected { peer, .. } => {
                    from.tell(SwarmEffect::Control { peer, message: greeting() }).await;
                }
                SwarmInput::Control { peer, message: Control::Request { handle, block } } => {
                    from.tell(SwarmEffect::SendBlock { peer, handle, object: OBJECT, block }).await;
                }
                _ => {}
            }
        }
    });
    let (blocks, mut asked, mut arrived) = (gib * 1024, 0, 0);
    let (mut start, mut cpu) = (Instant::now(), 0);
    while arrived < blocks {
        match to.inputs.recv().await.expect("the shell runs") {
            SwarmInput::Connected { peer, .. } => {
                to.tell(SwarmEffect::Control { peer: peer.clone(), message: greeting() }).await;
                (start, cpu) = (Instant::now(), cpu_ticks());
                while asked < depth {
                    let peer = peer.clone();
                    to.tell(SwarmEffect::Request { peer, handle: 0, object: OBJECT, block: block(asked) }).await;
                    asked += 1;
                }
            }
            SwarmInput::BlockArrived { peer, .. } => {
                arrived += 1;
                if asked < blocks {
                    to.tell(SwarmEffect::Request { peer, handle: 0, object: OBJECT, block: block(asked) }).await;
                    asked += 1;
                }
            }
            SwarmInput::Disconnected { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
    let (seconds, ticks) = (start.elapsed().as_millis(), cpu_ticks() - cpu);
    let bytes = u128::from(blocks) * u128::from(MIB);
    let rate = bytes / 1000 / seconds.max(1);
    let cost = u128::from(ticks) * 10_000_000_000 / bytes;
    let _ = writeln!(
        std::io::stderr(),
        "{listen} depth {depth}: {rate} MB/s, {}.{:02} CPU s/GB (both ends)",
        cost / 1000,
        cost % 1000 / 10
    );
    serve.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn throughput_over_loopback() {
    for _ in 0..3 {
        measure(TCP, 2, 8).await;
        measure(QUIC, 1, 8).await;
    }
}
