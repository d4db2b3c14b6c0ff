//! A recovery for a person.

use super::{RecoverOutcome, Recovered};
use crate::engine::report::ways_in_words;
use crate::names::shown;
use crate::paint::Paint;

impl Recovered {
    /// As text; the warnings are told apart.
    #[must_use]
    pub fn text(&self, paint: Paint) -> String {
        let path = paint.head(shown(&self.path));
        let from = self.from;
        let to =
            if self.to == self.path { String::new() } else { format!(" as {}", shown(&self.to)) };
        match self.outcome {
            RecoverOutcome::AlreadyThere => {
                format!("{}: already as {from} has it\n", paint.head(shown(&self.to)))
            }
            RecoverOutcome::DryRun => {
                let instead = if self.replaced { ", replacing what is there" } else { "" };
                format!(
                    "{path}: would be recovered from {from}{to}{instead}\n{}",
                    self.directories("would make")
                )
            }
            RecoverOutcome::Recovered => {
                let entries = match self.entries {
                    Some(1) => "1 entry".to_owned(),
                    entries => format!("{} entries", entries.unwrap_or(0)),
                };
                let mut text = format!(
                    "{path}: {} from {from}{to}: {entries}{}\n{}",
                    paint.good("recovered"),
                    self.bytes_in_words(),
                    self.directories("made")
                );
                if let Some(trash) = &self.replaced_is_in {
                    text.extend([format!(
                        "What it replaced is in {trash} of the volume; `recover --from trash` brings it \
                         back.\n"
                    )]);
                }
                text
            }
        }
    }

    fn directories(&self, word: &str) -> String {
        let lines = self.made.iter().map(|path| format!("{word} {}\n", shown(path)));
        lines.collect::<Vec<_>>().concat()
    }

    fn bytes_in_words(&self) -> String {
        let ways = ways_in_words(self.bytes).into_iter().map(|way| format!(", {way}"));
        ways.collect::<Vec<_>>().concat()
    }
}
