//! Making the blank of a plain directory.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

use anyhow::{Context as _, bail};

use crate::cmdline::Asked;
use crate::config;
use crate::fs::Dir;
use crate::own::Own;
use crate::rules::OWN_DIRECTORY;
use crate::tree;
use crate::volume::{InitOptions, Missing};
use crate::volume::{bootable, in_running_system};

/// Makes what is missing.
pub(in crate::volume) fn init(
    volume: &config::Volume,
    options: InitOptions,
) -> anyhow::Result<Vec<Missing>> {
    let volume = in_running_system(volume);
    let config::Backing::Dir(source) = &volume.backing else { bail!("BUG: no directory") };
    let root = Dir::open_root(&source.path)?;
    let Some(blank) = &source.blank else { return Ok(Vec::new()) };
    let there = blank.try_exists().with_context(|| format!("cannot look at {blank:?}"))?;
    if there {
        return Ok(Vec::new());
    }
    if options.from_live {
        bail!(
            "{blank:?} is missing, and a plain directory cannot be snapshotted; copy what shall be the \
             blank there (cp -ax), or run this without --from-live for an empty one"
        );
    }
    bootable::ensure(&volume, Asked::Reset, &root, None)
        .with_context(|| format!("cannot make {blank:?}, an empty blank"))?;
    let missing = vec![Missing::EmptyBlank(blank.display().to_string())];
    if options.dry_run {
        return Ok(missing);
    }
    let cannot = || format!("cannot make {blank:?}");
    if blank.starts_with(source.path.join(OWN_DIRECTORY)) {
        Own::ensure(&root)?;
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(blank).with_context(cannot)?;
    let made = Dir::open_root(blank)?;
    tree::take_attributes(&root, &made).with_context(cannot)?;
    made.sync_filesystem()?;
    Ok(missing)
}
