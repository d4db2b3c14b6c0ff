//! A volume behind the trait of all volumes that does to a modelled disk what each filesystem's part
//! does to a real one.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context as _, bail};

use super::Process;
use super::disk::{Disk, Kind, Tree, What};
use crate::config;
use crate::engine::plan::{Phase, VolumePlan};
use crate::keep::carry::Stage;
use crate::keep::copy_in::Outcome;
use crate::tree::Unlistable;
use crate::volume::{Looked, OpenVolume, Standing, btrfs, dir, zfs};

/// A change to the disk, which happens as a whole or not at all.
type Change = Box<dyn Fn(&mut Disk)>;

/// A step of whichever filesystem it is.
#[derive(Clone)]
enum Step {
    Btrfs(btrfs::Step),
    Zfs(zfs::Step),
    Dir(dir::Step),
}

/// The plan for the engine, and its steps.
fn described<S: std::fmt::Display + serde::Serialize>(
    plan: VolumePlan<S>,
    wrap: fn(S) -> Step,
) -> anyhow::Result<(VolumePlan, Vec<Step>)> {
    let (plan, steps) = plan.described()?;
    Ok((plan, steps.into_iter().map(wrap).collect()))
}

pub(super) struct Model {
    steps: Vec<Step>,
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
            steps: Vec::new(),
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
    fn changes(&self, step: &Step) -> Vec<Change> {
        match step {
            Step::Btrfs(step) => self.on_btrfs(step),
            Step::Zfs(step) => self.on_zfs(step),
            Step::Dir(step) => self.in_directory(step),
        }
    }

    fn on_btrfs(&self, step: &btrfs::Step) -> Vec<Change> {
        use btrfs::Step as S;
        let (number, kind) = (self.generation, self.kind());
        let mut changes: Vec<Change> = Vec::new();
        let mut add = |change: Change| changes.push(change);
        match step {
            S::Discard { leftover } if leftover.ends_with("/next") => {
                add(Box::new(|disk| disk.next = None));
            }
            S::Discard { .. } => add(Box::new(|disk| disk.ready = None)),
            S::Stage { .. } if kind == Kind::BtrfsCarry => {
                add(Box::new(|disk| disk.next = Some(disk.live)));
            }
            S::Stage { .. } => add(Box::new(|disk| disk.next = Some(Tree::BLANK))),
            S::CopyIn => {
                for what in [What::Half, What::Old] {
                    add(Box::new(move |disk| {
                        let live = disk.live.kept;
                        let tree = disk.next.as_mut().expect("it was staged");
                        tree.kept = if what == What::Half { what } else { live };
                    }));
                }
            }
            S::Lay { .. } => {}
            S::Carry => {
                add(Box::new(|disk| disk.next.as_mut().expect("staged").kept = What::Half));
                add(Box::new(|disk| {
                    let kept = disk.live.kept;
                    let next = disk.next.as_mut().expect("staged");
                    *next = Tree { kept, rest: What::Blank, ..*next };
                }));
            }
            S::Record => {
                add(Box::new(move |disk| disk.next.as_mut().expect("staged").number = number));
            }
            S::Secure { .. } => add(Box::new(move |disk| {
                disk.ready = Some((number, disk.next.take().expect("staged")));
            })),
            S::Exchange { .. } => add(Box::new(exchange)),
            S::SetDefault => add(Box::new(|disk| disk.default_is_live = true)),
            S::KeepGeneration { .. } => add(Box::new(|disk| {
                let (number, tree) = disk.ready.take().expect("exchanged");
                disk.generations.insert(number, tree);
            })),
            S::FlagGeneration { .. }
            | S::Count { .. }
            | S::MoveNested { .. }
            | S::SetAttributes => unreachable!("not modelled: {step}"),
        }
        changes
    }

