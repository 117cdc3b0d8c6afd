//! The configuration file.

use std::cell::OnceCell;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use updraft::config::file::parse;
use updraft::config::{CONFIG_NAME, ConfigError, Overrides, load};

thread_local! {
    /// One data directory for all inputs of a thread.
    static DIRECTORY: OnceCell<TempDir> = const { OnceCell::new() };
}

/// A file is taken or refused for reasons that each have a line of it; loading takes none that parsing
/// refuses, and the values that it takes are within their bounds.
pub fn config(bytes: &[u8]) -> bool {
    if let Ok(text) = str::from_utf8(bytes)
        && let Err(problems) = parse(text)
    {
        assert!(!problems.is_empty(), "refused for no reason");
        let lines = text.matches('\n').count() + 1;
        assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line) && !problem.text.is_empty()));
    }
    DIRECTORY.with(|directory| {
        let directory = directory.get_or_init(|| {
            let memory = Path::new("/dev/shm");
            let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
            made.expect("a temporary directory")
        });
        fs::write(directory.path().join(CONFIG_NAME), bytes).expect("the file");
        loaded(bytes, directory.path())
    })
}

fn loaded(bytes: &[u8], data_dir: &Path) -> bool {
    let parsed = str::from_utf8(bytes).ok().map(parse);
    match load(Overrides { data_dir: Some(data_dir.to_owned()), ..Overrides::default() }) {
        Ok(effective) => {
            assert!(matches!(parsed, Some(Ok(_))), "loaded what does not parse");
            let config = effective.config;
            assert!((1..=4096).contains(&config.max_peers) && config.keep_releases >= 2);
            assert!(config.subscriptions.iter().all(|s| s.directory.as_ref().is_none_or(|d| d.is_absolute())));
            assert_eq!(effective.file, Some(data_dir.join(CONFIG_NAME)));
            return true;
        }
        Err(ConfigError::Invalid { problems, .. }) => assert_eq!(parsed, Some(Err(problems))),
        Err(ConfigError::Contradiction(reason)) => assert!(matches!(parsed, Some(Ok(_))) && !reason.is_empty()),
        Err(ConfigError::Unreadable { .. }) => assert!(parsed.is_none(), "text that cannot be read"),
        Err(ConfigError::NoDataDirectory) => panic!("a data directory was given"),
    }
    false
}
