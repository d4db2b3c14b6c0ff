//! Where a path of the running system lies: on which volume, and below what.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::ask::drift;
use crate::config::{self, Config};
use crate::fs::Dir;
use crate::generations::{Access, Store, close_after};
use crate::own::state;
use crate::volume;

pub mod entry;
mod links;

pub use entry::{Found, FoundEntry, find};
pub use links::{Link, resolve};

/// A path on a volume that is reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which of the configuration's volumes.
    pub volume: usize,
    /// The path below the volume's root; empty for the root.
    pub below: PathBuf,
    /// What is mounted at or above it, below the volume's own mount point: nothing of that is reset.
    pub over: Option<PathBuf>,
}

/// Finds the volume of an absolute, normal path; `None` where it is on none that is reset.
pub fn place(config: &Config, path: &Path) -> anyhow::Result<Option<Place>> {
    let below = |(index, volume): (usize, &config::Volume)| {
        let Ok(below) = path.strip_prefix(&volume.mount_point) else { return None };
        Some((index, below.to_owned()))
    };
    let on = config.volumes.iter().enumerate().filter_map(below);
    let Some((volume, below)) = on.min_by_key(|(_, below)| below.as_os_str().len()) else {
        return Ok(None);
    };
    let over = volume::mounted_over(&config.volumes[volume].mount_point, path)?;
    Ok(Some(Place { volume, below, over }))
}

/// The volumes of a configuration, opened when they are asked for.
pub struct Volumes<'c> {
    config: &'c Config,
    access: Access,
    opened: Vec<Option<Box<dyn Store>>>,
}

impl<'c> Volumes<'c> {
    /// Opens none yet.
    #[must_use]
    pub fn new(config: &'c Config, access: Access) -> Self {
        let opened = config.volumes.iter().map(|_| None).collect();
        Self { config, access, opened }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &'c Config {
        self.config
    }

    /// Opens the volume with this number.
    pub fn store(&mut self, index: usize) -> anyhow::Result<&mut dyn Store> {
        let slot = &mut self.opened[index];
        if slot.is_none() {
            let volume = &self.config.volumes[index];
            let store = volume::store(volume, self.access)
                .with_context(|| format!("cannot open the volume {:?}", volume.mount_point))?;
            return Ok(slot.insert(store).as_mut());
        }
        Ok(slot.as_mut().context("BUG: the volume is closed")?.as_mut())
    }

    /// What [`drift::note`] says of the volume with this number.
    ///
    /// # Errors
    /// The volume cannot be opened, or its manifest not be read.
    pub fn drift(&mut self, index: usize) -> anyhow::Result<Option<String>> {
        let volume = &self.config.volumes[index];
        let live = self.store(index)?.live()?;
        Ok(drift::note(volume, state::manifest(&live)?.as_ref()))
    }

    /// Closes all of them, after `result`.
    ///
    /// # Errors
    /// The result's, and what could not be closed.
    pub fn close<T>(self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        self.opened
            .into_iter()
            .flatten()
            .fold(result, |result, mut store| close_after(result, store.as_mut()))
    }
}

/// The outermost subvolume or filesystem nested in a volume that holds `path`, if any.
pub fn nested_around(root: &Dir, path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let of_root = root.status()?;
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    for above in ancestors.into_iter().filter(|it| !it.as_os_str().is_empty()) {
        let status = root.glance(above)?;
        let Some(status) = status else { return Ok(None) };
        let device = |it: &rustix::fs::Statx| (it.stx_dev_major, it.stx_dev_minor);
        if device(&status) != device(&of_root) {
            return Ok(Some(above.to_owned()));
        }
    }
    Ok(None)
}
