//! What every filesystem implements, and what the engine may ask of it.

use crate::cmdline::Asked;
use crate::engine::plan::VolumePlan;
use crate::keep::carry::{Journal, Stage};
use crate::keep::copy_in::Outcome;

/// One volume of a reset.
///
/// The engine asks every volume for its plan, then executes the steps phase by phase. A volume
/// does what a step says and nothing else; undoing is its own business, since only it knows how.
pub trait OpenVolume {
    /// Looks at everything that the plan depends on, and plans what [`Options::asked`] says.
    /// Changes nothing.
    ///
    /// | asked | plan |
    /// |---|---|
    /// | anything, and a run was interrupted where the volume must not be left | to complete that, and no more |
    /// | `Reset` | the reset |
    /// | `Off` | no steps |
    /// | `Snapshot` | to keep a generation, with the next number, which the live volume then counts |
    /// | `Restore` | to keep what is live as a generation, and to make the volume what the other one was |
    ///
    /// The engine asks for anything but a reset only once it has had everything completed.
    ///
    /// # Errors
    /// Why there will be no reset: something is missing, mounted, read-only, in the way.
    fn plan(&mut self) -> anyhow::Result<VolumePlan>;

    /// Does the step of the plan with this number, from 0. What copying did is returned.
    ///
    /// # Errors
    /// What failed. A failure while committing undoes what was committed of this volume if it
    /// can; [`OpenVolume::standing`] then tells.
    fn execute(&mut self, step: usize) -> anyhow::Result<Option<Outcome>>;

    /// Answers another plan with the same result, after `error` stopped a step of [`Phase::Prepare`], and
    /// removes what the first plan had prepared. `None` where there is no other way.
    ///
    /// # Errors
    /// What could not be removed.
    ///
    /// [`Phase::Prepare`]: crate::engine::plan::Phase::Prepare
    fn plan_instead(&mut self, _error: &anyhow::Error) -> anyhow::Result<Option<VolumePlan>> {
        Ok(None)
    }

    /// Removes what was prepared, when the reset goes no further.
    ///
    /// # Errors
    /// What is left over; the next run removes it.
    fn abandon(&mut self) -> anyhow::Result<()>;

    /// What the machine would boot now.
    fn standing(&self) -> Standing;

    /// Unmounts what was mounted to do the work.
    ///
    /// # Errors
    /// What is still mounted; it goes with the process, in whose namespace it is.
    fn close(&mut self) -> anyhow::Result<()>;
}

/// What a volume is between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The complete previous state.
    Previous,
    /// The complete result.
    Reset,
    /// Neither; the next run completes it without asking.
    Unfinished,
    /// Neither, and what would complete it is gone.
    Stranded,
}

impl Standing {
    /// How a volume stands in which `found` is what was found of a `carry` in place.
    pub(super) fn of(found: &anyhow::Result<Option<(Journal, Stage)>>) -> Self {
        match found {
            Ok(None) => Self::Previous,
            Ok(Some((_, Stage::Complete))) => Self::Reset,
            Ok(Some((_, Stage::Moving))) => Self::Unfinished,
            // It was begun as well.
            Err(_) => Self::Stranded,
        }
    }

    /// Whether the volume is neither the complete previous state nor the complete result.
    #[must_use]
    pub fn must_not_be_used(self) -> bool {
        matches!(self, Self::Unfinished | Self::Stranded)
    }
}

/// What forbids a reset only for as long as the system runs, and says nothing about the next boot.
///
/// This is the whole list of what a dry run, and so `darlings check`, passes over. Everything else that
/// forbids a reset is found by the code that both run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlyNow {
    /// A hibernation image waits to be resumed.
    Hibernated,
    /// The volume is mounted.
    Mounted,
    /// Something is mounted on the plain directory.
    MountedOn,
    /// Another run, or a purge, is at work in it.
    Locked,
}

/// How volumes are opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Plan only: mount read-only, and pass over what is [`OnlyNow`] in the way.
    pub dry_run: bool,
    /// Threads of a restoration.
    pub threads: usize,
    /// What to plan; see [`OpenVolume::plan`].
    pub asked: Asked,
    /// The id of the btrfs subvolume that the kernel command line mounts the root by.
    pub root_subvolid: Option<u64>,
}

impl Options {
    /// Whether to go on in spite of it.
    #[must_use]
    pub fn passes_over(self, _reason: OnlyNow) -> bool {
        self.dry_run
    }
}
