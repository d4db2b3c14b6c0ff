//! Whatever fails at whatever step: volumes that exist only as models go through the engine with the
//! plans that real ones would have. Something goes wrong before or after every change that a step
//! makes, in every way; then a second run must give exactly what an uninterrupted one gives.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{OpenVolume, Options};
use crate::cmdline::Asked;
use crate::config::{self, Config, OnFailure};
use crate::engine::report::Ending;
use crate::engine::reset::{Ended, reset_with};

mod disk;
mod model;

use disk::{Disk, Kind, What};
use model::Model;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The device fails once.
    Eio,
    /// There is no more room, until something is removed.
    Enospc,
    /// The filesystem has become read-only: nothing can be changed any more, not even back.
    Erofs,
    /// The call was interrupted.
    Eintr,
    /// The process ends there and then.
    Kill,
}

const FAULTS: [Fault; 5] = [Fault::Eio, Fault::Enospc, Fault::Erofs, Fault::Eintr, Fault::Kill];

/// Where in a run something goes wrong: before the change with this number, counted over all
/// volumes, or after the last one of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    change: usize,
    fault: Fault,
}

/// What all volumes of a run share.
#[derive(Debug, Default)]
struct Process {
    /// Changes that were made or tried.
    changes: usize,
    /// Where something goes wrong, if anything does.
    point: Option<Point>,
    /// It went wrong.
    struck: bool,
    /// Nothing that is done counts any more.
    dead: bool,
    /// Every change fails.
    read_only: bool,
}

impl Process {
    /// Whether the next change can be made, as the kernel would say.
    fn may_change(&mut self) -> anyhow::Result<bool> {
        if self.dead {
            return Ok(false);
        }
        if self.read_only {
            anyhow::bail!("EROFS");
        }
        let strikes = self.point.filter(|point| point.change == self.changes);
        self.changes += 1;
        let Some(Point { fault, .. }) = strikes else { return Ok(true) };
        self.struck = true;
        match fault {
            Fault::Kill => {
                self.dead = true;
                return Ok(false);
            }
            Fault::Erofs => self.read_only = true,
            Fault::Eio | Fault::Enospc | Fault::Eintr => {}
        }
        anyhow::bail!("{fault:?}")
    }
}

/// Volumes that survive the process.
type Disks = Vec<Rc<RefCell<Disk>>>;

fn machine(kinds: &[Kind]) -> Disks {
    kinds.iter().map(|kind| Rc::new(RefCell::new(Disk::new(*kind)))).collect()
}

fn states(disks: &Disks) -> Vec<Disk> {
    disks.iter().map(|disk| disk.borrow().clone()).collect()
}

/// Runs `darlings reset` on all of them.
fn run(disks: &Disks, point: Option<Point>) -> (Ended, Process) {
    let process = Rc::new(RefCell::new(Process { point, ..Process::default() }));
    let volumes: BTreeMap<String, Rc<RefCell<Disk>>> =
        disks.iter().enumerate().map(|(n, disk)| (format!("/{n}"), Rc::clone(disk))).collect();
    let config = Config {
        on_failure: OnFailure::Boot,
        volumes: volumes.iter().map(|(at, disk)| disk.borrow().kind.volume(at)).collect(),
    };
    let open = |volume: &config::Volume, _: Options| -> anyhow::Result<Box<dyn OpenVolume>> {
        let disk = &volumes[volume.mount_point.to_str().unwrap()];
        Ok(Box::new(Model::new(volume.clone(), Rc::clone(disk), Rc::clone(&process))))
    };
    let options = Options { dry_run: false, threads: 1, asked: Asked::Reset, root_subvolid: None };
    let ended = reset_with(&config, options, &open);
    let process = process.take();
    (ended, process)
}

fn run_well(disks: &Disks) -> usize {
    let (ended, process) = run(disks, None);
    assert!(ended.error.is_none(), "{:?}", ended.error);
    assert_eq!(ended.report.outcome, Ending::Reset);
    process.changes
}

