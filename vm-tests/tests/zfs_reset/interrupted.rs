//! Killed at any moment, a reset loses nothing, and the next one gives what an uninterrupted one
//! gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{Attribute, RelPath, Tree, plant};
use rustix::fs::FileType;

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, killed_at, reset, reset_below};
use crate::pools::{
    DATASET, MARK, POOL, STAGE, create_pool, export, home_of, import, noise, patiently, property,
    put, sh, tree,
};

#[test]
fn a_reset_that_is_killed_at_any_moment_is_completed_by_the_next() -> Result<()> {
    in_guest(
        "interrupted::a_reset_that_is_killed_at_any_moment_is_completed_by_the_next",
        checks![at_any_moment],
    )
}

/// One check: making the pool and writing down the calls takes longer than most interruptions.
fn at_any_moment() -> Result<()> {
    let golden = Golden::new()?;
    let names: Vec<&str> = CHANGES.iter().map(|(name, _)| *name).collect();
    let calls = golden.calls(&format!("ioctl,linkat,{}", names.join(",")))?;
    at_any_call_to_zfs(&golden, &calls)?;
    while_it_changes_files(&golden, &calls)?;
    twice_in_a_row(&golden, &calls)
}

/// Those of one name, with their arguments.
fn of<'a>(name: &str, calls: &'a [String]) -> Vec<&'a str> {
    let name = format!("{name}(");
    calls.iter().map(String::as_str).filter(|call| call.starts_with(&name)).collect()
}

/// Of the calls that change a tree those that differ in what they leave: while the stage is filled,
/// when all there is to do is to begin again; while the dataset is filled from it; at the record of
/// the reset; and while the stage is given back. Each with the time to be killed at, of so many.
type When = fn(usize) -> usize;
const CHANGES: [(&str, When); 6] = [
    ("copy_file_range", |_| 1),
    ("unlinkat", |_| 1),
    ("fsetxattr", |count| count),
    ("utimensat", |count| count / 2 + 1),
    ("renameat2", |count| count / 2 + 1),
    ("write", |count| count),
];

fn at_any_call_to_zfs(golden: &Golden, calls: &[String]) -> Result<()> {
    let calls = of("ioctl", calls);
    // Before the stage is made it only looks.
    let first = calls.iter().position(|call| call.contains("ZFS_IOC_CLONE")).context("no clone")?;
    let mut to_zfs: Vec<usize> = (first..calls.len())
        .filter(|&at| calls[at].contains("ZFS_IOC_"))
        .map(|at| at + 1)
        .collect();
    // Of those in a row the middle ones only look as well: what is found is the same before each.
    let all = to_zfs.clone();
    let there = |when: usize| all.contains(&when);
    to_zfs.retain(|&at| {
        let starts = !there(at - 1) || !there(at - 2);
        starts || !there(at + 1) || !there(at + 2)
    });
    println!("{} of {} calls to ZFS: {to_zfs:?}", to_zfs.len(), all.len());
    assert!(to_zfs.len() > 8, "{calls:#?}");
    let mut seen = BTreeSet::new();
    for when in to_zfs {
        seen.extend([golden.kill_and_reset("ioctl", when)?]);
    }
    assert_eq!(seen, BTreeSet::from([Found::Previous, Found::RolledBack, Found::Result]));
    Ok(())
}

fn while_it_changes_files(golden: &Golden, calls: &[String]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (name, when) in CHANGES {
        let count = of(name, calls).len();
        println!("{count} of {name}");
        assert!(count > 0, "a reset makes no call of {name}");
        seen.extend([golden.kill_and_reset(name, when(count))?]);
    }
    assert!(seen.contains(&Found::Previous) && seen.contains(&Found::RolledBack), "{seen:?}");
    Ok(())
}

/// The run that completes an interrupted one is killed as well.
fn twice_in_a_row(golden: &Golden, calls: &[String]) -> Result<()> {
    // The last entry that is made in the dataset again, so that it is marked and not complete.
    let links = of("linkat", calls).len();
    for (call, when) in [("linkat", 1), ("utimensat", 3)] {
        Golden::put_back()?;
        killed_at(&golden.machine, "linkat", links)?;
        Golden::take_over()?;
        assert_eq!(golden.found()?, Found::RolledBack);
        killed_at(&golden.machine, call, when)?;
        Golden::take_over()?;
        golden.found().with_context(|| format!("{call} {when}"))?;
        let ran = reset(&golden.machine.config(), &[])?.well()?;
        golden.machine.must_be(&golden.expected).with_context(|| ran.stderr.clone())?;
        println!("killed at linkat {links}, and again at {call} {when}");
    }
    Ok(())
}

/// What an interrupted reset left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    /// The complete previous state.
    Previous,
    /// Marked: every persisted path is complete in the stage, where the next run finds it.
    RolledBack,
    /// The complete result.
    Result,
}

/// A small dataset of which a reset makes every kind of call.
pub(crate) fn machine() -> Result<Machine> {
    create_pool(POOL, 96, &OPTIONS)?;
    machine_in_pool()
}

/// Options of the pool of [`machine`].
pub(crate) const OPTIONS: [&str; 4] = ["-O", "acltype=posixacl", "-O", "xattr=sa"];

