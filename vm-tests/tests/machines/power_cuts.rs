//! The power is cut while the reset of a boot runs, and the machine is switched on again.
//!
//! QEMU writes down every write and flush of a boot. From that its disk is made again as it can have
//! been at some moment of the reset, put into the machine, and booted: the reset of that boot
//! completes what was begun, and the root comes up.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::difference;
use darlings_testkit::power::{Cut, Disk, Log};
use darlings_vm_tests::machine::{Boot, Machine, Moment};
use darlings_vm_tests::{Filesystem, capability, trees};

use crate::common::{Blanks, Previous, clutter, configuration, declared, must_be_reset};

#[test]
fn a_zfs_root_boots_after_a_power_cut_in_a_rollback() -> Result<()> {
    boots_after_power_cuts(
        "a_zfs_root_boots_after_a_power_cut_in_a_rollback",
        Filesystem::Zfs,
        "rollback",
    )
}

#[test]
fn a_zfs_root_boots_after_a_power_cut_in_a_carry() -> Result<()> {
    boots_after_power_cuts(
        "a_zfs_root_boots_after_a_power_cut_in_a_carry",
        Filesystem::Zfs,
        "carry",
    )
}

#[test]
fn a_btrfs_root_boots_after_a_power_cut_in_a_rollback() -> Result<()> {
    boots_after_power_cuts(
        "a_btrfs_root_boots_after_a_power_cut_in_a_rollback",
        Filesystem::Btrfs,
        "rollback",
    )
}

#[test]
fn a_btrfs_root_boots_after_a_power_cut_in_a_carry() -> Result<()> {
    boots_after_power_cuts(
        "a_btrfs_root_boots_after_a_power_cut_in_a_carry",
        Filesystem::Btrfs,
        "carry",
    )
}

/// How many disks that lack writes are booted without `DARLINGS_CUTS`.
const FEW: usize = 22;

/// How many must have been cut inside the reset, unless fewer are asked for.
const LEAST: usize = 25;

fn count() -> Result<usize> {
    match env::var("DARLINGS_CUTS") {
        Ok(number) => number.parse().context("DARLINGS_CUTS is no number"),
        Err(_) => Ok(FEW),
    }
}

fn boots_after_power_cuts(test: &str, filesystem: Filesystem, strategy: &str) -> Result<()> {
    if !capability::can_run(test)? {
        return Ok(());
    }
    let keeps = filesystem == Filesystem::Btrfs || strategy == "carry";
    let keep = if keeps { "keep = { generations = 5 }" } else { "" };
    let mut machine = Machine::new(filesystem)?;
    machine.configure(&configuration(filesystem, (strategy, keep), "emergency", &declared()));
    let recording = machine.record()?;
    let whole = machine.boot(&recorded_boot(filesystem))?;
    let known =
        Known { filesystem, keeps, blanks: Blanks::of(&whole)?, previous: Previous::of(&whole)? };
    must_be_reset(&whole, "the boot without a cut", &known.blanks, &known.previous, &declared())?;

    let log = Log::read(&recording)?;
    let range = log.between(BEGIN, END)?;
    let installed = machine.installed();
    let length = fs::metadata(&installed).context("the installed disk")?.len();
    let disk = Disk::part(0, length);
    let boot = |cut: &Cut| -> Result<Found> {
        let image = machine.scratch().join("cut");
        log.apply(cut, 0, &installed, &disk, &image)?;
        machine.put_in(image.clone());
        let (is, told) =
            known.boot(&mut machine).with_context(|| format!("booted after a {cut}"))?;
        println!("{cut}: {told}");
        fs::remove_file(&image).with_context(|| format!("cannot remove {}", image.display()))?;
        Ok(is)
    };
    println!("{} and {strategy}: {} records", filesystem.name(), log.written(&range).len());
    let found = boot_after(&log, &range, count()?, boot)?;
    let inside = found.keys().filter(|cut| log.written(&range).contains(&cut.at)).count();
    let lacking = found.keys().filter(|cut| cut.lacks_writes()).count();
    println!(
        "{} booted, {inside} cut inside the reset, {lacking} with writes missing",
        found.len()
    );
    let least = LEAST.min(count()?);
    ensure!(inside >= least, "only {inside} cuts were inside the reset: {found:?}");
    ensure!(lacking > 0, "no cut lacked writes: {found:?}");
    // On btrfs nothing that is live is ever between the two.
    ensure!(
        filesystem == Filesystem::Btrfs || found.values().any(|is| *is == Found::Begun),
        "no cut left a reset that was begun: {found:?}"
    );
    Ok(())
}

