//! The steps of a reset on btrfs, and undoing them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use darlings_btrfs as fs;
use rustix::fs::{AtFlags, IFlags, Mode, mkdirat, unlinkat};
use rustix::io::Errno;

use super::journal::{Journal, Roots, move_subvolume};
use super::plan::{Facts, NEXT, ready_name};
use super::{Btrfs, Named, each_directory, os};
use crate::plan::{Step, Tree, VolumePlan};
use crate::restore::{self, Outcome, Surveyed, Trees, at, restore};
use crate::state::{self, Manifest};
use crate::volume::Standing;

/// What one reset has made so far.
#[derive(Default)]
pub(super) struct Work {
    generation: u64,
    /// It completes a run that was interrupted after the exchange.
    resumes: bool,
    paths: Vec<Surveyed>,
    /// The generations directory.
    home: Option<OwnedFd>,
    /// Directories that were made for it, outermost first.
    made: Vec<PathBuf>,
    /// Name, in the generations directory, of the staged subvolume.
    staged: Option<String>,
    /// Nested subvolumes that move into the result.
    moving: Vec<PathBuf>,
    /// Those that have moved.
    moved: Vec<PathBuf>,
    /// What is to be done after the exchange beside moving them.
    journal: Journal,
    /// What forbade the exchange of the live root: flags, and that it was read-only.
    live_was: Option<(IFlags, bool)>,
    /// Flags that the result's root shall have.
    root_seals: Option<IFlags>,
    /// The subvolume that was the default before.
    default_before: Option<u64>,
}

impl Work {
    /// Keeps the generations directory open, and with it the lock on it.
    pub(super) fn hold(&mut self, home: Option<OwnedFd>) {
        self.home = home;
    }

    pub(super) fn begin(&mut self, plan: &VolumePlan, moving: Vec<PathBuf>, facts: Facts) {
        self.generation = plan.generation;
        self.resumes = plan.resumes;
        self.moving = moving;
        self.paths = facts.paths;
        self.journal = facts.journal;
    }

    /// Closes what would keep the filesystem busy.
    pub(super) fn release(&mut self) {
        self.home = None;
    }
}

impl Btrfs {
    pub(super) fn do_step(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
        match step {
            Step::Discard { leftover } => self.discard(Path::new(leftover))?,
            Step::Stage { .. } => self.stage()?,
            Step::Restore { from: Tree::Previous, into: Tree::Staged } => {
                return self.restore().map(Some);
            }
            Step::Record { into: Tree::Staged } => self.record()?,
            Step::Secure { .. } => self.secure()?,
            Step::Exchange { .. } => self.exchange()?,
            Step::MoveNested { path } => self.move_nested(path)?,
            Step::SetDefault => self.set_default()?,
            Step::Settle => self.settle()?,
            Step::KeepGeneration { name } => self.keep_generation(Path::new(name))?,
            Step::Restore { .. }
            | Step::Record { .. }
            | Step::RollBack { .. }
            | Step::Complete { .. }
            | Step::DestroyStage { .. } => bail!("BUG: a step of ZFS on btrfs: {step}"),
        }
        Ok(None)
    }

    fn discard(&mut self, leftover: &Path) -> anyhow::Result<()> {
        let Named { parent, name } = self.named(leftover)?;
        delete(&parent, &name)
    }

    /// The generations directory, made when it is not there.
    fn work_home(&mut self) -> anyhow::Result<&OwnedFd> {
        if self.work.home.is_none() {
            for directory in each_directory(&self.source.generations) {
                let (parent, name) = at::open_parent(self.top()?, &directory)
                    .with_context(|| format!("cannot open the directory of {directory:?}"))?;
                match mkdirat(&parent, &name, Mode::RWXU) {
                    Ok(()) => self.work.made.push(directory),
                    Err(Errno::EXIST) => {}
                    Err(error) => {
                        return Err(error).with_context(|| format!("cannot make {directory:?}"));
                    }
                }
            }
            let home = self.home()?.context("the generations directory is no directory")?;
            self.lock(&home)?;
            self.work.home = Some(home);
        }
        self.work.home.as_ref().context("BUG: the generations directory was just opened")
    }

