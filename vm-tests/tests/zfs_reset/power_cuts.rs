//! Power cuts: QEMU writes down every write and flush of the guest's disk while a reset runs on it.
//! The guest sees that recording as another disk, makes the pool again as cuts at many moments would
//! have left it, imports it, and runs the next boot's reset.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::power::{self, Cut, Log, mark};
use darlings_vm_tests::disk::Disk;

use crate::guest::{CUTS, checks, in_guest_with};
use crate::machine::{Machine, Strategy, reset, reset_unforetold};
use crate::pools::{DATASET, MIB, POOL, change, create_pool_on, export, patiently, sh, tree};
use crate::{carry_interrupted, interrupted};

#[test]
fn after_a_power_cut_at_any_moment_of_a_rollback_the_next_run_gives_the_result() -> Result<()> {
    in_guest_with(
        disks,
        "power_cuts::after_a_power_cut_at_any_moment_of_a_rollback_the_next_run_gives_the_result",
        checks![cuts_of_a_rollback],
    )
}

#[test]
fn after_a_power_cut_at_any_moment_of_a_carry_the_next_run_gives_the_result() -> Result<()> {
    in_guest_with(
        disks,
        "power_cuts::after_a_power_cut_at_any_moment_of_a_carry_the_next_run_gives_the_result",
        checks![cuts_of_a_carry],
    )
}

/// The disk that is recorded, its partition, and the disk that shows the recording.
const DISK: &str = "/dev/vda";
const PARTITION: &str = "/dev/vda1";
const RECORDING: &str = "/dev/vdb";
/// The partition as a cut leaves it.
const IMAGE: &str = "/tmp/cut";
/// What is before the partition and behind it.
const MARGIN: u64 = MIB;
const SIZE: u64 = 96 * MIB;
/// How many moments of a reset are tried without `DARLINGS_CUTS`.
const FEW: usize = 32;

/// A disk with a partition, whose writes are recorded, and the recording.
fn disks(scratch: &Path) -> Result<Vec<Disk>> {
    let disk = Disk::blank(scratch.join("disk"), "disk0", SIZE + 2 * MARGIN)?;
    let mut table = [0; 66];
    // One entry of the partition table: status, start, type, end, first sector, how many.
    table[4] = 0xbf;
    let sectors = |bytes: u64| u32::try_from(bytes / 512).map(u32::to_le_bytes);
    table[8..12].copy_from_slice(&sectors(MARGIN)?);
    table[12..16].copy_from_slice(&sectors(SIZE)?);
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    let mut file = fs::File::options().write(true).open(&disk.path)?;
    file.seek(SeekFrom::Start(446))?;
    file.write_all(&table)?;
    let recording = scratch.join("recording");
    Ok(vec![disk.recorded(recording.clone())?, Disk::shown(recording, "recording")])
}

fn cuts_of_a_rollback() -> Result<()> {
    power_cuts(Strategy::Rollback)
}

fn cuts_of_a_carry() -> Result<()> {
    power_cuts(Strategy::Carry)
}

fn count() -> Result<usize> {
    match std::env::var(CUTS).unwrap_or_default().as_str() {
        "" => Ok(FEW),
        number => number.parse().context("DARLINGS_CUTS is no number"),
    }
}

/// What a reset is expected to find and to leave.
pub(crate) enum Known {
    Rollback(interrupted::Golden),
    Carry(carry_interrupted::Golden),
}

impl Known {
    /// The machine of `interrupted`, in a pool that is there.
    pub(crate) fn in_pool(strategy: Strategy) -> Result<Self> {
        Self::in_pool_with(strategy, |_| Ok(()))
    }

    /// The same, and more in its previous state.
    pub(crate) fn in_pool_with(
        strategy: Strategy,
        more: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let machine = interrupted::machine_in_pool()?.by(strategy);
        change(DATASET, more)?;
        let (previous, expected) = (tree(DATASET)?, machine.expected()?);
        Ok(match strategy {
            Strategy::Rollback => {
                Self::Rollback(interrupted::Golden { machine, previous, expected })
            }
            Strategy::Carry => {
                Self::Carry(carry_interrupted::Golden { machine, previous, expected })
            }
        })
    }

    pub(crate) fn machine(&self) -> &Machine {
        match self {
            Self::Rollback(golden) => &golden.machine,
            Self::Carry(golden) => &golden.machine,
        }
    }

    /// I1 and I2: what a cut has left, or that it is nothing that it may be.
    pub(crate) fn found(&self) -> Result<String> {
        Ok(match self {
            Self::Rollback(golden) => format!("{:?}", golden.found()?),
            Self::Carry(golden) => format!("{:?}", golden.found()?),
        })
    }

    pub(crate) fn check_result(&self) -> Result<()> {
        match self {
            Self::Rollback(golden) => golden.machine.must_be(&golden.expected),
            Self::Carry(golden) => {
                golden.machine.must_be(&golden.expected)?;
                let lines = tree(&format!("{DATASET}@darlings-1"))?.diff_lines(&golden.previous);
                ensure!(lines.is_empty(), "generation 1 is not the previous state:\n{lines}");
                Ok(())
            }
        }
    }
}

/// A run that was recorded.
struct Recorded {
    log: Log,
    range: Range<usize>,
    /// The partition as it was before the run.
    before: PathBuf,
}

