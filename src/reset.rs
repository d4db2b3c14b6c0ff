//! The engine: all volumes of a configuration, phase by phase.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use tracing::{error, info, warn};

use crate::config::{self, Config};
use crate::hibernation;
use crate::plan::{Phase, VolumePlan, shown};
use crate::report::{Ending, Report, VolumeReport, peak_memory};
use crate::volume::{self, Options, Standing, Volume};

/// How a reset ended, with its report.
#[derive(Debug)]
pub struct Ended {
    /// For the journal, the file, and whoever called.
    pub report: Report,
    /// What failed.
    pub error: Option<anyhow::Error>,
}

/// Opens a volume: [`volume::open`], or a made-up one in tests.
pub type Opener<'o> = dyn Fn(&config::Volume, Options) -> anyhow::Result<Box<dyn Volume>> + 'o;

/// Resets every volume of `config`, or only plans to.
#[must_use]
pub fn reset(config: &Config, options: Options) -> Ended {
    reset_with(config, options, &volume::open)
}

/// [`reset`], with volumes opened by `open`.
#[must_use]
pub fn reset_with(config: &Config, options: Options, open: &Opener<'_>) -> Ended {
    let start = Instant::now();
    let mut run = Run { volumes: Vec::new() };
    let result = run.go(config, options, open);
    let result = match (result, run.close()) {
        (Ok(()), closed) => closed,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(close)) => Err(error.context(format!("and then: {close:#}"))),
    };
    let unfinished = run.any(|standing| standing == Standing::Unfinished);
    let outcome = match &result {
        Ok(()) if options.dry_run => Ending::DryRun,
        Ok(()) => Ending::Reset,
        Err(_) if unfinished && !options.dry_run => Ending::Unfinished,
        Err(_) => Ending::Failed,
    };
    let error = result.err().map(|error| error.context(run.state_in_words(options)));
    Ended {
        report: Report {
            version: 1,
            outcome,
            error: error.as_ref().map(|error| format!("{error:#}")),
            seconds: start.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory(),
            volumes: run.volumes.into_iter().filter_map(|open| open.report).collect(),
        },
        error,
    }
}

/// A volume that is open, and what was done with it.
struct Open {
    volume: Box<dyn Volume>,
    report: Option<VolumeReport>,
}

struct Run {
    volumes: Vec<Open>,
}

impl Run {
    fn go(&mut self, config: &Config, options: Options, open: &Opener<'_>) -> anyhow::Result<()> {
        Self::refuse_while_hibernating(options)?;
        self.plan(config, options, open)?;
        if options.dry_run {
            return Ok(());
        }
        if let Err(error) = self.phase(Phase::Prepare) {
            return Err(self.abandon_from(0, error));
        }
        if let Err((failed, error)) = self.commit() {
            // What was committed stays, and is tidied; the rest is as it was.
            let error = self.abandon_from(failed, error);
            return Err(match self.finish(failed) {
                Ok(()) => error,
                Err(finish) => error.context(format!("and then: {finish:#}")),
            });
        }
        self.finish(self.volumes.len())
    }

    fn refuse_while_hibernating(options: Options) -> anyhow::Result<()> {
        let waits = hibernation::image_waits()?;
        anyhow::ensure!(
            options.dry_run || !waits,
            "a hibernation image waits to be resumed, and its filesystems must not be changed; \
             resume it, or boot once with `noresume`"
        );
        Ok(())
    }

    /// Every volume is looked at before anything is reported, so that one run names all that
    /// is wrong.
    fn plan(&mut self, config: &Config, options: Options, open: &Opener<'_>) -> anyhow::Result<()> {
        let mut wrong: Vec<anyhow::Error> = Vec::new();
        for volume in &config.volumes {
            let at = || format!("{}", volume.mount_point.display());
            match open(volume, options) {
                Ok(opened) => self.volumes.push(Open { volume: opened, report: None }),
                Err(error) => {
                    wrong.push(error.context(at()));
                    continue;
                }
            }
            let Some(opened) = self.volumes.last_mut() else { continue };
            match opened.volume.plan() {
                Ok(plan) => {
                    announce(&plan);
                    opened.report = Some(VolumeReport::new(plan));
                }
                Err(error) => wrong.push(error.context(at())),
            }
        }
        let mut wrong = wrong.into_iter();
        let Some(first) = wrong.next() else { return Ok(()) };
        Err(wrong.fold(first, |all, next| anyhow::anyhow!("{all:#}\n{next:#}")))
    }

