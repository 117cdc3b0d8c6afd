//! Long work on stderr: a bar that redraws itself on a terminal, else one line per 10 %.

use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

use super::units::{bytes, percent, printable, rate};
use crate::control::messages::{Phase, Progress};

/// Time between two drawings of the bar: fast enough to look alive, slow enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(100);

/// Characters of the bar.
const BAR_WIDTH: u64 = 24;

/// Bytes between two lines where the total is not known.
const STEP_BYTES: u64 = 256 * 1024 * 1024;

/// Shows progress, as much of it as the stream can take.
#[derive(Debug)]
pub struct ProgressDisplay {
    live: bool,
    drawn: Option<Instant>,
    phase: Option<Phase>,
    text: Option<String>,
    step: u64,
}

impl ProgressDisplay {
    /// `live` where the stream is a terminal.
    pub fn new(live: bool) -> Self {
        Self { live, drawn: None, phase: None, text: None, step: 0 }
    }

    /// Shows where the work is.
    pub fn show(&mut self, stream: &mut dyn Write, progress: &Progress) {
        let new_phase = self.phase != Some(progress.phase) || self.text != progress.text;
        if self.live {
            let now = Instant::now();
            if new_phase || self.drawn.is_none_or(|drawn| now.duration_since(drawn) >= REDRAW) {
                self.drawn = Some(now);
                let _ = write!(stream, "\r\u{1b}[K{}", bar(progress));
                let _ = stream.flush();
            }
        } else {
            let step = match progress.bytes_total {
                Some(total) => percent(progress.bytes_done, total) / 10,
                None => progress.bytes_done / STEP_BYTES,
            };
            if new_phase || step > self.step {
                let _ = writeln!(stream, "{}", line(progress));
            }
            self.step = step;
        }
        if new_phase {
            self.phase = Some(progress.phase);
            self.text.clone_from(&progress.text);
        }
    }

    /// Clears the bar, so that what follows has the line to itself.
    pub fn end(&mut self, stream: &mut dyn Write) {
        if self.live && self.drawn.take().is_some() {
            let _ = write!(stream, "\r\u{1b}[K");
            let _ = stream.flush();
        }
    }
}

fn bar(progress: &Progress) -> String {
    let Some(total) = progress.bytes_total else {
        return line(progress);
    };
    let filled = percent(progress.bytes_done, total) * BAR_WIDTH / 100;
    let cells: String = (0..BAR_WIDTH).map(|cell| if cell < filled { '#' } else { '.' }).collect();
    let word = progress.phase.word();
    line(progress).replacen(word, &format!("{word} [{cells}]"), 1)
}

/// `fetching 45 %, 12.0 of 26.1 MiB, 3.2 MiB/s, 10 % from seeds`.
fn line(progress: &Progress) -> String {
    let mut text = progress.phase.word().to_owned();
    match progress.bytes_total {
        Some(0) => {}
        Some(total) => {
            let done = progress.bytes_done;
            let _ = write!(text, " {} %, {} of {}", percent(done, total), bytes(done), bytes(total));
        }
        None if progress.bytes_done > 0 => {
            let _ = write!(text, " {}", bytes(progress.bytes_done));
        }
        None => {}
    }
    if progress.rate_bytes_per_second > 0 {
        let _ = write!(text, ", {}", rate(progress.rate_bytes_per_second));
    }
    if let Some(sources) = sources(progress.bytes_from_seed, progress.bytes_from_peers, progress.bytes_reused) {
        let _ = write!(text, ", {sources}");
    }
    if let Some(detail) = &progress.text {
        let _ = write!(text, ": {}", printable(detail));
    }
    text
}

/// Where bytes came from, in percent; `None` before the first.
pub fn sources(from_seed: u64, from_peers: u64, reused: u64) -> Option<String> {
    let all = from_seed.saturating_add(from_peers).saturating_add(reused);
    if all == 0 {
        return None;
    }
    let parts: Vec<_> = [("seeds", from_seed), ("peers", from_peers), ("this disk", reused)]
        .iter()
        .filter(|(_, part)| *part > 0)
        .map(|(who, part)| format!("{} % from {who}", percent(*part, all)))
        .collect();
    Some(parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bytes_done: u64) -> Progress {
        Progress::local(Phase::Packing, bytes_done, Some(1000))
    }

    #[test]
    fn without_a_terminal_there_is_a_line_per_ten_percent() {
        let mut stream = Vec::new();
        let mut display = ProgressDisplay::new(false);
        for done in 0..=1000 {
            display.show(&mut stream, &at(done));
        }
        display.end(&mut stream);
        let text = String::from_utf8(stream).expect("UTF-8");
        assert_eq!(text.lines().count(), 11);
        assert_eq!(text.lines().next(), Some("packing 0 %, 0 B of 1000 B"));
        assert_eq!(text.lines().last(), Some("packing 100 %, 1000 B of 1000 B"));
    }

    #[test]
    fn a_new_phase_gets_a_line_at_once() {
        let mut stream = Vec::new();
        let mut display = ProgressDisplay::new(false);
        display.show(
            &mut stream,
            &Progress { text: Some("no peers yet".to_owned()), ..Progress::local(Phase::Waiting, 0, None) },
        );
        display.show(&mut stream, &Progress::local(Phase::Signing, 0, None));
        assert_eq!(String::from_utf8(stream).expect("UTF-8"), "waiting: no peers yet\nsigning\n");
    }

    #[test]
    fn on_a_terminal_one_line_is_drawn_over_and_over() {
        let mut stream = Vec::new();
        let mut display = ProgressDisplay::new(true);
        for done in 0..=500 {
            display.show(&mut stream, &at(done));
        }
        display.end(&mut stream);
        let text = String::from_utf8(stream).expect("UTF-8");
        assert!(text.starts_with("\r\u{1b}[Kpacking [........................] 0 %"), "{text}");
        assert!(!text.contains('\n'));
        assert!(text.ends_with("\r\u{1b}[K"));
    }

    #[test]
    fn sources_are_named_where_there_are_any() {
        assert_eq!(sources(0, 0, 0), None);
        assert_eq!(sources(10, 90, 0).as_deref(), Some("10 % from seeds, 90 % from peers"));
        assert_eq!(sources(0, 0, 5).as_deref(), Some("100 % from this disk"));
    }

    #[test]
    fn a_fetch_line_says_how_fast_and_from_whom() {
        let progress = Progress {
            bytes_from_seed: 1024,
            bytes_from_peers: 3072,
            rate_bytes_per_second: 2048,
            ..Progress::local(Phase::Fetching, 4096, Some(8192))
        };
        assert_eq!(line(&progress), "fetching 50 %, 4.0 KiB of 8.0 KiB, 2.0 KiB/s, 25 % from seeds, 75 % from peers");
    }
}
