use super::*;
use proptest::prelude::*;
use std::sync::Barrier;
use updraft_protocol::limits::LEAF_BYTES;
use updraft_protocol::manifest::{ManifestBuilder, leaf_digest, subtree_root};
use updraft_protocol::transfer::BlockRange;

const MIB: usize = 1 << 20;

/// Bytes without a period that a misplaced block could hide in.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn manifest_of(bytes: &[u8]) -> Manifest {
    let mut builder = ManifestBuilder::new();
    builder.update(bytes);
    builder.finish().expect("not empty")
}

/// All blocks of at most `size` bytes, none across a piece's end.
fn blocks(manifest: &Manifest, size: u32) -> Vec<BlockRange> {
    let mut blocks = Vec::new();
    for piece in manifest.indices() {
        let end = manifest.offset_of(piece) + u64::from(manifest.length_of(piece));
        let mut offset = manifest.offset_of(piece);
        while offset < end {
            let length = u32::try_from(end - offset).map_or(size, |rest| rest.min(size));
            blocks.push(BlockRange::new(offset, length).expect("a valid block"));
            offset += u64::from(length);
        }
    }
    blocks
}

fn part(bytes: &[u8], block: BlockRange) -> &[u8] {
    let start = usize::try_from(block.offset).expect("small");
    &bytes[start..start + block.length as usize]
}

fn write_all(artifact: &Artifact, bytes: &[u8], blocks: &[BlockRange]) {
    for block in blocks {
        let _ = artifact.write_block(*block, part(bytes, *block)).expect("written");
    }
}

