//! What the program says about itself while it runs: on stderr, never on stdout.
//!
//! stdout belongs to answers that scripts read. `UPDRAFT_LOG` filters like `RUST_LOG` does
//! elsewhere (`info`, `updraft=debug,libp2p=info`). Nothing here, and nothing that this program
//! configures, reads `SSLKEYLOGFILE`: session keys are not telemetry.

use tracing_subscriber::EnvFilter;

/// The variable that filters.
pub const FILTER_VARIABLE: &str = "UPDRAFT_LOG";

/// How much is said where nobody asked for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A command: only what is wrong.
    Command,
    /// A node: also what it does.
    Node,
    /// `--verbose`: also why.
    Verbose,
}

impl Level {
    fn directives(self) -> &'static str {
        match self {
            Self::Command => "warn",
            Self::Node => "warn,updraft=info",
            Self::Verbose => "info,updraft=debug",
        }
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter makes no sense.
    #[error("{FILTER_VARIABLE}='{text}' is not a filter such as 'info' or 'updraft=debug': {reason}")]
    Filter {
        /// What it is.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Someone else installed a subscriber first.
    #[error("telemetry was started twice")]
    Twice,
}

/// Starts logging to stderr, in colour where `color` says so.
pub fn init(level: Level, color: bool) -> Result<(), TelemetryError> {
    let filter = filter(level, std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(level == Level::Verbose)
        .try_init()
        .map_err(|_| TelemetryError::Twice)
}

fn filter(level: Level, variable: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let text = variable.filter(|text| !text.is_empty()).unwrap_or(level.directives());
    EnvFilter::try_new(text)
        .map_err(|error| TelemetryError::Filter { text: text.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_level_and_an_empty_one_does_not() {
        let shown = |variable| filter(Level::Node, variable).expect("valid").to_string();
        assert_eq!(shown(Some("trace")), "trace");
        assert_eq!(shown(Some("")), shown(None));
    }

    #[test]
    fn every_level_is_a_valid_filter() {
        for level in [Level::Command, Level::Node, Level::Verbose] {
            assert!(filter(level, None).is_ok());
        }
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_an_error() {
        let error = filter(Level::Node, Some("updraft=loud=er")).expect_err("invalid");
        assert!(error.to_string().contains("UPDRAFT_LOG"), "{error}");
    }
}
