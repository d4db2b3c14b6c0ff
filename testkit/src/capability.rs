//! What this machine lets a test do, and how a test that cannot run says so.

use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use crate::loopfs::{Filesystem, LoopFs};

/// Whether a btrfs can be made and mounted here. It is tried once for real, because a kernel that
/// lists btrfs and a user with id 0 prove little in a container.
pub fn root_and_btrfs() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER
        .get_or_init(|| try_filesystem(Filesystem::Btrfs, &["mkfs.btrfs", "btrfs", "losetup"]))
        .clone()
}

/// Whether an ext4 can be made and mounted here.
pub fn root_and_ext4() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(|| try_filesystem(Filesystem::Ext4, &["mkfs.ext4", "losetup"])).clone()
}

/// Whether an XFS can be made and mounted here.
pub fn root_and_xfs() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(|| try_filesystem(Filesystem::Xfs, &["mkfs.xfs", "losetup"])).clone()
}

/// Whether a btrfs can be made here on a disk that is recorded.
pub fn root_and_recorded_btrfs() -> Result<(), String> {
    root_and_btrfs()?;
    if !Path::new("/dev/fuse").exists() {
        return Err("needs FUSE".to_owned());
    }
    if has("qemu-storage-daemon") { Ok(()) } else { Err("needs qemu-storage-daemon".to_owned()) }
}

/// Whether the test runs as root.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("needs root".to_owned()) }
}

fn try_filesystem(filesystem: Filesystem, programs: &[&str]) -> Result<(), String> {
    root()?;
    for program in programs {
        if !has(program) {
            return Err(format!("needs the program {program}"));
        }
    }
    let tried = LoopFs::new(filesystem).and_then(LoopFs::close);
    tried.map_err(|why| format!("cannot make and mount {filesystem}: {why:#}"))
}

fn has(program: &str) -> bool {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/run/current-system/sw/bin"]
        .into_iter()
        .map(Path::new)
        .map(Path::to_path_buf)
        .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()))
        .any(|dir| dir.join(program).exists())
}

/// Says on stderr, past the capturing of the test harness, that the running test is skipped; panics
/// where `DARLINGS_REQUIRE_ROOT=1` says that nothing may be.
///
/// # Panics
///
/// Where a skip is forbidden, so that the test fails.
pub fn skipped(why: &str) {
    skipped_unless("DARLINGS_REQUIRE_ROOT", why);
}

/// [`skipped`], where another variable forbids it: for what not every machine that has root has.
///
/// # Panics
///
/// Where a skip is forbidden, so that the test fails.
pub fn skipped_unless(variable: &str, why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        std::env::var_os(variable).is_none_or(|value| value != "1"),
        "{test} may not be skipped ({variable}=1): {why}"
    );
    let line = format!("SKIPPED: {test}: {why}\n");
    if let Err(error) = std::io::stderr().lock().write_all(line.as_bytes()) {
        panic!("cannot say that a test is skipped: {error}");
    }
}

/// Leaves the test, visibly, unless a check from [`capability`](crate::capability) passes.
///
/// `skip_unless!(check)` leaves with `()`, `skip_unless!(check, value)` with a value.
#[macro_export]
macro_rules! skip_unless {
    ($check:expr) => {
        if let Err(why) = $check {
            $crate::capability::skipped(&why);
            return;
        }
    };
    ($check:expr, $value:expr) => {
        if let Err(why) = $check {
            $crate::capability::skipped(&why);
            return $value;
        }
    };
}
