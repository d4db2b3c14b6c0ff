//! What a reset must leave, computed from manifests alone. This is section 2 of the contract a
//! second time: nothing here knows how the tool does it.
//!
//! Where the contract leaves a choice, the model takes this one:
//!
//! - A path both declared and excluded is kept: losing is worse than keeping.
//! - Only the ancestors that are not persisted themselves must be directories in the blank. Above
//!   `/a/b/c`, when `/a` is declared as well, the blank has no say.
//! - A connector that the blank lacks and the previous state has as a directory is in the result
//!   even when the persisted path itself is absent.
//! - What the blank has below a path that is no directory in the result is not in the result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::RelPath;
use crate::tree::{Entry, Tree};

/// One declared path. As JSON: `{"path": "/home/mia", "exclude": [".cache"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The persisted path, from the volume's root.
    pub path: RelPath,
    /// Paths below it that follow the blank, relative to it.
    #[serde(default, rename = "exclude", skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<RelPath>,
}

/// The result of a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The tree, without `.darlings`.
    pub tree: Tree,
    /// Declared paths that are left to the generation because the previous state has a symlink or
    /// another non-directory above them.
    pub left_behind: Vec<RelPath>,
}

/// A configuration that must be refused before anything is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// The volume's root itself, or the tool's own directory, was declared.
    NotPersistable(RelPath),
    /// A path was declared twice.
    Duplicate(RelPath),
    /// An exclude names the persisted path itself.
    ExcludesItself(RelPath),
    /// The blank has something else than a directory above a declared path.
    AncestorIsNoDirectoryInBlank {
        /// The declared path.
        path: RelPath,
        /// What is no directory.
        ancestor: RelPath,
    },
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPersistable(path) => write!(formatter, "{path} cannot be persisted"),
            Self::Duplicate(path) => write!(formatter, "{path} is declared twice"),
            Self::ExcludesItself(path) => write!(formatter, "{path} excludes itself"),
            Self::AncestorIsNoDirectoryInBlank { path, ancestor } => {
                write!(formatter, "{ancestor}, above {path}, is no directory in the blank")
            }
        }
    }
}

impl std::error::Error for ConfigurationError {}

impl Rule {
    /// A rule from text.
    pub fn new(path: &str, excludes: &[&str]) -> Result<Self, String> {
        Ok(Self {
            path: RelPath::normalise(path)?,
            excludes: excludes.iter().map(RelPath::normalise).collect::<Result<_, _>>()?,
        })
    }
}

/// Where a path of the result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Blank,
    Previous,
}

/// Computes what a reset of `previous` to `blank` must leave under these rules.
pub fn expected(
    blank: &Tree,
    previous: &Tree,
    rules: &[Rule],
) -> Result<Expected, ConfigurationError> {
    let decisions = Decisions::of(rules)?;
    let heads = decisions.heads();
    refuse_bad_ancestors(blank, &decisions, &heads)?;

    let mut absent = BTreeSet::new();
    let mut left_behind = Vec::new();
    for head in &heads {
        let blocked =
            |above: &RelPath| previous.get(above).is_some_and(|entry| !entry.kind.is_directory());
        if head.ancestors().iter().any(blocked) {
            absent.insert(head.clone());
            left_behind.push(head.clone());
        }
    }
    let connectors: BTreeSet<RelPath> = heads.iter().flat_map(RelPath::ancestors).collect();

    let own = RelPath::root().join(".darlings");
    let mut paths: Vec<&RelPath> = blank.entries.keys().chain(previous.entries.keys()).collect();
    paths.retain(|path| !path.is_at_or_below(&own));
    // Parents before children, so that what has no place to be is left out.
    paths.sort_by_key(|path| (path.depth(), *path));
    paths.dedup();

    let mut chosen: BTreeMap<RelPath, (Source, &Entry)> = BTreeMap::new();
    for path in paths {
        let has_place = path.parent().is_none_or(|parent| {
            chosen.get(&parent).is_some_and(|(_, entry)| entry.kind.is_directory())
        });
        if !has_place {
            continue;
        }
        let from_blank = blank.get(path).map(|entry| (Source::Blank, entry));
        let from_previous = previous.get(path).map(|entry| (Source::Previous, entry));
        let directory = |found: &(Source, &Entry)| found.1.kind.is_directory();
        let choice = match decisions.decide(path) {
            (Source::Previous, head) if absent.contains(head) => None,
            (Source::Previous, _) => from_previous,
            (Source::Blank, _) if connectors.contains(path) => from_blank
                .filter(directory)
                .or_else(|| from_previous.filter(directory))
                .or(from_blank),
            (Source::Blank, _) => from_blank,
        };
        if let Some(choice) = choice {
            chosen.insert(path.clone(), choice);
        }
    }

    let sets: BTreeMap<RelPath, (Source, RelPath)> = chosen
        .iter()
        .filter_map(|(path, (source, entry))| {
            entry.links.as_ref().map(|links| (path.clone(), (*source, links.group.clone())))
        })
        .collect();
    let entries = chosen.into_iter().map(|(path, (_, entry))| (path, entry.clone())).collect();
    let mut tree = Tree { entries };
    tree.regroup(|path, _| sets.get(path).cloned());
    Ok(Expected { tree, left_behind })
}

