//! The power is cut while the reset of a boot runs, and the machine is switched on again.
//!
//! QEMU writes down every write and flush of a boot. From that its disk is made again as it can have
//! been at some moment of the reset, put into the machine, and booted: the reset of that boot
//! completes what was begun, and the root comes up.

use std::env;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::difference;
use darlings_testkit::power::{Disk, Log};
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

/// How many cut disks are booted without `DARLINGS_CUTS`.
const FEW: usize = 2;

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
    // Spread over the whole reset. Of those, the later ones: until something is committed it is the
    // previous state that is booted. The very last is after the reset.
    let count = count()?;
    let cuts = log.cuts(&range, 2 * count + 2, 1);
    let end = cuts.len().saturating_sub(1);
    let inside = cuts.get(end.saturating_sub(count)..end).unwrap_or_default();
    ensure!(!inside.is_empty(), "nothing was written between {range:?}");
    println!("{} and {strategy}: {} records", filesystem.name(), log.written(&range).len());
    let installed = machine.installed();
    let length = fs::metadata(&installed).context("the installed disk")?.len();
    let disk = Disk::part(0, length);
    for cut in inside {
        let image = machine.scratch().join("cut");
        log.apply(cut, 0, &installed, &disk, &image)?;
        machine.put_in(image.clone());
        let found = known.boot(&mut machine).with_context(|| format!("booted after a {cut}"))?;
        println!("{cut}: {found}");
        fs::remove_file(&image).with_context(|| format!("cannot remove {}", image.display()))?;
    }
    Ok(())
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
    /// Boots the disk that a cut has left, and compares. Gives what the boot found.
    fn boot(&self, machine: &mut Machine) -> Result<String> {
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
                "the previous state"
            } else if left.clone().without(".darlings").diff(&result).is_empty() {
                "the result"
            } else {
                "something between"
            };
            found.push(format!("{volume} was {is}"));
        }
        Ok(format!("{}; it came up in {:.1?}", found.join(", "), booted.took))
    }
}
