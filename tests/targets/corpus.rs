//! What fuzzing found worth keeping, through every decoder again: `tests/fuzz/corpus` and
//! `tests/fuzz/regressions`. Needs nothing that fuzzing itself needs.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use updraft_protocol::digest::Digest;
use updraft_tests::decoders::{ALL, Decoder, seeds};

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz");

/// Where the files of a decoder lie: what was kept to start from, and what once went wrong.
const FOLDERS: [&str; 2] = ["corpus", "regressions"];

/// Time for one input. Real ones take milliseconds; a machine may be busy, a decoder may not hang.
const DEADLINE: Duration = Duration::from_secs(60);

/// Bytes of all corpora together: they are part of the repository.
const MAX_CORPUS_BYTES: u64 = 2 * 1024 * 1024;

fn directory(folder: &str, decoder: &str) -> PathBuf {
    Path::new(FUZZ).join(folder).join(decoder)
}

/// The files of a directory in the order of their names; none where there is no directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

fn decoder(name: &str) -> Decoder {
    *ALL.iter().find(|decoder| decoder.name == name).expect("a decoder of this name")
}

/// Runs every file and every seed of a decoder through its body, each within the deadline.
fn all_pass(name: &str) {
    let decoder = decoder(name);
    let mut inputs: Vec<(String, Vec<u8>)> =
        seeds::of(name).into_iter().enumerate().map(|(at, seed)| (format!("seed {at}"), seed)).collect();
    for folder in FOLDERS {
        let files = files(&directory(folder, name));
        assert!(folder != "corpus" || !files.is_empty(), "{name} has no corpus; see docs/testing.md");
        inputs.extend(files.into_iter().map(|file| (file.display().to_string(), fs::read(&file).expect("readable"))));
    }
    let (done, results) = sync_channel(1);
    let labels: Vec<String> = inputs.iter().map(|(label, _)| label.clone()).collect();
    let worker = thread::spawn(move || {
        for (_, bytes) in inputs {
            let accepted = catch_unwind(AssertUnwindSafe(|| (decoder.body)(&bytes))).ok();
            if done.send(accepted).is_err() {
                return;
            }
        }
    });
    let (mut accepted, mut refused) = (0, 0);
    for label in labels {
        match results.recv_timeout(DEADLINE) {
            Ok(Some(true)) => accepted += 1,
            Ok(Some(false)) => refused += 1,
            Ok(None) => panic!("{name}: {label} fails; its reason is printed above"),
            Err(RecvTimeoutError::Timeout) => panic!("{name}: {label} took more than {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("{name}: {label} ended the thread"),
        }
    }
    worker.join().expect("it has caught every panic");
    // A corpus of one kind tests half of a decoder.
    assert!(accepted > 0, "{name}: nothing is accepted");
    assert!(refused > 0, "{name}: nothing is refused");
}

macro_rules! corpora {
    ($($decoder:ident)*) => {
        $(#[test]
        fn $decoder() {
            all_pass(stringify!($decoder));
        })*

        #[test]
        fn every_decoder_is_tested_and_fuzzed() {
            let known: BTreeSet<&str> = ALL.iter().map(|decoder| decoder.name).collect();
            assert_eq!(known, BTreeSet::from([$(stringify!($decoder)),*]), "a decoder without a test here");
            let manifest = fs::read_to_string(Path::new(FUZZ).join("Cargo.toml")).expect("readable");
            let targets: BTreeSet<&str> = manifest
                .lines()
                .filter_map(|line| line.strip_prefix("path = \"targets/")?.strip_suffix(".rs\""))
                .collect();
            assert_eq!(known, targets, "tests/fuzz/Cargo.toml names other targets");
            for folder in FOLDERS {
                for directory in files(&Path::new(FUZZ).join(folder)) {
                    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    assert!(known.contains(name), "{} belongs to no decoder", directory.display());
                }
            }
        }
    };
}

corpora! {
    canonical channel_policy compressed_tar config control_socket evidence head http key manifest meta names path_pattern
    release root session snapshot tar targets ticket timestamp transfer zip
}

#[test]
fn the_corpora_stay_small() {
    let bytes: u64 = ALL
        .iter()
        .flat_map(|decoder| files(&directory("corpus", decoder.name)))
        .map(|file| fs::metadata(file).expect("there").len())
        .sum();
    assert!(bytes <= MAX_CORPUS_BYTES, "{bytes} bytes of corpora; minimise them as docs/testing.md says");
}

/// Not a test: puts the seeds of every decoder beside its corpus, for fuzzing to start from.
#[test]
#[ignore = "writes into tests/fuzz/corpus"]
fn write_the_seeds() {
    for decoder in ALL {
        let directory = directory("corpus", decoder.name);
        fs::create_dir_all(&directory).expect("a directory");
        for seed in seeds::of(decoder.name) {
            fs::write(directory.join(Digest::of(&seed).to_string()), seed).expect("a seed");
        }
    }
}