/// Boots after cuts: right after flushes, and `count` where the previous state turns to the result.
fn boot_after(
    log: &Log,
    range: &Range<usize>,
    count: usize,
    mut boot: impl FnMut(&Cut) -> Result<Found>,
) -> Result<BTreeMap<Cut, Found>> {
    let mut found = BTreeMap::new();
    let flushes = log.flushes(range);
    // The first flush that leaves something else than the previous state. Each boot takes long, so
    // the others are not tried one by one.
    let (mut first, mut end) = (0, flushes.len());
    while first < end {
        let middle = usize::midpoint(first, end);
        let is = boot(&flushes[middle])?;
        found.insert(flushes[middle].clone(), is);
        if is == Found::Previous {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    // From the flush before it to one after which all is done, with writes that are lost, torn or
    // out of order.
    let turns = first.checked_sub(1).map_or(range.start, |before| flushes[before].at);
    let done = flushes[first..].iter().find(|cut| found.get(cut) == Some(&Found::Result));
    let late = turns..done.map_or(log.written(range).end, |cut| cut.at);
    // Half of them there, the others spread over the whole reset. What lacks nothing is much like
    // what was booted already.
    let mut lacking = BTreeSet::new();
    for (part, count) in [(late, count.div_ceil(2)), (log.written(range), count)] {
        let cuts = log.cuts_within(range, &part, 16 * count, 1).into_iter();
        let cuts: Vec<Cut> = cuts.filter(Cut::lacks_writes).collect();
        let step = (cuts.len() / count.saturating_sub(lacking.len()).max(1)).max(1);
        for cut in cuts.into_iter().step_by(step) {
            if lacking.len() < count {
                lacking.insert(cut);
            }
        }
    }
    for cut in lacking {
        let is = boot(&cut)?;
        found.insert(cut, is);
    }
    Ok(found)
}

/// What a cut has left of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// All volumes are as before.
    Previous,
    /// One is neither as before nor done, or only one is done.
    Begun,
    /// All are done.
    Result,
}

const BEGIN: &str = "the reset begins";
const END: &str = "the reset has ended";

/// A command that marks a moment in the recording, as `power::mark` does. Neither filesystem, nor the
/// partition table that ZFS makes, has anything at that place.
fn mark(name: &str) -> String {
    // `sync` fills the block with zeros.
    format!(
        "printf 'darlings power cut: %s' '{name}' |
            dd of=/dev/vda bs=4096 seek=8 count=1 conv=sync,notrunc,fsync oflag=direct status=none\n"
    )
}

/// A machine that was used, which the recorded boot then finds: made in its initrd, since a boot for
/// it would take long.
fn used(filesystem: Filesystem) -> String {
    let mount = match filesystem {
        Filesystem::Zfs => {
            "mount -t zfs rpool/local/root /run/used
            mount -t zfs -o ro rpool/local/usr /run/used/usr
            mount -t zfs rpool/safe/home /run/used/home"
        }
        Filesystem::Btrfs => {
            "disk=/dev/disk/by-label/root
            mount -t btrfs -o noatime,subvol=@ $disk /run/used
            mount -t btrfs -o noatime,ro,subvol=@usr $disk /run/used/usr
            mount -t btrfs -o noatime,subvol=@home $disk /run/used/home"
        }
    };
    let clutter = clutter(1);
    format!(
        r#"
        mkdir /run/used
        {mount}
        for directory in dev proc; do mount --bind "/$directory" "/run/used/$directory"; done
        mount --bind /darlings-vm/bin /run/used/mnt
        chroot /run/used env PATH="/mnt:$PATH" bash -euo pipefail <<'END'
        {clutter}
END
        # Part of the filesystem may be mounted elsewhere, so that unmounting it writes nothing.
        sync
        umount --recursive /run/used
        "#
    )
}

/// The boot that is recorded, with marks around its reset.
fn recorded_boot(filesystem: Filesystem) -> Boot {
    let mut before = used(filesystem);
    before += &trees::before(filesystem, &trees::WITH_BLANKS);
    before += &mark(BEGIN);
    Boot::new()
        .at(Moment::Before, &before)
        .at(Moment::After, &format!("{}{}", mark(END), trees::AFTER))
}

/// What a reset that was cut is expected to have found, and to leave.
struct Known {
    filesystem: Filesystem,
    /// Whether the previous state becomes a generation.
    keeps: bool,
    blanks: Blanks,
    previous: Previous,
}

impl Known {
    /// Boots the disk that a cut has left, and compares. Gives what the boot found, and in words.
    fn boot(&self, machine: &mut Machine) -> Result<(Found, String)> {
        let mut after = trees::AFTER.to_owned();
        if self.keeps {
            after += &trees::generation(self.filesystem, 1);
        }
        let boot = Boot::new()
            .at(Moment::Before, &trees::before(self.filesystem, &trees::VOLUMES))
            .at(Moment::After, &after)
            .at(Moment::Root, "cat /var/log/boots");
        let booted = machine.boot(&boot)?;
        must_be_reset(&booted, "this boot", &self.blanks, &self.previous, &declared())?;
        let log = &booted.step(Moment::Root)?.output;
        ensure!(log == "boot 1\n", "the log that is kept reads:\n{log}");

        let left = Previous::of(&booted)?;
        let mut found = Vec::new();
        let mut told = Vec::new();
        for volume in trees::VOLUMES {
            let previous = self.previous.volume(volume);
            if self.keeps {
                let generation =
                    trees::read(&booted, Moment::After, &format!("generation_{volume}"))?;
                let differences = previous.diff(&generation);
                ensure!(
                    differences.is_empty(),
                    "generation 1 of {volume} is not the previous state (expected, then found):\n{}",
                    difference::lines(&differences)
                );
            }
            let left = left.volume(volume);
            let result = self.blanks.expected(volume, &self.previous, &declared())?;
            let is = if left.diff(previous).is_empty() {
                Found::Previous
            } else if left.clone().without(".darlings").diff(&result).is_empty() {
                Found::Result
            } else {
                Found::Begun
            };
            told.push(format!("{volume} was {is:?}"));
            found.push(is);
        }
        let same = found.iter().all(|is| *is == found[0]);
        let found = if same { found[0] } else { Found::Begun };
        Ok((found, format!("{}; it came up in {:.1?}", told.join(", "), booted.took)))
    }
}
