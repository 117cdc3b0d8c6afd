//! Rows that the disk did not take: they are kept in their order and written once it does.
//!
//! The node knows things that a full disk does not: that a release is quarantined, held, installed. None of
//! that may be forgotten because a restart comes after the disk has room again. Nothing is written before
//! what is owed, so that a later row is never undone by an earlier one. The rows that wait are bounded.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::open::Opened;
use crate::store::state::StateError;

/// Between two tries while nothing else is to be done.
const AGAIN: Duration = Duration::from_secs(1);

/// Rows that wait at most. Steps wait for their rows, so that these are words of an operator and of
/// neighbours.
const MAX_ROWS: usize = 1024;

type Row = Box<dyn Fn(&Opened) -> Result<(), StateError> + Send>;

/// Why rows wait, for whoever shows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// The sentence; `None` where nothing waits.
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// The rows that wait.
#[derive(Default)]
pub(super) struct Owed {
    rows: RefCell<VecDeque<Row>>,
    trouble: Trouble,
    /// Whether a row that no disk will ever take still waits: steps follow it that need it.
    is_strict: bool,
}

impl Owed {
    /// Rows of which one that no disk will ever take is reported and dropped.
    pub(super) fn of_files(trouble: Trouble) -> Self {
        Self { rows: RefCell::default(), trouble, is_strict: false }
    }

    /// Lines of a journal: no step is taken without its line, whatever the reason.
    pub(super) fn of_steps(trouble: Trouble) -> Self {
        Self { rows: RefCell::default(), trouble, is_strict: true }
    }

    /// The next job; what is owed is tried again while there is none.
    pub(super) fn next<T>(&self, opened: &Opened, tasks: &Handle, queue: &mut mpsc::Receiver<T>) -> Option<T> {
        while !self.is_empty() {
            match tasks.block_on(async { tokio::time::timeout(AGAIN, queue.recv()).await }) {
                Ok(job) => return job,
                Err(_elapsed) => self.settle(opened),
            }
        }
        queue.blocking_recv()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.borrow().is_empty()
    }

    /// Why rows wait; `None` where every row that was asked for is on disk.
    pub(super) fn reason(&self) -> Option<String> {
        if self.is_empty() { None } else { self.trouble.get() }
    }

    /// Writes a row, now or as soon as the disk takes it.
    pub(super) fn write(&self, opened: &Opened, row: impl Fn(&Opened) -> Result<(), StateError> + Send + 'static) {
        let mut rows = self.rows.borrow_mut();
        if rows.len() >= MAX_ROWS {
            tracing::error!("more rows wait for the disk than are kept; the latest is lost");
            return;
        }
        rows.push_back(Box::new(row));
        drop(rows);
        self.settle(opened);
    }

    /// Writes what waits, as far as the disk takes it.
    pub(super) fn settle(&self, opened: &Opened) {
        let mut rows = self.rows.borrow_mut();
        while let Some(row) = rows.front() {
            match row(opened) {
                Err(error) if self.is_strict || error.may_pass() => {
                    let reason = sentence(&error, &opened.store.state_path());
                    if self.trouble.get().is_none() {
                        tracing::error!(%error, "the state database cannot be written; its rows wait");
                    }
                    self.trouble.set(Some(reason));
                    return;
                }
                Err(error) => tracing::error!(%error, "the state database refused"),
                Ok(()) => {}
            }
            rows.pop_front();
        }
        if self.trouble.get().is_some() {
            tracing::info!("the state database can be written again; nothing was lost");
            self.trouble.set(None);
        }
    }
}

/// What happened, to what, and what to do.
fn sentence(error: &StateError, state: &Path) -> String {
    let advice = error.advice(state.parent().unwrap_or(state));
    format!("the journal cannot be written: {error}; {advice}, and the node goes on by itself")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn opened() -> (tempfile::TempDir, Opened) {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let opened = Opened::create(scratch.path(), &["app".parse().expect("a name")]).expect("a new repository");
        (scratch, opened)
    }

    /// A disk that has room or has not, and what was written to it.
    #[derive(Debug, Clone, Default)]
    struct Disk {
        room: Arc<AtomicBool>,
        written: Arc<Mutex<Vec<u32>>>,
    }

    impl Disk {
        /// A row of this number.
        fn row(&self, number: u32) -> impl Fn(&Opened) -> Result<(), StateError> + Send + 'static {
            let disk = self.clone();
            move |_| {
                if !disk.room.load(Ordering::Relaxed) {
                    return Err(StateError::full_disk());
                }
                disk.written.lock().expect("no panic").push(number);
                Ok(())
            }
        }

        fn written(&self) -> Vec<u32> {
            self.written.lock().expect("no panic").clone()
        }
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_written_later_in_its_order() {
        let (_scratch, opened) = opened();
        let disk = Disk::default();
        let trouble = Trouble::default();
        let owed = Owed::of_files(trouble.clone());
        owed.write(&opened, disk.row(1));
        owed.write(&opened, disk.row(2));
        let reason = owed.reason().expect("it says so");
        assert!(reason.contains("make room on the disk of"), "{reason}");
        disk.room.store(true, Ordering::Relaxed);
        owed.write(&opened, disk.row(3));
        assert_eq!(disk.written(), [1, 2, 3]);
        assert_eq!((owed.reason(), trouble.get()), (None, None));
    }

    #[test]
    fn what_no_disk_will_ever_take_does_not_hold_up_the_rest() {
        let (_scratch, opened) = opened();
        let disk = Disk::default();
        disk.room.store(true, Ordering::Relaxed);
        let owed = Owed::default();
        owed.write(&opened, |_| Err(StateError::Path { path: "nowhere".into() }));
        owed.write(&opened, disk.row(1));
        assert!(owed.is_empty());
        assert_eq!(disk.written(), [1]);
    }

    #[test]
    fn the_rows_that_wait_are_bounded() {
        let (_scratch, opened) = opened();
        let owed = Owed::default();
        for _ in 0..MAX_ROWS + 10 {
            owed.write(&opened, |_| Err(StateError::full_disk()));
        }
        assert_eq!(owed.rows.borrow().len(), MAX_ROWS);
    }
}
