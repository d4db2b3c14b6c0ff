//! A volume behind the trait of all volumes that does to a modelled disk what each filesystem's part
//! does to a real one.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context as _, bail};

use super::Process;
use super::disk::{Disk, Kind, Tree, What};
use crate::config;
use crate::engine::plan::{Phase, Step, Tree as Of, VolumePlan};
use crate::keep::carry::Stage;
use crate::keep::copy_in::Outcome;
use crate::volume::{Looked, Standing, Volume, btrfs, dir, zfs};

/// A change to the disk, which happens as a whole or not at all.
type Change = Box<dyn Fn(&mut Disk)>;

pub(super) struct Model {
    volume: config::Volume,
    disk: Rc<RefCell<Disk>>,
    process: Rc<RefCell<Process>>,
    standing: Standing,
    generation: u64,
    resumes: bool,
    /// What was live before this run, as far as it can be gone back to.
    before: Option<Tree>,
    /// What this run has prepared and not used.
    staged: bool,
}

impl Model {
    pub(super) fn new(
        volume: config::Volume,
        disk: Rc<RefCell<Disk>>,
        process: Rc<RefCell<Process>>,
    ) -> Self {
        Self {
            volume,
            disk,
            process,
            standing: Standing::Previous,
            generation: 0,
            resumes: false,
            before: None,
            staged: false,
        }
    }

    fn change(&self, change: impl Fn(&mut Disk)) -> anyhow::Result<()> {
        if self.process.borrow_mut().may_change()? {
            change(&mut self.disk.borrow_mut());
        }
        Ok(())
    }

