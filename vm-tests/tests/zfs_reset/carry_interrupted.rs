//! A `carry` that is killed, that fails, or whose power is cut, at every call that changes
//! something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{Attribute, Difference, Tree, difference};

use crate::guest::{STRIDE, checks, in_guest};
use crate::interrupted;
use crate::machine::{Machine, Strategy, killed_at, reset, reset_below};
use crate::pools::{DATASET, POOL, Whole, export, home_of, import, patiently, sh, tree};

#[test]
fn a_carry_that_is_killed_at_any_call_is_completed_by_the_next() -> Result<()> {
    in_guest(
        "carry_interrupted::a_carry_that_is_killed_at_any_call_is_completed_by_the_next",
        checks![killed_at_every_call, killed_again_while_it_is_completed],
    )
}

#[test]
fn a_carry_in_which_any_call_fails_leaves_the_whole_pool_as_it_was() -> Result<()> {
    in_guest(
        "carry_interrupted::a_carry_in_which_any_call_fails_leaves_the_whole_pool_as_it_was",
        checks![a_failure_at_every_call, a_failure_of_undoing_is_completed_by_the_next],
    )
}

#[test]
fn a_carry_whose_power_is_cut_at_any_call_is_completed_by_the_next() -> Result<()> {
    in_guest(
        "carry_interrupted::a_carry_whose_power_is_cut_at_any_call_is_completed_by_the_next",
        checks![power_cut_and_nothing_synced_but_by_darlings, power_cut_and_much_synced],
    )
}

/// What changes a tree, makes it durable, or mounts it.
const CHANGES: [&str; 18] = [
    "mount",
    "umount2",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat",
    "renameat2",
    "ftruncate",
    "copy_file_range",
    "fchown",
    "fchmod",
    "fsetxattr",
    "utimensat",
    "write",
    "fsync",
    "syncfs",
];

/// What an interrupted carry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    /// The complete previous state.
    Previous,
    /// A journal; and the previous state is complete in the generation.
    Begun,
    /// The complete result.
    Result,
}

/// A dataset that is put back to what it was before each of many interruptions.
pub(crate) struct Golden {
    pub(crate) machine: Machine,
    pub(crate) previous: Tree,
    pub(crate) expected: Tree,
}

/// One call of a reset: its name, and how many of that name were made until then, it included.
type Call = (String, usize);

impl Golden {
    fn new() -> Result<Self> {
        let machine = interrupted::machine()?.by(Strategy::Carry);
        let (previous, expected) = (tree(DATASET)?, machine.expected()?);
        sh("zfs", &["snapshot", &format!("{DATASET}@golden")])?;
        Ok(Self { machine, previous, expected })
    }

    /// Makes the dataset again what it was.
    fn put_back() -> Result<()> {
        patiently(|| sh("zfs", &["rollback", "-r", &format!("{DATASET}@golden")]).map(drop))
    }

    /// The changing calls that a whole carry makes, in their order.
    fn calls(&self) -> Result<Vec<Call>> {
        Self::put_back()?;
        let trace = format!("trace={},ioctl", CHANGES.join(","));
        let strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/tmp/calls", "-e", &trace];
        reset_below(&strace, &self.machine.config(), &["--threads", "1"])?.well()?;
        self.machine.must_be(&self.expected)?;
        let mut processes = BTreeSet::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut calls = Vec::new();
        for line in fs::read_to_string("/tmp/calls")?.lines() {
            let (process, call) = line.split_once(' ').context("a line without a process")?;
            processes.insert(process.to_owned());
            let name = call.trim().split('(').next().unwrap_or_default().to_owned();
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            let asks = ["GETFLAGS", "FSGETXATTR", "TCGETS", "GET_STATS", "OBJSET_STATS", "LIST"];
            if name != "ioctl" || !asks.iter().any(|word| call.contains(word)) {
                calls.push((name, *count));
            }
        }
        // strace counts the calls of each thread by themselves.
        ensure!(processes.len() == 1, "more than one thread made calls: {processes:?}");
        println!("{} calls: {counts:?}", calls.len());
        Ok(calls)
    }

    /// I1 and I2: the dataset is the previous state, or the result, or has a journal; and then the
    /// generation has the previous state.
    pub(crate) fn found(&self) -> Result<Found> {
        let live = tree(DATASET)?;
        let has = |name: &str| live.at(&format!(".darlings/reset/{name}")).is_some();
        if has("journal") {
            let first = tree(&format!("{DATASET}@darlings-1"))?;
            let lines = first.diff_lines(&self.previous);
            ensure!(lines.is_empty(), "the generation is not the previous state:\n{lines}");
            return Ok(Found::Begun);
        }
        let to_previous = live.diff(&self.previous);
        // Whoever makes `.darlings` in the root changes its time, until it is set again.
        let is_time_of_root =
            |it: &Difference| it.path.is_root() && it.attribute == Attribute::ModificationTime;
        if !has("complete") && to_previous.iter().all(is_time_of_root) {
            return Ok(Found::Previous);
        }
        // A kept file has another name in what was moved aside.
        let to_result = live.without(".darlings").diff(&self.expected);
        ensure!(
            to_result.is_empty(),
            "without a journal it is not the previous state:\n{}\nnor the result:\n{}",
            difference::lines(&to_previous),
            difference::lines(&to_result)
        );
        Ok(Found::Result)
    }

