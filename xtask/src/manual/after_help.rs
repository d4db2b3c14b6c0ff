//! What stands below the options in `--help`: paragraphs, and lists such as the exit codes.

use roff::{Roff, bold, roman};

/// A list begins with a line that ends in a colon; its items are indented, with two spaces or more
/// between what is explained and the explanation. It becomes a section of its own.
pub(crate) fn render(text: &str, roff: &mut Roff) {
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        if let Some(List { heading, note, items }) = list(block) {
            roff.control("SH", [heading.as_str()]);
            if !note.is_empty() {
                roff.text([roman(note)]);
            }
            for (term, meaning) in items {
                roff.control("TP", []);
                roff.text([bold(term)]);
                roff.text([roman(meaning)]);
            }
        } else {
            roff.control("SH", ["NOTES"]);
            for line in block.lines() {
                roff.text([roman(line.trim())]);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct List {
    heading: String,
    /// What stands in brackets behind it.
    note: String,
    items: Vec<(String, String)>,
}

/// `None` when it is no list.
fn list(block: &str) -> Option<List> {
    let mut lines = block.lines();
    let heading = lines.next()?.strip_suffix(':')?;
    let (heading, note) = match heading.strip_prefix("Exit codes") {
        // What manual pages call it.
        Some(note) => ("EXIT STATUS".to_owned(), note.trim()),
        None => (heading.to_uppercase(), ""),
    };
    let mut items: Vec<(String, String)> = Vec::new();
    let mut indentation = None;
    for line in lines {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        let expected = *indentation.get_or_insert(depth);
        if depth == 0 || depth < expected {
            return None;
        }
        if depth > expected {
            let (_, meaning) = items.last_mut()?;
            *meaning = format!("{meaning} {text}");
        } else {
            let (term, meaning) = text.split_once("  ")?;
            items.push((term.to_owned(), meaning.trim_start().to_owned()));
        }
    }
    let note = note.trim_matches(['(', ')']).to_owned();
    (!items.is_empty()).then_some(List { heading, note, items })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_become_a_section_with_an_entry_for_each() {
        let text =
            "Exit codes:\n  0   done\n  10  failed: every volume is\n      complete\n\nMore.";
        let mut roff = Roff::new();
        render(text, &mut roff);
        assert_eq!(
            roff.to_roff(),
            ".SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\ndone\n.TP\n\\fB10\\fR\n\
             failed: every volume is complete\n.SH NOTES\nMore.\n"
        );
    }

    #[test]
    fn a_note_on_the_exit_codes_stands_above_them() {
        let mut roff = Roff::new();
        render("Exit codes (for a link, what it means):\n  0  kept", &mut roff);
        assert_eq!(
            roff.to_roff(),
            ".SH \"EXIT STATUS\"\nfor a link, what it means\n.TP\n\\fB0\\fR\nkept\n"
        );
    }

    #[test]
    fn what_only_looks_like_a_list_is_a_paragraph() {
        for text in ["Mind:", "Mind:\nno indentation", "Mind:\n  no explanation", "  a  b"] {
            assert_eq!(list(text), None, "{text}");
        }
    }
}