    /// What a step changes, in order.
    fn changes(&self, step: &Step) -> anyhow::Result<Vec<Change>> {
        let number = self.generation;
        let (is_btrfs, kind) = (self.kind().is_btrfs(), self.kind());
        let mut changes: Vec<Change> = Vec::new();
        let mut add = |change: Change| changes.push(change);
        match step {
            Step::Discard { leftover } if leftover.ends_with("/next") => {
                add(Box::new(|disk| disk.next = None));
            }
            Step::Discard { .. } if is_btrfs => add(Box::new(|disk| disk.ready = None)),
            Step::Discard { .. } => {
                add(Box::new(|disk| disk.secured = None));
                add(Box::new(|disk| disk.stage = None));
            }
            Step::Stage { .. } if kind == Kind::BtrfsCarry => {
                add(Box::new(|disk| disk.next = Some(disk.live)));
            }
            Step::Stage { .. } if is_btrfs => add(Box::new(|disk| disk.next = Some(Tree::BLANK))),
            Step::Stage { .. } => add(Box::new(|disk| disk.stage = Some(Tree::BLANK))),
            Step::Restore { from: Of::Previous, into: Of::Staged } => {
                for what in [What::Half, What::Old] {
                    add(Box::new(move |disk| {
                        let live = disk.live.kept;
                        let tree = if is_btrfs { &mut disk.next } else { &mut disk.stage };
                        let tree = tree.as_mut().expect("it was staged");
                        tree.kept = if what == What::Half { what } else { live };
                    }));
                }
            }
            Step::Lay { into: Of::Staged, .. } => {}
            Step::Lay { into: Of::Live, .. } => {
                add(Box::new(move |disk| disk.journal = Some((number, Stage::Moving))));
            }
            Step::Carry { within: Of::Staged } => {
                add(Box::new(|disk| disk.next.as_mut().expect("staged").kept = What::Half));
                add(Box::new(|disk| {
                    let kept = disk.live.kept;
                    let next = disk.next.as_mut().expect("staged");
                    *next = Tree { kept, rest: What::Blank, ..*next };
                }));
            }
            Step::Carry { within: Of::Live } => {
                add(Box::new(|disk| disk.live.kept = What::Half));
                add(Box::new(|disk| disk.live.rest = What::Half));
                add(Box::new(|disk| {
                    disk.live = Tree { kept: What::Old, rest: What::Blank, ..disk.live };
                }));
            }
            Step::Record { into: Of::Staged } => {
                add(Box::new(move |disk| disk.next.as_mut().expect("staged").number = number));
            }
            Step::Record { into: Of::Live } => {
                add(Box::new(move |disk| disk.live.number = number));
                if kind == Kind::Dir {
                    add(Box::new(move |disk| disk.journal = Some((number, Stage::Complete))));
                }
            }
            Step::Secure { .. } if is_btrfs => add(Box::new(move |disk| {
                disk.ready = Some((number, disk.next.take().expect("staged")));
            })),
            Step::Secure { .. } => add(Box::new(move |disk| {
                disk.secured = Some((number, disk.stage.expect("staged")));
            })),
            Step::Exchange { .. } => add(Box::new(exchange)),
            Step::SetDefault => add(Box::new(|disk| disk.default_is_live = true)),
            Step::RollBack { .. } => add(Box::new(move |disk| {
                disk.live = Tree::BLANK;
                disk.rolled_back = Some(number);
            })),
            Step::Restore { from: Of::Staged, into: Of::Live } => {
                add(Box::new(|disk| disk.live.kept = What::Half));
                add(Box::new(|disk| disk.live.kept = disk.secured.expect("secured").1.kept));
            }
            Step::Complete { .. } if kind == Kind::ZfsRollback => {
                add(Box::new(|disk| disk.rolled_back = None));
            }
            Step::Complete { .. } => {
                add(Box::new(move |disk| disk.journal = Some((number, Stage::Complete))));
            }
            Step::DestroyStage { .. } => {
                add(Box::new(|disk| disk.secured = None));
                add(Box::new(|disk| disk.stage = None));
            }
            Step::Snapshot { .. } => add(Box::new(move |disk| {
                disk.generations.insert(number, disk.live);
            })),
            Step::KeepGeneration { .. } if is_btrfs => add(Box::new(|disk| {
                let (number, tree) = disk.ready.take().expect("exchanged");
                disk.generations.insert(number, tree);
            })),
            Step::KeepGeneration { .. } => {
                add(Box::new(move |disk| {
                    disk.generations.insert(number, Tree { kept: What::Nothing, ..disk.live });
                }));
                add(Box::new(|disk| disk.journal = None));
            }
            Step::Tidy => add(Box::new(|disk| disk.journal = None)),
            other => bail!("not modelled: {other}"),
        }
        Ok(changes)
    }

    fn kind(&self) -> Kind {
        self.disk.borrow().kind
    }

    /// What a step means for what would be booted, before and after it.
    fn stands(&mut self, step: &Step, done: bool) {
        let in_place = matches!(self.kind(), Kind::ZfsCarry | Kind::Dir);
        match (step, done) {
            (
                Step::Stage { .. } | Step::Snapshot { .. } | Step::Lay { into: Of::Live, .. },
                true,
            ) => self.staged = true,
            (Step::Exchange { .. } | Step::RollBack { .. }, true) => {
                self.standing = Standing::Unfinished;
            }
            (Step::Carry { within: Of::Live }, false) => self.standing = Standing::Unfinished,
            (Step::Record { .. }, true) if self.kind() == Kind::Dir => {
                self.standing = Standing::Reset;
            }
            (Step::Complete { .. }, true) => self.standing = Standing::Reset,
            (Step::KeepGeneration { .. }, false) if !in_place => self.standing = Standing::Reset,
            _ => {}
        }
        self.disk.borrow_mut().was_prepared |= matches!(
            step,
            Step::Exchange { .. } | Step::RollBack { .. } | Step::Carry { within: Of::Live }
        ) || matches!(step, Step::Secure { .. }) && done
            || matches!(step, Step::Lay { into: Of::Live, .. }) && done;
    }

