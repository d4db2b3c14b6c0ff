//! The three trees that a result is made of.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use super::attic::Attic;
use crate::fs::at;

/// The three trees of a restoration, by their root directories.
#[derive(Debug, Clone, Copy)]
pub struct Trees<'a> {
    /// The previous state, which is only read.
    pub previous: BorrowedFd<'a>,
    /// The blank, which is only read; `None` when it is empty.
    pub blank: Option<BorrowedFd<'a>>,
    /// A copy of the blank that nobody else uses; it becomes the result.
    pub target: BorrowedFd<'a>,
}

/// The directory of the previous state that a connector is made after, or of the attic, if what is
/// below it comes back from there.
pub(super) fn connector_before(
    previous: BorrowedFd<'_>,
    path: &Path,
    attic: &Attic,
) -> std::io::Result<Option<OwnedFd>> {
    match (at::directory_beneath(previous, path)?, attic.above.get(path)) {
        (None, Some(stored)) => at::directory_beneath(previous, stored),
        (before, _) => Ok(before),
    }
}
