//! How a path or a name is printed. Users choose names, so a name is input: it must not begin a line,
//! steer a terminal, turn the direction of the text, or end a string in a configuration.
//!
//! | for | function | a name that could mislead |
//! |---|---|---|
//! | a person | [`shown`] | in double quotes, escaped |
//! | `darlings.toml` | [`toml()`] | escaped in its string |
//! | Nix | [`nix`], [`nix_attribute`] | escaped, or read from JSON, since Nix has no such escapes |
//!
//! `{:?}` of a path, as in the contexts of errors, is always quoted and escapes the same characters.
//! JSON has its own rules: `docs/json.md`.

use std::path::Path;

/// A path or a name on one line, for a person: as it is, if nothing in it could be taken for anything
/// else; else in double quotes, with what is odd escaped: control characters, what is not UTF-8
/// (`\xFF`), quotes, backslashes, characters that change the direction of the text or cannot be seen.
#[must_use]
pub fn shown<P: AsRef<Path> + ?Sized>(path: &P) -> String {
    let path = path.as_ref();
    let odd_spaces = |it: &str| it.starts_with(' ') || it.ends_with(' ') || it.contains("  ");
    let plain = |it: &&str| {
        !it.is_empty() && !odd_spaces(it) && it.chars().all(|it| is_plain(it) && !is_quote(it))
    };
    match path.to_str() {
        Some(text) if plain(&text) => text.to_owned(),
        Some(text) => escaped(text, |it| it.escape_default().collect()),
        None => format!("{path:?}"),
    }
}

/// A basic string of TOML that means the path; `None` where it is not UTF-8, which TOML cannot name.
#[must_use]
pub fn toml(path: &Path) -> Option<String> {
    let escape = |it: char| match it {
        '"' | '\\' => format!("\\{it}"),
        '\n' => "\\n".to_owned(),
        _ => format!("\\U{:08X}", u32::from(it)),
    };
    path.to_str().map(|text| escaped(text, escape))
}

/// What to do about a path that is not UTF-8, which no configuration can name; `None` for any other.
#[must_use]
pub fn unnamable(path: &Path) -> Option<String> {
    let above = path.ancestors().find(|above| above.to_str().is_some())?;
    (above != path).then(|| {
        format!(
            "{} is not valid UTF-8, so it cannot be persisted by itself: rename it, or persist {}",
            shown(path),
            shown(above)
        )
    })
}

/// An expression of Nix that means the text, as an element of a list.
#[must_use]
pub fn nix(text: &str) -> String {
    let can_say = |it: char| is_plain(it) || matches!(it, '\n' | '\r' | '\t');
    if text.chars().all(can_say) {
        return nix_string(text);
    }
    let json = escaped(text, |it| match it {
        '"' | '\\' => format!("\\{it}"),
        _ => {
            let mut buffer = [0; 2];
            let units = it.encode_utf16(&mut buffer).iter();
            units.map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat()
        }
    });
    format!("(builtins.fromJSON {})", nix_string(&json))
}

/// A name in an attribute path of Nix.
#[must_use]
pub fn nix_attribute(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let starts = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    if starts && text.chars().all(plain) && !KEYWORDS.contains(&text) {
        return text.to_owned();
    }
    match nix(text) {
        string if string.starts_with('"') => string,
        expression => format!("${{{expression}}}"),
    }
}

/// What a home may be called and Nix takes for its own word.
const KEYWORDS: [&str; 9] = ["assert", "else", "if", "in", "inherit", "let", "rec", "then", "with"];

fn nix_string(text: &str) -> String {
    let escape = |it: char| match it {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        it => format!("\\{it}"),
    };
    let inside: String = text
        .chars()
        .map(|it| if is_quote(it) || it == '$' || it.is_control() { escape(it) } else { it.into() })
        .collect();
    format!("\"{inside}\"")
}

/// A text in double quotes, in which everything odd is escaped.
fn escaped(text: &str, escape: impl Fn(char) -> String) -> String {
    let each = |it| if is_plain(it) && !is_quote(it) { String::from(it) } else { escape(it) };
    format!("\"{}\"", text.chars().map(each).collect::<String>())
}

