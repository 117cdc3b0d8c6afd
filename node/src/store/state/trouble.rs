//! Which failures of the state database pass, and what to do about them.

use std::path::Path;

use rusqlite::ErrorCode;

use super::StateError;

impl StateError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Database(error) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// Whether the same row may be taken later: it is the disk that refused, not the database.
    pub fn may_pass(&self) -> bool {
        use ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly,
            SystemIoFailure,
        };
        let passing = [
            CannotOpen,
            DatabaseBusy,
            DatabaseLocked,
            DiskFull,
            OutOfMemory,
            PermissionDenied,
            ReadOnly,
            SystemIoFailure,
        ];
        self.code().is_some_and(|code| passing.contains(&code))
    }

    /// What to do about it; the database lies in `directory`.
    pub fn advice(&self, directory: &Path) -> String {
        let place = directory.display();
        match self.code() {
            Some(ErrorCode::DiskFull) => format!("make room on the disk of '{place}'"),
            Some(ErrorCode::SystemIoFailure) => format!("see that the disk of '{place}' has room and can be written"),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                format!("see that the node may write in '{place}'")
            }
            _ => format!("see what else uses '{place}'"),
        }
    }

    /// What a full disk makes of a statement.
    #[cfg(test)]
    pub(crate) fn full_disk() -> Self {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None).into()
    }
}
