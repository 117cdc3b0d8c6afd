//! `updraft doctor`: what is wrong with a node, or will be.

use std::fmt::Write as _;

use super::output::{Painter, Style};
use super::units::printable;
use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::runtime::doctor::{DoctorView, Level, examine};

/// Looks at everything; fails where something does not work.
pub fn run(global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let view = examine(&global.data_dir()?);
    output.answer(&view, human)?;
    let worst = view.findings.iter().map(|finding| finding.level).max();
    Ok(if worst == Some(Level::Problem) { ExitCode::Error } else { ExitCode::Ok })
}

fn human(view: &DoctorView, painter: Painter) -> String {
    let mut text = String::new();
    for finding in &view.findings {
        let (word, style) = match finding.level {
            Level::Ok => ("ok", Style::Good),
            Level::Warning => ("warning", Style::Warn),
            Level::Problem => ("problem", Style::Bad),
        };
        let _ = writeln!(text, "{}  {}", painter.paint(style, &format!("{word:<7}")), printable(&finding.text));
        if let Some(hint) = &finding.hint {
            let _ = writeln!(text, "         {}", painter.paint(Style::Dim, &printable(hint)));
        }
    }
    text
}
