//! What the next reset would erase, and what differs between two generations.
//!
//! [`next_reset`] compares the live volume with the blank, by the rules of the configuration;
//! [`between`] compares two whole trees. Both tell every difference, one after the other, to a
//! function of the caller's, and hold none: memory grows with the depth of the tree and with its
//! largest directory (up to a limit), not with its size.
//!
//! | module | what it knows |
//! |---|---|
//! | `walk` | two trees side by side, entry by entry, by the rules |
//! | `level` | the directories on the way down |
//! | `entry` | what a difference is |
//! | `compare` | whether two entries of the same name are the same |
//! | `marks` | which directories need not be looked into, because nothing changed below them |
//! | `managed` | what the system makes again by itself |
//! | `totals` | how much there is of everything |
//! | `group` | many entries as the ten lines that matter |
//! | `views` | entries as lines, as a tree, and as JSON |
//! | `words` | names of owners |

use std::path::Path;

use anyhow::{Context as _, bail};
use tracing::warn;

use crate::config;
use crate::fs::Dir;
use crate::fs::reserved::Reserved;
use crate::generations::{Generation, Since, Store};
use crate::keep::attic;
use crate::keep::survey::survey;
use crate::own::state::{self, Moment};
use crate::volume::with_rules_for;

mod compare;
mod entry;
mod group;
mod level;
mod managed;
mod marks;
mod totals;
pub mod views;
mod walk;
mod words;

pub use entry::{Change, DiffEntry, DiffKind, Fate, Managed, in_running_system};
pub(crate) use managed::is_generated;
pub use totals::{Amount, Totals};
pub use words::Owners;

use compare::Comparer;
use marks::Marks;
use walk::{Trees, Walk};

/// What is looked at, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffOptions<'a> {
    /// Only what is at or below this path, which is below the volume's root.
    pub only: Option<&'a Path>,
    /// Look at every entry, even where the filesystem could tell what was changed.
    pub full: bool,
}

/// How the comparison went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Whether the filesystem told where to look, so that not everything was looked at.
    pub fast: bool,
    /// Whether there was anything at [`DiffOptions::only`], or above, on either side.
    pub found: bool,
    /// Directories that were read.
    pub directories: u64,
    /// Entries that were looked at.
    pub entries: u64,
}

/// What is told while a comparison goes on: each difference to `see`, and now and then, how far it
/// is, to `progress`.
pub trait Watch {
    /// A difference. Directories come before what is in them.
    ///
    /// # Errors
    /// The comparison ends with this one.
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()>;

    /// How much was looked at so far.
    fn progress(&mut self, _done: &Done) {}
}

impl<F: FnMut(&DiffEntry<'_>) -> anyhow::Result<()>> Watch for F {
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()> {
        self(entry)
    }
}

/// Tells what the next reset of `volume` would erase, revert and bring back: everything in the live
/// volume that is neither persisted nor as in the blank. Of directories that lead to persisted paths
/// only changed attributes are told, since they stay.
///
/// # Errors
/// What cannot be read, or why there could be no reset.
pub fn next_reset(
    store: &mut dyn Store,
    volume: &config::Volume,
    options: DiffOptions<'_>,
    watch: &mut dyn Watch,
) -> anyhow::Result<Done> {
    let live = store.live()?;
    let blank = store.blank()?;
    let (live, blank) = (&live, blank.as_ref());
    let (volume, closed) = with_rules_for(volume, live)?;
    for it in closed {
        warn!("{}", it.warning(&volume.mount_point));
    }
    let mut surveyed = survey(&volume.rules, live, blank)?;
    let to_attic = attic::look(&volume.rules, live, &mut surveyed)?.stores;
    let since = if options.full { None } else { store.since_reset(&volume.rules)? };
    let marks = match (blank, &since) {
        (Some(blank), Some(Since { changes: Some(changes), .. })) => {
            let marks = Marks::since_reset(live, blank, *changes);
            Some(marks.context("cannot find out what was changed")?)
        }
        _ => None,
    };
    let made = since.map(|since| since.time);
    let trees = Trees {
        new: live,
        old: blank,
        rules: Some(&volume.rules),
        to_attic: &to_attic,
        mount_point: &volume.mount_point,
        reserved: reserved(live, blank)?,
    };
    walk(&trees, (marks.as_ref(), made), options, watch)
}

/// Tells what differs in `newer` from `older`, kept or not; without a newer generation in the live
/// volume.
///
/// # Errors
/// What cannot be read. Generations of a plain directory hold only what was moved aside, and cannot
/// be compared.
pub fn between(
    store: &mut dyn Store,
    volume: &config::Volume,
    (older, newer): (&Generation, Option<&Generation>),
    options: DiffOptions<'_>,
    watch: &mut dyn Watch,
) -> anyhow::Result<Done> {
    if matches!(volume.backing, config::Backing::Dir(_)) {
        bail!(
            "a generation of a plain directory holds only what a reset moved aside, and not what was \
             kept, so there is nothing to compare"
        );
    }
    let old = store.tree(older)?;
    let new = match newer {
        Some(newer) => store.tree(newer)?,
        None => store.live()?,
    };
    let (new, old) = (&new, &old);
    let (marks, made) = if options.full {
        (None, None)
    } else {
        let marks = Marks::between(store, older, new, old);
        (marks.context("cannot find out what was changed")?, state::written(new)?)
    };
    let trees = Trees {
        new,
        old: Some(old),
        rules: None,
        to_attic: &[],
        mount_point: &volume.mount_point,
        reserved: reserved(new, Some(old))?,
    };
    walk(&trees, (marks.as_ref(), made), options, watch)
}

fn walk(
    trees: &Trees<'_>,
    (marks, made): (Option<&Marks>, Option<Moment>),
    options: DiffOptions<'_>,
    watch: &mut dyn Watch,
) -> anyhow::Result<Done> {
    let comparer = Comparer::new(made);
    Walk::new(trees, marks, comparer, watch)?.run(options.only.unwrap_or(Path::new("")))
}

fn reserved(new: &Dir, old: Option<&Dir>) -> anyhow::Result<Vec<Reserved>> {
    [Some(new), old]
        .into_iter()
        .flatten()
        .map(|root| Reserved::of(root).context("cannot look at the root"))
        .collect()
}