    fn phase(&mut self, phase: Phase) -> anyhow::Result<()> {
        self.volumes.iter_mut().try_for_each(|open| open.phase(phase))
    }

    /// Commits the volumes in turn. A failure names the first that is not committed.
    fn commit(&mut self) -> Result<(), (usize, anyhow::Error)> {
        for (index, open) in self.volumes.iter_mut().enumerate() {
            open.phase(Phase::Commit).map_err(|error| (index, error))?;
            if let Some(report) = &mut open.report {
                report.committed = true;
            }
        }
        Ok(())
    }

    /// Tidies the first `committed` volumes, all of them even if one fails.
    fn finish(&mut self, committed: usize) -> anyhow::Result<()> {
        let results: Vec<_> =
            self.volumes[..committed].iter_mut().map(|open| open.phase(Phase::Finish)).collect();
        results.into_iter().collect()
    }

    /// Gives up the volumes from `first` on. What cannot be tidied is added to the error.
    fn abandon_from(&mut self, first: usize, error: anyhow::Error) -> anyhow::Error {
        // The last first: volumes may have made directories that others then used.
        self.volumes[first..].iter_mut().rev().fold(error, |error, open| {
            match open.volume.abandon() {
                Ok(()) => error,
                Err(left) => error.context(format!("and then: {left:#}")),
            }
        })
    }

    fn close(&mut self) -> anyhow::Result<()> {
        let results: Vec<_> = self.volumes.iter_mut().map(|open| open.volume.close()).collect();
        results.into_iter().collect()
    }

    fn any(&self, is: impl Fn(Standing) -> bool) -> bool {
        self.volumes.iter().any(|open| is(open.volume.standing()))
    }

    fn state_in_words(&self, options: Options) -> &'static str {
        if options.dry_run {
            return "a reset would not start";
        }
        let unfinished = self.any(|standing| standing == Standing::Unfinished);
        let reset = self.any(|standing| standing == Standing::Reset);
        match (unfinished, reset) {
            (true, _) => {
                "a volume is between its previous state and its result; every persisted path is \
                 safe, and running `darlings reset` again completes it: do not use it before"
            }
            (false, true) => {
                "not all volumes were reset; each is the complete result or the complete previous \
                 state"
            }
            (false, false) => "no volume was reset; all are as they were",
        }
    }
}

impl Open {
    fn phase(&mut self, phase: Phase) -> anyhow::Result<()> {
        let Some(report) = &mut self.report else { return Ok(()) };
        let steps: Vec<_> =
            report.plan.steps.iter().filter(|planned| planned.phase == phase).cloned().collect();
        for planned in steps {
            let start = Instant::now();
            let at = report.plan.mount_point.display();
            info!("{at}: {}", planned.step);
            let outcome = self
                .volume
                .execute(&planned.step)
                .with_context(|| format!("{at}: cannot {}", planned.step))?;
            if let Some(outcome) = outcome {
                report.restored(outcome);
            }
            report.took(&planned, start.elapsed());
        }
        Ok(())
    }
}

fn announce(plan: &VolumePlan) {
    for warning in &plan.warnings {
        warn!("{}: {warning}", plan.mount_point.display());
    }
    for subvolume in &plan.leaving {
        let subvolume = shown(Path::new(subvolume));
        warn!("{subvolume} is a subvolume below no persisted path: it goes with the generation");
    }
}