/// What must hold whenever a run has ended, however it did.
fn check_after(before: &[Disk], disks: &[Disk], ended: &Ended, process: &Process) {
    for (was, is) in before.iter().zip(disks) {
        // I1
        assert!(is.keeps_what_is_kept(), "lost: {is:#?}");
        // I2
        let whole = is.live == was.live || is.live.is_result() || is.is_recoverable();
        assert!(whole, "neither one nor the other, and nothing completes it: {is:#?}");
        if process.dead {
            continue;
        }
        // I5: what must not be booted is told as such, and nothing else is.
        if is.live != was.live && !is.live.is_result() {
            assert_eq!(ended.report.outcome, Ending::Unfinished, "{is:#?}");
        }
    }
    // I4: nothing is committed before everything that can fail was done for all, but what an earlier
    // run had begun: that is completed whatever becomes of the others.
    let touched = before.iter().zip(disks).any(|(was, is)| is.live != was.live && !is.resumed);
    let unprepared = disks.iter().any(|disk| !disk.was_prepared && !disk.resumed);
    assert!(!(touched && unprepared), "committed before all were prepared: {disks:#?}");
}

/// Strikes at every change of a first run, in every way, and, if `twice`, at every change of the run
/// after it.
fn every_step(kinds: &[Kind], twice: bool) -> usize {
    let uninterrupted = machine(kinds);
    let changes = run_well(&uninterrupted);
    // What so many uninterrupted runs give.
    let mut runs = vec![states(&machine(kinds)), states(&uninterrupted)];
    for _ in 0..3 {
        run_well(&uninterrupted);
        runs.push(states(&uninterrupted));
    }
    let mut cases = 0;
    for fault in FAULTS {
        for change in 0..=changes {
            let disks = machine(kinds);
            let before = states(&disks);
            let (ended, process) = run(&disks, Some(Point { change, fault }));
            assert_eq!(process.struck, change < changes, "{fault:?} at {change}");
            let left = states(&disks);
            let context = || format!("{fault:?} at {change} of {changes}: {left:#?}");
            check_after(&before, &left, &ended, &process);
            if !process.dead && process.struck {
                assert!(ended.error.is_some(), "nothing was said of it: {}", context());
            }

            // Struck again while it recovers, at every change of that.
            let recovering = if twice { run_well(&copy(&left)) } else { 0 };
            for again in [None].into_iter().chain((0..recovering).map(Some)) {
                let disks = copy(&left);
                if let Some(change) = again {
                    let before = states(&disks);
                    let (ended, process) = run(&disks, Some(Point { change, fault }));
                    check_after(&before, &states(&disks), &ended, &process);
                }
                // Each volume is completed as if nothing had happened; one that was complete and
                // tidy, or as it was, is reset like any other.
                let stood = states(&disks);
                run_well(&disks);
                for (number, is) in states(&disks).iter().enumerate() {
                    let like = |disk: &Disk| runs.iter().position(|run| disk.same_as(&run[number]));
                    let now = like(is);
                    let well = match (like(&stood[number]), again) {
                        (Some(before), _) => now == Some(before + 1),
                        // Nothing but a stage is left over, which a new reset removes.
                        (None, None) if stood[number].is_complete_but_for_a_stage() => {
                            now == Some(2)
                        }
                        (None, None) => now == Some(1),
                        (None, Some(_)) => matches!(now, Some(1..=3)),
                    };
                    assert!(well, "after {}\nand {again:?}\nit is {is:#?}", context());
                }
                cases += 1;
            }
        }
    }
    cases
}

#[test]
fn whatever_fails_at_any_step_the_next_run_gives_what_an_uninterrupted_one_gives() {
    let mut cases = 0;
    for kind in Kind::ALL {
        cases += every_step(&[kind], true);
    }
    eprintln!("{cases} cases with one volume");
    assert!(cases > 1000, "{cases}");
}

#[test]
fn whatever_fails_at_any_step_of_several_volumes_each_is_completed() {
    let mut cases = 0;
    for kind in Kind::ALL {
        for other in Kind::ALL {
            cases += every_step(&[kind, other], false);
        }
    }
    cases += every_step(&[Kind::ZfsRollback, Kind::Dir], true);
    cases += every_step(&[Kind::BtrfsCarry, Kind::ZfsCarry, Kind::Dir], false);
    eprintln!("{cases} cases with several volumes");
    assert!(cases > 3000, "{cases}");
}

fn copy(disks: &[Disk]) -> Disks {
    let fresh = |disk: &Disk| Rc::new(RefCell::new(disk.as_found_by_the_next_run()));
    disks.iter().map(fresh).collect()
}

#[test]
fn a_model_that_loses_something_is_noticed() {
    let mut disk = Disk::new(Kind::ZfsRollback);
    assert!(disk.keeps_what_is_kept());
    disk.live.kept = What::Nothing;
    assert!(!disk.keeps_what_is_kept());
}
