//! Nothing is lost when the reset cannot be done: here, because a blank is missing.

use crate::common::rollback;
use anyhow::{Result, ensure};
use darlings_vm_tests::machine::{Boot, Ending, Machine, Moment};
use darlings_vm_tests::{Filesystem, capability};

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
