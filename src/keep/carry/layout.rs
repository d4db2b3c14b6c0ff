//! From the rules and what was seen to what goes where. Pure.
//!
//! The work lies in [`WORK`]:
//!
//! ```text
//! .darlings/reset/0/            the new content of the root: the blank's, and what is moved in
//! .darlings/reset/1/.cache      the new content of the first excluded path, and so on
//! .darlings/reset/aside/root/   what the root held
//! .darlings/reset/aside/1/      what the first excluded path held
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::keep::attic::{ATTIC, Attic, Returned};
use crate::keep::lay::Unit;
use crate::keep::survey::Place;
use crate::keep::survey::State;
use crate::keep::survey::Surveyed;
use crate::rules::{Node, Rules};
use crate::tree::Copied;

/// Where the work lies, below the volume's root.
pub const WORK: &str = ".darlings/reset";

/// Where what is in the way goes, below [`WORK`].
pub(super) const ASIDE: &str = "aside";

/// Where what the root held goes, below [`ASIDE`].
pub(super) const ROOT: &str = "root";

/// Exists in [`WORK`] once everything persisted is in the new content.
pub(super) const GATHERED: &str = "gathered";

/// A directory in [`WORK`] that has the attributes of the result's root: an interrupted reset is
/// completed as it was begun, whatever the blank is by then.
pub(super) const OF_RESULT: &str = "of-the-result";

/// Where what was moved aside lies until it is removed, below the tool's own directory, by the number
/// of the reset.
pub const TRASH: &str = "trash";

/// Where it lies instead in a plain directory, whose generations it makes.
pub const GENERATIONS: &str = "generations";

/// The directory in one of them that is the root of the tree.
pub const ASIDE_ROOT: &str = ROOT;

/// What the layout depends on beside the rules.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Persisted paths in the previous state.
    pub persisted: &'a [Surveyed],
    /// Excluded paths in the previous state.
    pub excluded: &'a [(PathBuf, Place)],
    /// What goes to the attic and comes back into persisted directories.
    pub attic: &'a Attic,
    /// Subvolumes that the tree in which things are moved lacks, below the volume's root.
    pub nested: &'a [PathBuf],
}

/// One rename; both paths are below the volume's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// From here.
    #[serde(with = "super::journal::bytes")]
    pub from: PathBuf,
    /// To here.
    #[serde(with = "super::journal::bytes")]
    pub to: PathBuf,
    /// Where that is, or was, when nothing is under way.
    #[serde(with = "super::journal::bytes")]
    pub path: PathBuf,
    /// What it is for.
    pub why: Why,
}

/// What a rename is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A persisted path comes into the new content.
    Keep,
    /// What an excluded path held gets out of the way.
    Clear,
    /// Something that was put away comes back into a persisted directory.
    Return,
    /// What is no longer declared is put away.
    Store,
    /// The new content of an excluded path comes into place. Only if there is any.
    Lay {
        /// Number of the unit.
        unit: usize,
    },
}

/// What goes where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The parts of the result that are the blank's, the root first.
    pub units: Vec<Unit>,
    /// What is moved, in this order, before the root's content is exchanged.
    pub moves: Vec<Move>,
    /// What is copied because it cannot be moved.
    pub copies: Vec<Copied>,
}

/// Decides what goes where.
#[must_use]
pub fn arrange(rules: &Rules, seen: Observed<'_>) -> Layout {
    let mut arranging = Arranging {
        rules,
        persisted: seen.persisted.iter().map(|it| (it.path.as_path(), it)).collect(),
        attic: seen.attic,
        excluded: seen.excluded.iter().map(|(path, place)| (path.as_path(), *place)).collect(),
        nested: seen.nested,
        layout: Layout::default(),
    };
    arranging.unit(rules.root(), Path::new(""));
    arranging.layout
}

struct Arranging<'a> {
    rules: &'a Rules,
    persisted: BTreeMap<&'a Path, &'a Surveyed>,
    attic: &'a Attic,
    excluded: BTreeMap<&'a Path, Place>,
    nested: &'a [PathBuf],
    layout: Layout,
}

