//! Nothing is lost when the reset cannot be done: here, because a blank is missing.

use crate::common::{cluttering_boot, rollback};
use anyhow::{Result, ensure};
use darlings_testkit::difference;
use darlings_vm_tests::machine::{Boot, Ending, Machine, Moment};
use darlings_vm_tests::{Filesystem, capability, trees};

#[test]
fn a_failed_reset_boots_the_previous_zfs_root_unchanged() -> Result<()> {
    if !capability::can_run("a_failed_reset_boots_the_previous_zfs_root_unchanged")? {
        return Ok(());
    }
    boots_unchanged(Filesystem::Zfs)
}

#[test]
fn a_failed_reset_boots_the_previous_btrfs_root_unchanged() -> Result<()> {
    if !capability::can_run("a_failed_reset_boots_the_previous_btrfs_root_unchanged")? {
        return Ok(());
    }
    boots_unchanged(Filesystem::Btrfs)
}

#[test]
fn a_failed_reset_stops_a_zfs_machine_that_asks_for_it() -> Result<()> {
    if !capability::can_run("a_failed_reset_stops_a_zfs_machine_that_asks_for_it")? {
        return Ok(());
    }
    stops(Filesystem::Zfs)
}

#[test]
fn a_failed_reset_stops_a_btrfs_machine_that_asks_for_it() -> Result<()> {
    if !capability::can_run("a_failed_reset_stops_a_btrfs_machine_that_asks_for_it")? {
        return Ok(());
    }
    stops(Filesystem::Btrfs)
}

fn without_its_blank(filesystem: Filesystem, on_failure: &str) -> String {
    let (there, missing) = match filesystem {
        // Of the second volume: the first must not have been touched either.
        Filesystem::Zfs => (
            r#"dataset = "rpool/safe/home", blank = "blank""#,
            r#"dataset = "rpool/safe/home", blank = "missing""#,
        ),
        Filesystem::Btrfs => ("@blank/home", "@blank/missing"),
    };
    rollback(filesystem, on_failure).replace(there, missing)
}

fn boots_unchanged(filesystem: Filesystem) -> Result<()> {
    let mut machine = Machine::new(filesystem)?;
    // The first boot resets nothing and leaves clutter; the second is to keep it.
    let first = machine.boot(&cluttering_boot(filesystem, 1))?;
    ensure!(first.ending == Ending::Root, "the first boot stopped:\n{}", first.console);
    machine.configure(&without_its_blank(filesystem, "boot"));
    let second = machine.boot(&cluttering_boot(filesystem, 2))?;
    ensure!(second.ending == Ending::Root, "the second boot stopped:\n{}", second.console);

    for volume in trees::VOLUMES {
        let previous = trees::read(&second, Moment::Before, volume)?;
        let live = trees::read(&second, Moment::After, volume)?;
        let differences = previous.diff(&live);
        ensure!(
            differences.is_empty(),
            "a failed reset changed {volume}:\n{}\n--- console:\n{}",
            difference::lines(&differences),
            second.console
        );
    }
    let log = &second.step(Moment::Root)?.output;
    ensure!(
        log.starts_with("boot 1\nboot 2\n"),
        "the second boot did not find the first one's log:\n{log}"
    );
    ensure!(
        second.console.contains("missing"),
        "the console does not name the blank:\n{}",
        second.console
    );
    Ok(())
}

fn stops(filesystem: Filesystem) -> Result<()> {
    let mut machine = Machine::new(filesystem)?;
    machine.configure(&without_its_blank(filesystem, "emergency"));
    let booted =
        machine.boot(&Boot::new().at(Moment::Emergency, "! mountpoint --quiet /sysroot"))?;
    ensure!(booted.ending == Ending::Emergency, "the boot went on:\n{}", booted.console);
    booted.step(Moment::Emergency)?;
    ensure!(
        booted.console.contains("missing"),
        "the console does not name the blank:\n{}",
        booted.console
    );
    Ok(())
}
