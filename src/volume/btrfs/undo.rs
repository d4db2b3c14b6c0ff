//! Undoing: the exchange and what followed it, and what was prepared.

use std::ffi::OsStr;

use anyhow::Context as _;
use darlings_btrfs as fs;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::journal::{Moving, move_subvolume};
use super::names::ready_name;
use super::subvolume::Btrfs;
use crate::errors;
use crate::fs::Dir;
use crate::rules::OWN_DIRECTORY;
use crate::tree::{self};
use crate::volume::Standing;

impl Btrfs {
    /// If something fails between the exchange and the end of the commit, everything back to
    /// the exchange is undone; not so in a run that completes an interrupted one, since
    /// somebody may have used the machine in between.
    pub(super) fn or_undo(&mut self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = result else { return Ok(()) };
        if self.work.resumes {
            return Err(error);
        }
        let undone = self.undo_exchange();
        Err(match (undone, self.standing) {
            (Ok(()), _) => error.context("the exchange was undone"),
            (Err(left), Standing::Previous) => {
                errors::and_then(&error.context("the exchange was undone"), &left)
            }
            (Err(undo), _) => error.context(format!("undoing the exchange failed too: {undo:#}")),
        })
    }

    /// Makes the previous state live again. Only what must not be left undone stops it: an attribute
    /// that cannot be set is reported at the end.
    fn undo_exchange(&mut self) -> anyhow::Result<()> {
        let (live, old) = (self.live()?, self.old()?);
        fs::set_read_only(&old, false)?;
        while let Some(Moving { from, to }) = self.work.moved.last() {
            move_subvolume((&live, to), (&old, from))?;
            self.work.moved.pop();
        }
        let settled = self.work.journal.settle_undone(&old);
        let limited = self.top().and_then(|top| self.work.journal.set_limits(top));
        if let Some(before) = self.work.default_before {
            fs::set_default_subvolume(self.top()?, before)?;
            self.work.default_before = None;
        }
        // If this fails, so does the exchange, and says so.
        let unsealed = tree::unseal(&live).map(drop).map_err(Into::into);
        self.swap()?;
        self.work.staged = Some(ready_name(self.work.generation));
        self.standing = Standing::Previous;
        let sealed = self.seal_live_again();
        let synced = self.top().and_then(|top| Ok(fs::sync(top)?));
        errors::all([settled, limited, unsealed, sealed, synced].into_iter())
    }

    /// Goes on whatever fails, and reports it all.
    pub(super) fn seal_live_again(&mut self) -> anyhow::Result<()> {
        let Some((seals, read_only)) = self.work.live_was.take() else { return Ok(()) };
        let live = self.live()?;
        let sealed = tree::seal(&live, seals).context("cannot set the flags of the live root");
        let closed = if read_only { fs::set_read_only(&live, true) } else { Ok(()) };
        let forgotten = self.forget_seals(self.work.generation);
        errors::all([sealed, closed.map_err(Into::into), forgotten].into_iter())
    }

    pub(super) fn undo_prepared(&mut self) -> anyhow::Result<()> {
        if let Some(staged) = self.work.staged.take() {
            self.in_home(&staged)
                .and_then(|staged| delete(&staged.parent, &staged.name))
                .context("cannot remove the staged subvolume; the next run removes it")?;
        }
        self.work.home = None;
        while let Some(directory) = self.work.made.pop() {
            let (parent, name) = self.top()?.open_parent(&directory)?;
            if directory.ends_with(OWN_DIRECTORY) {
                Self::forget_record(&parent.open_dir(&name)?)?;
            }
            match unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
                // Another volume has its generations beside ours.
                Ok(()) | Err(Errno::NOTEMPTY) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot remove {directory:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Deletes a staged subvolume, whose root may have flags of the blank's that forbid it.
pub(super) fn delete(parent: &Dir, name: &OsStr) -> anyhow::Result<()> {
    let root = parent.open_dir(name)?;
    if !tree::seals_of(&root)?.is_empty() {
        // Of a copy that was to become a generation.
        fs::set_read_only(&root, false)?;
        tree::unseal(&root).with_context(|| format!("cannot clear the flags of {name:?}"))?;
    }
    Ok(fs::delete_subvolume(parent, name)?)
}