/// Tells the journal how it ended, in plain words.
pub fn tell(ended: &Ended) {
    for line in
        ended.report.volumes.iter().filter(|volume| volume.committed).flat_map(VolumeReport::lines)
    {
        info!("{line}");
    }
    match &ended.error {
        Some(failed) => error!("{failed:#}"),
        None if ended.report.outcome == Ending::Reset => {
            info!("reset complete in {:.3} s", ended.report.seconds);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::PathBuf;
    use std::rc::Rc;

    use super::*;
    use crate::plan::{Planned, Step};
    use crate::restore::Outcome;
    use crate::rules::Rules;

    type Log = Rc<RefCell<Vec<String>>>;

    /// A volume that writes down what it is asked to do, and fails where it is told to.
    struct Fake {
        name: &'static str,
        fails_at: Option<Phase>,
        standing: Standing,
        log: Log,
    }

    impl Fake {
        fn say(&self, what: &str) {
            self.log.borrow_mut().push(format!("{} {what}", self.name));
        }
    }

    impl Volume for Fake {
        fn plan(&mut self) -> anyhow::Result<VolumePlan> {
            let step =
                |phase, name: &str| Planned { phase, step: Step::Secure { name: name.to_owned() } };
            Ok(VolumePlan {
                mount_point: PathBuf::from(self.name),
                volume: self.name.into(),
                generation: 1,
                previous_state: None,
                resumes: false,
                paths: Vec::new(),
                leaving: Vec::new(),
                warnings: Vec::new(),
                steps: vec![
                    step(Phase::Prepare, "prepare"),
                    step(Phase::Commit, "commit"),
                    step(Phase::Finish, "finish"),
                ],
            })
        }

        fn execute(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
            let Step::Secure { name } = step else { anyhow::bail!("not planned: {step}") };
            self.say(name);
            let fails =
                self.fails_at.is_some_and(|phase| format!("{phase:?}").to_lowercase() == *name);
            anyhow::ensure!(!fails, "made to fail");
            if name == "commit" {
                self.standing = Standing::Reset;
            }
            Ok(None)
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
            Ok(())
        }
    }

    /// Resets the volumes `a` and `b`, with a failure of `b`.
    fn run(b_fails_at: Option<Phase>) -> (Vec<String>, Ended) {
        let log = Log::default();
        let volume = |mount_point: &str| config::Volume {
            mount_point: mount_point.into(),
            backing: config::Backing::Zfs(config::Zfs {
                dataset: mount_point.into(),
                blank: "blank".into(),
                newer_snapshots: config::NewerSnapshots::Refuse,
            }),
            strategy: config::Strategy::Rollback,
            keep: None,
            rules: Rules::default(),
        };
        let config =
            Config { on_failure: config::OnFailure::Boot, volumes: vec![volume("a"), volume("b")] };
        let open = |volume: &config::Volume, _| -> anyhow::Result<Box<dyn Volume>> {
            let is_b = volume.mount_point.as_os_str() == "b";
            Ok(Box::new(Fake {
                name: if is_b { "b" } else { "a" },
                fails_at: if is_b { b_fails_at } else { None },
                standing: Standing::Previous,
                log: Rc::clone(&log),
            }))
        };
        let options = Options { dry_run: false, threads: 1 };
        let ended = reset_with(&config, options, &open);
        (log.take(), ended)
    }

    #[test]
    fn every_phase_is_done_for_all_volumes_before_the_next() {
        let (log, ended) = run(None);
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
    }

    #[test]
    fn what_fails_while_preparing_leaves_every_volume_as_it_was() {
        let (log, ended) = run(Some(Phase::Prepare));
        assert_eq!(log, ["a prepare", "b prepare", "b abandon", "a abandon", "a close", "b close"]);
        assert_eq!(ended.report.outcome, Ending::Failed);
        assert_eq!(
            ended.report.error.as_deref(),
            Some(
                "no volume was reset; all are as they were: b: cannot make it durable as prepare: \
                 made to fail"
            )
        );
    }

    #[test]
    fn what_fails_while_committing_leaves_the_committed_ones_complete_and_tidy() {
        let (log, ended) = run(Some(Phase::Commit));
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
                "not all volumes were reset; each is the complete result or the complete previous \
                 state: b: cannot make it durable as commit: made to fail"
            )
        );
        let committed: Vec<bool> =
            ended.report.volumes.iter().map(|volume| volume.committed).collect();
        assert_eq!(committed, [true, false]);
    }
}
