//! How a command ends: an exit code, and for people what happened and what to do next.

use std::fmt;
use std::io;

use crate::control::client::ClientError;
use crate::control::messages::{ErrorBody, ErrorCode};

/// The program's exit codes: a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Ok = 0,
    /// It failed.
    Error = 1,
    /// The command or the configuration makes no sense.
    Usage = 2,
    /// There was nothing to do.
    NothingToDo = 3,
    /// Bytes or signatures did not verify.
    VerificationFailed = 5,
    /// A gate is closed.
    BlockedByPolicy = 6,
    /// The new release failed and the old one runs again.
    RolledBack = 7,
    /// No node answers.
    NodeUnreachable = 8,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

impl From<ErrorCode> for ExitCode {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Error => Self::Error,
            ErrorCode::Usage => Self::Usage,
            ErrorCode::NothingToDo => Self::NothingToDo,
            ErrorCode::VerificationFailed => Self::VerificationFailed,
            ErrorCode::BlockedByPolicy => Self::BlockedByPolicy,
            ErrorCode::RolledBack => Self::RolledBack,
            ErrorCode::NodeUnreachable => Self::NodeUnreachable,
        }
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Something that the user, or time, can change.
    User,
    /// Something that should not happen: a fault of this program or its machine.
    Internal,
    /// The reader of stdout went away: it has what it wanted.
    ReaderGone,
}

/// A command that did not succeed.
#[derive(Debug)]
pub struct CommandError {
    kind: Kind,
    code: ExitCode,
    message: String,
    hint: Option<String>,
}

impl CommandError {
    /// The command makes no sense as typed, or the configuration as written.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// It failed, for a reason that the user can see to.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Error, message)
    }

    /// With this exit code.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { kind: Kind::User, code, message: message.into(), hint: None }
    }

    /// It failed for a reason that no user should have to see to.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: Kind::Internal, code: ExitCode::Error, message: message.into(), hint: None }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the program ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::ReaderGone => ExitCode::Ok,
            Kind::User | Kind::Internal => self.code,
        }
    }

    /// Whether there is anybody to tell.
    pub fn is_silent(&self) -> bool {
        self.kind == Kind::ReaderGone
    }

    /// What it is called at the start of the line.
    pub(super) fn label(&self) -> &'static str {
        match (self.kind, self.code) {
            (Kind::Internal, _) => "internal error",
            (_, ExitCode::NothingToDo) => "nothing to do",
            (_, ExitCode::BlockedByPolicy) => "blocked",
            _ => "error",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}

impl From<ErrorBody> for CommandError {
    fn from(body: ErrorBody) -> Self {
        Self { kind: Kind::User, code: body.code.into(), message: body.message, hint: body.hint }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Refused(body) => body.into(),
            ClientError::Unreachable { .. } => Self::new(ExitCode::NodeUnreachable, message).with_hint(
                "start one (`updraft peer --join TICKET`, or `updraft seed`), or name its directory with --data-dir",
            ),
            ClientError::Silent { .. } => Self::new(ExitCode::NodeUnreachable, message)
                .with_hint("it may hang: see its log, and restart it where it does not recover"),
            ClientError::Interrupted { .. } => Self::new(ExitCode::NodeUnreachable, message)
                .with_hint("it stopped or crashed: see its log, start it again, then look with `updraft status`"),
            ClientError::Denied { .. } => Self::error(message).with_hint("run the command as the node's own user"),
            ClientError::Unreadable { .. } => Self::error(message)
                .with_hint("use the updraft that the node runs; restart the node where it was just updated"),
            ClientError::Unsendable(_) => Self::usage(message).with_hint("use paths in UTF-8"),
        }
    }
}

/// Writing to stdout failed.
impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::ReaderGone } else { Kind::User };
        Self { kind, code: ExitCode::Error, message: format!("cannot write the answer: {error}"), hint: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_of_a_node_has_the_documented_exit_code() {
        for (word, number) in [
            ("error", 1),
            ("usage", 2),
            ("nothing_to_do", 3),
            ("verification_failed", 5),
            ("blocked_by_policy", 6),
            ("rolled_back", 7),
            ("node_unreachable", 8),
        ] {
            let code: ErrorCode = serde_json::from_str(&format!("\"{word}\"")).expect("decodes");
            let error = CommandError::from(ErrorBody::new(code, "x"));
            assert_eq!(error.exit_code() as u8, number, "{word}");
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(error.is_silent());
        assert_eq!(error.exit_code(), ExitCode::Ok);
        assert_eq!(CommandError::from(io::Error::from(io::ErrorKind::StorageFull)).exit_code(), ExitCode::Error);
    }
}
