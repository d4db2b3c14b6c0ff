//! Running a contestant, and a set of them in turns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use darlings_bench::record::{LeftOut, Line, Measured};
use darlings_bench::statistics::Summary;
use darlings_testkit::loopfs::run;

use crate::Settings;
use crate::stage::Stage;
use crate::watch;

/// Seconds that a reset may take whatever is in the tree, on a busy machine too.
const FIXED: f64 = 0.5;

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) seconds: f64,
    /// Processor time of the program and its children; what the kernel does for it later is not in it.
    pub(crate) cpu: f64,
}

/// Runs a command to its end and tells what it took.
pub(crate) fn timed(command: &mut Command) -> Result<Took> {
    let before = children_cpu()?;
    let start = Instant::now();
    run(command)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Took { seconds, cpu: children_cpu()? - before })
}

/// Seconds of processor time of the children that have ended, in steps of a clock tick.
fn children_cpu() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')').context("/proc/self/stat has no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> {
        fields.get(index).context("/proc/self/stat is short")?.parse().context("no number of ticks")
    };
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    // Fields 16 and 17 of proc_pid_stat(5), counted from 1; the rest begins with the third.
    Ok((ticks(13)? + ticks(14)?) / per_second)
}

/// One that resets the live subvolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    Carry,
    Rollback,
    Cp,
    Rsync,
    Wipe,
    Bind,
}

impl Contestant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Carry => "carry",
            Self::Rollback => "rollback",
            Self::Cp => "cp",
            Self::Rsync => "rsync",
            Self::Wipe => "wipe",
            Self::Bind => "bind",
        }
    }

    fn script(self) -> Option<&'static str> {
        match self {
            Self::Carry | Self::Rollback => None,
            Self::Cp => Some(include_str!("../../peers/cp")),
            Self::Rsync => Some(include_str!("../../peers/rsync")),
            Self::Wipe => Some(include_str!("../../peers/wipe")),
            Self::Bind => Some(include_str!("../../peers/bind")),
        }
    }
}

/// Where the scripts mount the top level, the root and what is kept.
const MOUNTED: [&str; 3] = ["top", "root", "persist"];

/// What resets the live subvolume, once the filesystem is not mounted.
fn command(
    settings: &Settings,
    stage: &Stage,
    contestant: Contestant,
    declared: &[String],
) -> Result<Command> {
    let list = stage.list(declared)?;
    let directories = MOUNTED.map(|name| stage.beside(name));
    for directory in &directories {
        std::fs::create_dir_all(directory)?;
    }
    Ok(match contestant.script() {
        None => {
            let config = stage.configure(contestant.name(), declared)?;
            let mut command = Command::new(&settings.darlings);
            // This machine's own command line may have a word for darlings.
            command.args(["reset", "--cmdline", "/dev/null", "--config"]).arg(config);
            command.arg("--report").arg(stage.beside("report.json"));
            command
        }
        Some(script) => {
            let [top, root, persist] = &directories;
            let mut command = Command::new("bash");
            command
                .arg("-c")
                .arg(script)
                .env("DEVICE", stage.volume.fs.device())
                .env("LIST", &list);
            command.env("TOP", top).env("ROOT", root).env("PERSIST", persist);
            command
        }
    })
}

/// Resets the template's copy once, and gives what that took and the peak memory, if it is told.
/// The filesystem is mounted again afterwards.
pub(crate) fn reset(
    settings: &Settings,
    stage: &mut Stage,
    contestant: Contestant,
    declared: &[String],
) -> Result<(Took, Option<f64>)> {
    let mut command = command(settings, stage, contestant, declared)?;
    stage.cold()?;
    let took = timed(&mut command)?;
    let memory = match contestant.script() {
        None => Some(peak(&stage.beside("report.json"))?),
        Some(_) => None,
    };
    if contestant == Contestant::Bind {
        for mounted in &MOUNTED[1..] {
            run(Command::new("umount").arg("--recursive").arg(stage.beside(mounted)))?;
        }
    }
    stage.volume.fs.remount_fresh()?;
    Ok((took, memory))
}

fn peak(report: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(report).context("darlings wrote no report")?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(report["outcome"] == "reset", "the reset did not end well: {report}");
    report["peak_memory_bytes"].as_f64().context("the report has no peak memory")
}

