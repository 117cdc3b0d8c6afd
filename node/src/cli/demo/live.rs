//! One line that is drawn over itself on a terminal: how far each peer is, and from whom.

use std::fmt::Write as _;

use super::super::units::bytes;
use super::super::{CommandError, Output};
use crate::control::views::StatusView;

const BAR: usize = 16;

/// The line, or nothing where there is no terminal.
pub(super) struct Live {
    on: bool,
    drawn: bool,
}

impl Live {
    pub(super) fn new(output: &Output) -> Self {
        Self { on: output.is_live(), drawn: false }
    }

    pub(super) fn clear(&mut self, output: &mut Output) -> Result<(), CommandError> {
        if std::mem::take(&mut self.drawn) {
            output.text("\r\x1b[K")?;
        }
        Ok(())
    }

    pub(super) fn draw(&mut self, output: &mut Output, statuses: &[StatusView]) -> Result<(), CommandError> {
        if !self.on {
            return Ok(());
        }
        let mut line = String::from("\r\x1b[K");
        for (number, status) in (1..).zip(statuses) {
            let Some(subscription) = status.subscriptions.first() else { continue };
            let progress = subscription.progress.unwrap_or_default();
            let total = progress.bytes_total.max(1);
            let part = |bytes: u64| usize::try_from(bytes.min(total).saturating_mul(BAR as u64) / total).unwrap_or(BAR);
            let done = part(progress.bytes_done);
            let seed = part(progress.bytes_from_seed).min(done);
            let _infallible = write!(
                line,
                "  peer-{number} [{}{}{}] {} {}",
                "s".repeat(seed),
                "p".repeat(done - seed),
                "·".repeat(BAR - done),
                bytes(progress.bytes_done),
                subscription.state.as_str()
            );
        }
        self.drawn = true;
        output.text(line)
    }
}
