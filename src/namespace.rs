//! A mount namespace of our own: the only unsafe code of this crate.
#![allow(unsafe_code, reason = "rustix marks unshare(2) unsafe for what it can do to files")]

use anyhow::Context as _;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the process its own view of the mounts. What it mounts from now on is seen by nobody
/// else and is gone when it ends, however it ends. Call before any thread is started.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter() -> anyhow::Result<()> {
    // SAFETY: the call is unsafe because CLONE_FILES would let another thread close descriptors
    // that are in use; only CLONE_NEWNS is passed, which leaves the descriptors alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .context("cannot get a mount namespace; run as root")?;
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", flags).context("cannot make the mount namespace private")
}