impl Arranging<'_> {
    /// Adds a unit with everything in it, the innermost units first, so that each move finds
    /// its source where the previous state has it. Answers the unit's number.
    fn unit(&mut self, node: &Node, path: &Path) -> usize {
        let number = self.layout.units.len();
        let mut slot = PathBuf::from(number.to_string());
        slot.extend(path.file_name());
        let mut connectors = node.connectors_within(path);
        if number > 0 && node.has_persisted_below() {
            connectors.insert(0, path.to_owned());
        }
        let rules = node.of_the_blank();
        self.layout.units.push(Unit {
            path: path.to_owned(),
            slot: slot.clone(),
            rules,
            connectors,
        });
        for (persisted, rules) in node.persisted_within(path) {
            let below = persisted.strip_prefix(path).unwrap_or(&persisted);
            self.persisted(&persisted, rules, &slot.join(below));
        }
        self.store(path);
        number
    }

    /// What is no longer declared in a unit, once the persisted paths below it are moved out.
    fn store(&mut self, unit: &Path) {
        let here = |path: &&PathBuf| self.rules.region(path) == unit;
        for path in self.attic.stores.iter().filter(here) {
            // A subvolume goes with the generation.
            if self.nested.contains(path) {
                continue;
            }
            let to = Path::new(ATTIC).join(path);
            if self.cannot_move(path) {
                let rules = self.rules.at(path).map(Node::of_the_blank);
                self.layout.copies.push(Copied { from: path.clone(), to, rules });
            } else {
                let (from, to) = (path.clone(), Path::new(WORK).join(to));
                self.layout.moves.push(Move { from, to, path: path.clone(), why: Why::Store });
            }
        }
    }

    /// Whether a path lies in a subvolume that the tree in which things are moved lacks.
    fn cannot_move(&self, path: &Path) -> bool {
        self.nested.iter().any(|nested| path.starts_with(nested))
    }

    /// Whether a persisted path is a subvolume, which is moved as a whole later.
    fn is_left_to_others(&mut self, surveyed: &Surveyed) -> bool {
        let source = surveyed.source();
        let is_nested = self.nested.iter().any(|nested| nested == source);
        if is_nested && surveyed.from.is_some() {
            self.clear_stub(source);
        }
        is_nested
    }

    /// What stands in the attic for a subvolume that comes back from there goes: it would come back
    /// itself some day, as an empty directory.
    fn clear_stub(&mut self, stub: &Path) {
        let to = Path::new(WORK).join(ASIDE).join(format!("stub-{}", self.layout.moves.len()));
        let (from, path) = (stub.to_owned(), stub.to_owned());
        self.layout.moves.push(Move { from, to, path, why: Why::Clear });
    }

    /// A persisted path, which goes to `to` below [`WORK`].
    fn persisted(&mut self, path: &Path, rules: &Node, to: &Path) {
        let Some(&surveyed) = self.persisted.get(path) else { return };
        // A subvolume is moved as a whole by the filesystem's own part, later.
        if !matches!(surveyed.state, State::Present { .. }) || self.is_left_to_others(surveyed) {
            return;
        }
        let cannot_move = self.cannot_move(surveyed.source());
        let to_place = Path::new(WORK).join(to);
        if cannot_move {
            let copied = Copied {
                from: surveyed.source().to_owned(),
                to: to.to_owned(),
                rules: Some(rules.without_excluded()),
            };
            self.layout.copies.push(copied);
        }
        let now = if cannot_move { &to_place } else { surveyed.source() };
        for Returned { from, path: returned } in &self.attic.inside {
            if let Ok(below) = returned.strip_prefix(path) {
                if self.nested.contains(from) {
                    self.clear_stub(from);
                    continue;
                }
                let (from, to) = (from.clone(), now.join(below));
                self.layout.moves.push(Move { from, to, path: returned.clone(), why: Why::Return });
            }
        }
        for (excluded, rules) in rules.excluded_within(path) {
            let place = self.excluded.get(excluded.as_path()).copied().unwrap_or(Place::None);
            let above = excluded.parent().unwrap_or(&excluded);
            // Inside a subvolume that moves as a whole there is nothing to exclude.
            let moves_along = |nested: &PathBuf| {
                nested.starts_with(path) && above.starts_with(nested) && !cannot_move
            };
            if place == Place::None || self.nested.iter().any(moves_along) {
                continue;
            }
            let unit = self.unit(rules, &excluded);
            let below = excluded.strip_prefix(path).unwrap_or(&excluded);
            let at = now.join(below);
            if place == Place::Taken && !cannot_move {
                let to = Path::new(WORK).join(ASIDE).join(unit.to_string());
                let (from, path) = (at.clone(), excluded.clone());
                self.layout.moves.push(Move { from, to, path, why: Why::Clear });
            }
            let from = Path::new(WORK).join(&self.layout.units[unit].slot);
            let path = excluded;
            self.layout.moves.push(Move { from, to: at, path, why: Why::Lay { unit } });
        }
        if !cannot_move {
            let (from, path) = (surveyed.source().to_owned(), path.to_owned());
            self.layout.moves.push(Move { from, to: to_place, path, why: Why::Keep });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::at::Kind;

    fn rules(declared: &[(&str, &[&str])]) -> Rules {
        let mut rules = Rules::default();
        for (path, excluded) in declared {
            let excluded: Vec<_> = excluded.iter().map(PathBuf::from).collect();
            assert_eq!(rules.declare(Path::new(path), &excluded), Ok(()));
        }
        rules.finish();
        rules
    }

    fn present(rules: &Rules, absent: &[&str]) -> Vec<Surveyed> {
        let state = |path: &Path| {
            let gone = absent.iter().any(|absent| Path::new(absent) == path);
            if gone { State::Absent } else { State::Present { kind: Kind::Directory } }
        };
        let survey = |path: crate::rules::Persisted| Surveyed {
            state: state(&path.path),
            path: path.path,
            depth: path.depth,
            from: None,
        };
        rules.persisted().into_iter().map(survey).collect()
    }

    fn arranged(rules: &Rules, absent: &[&str], nested: &[&str]) -> Layout {
        let excluded: Vec<_> =
            rules.excluded().into_iter().map(|path| (path, Place::Taken)).collect();
        let nested: Vec<_> = nested.iter().map(PathBuf::from).collect();
        let persisted = present(rules, absent);
        let attic = Attic::default();
        let seen =
            Observed { persisted: &persisted, excluded: &excluded, nested: &nested, attic: &attic };
        arrange(rules, seen)
    }

    fn moves(layout: &Layout) -> Vec<String> {
        let shown = |it: &Move| {
            format!("{} -> {}", it.from.display(), it.to.display()).replace(WORK, "WORK")
        };
        layout.moves.iter().map(shown).collect()
    }

    #[test]
    fn a_persisted_path_is_one_move_and_an_absent_one_none() {
        let rules = rules(&[("var/log", &[]), ("etc/gone", &[]), ("etc/id", &[])]);
        let layout = arranged(&rules, &["etc/gone"], &[]);
        assert_eq!(moves(&layout), ["etc/id -> WORK/0/etc/id", "var/log -> WORK/0/var/log"]);
        assert_eq!(layout.units.len(), 1);
        assert_eq!(layout.units[0].connectors, ["etc", "var"].map(PathBuf::from));
    }

    #[test]
    fn an_excluded_path_is_cleared_and_laid_inside_out() {
        let rules = rules(&[("home", &["mia/.cache"]), ("home/mia/.cache/nix/db", &["tmp"])]);
        let layout = arranged(&rules, &[], &[]);
        assert_eq!(
            moves(&layout),
            [
                "home/mia/.cache/nix/db/tmp -> WORK/aside/2",
                "WORK/2/tmp -> home/mia/.cache/nix/db/tmp",
                "home/mia/.cache/nix/db -> WORK/1/.cache/nix/db",
                "home/mia/.cache -> WORK/aside/1",
                "WORK/1/.cache -> home/mia/.cache",
                "home -> WORK/0/home",
            ]
        );
        assert_eq!(
            layout.units[1].connectors,
            ["home/mia/.cache", "home/mia/.cache/nix"].map(PathBuf::from)
        );
    }

    #[test]
    fn what_lies_in_a_subvolume_that_goes_is_copied_and_a_persisted_subvolume_is_left_to_others() {
        let rules = rules(&[("srv/data", &["tmp"]), ("var/lib/machines", &["a"])]);
        let layout = arranged(&rules, &[], &["srv", "var/lib/machines"]);
        let copies: Vec<_> =
            layout.copies.iter().map(|copied| (copied.from.clone(), copied.to.clone())).collect();
        assert_eq!(copies, [("srv/data".into(), "0/srv/data".into())]);
        assert_eq!(moves(&layout), ["WORK/1/tmp -> WORK/0/srv/data/tmp"]);
    }
}
