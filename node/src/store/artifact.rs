//! One artifact on disk: a preallocated data file, its manifest, and which pieces are held.
//!
//! What it must never do: say that it holds a piece whose bytes are not the signed ones. In memory
//! a piece counts as held once all its leaves, hashed on their way to the file, met the manifest
//! (`pieces` has the rule that makes this safe with many writers). On disk a bit is written only
//! after the data it stands for was synced; so a `kill -9` costs the pieces since the last
//! checkpoint, and a power cut no more than that.
//!
//! Everything here blocks. Blocks of one artifact may be written and read from many threads.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use updraft_protocol::digest::Digest;
use updraft_protocol::limits::LEAF_BYTES;
use updraft_protocol::manifest::{Manifest, PieceIndex, leaf_digest};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::BlockRange;

use self::lend::Stamp;
use super::Shared;
use super::error::StoreError;
use super::files::{self, lock};
use super::have::Have;
use super::pieces::{Claim, Leaves, MAX_OPEN_PIECES, Pieces, Settled};
use super::senders::Senders;
use crate::atomic;
use updraft_protocol::bitmap::Bitmap;

pub(super) mod lend;

/// Bytes that are hashed and then written while they are still in the processor's cache. A multiple of
/// a leaf.
const CHUNK_BYTES: usize = 8 * LEAF_BYTES as usize;

/// Verified bytes after which a checkpoint is due: a 32nd of the artifact within these bounds. The
/// lower one keeps small artifacts from syncing at every piece, the upper one bounds what a crash
/// costs.
const CHECKPOINT_BYTES: Range<u64> = (4 << 20)..(64 << 20);

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum BlockOutcome {
    /// Kept; its piece is not whole yet.
    Stored,
    /// It made this piece whole, and the piece is right: it may be announced and served.
    PieceVerified(u32),
    /// It made this piece whole, and the piece is wrong: all its blocks must be fetched again.
    PieceRejected(u32),
    /// Every byte of it was there already. Nothing was written.
    Duplicate,
}

/// What a pass over the data found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Pieces that were hashed.
    pub checked: u32,
    /// Claimed pieces whose bytes were wrong or could not be read, no longer claimed.
    pub cleared: Vec<u32>,
    /// Pieces that were not claimed and turned out to be right, now claimed.
    pub recovered: Vec<u32>,
}

#[derive(Debug)]
struct State {
    pieces: Pieces,
    senders: Senders,
    /// Verified bytes since the last checkpoint began.
    unsaved_bytes: u64,
    /// Open while pieces are missing.
    writer: Option<Arc<File>>,
    /// Counts how often the disk lost writes.
    losses: u64,
}

/// What survives a crash.
#[derive(Debug)]
struct Saved {
    /// Pieces whose data was synced.
    pieces: Bitmap,
    /// The `have` file claims a piece that is not among them.
    claims_more: bool,
}

/// One artifact of the store.
#[derive(Debug)]
pub struct Artifact {
    manifest: Manifest,
    manifest_digest: Digest,
    directory: PathBuf,
    data: PathBuf,
    /// Number of this handle among the open files.
    id: u64,
    recoverable: AtomicBool,
    /// This process verified every piece that is claimed.
    proven: AtomicBool,
    /// The data file has another name, and looked like this when it got that. Read for the length of every
    /// read of the file, so that claims and file change together. Taken after `saved` and before `state`.
    lent: RwLock<Option<Stamp>>,
    state: Mutex<State>,
    /// A writer settled.
    settled: Condvar,
    /// Locked for the length of a checkpoint.
    saved: Mutex<Saved>,
    /// Whether the artifact was removed. Held for reading by every operation that touches the disk,
    /// so that a handle to a removed artifact never writes to its successor.
    removed: RwLock<bool>,
    shared: Arc<Shared>,
}

/// Leaves that this thread may write. Given back when dropped before they were settled.
struct Writing<'a> {
    artifact: &'a Artifact,
    piece: PieceIndex,
    runs: Vec<Range<usize>>,
    losses: u64,
    open: bool,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.open {
            lock(&self.artifact.state).pieces.release(self.piece, &self.runs);
            self.artifact.settled.notify_all();
        }
    }
}

fn byte(leaf: usize) -> usize {
    leaf * LEAF_BYTES as usize
}

