//! Making the blank and the home of the generations of a btrfs subvolume.

use std::path::Path;

use anyhow::Context as _;
use darlings_btrfs as fs;

use super::names::{each_directory, os};
use super::record::Whose;
use super::subvolume::Btrfs;
use crate::cmdline::Asked;
use crate::config;
use crate::fs::Dir;
use crate::fs::at;
use crate::tree::{self};
use crate::volume::{self, OpenVolume as _, bootable};
use crate::volume::{InitOptions, Missing};

/// What a blank is called until it is complete.
const UNFINISHED: &str = ".darlings-unfinished";

/// Makes what is missing.
pub(in crate::volume) fn init(
    volume: &config::Volume,
    source: &config::Btrfs,
    options: InitOptions,
) -> anyhow::Result<Vec<Missing>> {
    let opened = volume::Options {
        dry_run: options.dry_run,
        threads: 1,
        // To look at no more than what is here; not to mount read-only.
        asked: Asked::Reset,
        root_subvolid: None,
    };
    let mut btrfs = Btrfs::open(volume, source, opened)?;
    let done = btrfs.init(options);
    match (done, btrfs.close()) {
        (Ok(missing), Ok(())) => Ok(missing),
        (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        (Err(error), Err(close)) => Err(error.context(format!("and then: {close:#}"))),
    }
}

impl Btrfs {
    fn init(&mut self, options: InitOptions) -> anyhow::Result<Vec<Missing>> {
        let live = self.live()?;
        let mut missing = Vec::new();
        let generations = self.source.generations.display().to_string();
        match self.home()?.map(|home| self.whose(&home, &live)).transpose()? {
            None => missing.push(Missing::Generations(generations)),
            Some(Whose::Theirs(_)) if options.take_over => {
                missing.push(Missing::Ownership(generations));
            }
            Some(whose) => drop(whose.ours()?),
        }
        if let Some(blank) = &self.source.blank
            && self.open_subvolume(blank)?.is_none()
        {
            let name = blank.display().to_string();
            missing.push(if options.from_live {
                Missing::BlankOfLive(name)
            } else {
                bootable::ensure(&self.volume, Asked::Reset, &live, None)
                    .with_context(|| format!("cannot make the blank {name} empty"))?;
                Missing::EmptyBlank(name)
            });
        }
        if options.dry_run {
            return Ok(missing);
        }
        for it in &missing {
            match it {
                Missing::Generations(_) => {
                    self.make_directories(&self.source.generations)?;
                    self.write_record(None)?;
                }
                Missing::Ownership(_) => self.write_record(None)?,
                Missing::EmptyBlank(_) | Missing::BlankOfLive(_) => {
                    self.make_blank(&live, options.from_live)
                        .with_context(|| format!("cannot make {it}"))?;
                }
            }
        }
        fs::sync(self.top()?).context("cannot make it durable")?;
        Ok(missing)
    }

    fn make_directories(&self, path: &Path) -> anyhow::Result<()> {
        for part in each_directory(path) {
            self.top()?.ensure_dir(part)?;
        }
        Ok(())
    }

    /// A blank has its name only once it is complete, so that no reset takes half of one.
    fn make_blank(&self, live: &Dir, of_live: bool) -> anyhow::Result<()> {
        let path = self.source.blank.as_deref().context("BUG: the blank has no name")?;
        if let Some((above, _)) = at::split(path) {
            self.make_directories(above)?;
        }
        let place = self.named(path)?;
        let mut unfinished = place.name.clone();
        unfinished.push(UNFINISHED);
        if place.parent.holds(&unfinished)? {
            fs::delete_subvolume(&place.parent, &unfinished)
                .context("cannot remove what an interrupted run had begun")?;
        }
        if of_live {
            fs::snapshot(live, &place.parent, &unfinished, fs::Access::Writable)?;
        } else {
            fs::create_subvolume(&place.parent, &unfinished)?;
        }
        let made = place.parent.open_dir(&unfinished)?;
        if of_live {
            let own = os(crate::rules::OWN_DIRECTORY);
            tree::remove(&made, own).context("cannot empty it of what is darlings' own")?;
        } else {
            tree::take_attributes(live, &made)
                .context("cannot give it the attributes of the root")?;
        }
        fs::set_read_only(&made, true)?;
        fs::sync(&made)?;
        fs::rename_noreplace(&place.parent, &unfinished, &place.parent, &place.name)?;
        Ok(())
    }
}
