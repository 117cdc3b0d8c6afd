//! Where answers and everything else go: stdout, stderr, colours, and nothing after the reader left.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write};

use serde::Serialize;

use super::error::CommandError;
use super::units::printable;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    fn decide(self, terminal: bool, no_color: bool, dumb: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !no_color && !dumb,
        }
    }
}

/// Puts text into colours, or leaves it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Painter {
    colors: bool,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Not at all.
    Plain,
    /// Headings.
    Bold,
    /// Of less weight.
    Dim,
    /// Well.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

impl Painter {
    /// A painter that does, or does not, use colours.
    pub fn new(colors: bool) -> Self {
        Self { colors }
    }

    /// `text` in `style`.
    pub fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
        };
        if self.colors { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The two streams of a command.
pub struct Output {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    json: bool,
    painter: Painter,
    error_painter: Painter,
    live: bool,
    prompts: bool,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("json", &self.json).field("live", &self.live).finish_non_exhaustive()
    }
}

impl Output {
    /// The process's own streams.
    pub fn standard(json: bool, color: ColorChoice) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            json,
            painter: Painter::new(color.decide(out, no_color, dumb)),
            error_painter: Painter::new(color.decide(err, no_color, dumb)),
            live: err && !dumb,
            prompts: err && io::stdin().is_terminal(),
        }
    }

    /// Whether answers are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stderr is a terminal, on which a line can be drawn again.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether someone is there to answer a question.
    pub fn can_prompt(&self) -> bool {
        self.prompts
    }

    /// Colours for stdout.
    pub fn painter(&self) -> Painter {
        self.painter
    }

    /// Whether stderr has colours.
    pub fn colors_stderr(&self) -> bool {
        self.error_painter.colors
    }

    /// Writes to stdout as it is.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> Result<(), CommandError> {
        self.stdout.write_all(text.as_ref())?;
        Ok(self.stdout.flush()?)
    }

    /// Writes a line to stdout.
    pub fn line(&mut self, line: impl Display) -> Result<(), CommandError> {
        writeln!(self.stdout, "{line}")?;
        Ok(self.stdout.flush()?)
    }

    /// Writes a value to stdout as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string(value)
            .map_err(|error| CommandError::internal(format!("the answer cannot be written as JSON: {error}")))?;
        self.line(text)
    }

    /// Answers with JSON where it was asked for, else with what `human` makes of the value.
    pub fn answer<V: Serialize>(
        &mut self,
        view: &V,
        human: impl FnOnce(&V, Painter) -> String,
    ) -> Result<(), CommandError> {
        if self.json { self.json(view) } else { self.text(human(view, self.painter)) }
    }

    /// Says something on stderr. That nobody listens there is no reason to fail.
    pub fn note(&mut self, line: impl Display) {
        let _ = writeln!(self.stderr, "{line}");
    }

    /// Warns on stderr.
    pub fn warn(&mut self, text: &str) {
        let label = self.error_painter.paint(Style::Warn, "warning");
        self.note(format_args!("{label}: {}", printable(text)));
    }

    /// Says on stderr why a command failed.
    pub fn error(&mut self, error: &CommandError) {
        if error.is_silent() {
            return;
        }
        let label = self.error_painter.paint(Style::Bad, error.label());
        let text: Vec<_> = error.to_string().lines().map(printable).collect();
        self.note(format_args!("{label}: {}", text.join("\n")));
        if let Some(hint) = error.hint() {
            let label = self.error_painter.paint(Style::Bold, "hint");
            self.note(format_args!("{label}: {}", printable(hint)));
        }
    }

    /// The stream for progress.
    pub fn progress_stream(&mut self) -> &mut dyn Write {
        &mut *self.stderr
    }

    /// Asks a question on the terminal; only "y" and "yes" are a yes.
    pub fn confirm(&mut self, question: &str) -> Result<bool, CommandError> {
        let _ = write!(self.stderr, "{} [y/N] ", printable(question));
        let _ = self.stderr.flush();
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| CommandError::error(format!("cannot read the answer: {error}")))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

#[cfg(test)]
pub(crate) mod capture {
    //! An [`Output`] whose streams a test can read.

    use std::sync::{Arc, Mutex};

    use super::{Output, Painter, Write, io};

    /// What was written to one stream.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output without colours and terminal, its stdout and its stderr.
    pub(crate) fn output(json: bool) -> (Output, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let plain = Painter::new(false);
        let output = Output {
            stdout: Box::new(out.clone()),
            stderr: Box::new(err.clone()),
            json,
            painter: plain,
            error_painter: plain,
            live: false,
            prompts: false,
        };
        (output, out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_choice_then_the_terminal_then_no_color() {
        assert!(ColorChoice::Always.decide(false, true, true));
        assert!(!ColorChoice::Never.decide(true, false, false));
        assert!(ColorChoice::Auto.decide(true, false, false));
        for (terminal, no_color, dumb) in [(false, false, false), (true, true, false), (true, false, true)] {
            assert!(!ColorChoice::Auto.decide(terminal, no_color, dumb));
        }
    }

    #[test]
    fn an_error_says_what_happened_and_what_to_do() {
        let (mut output, _, err) = capture::output(false);
        output.error(&CommandError::usage("no \u{1b}[2Jway").with_hint("another way"));
        assert_eq!(err.text(), "error: no \u{fffd}[2Jway\nhint: another way\n");
    }

    #[test]
    fn nothing_is_said_to_a_reader_that_left() {
        let (mut output, _, err) = capture::output(false);
        output.error(&CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert_eq!(err.text(), "");
    }
}
