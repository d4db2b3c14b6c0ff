//! What the engine asks of volumes, in which order, and how it says what came of it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context as _;

use super::*;
use crate::engine::plan::{Described, Planned};
use crate::keep::copy_in::Outcome;
use crate::rules::Rules;

mod asked;

type Log = Rc<RefCell<Vec<String>>>;

/// A volume that writes down what it is asked to do, and fails where it is told to.
struct Fake {
    name: String,
    fault: Fault,
    standing: Standing,
    log: Log,
    steps: Vec<String>,
}

/// A step of this name.
fn described(name: &str) -> Described {
    Described { words: format!("do {name}"), data: serde_json::Map::new() }
}

/// What goes wrong with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// It cannot be planned.
    Plan,
    /// A step fails and leaves the volume as it was before.
    At(Phase),
    /// The commit fails half way.
    HalfWay,
    /// It can be prepared only as another plan says.
    OneWay,
    /// What it prepared in the first way cannot be removed.
    NoWay,
    /// It cannot be unmounted.
    Close,
    /// An earlier run left it half way.
    Begun,
    /// The same, and what would complete it is gone.
    Stranded,
}

impl Fake {
    fn say(&self, what: &str) {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl OpenVolume for Fake {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        anyhow::ensure!(self.fault != Fault::Plan, "made to fail");
        if self.fault == Fault::Stranded {
            self.standing = Standing::Stranded;
            anyhow::bail!("the stage is gone");
        }
        let mut names =
            vec![(Phase::Prepare, "prepare"), (Phase::Commit, "commit"), (Phase::Finish, "finish")];
        if self.fault == Fault::Begun {
            self.standing = Standing::Unfinished;
            names.remove(0);
        }
        let step = |(phase, name): &(_, &str)| Planned { phase: *phase, step: described(name) };
        let steps = names.iter().map(step).collect();
        self.steps = names.iter().map(|(_, name)| (*name).to_owned()).collect();
        Ok(VolumePlan {
            mount_point: PathBuf::from(&self.name),
            volume: self.name.clone(),
            does: Does::Reset,
            generation: 1,
            previous_state: Some("1".into()),
            resumes: self.fault == Fault::Begun,
            paths: Vec::new(),
            put_away: Vec::new(),
            returned: Vec::new(),
            leaving: Vec::new(),
            warnings: Vec::new(),
            steps,
            restore: None,
        })
    }

    fn execute(&mut self, step: usize) -> anyhow::Result<Option<Outcome>> {
        let name = &self.steps[step].clone();
        self.say(name);
        if name == "commit" && self.fault == Fault::HalfWay {
            self.standing = Standing::Unfinished;
            anyhow::bail!("made to fail half way");
        }
        let fails =
            matches!(self.fault, Fault::At(phase) if format!("{phase:?}").to_lowercase() == *name);
        anyhow::ensure!(!fails, "made to fail");
        let copies = name == "prepare" && matches!(self.fault, Fault::OneWay | Fault::NoWay);
        anyhow::ensure!(!copies, "it cannot be copied");
        if name == "commit" {
            self.standing = Standing::Reset;
        }
        Ok(None)
    }

    fn plan_instead(&mut self, error: &anyhow::Error) -> anyhow::Result<Option<VolumePlan>> {
        self.say(&format!("plan instead: {error:#}"));
        anyhow::ensure!(self.fault != Fault::NoWay, "the stage cannot be removed");
        if self.fault != Fault::OneWay {
            return Ok(None);
        }
        let mut plan = self.plan()?;
        self.steps[0] = "move".into();
        plan.steps[0].step = described("move");
        plan.previous_state = Some("2".into());
        plan.warnings = vec!["it is moved".into()];
        Ok(Some(plan))
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        self.say("abandon");
        Ok(())
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.say("close");
        anyhow::ensure!(self.fault != Fault::Close, "made to fail");
        Ok(())
    }
}

const OPTIONS: Options =
    Options { dry_run: false, threads: 1, asked: Asked::Reset, root_subvolid: None };

/// Resets the volumes `a`, `b`, ..., with what goes wrong with each.
fn run(faults: &[Fault]) -> (Vec<String>, Ended) {
    run_with(faults, OPTIONS)
}

fn run_with(faults: &[Fault], options: Options) -> (Vec<String>, Ended) {
    let log = Log::default();
    let faults: Vec<(String, Fault)> =
        ('a'..).map(String::from).zip(faults.iter().copied()).collect();
    let volume = |(name, _): &(String, Fault)| config::Volume {
        mount_point: name.into(),
        backing: config::Backing::Zfs(config::Zfs {
            dataset: name.clone(),
            blank: Some("blank".into()),
            newer_snapshots: config::NewerSnapshots::Refuse,
        }),
        strategy: config::Strategy::Rollback,
        keep: None,
        rules: Rules::default(),
    };
    let config = Config {
        on_failure: config::OnFailure::Boot,
        volumes: faults.iter().map(volume).collect(),
    };
    let open = |volume: &config::Volume, _| -> anyhow::Result<Box<dyn OpenVolume>> {
        let (name, fault) = faults
            .iter()
            .find(|(name, _)| volume.mount_point.as_os_str() == name.as_str())
            .context("BUG: another volume than configured")?;
        Ok(Box::new(Fake {
            name: name.clone(),
            fault: *fault,
            standing: Standing::Previous,
            log: Rc::clone(&log),
            steps: Vec::new(),
        }))
    };
    let ended = reset_with(&config, options, &open);
    (log.take(), ended)
}

/// How a reset ended in which this goes wrong, and its words.
fn words(faults: &[Fault]) -> (Ending, String) {
    let (_, ended) = run(faults);
    (ended.report.outcome, ended.report.error.unwrap_or_default())
}

const FINE: Fault = Fault::Nothing;

#[test]
fn every_phase_is_done_for_all_volumes_before_the_next() {
    let (log, ended) = run(&[FINE, FINE]);
    assert_eq!(
        log,
        [
            "a prepare",
            "b prepare",
            "a commit",
            "b commit",
            "a finish",
            "b finish",
            "a close",
            "b close"
        ]
    );
    assert_eq!(ended.report.outcome, Ending::Reset);
    assert_eq!(ended.report.error, None);
}

#[test]
fn what_fails_while_preparing_leaves_every_volume_as_it_was() {
    let (log, ended) = run(&[FINE, Fault::At(Phase::Prepare)]);
    let asked = "b plan instead: made to fail";
    let undone = ["b abandon", "a abandon", "a close", "b close"];
    assert_eq!(log, [&["a prepare", "b prepare", asked][..], &undone].concat());
    assert_eq!(ended.report.outcome, Ending::Failed);
    assert_eq!(
        ended.report.error.as_deref(),
        Some(
            "no volume was reset; all are as they were: b: cannot do prepare: \
             made to fail"
        )
    );
}

#[test]
fn a_volume_that_cannot_be_prepared_in_one_way_is_prepared_in_another_and_reported_so() {
    let (log, ended) = run(&[Fault::OneWay, FINE]);
    assert_eq!(
        log,
        [
            "a prepare",
            "a plan instead: it cannot be copied",
            "a move",
            "b prepare",
            "a commit",
            "b commit",
            "a finish",
            "b finish",
            "a close",
            "b close"
        ]
    );
    assert_eq!((ended.report.outcome, ended.report.error), (Ending::Reset, None));
    let volume = &ended.report.volumes[0];
    let steps: Vec<&str> = volume.plan.steps.iter().map(|it| it.step.words.as_str()).collect();
    assert_eq!(steps, ["do move", "do commit", "do finish"]);
    assert_eq!(volume.plan.warnings, ["it is moved"]);
    assert_eq!(volume.plan.previous_state.as_deref(), Some("2"));
    assert_eq!((volume.step_seconds.len(), volume.committed, volume.tidied), (3, true, true));
}

#[test]
fn there_is_another_way_only_while_preparing_and_only_once_the_first_is_cleared_away() {
    let (log, ended) = run(&[FINE, Fault::NoWay]);
    let expected = [
        "a prepare",
        "b prepare",
        "b plan instead: it cannot be copied",
        "b abandon",
        "a abandon",
        "a close",
        "b close",
    ];
    assert_eq!(log, expected);
    assert_eq!(
        ended.report.error.as_deref(),
        Some(
            "no volume was reset; all are as they were: b: cannot do prepare: it cannot be copied\n\
             and then: the stage cannot be removed"
        )
    );
    let (log, _) = run(&[Fault::At(Phase::Commit)]);
    assert_eq!(log, ["a prepare", "a commit", "a abandon", "a close"]);
}

#[test]
fn a_report_names_no_previous_state_that_the_run_did_not_leave() {
    let left = |faults: &[Fault], options| {
        let (_, ended) = run_with(faults, options);
        let volumes = ended.report.volumes.into_iter();
        volumes.map(|it| it.plan.previous_state).collect::<Vec<_>>()
    };
    let there = || Some("1".to_owned());
    assert_eq!(left(&[FINE, FINE], OPTIONS), [there(), there()]);
    assert_eq!(left(&[FINE, Fault::At(Phase::Prepare)], OPTIONS), [None, None]);
    assert_eq!(left(&[FINE, Fault::At(Phase::Commit)], OPTIONS), [there(), None]);
    // Where it would be is what a dry run is asked for.
    assert_eq!(left(&[FINE], Options { dry_run: true, ..OPTIONS }), [there()]);
}

#[test]
fn what_fails_while_committing_leaves_the_committed_ones_complete_and_tidy() {
    let (log, ended) = run(&[FINE, Fault::At(Phase::Commit)]);
    assert_eq!(
        log,
        [
            "a prepare",
            "b prepare",
            "a commit",
            "b commit",
            "b abandon",
            "a finish",
            "a close",
            "b close"
        ]
    );
    assert_eq!(ended.report.outcome, Ending::Failed);
    assert_eq!(
        ended.report.error.as_deref(),
        Some(
            "not all volumes were reset: a is the complete result, b is the complete previous \
             state: b: cannot do commit: made to fail"
        )
    );
    let states: Vec<(bool, bool)> =
        ended.report.volumes.iter().map(|volume| (volume.committed, volume.tidied)).collect();
    assert_eq!(states, [(true, true), (false, false)]);
}

#[test]
fn what_cannot_be_planned_leaves_every_volume_as_it_was_and_names_all_that_is_wrong() {
    assert_eq!(
        words(&[Fault::Plan, FINE, Fault::Plan]),
        (
            Ending::Failed,
            "no volume was reset; all are as they were: a: made to fail\nc: made to fail".into()
        )
    );
}

#[test]
fn what_was_begun_is_completed_although_nothing_can_be_begun_on_the_others() {
    let (log, ended) = run(&[Fault::Begun, Fault::Plan, Fault::Nothing]);
    assert_eq!(log, ["a commit", "a finish", "a close", "b close", "c close"]);
    assert_eq!(ended.report.outcome, Ending::Failed);
    assert_eq!(
        ended.report.error.as_deref(),
        Some(
            "not all volumes were reset: a is the complete result, b and c are the complete \
             previous state: b: made to fail"
        )
    );
    let committed: Vec<bool> = ended.report.volumes.iter().map(|it| it.committed).collect();
    assert_eq!(committed, [true, false]);

    let (log, ended) = run(&[Fault::Nothing, Fault::Begun, Fault::At(Phase::Prepare)]);
    assert_eq!(log[..2], ["a prepare", "c prepare"]);
    assert_eq!(log[3..7], ["b commit", "b finish", "c abandon", "a abandon"]);
    assert_eq!(ended.report.outcome, Ending::Failed);

    let (log, ended) = run(&[Fault::At(Phase::Commit), Fault::Begun]);
    assert_eq!(log[..5], ["a prepare", "a commit", "b commit", "b finish", "a abandon"]);
    assert_eq!(ended.report.outcome, Ending::Failed);
}

#[test]
fn a_plan_that_fails_in_a_dry_run_says_that_a_reset_would_not_start() {
    let (log, ended) = run_with(&[FINE, Fault::Plan], Options { dry_run: true, ..OPTIONS });
    assert_eq!(log, ["a close", "b close"]);
    assert_eq!(ended.report.outcome, Ending::Failed);
    assert_eq!(ended.report.error.as_deref(), Some("a reset would not start: b: made to fail"));
}

#[test]
fn what_fails_while_tidying_up_does_not_make_a_volume_less_reset() {
    let (log, ended) = run(&[Fault::At(Phase::Finish), FINE]);
    assert_eq!(log[4..], ["a finish", "b finish", "a close", "b close"]);
    assert_eq!(ended.report.outcome, Ending::Failed);
    assert_eq!(
        ended.report.error.as_deref(),
        Some(
            "every volume was reset and is the complete result; what failed is tidying up, and \
             the next run tidies up again: a: cannot do finish: made to fail"
        )
    );
    let states: Vec<(bool, bool)> =
        ended.report.volumes.iter().map(|volume| (volume.committed, volume.tidied)).collect();
    assert_eq!(states, [(true, false), (true, true)]);
    let last_lines: Vec<Option<String>> =
        ended.report.volumes.iter().map(|volume| volume.lines().pop()).collect();
    assert_eq!(
        last_lines,
        [
            Some("  the previous state is not yet 1: a run that tidies up names it so".to_owned()),
            Some("  the previous state is 1".to_owned())
        ]
    );
}

#[test]
fn a_volume_that_cannot_be_unmounted_is_no_less_reset() {
    assert_eq!(
        words(&[FINE, Fault::Close]),
        (
            Ending::Failed,
            "every volume was reset and is the complete result; what failed is tidying up, and \
             the next run tidies up again: made to fail"
                .into()
        )
    );
}

#[test]
fn when_tidying_up_fails_beside_a_commit_both_are_told_and_each_volume_by_its_state() {
    assert_eq!(
        words(&[FINE, Fault::At(Phase::Finish), Fault::At(Phase::Commit), FINE]),
        (
            Ending::Failed,
            "not all volumes were reset: a and b are the complete result, c and d are the \
             complete previous state: c: cannot do commit: made to fail\n\
             and then: b: cannot do finish: made to fail"
                .into()
        )
    );
}

#[test]
fn every_volume_that_cannot_be_tidied_or_unmounted_is_told() {
    let at = |name: &str| format!("{name}: cannot do finish: made to fail");
    assert_eq!(
        words(&[Fault::At(Phase::Finish), Fault::At(Phase::Finish), Fault::Close]),
        (
            Ending::Failed,
            format!(
                "every volume was reset and is the complete result; what failed is tidying up, \
                 and the next run tidies up again: {}\nand then: {}\nand then: made to fail",
                at("a"),
                at("b")
            )
        )
    );
}

#[test]
fn a_volume_that_is_half_way_is_named_with_what_to_do() {
    const HALF_WAY: &str = "between the previous state and the result (every persisted path is \
                            safe; running `darlings reset` again completes it; do not use it \
                            before)";
    assert_eq!(
        words(&[Fault::HalfWay]),
        (
            Ending::Unfinished,
            format!(
                "not all volumes were reset: a is {HALF_WAY}: a: cannot do \
                 commit: made to fail half way"
            )
        )
    );
    assert_eq!(
        words(&[FINE, FINE, FINE, Fault::HalfWay, FINE]),
        (
            Ending::Unfinished,
            format!(
                "not all volumes were reset: a, b and c are the complete result, e is the \
                 complete previous state, d is {HALF_WAY}: d: cannot do commit: \
                 made to fail half way"
            )
        )
    );
}

#[test]
fn a_volume_that_nothing_can_complete_any_more_is_named_and_must_not_be_used() {
    const STRANDED: &str =
        "half reset, and what would complete it is gone or cannot be read (do not use it)";
    assert_eq!(
        words(&[Fault::Stranded]),
        (
            Ending::Unfinished,
            format!("not all volumes were reset: a is {STRANDED}: a: the stage is gone")
        )
    );
    assert_eq!(
        words(&[FINE, Fault::Stranded, FINE]),
        (
            Ending::Unfinished,
            format!(
                "not all volumes were reset: a and c are the complete previous state, b is \
                 {STRANDED}: b: the stage is gone"
            )
        )
    );
}
