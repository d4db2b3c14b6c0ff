//! The directory itself: made, opened and trusted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{Mode, mkdirat};

use crate::fs::at;
use crate::rules::OWN_DIRECTORY;
use crate::tree::{self, Handle, Scratch, is_stub};

/// Makes the tool's own directory if there is none, and sees that it is root's alone. One that is
/// somebody else's, or no directory, is given another name: whoever could make it must not say
/// what a reset does.
///
/// # Errors
/// What could not be made or set.
pub fn ensure_own_directory(root: BorrowedFd<'_>) -> anyhow::Result<()> {
    let cannot = || format!("cannot make {OWN_DIRECTORY}");
    let own = if let Some(own) = trusted_own_directory(root)? {
        own
    } else {
        let name = at::c_name(OWN_DIRECTORY.as_ref())?;
        if let Some(status) = at::present(at::status(root, &name)).with_context(cannot)?
            && is_stub(root, &status)?
        {
            // It has no other name to get: the kernel takes it for full. The subvolume is where it was.
            tree::remove_single(root, &name).with_context(cannot)?;
        }
        let mut number = 1;
        let mut other = at::c_name(format!("{OWN_DIRECTORY}~{number}").as_ref())?;
        while at::present(at::status(root, &other)).with_context(cannot)?.is_some() {
            number += 1;
            other = at::c_name(format!("{OWN_DIRECTORY}~{number}").as_ref())?;
        }
        tree::rename((root, &name), (root, &other)).with_context(cannot)?;
        mkdirat(root, &name, Mode::RWXU).with_context(cannot)?;
        own_directory(root)?
    };
    Handle::Open(own.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default()).with_context(cannot)
}

/// Opens the tool's own directory in a volume's root to believe what it says; `None` where there
/// is none that is root's.
///
/// # Errors
/// As openat2(2) and statx(2).
pub fn trusted_own_directory(root: BorrowedFd<'_>) -> anyhow::Result<Option<OwnedFd>> {
    let cannot = || format!("cannot open {OWN_DIRECTORY}");
    let own = at::directory_beneath(root, Path::new(OWN_DIRECTORY)).with_context(cannot)?;
    let Some(own) = own else { return Ok(None) };
    let status = at::status_of(own.as_fd()).with_context(cannot)?;
    Ok((status.stx_uid == 0 && !is_stub(root, &status)?).then_some(own))
}

/// Opens the tool's own directory in a volume's root.
///
/// # Errors
/// As openat2(2).
pub fn own_directory(root: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    at::open_beneath(root, Path::new(OWN_DIRECTORY))
        .with_context(|| format!("cannot open {OWN_DIRECTORY}"))
}