    /// Looks what is there, resets, and demands the result and a generation of the previous state.
    fn complete(&self, told: &str) -> Result<Found> {
        let started = Instant::now();
        let found = self.found().with_context(|| told.to_owned())?;
        let ran = reset(&self.machine.config(), &[])?.well().with_context(|| told.to_owned())?;
        let all = || -> Result<()> {
            self.machine.must_be(&self.expected)?;
            let lines = tree(&format!("{DATASET}@darlings-1"))?.diff_lines(&self.previous);
            ensure!(lines.is_empty(), "generation 1 is not the previous state:\n{lines}");
            Ok(())
        };
        all().with_context(|| format!("{told}: {found:?}, then {}", ran.stderr))?;
        println!("{told}: {found:?} ({:.1} s)", started.elapsed().as_secs_f64());
        Ok(found)
    }
}

const ALL_FOUND: [Found; 3] = [Found::Previous, Found::Begun, Found::Result];

/// Every so many calls are tried: each costs seconds in an emulated guest. With
/// `DARLINGS_STRIDE=1` all are.
fn stride() -> Result<usize> {
    match std::env::var(STRIDE).unwrap_or_default().as_str() {
        "" => Ok(5),
        number => number.parse().context("DARLINGS_STRIDE is no number"),
    }
}

fn killed_at_every_call() -> Result<()> {
    let golden = Golden::new()?;
    let mut seen = BTreeSet::new();
    for (call, when) in golden.calls()?.into_iter().step_by(stride()?) {
        Golden::put_back()?;
        killed_at(&golden.machine, &call, when)?;
        seen.insert(golden.complete(&format!("killed at {call} {when}"))?);
    }
    assert_eq!(seen, BTreeSet::from(ALL_FOUND));
    Ok(())
}

/// The run that completes an interrupted one is killed as well, or fails: it goes on, and never
/// back.
fn killed_again_while_it_is_completed() -> Result<()> {
    let golden = Golden::new()?;
    let of = |name: &str, calls: &[Call]| calls.iter().filter(|(call, _)| call == name).count();
    let calls = golden.calls()?;
    let renames = of("renameat2", &calls);
    println!("{renames} renames");
    for first in (1..=renames).step_by(stride()?.div_ceil(2)) {
        Golden::put_back()?;
        killed_at(&golden.machine, "renameat2", first)?;
        if golden.found()? != Found::Begun {
            continue;
        }
        if first + 1 < renames {
            let told = format!("killed at rename {first}, failed at the next");
            let strace = failing("renameat2", 1, "EIO");
            let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
            let ran = reset_below(&strace, &golden.machine.config(), &["--threads", "1"])?;
            // 1 and not 10: it must not be booted.
            ensure!(ran.code == Some(1), "{told}: {:?}\n{}", ran.code, ran.stderr);
            assert_eq!(ran.report.context("no report")?["outcome"], "unfinished");
            assert_eq!(golden.found()?, Found::Begun, "{told}");
        }
        killed_at(&golden.machine, "utimensat", 1)?;
        assert_eq!(golden.found()?, Found::Begun);
        golden.complete(&format!("killed at rename {first} and while it was completed"))?;
    }
    Ok(())
}

fn failing(call: &str, when: usize, error: &str) -> Vec<String> {
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e"].map(str::to_owned);
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:error={error}:when={when}");
    [&words[..], &[trace, "-e".to_owned(), inject]].concat()
}

fn a_failure_at_every_call() -> Result<()> {
    let golden = Golden::new()?;
    let calls = golden.calls()?;
    Golden::put_back()?;
    let before = Whole::of(POOL)?;
    let (mut failed, mut untidy, mut unharmed) = (0, 0, Vec::new());
    for (number, (call, when)) in calls.into_iter().step_by(stride()?).enumerate() {
        let started = Instant::now();
        let error = ["EIO", "ENOSPC"][number % 2];
        let told = format!("{error} at {call} {when}");
        let strace = failing(&call, when, error);
        let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
        let ran = reset_below(&strace, &golden.machine.config(), &["--threads", "1"])?;
        if ran.code == Some(0) {
            golden.machine.must_be(&golden.expected).with_context(|| told.clone())?;
            unharmed.push((call, when));
            Golden::put_back()?;
            continue;
        }
        if ran.stderr.contains("what failed is tidying up") {
            assert_eq!(golden.found()?, Found::Result, "{told}");
            golden.complete(&told)?;
            untidy += 1;
            Golden::put_back()?;
            continue;
        }
        ensure!(ran.code == Some(10), "{told}: {:?}\n{}", ran.code, ran.stderr);
        Whole::of(POOL)?
            .must_be(&before)
            .with_context(|| format!("{told}, and then:\n{}", ran.stderr))?;
        failed += 1;
        println!("{told}: undone ({:.1} s)", started.elapsed().as_secs_f64());
    }
    println!("{failed} failures undone, {untidy} left to tidy up; no harm done by {unharmed:?}");
    assert!(failed > 8, "{failed}");
    Ok(())
}

