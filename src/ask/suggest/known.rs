//! The list of well-known state.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// The list; its format is told at its beginning.
const LIST: &str = include_str!("known.toml");

/// Well-known state of one program, or of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Where it lies.
    pub paths: Vec<Pattern>,
    /// Whose it is, and what it holds.
    pub what: &'static str,
    /// What happens without it.
    pub why: &'static str,
    /// Whether a machine that forgets should keep it.
    pub advice: Advice,
}

/// Whether a machine that forgets should keep something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// It will be missed.
    Keep,
    /// It depends on the machine.
    Ask,
    /// It comes back by itself, or nobody misses it.
    Leave,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    known: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    paths: Vec<String>,
    what: String,
    why: String,
    advice: Advice,
    /// For the NixOS module, which reads the same file.
    #[serde(default)]
    nixos: BTreeMap<String, Vec<String>>,
}

/// The list of well-known state.
///
/// # Errors
/// A bug: it is part of the program.
pub fn known() -> anyhow::Result<Vec<Known>> {
    let file: File = toml::from_str(LIST).context("BUG: the list of well-known state is wrong")?;
    file.known.into_iter().map(read).collect()
}

fn read(table: Table) -> anyhow::Result<Known> {
    let Table { paths, what, why, advice, nixos } = table;
    let elsewhere = nixos.values().flatten().find(|path| !paths.contains(path));
    ensure!(elsewhere.is_none(), "BUG: the list of well-known state: {what} has no {elsewhere:?}");
    let paths = paths.iter().map(|path| Pattern::all(path)).collect::<anyhow::Result<Vec<_>>>();
    let paths = paths.with_context(|| format!("BUG: the list of well-known state: {what}"))?;
    // The list is read once, and lives as long as the program.
    let (what, why) = (what.leak(), why.leak());
    Ok(Known { paths: paths.into_iter().flatten().collect(), what, why, advice })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_list_is_long_and_every_entry_says_what_and_why() {
        let known = known().unwrap();
        assert!(known.len() >= 80, "{}", known.len());
        for entry in &known {
            for text in [entry.what, entry.why] {
                assert!(text.len() > 5 && !text.ends_with('.') && !text.contains('\n'), "{text:?}");
            }
            assert!(!entry.paths.is_empty(), "{entry:?}");
        }
    }

    #[test]
    fn no_path_is_named_twice_or_lies_in_one_that_is_not_to_be_left() {
        let mut all = BTreeMap::new();
        for entry in known().unwrap() {
            for path in entry.paths {
                let text = path.to_string();
                assert_eq!(all.insert(text.clone(), entry.advice), None, "twice: {text}");
            }
        }
        for path in all.keys() {
            let mut above = path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                let advice = all.get(parent).copied().unwrap_or(Advice::Leave);
                assert_eq!(advice, Advice::Leave, "{path} lies in {parent}");
                above = parent;
            }
        }
    }

    #[test]
    fn what_the_issue_of_every_forgetful_machine_begins_with_is_there() {
        let known = known().unwrap();
        let advice = |path: &str| {
            let mut found = known
                .iter()
                .filter(|entry| entry.paths.iter().any(|pattern| pattern.to_string() == path));
            found.next().map(|entry| entry.advice)
        };
        for path in [
            "/var/lib/nixos",
            "/etc/NetworkManager/system-connections",
            "/var/lib/bluetooth",
            "/etc/ssh/ssh_host_*_key",
            "/etc/machine-id",
            "/var/lib/systemd/timers",
            "/var/lib/fprint",
            "/home/*/.ssh",
            "/root/.ssh",
        ] {
            assert_eq!(advice(path), Some(Advice::Keep), "{path}");
        }
        assert_eq!(advice("/var/lib/docker"), Some(Advice::Ask));
        assert_eq!(advice("/var/lib/systemd/coredump"), Some(Advice::Ask));
        assert_eq!(advice("/home/*/.cache"), Some(Advice::Leave));
    }
}
