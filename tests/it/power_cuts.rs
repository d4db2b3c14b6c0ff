//! Power cuts of a reset on btrfs: every write and flush of the disk is recorded, the disk is made
//! again as cuts at many moments would have left it, and the next boot's reset is run on each.
//!
//! `DARLINGS_CUTS=2000` tries so many moments of each reset instead of a few.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

use crate::common::{self, Machine, Ran, put, subvolumes_of};
use anyhow::{Context as _, Result, bail, ensure};
use darlings_testkit::loopfs::{BtrfsVolume, Filesystem, LoopFs, Options};
use darlings_testkit::model::Rule;
use darlings_testkit::power::{Cut, Disk, Log, Recorder, mark};
use darlings_testkit::{
    Attribute, Compare, RelPath, Tree, capability, capture, difference, plant, skip_unless,
};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

/// The filesystem's size; behind it is room for marks.
const SIZE: u64 = 191 << 20;
const IMAGE: u64 = SIZE + (1 << 20);
/// How many moments of a reset are tried, and of a run that completes one.
const CUTS: usize = 48;
/// Nested subvolumes below kept paths, and what makes them so.
const NESTED: [&str; 2] = ["keep/nested", "single"];
/// How the top level is mounted whatever the default is.
const TOP: &str = "subvolid=5";
/// The first reset makes what later ones find, the second is recorded.
const RECORDED: u64 = 2;

#[test]
fn after_a_power_cut_at_any_moment_of_a_rollback_the_next_run_gives_the_result() -> Result<()> {
    skip_unless!(capability::root_and_recorded_btrfs(), Ok(()));
    power_cuts("rollback")
}

#[test]
fn after_a_power_cut_at_any_moment_of_a_carry_the_next_run_gives_the_result() -> Result<()> {
    skip_unless!(capability::root_and_recorded_btrfs(), Ok(()));
    power_cuts("carry")
}

fn count() -> Result<usize> {
    match std::env::var("DARLINGS_CUTS") {
        Ok(number) => number.parse().context("DARLINGS_CUTS is no number"),
        Err(_) => Ok(CUTS),
    }
}

/// A volume with nested subvolumes, a path that goes to the attic, and every way in which content
/// comes into a result: shared, written again, inline, without copy on write.
fn machine(image: &Path, strategy: &str) -> Result<Machine> {
    let mut options = Options::new(Filesystem::Btrfs).mount(TOP);
    options.mkfs.extend(["--byte-count".to_owned(), SIZE.to_string()]);
    let volume = BtrfsVolume::on(
        LoopFs::in_image(options, image)?,
        |blank| {
            put(blank, "etc/os-release", "of the blank")?;
            put(blank, "keep/of-the-blank", "of the blank")?;
            put(blank, "usr/large", &"blank ".repeat(20_000))
        },
        |live| {
            put(live, "keep/file", &"kept ".repeat(20_000))?;
            put(live, "keep/small", "kept")?;
            put(live, "keep/below/file", "kept")?;
            put(live, "keep/scratch/file", "excluded")?;
            put(live, "etc/erased", &"erased ".repeat(20_000))?;
            put(live, "old/file", "no longer declared")?;
            fs::hard_link(live.join("keep/file"), live.join("keep/again"))?;
            plant::owner(&live.join("keep/below/file"), 1000, 100)?;
            plant::xattr(&live.join("keep/file"), "user.color", b"red")?;
            fs::create_dir(live.join("keep/no-cow"))?;
            plant::flag(&live.join("keep/no-cow"), Attribute::NoCow)?;
            put(live, "keep/no-cow/file", &"in place ".repeat(20_000))?;
            put(live, "keep/locked/file", "kept")?;
            Ok(plant::flag(&live.join("keep/locked/file"), Attribute::Immutable)?)
        },
    )?;
    for nested in NESTED {
        put(&volume.make_subvolume(&format!("@/{nested}"))?, "content", nested)?;
    }
    volume.set_default("@")?;
    let (head, blank, strategy) = (String::new(), "@blank".to_owned(), strategy.to_owned());
    let machine = Machine { volume, rules: Vec::new(), head, blank, strategy };
    let mut machine =
        machine.persist("/keep", &["scratch"]).persist("/single", &[]).persist("/old", &[]);
    machine.reset_well()?;
    put(&machine.volume.live(), "etc/erased", &"erased again ".repeat(20_000))?;
    put(&machine.volume.live(), "keep/scratch/file", "excluded")?;
    put(&machine.volume.live(), "keep/written", &"just now ".repeat(20_000))?;
    machine.rules.pop();
    Ok(machine)
}

