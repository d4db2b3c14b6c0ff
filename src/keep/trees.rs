//! The three trees that a result is made of.

use std::path::Path;

use super::attic::Attic;
use crate::fs::Dir;

/// The three trees of a restoration, by their root directories.
#[derive(Debug, Clone, Copy)]
pub struct Trees<'a> {
    /// The previous state, which is only read.
    pub previous: &'a Dir,
    /// The blank, which is only read; `None` when it is empty.
    pub blank: Option<&'a Dir>,
    /// A copy of the blank that nobody else uses; it becomes the result.
    pub target: &'a Dir,
}

/// The directory of the previous state that a connector is made after, or of the attic, if what is
/// below it comes back from there.
pub(super) fn connector_before(
    previous: &Dir,
    path: &Path,
    attic: &Attic,
) -> anyhow::Result<Option<Dir>> {
    match (previous.open_dir_optional(path)?, attic.above.get(path)) {
        (None, Some(stored)) => previous.open_dir_optional(stored),
        (before, _) => Ok(before),
    }
}