fn refuse_bad_ancestors(
    blank: &Tree,
    decisions: &Decisions,
    heads: &[RelPath],
) -> Result<(), ConfigurationError> {
    for head in heads {
        for ancestor in head.ancestors() {
            let stands = blank.get(&ancestor).is_some_and(|entry| !entry.kind.is_directory());
            if stands && decisions.decide(&ancestor).0 == Source::Blank {
                return Err(ConfigurationError::AncestorIsNoDirectoryInBlank {
                    path: head.clone(),
                    ancestor,
                });
            }
        }
    }
    Ok(())
}

/// The declared and excluded paths: the longest one above a path decides about it.
struct Decisions(BTreeMap<RelPath, Source>);

impl Decisions {
    fn of(rules: &[Rule]) -> Result<Self, ConfigurationError> {
        let mut decisions = BTreeMap::new();
        for rule in rules {
            for exclude in &rule.excludes {
                if exclude.is_root() {
                    return Err(ConfigurationError::ExcludesItself(rule.path.clone()));
                }
                decisions.insert(rule.path.join(exclude.as_bytes()), Source::Blank);
            }
        }
        let mut declared = BTreeSet::new();
        for Rule { path, .. } in rules {
            if path.is_root() || path.is_at_or_below(&RelPath::root().join(".darlings")) {
                return Err(ConfigurationError::NotPersistable(path.clone()));
            }
            if !declared.insert(path.clone()) {
                return Err(ConfigurationError::Duplicate(path.clone()));
            }
            decisions.insert(path.clone(), Source::Previous);
        }
        Ok(Self(decisions))
    }

    /// Where a path comes from, and the longest path that decides so (the root when none does).
    fn decide(&self, path: &RelPath) -> (Source, &RelPath) {
        static ROOT: RelPath = RelPath::root();
        let longest = self.0.iter().filter(|(above, _)| path.is_at_or_below(above));
        let longest = longest.max_by_key(|(above, _)| above.depth());
        longest.map_or((Source::Blank, &ROOT), |(above, source)| {
            if *source == Source::Blank {
                (Source::Blank, above)
            } else {
                (Source::Previous, self.head(above))
            }
        })
    }

    /// The declared path at the top of the persisted region that a declared path is part of.
    fn head<'a>(&'a self, declared: &'a RelPath) -> &'a RelPath {
        let mut head = declared;
        for (above, source) in
            declared.ancestors().iter().rev().filter_map(|above| self.0.get_key_value(above))
        {
            if *source == Source::Blank {
                break;
            }
            head = above;
        }
        head
    }

    /// The declared paths that are not merely part of another one.
    fn heads(&self) -> Vec<RelPath> {
        let declared = self.0.iter().filter(|(_, source)| **source == Source::Previous);
        declared.map(|(path, _)| path).filter(|path| self.head(path) == *path).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
