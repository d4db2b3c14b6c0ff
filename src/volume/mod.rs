//! What every filesystem implements: the seam between the engine and ZFS or btrfs.

use crate::config;
use crate::plan::{Step, VolumePlan};
use crate::restore::Outcome;

mod btrfs;
mod mounts;
mod zfs;

/// One volume of a reset.
///
/// The engine asks every volume for its plan, then executes the steps phase by phase. A volume
/// does what a step says and nothing else; undoing is its own business, since only it knows how.
pub trait Volume {
    /// Looks at everything that the plan depends on, and plans. Changes nothing.
    ///
    /// # Errors
    /// Why there will be no reset: something is missing, mounted, read-only, in the way.
    fn plan(&mut self) -> anyhow::Result<VolumePlan>;

    /// Does one step of the plan. What a restoration did is returned.
    ///
    /// # Errors
    /// What failed. A failure while committing undoes what was committed of this volume if it
    /// can; [`Volume::standing`] then tells.
    fn execute(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>>;

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
}

/// How volumes are opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Plan only: mount read-only, and take what would stop a reset now as a warning when it
    /// is only that the volume is in use.
    pub dry_run: bool,
    /// Threads of a restoration.
    pub threads: usize,
}

/// Opens the volume that the configuration names.
///
/// # Errors
/// The device or the dataset is not there, or cannot be mounted.
pub fn open(volume: &config::Volume, options: Options) -> anyhow::Result<Box<dyn Volume>> {
    match &volume.backing {
        config::Backing::Btrfs(source) => {
            let opened = btrfs::Btrfs::open(volume, source, options)?;
            Ok(Box::new(opened))
        }
        config::Backing::Zfs(source) => {
            let opened = zfs::Zfs::open(volume, source, options)?;
            Ok(Box::new(opened))
        }
    }
}