    fn on_zfs(&self, step: &zfs::Step) -> Vec<Change> {
        use zfs::Step as S;
        let (number, kind) = (self.generation, self.kind());
        let mut changes: Vec<Change> = Vec::new();
        let mut add = |change: Change| changes.push(change);
        match step {
            S::Discard { .. } | S::DestroyStage { .. } => {
                add(Box::new(|disk| disk.secured = None));
                add(Box::new(|disk| disk.stage = None));
            }
            S::Stage { .. } => add(Box::new(|disk| disk.stage = Some(Tree::BLANK))),
            S::CopyIntoStage => {
                for what in [What::Half, What::Old] {
                    add(Box::new(move |disk| {
                        let live = disk.live.kept;
                        let tree = disk.stage.as_mut().expect("it was staged");
                        tree.kept = if what == What::Half { what } else { live };
                    }));
                }
            }
            S::Secure { .. } => add(Box::new(move |disk| {
                disk.secured = Some((number, disk.stage.expect("staged")));
            })),
            S::RollBack { .. } => add(Box::new(move |disk| {
                disk.live = Tree::BLANK;
                disk.rolled_back = Some(number);
            })),
            S::CopyIntoLive => {
                add(Box::new(|disk| disk.live.kept = What::Half));
                add(Box::new(|disk| disk.live.kept = disk.secured.expect("secured").1.kept));
            }
            S::Snapshot { .. } => add(Box::new(move |disk| {
                disk.generations.insert(number, disk.live);
            })),
            S::Lay { .. } => {
                add(Box::new(move |disk| disk.journal = Some((number, Stage::Moving))));
            }
            S::Carry => carry_in_place(add),
            S::Record => add(Box::new(move |disk| disk.live.number = number)),
            S::Complete { .. } if kind == Kind::ZfsRollback => {
                add(Box::new(|disk| disk.rolled_back = None));
            }
            S::Complete { .. } => {
                add(Box::new(move |disk| disk.journal = Some((number, Stage::Complete))));
            }
            S::Tidy => add(Box::new(|disk| disk.journal = None)),
            S::Replace | S::Count { .. } | S::DestroyGeneration { .. } => {
                unreachable!("not modelled: {step}")
            }
        }
        changes
    }

    fn in_directory(&self, step: &dir::Step) -> Vec<Change> {
        use dir::Step as S;
        let number = self.generation;
        let mut changes: Vec<Change> = Vec::new();
        let mut add = |change: Change| changes.push(change);
        match step {
            S::Lay { .. } => {
                add(Box::new(move |disk| disk.journal = Some((number, Stage::Moving))));
            }
            S::Carry => carry_in_place(add),
            S::Record => {
                add(Box::new(move |disk| disk.live.number = number));
                add(Box::new(move |disk| disk.journal = Some((number, Stage::Complete))));
            }
            S::KeepGeneration { .. } => {
                add(Box::new(move |disk| {
                    disk.generations.insert(number, Tree { kept: What::Nothing, ..disk.live });
                }));
                add(Box::new(|disk| disk.journal = None));
            }
        }
        changes
    }

    fn kind(&self) -> Kind {
        self.disk.borrow().kind
    }

