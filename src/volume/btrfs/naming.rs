//! The last step: the previous state gets the name of a generation, and is read-only from then on.
//!
//! A root that is immutable or append-only cannot be renamed, and in a read-only subvolume no flag
//! can be set. So those flags are cleared before the exchange and set when it has its name already, and
//! are written down before, in `seals-7` beside it, for the run after one that was interrupted.

use std::path::Path;

use anyhow::Context as _;
use darlings_btrfs as fs;
use rustix::fs::IFlags;

use super::names::{os, ready_name, seals_name};
use super::subvolume::Btrfs;
use crate::fs::Dir;
use crate::own::state;
use crate::text::exact_number;
use crate::tree::{self};
use crate::volume::Standing;

impl Btrfs {
    pub(super) fn keep_generation(&mut self, kept: &Path) -> anyhow::Result<()> {
        self.standing = Standing::Reset;
        self.ensure_recorded()?;
        let old = self.old()?;
        let number = self.work.generation;
        let seals = match self.work.live_was.take() {
            Some((seals, _)) => Some(seals),
            // It completes a run that was interrupted, which had written them down if it got so far.
            None => noted_seals(self.work_home()?, number)?,
        };
        let seals = seals.unwrap_or_else(IFlags::empty);
        self.name_generation(&old, &ready_name(self.work.generation), kept, seals)
    }

    /// Makes a tree in the generations directory a generation. What fails before the rename leaves
    /// it to the next run.
    pub(super) fn name_generation(
        &mut self,
        tree: &Dir,
        from: &str,
        kept: &Path,
        seals: IFlags,
    ) -> anyhow::Result<()> {
        fs::set_read_only(tree, true)?;
        let name = kept.file_name().context("BUG: a generation without a name")?.to_owned();
        let number =
            name.to_str().and_then(exact_number).context("BUG: a name without a number")?;
        if !seals.is_empty() {
            self.note_seals(number, seals)?;
        }
        let home = self.work_home()?;
        fs::rename_noreplace(home, os(from), home, &name)?;
        self.work.staged = None;
        if !seals.is_empty() {
            self.seal(tree, number, seals)?;
        }
        Ok(fs::sync(self.top()?)?)
    }

    /// [`Btrfs::name_generation`] from where an interrupted run had got to.
    pub(super) fn seal_kept(&mut self, number: u64) -> anyhow::Result<()> {
        let seals = noted_seals(self.work_home()?, number)?.unwrap_or_else(IFlags::empty);
        let tree = self.work_home()?.open_dir_optional(number.to_string())?;
        match tree {
            Some(tree) => self.seal(&tree, number, seals),
            // The run did not get to the exchange: it is the live root that had those flags.
            None if state::generation(&self.live()?)? < number => {
                tree::seal(self.live()?, seals).context("cannot set the flags of the live root")?;
                self.forget_seals(number)
            }
            // It was removed since.
            None => self.forget_seals(number),
        }
    }

    fn seal(&mut self, tree: &Dir, number: u64, seals: IFlags) -> anyhow::Result<()> {
        fs::set_read_only(tree, false)?;
        tree::seal(tree, seals).context("cannot set the flags of the root")?;
        fs::set_read_only(tree, true)?;
        self.forget_seals(number)
    }

    pub(super) fn note_seals(&mut self, number: u64, seals: IFlags) -> anyhow::Result<()> {
        let text = format!("{}\n", seals.bits());
        self.work_home()?.write_durably(seals_name(number), text.as_bytes())
    }

    pub(super) fn forget_seals(&mut self, number: u64) -> anyhow::Result<()> {
        self.work_home()?.remove_file(seals_name(number)).map(drop)
    }
}

/// The flags that the root of a generation shall have, as they were written down beside it.
pub(super) fn noted_seals(home: &Dir, number: u64) -> anyhow::Result<Option<IFlags>> {
    let name = seals_name(number);
    let Some(text) = home.read_optional(&name)? else { return Ok(None) };
    let bits = String::from_utf8_lossy(&text).trim_end().parse();
    let bits =
        bits.with_context(|| format!("cannot read {name:?} in the generations directory"))?;
    Ok(Some(IFlags::from_bits_retain(bits)))
}
