//! The main job: boot, erase what was not declared, keep what was, boot again. The initrd is one that
//! dracut has made with the project's module.

use crate::common::{boot_and_compare, rollback};
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use darlings_vm_tests::machine::{Machine, Moment};
use darlings_vm_tests::{Filesystem, capability};

#[test]
fn a_zfs_root_boots_three_times_and_keeps_only_what_is_declared() -> Result<()> {
    if !capability::can_run("a_zfs_root_boots_three_times_and_keeps_only_what_is_declared")? {
        return Ok(());
    }
    boots_three_times(Filesystem::Zfs)
}

#[test]
fn a_btrfs_root_boots_three_times_and_keeps_only_what_is_declared() -> Result<()> {
    if !capability::can_run("a_btrfs_root_boots_three_times_and_keeps_only_what_is_declared")? {
        return Ok(());
    }
    boots_three_times(Filesystem::Btrfs)
}

fn boots_three_times(filesystem: Filesystem) -> Result<()> {
    let mut machine = Machine::new(filesystem)?;
    machine.configure_with_dracut(&rollback(filesystem, "emergency"))?;
    let mut log = String::new();
    for boot in 1..=3 {
        let booted = boot_and_compare(&mut machine, filesystem, boot)?;
        // Else a boot without any reset would do, where nothing is in the way yet.
        ensure!(booted.console.contains("reset complete in"), "{}", booted.console);
        // The comparison would be content with a machine on which nothing is
        // ever written: the log shows that each boot left something behind.
        writeln!(log, "boot {boot}")?;
        let output = &booted.step(Moment::Root)?.output;
        ensure!(
            output.starts_with(&log),
            "boot {boot} found another log than the last ones wrote:\n{output}"
        );
    }
    Ok(())
}
