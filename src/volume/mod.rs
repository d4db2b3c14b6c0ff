//! What every filesystem implements: the seam between the engine and ZFS or btrfs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cmdline::{Asked, CommandLine};
use crate::config;
use crate::engine::plan::{Step, VolumePlan};
use crate::generations::{self, Store};
use crate::keep::carry::{Journal, Stage};
use crate::keep::copy_in::Outcome;

mod backing;
mod bootable;
mod btrfs;
mod dir;
mod elsewhere;
#[cfg(test)]
mod every_step;
mod looked;
mod mounts;
mod running;
mod zfs;

pub use backing::{FromWithin, mounted_from_within};
pub use bootable::vanishing;
pub use looked::unreachable;
use looked::{LEAST_ROOM, Looked, ensure_copy_fits, ensure_room};
pub use running::{
    Cover, cover, in_running_system, is_mount_point, other_mount, place_in, zfs_clones_no_blocks,
};

/// One volume of a reset.
///
/// The engine asks every volume for its plan, then executes the steps phase by phase. A volume
/// does what a step says and nothing else; undoing is its own business, since only it knows how.
pub trait Volume {
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
    /// Neither, and what would complete it is gone.
    Stranded,
}

impl Standing {
    /// How a volume stands in which `found` is what was found of a `carry` in place.
    fn of(found: &anyhow::Result<Option<(Journal, Stage)>>) -> Self {
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
    /// What to plan; see [`Volume::plan`].
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

/// Opens the volume that the configuration names; for a dry run, where the running system has it.
///
/// # Errors
/// The device or the dataset is not there, or cannot be mounted.
pub fn open(volume: &config::Volume, options: Options) -> anyhow::Result<Box<dyn Volume>> {
    let here = options.dry_run.then(|| in_running_system(volume));
    let volume = here.as_ref().unwrap_or(volume);
    match &volume.backing {
        config::Backing::Btrfs(source) => {
            let opened = btrfs::Btrfs::open(volume, source, options)?;
            Ok(Box::new(opened))
        }
        config::Backing::Zfs(source) => {
            let opened = zfs::Zfs::open(volume, source, options)?;
            Ok(Box::new(opened))
        }
        config::Backing::Dir(source) => {
            let opened = dir::Dir::open(volume, source, options)?;
            Ok(Box::new(opened))
        }
    }
}

/// Where anything is mounted, in the view of this process and in that of the machine's first one.
///
/// # Errors
/// `/proc` does not say.
pub fn mount_points() -> anyhow::Result<BTreeSet<PathBuf>> {
    Ok(mounts::all()?.into_iter().map(|mounted| mounted.mount_point).collect())
}

/// What is mounted over a path of a volume: the innermost mount point at or above `path` that lies
/// below the volume's own.
///
/// # Errors
/// The list of mounts cannot be read.
pub fn mounted_over(mount_point: &Path, path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let over = |point: &PathBuf| {
        point != mount_point && point.starts_with(mount_point) && path.starts_with(point)
    };
    Ok(mount_points()?.into_iter().filter(over).max_by_key(|point| point.as_os_str().len()))
}

/// A mount point at or below `path`, if there is one.
///
/// # Errors
/// The list of mounts cannot be read.
pub fn mounted_at_or_below(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    Ok(mount_points()?.into_iter().find(|point| point.starts_with(path)))
}

/// The dataset, subvolume or directory that a volume is, in words.
#[must_use]
pub fn in_words(volume: &config::Volume) -> String {
    match &volume.backing {
        config::Backing::Btrfs(source) => btrfs::in_words(source),
        config::Backing::Zfs(source) => zfs::in_words(source),
        config::Backing::Dir(source) => dir::in_words(source),
    }
}

/// Opens the generations of the volume that the configuration names, which may be in use.
///
/// # Errors
/// The device or the dataset is not there, or cannot be mounted.
pub fn store(
    volume: &config::Volume,
    access: generations::Access,
) -> anyhow::Result<Box<dyn Store>> {
    match &volume.backing {
        config::Backing::Btrfs(source) => {
            let opened = btrfs::Generations::open(volume, source, access)?;
            Ok(Box::new(opened))
        }
        config::Backing::Zfs(source) => {
            let opened = zfs::Generations::open(source)?;
            Ok(Box::new(opened))
        }
        config::Backing::Dir(source) => {
            let opened = dir::Generations::open(volume, source)?;
            Ok(Box::new(opened))
        }
    }
}

/// Why nothing is reset although the configuration says so: the root that the kernel command line
/// boots is another one than the volume at `/`, a snapshot chosen in the boot menu perhaps. A reset
/// would erase what nobody looks at, and file it away by the number of a boot that it had no part in.
#[must_use]
pub fn boots_another(volume: &config::Volume, line: &CommandLine) -> Option<String> {
    if volume.mount_point != Path::new("/") {
        return None;
    }
    let (booted, reset) = match &volume.backing {
        config::Backing::Btrfs(source) => {
            let booted = line.root_subvolume().filter(|booted| *booted != source.subvolume)?;
            (format!("the subvolume {booted:?}"), format!("{:?}", source.subvolume))
        }
        config::Backing::Zfs(source) => {
            let booted = line.root_dataset().filter(|booted| *booted != source.dataset)?;
            (format!("the dataset {booted:?}"), format!("{:?}", source.dataset))
        }
        config::Backing::Dir(_) => return None,
    };
    Some(format!(
        "the kernel command line boots {booted}, and the configuration resets {reset}: nothing is \
         reset while another root is booted; boot {reset}, or name what is booted in the configuration"
    ))
}

/// Makes what is missing for a reset of the volume that the configuration names, which may be in use.
///
/// # Errors
/// What could not be made, or cannot be and what to do instead.
pub fn init(
    volume: &config::Volume,
    options: crate::act::init::Options,
) -> anyhow::Result<Vec<crate::act::init::Missing>> {
    match &volume.backing {
        config::Backing::Btrfs(source) => btrfs::init(volume, source, options),
        config::Backing::Zfs(source) => zfs::init(volume, source, options),
        config::Backing::Dir(_) => dir::init(volume, options),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn another_root_is_booted_where_the_line_names_another_one_than_the_volume_at_the_root() {
        let volumes = |of: &str| {
            let text = format!("[[volume]]\nmount_point = {of}\n");
            config::Config::from_bytes(Path::new("it"), text.as_bytes()).unwrap().volumes
        };
        let zfs = "zfs = { dataset = \"rpool/root\", blank = \"blank\" }";
        let btrfs = "btrfs = { device = \"/dev/x\", subvolume = \"/@\", blank = \"empty\" }";
        let root = |backing: &str| format!("\"/\"\n{backing}");
        let words = |booted: &str, reset: &str| {
            Some(format!(
                "the kernel command line boots {booted}, and the configuration resets \"{reset}\": \
                 nothing is reset while another root is booted; boot \"{reset}\", or name what is \
                 booted in the configuration"
            ))
        };
        for (of, line, expected) in [
            (root(zfs), "root=zfs:rpool/root", None),
            (root(zfs), "root=/dev/vda", None),
            (root(zfs), "rootflags=subvol=@", None),
            (root(zfs), "root=ZFS=rpool/old", words("the dataset \"rpool/old\"", "rpool/root")),
            (root(zfs), "zfs=rpool/root@1", words("the dataset \"rpool/root@1\"", "rpool/root")),
            (root(btrfs), "rootflags=subvol=@", None),
            (root(btrfs), "root=zfs:rpool/root", None),
            (root(btrfs), "rootflags=subvol=/@b", words("the subvolume \"@b\"", "@")),
            (format!("\"/home\"\n{btrfs}"), "rootflags=subvol=@b", None),
        ] {
            let line = CommandLine::parse(line.as_bytes());
            assert_eq!(boots_another(&volumes(&of)[0], &line), expected, "{of} {line:?}");
        }
    }
}
