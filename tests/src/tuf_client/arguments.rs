//! The command line, read by hand: a library would exit with 2, and the contract knows only 0 and 1.

use std::ffi::OsString;
use std::path::PathBuf;

use super::fetch::{Server, ServerError};

/// What to say to whom the command line was not clear.
pub const USAGE: &str = "usage:
  tuf-client --metadata-dir DIR init ROOT
  tuf-client --metadata-url URL --metadata-dir DIR refresh
  tuf-client --metadata-url URL --metadata-dir DIR --target-name NAME [--target-name NAME]...
             --target-dir DIR --target-base-url URL download";

/// Why a command line is none.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// An option that there is not.
    #[error("there is no option {0}")]
    Unknown(String),
    /// An option at the end, without its value.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// An option given twice that may be given once.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// An option that the command needs.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// No command, or one that there is not.
    #[error("the command must be init, refresh or download, not '{0}'")]
    Command(String),
    /// More after the command than it takes, or less.
    #[error("{0} after the command")]
    Operands(&'static str),
    /// A value that must be text and is not.
    #[error("the value of {0} is not UTF-8")]
    NotText(&'static str),
    /// A URL that is not understood.
    #[error("{option}: {error}")]
    Url {
        /// The option.
        option: &'static str,
        /// What is wrong with its value.
        error: ServerError,
    },
}

/// What to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Trust a root from now on.
    Init { metadata: PathBuf, root: PathBuf },
    /// Bring the top-level metadata up to date.
    Refresh { metadata: PathBuf, server: Server },
    /// The same, and then get targets, in this order.
    Download { metadata: PathBuf, server: Server, targets: Vec<String>, directory: PathBuf, mirror: Server },
}

const METADATA_DIR: &str = "--metadata-dir";
const METADATA_URL: &str = "--metadata-url";
const TARGET_NAME: &str = "--target-name";
const TARGET_DIR: &str = "--target-dir";
const TARGET_BASE_URL: &str = "--target-base-url";
/// Those that are given once at most.
const SINGLE: [&str; 4] = [METADATA_DIR, METADATA_URL, TARGET_DIR, TARGET_BASE_URL];

/// The options as given.
#[derive(Debug, Default)]
struct Options {
    single: Vec<(&'static str, OsString)>,
    targets: Vec<String>,
}

impl Options {
    fn take(&mut self, option: &str, value: Option<OsString>) -> Result<(), UsageError> {
        if option == TARGET_NAME {
            let value = value.ok_or(UsageError::NoValue(TARGET_NAME))?;
            self.targets.push(value.into_string().map_err(|_| UsageError::NotText(TARGET_NAME))?);
            return Ok(());
        }
        let Some(name) = SINGLE.into_iter().find(|name| *name == option) else {
            return Err(UsageError::Unknown(option.to_owned()));
        };
        if self.single.iter().any(|(known, _)| *known == name) {
            return Err(UsageError::Twice(name));
        }
        self.single.push((name, value.ok_or(UsageError::NoValue(name))?));
        Ok(())
    }

    fn value(&self, name: &'static str) -> Result<&OsString, UsageError> {
        let found = self.single.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value).filter(|value| !value.is_empty()).ok_or(UsageError::Missing(name))
    }

    fn path(&self, name: &'static str) -> Result<PathBuf, UsageError> {
        self.value(name).map(PathBuf::from)
    }

    fn server(&self, option: &'static str) -> Result<Server, UsageError> {
        let url = self.value(option)?.to_str().ok_or(UsageError::NotText(option))?;
        url.parse().map_err(|error| UsageError::Url { option, error })
    }
}

impl Command {
    pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut arguments = arguments.into_iter();
        let mut options = Options::default();
        let command = loop {
            let Some(argument) = arguments.next() else {
                return Err(UsageError::Command(String::new()));
            };
            let text = argument.to_string_lossy();
            if !text.starts_with('-') {
                break text.into_owned();
            }
            let value = arguments.next();
            options.take(&text, value)?;
        };
        let mut operands: Vec<OsString> = arguments.collect();
        let metadata = options.path(METADATA_DIR);
        match (command.as_str(), operands.len()) {
            ("init", 1) => Ok(Self::Init { metadata: metadata?, root: operands.swap_remove(0).into() }),
            ("init", 0) => Err(UsageError::Operands("the trusted root is missing")),
            ("refresh", 0) => Ok(Self::Refresh { metadata: metadata?, server: options.server(METADATA_URL)? }),
            ("download", 0) if options.targets.is_empty() => Err(UsageError::Missing(TARGET_NAME)),
            ("download", 0) => Ok(Self::Download {
                metadata: metadata?,
                server: options.server(METADATA_URL)?,
                directory: options.path(TARGET_DIR)?,
                mirror: options.server(TARGET_BASE_URL)?,
                targets: options.targets,
            }),
            ("init" | "refresh" | "download", _) => Err(UsageError::Operands("there is too much")),
            _ => Err(UsageError::Command(command.escape_debug().to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn each_form_of_the_contract_is_understood() {
        assert!(matches!(parse("--metadata-dir d init r"), Ok(Command::Init { .. })));
        assert!(matches!(parse("--metadata-url http://h/m --metadata-dir d refresh"), Ok(Command::Refresh { .. })));
        let download = "--metadata-url http://h/m --metadata-dir d --target-name a/b --target-name c \
                        --target-dir x --target-base-url http://h/t download";
        let Ok(Command::Download { targets, .. }) = parse(download) else { panic!("{:?}", parse(download)) };
        assert_eq!(targets, ["a/b", "c"]);
    }

    #[test]
    fn every_other_form_is_refused() {
        for line in [
            "",
            "--metadata-dir",
            "--metadata-dir d",
            "--metadata-dir d init",
            "--metadata-dir d init r r",
            "--metadata-dir d --metadata-dir d init r",
            "init r",
            "--metadata-dir d refresh",
            "--metadata-url http://h/ refresh",
            "--metadata-url http://h/ --metadata-dir d refresh now",
            "--metadata-url https://h/ --metadata-dir d refresh",
            "--metadata-url http://h/ --metadata-dir d --target-dir x --target-base-url http://h/ download",
            "--metadata-url http://h/ --metadata-dir d --target-name n --target-base-url http://h/ download",
            "--metadata-url http://h/ --metadata-dir d --target-name n --target-dir x download",
            "--verbose --metadata-dir d init r",
            "--metadata-dir d remove",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_empty_directory_is_no_directory() {
        let arguments = ["--metadata-dir", "", "init", "r"].map(OsString::from);
        assert!(matches!(Command::parse(arguments), Err(UsageError::Missing(METADATA_DIR))));
    }
}
