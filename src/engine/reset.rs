//! The engine: all volumes of a configuration, phase by phase.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use tracing::{error, info, warn};

use crate::cmdline::{Asked, CommandLine};
use crate::config::{self, Config};
use crate::engine::hibernation;
use crate::engine::plan::{Does, Phase, VolumePlan};
use crate::engine::report::{Ending, Report, VolumeReport, peak_memory};
use crate::errors::{all, and_then};
use crate::names::shown;
use crate::volume::{self, OnlyNow, OpenVolume, Options, Standing};

/// How a reset ended, with its report.
#[derive(Debug)]
pub struct Ended {
    /// For the journal, the file, and whoever called.
    pub report: Report,
    /// What failed.
    pub error: Option<anyhow::Error>,
}

/// Opens a volume: [`volume::open`], or a made-up one in tests.
pub type Opener<'o> = dyn Fn(&config::Volume, Options) -> anyhow::Result<Box<dyn OpenVolume>> + 'o;

/// What the kernel command line asks for, or why nothing is done, with what was asked if that is known.
///
/// # Errors
/// A word means nothing, or another root is booted than the one that is reset.
pub fn asked(config: &Config, line: &CommandLine) -> Result<Asked, (Option<Asked>, anyhow::Error)> {
    let asked = line.asked().map_err(|unknown| (None, unknown.into()))?;
    let boots_another = config.volumes.iter().find_map(|it| volume::boots_another(it, line));
    match boots_another.filter(|_| asked != Asked::Off) {
        Some(why) => Err((Some(asked), anyhow::anyhow!(why))),
        None => Ok(asked),
    }
}

/// Does with every volume of `config` what [`Options::asked`] says, or only plans to.
#[must_use]
pub fn reset(config: &Config, options: Options) -> Ended {
    reset_with(config, options, &volume::open)
}

/// [`reset`], with volumes opened by `open`.
#[must_use]
pub fn reset_with(config: &Config, options: Options, open: &Opener<'_>) -> Ended {
    match options.asked {
        // A reset of a volume completes what was interrupted before, and does not begin anew.
        Asked::Reset | Asked::Off => pass(config, options, open),
        Asked::Snapshot | Asked::Restore(_) => complete_and(config, options, open),
    }
}

/// Completes what was interrupted and must be, and then fails with `error`, which says why what was
/// `asked` is not done; `None` where nobody knows what that was.
#[must_use]
pub fn refuse(
    config: &Config,
    options: Options,
    asked: Option<Asked>,
    error: anyhow::Error,
) -> Ended {
    let mut ended = pass(config, Options { asked: Asked::Off, ..options }, &volume::open);
    let error = match ended.error.take() {
        Some(failed) => and_then(&error, &failed),
        None if ended.has_resumed() => {
            error.context("what an interrupted run had left was completed, and nothing else done")
        }
        None => error.context("no volume was reset; all are as they were"),
    };
    ended.report.asked = asked;
    if ended.report.outcome != Ending::Unfinished {
        ended.report.outcome = Ending::Failed;
    }
    ended.report.error = Some(format!("{error:#}"));
    ended.error = Some(error);
    ended
}

/// Has interrupted runs completed first, on all volumes, and then does what is asked.
fn complete_and(config: &Config, options: Options, open: &Opener<'_>) -> Ended {
    let asked = options.asked;
    let mut first = pass(config, Options { asked: Asked::Off, ..options }, open);
    first.report.asked = Some(asked);
    if first.error.is_some() {
        return first;
    }
    if !first.has_resumed() {
        return pass(config, options, open);
    }
    if options.dry_run {
        warn!("{asked} is planned once the interrupted run is completed");
        return first;
    }
    let done = first.report.done_already(asked);
    let second = if first.report.volumes.iter().all(|it| done.contains(&it.plan.mount_point)) {
        first.report.outcome = Ending::Restored;
        first
    } else {
        tell_volumes(&first.report);
        let skip = |volume: &config::Volume, options: Options| {
            let done = done.contains(&volume.mount_point);
            let asked = if done { Asked::Off } else { options.asked };
            open(volume, Options { asked, ..options })
        };
        pass(config, options, &skip)
    };
    for mount_point in &done {
        info!("{}: {asked} was what was interrupted, and it is done", shown(&mount_point));
    }
    second
}