/// What a reset is expected to find and to leave.
struct Known {
    rules: Vec<Rule>,
    strategy: String,
    previous: Tree,
    expected: Tree,
}

/// A run that was recorded.
struct Recorded {
    log: Log,
    range: Range<usize>,
    /// The disk as it was before the run.
    before: PathBuf,
    _recorder: Recorder,
}

/// Whether anything else happens on the filesystem while it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    Alone,
    Busy,
}

/// An empty subvolume, and its snapshot that comes and goes.
const BUSY: [&str; 2] = ["busy", "busy-too"];

/// Where the live volume stands after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// The complete previous state.
    Previous,
    /// The same, and what an interrupted run has left beside it.
    Begun,
    /// Exchanged, and not everything done that follows.
    Between,
    /// The complete result.
    Result,
}

fn power_cuts(strategy: &str) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("darlings-cuts-").tempdir()?;
    let (known, recorded) = recorded_reset(strategy, Company::Busy, &scratch)?;
    let told = format!("{strategy} while others commit");
    cut_everywhere(&known, &recorded, count()?, &scratch, &told)?;
    drop(recorded);
    let (known, recorded) = recorded_reset(strategy, Company::Alone, &scratch)?;
    let first = cut_everywhere(&known, &recorded, count()?, &scratch, strategy)?;
    for found in [Found::Previous, Found::Begun, Found::Result] {
        assert!(first.contains_key(&found), "never {found:?}");
    }
    // The run that recovers is cut as well: where it throws the interrupted one's work away, and
    // where it completes it.
    for found in [Found::Begun, Found::Between] {
        let Some(cut) = first.get(&found) else { continue };
        let again = recorded_recovery(&known, &recorded, cut, &scratch)?;
        let told = format!("{strategy}, completing after {found:?}");
        cut_everywhere(&known, &again, count()?.div_ceil(3), &scratch, &told)?;
    }
    scratch.close().context("cannot remove the images")
}

/// Records a whole reset, and demands that it gives what the model wants.
fn recorded_reset(
    strategy: &str,
    company: Company,
    scratch: &TempDir,
) -> Result<(Known, Recorded)> {
    let image = scratch.path().join("recorded");
    fs::File::create(&image)?.set_len(IMAGE)?;
    let mut recorder = Recorder::of(&image)?;
    let mut machine = machine(&recorder.shown(), strategy)?;
    let known = Known {
        previous: capture(&machine.volume.live())?,
        expected: machine.expected()?.tree,
        rules: machine.rules.clone(),
        strategy: strategy.to_owned(),
    };
    between_marks(&mut machine, company)?;
    known.must_be_the_result(&machine, Found::Previous)?;
    machine.close()?;
    recorder.end()?;
    let log = Log::read(&recorder.log())?;
    let range = log.between("begin", "end")?;
    let (nothing, before) = (scratch.path().join("nothing"), scratch.path().join("before"));
    fs::File::create(&nothing)?.set_len(SIZE)?;
    log.disk_after(0..range.start, &nothing, &Disk::part(0, SIZE), &before)?;
    Ok((known, Recorded { log, range, before, _recorder: recorder }))
}

/// Records the run that follows a cut.
fn recorded_recovery(
    known: &Known,
    run: &Recorded,
    cut: &Cut,
    scratch: &TempDir,
) -> Result<Recorded> {
    let before = scratch.path().join(format!("before-{}", cut.at));
    let disk = Disk::part(0, SIZE);
    run.log.apply(cut, run.range.start, &run.before, &disk, &before)?;
    let image = scratch.path().join("recorded-again");
    fs::copy(&before, &image)?;
    fs::File::options().write(true).open(&image)?.set_len(IMAGE)?;
    let mut recorder = Recorder::of(&image)?;
    let mut machine = known.machine(&recorder.shown())?;
    between_marks(&mut machine, Company::Alone)?;
    known.must_be_the_result(&machine, Found::Between)?;
    machine.close()?;
    recorder.end()?;
    let log = Log::read(&recorder.log())?;
    let range = log.between("begin", "end")?;
    Ok(Recorded { log, range, before, _recorder: recorder })
}

