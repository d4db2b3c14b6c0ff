//! Colours, where somebody sees them.

use std::fmt::Display;
use std::io::IsTerminal;

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Plain text.
    pub const PLAIN: Self = Self { on: false };

    /// Colours if `out` is a terminal, and nobody asked for none (<https://no-color.org>).
    #[must_use]
    pub fn for_output(out: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { on: out.is_terminal() && !refused && !dumb }
    }

    /// What a paragraph is about.
    #[must_use]
    pub fn head(self, text: impl Display) -> String {
        self.in_code("1", text)
    }

    /// All is well.
    #[must_use]
    pub fn good(self, text: impl Display) -> String {
        self.in_code("32", text)
    }

    /// Worth a look.
    #[must_use]
    pub fn careful(self, text: impl Display) -> String {
        self.in_code("33", text)
    }

    /// Something is lost, or wrong.
    #[must_use]
    pub fn bad(self, text: impl Display) -> String {
        self.in_code("31", text)
    }

    fn in_code(self, code: &str, text: impl Display) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::Paint;

    #[test]
    fn plain_text_has_no_codes_and_a_colour_ends_where_it_should() {
        assert_eq!(Paint::PLAIN.bad("gone"), "gone");
        assert_eq!(Paint { on: true }.bad("gone"), "\x1b[31mgone\x1b[0m");
    }
}
