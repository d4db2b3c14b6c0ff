//! The unit and the configuration exactly as the NixOS module renders them (`tests/nix/golden`), with
//! the binary where the unit has it.

use std::path::Path;

use anyhow::{Result, ensure};
use darlings_vm_tests::machine::{Ending, Machine};
use darlings_vm_tests::{Filesystem, capability};

use crate::common::{Blanks, cluttering_boot, compare, declared};

#[test]
fn a_zfs_root_boots_twice_with_what_the_nixos_module_renders() -> Result<()> {
    if !capability::can_run("a_zfs_root_boots_twice_with_what_the_nixos_module_renders")? {
        return Ok(());
    }
    boots_twice(Filesystem::Zfs)
}

#[test]
fn a_btrfs_root_boots_twice_with_what_the_nixos_module_renders() -> Result<()> {
    if !capability::can_run("a_btrfs_root_boots_twice_with_what_the_nixos_module_renders")? {
        return Ok(());
    }
    boots_twice(Filesystem::Btrfs)
}

fn boots_twice(filesystem: Filesystem) -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/nix/golden")
        .join(format!("machine-{}", filesystem.name()));
    let mut machine = Machine::new(filesystem)?;
    machine.configure_as_nixos(&golden)?;
    let mut declared = declared();
    declared.push(("/var/lib/nixos", &[]));
    for boot in 1..=2 {
        let booted = machine.boot(&cluttering_boot(filesystem, boot))?;
        ensure!(booted.ending == Ending::Root, "boot {boot} stopped:\n{}", booted.console);
        // Else a boot without any reset would do, where nothing is in the way yet.
        ensure!(
            booted.console.contains("reset complete in"),
            "boot {boot} reset nothing:\n{}",
            booted.console
        );
        compare(&booted, filesystem, boot, &Blanks::of(&booted)?, &declared)?;
    }
    Ok(())
}
