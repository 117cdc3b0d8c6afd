//! The program as a product of its own: releases of it that differ, and what runs of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::de::DeserializeOwned;
use updraft::control::client::Client;
use updraft::control::messages::Request;
use updraft::control::views::StatusView;

use crate::process::{DEADLINE, Node, Program, write};

/// What is in `bin/updraft` of a release.
#[derive(Debug, Clone, Copy)]
pub enum Own<'a> {
    /// The program itself.
    Program,
    /// A shell script in its place.
    Script(&'a str),
}

/// The program without what only a debugger needs, so that releases of it are small.
///
/// # Panics
/// Where `directory` cannot be written.
pub fn stripped(program: Program, directory: &Path) -> PathBuf {
    let path = directory.join("stripped");
    fs::create_dir_all(directory).expect("writable");
    let strip = Command::new("strip").arg("-o").arg(&path).arg(program.0).output();
    if !strip.is_ok_and(|ended| ended.status.success()) {
        fs::copy(program.0, &path).expect("the program can be read");
    }
    path
}

/// Publishes `app` at `seed`: `bin/updraft`, a file that names the version, and these files.
///
/// # Panics
/// Where that fails.
pub fn publish(seed: &Node, program: &Path, tree: &Path, version: &str, own: Own<'_>, files: &[&str]) {
    let inside = tree.join("bin/updraft");
    match own {
        Own::Program => {
            let mut bytes = fs::read(program).expect("readable");
            // What follows the sections of a program is nobody's: the hash differs, nothing else does.
            bytes.extend_from_slice(version.as_bytes());
            write(&inside, bytes);
        }
        Own::Script(script) => write(&inside, format!("#!/bin/sh\n{script}\n")),
    }
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).expect("our own file");
    write(&tree.join("version"), version);
    for file in files {
        write(&tree.join(file), version);
    }
    let path = tree.to_str().expect("a plain name");
    seed.run(["publish", path, "--product", "app", "--version", version, "--level", "1"]).succeeded();
    fs::remove_dir_all(tree).expect("our own tree");
}

/// Asks the node of a data directory; none where none answers.
pub fn ask<R: DeserializeOwned>(data_dir: &Path, request: &Request) -> Option<R> {
    Client::connect(data_dir).ok()?.send(request).ok()?.finish().ok()
}

/// What a node that may be away just now says of itself.
pub fn status(data_dir: &Path) -> Option<StatusView> {
    ask(data_dir, &Request::Status { explain: true })
}

/// Waits until the node of a data directory is as it should be, whichever process that is.
///
/// # Panics
/// Where it takes too long; with its last status.
pub fn until_status(data_dir: &Path, what: &str, holds: impl Fn(&StatusView) -> bool) -> StatusView {
    let started = Instant::now();
    let mut last = None;
    loop {
        match status(data_dir) {
            Some(status) if holds(&status) => return status,
            Some(status) => last = Some(status),
            None => {}
        }
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {}: {last:#?}", data_dir.display());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The children of a process.
pub fn children_of(pid: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything.
        line.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|&child| parent_of(child) == Some(pid)).collect()
}

/// The file that a process runs; none where there is no such process any more.
pub fn program_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}