/// Resets a volume, with a mark before it and one after it.
fn between_marks(machine: &mut Machine, company: Company) -> Result<()> {
    machine.volume.fs.unmount()?;
    if company == Company::Busy {
        machine.volume.fs.remount_fresh()?;
    }
    let (device, top) =
        (machine.volume.fs.device().to_owned(), machine.volume.fs.path().to_owned());
    mark(&device, SIZE, "begin")?;
    let done = AtomicBool::new(company == Company::Alone);
    let ran = thread::scope(|scope| {
        let busy = scope.spawn(|| commit_often(&top, &done));
        let ran = if company == Company::Busy { slowly(machine) } else { machine.reset_well() };
        done.store(true, Ordering::SeqCst);
        let commits = busy.join().map_err(|_| anyhow::anyhow!("the committing thread panicked"))?;
        Ok::<_, anyhow::Error>((ran?, commits?))
    })?;
    mark(&device, SIZE, "end")?;
    ensure!(company == Company::Alone || ran.1 > 3, "only {} commits came in between", ran.1);
    machine.volume.fs.remount_fresh()
}

/// Resets with a pause after each call that gives something another name or makes it durable, so
/// that others commit in between.
fn slowly(machine: &Machine) -> Result<Ran> {
    let mut command = Command::new("strace");
    command
        .args(["-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", "trace=renameat2,syncfs"])
        .args(["-e", "inject=renameat2,syncfs:delay_enter=10000:delay_exit=10000"])
        .args([env!("CARGO_BIN_EXE_darlings"), "reset"])
        .args(machine.arguments(machine.config())?)
        .env_remove("JOURNAL_STREAM");
    let ran = machine.ran(&mut command)?;
    ensure!(ran.code == Some(0), "exit code {:?}\n{}", ran.code, ran.stderr);
    Ok(ran)
}

