//! What this process asks the kernel for about itself: a mount namespace of its own, and to be
//! the last in line. The only unsafe code of this crate.
#![allow(
    unsafe_code,
    reason = "rustix marks unshare(2) unsafe for what it can do to files, and lacks ioprio_set(2)"
)]

use anyhow::Context as _;
use rustix::fs::Mode;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the process its own view of the mounts. What it mounts from now on is seen by nobody
/// else and is gone when it ends, however it ends. What others unmount goes from this view as well,
/// where mounts are shared, as systemd makes them: a copy that stayed would keep a disk busy that
/// somebody takes away meanwhile. Call before any thread is started.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter_mount_namespace() -> anyhow::Result<()> {
    // SAFETY: the call is unsafe because CLONE_FILES would let another thread close descriptors
    // that are in use; only CLONE_NEWNS is passed, which leaves the descriptors alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .context("cannot get a mount namespace; run as root")?;
    let flags = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    mount_change("/", flags).context("cannot keep the namespace's mounts from the others")
}

/// Readies the process for copying trees: no umask, so that entries are made with the mode they
/// shall have, and as many open files as it may have: every thread needs some dozens.
pub fn prepare() -> anyhow::Result<()> {
    rustix::process::umask(Mode::empty());
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

/// How many threads copy where nobody says it: more than there are processors, up to four, because
/// some of them wait for the disk.
#[must_use]
pub fn usual_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).min(4)
}

/// The lowest of the ordinary CPU priorities (`nice(1)`).
const LOWEST: i32 = 19;

/// Lets everybody else go first: the idle class of the I/O scheduler, and the lowest CPU priority.
/// Both are for the calling thread and those that it starts. Anybody may do this.
///
/// # Errors
/// Which of the two the kernel refused; the other one holds.
pub fn be_idle() -> anyhow::Result<()> {
    let cpu = setpriority_process(None, LOWEST).context("cannot lower the CPU priority");
    set_io_class_idle().context("cannot go to the idle class of the I/O scheduler")?;
    cpu
}

fn set_io_class_idle() -> std::io::Result<()> {
    // From the kernel's `linux/ioprio.h`, which the bindings lack.
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: ioprio_set(2) takes three integers and touches no memory of this process; 0 is the
    // calling thread.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE << CLASS_SHIFT) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