impl Ended {
    fn has_resumed(&self) -> bool {
        self.report.volumes.iter().any(|volume| volume.plan.resumes)
    }
}

impl Report {
    /// The volumes that an interrupted run had already done what is asked with, or has now that it
    /// is completed. To restore `previous` once more would undo it.
    fn done_already(&self, asked: Asked) -> BTreeSet<PathBuf> {
        let restores = || {
            let plans = self.volumes.iter().map(|volume| &volume.plan);
            plans.filter_map(|plan| Some((plan, plan.restore.as_ref()?)))
        };
        let boots: Vec<&Option<String>> = restores()
            .filter(|(plan, restore)| plan.resumes && asked.is_restore_of(restore.of))
            .map(|(_, restore)| &restore.boot)
            .collect();
        restores()
            .filter(|(_, restore)| {
                asked.is_restore_of(restore.of) && boots.contains(&&restore.boot)
            })
            .map(|(plan, _)| plan.mount_point.clone())
            .collect()
    }
}

/// Goes through all volumes once.
fn pass(config: &Config, options: Options, open: &Opener<'_>) -> Ended {
    let start = Instant::now();
    let mut run = Run { volumes: Vec::new() };
    let result = run.go(config, options, open);
    let result = match (result, run.close()) {
        (Ok(()), closed) => closed,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(close)) => Err(and_then(&error, &close)),
    };
    let unfinished = run.volumes.iter().any(|open| open.volume.standing().must_not_be_used());
    let outcome = match &result {
        Ok(()) if options.dry_run => Ending::DryRun,
        Ok(()) => match options.asked {
            Asked::Reset => Ending::Reset,
            Asked::Off => Ending::Off,
            Asked::Snapshot => Ending::Snapshot,
            Asked::Restore(_) => Ending::Restored,
        },
        Err(_) if unfinished && !options.dry_run => Ending::Unfinished,
        Err(_) => Ending::Failed,
    };
    let error = result.err().map(|error| error.context(run.state_in_words(options)));
    let reports = run.volumes.into_iter().filter_map(|open| open.report);
    Ended {
        report: Report {
            version: 1,
            asked: Some(options.asked),
            outcome,
            error: error.as_ref().map(|error| format!("{error:#}")),
            seconds: start.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory(),
            volumes: reports.map(|it| if options.dry_run { it } else { it.ended() }).collect(),
        },
        error,
    }
}

/// A volume that is open, and what was done with it.
struct Open {
    mount_point: PathBuf,
    volume: Box<dyn OpenVolume>,
    report: Option<VolumeReport>,
}

struct Run {
    volumes: Vec<Open>,
}

impl Run {
    fn go(&mut self, config: &Config, options: Options, open: &Opener<'_>) -> anyhow::Result<()> {
        if hibernation::image_waits()? && !options.passes_over(OnlyNow::Hibernated) {
            if options.asked == Asked::Off {
                // Not even to look: reading would replay what the machine had not written yet.
                warn!("a hibernation image waits to be resumed, so no volume was looked at");
                return Ok(());
            }
            anyhow::bail!(
                "a hibernation image waits to be resumed, and its filesystems must not be changed; \
                 resume it, or boot once with `noresume`"
            );
        }
        let planned = self.plan(config, options, open);
        if options.dry_run {
            return planned;
        }
        planned.map_err(|error| self.complete_unfinished(0, error))?;
        if let Err(error) = self.phase(Phase::Prepare) {
            let error = self.complete_unfinished(0, error);
            return Err(self.abandon_from(0, error));
        }
        if let Err((failed, error)) = self.commit() {
            // What was committed stays, and is tidied; the rest is as it was, or completed.
            let error = self.complete_unfinished(failed + 1, error);
            let error = self.abandon_from(failed, error);
            return Err(match self.finish(failed) {
                Ok(()) => error,
                Err(finish) => and_then(&error, &finish),
            });
        }
        self.finish(self.volumes.len())
    }

