//! The steps of a reset on btrfs.

use std::path::Path;

use anyhow::Context as _;
use darlings_btrfs as fs;
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;
use tracing::warn;

use super::journal::{Journal, Roots, move_subvolume};
use super::journal::{Moving, has_place};
use super::names::{NEXT, each_directory, os, ready_name};
use super::record::{Blank, Live};
use super::step::Step;
use super::subvolume::{Btrfs, Named};
use super::undo::delete;
use crate::config::Strategy;
use crate::engine::plan::Does;
use crate::errors;
use crate::fs::Dir;
use crate::keep::carry;
use crate::keep::copy_in::Outcome;
use crate::keep::copy_in::copy_in;
use crate::keep::trees::Trees;
use crate::names::shown;
use crate::own::Own;
use crate::own::state::{self, Manifest};
use crate::rules::OWN_DIRECTORY;
use crate::tree::{self};
use crate::volume::{Looked, Standing};

impl Btrfs {
    pub(super) fn do_step(&mut self, number: usize) -> anyhow::Result<Option<Outcome>> {
        let step = self.work.steps.get(number).context("BUG: a step that was not planned")?.clone();
        let outcome = self.make(&step)?;
        if self.work.commits == Some(number) {
            self.make_durable()?;
        }
        Ok(outcome)
    }

    fn make(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
        match step {
            Step::Discard { leftover } => self.discard(Path::new(leftover))?,
            Step::Stage { .. } => match self.work.does {
                Does::Snapshot => self.stage_snapshot()?,
                Does::Restore(number) => self.stage_generation(number)?,
                Does::Reset | Does::Nothing => self.stage()?,
            },
            Step::Lay { .. } => return self.lay().map(Some),
            Step::Carry => self.carry()?,
            Step::CopyIn => return self.copy_in().map(Some),
            Step::Record => match self.restores() {
                Some(number) => self.record_restored(number)?,
                None => self.record()?,
            },
            Step::Count { number } => self.count(*number)?,
            Step::Secure { .. } => self.secure()?,
            Step::Exchange { .. } => self.exchange()?,
            Step::MoveNested { path, to } => self.move_nested(path, to)?,
            Step::SetDefault => self.set_default()?,
            Step::SetAttributes => self.settle()?,
            Step::KeepGeneration { name } if self.work.does == Does::Snapshot => {
                self.keep_snapshot(Path::new(name))?;
            }
            Step::KeepGeneration { name } => self.keep_generation(Path::new(name))?,
            Step::FlagGeneration { number } => self.seal_kept(*number)?,
        }
        Ok(None)
    }

    fn discard(&mut self, leftover: &Path) -> anyhow::Result<()> {
        self.own_home()?;
        let Named { parent, name } = self.named(leftover)?;
        if !leftover.ends_with(NEXT) {
            return delete(&parent, &name);
        }
        // Nothing in it is worth keeping, whoever made subvolumes there.
        let next = parent.open_dir(&name)?;
        Ok(fs::delete_subvolume_recursive(self.top()?, fs::subvolume_id(&next)?).map(drop)?)
    }

    /// The generations directory, made when it is not there.
    pub(super) fn work_home(&mut self) -> anyhow::Result<&Dir> {
        if self.work.home.is_none() {
            for directory in each_directory(&self.source.generations) {
                let (parent, name) = self.top()?.open_parent(&directory)?;
                match mkdirat(&parent, &name, Mode::RWXU) {
                    Ok(()) => self.work.made.push(directory),
                    Err(Errno::EXIST) => {}
                    Err(error) => {
                        return Err(error).with_context(|| format!("cannot make {directory:?}"));
                    }
                }
            }
            let home = self.home()?.context("the generations directory is not a directory")?;
            self.lock(&home)?;
            self.work.home = Some(home);
        }
        self.work.home.as_ref().context("BUG: the generations directory was just opened")
    }