    fn stage(&mut self) -> anyhow::Result<()> {
        let blank = self.blank()?;
        let home = self.work_home()?;
        match blank {
            Some(blank) => fs::snapshot(&blank, home, os(NEXT), fs::Access::Writable)?,
            None => fs::create_subvolume(home, os(NEXT))?,
        }
        self.work.staged = Some(NEXT.to_owned());
        Ok(())
    }

    fn staged(&mut self) -> anyhow::Result<OwnedFd> {
        let name = self.work.staged.clone().context("BUG: nothing was staged")?;
        let name = at::c_name(name.as_ref())?;
        let home = self.work_home()?;
        at::open_directory(home.as_fd(), &name)
            .with_context(|| format!("cannot open the staged subvolume {name:?}"))
    }

    fn restore(&mut self) -> anyhow::Result<Outcome> {
        let (live, blank, staged) = (self.live()?, self.blank()?, self.staged()?);
        let trees = Trees {
            previous: live.as_fd(),
            blank: blank.as_ref().map(AsFd::as_fd),
            target: staged.as_fd(),
        };
        let outcome = restore(&trees, &self.volume.rules, &self.work.paths, self.options.threads)?;
        self.work.root_seals = Some(outcome.root_seals);
        Ok(outcome)
    }

    fn record(&mut self) -> anyhow::Result<()> {
        let (live, staged) = (self.live()?, self.staged()?);
        let manifest = Manifest::new(self.work.generation, &self.volume.rules);
        state::write(staged.as_fd(), &manifest)?;
        let roots = Roots { old: live.as_fd(), new: staged.as_fd() };
        let root_seals = self.work.root_seals.context("BUG: recorded before it was restored")?;
        self.work.journal = Journal::look(roots, root_seals, &self.work.moving)?;
        self.work.journal.write(staged.as_fd())
    }

    fn secure(&mut self) -> anyhow::Result<()> {
        fs::sync(self.top()?)?;
        // The name says that it is complete, so it comes after.
        let ready = ready_name(self.work.generation);
        let home = self.work_home()?;
        fs::rename_noreplace(home, os(NEXT), home, os(&ready))?;
        self.work.staged = Some(ready);
        Ok(())
    }

    fn exchange(&mut self) -> anyhow::Result<()> {
        if let Err(error) = self.unlock_live().and_then(|()| self.swap()) {
            return match self.seal_live_again() {
                Ok(()) => Err(error),
                Err(undo) => Err(error.context(format!("and then: {undo:#}"))),
            };
        }
        self.work.staged = None;
        self.standing = Standing::Unfinished;
        let synced = self.top().and_then(|top| Ok(fs::sync(top)?));
        self.or_undo(synced)
    }

    /// Takes away from the live root what forbids the exchange. The generation, or an undone
    /// exchange, gives it back; a run that completes an interrupted one does not know of it.
    fn unlock_live(&mut self) -> anyhow::Result<()> {
        let live = self.live()?;
        let read_only = fs::is_read_only(&live)?;
        self.work.live_was = Some((restore::seals_of(live.as_fd())?, read_only));
        if read_only {
            fs::set_read_only(&live, false)?;
        }
        restore::unseal(live.as_fd()).map(drop).context("cannot clear the flags of the live root")
    }

    fn swap(&mut self) -> anyhow::Result<()> {
        let live = self.named(&self.source.subvolume)?;
        let ready = ready_name(self.work.generation);
        let home = self.work_home()?;
        Ok(fs::exchange(home, os(&ready), &live.parent, &live.name)?)
    }

    /// If something fails between the exchange and the end of the commit, everything back to
    /// the exchange is undone; not so in a run that completes an interrupted one, since
    /// somebody may have used the machine in between.
    fn or_undo(&mut self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = result else { return Ok(()) };
        if self.work.resumes {
            return Err(error);
        }
        match self.undo_exchange() {
            Ok(()) => Err(error.context("the exchange was undone")),
            Err(undo) => Err(error.context(format!("undoing the exchange failed too: {undo:#}"))),
        }
    }

