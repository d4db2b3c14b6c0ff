//! btrfs on disks that are not plain: encrypted, failing, or asleep with a machine.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use darlings_vm_tests::boot_files::BootFiles;
use darlings_vm_tests::disk::Disk;
use darlings_vm_tests::machine::built;
use darlings_vm_tests::{Filesystem, capability, run};
use tempfile::TempDir;

const STRATEGIES: [&str; 2] = ["rollback", "carry"];

/// Emulated, on a computer that is busy with other things, some checks take minutes.
const LIMIT: Duration = Duration::from_secs(1800);

/// What the guests do; some take words.
const DISKS: &str = include_str!("../../guest/disks");
const SLEEP: &str = include_str!("../../guest/sleep");
const WAKE: &str = include_str!("../../guest/wake");

/// A guest with the programs that are tested, and a script `/check`.
fn guest(scratch: &TempDir, script: &str, words: &str) -> Result<run::Command> {
    let at = scratch.path().join("check");
    std::fs::write(&at, script).context("cannot write the guest's script")?;
    let mut command = run::Command::new(Filesystem::Btrfs, words);
    command.files = vec![
        (at, "/check".to_owned()),
        (built("DARLINGS_BIN", "darlings", "darlings")?, "/usr/bin/darlings".to_owned()),
        (built("TESTKIT_BIN", "darlings-testkit", "testkit")?, "/usr/bin/testkit".to_owned()),
    ];
    Ok(command)
}

/// Does checks of `guest/disks` in one guest, with each strategy.
fn check(test: &str, checks: &[&str]) -> Result<()> {
    if !capability::can_run(test)? {
        return Ok(());
    }
    let scratch = tempfile::tempdir().context("cannot make a directory for a disk")?;
    let all: Vec<String> = checks
        .iter()
        .flat_map(|check| STRATEGIES.map(|strategy| format!("bash /check {check} {strategy}")))
        .collect();
    let mut command = guest(&scratch, DISKS, &all.join(" && "))?;
    command.limit = LIMIT;
    command.disks = vec![Disk::blank(scratch.path().join("disk"), "root", 256 << 20)?];
    let said = command.succeed(&BootFiles::get()?)?;
    print!("{}", run::told(&said));
    let done = said.lines().filter(|line| line.starts_with("ok: ")).count();
    ensure!(done == all.len(), "{done} of {} were done", all.len());
    Ok(())
}

#[test]
fn a_btrfs_on_an_encrypted_disk_is_reset_like_any_other() -> Result<()> {
    check("a_btrfs_on_an_encrypted_disk_is_reset_like_any_other", &["encrypted"])
}

#[test]
fn a_disk_that_fails_leaves_the_previous_state_or_the_result_and_it_is_said() -> Result<()> {
    check(
        "a_disk_that_fails_leaves_the_previous_state_or_the_result_and_it_is_said",
        &["bad-range", "no-writes"],
    )
}

/// The hibernation image is a real one: the machine is woken up afterwards, and finds its filesystem
/// as it left it.
#[test]
fn nothing_is_reset_below_a_machine_that_sleeps_and_it_wakes_up_whole() -> Result<()> {
    if !capability::can_run("nothing_is_reset_below_a_machine_that_sleeps_and_it_wakes_up_whole")? {
        return Ok(());
    }
    let scratch = tempfile::tempdir().context("cannot make a directory for disks")?;
    let disks = vec![
        Disk::blank(scratch.path().join("disk"), "root", 160 << 20)?,
        Disk::blank(scratch.path().join("swap"), "swap", 1 << 30)?,
    ];
    let boot = BootFiles::get()?;
    let mut sleeper = guest(&scratch, SLEEP, "exec bash /check")?;
    sleeper.disks = disks.clone();
    sleeper.memory = 768;
    sleeper.limit = LIMIT;
    let said = sleeper.run_until_off(&boot)?;
    print!("{}", run::told(&said));
    ensure!(said.ends_with("it falls asleep\n"), "it did not fall asleep:\n{said}");

    let mut waker = guest(&scratch, WAKE, "exec bash /check carry")?;
    waker.disks = disks;
    waker.memory = 768;
    waker.limit = LIMIT;
    // The second disk, which is not there yet when the kernel looks: so it remembers, and does not
    // wake the machine up by itself.
    waker.options = "resume=254:16".to_owned();
    let said = waker.succeed(&boot)?;
    print!("{}", run::told(&said));
    ensure!(said.contains("nothing was touched\n"), "no reset was tried:\n{said}");
    ensure!(said.ends_with("its filesystem is whole\n"), "it did not wake up:\n{said}");
    Ok(())
}