    /// What a step means for what would be booted, before and after it.
    fn stands(&mut self, step: &Step, done: bool) {
        use {btrfs::Step as B, dir::Step as D, zfs::Step as Z};
        let lays = matches!(step, Step::Zfs(Z::Lay { .. }) | Step::Dir(D::Lay { .. }));
        let commits = match step {
            Step::Btrfs(step) => matches!(step, B::Exchange { .. }),
            Step::Zfs(step) => matches!(step, Z::RollBack { .. } | Z::Carry),
            Step::Dir(step) => matches!(step, D::Carry),
        };
        let stages = match step {
            Step::Btrfs(step) => matches!(step, B::Stage { .. }),
            Step::Zfs(step) => matches!(step, Z::Stage { .. } | Z::Snapshot { .. }),
            Step::Dir(_) => false,
        };
        let secures = matches!(step, Step::Btrfs(B::Secure { .. }) | Step::Zfs(Z::Secure { .. }));
        let moves = matches!(step, Step::Zfs(Z::Carry) | Step::Dir(D::Carry));
        let completes = match step {
            Step::Btrfs(step) => matches!(step, B::KeepGeneration { .. }) && !done,
            Step::Zfs(step) => matches!(step, Z::Complete { .. }) && done,
            Step::Dir(step) => matches!(step, D::Record) && done,
        };
        self.staged |= done && (stages || lays);
        // Half of a move counts, and an exchange or a rollback happens at once.
        if commits && done != moves {
            self.standing = Standing::Unfinished;
        }
        if completes {
            self.standing = Standing::Reset;
        }
        self.disk.borrow_mut().was_prepared |= commits || done && (secures || lays);
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
            Kind::ZfsCarry | Kind::ZfsInstead => {
                self.change(|disk| {
                    disk.live = before;
                    disk.journal = None;
                    disk.generations.remove(&number);
                })?;
                self.change(|disk| disk.stage = None)?;
            }
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

/// A `carry` in the live volume itself.
fn carry_in_place(mut add: impl FnMut(Change)) {
    add(Box::new(|disk| disk.live.kept = What::Half));
    add(Box::new(|disk| disk.live.rest = What::Half));
    add(Box::new(|disk| {
        disk.live = Tree { kept: What::Old, rest: What::Blank, ..disk.live };
    }));
}

fn on_zfs(disk: &Disk) -> zfs::modelled::There {
    zfs::modelled::There {
        live_generation: disk.live.number,
        rolled_back: disk.rolled_back,
        has_stage: disk.stage.is_some(),
        highest_snapshot: disk.generations.keys().last().copied().unwrap_or(0),
        journal: disk.journal,
    }
}

fn exchange(disk: &mut Disk) {
    let (number, ready) = disk.ready.expect("it was secured");
    disk.ready = Some((number, disk.live));
    disk.live = ready;
    disk.default_is_live = !disk.default_is_live;
}

impl OpenVolume for Model {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let disk = self.disk.borrow().clone();
        let highest = disk.generations.keys().last().copied().unwrap_or(0);
        let (plan, steps) = match disk.kind {
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
                described(btrfs::modelled::plan(&self.volume, &there), Step::Btrfs)?
            }
            Kind::ZfsRollback | Kind::ZfsCarry | Kind::ZfsInstead => {
                described(zfs::modelled::plan(&self.volume, &on_zfs(&disk))?, Step::Zfs)?
            }
            Kind::Dir => {
                let config::Backing::Dir(source) = &self.volume.backing else { bail!("no dir") };
                let number = match disk.journal {
                    Some((number, _)) => number,
                    None => disk.live.number.max(highest) + 1,
                };
                let stage = disk.journal.map(|(_, stage)| stage);
                let plan = dir::plan(&self.volume, source, number, stage, &Looked::default());
                described(plan, Step::Dir)?
            }
        };
        self.steps = steps;
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

    fn execute(&mut self, step: usize) -> anyhow::Result<Option<Outcome>> {
        let step = &self.steps[step].clone();
        self.stands(step, false);
        for change in self.changes(step) {
            if let Err(error) = self.change(change) {
                return match self.undo() {
                    Ok(()) => Err(error),
                    Err(undo) => Err(error.context(format!("and then: {undo:#}"))),
                };
            }
        }
        if self.kind() == Kind::ZfsInstead && matches!(step, Step::Zfs(zfs::Step::CopyIntoStage)) {
            return Err(anyhow::anyhow!("E2BIG").context(Unlistable));
        }
        if !self.process.borrow().dead {
            self.stands(step, true);
        }
        Ok(None)
    }

    fn plan_instead(&mut self, error: &anyhow::Error) -> anyhow::Result<Option<VolumePlan>> {
        if !error.is::<Unlistable>() {
            return Ok(None);
        }
        self.change(|disk| disk.stage = None)?;
        self.staged = false;
        let there = on_zfs(&self.disk.borrow());
        let plan = zfs::modelled::plan_instead(&self.volume, &there)?;
        let (plan, steps) = described(plan, Step::Zfs)?;
        self.steps = steps;
        Ok(Some(plan))
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
