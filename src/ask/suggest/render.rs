//! The answer as lines for the configuration. What should be kept is ready to be pasted, what depends
//! on the machine is a comment that can be made one.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Advice, Suggestion, SuggestionKind, SuggestionState, Suggestions};
use crate::names::{self, shown};
use crate::text::bytes_in_words;

/// Comments are wrapped at this many characters.
const WIDTH: usize = 96;

/// As TOML, to be appended to the configuration.
#[must_use]
pub fn toml(suggestions: &Suggestions, all: bool) -> String {
    let mut text = String::new();
    for (advice, heading) in HEADINGS {
        let groups = groups(suggestions.to_add(advice));
        if groups.is_empty() {
            continue;
        }
        comment(&mut text, "", heading);
        text.push('\n');
        let off = if advice == Advice::Ask { "# " } else { "" };
        for group in groups {
            about(&mut text, "", &group);
            for found in group {
                let Some(path) = names::toml(&found.path) else { continue };
                text.extend([off, "[[persist]]\n", off, "path = ", &path, "\n\n"]);
            }
        }
    }
    rest(&mut text, "", suggestions, all);
    text
}

/// A list of the NixOS module, in the order in which they are printed.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// `None` is the machine.
    user: Option<String>,
    files: bool,
}

/// As an attribute set for the NixOS module.
#[must_use]
pub fn nix(suggestions: &Suggestions, all: bool) -> String {
    let mut places: BTreeMap<Place, Vec<(&Suggestion, String)>> = BTreeMap::new();
    let to_add = [Advice::Keep, Advice::Ask].into_iter().flat_map(|it| suggestions.to_add(it));
    for found in to_add {
        let (user, path) = at_home(&found.path);
        let place = Place { user, files: found.kind == SuggestionKind::File };
        places.entry(place).or_default().push((found, path));
    }
    let mut text = String::new();
    if !places.is_empty() {
        let heading = "The next reset erases this, and it will be missed. What is commented out is up to you.";
        comment(&mut text, "", heading);
        text += "{\n";
        for (Place { user, files }, entries) in places {
            let user = user
                .map_or(String::new(), |user| format!("users.{}.", names::nix_attribute(&user)));
            let what = if files { "files" } else { "directories" };
            text.extend(["  darlings.", &user, what, " = [\n"]);
            for (found, path) in entries {
                about(&mut text, "    ", &[found]);
                let off = if found.advice == Advice::Ask { "# " } else { "" };
                text.extend(["    ", off, &names::nix(&path), "\n"]);
            }
            text += "  ];\n";
        }
        text += "}\n";
    }
    rest(&mut text, "", suggestions, all);
    text
}

const HEADINGS: [(Advice, &str); 2] = [
    (Advice::Keep, "The next reset erases this, and it will be missed:"),
    (
        Advice::Ask,
        "The next reset erases this too. It is up to you: take the # off what you want to keep.",
    ),
];

/// What belongs to one entry of the list, in the order in which they were found.
fn groups<'f>(found: impl Iterator<Item = &'f Suggestion>) -> Vec<Vec<&'f Suggestion>> {
    let mut groups: Vec<Vec<&Suggestion>> = Vec::new();
    for found in found {
        match groups.iter_mut().find(|group| group[0].what == found.what) {
            Some(group) => group.push(found),
            None => groups.push(vec![found]),
        }
    }
    groups
}

/// What it is, how much, and what happens without it.
fn about(text: &mut String, indentation: &str, group: &[&Suggestion]) {
    let Some(first) = group.first() else { return };
    let files = group.iter().map(|found| found.files).sum::<u64>();
    let bytes = group.iter().map(|found| found.bytes).sum::<u64>();
    let more = if group.iter().any(|found| found.at_least) { "more than " } else { "" };
    let files = match files {
        1 => "1 file".to_owned(),
        _ => format!("{files} files"),
    };
    let line = format!("{} ({more}{files}, {})", first.what, bytes_in_words(bytes));
    comment(text, indentation, &line);
    comment(text, indentation, &format!("Without it: {}.", first.why));
    let kept = group.iter().flat_map(|found| &found.kept_below);
    let kept: Vec<String> = kept.map(shown).collect();
    if !kept.is_empty() {
        comment(text, indentation, &format!("Kept of it already: {}", kept.join(", ")));
    }
}

/// What no line can name, and what needs nothing to be done.
fn rest(text: &mut String, indentation: &str, suggestions: &Suggestions, all: bool) {
    let erased = [Advice::Keep, Advice::Ask].into_iter().flat_map(|it| suggestions.erased(it));
    let unnamable: Vec<String> = erased.filter_map(|found| names::unnamable(&found.path)).collect();
    if !unnamable.is_empty() {
        let heading = "The next reset erases this too, and no line can name it:";
        comment(text, indentation, heading);
        for words in &unnamable {
            comment(text, indentation, words);
        }
        text.push('\n');
    }
    let of = |wanted: &dyn Fn(&Suggestion) -> bool| -> Vec<&Suggestion> {
        suggestions.found.iter().filter(|found| wanted(found)).collect()
    };
    let erased = |found: &Suggestion| {
        matches!(found.state, SuggestionState::NotKept | SuggestionState::PartlyKept)
    };
    let parts: [(&str, Vec<&Suggestion>); 4] = [
        ("kept already", of(&|found| found.state == SuggestionState::Kept)),
        (
            "erased, as the configuration says",
            of(&|found| found.state == SuggestionState::Excluded),
        ),
        ("the same in the blank", of(&|found| found.state == SuggestionState::InTheBlank)),
        ("best forgotten", of(&|found| erased(found) && found.advice == Advice::Leave)),
    ];
    let parts = parts.into_iter().filter(|(_, found)| !found.is_empty());
    if all {
        for (what, found) in parts {
            let paths: Vec<String> = found.iter().map(|found| shown(&found.path)).collect();
            let line = format!("{}: {}", capital(what), paths.join(", "));
            comment(text, indentation, &line);
        }
        return;
    }
    let parts: Vec<String> = parts.map(|(what, found)| format!("{} {what}", found.len())).collect();
    if !parts.is_empty() {
        let line = format!("Well-known state besides: {} (--all names it).", parts.join(", "));
        comment(text, indentation, &line);
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// A comment, on as many lines as it needs.
fn comment(text: &mut String, indentation: &str, words: &str) {
    let mut line = format!("{indentation}#");
    let empty = line.len();
    for word in words.split(' ') {
        if line.len() > empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.truncate(empty);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// The user whose home a path is in, by the home's name, and the path in it.
fn at_home(path: &Path) -> (Option<String>, String) {
    let text = path.to_string_lossy();
    if let Some(below) = text.strip_prefix("/root/") {
        return (Some("root".to_owned()), below.to_owned());
    }
    match text.strip_prefix("/home/").and_then(|below| below.split_once('/')) {
        Some((user, below)) => (Some(user.to_owned()), below.to_owned()),
        None => (None, text.into_owned()),
    }
}

#[cfg(test)]
mod tests;
