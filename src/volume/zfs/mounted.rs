//! What is mounted while a reset is at work.

use anyhow::Context as _;
use darlings_zfs as fs;

use crate::fs::Dir;
use crate::volume::mounts::Mount;

/// What is mounted of the dataset at the moment.
#[derive(Default)]
pub(super) struct Mounts {
    /// The dataset itself.
    pub(super) dataset: Option<Mount>,
    pub(super) blank: Option<Mount>,
    pub(super) stage: Option<Mount>,
}

/// The root of something that a step needs mounted.
pub(super) fn root(mount: Option<&Mount>) -> anyhow::Result<&Dir> {
    mount.map(|mount| &**mount).context("BUG: it is not mounted")
}

pub(super) fn mount(name: &str, label: &str, access: fs::Access) -> anyhow::Result<Option<Mount>> {
    Mount::new(label, |target| fs::mount(name, target, access))
        .map(Some)
        .with_context(|| format!("cannot mount {name}"))
}

pub(super) fn unmount(mount: &mut Option<Mount>) -> anyhow::Result<()> {
    match mount.take() {
        Some(mount) => mount.close(fs::unmount),
        None => Ok(()),
    }
}
