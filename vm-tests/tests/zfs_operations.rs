//! The tests of the ZFS crate on real pools, in a guest.

use std::time::Duration;

use anyhow::{Result, ensure};
use darlings_vm_tests::boot_files::BootFiles;
use darlings_vm_tests::machine::built_tests;
use darlings_vm_tests::{Filesystem, capability, run};

#[test]
fn every_operation_does_on_real_pools_what_it_says() -> Result<()> {
    if !capability::can_run("every_operation_does_on_real_pools_what_it_says")? {
        return Ok(());
    }
    // A test there has its pool to itself, so more than one at a time only wait for each other.
    let mut command = run::Command::new(
        Filesystem::Zfs,
        "export DARLINGS_REQUIRE_ZFS=1\nexec operations --test-threads=1",
    );
    command.files =
        vec![(built_tests("darlings-zfs", "operations")?, "/usr/bin/operations".to_owned())];
    command.limit = Duration::from_secs(1200);
    let said = command.succeed(&BootFiles::get()?)?;
    print!("{}", run::told(&said));
    ensure!(said.contains("test result: ok. "), "the guest did not run them");
    ensure!(!said.contains("SKIPPED: "), "the guest skipped some");
    Ok(())
}