fn is_quote(letter: char) -> bool {
    matches!(letter, '"' | '\\')
}

/// Whether a character shows as itself and does nothing else.
fn is_plain(letter: char) -> bool {
    // Letters, by Unicode, that show as nothing.
    const UNSEEN: [char; 7] =
        ['\u{34f}', '\u{115f}', '\u{1160}', '\u{17b4}', '\u{17b5}', '\u{3164}', '\u{ffa0}'];
    if matches!(letter, ' '..='~') {
        return true;
    }
    // An accent that is a character of its own is escaped only where it has nothing to stand on.
    !UNSEEN.contains(&letter) && format!("x{letter}").escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_name_that_could_mislead_is_quoted_and_any_other_is_not() {
        for (name, expected) in [
            (&b"/home/mia/notes.txt"[..], "/home/mia/notes.txt"),
            ("/home/mia/caf\u{e9} \u{2603}".as_bytes(), "/home/mia/caf\u{e9} \u{2603}"),
            ("/home/mia/cafe\u{301}'s".as_bytes(), "/home/mia/cafe\u{301}'s"),
            (b"/a b", "/a b"),
            (b"/a  b", "\"/a  b\""),
            (b"/a ", "\"/a \""),
            (b"/a\nb", "\"/a\\nb\""),
            (b"/\x1b[31m", "\"/\\u{1b}[31m\""),
            (b"/\xff", "\"/\\xFF\""),
            (b"/a\\b", "\"/a\\\\b\""),
            (b"/\"a\"", "\"/\\\"a\\\"\""),
            ("/\u{202e}txt.exe".as_bytes(), "\"/\\u{202e}txt.exe\""),
            ("/a\u{200b}b".as_bytes(), "\"/a\\u{200b}b\""),
            ("/a\u{3164}b".as_bytes(), "\"/a\\u{3164}b\""),
            ("/a\u{2028}b".as_bytes(), "\"/a\\u{2028}b\""),
            (b"", "\"\""),
        ] {
            assert_eq!(shown(OsStr::from_bytes(name)), expected, "{name:?}");
        }
    }

    #[test]
    fn no_character_that_steers_or_hides_is_printed_in_any_form() {
        let controls = ('\0'..' ').chain('\u{7f}'..='\u{9f}');
        let bidi = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter();
        let bidi = bidi.chain('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        let unseen = ['\u{ad}', '\u{200b}', '\u{2060}', '\u{feff}', '\u{2028}', '\u{e0041}'];
        for letter in controls.chain(bidi).chain(unseen) {
            let text = format!("/a{letter}b");
            let toml = toml(Path::new(&text)).unwrap();
            for printed in [shown(&text), format!("{:?}", Path::new(&text)), toml, nix(&text)] {
                assert!(!printed.contains(letter), "{letter:?}: {printed:?}");
            }
        }
    }

    #[test]
    fn what_toml_cannot_name_has_no_string() {
        let name = Path::new(OsStr::from_bytes(b"/a/\xff/b"));
        assert_eq!(toml(name), None);
        let words = r#""/a/\xFF/b" is not valid UTF-8, so it cannot be persisted by itself: rename it, or persist /a"#;
        assert_eq!(unnamable(name).as_deref(), Some(words));
        assert_eq!(unnamable(Path::new("/a")), None);
        assert_eq!(toml(Path::new("/a\"\n\u{7f}")).unwrap(), r#""/a\"\n\U0000007F""#);
    }

    #[test]
    fn a_name_in_nix_is_bare_only_where_it_is_no_word_of_nix() {
        for (name, expected) in [
            ("mia", "mia"),
            ("with", "\"with\""),
            ("a b", "\"a b\""),
            ("${x}", "\"\\${x}\""),
            ("\u{1b}", r#"${(builtins.fromJSON "\"\\u001b\"")}"#),
        ] {
            assert_eq!(nix_attribute(name), expected);
        }
    }
}