/// The lines of one run of `measure`, and what each contestant took last, to see what would take
/// too long.
pub(crate) struct Notes<'a> {
    settings: &'a Settings,
    file: PathBuf,
    /// By set and contestant: the number of things and the seconds of a round.
    last: Vec<(String, String, f64, f64)>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self { settings, file: settings.results.clone(), last: Vec::new() }
    }

    pub(crate) fn measured(&self, set: &str, at: &str, who: &str, values: Vec<f64>) -> Result<()> {
        if values.is_empty() {
            return self.left_out(set, at, who, "the run was to end before its first round");
        }
        let (set, at, contestant) = (set.to_owned(), at.to_owned(), who.to_owned());
        Line::Measured(Measured { set, at, contestant, values }).append(&self.file)
    }

    pub(crate) fn left_out(&self, set: &str, at: &str, who: &str, why: &str) -> Result<()> {
        let (set, at, contestant) = (set.to_owned(), at.to_owned(), who.to_owned());
        Line::LeftOut(LeftOut { set, at, contestant, why: why.to_owned() }).append(&self.file)
    }

    /// What all rounds of a contestant in this row are expected to take, in seconds: what a round took
    /// beyond [`FIXED`] is taken to grow with the number of things.
    fn expected(&self, set: &str, count: u64, who: &str) -> f64 {
        let Some((.., things, seconds)) =
            self.last.iter().rev().find(|(known, name, ..)| known == set && name == who)
        else {
            return 0.0;
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (growth, rounds) = (count as f64 / things, self.settings.rounds as f64);
        (seconds.min(FIXED) + (seconds - FIXED).max(0.0) * growth.max(1.0)) * rounds
    }

    /// Why a contestant is left out that is expected to take so many seconds, after others of the row
    /// that are expected to take theirs; if it is.
    fn too_slow(&self, rounds: usize, expected: f64, others: f64) -> Option<String> {
        let rounds = if rounds == 1 { "one round".into() } else { format!("{rounds} rounds") };
        let patience = self.settings.patience.as_secs_f64();
        if expected > patience {
            return Some(format!(
                "{rounds} would take about {expected:.0} s, and this run gives a contestant \
                 {patience:.0} s"
            ));
        }
        // What was made must be removed again.
        self.settings.lacks(1.6 * (expected + others)).then(|| {
            format!("{rounds} would take about {expected:.0} s, and the run was to end before")
        })
    }

    /// The peak memory of scripts, in one more round that is not timed.
    pub(crate) fn memory(
        &self,
        stage: &mut Stage,
        (set, count): (&str, u64),
        scripts: &[Contestant],
        declared: &[String],
    ) -> Result<()> {
        let at = count.to_string();
        for &script in scripts {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let expected = self.expected(set, count, script.name()) / self.settings.rounds as f64;
            // Nothing is known of one that no round was begun of.
            let expected = expected.max(FIXED);
            if let Some(why) = self.too_slow(1, expected, 0.0) {
                self.left_out("memory", &at, script.name(), &why)?;
                continue;
            }
            stage.fresh()?;
            let mut command = command(self.settings, stage, script, declared)?;
            stage.cold()?;
            let memory = watch::peak(&mut command)?;
            stage.volume.fs.remount_fresh()?;
            self.measured("memory", &at, script.name(), vec![memory])?;
        }
        stage.clear()
    }

    fn took(&mut self, set: &str, count: u64, who: &str, seconds: f64) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        self.last.push((set.to_owned(), who.to_owned(), count as f64, seconds));
    }

    /// All rounds of one row, in turns; gives the peak memories by contestant.
    pub(crate) fn row(
        &mut self,
        stage: &mut Stage,
        (set, count): (&str, u64),
        contestants: &[Contestant],
        declared: &[String],
    ) -> Result<Vec<(Contestant, Vec<f64>)>> {
        let at = count.to_string();
        let mut running = Vec::new();
        let mut others = 0.0;
        for &contestant in contestants {
            let expected = self.expected(set, count, contestant.name());
            if let Some(why) = self.too_slow(self.settings.rounds, expected, others) {
                self.left_out(set, &at, contestant.name(), &why)?;
                continue;
            }
            others += expected;
            running.push((contestant, Vec::new(), Vec::new()));
        }
        eprintln!("{set}: {count}");
        for _ in self.settings.rounds() {
            for (contestant, seconds, memories) in &mut running {
                stage.fresh()?;
                let (took, memory) = reset(self.settings, stage, *contestant, declared)?;
                seconds.push(took.seconds);
                memories.extend(memory);
            }
        }
        stage.clear()?;
        let mut all = Vec::new();
        for (contestant, seconds, memories) in running {
            let median = Summary::of(&seconds).map_or(0.0, |summary| summary.median);
            self.took(set, count, contestant.name(), median);
            self.measured(set, &at, contestant.name(), seconds)?;
            if !memories.is_empty() {
                all.push((contestant, memories));
            }
        }
        Ok(all)
    }
}