    fn stage(&mut self) -> anyhow::Result<()> {
        let copied = match self.volume.strategy {
            Strategy::Rollback => self.blank()?,
            Strategy::Carry => Some(self.live()?),
        };
        let blank = self.blank()?;
        self.work.blank = blank.as_ref().map(Blank::look).transpose()?.flatten();
        let Named { parent, name } = self.place_of_stage()?;
        match copied {
            Some(copied) => fs::snapshot(&copied, &parent, &name, fs::Access::Writable)?,
            None => fs::create_subvolume(&parent, &name)?,
        }
        self.work.staged = Some(NEXT.to_owned());
        Ok(())
    }

    /// The tool's own directory in that of the generations, made when it is not there.
    pub(super) fn own_home(&mut self) -> anyhow::Result<Own> {
        let home = self.work_home()?;
        let is_new = Own::open(home)?.is_none();
        let own = Own::ensure(home)?;
        if is_new {
            self.work.made.push(self.source.generations.join(OWN_DIRECTORY));
        }
        Ok(own)
    }

    /// Where a stage is made, which nobody else uses.
    pub(super) fn place_of_stage(&mut self) -> anyhow::Result<Named> {
        self.own_home()?;
        self.in_home(NEXT)
    }

    /// A name below the generations directory.
    pub(super) fn in_home(&self, path: &str) -> anyhow::Result<Named> {
        self.named(&self.source.generations.join(path))
    }

    pub(super) fn staged(&mut self) -> anyhow::Result<Dir> {
        let path = self.work.staged.clone().context("BUG: nothing was staged")?;
        let home = self.work_home()?;
        home.open_dir(&path)
    }

    fn copy_in(&mut self) -> anyhow::Result<Outcome> {
        let (live, blank, staged) = (self.live()?, self.blank()?, self.staged()?);
        let trees = Trees { previous: &live, blank: blank.as_ref(), target: &staged };
        let (Looked { paths, attic, .. }, rules) = (&self.work.looked, &self.volume.rules);
        let (number, threads) = (self.work.generation, self.options.threads);
        let outcome = copy_in(&trees, rules, paths, attic, number, threads)?;
        self.work.root_seals = Some(outcome.root_seals);
        Ok(outcome)
    }

    /// Lays the blank's content in the stage, which is a snapshot of the live subvolume.
    fn lay(&mut self) -> anyhow::Result<Outcome> {
        let (live, blank, staged) = (self.live()?, self.blank()?, self.staged()?);
        let roots =
            carry::Roots { previous: &live, blank: blank.as_ref(), root: &staged, undoable: false };
        let seen = self.work.looked.seen(&self.work.nested);
        let (rules, threads) = (&self.volume.rules, self.options.threads);
        let prepared = carry::prepare(roots, rules, seen, self.work.generation, threads)?;
        self.work.carrying = Some(prepared.journal);
        Ok(Outcome::of_moved(&self.work.looked.paths, prepared.bytes))
    }

    /// Nobody uses the stage yet and an interrupted run's is thrown away, so nothing of this is
    /// journalled.
    fn carry(&mut self) -> anyhow::Result<()> {
        let staged = self.staged()?;
        let journal = self.work.carrying.take().context("BUG: nothing was laid")?;
        let root = &staged;
        carry::gather(root, &journal)?;
        carry::exchange(root, &journal, carry::Run::First)?;
        carry::settle(root, &journal, carry::Run::First, false)?;
        carry::finish(root, &journal, carry::Aside::Trash)?;
        self.work.root_seals = Some(journal.root.seals());
        Ok(())
    }

    fn record(&mut self) -> anyhow::Result<()> {
        let (live, staged) = (self.live()?, self.staged()?);
        let mut manifest = Manifest::new(self.work.generation, &self.volume.rules)?;
        manifest.system = Some(self.system()?);
        state::write(&staged, &manifest)?;
        let roots = Roots { old: &live, new: &staged };
        let root_seals = self.work.root_seals.context("BUG: recorded before it was restored")?;
        self.work.journal = Journal::look(roots, root_seals, &self.work.moving)?;
        self.work.journal.write(&staged)
    }

    fn secure(&mut self) -> anyhow::Result<()> {
        fs::sync(self.top()?)?;
        // Whatever changes the stage from here on is younger than what is written down of it.
        let staged = self.staged()?;
        let next = Live::staged(&staged, self.work.blank.take(), &self.volume.rules)?;
        self.write_record(Some(next))?;
        // The name says that it is complete, so it comes after.
        self.rename_stage(&ready_name(self.work.generation))
    }

