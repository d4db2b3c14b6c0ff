//! The engine of a purge on made-up generations, each of which holds on to 10 bytes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use super::*;
use crate::config::MinFree;
use crate::fs::Dir;
use crate::generations::{Seen, Space};
use crate::rules::Rules;

/// What the fake was asked to do, and what it is.
#[derive(Default)]
struct State {
    log: Vec<String>,
    generations: Vec<u64>,
    begun: Vec<u64>,
    held: Vec<u64>,
    available: u64,
    unfinished: Option<String>,
    locked: bool,
    stuck: bool,
}

#[derive(Clone)]
struct Fake {
    state: Rc<RefCell<State>>,
    live: Rc<tempfile::TempDir>,
}

fn generation(number: u64) -> Generation {
    let name = format!("generation {number}");
    Generation { number, name, ended: None, boot: None, size: None }
}

impl Store for Fake {
    fn lock(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.state.borrow().locked, "another run is at work");
        Ok(())
    }

    fn unfinished(&self) -> anyhow::Result<Option<String>> {
        Ok(self.state.borrow().unfinished.clone())
    }

    fn look(&mut self, _: Detail) -> anyhow::Result<Seen> {
        let state = self.state.borrow();
        Ok(Seen {
            generations: state.generations.iter().copied().map(generation).collect(),
            begun: state.begun.iter().copied().map(generation).collect(),
            others: Vec::new(),
        })
    }

    fn remove(&mut self, generation: &Generation) -> anyhow::Result<()> {
        let mut state = self.state.borrow_mut();
        anyhow::ensure!(!state.held.contains(&generation.number), "there is a hold on it");
        state.log.push(format!("remove {}", generation.number));
        state.available += 10;
        Ok(())
    }

    fn live(&self) -> anyhow::Result<Dir> {
        Dir::root(Dir::open(self.live.path())?)
    }

    fn tree(&mut self, _: &Generation) -> anyhow::Result<Dir> {
        anyhow::bail!("a purge looks into no generation")
    }

    fn blank(&mut self) -> anyhow::Result<Option<Dir>> {
        anyhow::bail!("a purge does not look at the blank")
    }

    fn remove_nested(&mut self, below: &Path) -> anyhow::Result<()> {
        self.state.borrow_mut().log.push(format!("remove what is nested in {}", below.display()));
        Ok(())
    }

    fn space(&self) -> anyhow::Result<Space> {
        Ok(Space { available: self.state.borrow().available, total: 1000 })
    }

    fn settle(&mut self, _: u64, waiting: &mut dyn FnMut()) -> anyhow::Result<()> {
        waiting();
        anyhow::ensure!(!self.state.borrow().stuck, "nothing is freed");
        Ok(())
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.state.borrow_mut().log.push("close".into());
        Ok(())
    }
}

struct Nobody;

impl Watch for Nobody {
    fn removing(&mut self, _: &str, _: u64) {}
    fn waiting(&mut self) {}
    fn pause(&mut self) {}
}

/// A live volume with something in its trash, and a purge of it.
fn run(keep: Keep, dry_run: bool, state: State) -> (Vec<String>, PurgeReport) {
    let live = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(live.path().join(".darlings/trash/7")).unwrap();
    let fake = Fake { state: Rc::new(RefCell::new(state)), live: Rc::new(live) };
    let backing = config::Backing::Zfs(config::Zfs {
        dataset: "rpool/root".into(),
        blank: Some("blank".into()),
        newer_snapshots: config::NewerSnapshots::Refuse,
    });
    let volume = config::Volume {
        mount_point: "/".into(),
        backing,
        strategy: config::Strategy::Carry,
        keep: Some(keep),
        rules: Rules::default(),
    };
    let config = Config { on_failure: config::OnFailure::Boot, volumes: vec![volume] };
    let options = Options { dry_run, now: None };
    let open = |_: &config::Volume, access| -> anyhow::Result<Box<dyn Store>> {
        assert_eq!(access == Access::ReadOnly, dry_run);
        Ok(Box::new(fake.clone()))
    };
    let report = purge_with(&config, options, &mut Nobody, &open);
    let trash = fake.live.path().join(".darlings/trash/7").exists();
    let mut log = fake.state.take().log;
    if !trash {
        log.insert(0, "trash".into());
    }
    (log, report)
}

fn numbers(report: &PurgeReport, why: RemovalReason) -> Vec<&str> {
    let removed = report.volumes[0].removed.iter();
    removed.filter(|removed| removed.reason == why).map(|removed| removed.name.as_str()).collect()
}

const NESTED: &str = "remove what is nested in .darlings/trash/7";

