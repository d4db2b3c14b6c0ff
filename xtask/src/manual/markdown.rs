//! Markdown as the README uses it: paragraphs, code, lists, and tables of two columns.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

/// Appends a text. A table becomes a list of what its first column explains by the others.
pub(crate) fn render(text: &str, roff: &mut Roff) {
    let mut page =
        Page { roff, line: Vec::new(), strong: false, italic: false, place: Place::Text };
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.end_line();
}

/// What the text that comes is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// The first line of a table, which says what is obvious in a list.
    Head,
    Code,
}

struct Page<'r> {
    roff: &'r mut Roff,
    line: Vec<Inline>,
    strong: bool,
    italic: bool,
    place: Place,
}

impl Page<'_> {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.place == Place::Code => {
                for line in text.lines() {
                    self.roff.text([roman(line)]);
                }
            }
            Event::Text(text) => self.line.push(match (self.strong, self.italic) {
                (true, _) => bold(text.as_ref()),
                (false, true) => italic(text.as_ref()),
                (false, false) => roman(text.as_ref()),
            }),
            Event::Code(text) => self.line.push(bold(text.as_ref())),
            Event::SoftBreak => self.line.push(roman(" ")),
            Event::HardBreak => self.line.push(Inline::LineBreak),
            Event::Rule
            | Event::Html(_)
            | Event::InlineHtml(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::FootnoteReference(_)
            | Event::TaskListMarker(_) => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Paragraph => {
                self.roff.control("PP", []);
            }
            Tag::CodeBlock(_) => {
                self.place = Place::Code;
                self.roff.control("PP", []).control("RS", ["4"]).control("EX", []);
            }
            Tag::Item => {
                self.roff.control("IP", ["\\(bu", "3"]);
            }
            Tag::TableHead => self.place = Place::Head,
            Tag::TableRow => {
                self.roff.control("TP", []);
            }
            Tag::Strong => self.strong = true,
            Tag::Emphasis => self.italic = true,
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                let words = std::mem::take(&mut self.line);
                self.roff.control("PP", []);
                self.roff.text(words);
            }
            TagEnd::CodeBlock => {
                self.place = Place::Text;
                self.roff.control("EE", []).control("RE", []);
            }
            TagEnd::TableHead => {
                self.place = Place::Text;
                self.line.clear();
            }
            TagEnd::Paragraph | TagEnd::Item | TagEnd::TableCell => self.end_line(),
            TagEnd::Strong => self.strong = false,
            TagEnd::Emphasis => self.italic = false,
            _ => {}
        }
    }

    fn end_line(&mut self) {
        if self.place == Place::Text && !self.line.is_empty() {
            self.roff.text(std::mem::take(&mut self.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let mut roff = Roff::new();
        render(text, &mut roff);
        roff.to_roff()
    }

    #[test]
    fn a_table_becomes_a_list_without_its_head() {
        assert_eq!(
            rendered("Keys:\n\n| key | meaning |\n|---|---|\n| `a`, `b` | [what](x) is *so* |\n"),
            ".PP\nKeys:\n.TP\n\\fBa\\fR, \\fBb\\fR\nwhat is \\fIso\\fR\n"
        );
    }

    #[test]
    fn code_keeps_its_lines_and_its_backslashes() {
        assert_eq!(
            rendered("```sh\n.first \\\n\n    second\n```\n"),
            ".PP\n.RS 4\n.EX\n\\&.first \\\\\n\n    second\n.EE\n.RE\n"
        );
    }

    #[test]
    fn items_are_told_apart() {
        assert_eq!(
            rendered("1. one\n   and more\n2. two\n"),
            ".IP \\(bu 3\none and more\n.IP \\(bu 3\ntwo\n"
        );
    }
}