    /// As each filesystem's part goes back after a failure in the run itself.
    fn undo(&mut self) -> anyhow::Result<()> {
        if self.resumes || self.standing == Standing::Reset {
            return Ok(());
        }
        let before = self.before.context("nothing to go back to")?;
        let number = self.generation;
        match self.kind() {
            // From the rollback on only forward is safe.
            Kind::ZfsRollback if self.standing == Standing::Unfinished => return Ok(()),
            Kind::ZfsRollback => {
                self.change(|disk| disk.secured = None)?;
                self.change(|disk| disk.stage = None)?;
            }
            Kind::BtrfsRollback | Kind::BtrfsCarry => {
                if self.standing == Standing::Unfinished {
                    self.change(exchange)?;
                    self.standing = Standing::Previous;
                }
                self.change(|disk| {
                    disk.next = None;
                    disk.ready = None;
                })?;
            }
            Kind::ZfsCarry => self.change(|disk| {
                disk.live = before;
                disk.journal = None;
                disk.generations.remove(&number);
            })?,
            Kind::Dir => {
                self.change(|disk| disk.live = before)?;
                self.change(|disk| disk.journal = None)?;
            }
        }
        self.standing = Standing::Previous;
        self.staged = false;
        Ok(())
    }
}

fn exchange(disk: &mut Disk) {
    let (number, ready) = disk.ready.expect("it was secured");
    disk.ready = Some((number, disk.live));
    disk.live = ready;
    disk.default_is_live = !disk.default_is_live;
}

impl Volume for Model {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let disk = self.disk.borrow().clone();
        let highest = disk.generations.keys().last().copied().unwrap_or(0);
        let plan = match disk.kind {
            Kind::BtrfsRollback | Kind::BtrfsCarry => {
                let exchanged = disk.ready.is_some_and(|(number, _)| number == disk.live.number);
                let there = btrfs::modelled::There {
                    live_generation: disk.live.number,
                    next: disk.next.is_some(),
                    ready: disk.ready.map(|(number, _)| number),
                    generations: disk.generations.keys().copied().collect(),
                    is_default: if exchanged {
                        !disk.default_is_live
                    } else {
                        disk.default_is_live
                    },
                };
                btrfs::modelled::plan(&self.volume, &there)
            }
            Kind::ZfsRollback | Kind::ZfsCarry => {
                let there = zfs::modelled::There {
                    live_generation: disk.live.number,
                    rolled_back: disk.rolled_back,
                    has_stage: disk.stage.is_some(),
                    highest_snapshot: highest,
                    journal: disk.journal,
                };
                zfs::modelled::plan(&self.volume, &there)?
            }
            Kind::Dir => {
                let config::Backing::Dir(source) = &self.volume.backing else { bail!("no dir") };
                let number = match disk.journal {
                    Some((number, _)) => number,
                    None => disk.live.number.max(highest) + 1,
                };
                let stage = disk.journal.map(|(_, stage)| stage);
                dir::plan(&self.volume, source, number, stage, &Looked::default())
            }
        };
        self.generation = plan.generation;
        self.resumes = plan.resumes;
        if plan.resumes {
            let commits = plan.steps.iter().any(|planned| planned.phase == Phase::Commit);
            self.standing = if commits { Standing::Unfinished } else { Standing::Reset };
        }
        self.before = Some(disk.live);
        self.disk.borrow_mut().resumed = plan.resumes;
        Ok(plan)
    }

    fn execute(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
        self.stands(step, false);
        for change in self.changes(step)? {
            if let Err(error) = self.change(change) {
                return match self.undo() {
                    Ok(()) => Err(error),
                    Err(undo) => Err(error.context(format!("and then: {undo:#}"))),
                };
            }
        }
        if !self.process.borrow().dead {
            self.stands(step, true);
        }
        Ok(None)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        if self.staged { self.undo() } else { Ok(()) }
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn close(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