    /// Every volume is looked at before anything is reported, so that one run names all that
    /// is wrong.
    fn plan(&mut self, config: &Config, options: Options, open: &Opener<'_>) -> anyhow::Result<()> {
        let mut wrong: Vec<anyhow::Error> = Vec::new();
        for volume in &config.volumes {
            let at = || shown(&volume.mount_point);
            match open(volume, options) {
                Ok(opened) => self.volumes.push(Open {
                    mount_point: volume.mount_point.clone(),
                    volume: opened,
                    report: None,
                }),
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
            open.commit().map_err(|error| (index, error))?;
        }
        Ok(())
    }

    /// Tidies the first `committed` volumes, all of them even if one fails.
    fn finish(&mut self, committed: usize) -> anyhow::Result<()> {
        all(self.volumes[..committed].iter_mut().map(Open::tidy))
    }

    /// Completes the volumes from `first` on that an earlier run had begun, where this run stops
    /// because of others. They are not to be used before, and what is wrong with the others may stay so.
    fn complete_unfinished(&mut self, first: usize, error: anyhow::Error) -> anyhow::Error {
        let begun = self.volumes[first..].iter_mut().filter(|open| open.resumes());
        begun.fold(error, |error, open| match open.complete() {
            Ok(()) => error,
            Err(failed) => and_then(&error, &failed),
        })
    }

    /// Gives up the volumes from `first` on. What cannot be tidied is added to the error.
    fn abandon_from(&mut self, first: usize, error: anyhow::Error) -> anyhow::Error {
        // The last first: volumes may have made directories that others then used.
        let begun = self.volumes[first..].iter_mut().filter(|open| !open.resumes());
        begun.rev().fold(error, |error, open| match open.volume.abandon() {
            Ok(()) => error,
            Err(left) => and_then(&error, &left),
        })
    }

    fn close(&mut self) -> anyhow::Result<()> {
        all(self.volumes.iter_mut().map(|open| open.volume.close()))
    }

    /// What the machine would boot now, for whoever reads that something failed.
    fn state_in_words(&self, options: Options) -> String {
        let done = match options.asked {
            Asked::Restore(_) => "restored",
            Asked::Reset | Asked::Off | Asked::Snapshot => "reset",
        };
        if options.dry_run {
            return match options.asked {
                Asked::Reset => "a reset would not start".into(),
                asked => format!("{asked} would not start"),
            };
        }
        let previous = self.those(Standing::Previous);
        let reset = self.those(Standing::Reset);
        let unfinished = self.those(Standing::Unfinished);
        let stranded = self.those(Standing::Stranded);
        if reset.is_empty() && unfinished.is_empty() && stranded.is_empty() {
            return format!("no volume was {done}; all are as they were");
        }
        if previous.is_empty() && unfinished.is_empty() && stranded.is_empty() {
            return format!(
                "every volume was {done} and is the complete result; what failed is tidying up, \
                 and the next run tidies up again"
            );
        }
        let states: Vec<String> = [
            (reset, "the complete result"),
            (previous, "the complete previous state"),
            (
                unfinished,
                "between the previous state and the result (every persisted path is safe; running \
                 `darlings reset` again completes it; do not use it before)",
            ),
            (
                stranded,
                "half reset, and what would complete it is gone or cannot be read (do not use it)",
            ),
        ]
        .into_iter()
        .filter_map(|(volumes, state)| Some(format!("{} {state}", are(&volumes)?)))
        .collect();
        format!("not all volumes were {done}: {}", states.join(", "))
    }

    /// The mount points of the volumes that stand so.
    fn those(&self, standing: Standing) -> Vec<String> {
        self.volumes
            .iter()
            .filter(|open| open.volume.standing() == standing)
            .map(|open| shown(&open.mount_point))
            .collect()
    }
}

/// `/ is`, `/ and /home are`, `/, /home and /srv are`; nothing for no names.
fn are(names: &[String]) -> Option<String> {
    let (last, others) = names.split_last()?;
    Some(match others {
        [] => format!("{last} is"),
        others => format!("{} and {last} are", others.join(", ")),
    })
}

impl Open {
    /// Whether it goes on with what an earlier run had begun.
    fn resumes(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.plan.resumes)
    }

