//! Opening a volume of the configuration, on whichever filesystem it is.

use super::missing::{InitOptions, Missing};
use super::running::in_running_system;
use super::seam::{OpenVolume, Options};
use super::{btrfs, dir, zfs};
use crate::config;
use crate::fs::Dir;
use crate::generations::{self, Store};
use crate::keep::survey::{Closed, keep_whole};

/// Opens the volume that the configuration names; for a dry run, where the running system has it.
///
/// # Errors
/// The device or the dataset is not there, or cannot be mounted.
pub fn open(volume: &config::Volume, options: Options) -> anyhow::Result<Box<dyn OpenVolume>> {
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
            let opened = dir::PlainDir::open(volume, source, options)?;
            Ok(Box::new(opened))
        }
    }
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

/// The volume with the rules that a reset of the tree at `live` would use, and the directories that it would keep
/// as a whole: see [`keep_whole`].
pub fn with_rules_for(
    volume: &config::Volume,
    live: &Dir,
) -> anyhow::Result<(config::Volume, Vec<Closed>)> {
    let mut volume = volume.clone();
    let closed = match volume.backing {
        // The others move and copy out of subvolumes, and know no fscrypt.
        config::Backing::Btrfs(_) | config::Backing::Zfs(_) => Vec::new(),
        config::Backing::Dir(_) => keep_whole(&mut volume.rules, live)?,
    };
    Ok((volume, closed))
}

/// Makes what is missing for a reset of the volume that the configuration names, which may be in use.
///
/// # Errors
/// What could not be made, or cannot be and what to do instead.
pub fn init(volume: &config::Volume, options: InitOptions) -> anyhow::Result<Vec<Missing>> {
    match &volume.backing {
        config::Backing::Btrfs(source) => btrfs::init(volume, source, options),
        config::Backing::Zfs(source) => zfs::init(volume, source, options),
        config::Backing::Dir(_) => dir::init(volume, options),
    }
}
