//! One guest for a group of checks: starting it costs more than most of them.
//!
//! The host copies this very test executable into a guest and runs the one test there, which then
//! does its checks in turn. One that fails is told by its name, and the others go on.

use std::any::Any;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use anyhow::{Context as _, Result, anyhow, ensure};
use darlings_vm_tests::boot_files::BootFiles;
use darlings_vm_tests::disk::Disk;
use darlings_vm_tests::machine::built;
use darlings_vm_tests::{Filesystem, capability, run};

use crate::pools::sh;

/// Set where a test is already in its guest.
const INSIDE: &str = "DARLINGS_TEST_IS_IN_A_GUEST";
/// In a guest, a part of the name of the checks to do; all without it.
const ONLY: &str = "DARLINGS_TEST_ONLY";
/// How many random cases are to be tried; few without it.
pub(crate) const CASES: &str = "DARLINGS_CASES";
/// Repeats the cases of another run.
pub(crate) const SEED: &str = "PROPTEST_RNG_SEED";
/// Every so many calls are interrupted; few without it.
pub(crate) const STRIDE: &str = "DARLINGS_STRIDE";
/// How many power cuts of each recorded reset are tried; few without it.
pub(crate) const CUTS: &str = "DARLINGS_CUTS";
/// Emulated, on a computer that is busy with other things, the longest takes many minutes.
const LIMIT: Duration = Duration::from_secs(3600);

/// What is to be shown, as a sentence, and how.
pub(crate) type Check = (&'static str, fn() -> Result<()>);

/// Functions as [`Check`]s: their names are the sentences.
macro_rules! checks {
    ($($function:path),+ $(,)?) => { &[$((stringify!($function), $function as fn() -> Result<()>)),+] };
}
pub(crate) use checks;

/// Does the checks in a guest with ZFS and one disk of 1 GiB, `/dev/vda`.
pub(crate) fn in_guest(test: &str, checks: &[Check]) -> Result<()> {
    let disk = |scratch: &Path| Ok(vec![Disk::blank(scratch.join("disk"), "disk0", 1 << 30)?]);
    in_guest_with(disk, test, checks)
}

/// Does the checks in a guest with ZFS and these disks, made in a directory for them.
pub(crate) fn in_guest_with(
    disks: impl FnOnce(&Path) -> Result<Vec<Disk>>,
    test: &str,
    checks: &[Check],
) -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return all(checks);
    }
    if !capability::can_run(test)? {
        return Ok(());
    }
    let scratch = tempfile::tempdir().context("cannot make a directory for a disk")?;
    let only = env::var(ONLY).unwrap_or_default();
    let told: String = [CASES, SEED, STRIDE, CUTS]
        .into_iter()
        .filter_map(|variable| Some(format!(" {variable}='{}'", env::var(variable).ok()?)))
        .collect();
    let script = format!(
        "export {INSIDE}=1 {ONLY}='{only}'{told}\n\
         exec zfs-reset --exact {test} --nocapture --test-threads=1"
    );
    let mut command = run::Command::new(Filesystem::Zfs, &script);
    command.files = vec![
        (env::current_exe().context("this program has no name")?, "/usr/bin/zfs-reset".to_owned()),
        (built("DARLINGS_BIN", "darlings", "darlings")?, "/usr/bin/darlings".to_owned()),
    ];
    command.disks = disks(scratch.path())?;
    command.limit = LIMIT;
    command.stream = env::args().any(|argument| argument == "--nocapture");
    let said = command.succeed(&BootFiles::get()?)?;
    ensure!(
        said.contains("test result: ok. 1 passed"),
        "the guest did not run {test}:\n{}",
        run::told(&said)
    );
    if !command.stream {
        print!("{}", run::told(&said));
    }
    Ok(())
}

fn all(checks: &[Check]) -> Result<()> {
    let only = env::var(ONLY).unwrap_or_default();
    let mut failed = Vec::new();
    for (sentence, check) in checks.iter().filter(|(sentence, _)| sentence.contains(&only)) {
        let started = Instant::now();
        let result =
            panic::catch_unwind(check).unwrap_or_else(|cause| Err(anyhow!(words(&*cause))));
        let cleaned = clean_up();
        let took = started.elapsed().as_secs_f64();
        match result.and(cleaned) {
            Ok(()) => println!("ok: {sentence} ({took:.1} s)"),
            Err(why) => {
                println!("FAILED: {sentence} ({took:.1} s): {why:?}");
                failed.push(*sentence);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn words(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref().copied()).unwrap_or("it panicked").to_owned()
}

/// Takes away what a check left: its mounts, its pools, its switches, its files.
fn clean_up() -> Result<()> {
    for mount in fs::read_to_string("/proc/self/mounts")?.lines().rev() {
        let words: Vec<_> = mount.split(' ').collect();
        if words[2] == "zfs" {
            sh("umount", &[words[1]])?;
        }
    }
    for pool in sh("zpool", &["list", "-Ho", "name"])?.lines() {
        sh("zpool", &["destroy", "-f", pool])?;
    }
    fs::write("/sys/module/zfs/parameters/zfs_bclone_enabled", "1")?;
    for directory in ["/tmp/pools", "/run/darlings"] {
        if Path::new(directory).exists() {
            fs::remove_dir_all(directory).with_context(|| format!("cannot remove {directory}"))?;
        }
    }
    Ok(())
}