/// The same, in a pool that is there.
pub(crate) fn machine_in_pool() -> Result<Machine> {
    let blank = |blank: &Path| {
        put(blank, "etc/motd", "of the blank")?;
        put(blank, "keep/excluded/of-the-blank", "of the blank")?;
        put(blank, "keep/gone", "not in the previous state")
    };
    let live = |live: &Path| {
        put(live, "etc/motd", "changed")?;
        put(live, "etc/new", "erased")?;
        fs::remove_file(live.join("keep/gone"))?;
        put(live, "keep/excluded/new", "erased")?;
        put(live, "keep/file", noise(2, 300_000))?;
        put(live, "keep/below/small", "small")?;
        symlink("file", live.join("keep/link"))?;
        plant::node(&live.join("keep/fifo"), FileType::Fifo, 0, 0)?;
        plant::xattr(&live.join("keep/below"), "user.of", b"mia")?;
        plant::owner(&live.join("keep/below"), 1000, 100)?;
        put(live, "var/log/boots", "boot 1\n")?;
        fs::hard_link(live.join("keep/file"), live.join("var/log/hard"))?;
        let sealed = live.join("keep/below/sealed");
        fs::write(&sealed, "immutable")?;
        Ok(plant::flag(&sealed, Attribute::Immutable)?)
    };
    Ok(Machine::in_pool(&[], blank, live)?.persist("keep", &["excluded"]).persist("var/log", &[]))
}

/// A pool that is put back to what it was before each of many interruptions.
pub(crate) struct Golden {
    pub(crate) machine: Machine,
    pub(crate) previous: Tree,
    pub(crate) expected: Tree,
}

impl Golden {
    fn new() -> Result<Self> {
        let machine = machine()?;
        let (previous, expected) = (tree(DATASET)?, machine.expected()?);
        export(POOL)?;
        sh("cp", &["--sparse=always", "/tmp/pools/tank/disk", "/tmp/golden"])?;
        import(POOL, &[])?;
        Ok(Self { machine, previous, expected })
    }

    /// Makes the pool again what it was.
    fn put_back() -> Result<()> {
        patiently(|| export(POOL))?;
        let disk = home_of(POOL).join("disk");
        sh("cp", &["--sparse=always", "/tmp/golden", disk.to_str().context("UTF-8")?])?;
        import(POOL, &[])
    }

    /// Gives the pool back and takes it again, as another boot does.
    fn take_over() -> Result<()> {
        patiently(|| export(POOL))?;
        import(POOL, &[])
    }

    /// The calls that a whole reset makes, in their order: name and arguments.
    fn calls(&self, which: &str) -> Result<Vec<String>> {
        Self::put_back()?;
        let trace = format!("trace={which}");
        let strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/tmp/calls", "-e", &trace];
        reset_below(&strace, &self.machine.config(), &["--threads", "1"])?.well()?;
        self.machine.must_be(&self.expected)?;
        let text = fs::read_to_string("/tmp/calls")?;
        // A process id, then the call.
        let mut processes = BTreeSet::new();
        let mut calls = Vec::new();
        for line in text.lines() {
            let (process, call) = line.split_once(' ').context("a line without a process")?;
            processes.insert(process.to_owned());
            calls.push(call.trim().to_owned());
        }
        // strace counts the calls of each thread by themselves.
        ensure!(processes.len() == 1, "more than one thread made calls: {processes:?}");
        Ok(calls)
    }

    /// Kills a reset, looks, and resets once more.
    fn kill_and_reset(&self, call: &str, when: usize) -> Result<Found> {
        let told = || format!("killed at {call} {when}");
        let started = Instant::now();
        Self::put_back()?;
        killed_at(&self.machine, call, when)?;
        let found = self.found().with_context(told)?;
        let ran = reset(&self.machine.config(), &[])?.well().with_context(told)?;
        let complete = self.machine.must_be(&self.expected);
        complete
            .with_context(|| format!("killed at {call} {when}: {found:?}, then {}", ran.stderr))?;
        println!("{}: {found:?} ({:.1} s)", told(), started.elapsed().as_secs_f64());
        Ok(found)
    }

    /// I1 and I2: the dataset is the previous state, or the result, or marked; and then the stage,
    /// which the next run finds, has every persisted path complete.
    pub(crate) fn found(&self) -> Result<Found> {
        let live = tree(DATASET)?;
        let mark = property(DATASET, MARK)?;
        if mark == "-" {
            let to_previous = live.diff_lines(&self.previous);
            if to_previous.is_empty() {
                return Ok(Found::Previous);
            }
            let to_result = live.diff_lines(&self.expected);
            ensure!(
                to_result.is_empty(),
                "without a mark, the dataset is neither the previous state:\n{to_previous}\nnor \
                 the result:\n{to_result}"
            );
            return Ok(Found::Result);
        }
        let staged = tree(&format!("{STAGE}@darlings-{mark}"))?;
        let kept = |tree: &Tree| -> BTreeMap<RelPath, _> {
            let below = ["keep", "var/log"].map(|path| RelPath::normalise(path).unwrap());
            let entries = tree.entries.iter().map(|(path, entry)| (path.clone(), entry.clone()));
            entries.filter(|(path, _)| below.iter().any(|top| path.is_at_or_below(top))).collect()
        };
        let only = |tree: &Tree| Tree { entries: kept(tree) };
        let lines = only(&staged).diff_lines(&only(&self.expected));
        ensure!(lines.is_empty(), "the stage has not all that is persisted:\n{lines}");
        Ok(Found::RolledBack)
    }
}
