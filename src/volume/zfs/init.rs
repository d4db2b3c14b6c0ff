//! Making the blank snapshot of a ZFS dataset.

use anyhow::{Context as _, ensure};
use darlings_zfs as fs;

use super::dataset::Zfs;
use super::generations;
use super::mounted::{root, unmount};
use super::names::blank_name;
use crate::cmdline::Asked;
use crate::config;
use crate::fs::reserved::Reserved;
use crate::volume::{self, bootable};
use crate::volume::{InitOptions, Missing};

/// Makes what is missing.
pub(in crate::volume) fn init(
    volume: &config::Volume,
    source: &config::Zfs,
    options: InitOptions,
) -> anyhow::Result<Vec<Missing>> {
    let opened = volume::Options {
        dry_run: true, // of a reset, which is not asked for
        threads: 1,
        asked: Asked::Off,
        root_subvolid: None,
    };
    let mut zfs = Zfs::open(volume, source, opened)?;
    zfs.check_there()?;
    let Some(blank) = blank_name(source) else { return Ok(Vec::new()) };
    if zfs.library.exists(&blank)? {
        return Ok(Vec::new());
    }
    if !options.from_live {
        let empty = zfs.is_empty()?;
        ensure!(
            empty,
            "{blank} is missing, and an empty snapshot cannot be taken of a dataset that has content; \
             write blank = \"empty\", which strategy = \"carry\" can do, or run this with --from-live \
             to take what is there now for the blank"
        );
    }
    let missing = if options.from_live {
        Missing::BlankOfLive(blank.clone())
    } else {
        Missing::EmptyBlank(blank.clone())
    };
    if !options.dry_run {
        zfs.library.snapshot(&[&blank], &fs::Properties::new())?;
    }
    Ok(vec![missing])
}

impl Zfs {
    /// Whether nothing is in the dataset. An operating system there is refused in words of its own.
    fn is_empty(&mut self) -> anyhow::Result<bool> {
        self.mounted.dataset = Some(generations::live(&self.source.dataset, fs::Access::ReadOnly)?);
        let looked = (|| {
            let live = root(self.mounted.dataset.as_ref())?;
            bootable::ensure(&self.volume, Asked::Reset, live, None)
                .context("cannot make an empty blank")?;
            let reserved = Reserved::of(live)?;
            Ok(live.names()?.iter().all(|name| reserved.holds(name)))
        })();
        let closed = unmount(&mut self.mounted.dataset);
        match (looked, closed) {
            (Ok(empty), Ok(())) => Ok(empty),
            (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
            (Err(error), Err(close)) => {
                Err::<bool, anyhow::Error>(error).context(format!("and then: {close:#}"))
            }
        }
    }
}