    fn undo_exchange(&mut self) -> anyhow::Result<()> {
        let (live, old) = (self.live()?, self.old()?);
        while let Some(path) = self.work.moved.last() {
            move_subvolume(live.as_fd(), old.as_fd(), path)?;
            self.work.moved.pop();
        }
        self.work.journal.settle_undone(old.as_fd())?;
        if let Some(before) = self.work.default_before.take() {
            fs::set_default_subvolume(self.top()?, before)?;
        }
        restore::unseal(live.as_fd())?;
        self.swap()?;
        self.seal_live_again()?;
        self.work.staged = Some(ready_name(self.work.generation));
        self.standing = Standing::Previous;
        Ok(fs::sync(self.top()?)?)
    }

    fn seal_live_again(&mut self) -> anyhow::Result<()> {
        let Some((seals, read_only)) = self.work.live_was.take() else { return Ok(()) };
        let live = self.live()?;
        restore::seal(live.as_fd(), seals).context("cannot set the flags of the live root")?;
        if read_only {
            fs::set_read_only(&live, true)?;
        }
        Ok(())
    }

    /// The previous state, after the exchange.
    fn old(&mut self) -> anyhow::Result<OwnedFd> {
        let name = at::c_name(ready_name(self.work.generation).as_ref())?;
        at::open_directory(self.work_home()?.as_fd(), &name)
            .with_context(|| format!("cannot open the previous state {name:?}"))
    }

    fn move_nested(&mut self, path: &Path) -> anyhow::Result<()> {
        let result = self
            .old()
            .and_then(|old| move_subvolume(old.as_fd(), self.live()?.as_fd(), path))
            .with_context(|| format!("cannot move the nested subvolume {path:?} along"));
        if result.is_ok() {
            self.work.moved.push(path.to_owned());
        }
        self.or_undo(result)
    }

    fn set_default(&mut self) -> anyhow::Result<()> {
        let before = fs::default_subvolume(self.top()?)?;
        let result = self
            .live()
            .and_then(|live| Ok(fs::set_default_subvolume(self.top()?, fs::subvolume_id(live)?)?))
            .context("cannot make the result the default subvolume");
        if result.is_ok() {
            self.work.default_before = Some(before);
        }
        self.or_undo(result)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let result = self.old().and_then(|old| {
            let live = self.live()?;
            self.work.journal.settle(Roots { old: old.as_fd(), new: live.as_fd() })
        });
        self.or_undo(result)
    }

    fn keep_generation(&mut self, kept: &Path) -> anyhow::Result<()> {
        self.standing = Standing::Reset;
        let old = self.old()?;
        fs::set_read_only(&old, true)?;
        let name = kept.file_name().context("BUG: a generation without a name")?.to_owned();
        let ready = ready_name(self.work.generation);
        let home = self.work_home()?;
        fs::rename_noreplace(home, os(&ready), home, &name)?;
        // Flags of the root that forbid a rename, so they come after it.
        if let Some((seals, _)) = self.work.live_was.take().filter(|(seals, _)| !seals.is_empty()) {
            fs::set_read_only(&old, false)?;
            restore::seal(old.as_fd(), seals).context("cannot set the flags of the root")?;
            fs::set_read_only(&old, true)?;
        }
        Ok(fs::sync(self.top()?)?)
    }

    pub(super) fn undo_prepared(&mut self) -> anyhow::Result<()> {
        if let Some(staged) = self.work.staged.take() {
            let home = self.work_home()?;
            delete(home, os(&staged))
                .context("cannot remove the staged subvolume; the next run removes it")?;
        }
        self.work.home = None;
        while let Some(directory) = self.work.made.pop() {
            let (parent, name) = at::open_parent(self.top()?, &directory)?;
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
fn delete(parent: &OwnedFd, name: &OsStr) -> anyhow::Result<()> {
    let root = at::open_directory(parent.as_fd(), &at::c_name(name)?)
        .with_context(|| format!("cannot open {name:?}"))?;
    restore::unseal(root.as_fd()).with_context(|| format!("cannot clear the flags of {name:?}"))?;
    Ok(fs::delete_subvolume(parent, name)?)
}
