//! The directions in which modules may know each other, checked in the source itself.

use std::fs;
use std::path::{Path, PathBuf};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// Shells: each is told what to do and knows no other. `runtime` is where they meet, `cli` above it.
const SHELLS: [&str; 8] = ["archive", "control", "gateway", "installer", "publisher", "store", "swarm", "telemetry"];

/// What a shell may know beside itself, the engine's words and the files all share.
const ALLOWED: [(&str, &str); 3] = [
    // Unpacking and packing are the installer's and the publisher's craft.
    ("installer", "archive"),
    ("publisher", "archive"),
    // A publication puts its artifact into the store.
    ("publisher", "store"),
];

fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| rust_files(&entry.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// The lines of code of a module, its tests and comments left out.
fn code(module: &str) -> Vec<(PathBuf, String)> {
    let file = Path::new(SOURCE).join(format!("{module}.rs"));
    let folder = Path::new(SOURCE).join(module);
    let mut lines = Vec::new();
    for path in rust_files(&file).into_iter().chain(rust_files(&folder)) {
        let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        if is_test {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        lines.extend(
            text.lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .map(|line| (path.clone(), line.to_owned())),
        );
    }
    lines
}

fn mentions(module: &str, what: &str) -> Vec<String> {
    code(module)
        .into_iter()
        .filter(|(_, line)| line.contains(what))
        .map(|(path, line)| format!("{}: {}", path.display(), line.trim()))
        .collect()
}

#[test]
fn shells_do_not_know_each_other() {
    for shell in SHELLS {
        assert!(!code(shell).is_empty(), "{shell} has moved: this test looks at nothing");
        for other in SHELLS.iter().chain(&["runtime", "cli"]).filter(|other| **other != shell) {
            if ALLOWED.contains(&(shell, other)) {
                continue;
            }
            assert_eq!(mentions(shell, &format!("crate::{other}")), Vec::<String>::new(), "{shell} knows {other}");
        }
    }
}

#[test]
fn the_engine_is_pure() {
    for impure in [
        "tokio",
        "libp2p",
        "std::fs",
        "std::net",
        "std::thread",
        "SystemTime",
        "Instant::now",
        "rand::rng(",
        "getrandom",
        "rusqlite",
        "crate::swarm",
        "crate::store",
        "crate::installer",
        "crate::runtime",
        "crate::control",
        "crate::publisher",
    ] {
        assert_eq!(mentions("engine", impure), Vec::<String>::new(), "the engine names {impure}");
    }
}

#[test]
fn libp2p_appears_only_in_the_network_shell() {
    let modules =
        SHELLS.iter().chain(&["runtime", "cli", "config", "engine", "atomic"]).filter(|module| **module != "swarm");
    for module in modules {
        assert_eq!(mentions(module, "libp2p::"), Vec::<String>::new(), "{module} names libp2p");
    }
}

#[test]
fn only_the_command_line_knows_the_command_line() {
    for module in ["runtime", "engine", "config", "atomic"] {
        assert_eq!(mentions(module, "crate::cli"), Vec::<String>::new(), "{module} knows the command line");
    }
}