impl Artifact {
    /// The artifact in `directory`, of which `have` is on disk. `recoverable`: the data file may
    /// hold more than that. `lent`: how a data file looks that has another name.
    pub(super) fn new(
        manifest: Manifest,
        directory: PathBuf,
        have: Bitmap,
        recoverable: bool,
        lent: Option<Stamp>,
        shared: Arc<Shared>,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            manifest_digest: Digest::of(&manifest.encode()),
            data: directory.join("data"),
            directory,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            recoverable: AtomicBool::new(recoverable),
            proven: AtomicBool::new(have.ones() == 0),
            lent: RwLock::new(lent),
            state: Mutex::new(State {
                pieces: Pieces::new(have.clone(), &manifest),
                senders: Senders::default(),
                unsaved_bytes: 0,
                writer: None,
                losses: 0,
            }),
            settled: Condvar::new(),
            // What is not believed of the `have` file must go from it.
            saved: Mutex::new(Saved { pieces: have, claims_more: recoverable }),
            removed: RwLock::new(false),
            manifest,
            shared,
        }
    }

    /// The piece list.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the encoded piece list.
    pub fn manifest_digest(&self) -> &Digest {
        &self.manifest_digest
    }

    /// The data file. Its length is the artifact's from the start; only verified pieces hold bytes
    /// that mean something.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// Whether every piece is verified.
    pub fn is_complete(&self) -> bool {
        lock(&self.state).pieces.have().is_full()
    }

    /// The verified pieces.
    pub fn have(&self) -> Bitmap {
        lock(&self.state).pieces.have().clone()
    }

    /// Bytes of verified pieces.
    pub fn bytes_done(&self) -> u64 {
        lock(&self.state).pieces.bytes_done()
    }

    /// Whether the store lost track of this artifact's pieces (a rotten bitmap or manifest) while
    /// its data file may still hold them: [`Artifact::recover`] finds out.
    pub fn is_recoverable(&self) -> bool {
        self.recoverable.load(Ordering::Relaxed) && !self.is_complete()
    }

    /// Whether this process verified every piece that is claimed; else the disk may have lost some of them
    /// since.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Appends `block` to `buffer`. The block may span pieces; each must be verified.
    pub fn read_block(&self, block: BlockRange, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let (length, _alive) = (u64::from(block.length), self.alive()?);
        let bad = |reason| self.bad_block(block.offset, length, reason);
        let last = block.offset.checked_add(length).and_then(|end| end.checked_sub(1)).filter(|_| length > 0);
        let last = last.ok_or_else(|| bad("it is empty or ends nowhere"))?;
        let outside = || bad("it lies outside the artifact");
        let first = self.manifest.piece_at(block.offset).ok_or_else(outside)?;
        let last = self.manifest.piece_at(last).ok_or_else(outside)?;
        let lent = self.lent();
        {
            let state = lock(&self.state);
            if let Some(piece) = (first.get()..=last.get()).find(|piece| !state.pieces.have().get(*piece)) {
                return Err(StoreError::NotHeld { artifact: *self.manifest.artifact(), piece });
            }
        }
        let start = buffer.len();
        buffer.resize(start + block.length as usize, 0);
        self.read_at(lent.as_ref(), &mut buffer[start..], block.offset)
            .map_err(|source| StoreError::io("read", &self.data, 0, source))
    }

    /// Stores one block: inside one piece, whole leaves (the artifact's last may be short).
    ///
    /// Leaves are hashed here, outside any lock, and their digests kept until the piece is whole:
    /// a few KiB for each piece in progress, at most [`MAX_OPEN_PIECES`] pieces. Waits while another
    /// thread writes some of the same leaves.
    ///
    /// After an error, [`Artifact::have`] tells what is held: the block that completed a piece may
    /// have been stored although the checkpoint that was due failed.
    pub fn write_block(&self, block: BlockRange, bytes: &[u8]) -> Result<BlockOutcome, StoreError> {
        self.write(block, bytes, None).map(|(outcome, _)| outcome)
    }

    /// The same for a block that `from` sent. Also returns who is proven by it to have sent wrong bytes.
    pub fn write_block_of(
        &self,
        from: &PeerId,
        block: BlockRange,
        bytes: &[u8],
    ) -> Result<(BlockOutcome, Vec<PeerId>), StoreError> {
        self.write(block, bytes, Some(from))
    }

    fn write(
        &self,
        block: BlockRange,
        bytes: &[u8],
        from: Option<&PeerId>,
    ) -> Result<(BlockOutcome, Vec<PeerId>), StoreError> {
        let leaves = self.leaves_of(block, bytes.len())?;
        if self.is_lent() && !self.is_complete() {
            self.let_go()?;
        }
        let _alive = self.alive()?;
        let Some(writing) = self.claim(&leaves)? else {
            return Ok((BlockOutcome::Duplicate, Vec::new()));
        };
        let first = leaves.range.start;
        let mut digests = Vec::with_capacity(leaves.range.len());
        for run in &writing.runs {
            let part = &bytes[byte(run.start - first)..byte(run.end - first).min(bytes.len())];
            let mut offset = block.offset + byte(run.start - first) as u64;
            let failed = |source| StoreError::io("write", &self.data, part.len() as u64, source);
            let file = self.writer().map_err(failed)?;
            for chunk in part.chunks(CHUNK_BYTES) {
                digests.extend(chunk.chunks(LEAF_BYTES as usize).map(leaf_digest));
                files::write_all_at(&file, chunk, offset).map_err(failed)?;
                offset += chunk.len() as u64;
            }
        }
        let (settled, liars) = self.settle(writing, &digests, from)?;
        let outcome = match settled {
            Settled::Stored => BlockOutcome::Stored,
            Settled::Rejected => BlockOutcome::PieceRejected(leaves.piece.get()),
            Settled::Verified => {
                self.checkpoint_if_due()?;
                BlockOutcome::PieceVerified(leaves.piece.get())
            }
        };
        Ok((outcome, liars))
    }

    /// Forgets the blocks of a piece that is not whole, so that it is fetched anew. Its verified
    /// state, if it has that, stays.
    pub fn abandon(&self, piece: u32) {
        if let Some(piece) = self.manifest.index(piece) {
            lock(&self.state).pieces.abandon(piece);
        }
    }

    /// Makes every verified piece survive a crash: syncs the data, then replaces the bitmap.
    ///
    /// Where syncing fails, the system may have dropped written data: all pieces since the last
    /// checkpoint are forgotten ([`StoreError::LostWrites`]).
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let _alive = self.alive()?;
        self.save(&mut lock(&self.saved), &[])
    }

    /// Hashes every claimed piece and stops claiming those that lie. What is wrong in a lent file is not
    /// mended there: its right pieces move to a file of the store's own. `progress` gets bytes done and
    /// bytes in all.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, StoreError> {
        if self.lent_was_changed()? {
            return self.reclaim(progress);
        }
        let have = self.have();
        let total = self.bytes_done();
        let mut report = VerifyReport::default();
        let (mut done, mut buffer, mut lies) = (0, Vec::new(), Vec::new());
        for piece in have.iter().filter_map(|index| self.manifest.index(index)) {
            // For each piece anew, so that a removal does not wait for the whole pass.
            let _alive = self.alive()?;
            if !self.is_on_disk(piece, &mut buffer) {
                lies.push(piece);
            }
            report.checked += 1;
            done += u64::from(self.manifest.length_of(piece));
            progress(done, total);
        }
        let alive = self.alive()?;
        let mut saved = lock(&self.saved);
        if !lies.is_empty() && self.is_lent() {
            drop((saved, alive));
            return self.reclaim(progress);
        }
        report.cleared = lies.iter().map(|piece| piece.get()).collect();
        for piece in &lies {
            saved.claims_more |= saved.pieces.clear(piece.get());
        }
        // On disk first: a crash must not bring back a claim whose bytes are being written again.
        let outcome = self.save(&mut saved, &lies);
        let mut state = lock(&self.state);
        for piece in lies {
            state.pieces.clear(&self.manifest, piece);
        }
        drop(state);
        outcome.map(|()| report)
    }

    /// Hashes every piece that is not claimed and claims those whose bytes are in the data file
    /// after all. For artifacts that are [`Artifact::is_recoverable`]. `progress` gets bytes done
    /// and bytes in all.
    pub fn recover(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, StoreError> {
        if self.lent_was_changed()? {
            return self.reclaim(progress);
        }
        let have = self.have();
        let total = self.manifest.length() - self.bytes_done();
        let mut report = VerifyReport::default();
        let (mut done, mut buffer) = (0, Vec::new());
        for piece in have.iter_missing().filter_map(|index| self.manifest.index(index)) {
            let _alive = self.alive()?;
            if self.recover_piece(piece, &mut buffer)? {
                report.recovered.push(piece.get());
            }
            report.checked += 1;
            done += u64::from(self.manifest.length_of(piece));
            progress(done, total);
        }
        {
            let _alive = self.alive()?;
            self.save(&mut lock(&self.saved), &[])?;
        }
        if self.is_lent() && !self.is_complete() {
            return self.reclaim(progress);
        }
        self.recoverable.store(false, Ordering::Relaxed);
        Ok(report)
    }

    /// Claims `piece` if its bytes are on disk; leaves it alone while somebody writes it.
    fn recover_piece(&self, piece: PieceIndex, buffer: &mut Vec<u8>) -> Result<bool, StoreError> {
        let in_piece = self.leaves_in(piece);
        let Some(writing) = self.claim(&Leaves { piece, in_piece, range: 0..in_piece })? else {
            return Ok(false);
        };
        if writing.runs.first() != Some(&(0..in_piece)) || !self.is_on_disk(piece, buffer) {
            return Ok(false);
        }
        let digests: Vec<Digest> = buffer.chunks(LEAF_BYTES as usize).map(leaf_digest).collect();
        Ok(self.settle(writing, &digests, None)?.0 == Settled::Verified)
    }

    /// Runs `change` while no operation touches the disk; the artifact counts as removed once it
    /// succeeded. Waits for operations under way.
    pub(super) fn retire<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut removed = self.removed.write().unwrap_or_else(PoisonError::into_inner);
        self.shared.readers.close(self.id);
        let done = change()?;
        *removed = true;
        lock(&self.state).writer = None;
        Ok(done)
    }

    fn alive(&self) -> Result<RwLockReadGuard<'_, bool>, StoreError> {
        let removed = self.removed.read().unwrap_or_else(PoisonError::into_inner);
        if *removed { Err(StoreError::Removed { artifact: *self.manifest.artifact() }) } else { Ok(removed) }
    }

    fn bad_block(&self, offset: u64, length: u64, reason: &'static str) -> StoreError {
        StoreError::Block { artifact: *self.manifest.artifact(), offset, length, reason }
    }

    fn leaves_in(&self, piece: PieceIndex) -> usize {
        self.manifest.length_of(piece).div_ceil(LEAF_BYTES) as usize
    }

    fn leaves_of(&self, block: BlockRange, length: usize) -> Result<Leaves, StoreError> {
        let bad = |reason| self.bad_block(block.offset, length as u64, reason);
        if length != block.length as usize || length == 0 {
            return Err(bad("its bytes are not as many as it names"));
        }
        let piece = self.manifest.piece_at(block.offset).ok_or_else(|| bad("it lies outside the artifact"))?;
        let leaf = u64::from(LEAF_BYTES);
        let within = block.offset - self.manifest.offset_of(piece);
        let end = within + u64::from(block.length);
        if !within.is_multiple_of(leaf) {
            return Err(bad("it starts inside a leaf"));
        }
        if end > u64::from(self.manifest.length_of(piece)) {
            return Err(bad("it reaches past its piece"));
        }
        if !end.is_multiple_of(leaf) && block.end() != self.manifest.length() {
            return Err(bad("it ends inside a leaf"));
        }
        let index = |leaves: u64| usize::try_from(leaves).map_err(|_| bad("it is too long"));
        Ok(Leaves { piece, in_piece: self.leaves_in(piece), range: index(within / leaf)?..index(end.div_ceil(leaf))? })
    }

    /// The right to write `leaves`, `None` when they are all there.
    fn claim(&self, leaves: &Leaves) -> Result<Option<Writing<'_>>, StoreError> {
        let mut state = lock(&self.state);
        loop {
            match state.pieces.claim(leaves) {
                Claim::Granted(runs) => {
                    let losses = state.losses;
                    return Ok(Some(Writing { artifact: self, piece: leaves.piece, runs, losses, open: true }));
                }
                Claim::Duplicate => return Ok(None),
                Claim::Full => {
                    return Err(StoreError::TooManyOpenPieces {
                        artifact: *self.manifest.artifact(),
                        limit: MAX_OPEN_PIECES,
                    });
                }
                Claim::Wait => {
                    state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn settle(
        &self,
        mut writing: Writing<'_>,
        digests: &[Digest],
        from: Option<&PeerId>,
    ) -> Result<(Settled, Vec<PeerId>), StoreError> {
        let mut state = lock(&self.state);
        if state.losses != writing.losses {
            drop(state);
            let source = io::Error::other("the disk failed while this block was written");
            return Err(StoreError::LostWrites { path: self.data.clone(), source });
        }
        state.senders.wrote(writing.piece, &writing.runs, digests, from);
        let settled = state.pieces.settle(&self.manifest, writing.piece, &writing.runs, digests);
        let liars = state.senders.settled(writing.piece, &settled);
        if settled == Settled::Verified {
            state.unsaved_bytes += u64::from(self.manifest.length_of(writing.piece));
        }
        writing.open = false;
        drop(state);
        self.settled.notify_all();
        Ok((settled, liars))
    }

    fn checkpoint_if_due(&self) -> Result<(), StoreError> {
        let due = (self.manifest.length() / 32).clamp(CHECKPOINT_BYTES.start, CHECKPOINT_BYTES.end);
        let (complete, unsaved) = {
            let state = lock(&self.state);
            (state.pieces.have().is_full(), state.unsaved_bytes)
        };
        if complete {
            return self.save(&mut lock(&self.saved), &[]);
        }
        if unsaved < due / 2 {
            return Ok(());
        }
        let mut saved = match self.saved.try_lock() {
            Ok(saved) => saved,
            Err(TryLockError::Poisoned(saved)) => saved.into_inner(),
            // A checkpoint is under way on a slow disk. Whoever writes waits for it: else a crash would
            // cost as much as the network is faster than the disk.
            Err(TryLockError::WouldBlock) => lock(&self.saved),
        };
        let is_due = lock(&self.state).unsaved_bytes >= due;
        if is_due { self.save(&mut saved, &[]) } else { Ok(()) }
    }

    /// Saves all verified pieces but `lies`.
    fn save(&self, saved: &mut Saved, lies: &[PieceIndex]) -> Result<(), StoreError> {
        // Taken before the sync: a piece verified during it may not be covered by it.
        let (mut pieces, unsaved_bytes) = {
            let mut state = lock(&self.state);
            (state.pieces.have().clone(), std::mem::take(&mut state.unsaved_bytes))
        };
        for piece in lies {
            pieces.clear(piece.get());
        }
        if pieces == saved.pieces && !saved.claims_more {
            return Ok(());
        }
        if let Err(source) = self.sync_data() {
            let mut state = lock(&self.state);
            state.losses += 1;
            state.writer = None;
            state.pieces.fall_back(&self.manifest, &saved.pieces);
            state.senders.fall_back();
            drop(state);
            self.settled.notify_all();
            return Err(StoreError::LostWrites { path: self.data.clone(), source });
        }
        if let Err(error) = self.write_have(&pieces) {
            lock(&self.state).unsaved_bytes += unsaved_bytes;
            return Err(error);
        }
        if pieces.is_full() {
            lock(&self.state).writer = None;
        }
        *saved = Saved { pieces, claims_more: false };
        Ok(())
    }

    fn write_have(&self, pieces: &Bitmap) -> Result<(), StoreError> {
        let file = self.directory.join("have");
        let bytes = Have { manifest: self.manifest_digest, pieces: pieces.clone() }.encode();
        atomic::write(&file, &bytes, 0o600).map_err(|source| StoreError::io("write", &file, bytes.len() as u64, source))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_lent() {
            // Nothing was written to it since.
            return Ok(());
        }
        self.writer()?.sync_data()
    }

    /// The file to write to, which is never one that has another name.
    fn writer(&self) -> io::Result<Arc<File>> {
        let lent = self.lent();
        if lent.is_some() {
            return Err(io::Error::other("the file has another name outside the store and is not written to"));
        }
        let mut state = lock(&self.state);
        if let Some(file) = &state.writer {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(&self.data)?);
        state.writer = Some(Arc::clone(&file));
        Ok(file)
    }

    /// `lent`: as it is for the length of this read. A lent file that was changed cannot be read.
    fn read_at(&self, lent: Option<&Stamp>, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.shared.readers.get(self.id, &self.data)?;
        files::read_exact_at(&file, buffer, offset)?;
        lent.map_or(Ok(()), |stamp| stamp.require(&file))
    }

    /// Whether the bytes of `piece` in the data file are the signed ones; they are in `buffer` then.
    fn is_on_disk(&self, piece: PieceIndex, buffer: &mut Vec<u8>) -> bool {
        buffer.resize(self.manifest.length_of(piece) as usize, 0);
        self.read_at(self.lent().as_ref(), buffer, self.manifest.offset_of(piece)).is_ok()
            && self.manifest.verify_piece(piece, buffer)
    }
}

#[cfg(test)]
mod tests;