/// Has btrfs commit again and again, which its timer does at any moment: of what was written and not
/// made durable, the names are then on the disk, and the content is not.
fn commit_often(top: &Path, done: &AtomicBool) -> Result<u32> {
    if done.load(Ordering::SeqCst) {
        return Ok(0);
    }
    let mut commits = 0;
    let top = fs::File::open(top)?;
    darlings_btrfs::create_subvolume(&top, OsStr::new(BUSY[0]))?;
    let empty = rustix::fs::openat(&top, BUSY[0], OFlags::DIRECTORY, Mode::empty())?;
    while !done.load(Ordering::SeqCst) {
        // A snapshot is made by a commit.
        let copy = OsStr::new(BUSY[1]);
        darlings_btrfs::snapshot(&empty, &top, copy, darlings_btrfs::Access::Writable)?;
        darlings_btrfs::delete_subvolume(&top, copy)?;
        commits += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(commits)
}

/// Cuts at many moments, looks what is there, runs the next reset, and compares. Gives a cut for
/// each kind of thing that was found.
fn cut_everywhere(
    known: &Known,
    recorded: &Recorded,
    count: usize,
    scratch: &TempDir,
    told: &str,
) -> Result<BTreeMap<Found, Cut>> {
    let Recorded { log, range, before, .. } = recorded;
    let image = scratch.path().join("cut");
    let has_turned = |found: &Found| *found > Found::Begun;
    let tried = log.try_cuts(range, count, has_turned, |cut| {
        log.apply(cut, range.start, before, &Disk::part(0, SIZE), &image)?;
        known.recovers(&image)
    });
    let tried = tried.with_context(|| told.to_owned())?;
    eprintln!("{told}: {tried}");
    tried.check(count)?;
    Ok(tried.examples())
}

impl Known {
    /// The machine on the disk that a cut has left. It is not mounted.
    fn machine(&self, image: &Path) -> Result<Machine> {
        let volume = BtrfsVolume {
            fs: LoopFs::of_image(Options::new(Filesystem::Btrfs).mount(TOP), image)?,
        };
        let (head, blank) = (String::new(), "@blank".to_owned());
        let (rules, strategy) = (self.rules.clone(), self.strategy.clone());
        Ok(Machine { volume, rules, head, blank, strategy })
    }

    /// I1, I2 and I3 on the disk that a cut has left.
    fn recovers(&self, image: &Path) -> Result<Found> {
        let mut machine = self.machine(image)?;
        machine.volume.fs.remount_fresh()?;
        let found = self.found(&machine)?;
        machine.volume.fs.unmount()?;
        let ran = machine.reset_well().with_context(|| format!("found {found:?}"))?;
        machine.volume.fs.remount_fresh()?;
        self.must_be_the_result(&machine, found)
            .with_context(|| format!("found {found:?}, then: {}", ran.stderr))?;
        machine.close()?;
        Ok(found)
    }

    fn found(&self, machine: &Machine) -> Result<Found> {
        let live = capture(&machine.volume.live())?;
        let names = subvolumes_of(machine.volume.fs.path(), &[])?;
        let there = |name: &str| names.contains_key(&format!("@darlings/root/{name}"));
        let ready = format!("ready-{RECORDED}");
        let nested = NESTED.iter().all(|path| names.contains_key(&format!("@/{path}")));
        let to_previous = live.diff_lines(&self.previous);
        if to_previous.is_empty() && nested {
            let begun = there(".darlings/next") || there(&ready);
            return Ok(if begun { Found::Begun } else { Found::Previous });
        }
        let to_result = self.differences(&live, !nested || there(&ready));
        ensure!(
            to_result.is_empty(),
            "neither the previous state:\n{to_previous}\nnor the result:\n{to_result}"
        );
        if nested && !there(&ready) {
            self.check_generation(machine)?;
            return Ok(Found::Result);
        }
        // I1: what has not come along yet is where the next run looks for it.
        for path in NESTED {
            let whole = ["@", &format!("@darlings/root/{ready}")].iter().any(|tree| {
                let at = machine.at(&format!("{tree}/{path}/content"));
                fs::read_to_string(at).is_ok_and(|text| text == path)
            });
            ensure!(whole, "the nested subvolume {path} is nowhere");
        }
        Ok(Found::Between)
    }

    /// How a tree differs from the result; of one that is not finished, without what comes last.
    fn differences(&self, live: &Tree, unfinished: bool) -> String {
        let mut compare = Compare::default();
        if unfinished {
            // What comes along changes the time of the directory that it comes into.
            compare = compare.without(Attribute::ModificationTime);
            for path in NESTED {
                compare = compare.leaving_out(RelPath::normalise(path).unwrap());
            }
        }
        difference::lines(&live.diff_with(&self.expected, &compare))
    }

    fn check_generation(&self, machine: &Machine) -> Result<()> {
        let kept = machine.at(&format!("@darlings/root/{RECORDED}"));
        let mut previous = self.previous.clone();
        for path in NESTED {
            previous.entries.remove(&RelPath::normalise(path).unwrap());
        }
        let mut kept = capture(&kept)?;
        for path in NESTED {
            kept.entries.remove(&RelPath::normalise(path).unwrap());
        }
        // A subvolume that went changed the time of the directory that it was in.
        let compare = Compare::default().without(Attribute::ModificationTime);
        let lines = difference::lines(&kept.diff_with(&previous, &compare));
        ensure!(lines.is_empty(), "generation {RECORDED} is not the previous state:\n{lines}");
        Ok(())
    }

    /// What an uninterrupted reset leaves, on the whole filesystem.
    fn must_be_the_result(&self, machine: &Machine, found: Found) -> Result<()> {
        machine.empty_trash("@")?;
        let lines = self.differences(&capture(&machine.volume.live())?, false);
        ensure!(lines.is_empty(), "not what section 2 wants:\n{lines}");
        self.check_generation(machine)?;
        let subvolumes = subvolumes_of(machine.volume.fs.path(), &[])?;
        let mut names: Vec<&str> =
            subvolumes.keys().map(String::as_str).filter(|name| !BUSY.contains(name)).collect();
        names.sort_unstable();
        let mut wanted = vec!["@", "@/keep/nested", "@/single", "@blank"];
        wanted.extend(["@darlings/root/1", "@darlings/root/2"]);
        if found == Found::Result {
            // Nothing was left to be completed, so it was reset once more.
            wanted.push("@darlings/root/3");
        }
        ensure!(names == wanted, "there are {names:?}");
        for path in NESTED {
            let content = fs::read_to_string(machine.volume.live().join(path).join("content"));
            ensure!(content? == path, "the nested subvolume {path} has another content");
        }
        let attic = machine.volume.live().join(format!(".darlings/attic/{RECORDED}/old/file"));
        match fs::read_to_string(&attic) {
            Ok(text) => ensure!(text == "no longer declared", "the attic has {text:?}"),
            Err(why) => bail!("the attic has no old/file: {why}"),
        }
        let (default, id) =
            (common::default_of(&machine.volume)?, machine.volume.subvolume_id("@")?);
        ensure!(default == id, "the default is {default} instead of {id}");
        Ok(())
    }
}