fn open(directory: &tempfile::TempDir) -> Store {
    Store::open(directory.path()).expect("opened")
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn assert_no_false_have(artifact: &Artifact, bytes: &[u8]) {
    let manifest = artifact.manifest();
    let on_disk = fs::read(artifact.path()).expect("readable");
    for piece in artifact.have().iter().filter_map(|index| manifest.index(index)) {
        let start = usize::try_from(manifest.offset_of(piece)).expect("small");
        let range = start..start + manifest.length_of(piece) as usize;
        assert!(on_disk[range.clone()] == bytes[range], "piece {} is claimed and wrong", piece.get());
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn an_artifact_arrives_block_by_block_and_is_there_after_a_restart() {
    let directory = temp();
    let bytes = noise(3 * MIB + 12_345, 1);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    assert!(!artifact.is_complete());
    write_all(&artifact, &bytes, &blocks(&manifest, LEAF_BYTES));
    assert!(artifact.is_complete());
    drop((artifact, store));

    let store = open(&directory);
    assert_eq!(store.warnings(), []);
    let artifact = store.get(manifest.artifact()).expect("known");
    assert!(artifact.is_complete());
    let mut whole = Vec::new();
    for block in blocks(&manifest, 4 * LEAF_BYTES) {
        artifact.read_block(block, &mut whole).expect("read");
    }
    assert!(whole == bytes);
    assert_eq!(store.list()[0].bytes_done, bytes.len() as u64);
    assert_eq!(store.manifest_bytes(artifact.manifest_digest()), Some(manifest.encode()));
}

#[test]
fn a_checkpoint_is_what_a_restart_goes_on_from() {
    let directory = temp();
    let bytes = noise(2 * MIB, 2);
    let manifest = manifest_of(&bytes);
    let all = blocks(&manifest, LEAF_BYTES);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    write_all(&artifact, &bytes, &all[..50]);
    artifact.checkpoint().expect("saved");
    write_all(&artifact, &bytes, &all[50..70]);
    drop((artifact, store));

    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("resumed");
    assert_eq!(artifact.have().iter().collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    assert_no_false_have(&artifact, &bytes);
    write_all(&artifact, &bytes, &all);
    assert!(artifact.is_complete());
}

#[test]
fn a_kill_at_any_moment_costs_only_the_last_moments() {
    let directory = temp();
    let bytes = noise(24 * MIB, 3);
    let manifest = manifest_of(&bytes);
    let all = blocks(&manifest, LEAF_BYTES);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    for (number, step) in all.chunks(all.len() / 7).enumerate() {
        write_all(&artifact, &bytes, step);
        let (copy, done) = (temp(), artifact.bytes_done());
        copy_tree(directory.path(), copy.path());
        let revived = open(&copy);
        let found = revived.begin(&manifest).expect("resumed");
        assert_no_false_have(&found, &bytes);
        assert!(found.bytes_done() + 4 * MIB as u64 >= done, "step {number}: {} of {done}", found.bytes_done());
        write_all(&found, &bytes, &all);
        assert!(found.is_complete());
        assert_no_false_have(&found, &bytes);
    }
}

#[test]
fn a_wrong_piece_is_rejected_and_its_right_blocks_are_taken_after_that() {
    let directory = temp();
    let bytes = noise(20 * MIB, 4);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    let all = blocks(&manifest, LEAF_BYTES);
    assert_eq!(artifact.write_block(all[0], &noise(16 * 1024, 5)).expect("written"), BlockOutcome::Stored);
    assert_eq!(artifact.write_block(all[1], part(&bytes, all[1])).expect("written"), BlockOutcome::PieceRejected(0));
    assert_eq!(artifact.have().ones(), 0);
    let mut buffer = Vec::new();
    assert!(matches!(artifact.read_block(all[1], &mut buffer), Err(StoreError::NotHeld { piece: 0, .. })));
    assert_eq!(artifact.write_block(all[1], part(&bytes, all[1])).expect("written"), BlockOutcome::Stored);
    assert_eq!(artifact.write_block(all[0], part(&bytes, all[0])).expect("written"), BlockOutcome::PieceVerified(0));
    assert_no_false_have(&artifact, &bytes);
}

#[test]
fn a_late_wrong_copy_of_a_block_overwrites_nothing() {
    let directory = temp();
    let bytes = noise(20 * MIB, 6);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    let all = blocks(&manifest, LEAF_BYTES);
    let poison = noise(16 * 1024, 7);
    let _ = artifact.write_block(all[0], part(&bytes, all[0])).expect("written");
    assert_eq!(artifact.write_block(all[0], &poison).expect("ignored"), BlockOutcome::Duplicate);
    assert_eq!(artifact.write_block(all[1], part(&bytes, all[1])).expect("written"), BlockOutcome::PieceVerified(0));
    assert_eq!(artifact.write_block(all[0], &poison).expect("ignored"), BlockOutcome::Duplicate);
    assert_no_false_have(&artifact, &bytes);
}

#[test]
fn blocks_of_different_sizes_may_overlap() {
    let directory = temp();
    let bytes = noise(65 * MIB, 8);
    let manifest = manifest_of(&bytes);
    assert_eq!(manifest.piece_length(), 8 * LEAF_BYTES);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    let leaf = u64::from(LEAF_BYTES);
    let write = |first: u64, leaves: u32| {
        let block = BlockRange::new(first * leaf, leaves * LEAF_BYTES).expect("a valid block");
        artifact.write_block(block, part(&bytes, block)).expect("written")
    };
    assert_eq!(write(1, 1), BlockOutcome::Stored);
    assert_eq!(write(4, 2), BlockOutcome::Stored);
    assert_eq!(write(1, 1), BlockOutcome::Duplicate);
    assert_eq!(write(0, 8), BlockOutcome::PieceVerified(0));
    assert_no_false_have(&artifact, &bytes);
}

#[test]
fn many_writers_in_any_order_make_it_whole() {
    let directory = temp();
    let bytes = noise(17 * MIB + 777, 9);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    let start = Barrier::new(8);
    let verified: usize = std::thread::scope(|scope| {
        let writer = |seed: u64| {
            let (artifact, bytes, manifest, start) = (&artifact, &bytes, &manifest, &start);
            scope.spawn(move || {
                let mut all = blocks(manifest, if seed.is_multiple_of(2) { LEAF_BYTES } else { 2 * LEAF_BYTES });
                all.extend_from_within(..);
                let order = noise(all.len() * 8, seed);
                for at in (1..all.len()).rev() {
                    let random = u64::from_le_bytes(order[at * 8..][..8].try_into().expect("eight bytes"));
                    all.swap(at, usize::try_from(random % (at as u64 + 1)).expect("small"));
                }
                start.wait();
                let outcomes =
                    all.iter().map(|block| artifact.write_block(*block, part(bytes, *block)).expect("written"));
                outcomes.filter(|outcome| matches!(outcome, BlockOutcome::PieceVerified(_))).count()
            })
        };
        let writers: Vec<_> = (10..18).map(writer).collect();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).sum()
    });
    assert!(artifact.is_complete());
    assert_eq!(verified, manifest.piece_count() as usize, "each piece is verified by exactly one writer");
    assert_eq!(Digest::of(&fs::read(artifact.path()).expect("readable")), *manifest.artifact());
}

#[test]
fn liars_among_the_writers_never_make_a_false_have() {
    let directory = temp();
    let bytes = noise(17 * MIB + 777, 20);
    let poison = noise(bytes.len(), 21);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    let all = blocks(&manifest, LEAF_BYTES);
    std::thread::scope(|scope| {
        for number in 0..8usize {
            let (artifact, all) = (&artifact, &all);
            let source = if number < 3 { &poison } else { &bytes };
            scope.spawn(move || {
                for at in 0..all.len() {
                    let block = all[(at + number * 37) % all.len()];
                    let _ = artifact.write_block(block, part(source, block)).expect("written");
                }
            });
        }
    });
    assert_no_false_have(&artifact, &bytes);
    for piece in artifact.have().iter_missing() {
        artifact.abandon(piece);
    }
    write_all(&artifact, &bytes, &all);
    assert!(artifact.is_complete());
    assert_no_false_have(&artifact, &bytes);
}

/// The wire encoding of a manifest, for artifacts too large to be hashed in a test.
fn craft(length: u64, piece_length: u32, pieces: &[Digest]) -> Manifest {
    fn varint(bytes: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).expect("seven bits"));
    }
    let mut wire = vec![0x08, 1, 0x12, 32];
    wire.extend_from_slice(Digest::of(&length.to_be_bytes()).as_bytes());
    wire.push(0x18);
    varint(&mut wire, length);
    wire.push(0x20);
    varint(&mut wire, u64::from(piece_length));
    wire.push(0x2a);
    varint(&mut wire, pieces.len() as u64 * 32);
    wire.extend(pieces.iter().flat_map(|digest| *digest.as_bytes()));
    Manifest::decode(&wire, &Digest::of(&wire)).expect("a valid manifest")
}

/// `length` bytes of zeros but for the last piece, which is `tail`.
fn mostly_zero(length: u64, tail: &[u8]) -> Manifest {
    let piece_length = 4 << 20;
    let zero = subtree_root(&[leaf_digest(&[0; 16 * 1024]); 256], 256);
    let mut pieces = vec![zero; usize::try_from(length.div_ceil(piece_length)).expect("small")];
    let leaves: Vec<Digest> = tail.chunks(16 * 1024).map(leaf_digest).collect();
    *pieces.last_mut().expect("not empty") = subtree_root(&leaves, 256);
    craft(length, 4 << 20, &pieces)
}

#[test]
fn blocks_past_8_gib_land_where_they_belong() {
    let directory = temp();
    let tail = noise(MIB + 5, 30);
    let length = (9 << 30) + tail.len() as u64;
    let manifest = mostly_zero(length, &tail);
    let store = Store::open_with(directory.path(), Allocation::Sparse).expect("opened");
    let artifact = store.begin(&manifest).expect("begun");
    let last = manifest.piece_count() - 1;
    let start = manifest.offset_of(manifest.index(last).expect("a piece"));
    assert!(start > 8 << 30);
    let mut outcomes = Vec::new();
    for (at, part) in tail.chunks(64 * 1024).enumerate() {
        let block = BlockRange::new(start + at as u64 * 64 * 1024, u32::try_from(part.len()).expect("small"))
            .expect("a valid block");
        outcomes.push(artifact.write_block(block, part).expect("written"));
    }
    assert_eq!(outcomes.last(), Some(&BlockOutcome::PieceVerified(last)));
    artifact.checkpoint().expect("saved");
    drop((artifact, store));

    let store = open(&directory);
    let artifact = store.get(manifest.artifact()).expect("known");
    assert_eq!(artifact.have().iter().collect::<Vec<_>>(), [last]);
    let mut buffer = Vec::new();
    let end = BlockRange::new(start + MIB as u64, 5).expect("a valid block");
    artifact.read_block(end, &mut buffer).expect("read");
    assert_eq!(buffer, tail[MIB..]);
    #[cfg(unix)]
    {
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(artifact.path()).expect("there"));
        assert!(blocks * 512 < 64 << 20, "the file is sparse: {blocks} blocks");
    }
}

