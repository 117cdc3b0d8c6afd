//! Why a request failed: the error that crosses the control socket.

use serde::{Deserialize, Serialize};

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// The kind; it decides the exit code.
    pub code: ErrorCode,
    /// What happened, and to what.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl ErrorBody {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The kinds of failure, one for each exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request makes no sense as it stands.
    Usage,
    /// There is nothing to do.
    NothingToDo,
    /// Bytes or signatures did not verify.
    VerificationFailed,
    /// A gate is closed.
    BlockedByPolicy,
    /// The new release failed its probation and the old one runs again.
    RolledBack,
    /// No node answers.
    NodeUnreachable,
    /// Anything else.
    #[serde(other)]
    Error,
}