fn a_failure_of_undoing_is_completed_by_the_next() -> Result<()> {
    let golden = Golden::new()?;
    let renames = golden.calls()?.iter().filter(|(call, _)| call == "renameat2").count();
    Golden::put_back()?;
    let trace = "trace=renameat2,umount2";
    let (rename, undo) = (
        format!("inject=renameat2:error=EIO:when={}", renames / 2),
        // The one before the rollback: it is still mounted, and ZFS refuses.
        "inject=umount2:error=EBUSY:when=2+",
    );
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", trace, "-e", &rename, "-e", undo];
    let ran = reset_below(&strace, &golden.machine.config(), &["--threads", "1"])?;
    println!("{}", ran.stderr);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("undoing it failed too"), "{}", ran.stderr);
    assert_eq!(golden.found()?, Found::Begun);
    golden.complete("failed, and undoing failed").map(drop)
}

fn power_cut_and_nothing_synced_but_by_darlings() -> Result<()> {
    power_cuts(None)
}

fn power_cut_and_much_synced() -> Result<()> {
    power_cuts(Some(3))
}

const CALLS: &str = "/tmp/calls";
const IMAGES: &str = "/tmp/images";
const TIMEOUT: &str = "/sys/module/zfs/parameters/zfs_txg_timeout";

/// Slows a carry down after each call, and copies the disk as it is then: what a power cut would
/// leave of it. The pool is made durable after each so many calls, or by nobody else.
fn power_cuts(sync_after: Option<usize>) -> Result<()> {
    let golden = Golden::new()?;
    Golden::put_back()?;
    sh("zpool", &["sync", POOL])?;
    // In seconds: ZFS is not to do so by itself.
    let before = fs::read_to_string(TIMEOUT)?;
    fs::write(TIMEOUT, "3600")?;
    let images = images(&golden.machine, sync_after);
    fs::write(TIMEOUT, before.trim())?;
    let images = images?;
    println!("{} disks that differ", images.len());
    golden.machine.must_be(&golden.expected)?;

    let disk = home_of(POOL).join("disk");
    let disk = disk.to_str().context("UTF-8")?;
    let mut seen = BTreeSet::new();
    for (told, image) in images {
        patiently(|| export(POOL))?;
        sh("cp", &["--sparse=always", &image, disk])?;
        import(POOL, &[])?;
        seen.insert(golden.complete(&told)?);
        fs::remove_file(image)?;
    }
    assert_eq!(seen, BTreeSet::from(ALL_FOUND));
    Ok(())
}

/// How long it waits after each call, in microseconds. The copy must be done by then.
const DELAY: u32 = 600_000;

/// The disks, by words that say when they were so; those that are as the one before are left out.
fn images(machine: &Machine, sync_after: Option<usize>) -> Result<Vec<(String, String)>> {
    let calls = CHANGES.join(",");
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:delay_exit={DELAY}"));
    fs::write("/tmp/darlings.toml", machine.config())?;
    fs::write(CALLS, "")?;
    fs::create_dir_all(IMAGES)?;
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "-o", CALLS, "-e", &trace, "-e", &inject])
        .args(["darlings", "reset", "--config", "/tmp/darlings.toml"])
        .args(["--report", "/tmp/report.json", "--threads", "1"])
        .env_remove("JOURNAL_STREAM")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let disk = home_of(POOL).join("disk");
    let mut images: Vec<(String, String)> = Vec::new();
    let (mut seen, mut torn) = (0, 0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let text = fs::read_to_string(CALLS)?;
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("(DELAYED)")).collect();
        if lines.len() == seen {
            sleep(Duration::from_millis(5));
            continue;
        }
        seen = lines.len();
        if sync_after.is_some_and(|after| seen % after == 0) {
            sh("zpool", &["sync", POOL])?;
        }
        let image = format!("{IMAGES}/{seen}");
        sh("cp", &["--sparse=always", disk.to_str().context("UTF-8")?, &image])?;
        let after = fs::read_to_string(CALLS)?;
        let went_on = after.lines().filter(|line| line.contains("(DELAYED)")).count() > seen;
        torn += usize::from(went_on);
        let as_before = match images.last() {
            Some((_, last)) => same(last, &image)?,
            None => false,
        };
        if went_on || as_before {
            fs::remove_file(image)?;
        } else {
            let call = lines.last().and_then(|line| line.split_once(' ')).context("no call")?.1;
            images.push((format!("power cut after call {seen}, {call}"), image));
        }
    };
    println!("{seen} calls; {torn} times it went on while the disk was copied");
    ensure!(status.success(), "{status}");
    ensure!(torn < seen / 4, "the computer is too busy for this");
    Ok(images)
}

fn same(one: &str, other: &str) -> Result<bool> {
    let status = Command::new("cmp").args(["--silent", one, other]).status()?;
    ensure!(status.code().is_some_and(|code| code < 2), "cmp: {status}");
    Ok(status.success())
}