    /// Gives the stage, which the record names by now, a name in the generations directory.
    pub(super) fn rename_stage(&mut self, name: &str) -> anyhow::Result<()> {
        let next = self.in_home(NEXT)?;
        fs::rename_noreplace(&next.parent, &next.name, self.work_home()?, os(name))?;
        self.work.staged = Some(name.to_owned());
        Ok(())
    }

    fn exchange(&mut self) -> anyhow::Result<()> {
        if let Err(error) = self.unlock_live().and_then(|()| self.swap()) {
            return match self.seal_live_again() {
                Ok(()) => Err(error),
                Err(undo) => Err(errors::and_then(&error, &undo)),
            };
        }
        self.work.staged = None;
        self.standing = Standing::Unfinished;
        Ok(())
    }

    /// From here on the volume counts as reset, and the machine may boot it: so it must be what the
    /// disk has. Once for all that the commit does is enough: a transaction holds everything that was
    /// changed before what it holds, and renaming a subvolume keeps fsync(2) from going past it.
    fn make_durable(&mut self) -> anyhow::Result<()> {
        let durable = self.old().and_then(|old| {
            // It commits the transaction, so it comes before the sync, which then has little to do.
            fs::set_read_only(&old, true)?;
            Ok(fs::sync(self.top()?)?)
        });
        self.or_undo(durable)
    }

    /// Takes away from the live root what forbids the exchange. The generation, or an undone
    /// exchange, gives it back, or the next run, which finds it written down.
    fn unlock_live(&mut self) -> anyhow::Result<()> {
        let live = self.live()?;
        let read_only = fs::is_read_only(&live)?;
        let seals = tree::seals_of(&live)?;
        if !seals.is_empty() {
            self.note_seals(self.work.generation, seals)?;
        }
        self.work.live_was = Some((seals, read_only));
        fs::set_read_only(&live, false)?;
        tree::unseal(&live).map(drop).context("cannot clear the flags of the live root")
    }

    pub(super) fn swap(&mut self) -> anyhow::Result<()> {
        let live = self.named(&self.source.subvolume)?;
        let ready = ready_name(self.work.generation);
        let home = self.work_home()?;
        Ok(fs::exchange(home, os(&ready), &live.parent, &live.name)?)
    }

    /// The previous state, after the exchange.
    pub(super) fn old(&mut self) -> anyhow::Result<Dir> {
        let name = ready_name(self.work.generation);
        self.work_home()?.open_dir(&name)
    }

    fn move_nested(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let result = self
            .try_to_move(from, to)
            .with_context(|| format!("cannot move the nested subvolume {from:?} along"));
        self.or_undo(result)
    }

    fn try_to_move(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let (old, live) = (self.old()?, self.live()?);
        if self.work.moved.is_empty() {
            self.work.journal.lift_limits(self.top()?)?;
        }
        if self.work.resumes {
            let roots = Roots { old: &old, new: &live };
            self.work.journal.complete(roots, &self.work.moving)?;
            // The machine may have been used in between.
            if !has_place(&live, to)? {
                warn!(
                    "{} cannot be moved to its place, which was changed while the reset was \
                     incomplete: it stays in generation {}",
                    shown(&self.volume.mount_point.join(from)),
                    self.work.generation
                );
                return self.work.journal.leave(&old, from);
            }
        }
        move_subvolume((&old, from), (&live, to))?;
        self.work.moved.push(Moving { from: from.to_owned(), to: to.to_owned() });
        Ok(())
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
        let (old, live, top) = (self.old()?, self.live()?, self.top()?);
        let journal = &self.work.journal;
        let mut result = journal
            .lift_limits(top)
            .and_then(|()| journal.settle(Roots { old: &old, new: &live }))
            .and_then(|()| journal.set_limits(top));
        if self.work.resumes
            && let Err(error) = &result
        {
            // It cannot be undone, and what is kept is in its place.
            warn!("{}: {error:#}", self.volume.mount_point.display());
            result = Ok(());
        }
        let result = result.and_then(|()| self.work.journal.finish(&live));
        self.or_undo(result)
    }
}
