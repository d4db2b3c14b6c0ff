#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::ask::suggest::Suggestions;

fn found(path: &str, advice: Advice, state: SuggestionState) -> Suggestion {
    Suggestion {
        path: path.into(),
        what: "a program: its state",
        why: "it begins anew",
        advice,
        state,
        kept_below: Vec::new(),
        kind: SuggestionKind::Directory,
        files: 2,
        bytes: 1536,
        at_least: false,
    }
}

fn suggestions(found: Vec<Suggestion>) -> Suggestions {
    Suggestions { version: 1, found, errors: Vec::new() }
}

#[test]
fn what_will_be_missed_is_ready_to_be_pasted_and_the_rest_is_a_comment() {
    let partly = Suggestion {
        kept_below: vec!["/var/lib/p/a".into()],
        at_least: true,
        what: "another: images",
        ..found("/var/lib/p", Advice::Ask, SuggestionState::PartlyKept)
    };
    let file = Suggestion {
        kind: SuggestionKind::File,
        files: 1,
        ..found("/etc/q", Advice::Keep, SuggestionState::NotKept)
    };
    let found = suggestions(vec![
        file,
        found("/etc/q.d", Advice::Keep, SuggestionState::NotKept),
        found("/etc/x", Advice::Leave, SuggestionState::NotKept),
        partly,
        found("/var/log", Advice::Keep, SuggestionState::Kept),
    ]);
    let text = toml(&found, false);
    assert_eq!(
        text,
        "\
# The next reset erases this, and it will be missed:

# a program: its state (3 files, 3.0 KiB)
# Without it: it begins anew.
[[persist]]
path = \"/etc/q\"

[[persist]]
path = \"/etc/q.d\"

# The next reset erases this too. It is up to you: take the # off what you want to keep.

# another: images (more than 2 files, 1.5 KiB)
# Without it: it begins anew.
# Kept of it already: /var/lib/p/a
# [[persist]]
# path = \"/var/lib/p\"

# Well-known state besides: 1 kept already, 1 best forgotten (--all names it).
"
    );
    let all = toml(&found, true);
    let (_, end) = all.split_once("path = \"/var/lib/p\"\n\n").unwrap();
    assert_eq!(end, "# Kept already: /var/log\n# Best forgotten: /etc/x\n");
}

#[test]
fn nothing_is_said_of_nothing() {
    assert_eq!(toml(&suggestions(Vec::new()), false), "");
    assert_eq!(nix(&suggestions(Vec::new()), true), "");
}

#[test]
fn every_path_is_quoted_so_that_it_means_itself() {
    for path in ["/home/a\"b/.ssh", "/home/a\nb/.ssh", "/home/a'b\\c/.ssh", "/home/\u{1b}[31m/.ssh"]
    {
        let text =
            toml(&suggestions(vec![found(path, Advice::Keep, SuggestionState::NotKept)]), true);
        let read: ::toml::Table = text.parse().unwrap();
        let persist = read["persist"].as_array().unwrap();
        assert_eq!(persist[0]["path"].as_str(), Some(path), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let kept = toml(&suggestions(vec![found(path, Advice::Keep, SuggestionState::Kept)]), true);
        assert!(kept.parse::<::toml::Table>().unwrap().is_empty(), "{kept}");
        assert!(!kept.contains('\u{1b}'), "{kept}");
    }
}

#[test]
fn nix_has_lists_for_the_machine_and_for_its_users() {
    let file = |path| Suggestion {
        kind: SuggestionKind::File,
        ..found(path, Advice::Keep, SuggestionState::NotKept)
    };
    let found = suggestions(vec![
        file("/etc/machine-id"),
        found("/home/a b/.ssh", Advice::Keep, SuggestionState::NotKept),
        found("/home/mia/.${x}", Advice::Ask, SuggestionState::NotKept),
        file("/root/.histfile"),
        found("/var/lib/nixos", Advice::Keep, SuggestionState::NotKept),
    ]);
    let text = nix(&found, false);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("# a pro")).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.contains("# Without")).collect();
    assert_eq!(
        lines.join("\n"),
        r#"# The next reset erases this, and it will be missed. What is commented out is up to you.
{
  darlings.directories = [
    "/var/lib/nixos"
  ];
  darlings.files = [
    "/etc/machine-id"
  ];
  darlings.users."a b".directories = [
    ".ssh"
  ];
  darlings.users.mia.directories = [
    # ".\${x}"
  ];
  darlings.users.root.files = [
    ".histfile"
  ];
}"#
    );
}

#[test]
fn long_comments_go_on_in_the_next_line() {
    let mut text = String::new();
    comment(&mut text, "  ", &"word ".repeat(40));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines.iter().all(|line| line.starts_with("  # word") && line.len() <= WIDTH), "{text}");
}