    fn complete(&mut self) -> anyhow::Result<()> {
        self.commit()?;
        self.tidy()
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        self.phase(Phase::Commit)?;
        if let Some(report) = &mut self.report {
            report.committed = report.plan.does != Does::Nothing;
        }
        Ok(())
    }

    fn tidy(&mut self) -> anyhow::Result<()> {
        self.phase(Phase::Finish)?;
        if let Some(report) = &mut self.report {
            report.tidied = report.committed;
        }
        Ok(())
    }

    fn phase(&mut self, phase: Phase) -> anyhow::Result<()> {
        let Some(report) = &mut self.report else { return Ok(()) };
        let steps = report.plan.steps.iter().cloned().enumerate();
        let steps: Vec<_> = steps.filter(|(_, planned)| planned.phase == phase).collect();
        for (number, planned) in steps {
            let start = Instant::now();
            let at = shown(&report.plan.mount_point);
            info!("{at}: {}", planned.step);
            let error = match self.volume.execute(number) {
                Ok(outcome) => {
                    if let Some(outcome) = outcome {
                        report.restored(outcome);
                    }
                    report.took(&planned, start.elapsed());
                    continue;
                }
                Err(error) => error,
            };
            let prepares = phase == Phase::Prepare;
            let instead = if prepares { self.volume.plan_instead(&error) } else { Ok(None) };
            let error = match instead {
                Ok(Some(plan)) => {
                    warn_of(&plan, &report.plan.warnings);
                    *report = VolumeReport::new(plan);
                    return self.phase(phase);
                }
                Ok(None) => error,
                Err(left) => and_then(&error, &left),
            };
            return Err(error.context(format!("{at}: cannot {}", planned.step)));
        }
        Ok(())
    }
}

/// Prints the warnings of a plan, without those that an earlier one `said`.
fn warn_of(plan: &VolumePlan, said: &[String]) {
    for warning in plan.warnings.iter().filter(|it| !said.contains(it)) {
        warn!("{}: {warning}", shown(&plan.mount_point));
    }
}

fn announce(plan: &VolumePlan) {
    warn_of(plan, &[]);
    for path in &plan.put_away {
        let path = shown(path);
        warn!(
            "{path} is no longer persisted: it moves to the attic, and returns when you persist it again"
        );
    }
    for path in &plan.returned {
        info!("{} comes back from the attic", shown(path));
    }
    for subvolume in &plan.leaving {
        let subvolume = shown(subvolume);
        warn!("{subvolume} is a subvolume below no persisted path: it goes with the generation");
    }
}

/// Tells the journal how it ended, in plain words.
pub fn tell(ended: &Ended) {
    tell_volumes(&ended.report);
    if let Some(failed) = &ended.error {
        error!("{failed:#}");
        return;
    }
    if let Some(words) = ended.report.in_words() {
        info!("{words}");
    }
}

fn tell_volumes(report: &Report) {
    let told = |volume: &&VolumeReport| {
        let left = volume.plan.does == Does::Nothing && report.outcome == Ending::Off;
        volume.committed || left
    };
    for line in report.volumes.iter().filter(told).flat_map(VolumeReport::lines) {
        info!("{line}");
    }
}

#[cfg(test)]
mod tests;