fn five() -> State {
    State { generations: vec![1, 2, 3, 4, 5], available: 100, ..State::default() }
}

fn generations(limit: u32) -> Keep {
    Keep { generations: Some(limit), ..Keep::default() }
}

fn min_free(bytes: u64) -> Keep {
    Keep { min_free: Some(MinFree::Bytes(bytes)), ..Keep::default() }
}

#[test]
fn the_trash_goes_first_then_what_was_begun_then_the_oldest() {
    let state = State { begun: vec![2], generations: vec![1, 3, 4, 5], ..five() };
    let (log, report) = run(generations(2), false, state);
    assert_eq!(log, ["trash", NESTED, "remove 2", "remove 1", "remove 3", "close"]);
    assert_eq!(report.outcome, PurgeOutcome::Done);
    assert_eq!(numbers(&report, RemovalReason::Begun), ["generation 2"]);
    assert_eq!(numbers(&report, RemovalReason::TooMany), ["generation 1", "generation 3"]);
}

#[test]
fn what_was_begun_stays_when_nothing_newer_is_left() {
    let state = State { begun: vec![7], ..five() };
    let (log, report) = run(Keep::default(), false, state);
    assert_eq!(log, ["trash", NESTED, "close"]);
    assert_eq!(report.volumes[0].notes, ["generation 7 is incomplete, but it is the newest"]);
}

#[test]
fn what_is_held_is_told_and_the_rest_goes() {
    let (log, report) = run(generations(2), false, State { held: vec![2], ..five() });
    assert_eq!(log, ["trash", NESTED, "remove 1", "remove 3", "close"]);
    assert_eq!(report.outcome, PurgeOutcome::Failed);
    let failed = Failed { name: "generation 2".into(), error: "there is a hold on it".into() };
    assert_eq!(report.volumes[0].failed, [failed]);
}

#[test]
fn generations_go_one_by_one_until_enough_is_free() {
    let (log, report) = run(min_free(120), false, five());
    assert_eq!(log, ["trash", NESTED, "remove 1", "remove 2", "close"]);
    assert_eq!(numbers(&report, RemovalReason::LittleSpace), ["generation 1", "generation 2"]);
    assert_eq!(report.volumes[0].available_bytes, Some(120));
    let (log, _) = run(min_free(100), false, five());
    assert_eq!(log, ["trash", NESTED, "close"]);
}

#[test]
fn the_newest_three_stay_however_little_is_free() {
    let (log, report) = run(min_free(1 << 40), false, five());
    assert_eq!(log, ["trash", NESTED, "remove 1", "remove 2", "close"]);
    assert_eq!(
        report.volumes[0].notes.last().map(String::as_str),
        Some(
            "120 B is free, less than the 1.0 TiB that `keep.min_free` wants, and no generation is \
             left that may go for it: the newest 3 stay"
        )
    );
}

#[test]
fn a_generation_that_cannot_be_removed_is_not_said_to_be_gone() {
    let (log, report) = run(min_free(1 << 40), false, State { held: vec![1], ..five() });
    assert_eq!(log, ["trash", NESTED, "remove 2", "close"]);
    assert_eq!(
        report.volumes[0].notes.last().map(String::as_str),
        Some(
            "110 B is free, less than the 1.0 TiB that `keep.min_free` wants, and what may go for it \
             could not be removed"
        )
    );
}

#[test]
fn while_it_cannot_be_told_what_is_freed_no_more_goes() {
    let keep = Keep { generations: Some(4), ..min_free(1 << 40) };
    let (log, report) = run(keep, false, State { stuck: true, ..five() });
    assert_eq!(log, ["trash", NESTED, "remove 1", "close"]);
    assert_eq!(report.volumes[0].failed[0].error, "cannot make room: nothing is freed");
}

#[test]
fn nothing_is_touched_while_a_reset_waits_or_runs() {
    let waits = State { unfinished: Some("x".into()), ..five() };
    for state in [waits, State { locked: true, ..five() }] {
        let (log, report) = run(generations(1), false, state);
        assert_eq!(log, ["close"]);
        assert_eq!(report.outcome, PurgeOutcome::Failed);
        assert_eq!(report.volumes[0].failed[0].name, "");
    }
}

#[test]
fn a_dry_run_asks_for_nothing_and_takes_no_lock() {
    let keep = Keep { generations: Some(4), ..min_free(1 << 40) };
    let (log, report) = run(keep, true, State { locked: true, ..five() });
    assert_eq!(log, ["close"]);
    let names: Vec<&str> =
        report.volumes[0].removed.iter().map(|removed| removed.name.as_str()).collect();
    assert_eq!(names, [".darlings/trash/7", "generation 1", "generation 2"]);
}
