//! Numbers and paths as text, and what a command found as JSON.

use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

/// Writes a path as JSON text. A name that is not UTF-8 is shown with replacement characters:
/// users choose the names of nested subvolumes, and a report must be written whatever they chose.
pub(crate) fn shown_path<S: serde::Serializer>(
    path: &Path,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// [`shown_path`] of a path that may not be there.
#[expect(clippy::ref_option, reason = "serde calls it so")]
pub(crate) fn shown_path_if_any<S: serde::Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// What a command found or did, as JSON text.
///
/// # Errors
/// A path in it that is not UTF-8; nothing else that can be caused from outside.
pub fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write it as JSON")? + "\n")
}

/// A number of bytes for a person.
#[must_use]
pub fn bytes_in_words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// The number that `text` is, written as this tool writes it: `07` and `+7` are none.
#[must_use]
pub fn exact_number(text: &str) -> Option<u64> {
    let Ok(number) = text.parse::<u64>() else { return None };
    (number.to_string() == text).then_some(number)
}

/// Makes a path absolute and normal without looking at any filesystem: `..` takes away the name
/// before it, whatever that is.
#[must_use]
pub fn absolute(from: &Path, path: &Path) -> PathBuf {
    let mut found = PathBuf::from("/");
    for part in from.join(path).components() {
        match part {
            Component::Normal(name) => found.push(name),
            Component::ParentDir => {
                found.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_only_as_this_tool_writes_it() {
        assert_eq!(exact_number("7"), Some(7));
        assert_eq!(exact_number("18446744073709551615"), Some(u64::MAX));
        for text in ["", "07", "+7", "7 ", "7a", "-7", "18446744073709551616", "\u{0667}"] {
            assert_eq!(exact_number(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_relative_path_is_made_absolute_by_its_words_alone() {
        for (from, path, expected) in [
            ("/home/mia", "notes", "/home/mia/notes"),
            ("/home/mia", "../leo/./x//y/", "/home/leo/x/y"),
            ("/home/mia", "/etc/../var", "/var"),
            ("/", "../../..", "/"),
            ("/home", "", "/home"),
        ] {
            assert_eq!(absolute(Path::new(from), Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