fn power_cuts(strategy: Strategy) -> Result<()> {
    sh("modprobe", &["loop"])?;
    let told = format!("{strategy:?}");
    let (known, recorded) = recorded_reset(strategy)?;
    let found = cut_everywhere(&known, &recorded, count()?, &told)?;
    for (found, cut) in &found {
        // The run that recovers is cut as well, where it has something to complete.
        if ["Begun", "RolledBack"].contains(&found.as_str()) {
            let again = recorded_recovery(&known, &recorded, cut)?;
            let told = format!("{told}, completing after {found}");
            cut_everywhere(&known, &again, count()?.div_ceil(4).max(4), &told)?;
        }
    }
    let mut found: Vec<&str> = found.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        match strategy {
            Strategy::Rollback => ["Previous", "Result", "RolledBack"],
            Strategy::Carry => ["Begun", "Previous", "Result"],
        }
    );
    Ok(())
}

fn recorded_reset(strategy: Strategy) -> Result<(Known, Recorded)> {
    create_pool_on(POOL, PARTITION, &interrupted::OPTIONS)?;
    let known = Known::in_pool(strategy)?;
    let name = format!("{strategy:?}");
    // As at a boot: imported just now.
    patiently(|| export(POOL))?;
    sh("zpool", &["import", "-N", "-d", PARTITION, POOL])?;
    let (begin, end) = between_marks(&known, &name)?;
    known.check_result()?;
    export(POOL)?;
    let log = recording()?;
    let range = log.between(&begin, &end)?;
    let (nothing, before) = (PathBuf::from("/tmp/nothing"), PathBuf::from("/tmp/before"));
    fs::File::create(&nothing)?.set_len(SIZE)?;
    log.disk_after(0..range.start, &nothing, &partition(), &before)?;
    Ok((known, Recorded { log, range, before }))
}

/// Puts what a cut has left on the disk, and records the run that completes it.
fn recorded_recovery(known: &Known, run: &Recorded, cut: &Cut) -> Result<Recorded> {
    let before = PathBuf::from("/tmp/before-again");
    run.log.apply(cut, run.range.start, &run.before, &partition(), &before)?;
    sh(
        "dd",
        &[
            "if=/tmp/before-again",
            &format!("of={PARTITION}"),
            "bs=1M",
            "oflag=direct",
            "conv=fsync",
        ],
    )?;
    let placed = format!("placed {}", cut.at);
    mark(Path::new(DISK), MARGIN + SIZE, &placed)?;
    sh("zpool", &["import", "-N", "-d", PARTITION, POOL])?;
    let (begin, end) = between_marks(known, &format!("again {}", cut.at))?;
    known.check_result()?;
    patiently(|| export(POOL))?;
    let log = recording()?;
    let range = log.between(&begin, &end)?;
    // The pool was written to when it was imported.
    let (cut, before) = (before, PathBuf::from("/tmp/before-recovery"));
    let imported = log.between(&placed, &begin)?;
    log.disk_after(imported, &cut, &partition(), &before)?;
    Ok(Recorded { log, range, before })
}

/// Resets, with a mark before it and one after it; gives their names.
fn between_marks(known: &Known, name: &str) -> Result<(String, String)> {
    let timeout = "/sys/module/zfs/parameters/zfs_txg_timeout";
    let (begin, end) = (format!("{name} begins"), format!("{name} ends"));
    mark(Path::new(DISK), MARGIN + SIZE, &begin)?;
    // In seconds: much is to be made durable in between that nobody asked for.
    let before = fs::read_to_string(timeout)?;
    fs::write(timeout, "1")?;
    reset_unforetold(&known.machine().config(), "what is recorded is a reset alone")?.well()?;
    fs::write(timeout, before.trim())?;
    mark(Path::new(DISK), MARGIN + SIZE, &end)?;
    Ok((begin, end))
}

/// What QEMU has written down until now.
fn recording() -> Result<Log> {
    sh("blockdev", &["--flushbufs", RECORDING])?;
    Log::read(Path::new(RECORDING))
}

fn partition() -> power::Disk {
    power::Disk::part(MARGIN, SIZE)
}

/// Cuts at many moments, looks what is there, runs the next reset, and compares. Gives a cut for
/// each kind of thing that was found.
fn cut_everywhere(
    known: &Known,
    run: &Recorded,
    count: usize,
    told: &str,
) -> Result<BTreeMap<String, Cut>> {
    let Recorded { log, range, before } = run;
    let started = Instant::now();
    let has_turned = |found: &String| found != "Previous";
    let tried = log.try_cuts(range, count, has_turned, |cut| {
        log.apply(cut, range.start, before, &partition(), Path::new(IMAGE))?;
        // The pool says of itself that it is on a disk, and is not taken from a file.
        let device = sh("losetup", &["--find", "--show", IMAGE])?;
        let found = recovers(known, &device);
        patiently(|| export(POOL))?;
        sh("losetup", &["--detach", &device])?;
        found
    });
    let tried = tried.with_context(|| told.to_owned())?;
    println!("{told}: {tried} ({:.0} s)", started.elapsed().as_secs_f64());
    tried.check(count)?;
    Ok(tried.examples())
}

/// I1, I2 and I3 on the pool that a cut has left. Gives what was found.
pub(crate) fn recovers(known: &Known, device: &str) -> Result<String> {
    sh("zpool", &["import", "-N", "-d", device, POOL]).context("the pool cannot be imported")?;
    let found = known.found()?;
    let ran = reset(&known.machine().config(), &[])?.well()?;
    known.check_result().with_context(|| format!("found {found}, then: {}", ran.stderr))?;
    Ok(found)
}