#[test]
fn an_artifact_larger_than_the_disk_is_refused_before_the_first_byte() {
    let directory = temp();
    let store = open(&directory);
    let length = 1 << 40;
    if store.available_bytes().expect("measured") > length {
        return; // This disk has room for the largest artifact that there can be.
    }
    let manifest = mostly_zero(length, &noise(4 << 20, 31));
    let error = store.begin(&manifest).expect_err("no room");
    assert!(
        matches!(error, StoreError::DiskFull { needed, available, .. } if needed == length && available < length),
        "{error}"
    );
    assert_eq!(store.list(), []);
    assert_eq!(fs::read_dir(directory.path().join("tmp")).expect("listed").count(), 0);
}

#[test]
fn blocks_that_an_artifact_does_not_have_are_refused() {
    let directory = temp();
    let bytes = noise(33 * MIB + 100, 32);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    let (leaf, length) = (u64::from(LEAF_BYTES), bytes.len() as u64);
    let last = length - length % leaf;
    for (offset, wrong, given) in [
        (0, LEAF_BYTES, 100),
        (0, 100, 100),
        (100, LEAF_BYTES, 16_384),
        (3 * leaf, 2 * LEAF_BYTES, 32_768),
        (last, LEAF_BYTES, 16_384),
        (last, 99, 99),
        (last + leaf, LEAF_BYTES, 16_384),
        (u64::MAX - leaf + 1, LEAF_BYTES, 16_384),
        (0, 0, 0),
    ] {
        let block = BlockRange { offset, length: wrong };
        let outcome = artifact.write_block(block, &vec![0; given]);
        assert!(matches!(outcome, Err(StoreError::Block { .. })), "{offset} {wrong}: {outcome:?}");
    }
    let mut buffer = Vec::new();
    for (offset, wrong) in [(last, LEAF_BYTES), (u64::MAX, LEAF_BYTES), (0, 0)] {
        let outcome = artifact.read_block(BlockRange { offset, length: wrong }, &mut buffer);
        assert!(matches!(outcome, Err(StoreError::Block { .. })), "{offset} {wrong}: {outcome:?}");
    }
    assert_eq!(fs::metadata(artifact.path()).expect("there").len(), length);
}

