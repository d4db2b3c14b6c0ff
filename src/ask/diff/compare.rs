//! Whether two entries of the same name are the same.
//!
//! Times do not count: a reset gives the blank's, and nobody misses others. The content of two files
//! of the same size is taken to be the same where their times of modification are the same to the
//! nanosecond, as rsync(1) does it; but a file that was touched in any way since the reset, in
//! either tree (its inode's own time, `ctime`, which nobody can set, says so), is read.

use rustix::fs::Statx;

use crate::own::state::{Moment, moment};
use crate::tree::{Comparison, Difference, NamedEntry};

/// Memory for comparing, and what it must know.
pub(super) struct Comparer {
    /// When the newer tree was made, if that is known for sure. Files that were touched since, in
    /// either tree, are read, and all are where it is not.
    made: Option<Moment>,
    comparison: Comparison,
}

impl Comparer {
    /// For a newer tree that was made then.
    pub(super) fn new(made: Option<Moment>) -> Self {
        Self { made, comparison: Comparison::default() }
    }

    /// In what two entries differ; in nothing, if they are the same.
    pub(super) fn differences(
        &mut self,
        new: NamedEntry<'_>,
        old: NamedEntry<'_>,
    ) -> anyhow::Result<Vec<Difference>> {
        let made = self.made;
        self.comparison.differences(new, old, |new: &Statx, old: &Statx| {
            let before = |made| [new, old].iter().all(|it| moment(it.stx_ctime) < made);
            let untouched = made.is_some_and(before);
            new.stx_size == 0 || untouched && moment(new.stx_mtime) == moment(old.stx_mtime)
        })
    }
}
