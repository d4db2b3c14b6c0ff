//! A line on the terminal that says what is going on; nothing where there is no terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the line changes.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Progress {
    terminal: bool,
    shown: bool,
    changed: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: false, changed: None }
    }

    /// Shows what is going on, unless that was just done.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.terminal || self.changed.is_some_and(|changed| changed.elapsed() < PAUSE) {
            return;
        }
        self.changed = Some(Instant::now());
        self.shown = true;
        self.print(&format!("\r\x1b[K{}", text()));
    }

    /// Takes the line away, so that something else can be printed.
    pub(super) fn clear(&mut self) {
        if self.shown {
            self.shown = false;
            self.changed = None;
            self.print("\r\x1b[K");
        }
    }

    /// A terminal that goes away is no reason to stop.
    fn print(&mut self, text: &str) {
        if std::io::stderr().lock().write_all(text.as_bytes()).is_err() {
            self.terminal = false;
        }
    }
}