#[test]
fn a_failed_write_can_be_tried_again() {
    let directory = temp();
    let bytes = noise(40_000, 33);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    let block = blocks(&manifest, LEAF_BYTES)[0];
    let (data, aside) = (artifact.path().to_owned(), directory.path().join("aside"));
    fs::rename(&data, &aside).expect("moved");
    assert!(matches!(artifact.write_block(block, part(&bytes, block)), Err(StoreError::Io { .. })));
    fs::rename(&aside, &data).expect("moved back");
    assert_eq!(artifact.write_block(block, part(&bytes, block)).expect("written"), BlockOutcome::PieceVerified(0));
}

#[test]
fn rotten_pieces_are_found_reported_and_fetched_again() {
    let directory = temp();
    let bytes = noise(MIB, 34);
    let manifest = manifest_of(&bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    write_all(&artifact, &bytes, &blocks(&manifest, LEAF_BYTES));
    let mut rotten = bytes.clone();
    rotten[5 * 16_384 + 7] ^= 1;
    rotten[63 * 16_384] ^= 0x80;
    fs::write(artifact.path(), &rotten).expect("written");

    let mut last = (0, 0);
    let report = artifact.verify(&mut |done, total| last = (done, total)).expect("verified");
    assert_eq!(report, VerifyReport { checked: 64, cleared: vec![5, 63], recovered: vec![] });
    assert_eq!(last, (MIB as u64, MIB as u64));
    assert!(!artifact.is_complete());
    drop((artifact, store));

    let store = open(&directory);
    let artifact = store.get(manifest.artifact()).expect("known");
    assert_eq!(artifact.have().iter_missing().collect::<Vec<_>>(), [5, 63]);
    write_all(&artifact, &bytes, &blocks(&manifest, LEAF_BYTES));
    assert!(artifact.is_complete());
    assert_no_false_have(&artifact, &bytes);
}

/// A store with one complete artifact, closed.
fn with_complete_artifact(bytes: &[u8]) -> (tempfile::TempDir, Manifest, PathBuf) {
    let directory = temp();
    let manifest = manifest_of(bytes);
    let store = open(&directory);
    let artifact = store.begin(&manifest).expect("begun");
    write_all(&artifact, bytes, &blocks(&manifest, LEAF_BYTES));
    let home = store.home(manifest.artifact());
    (directory, manifest, home)
}

#[test]
fn a_rotten_bitmap_costs_a_hashing_pass_and_no_download() {
    let bytes = noise(MIB, 35);
    let (directory, manifest, home) = with_complete_artifact(&bytes);
    fs::write(home.join("have"), b"rotten").expect("written");
    let store = open(&directory);
    assert!(matches!(store.warnings(), [StoreWarning::Have { .. }]));
    let artifact = store.begin(&manifest).expect("begun");
    assert_eq!(artifact.have().ones(), 0);
    assert!(artifact.is_recoverable());
    let report = artifact.recover(&mut |_, _| {}).expect("recovered");
    assert_eq!(report.recovered.len(), 64);
    assert!(artifact.is_complete() && !artifact.is_recoverable());
    drop((artifact, store));
    assert!(open(&directory).get(manifest.artifact()).expect("known").is_complete());
}

#[test]
fn a_rotten_manifest_sets_the_artifact_aside_until_it_is_begun_again() {
    let bytes = noise(MIB, 36);
    let (directory, manifest, home) = with_complete_artifact(&bytes);
    let mut rotten = manifest.encode();
    let at = rotten.len() - 1;
    rotten[at] ^= 1; // Decodes; only the digest in the bitmap tells.
    fs::write(home.join("manifest"), &rotten).expect("written");
    let store = open(&directory);
    assert!(matches!(store.warnings(), [StoreWarning::Manifest { .. }]), "{:?}", store.warnings());
    assert_eq!(store.list(), []);
    let artifact = store.begin(&manifest).expect("begun");
    assert!(artifact.is_recoverable());
    artifact.recover(&mut |_, _| {}).expect("recovered");
    assert!(artifact.is_complete());
    assert_no_false_have(&artifact, &bytes);
}

#[test]
fn what_was_set_aside_can_be_removed() {
    let (directory, manifest, home) = with_complete_artifact(&noise(MIB, 37));
    fs::write(home.join("manifest"), b"").expect("written");
    let store = open(&directory);
    assert!(store.remove(manifest.artifact()).expect("removed"));
    assert!(!home.exists());
}

#[test]
fn a_truncated_data_file_withdraws_every_claim() {
    let bytes = noise(MIB, 38);
    let (directory, manifest, home) = with_complete_artifact(&bytes);
    fs::OpenOptions::new().write(true).open(home.join("data")).and_then(|file| file.set_len(500_000)).expect("cut");
    for _ in 0..2 {
        let store = open(&directory);
        let artifact = store.get(manifest.artifact()).expect("known");
        assert_eq!(artifact.have().ones(), 0);
        assert_eq!(fs::metadata(artifact.path()).expect("there").len(), MIB as u64);
    }
    fs::remove_file(home.join("data")).expect("removed");
    let store = open(&directory);
    assert!(matches!(store.warnings(), [StoreWarning::Data { found: 0, .. }]));
    let artifact = store.get(manifest.artifact()).expect("known");
    write_all(&artifact, &bytes, &blocks(&manifest, LEAF_BYTES));
    assert!(artifact.is_complete());
}

#[test]
fn a_directory_without_a_manifest_is_junk() {
    let (directory, manifest, home) = with_complete_artifact(&noise(MIB, 39));
    fs::remove_file(home.join("manifest")).expect("removed");
    fs::create_dir(directory.path().join("artifacts/README")).expect("made");
    let store = open(&directory);
    assert!(store.warnings().contains(&StoreWarning::Junk { directory: home.clone() }));
    assert!(store.warnings().iter().any(|warning| matches!(warning, StoreWarning::Foreign { .. })));
    assert!(!home.exists());
    assert!(!store.begin(&manifest).expect("begun").is_complete());
}

#[test]
fn what_a_crash_left_half_made_is_gone_after_the_next_start() {
    let directory = temp();
    drop(open(&directory));
    let temporary = directory.path().join("tmp/.tmpabc");
    fs::create_dir(&temporary).expect("made");
    fs::write(temporary.join("data"), b"half").expect("written");
    let repository = directory.path().join("metadata").join(Digest::ZERO.to_string());
    fs::create_dir(&repository).expect("made");
    let litter = [directory.path().join("targets/.updraft-tmp-1-1"), repository.join(".updraft-tmp-1-2")];
    for path in &litter {
        fs::write(path, b"half").expect("written");
    }
    let store = open(&directory);
    assert!(!temporary.exists() && !litter[0].exists() && !litter[1].exists());
    assert_eq!(store.metadata(&Digest::ZERO).expect("opened").list().expect("listed"), Vec::<String>::new());
}

#[test]
fn a_second_store_is_refused_while_an_artifact_of_the_first_is_in_use() {
    let directory = temp();
    let store = open(&directory);
    let artifact = store.begin(&manifest_of(b"small")).expect("begun");
    drop(store);
    assert!(matches!(Store::open(directory.path()), Err(StoreError::Locked { pid: Some(_), .. })));
    drop(artifact);
    open(&directory);
}

#[test]
fn beginning_twice_is_one_artifact() {
    let directory = temp();
    let store = open(&directory);
    let manifest = manifest_of(&noise(MIB, 40));
    let (first, second) = (store.begin(&manifest).expect("begun"), store.begin(&manifest).expect("begun"));
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn a_handle_to_a_removed_artifact_never_touches_its_successor() {
    let directory = temp();
    let store = open(&directory);
    let bytes = noise(MIB, 41);
    let manifest = manifest_of(&bytes);
    let all = blocks(&manifest, LEAF_BYTES);
    let old = store.begin(&manifest).expect("begun");
    write_all(&old, &bytes, &all[..40]);
    assert!(store.remove(manifest.artifact()).expect("removed"));
    assert!(!store.remove(manifest.artifact()).expect("nothing left"));
    assert_eq!(store.manifest_bytes(old.manifest_digest()), None);
    let new = store.begin(&manifest).expect("begun");
    let mut buffer = Vec::new();
    assert!(matches!(old.checkpoint(), Err(StoreError::Removed { .. })));
    assert!(matches!(old.write_block(all[50], part(&bytes, all[50])), Err(StoreError::Removed { .. })));
    assert!(matches!(old.read_block(all[0], &mut buffer), Err(StoreError::Removed { .. })));
    assert_eq!(new.have().ones(), 0);
    drop((old, new, store));
    assert_eq!(open(&directory).get(manifest.artifact()).expect("known").have().ones(), 0);
}

#[test]
fn a_corrected_manifest_replaces_one_that_cannot_be_completed() {
    let directory = temp();
    let store = open(&directory);
    let tail = noise(16_384, 42);
    let zero = leaf_digest(&[0; 16_384]);
    let (wrong, right) =
        (craft(32_768, LEAF_BYTES, &[zero, Digest::ZERO]), craft(32_768, LEAF_BYTES, &[zero, leaf_digest(&tail)]));
    let block = |index: u64| BlockRange::new(index * 16_384, LEAF_BYTES).expect("a valid block");
    let stuck = store.begin(&wrong).expect("begun");
    assert_eq!(stuck.write_block(block(1), &tail).expect("written"), BlockOutcome::PieceRejected(1));
    let fixed = store.begin(&right).expect("begun");
    assert!(stuck.checkpoint().is_err());
    let _ = fixed.write_block(block(0), &[0; 16_384]).expect("written");
    let _ = fixed.write_block(block(1), &tail).expect("written");
    assert!(fixed.is_complete());
    assert!(matches!(store.begin(&wrong), Err(StoreError::ManifestConflict { .. })));
}

#[test]
fn a_published_file_is_complete_at_once_and_importing_again_changes_nothing() {
    let directory = temp();
    let store = open(&directory);
    let bytes = noise(5 * MIB, 43);
    let manifest = manifest_of(&bytes);
    let partial = store.begin(&manifest).expect("begun");
    write_all(&partial, &bytes, &blocks(&manifest, LEAF_BYTES)[..3]);
    let finished = || {
        let mut file = store.temp_file().expect("made");
        io::Write::write_all(&mut file, &bytes).expect("written");
        file
    };
    let imported = store.import(finished(), &manifest).expect("imported");
    assert!(imported.is_complete() && partial.checkpoint().is_err());
    assert!(Arc::ptr_eq(&imported, &store.import(finished(), &manifest).expect("imported")));
    assert_eq!(fs::read_dir(directory.path().join("tmp")).expect("listed").count(), 0);
    assert!(matches!(
        store.import(store.temp_file().expect("made"), &manifest),
        Err(StoreError::Length { found: 0, .. })
    ));
    drop((partial, imported, store));
    let store = open(&directory);
    let artifact = store.get(manifest.artifact()).expect("known");
    assert!(artifact.is_complete());
    assert_eq!(artifact.verify(&mut |_, _| {}).expect("verified").cleared, Vec::<u32>::new());
}

#[cfg(unix)]
#[test]
fn everything_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let parent = temp();
    let root = parent.path().join("data");
    let store = Store::open(&root).expect("opened");
    let artifact = store.begin(&manifest_of(b"x")).expect("begun");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(artifact.path()), 0o600);
    assert_eq!(mode(&root.join("lock")), 0o600);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn arbitrary_files_in_an_artifact_never_keep_the_store_from_opening(
        manifest in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        have in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        data in 0u64..2_000_000,
    ) {
        let bytes = noise(MIB, 44);
        let directory = temp();
        let good = manifest_of(&bytes);
        let home = directory.path().join("artifacts").join(good.artifact().to_string());
        fs::create_dir_all(&home).expect("made");
        fs::write(home.join("manifest"), manifest.unwrap_or_else(|| good.encode())).expect("written");
        if let Some(have) = have {
            fs::write(home.join("have"), have).expect("written");
        }
        fs::File::create(home.join("data")).and_then(|file| file.set_len(data)).expect("written");
        let store = open(&directory);
        prop_assert!(!store.warnings().is_empty());
        let artifact = store.begin(&good).expect("begun");
        assert_no_false_have(&artifact, &bytes);
        write_all(&artifact, &bytes, &blocks(&good, LEAF_BYTES));
        prop_assert!(artifact.is_complete());
    }
}
