//! The control messages as protobuf: field numbers that never change, nothing checked yet.

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Control {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Announce(Announce),
    #[prost(message, tag = "3")]
    Have(Have),
    #[prost(message, tag = "4")]
    Forget(Forget),
    #[prost(message, tag = "5")]
    Request(Block),
    #[prost(message, tag = "6")]
    Cancel(Block),
    #[prost(message, tag = "7")]
    Busy(Busy),
    #[prost(message, tag = "8")]
    Peers(Peers),
    #[prost(message, tag = "9")]
    Head(Head),
    #[prost(message, tag = "10")]
    Goodbye(Goodbye),
    #[prost(message, tag = "11")]
    Evidence(Evidence),
    #[prost(message, tag = "12")]
    Report(Report),
    #[prost(message, tag = "13")]
    Reported(Reported),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) repository: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) agent: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) features: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub(super) root_version: u64,
    #[prost(uint64, tag = "5")]
    pub(super) timestamp_version: u64,
    #[prost(bool, tag = "6")]
    pub(super) seed: bool,
    #[prost(bytes = "vec", optional, tag = "7")]
    pub(super) credential: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub(super) timestamp_sha256: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Announce {
    #[prost(uint32, tag = "1")]
    pub(super) handle: u32,
    /// 0: artifact, 1: content.
    #[prost(uint32, tag = "2")]
    pub(super) kind: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) digest: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub(super) wants: bool,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) have: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Have {
    #[prost(uint32, tag = "1")]
    pub(super) handle: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub(super) pieces: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Forget {
    #[prost(uint32, tag = "1")]
    pub(super) handle: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Block {
    #[prost(uint32, tag = "1")]
    pub(super) handle: u32,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
    #[prost(uint32, tag = "3")]
    pub(super) length: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Busy {
    #[prost(uint32, tag = "1")]
    pub(super) handle: u32,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
    #[prost(uint32, tag = "3")]
    pub(super) length: u32,
    #[prost(uint32, tag = "4")]
    pub(super) retry_after_ms: u32,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub(super) ask: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Peer {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) peer: Vec<u8>,
    #[prost(string, repeated, tag = "2")]
    pub(super) addresses: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Peers {
    #[prost(message, repeated, tag = "1")]
    pub(super) peers: Vec<Peer>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Head {
    #[prost(uint64, tag = "1")]
    pub(super) root_version: u64,
    #[prost(uint64, tag = "2")]
    pub(super) timestamp_version: u64,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) timestamp_sha256: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Report {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(string, tag = "2")]
    pub(super) product: String,
    #[prost(string, tag = "3")]
    pub(super) channel: String,
    #[prost(string, tag = "4")]
    pub(super) version: String,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) artifact: Vec<u8>,
    #[prost(uint32, tag = "6")]
    pub(super) outcome: u32,
    #[prost(int64, tag = "7")]
    pub(super) at: i64,
    #[prost(string, tag = "8")]
    pub(super) text: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) signature: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reported {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) numbers: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Goodbye {
    #[prost(string, tag = "1")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Evidence {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) sha256: Vec<Vec<u8>>,
}
