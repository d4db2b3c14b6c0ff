//! What one reset has made so far.

use std::path::PathBuf;

use rustix::fs::IFlags;

use super::facts::Facts;
use super::journal::{Journal, Moving};
use super::record::{Blank, Record};
use super::step::Step;
use crate::engine::plan::{Does, VolumePlan};
use crate::fs::Dir;
use crate::keep::carry;
use crate::volume::Looked;

/// What one reset has made so far.
#[derive(Default)]
pub(super) struct Work {
    pub(super) does: Does,
    pub(super) generation: u64,
    /// What is to be done.
    pub(super) steps: Vec<Step>,
    /// Which step is the exchange, or the last of those that follow it before the volume counts as reset.
    pub(super) commits: Option<usize>,
    /// It completes a run that was interrupted after the exchange.
    pub(super) resumes: bool,
    pub(super) looked: Looked,
    /// Subvolumes nested in the previous state.
    pub(super) nested: Vec<PathBuf>,
    /// What `carry` has prepared in the stage.
    pub(super) carrying: Option<carry::Journal>,
    /// The generations directory.
    pub(super) home: Option<Dir>,
    /// What was live when there was no generations directory, with the lock on it.
    pub(super) first: Option<Dir>,
    /// Directories that were made for it, outermost first.
    pub(super) made: Vec<PathBuf>,
    /// Where the staged subvolume is, below the generations directory.
    pub(super) staged: Option<String>,
    /// Whose the generations are, and what was live.
    pub(super) record: Option<Record>,
    /// The blank before anything was made from it.
    pub(super) blank: Option<Blank>,
    /// Nested subvolumes that move into the result.
    pub(super) moving: Vec<Moving>,
    /// Those that have moved.
    pub(super) moved: Vec<Moving>,
    /// What is to be done after the exchange beside moving them.
    pub(super) journal: Journal,
    /// What forbade the exchange of the live root: flags, and that it was read-only.
    pub(super) live_was: Option<(IFlags, bool)>,
    /// Flags that the result's root shall have.
    pub(super) root_seals: Option<IFlags>,
    /// The subvolume that was the default before.
    pub(super) default_before: Option<u64>,
}

impl Work {
    /// Keeps the generations directory open, and with it the lock on it.
    pub(super) fn hold(&mut self, home: Option<Dir>) {
        self.home = home;
    }

    /// Keeps what is live open, and with it the lock on it.
    pub(super) fn hold_first(&mut self, live: Dir) {
        self.first = Some(live);
    }

    pub(super) fn begin(&mut self, plan: &VolumePlan<Step>, moving: Vec<Moving>, facts: Facts) {
        self.does = plan.does;
        self.generation = plan.generation;
        self.resumes = plan.resumes;
        self.commits = plan.steps.iter().rposition(|planned| commits(&planned.step));
        self.moving = moving;
        self.looked = facts.looked;
        self.nested = facts.nested;
        self.journal = facts.journal;
    }

    /// Closes what would keep the filesystem busy.
    pub(super) fn release(&mut self) {
        self.home = None;
        self.first = None;
    }
}

/// Whether a step makes the exchange, or belongs to it.
fn commits(step: &Step) -> bool {
    let follows = matches!(step, Step::MoveNested { .. } | Step::SetDefault | Step::SetAttributes);
    follows || matches!(step, Step::Exchange { .. })
}
