//! Hard links among persisted paths: the second name of a file becomes a link to the first.
//!
//! The only part of a restoration whose memory grows with the files, and only with those that
//! have more than one name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{IFlags, Statx};

/// Identity of a file within one walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Inode {
    device: (u32, u32),
    number: u64,
}

/// A file that has been restored under one name and has more in the previous state.
#[derive(Debug)]
struct First {
    /// Its name below the target's root.
    path: PathBuf,
    /// Names that the previous state has and that were not met yet, inside or outside of
    /// what is persisted.
    unmet: u32,
    /// Flags that forbid further links; set when all are made.
    seals: IFlags,
}

/// Files with more than one name that were met so far.
#[derive(Debug, Default)]
pub(crate) struct Links {
    met: Mutex<HashMap<Inode, First>>,
    /// Files whose names were all met, with the seals that are still to be set.
    complete: Mutex<Vec<(PathBuf, IFlags)>>,
}

/// What to do with one name of a file that has several.
pub(crate) enum Claim<'a> {
    /// It is the first: make the file, then say so. Other threads wait until then.
    First(Making<'a>),
    /// Link it to this path below the target's root.
    Link(PathBuf),
}

/// A file with several names that is being made.
pub(crate) struct Making<'a> {
    links: &'a Links,
    met: MutexGuard<'a, HashMap<Inode, First>>,
    inode: Inode,
    unmet: u32,
}

impl Making<'_> {
    /// The file is there, at `path` below the target's root, but for `seals`.
    pub(crate) fn made(mut self, path: PathBuf, seals: IFlags) {
        if self.unmet == 0 {
            self.links.complete(path, seals);
        } else {
            self.met.insert(self.inode, First { path, unmet: self.unmet, seals });
        }
    }
}

impl Links {
    /// Asks what to do with a name of the file that `status` describes.
    #[must_use]
    pub(crate) fn claim(&self, status: &Statx) -> Claim<'_> {
        let inode =
            Inode { device: (status.stx_dev_major, status.stx_dev_minor), number: status.stx_ino };
        let mut met = lock(&self.met);
        let Some(first) = met.get_mut(&inode) else {
            let unmet = status.stx_nlink.saturating_sub(1);
            return Claim::First(Making { links: self, met, inode, unmet });
        };
        let path = first.path.clone();
        first.unmet = first.unmet.saturating_sub(1);
        if first.unmet == 0
            && let Some(first) = met.remove(&inode)
        {
            self.complete(first.path, first.seals);
        }
        Claim::Link(path)
    }

    fn complete(&self, path: PathBuf, seals: IFlags) {
        if !seals.is_empty() {
            lock(&self.complete).push((path, seals));
        }
    }

    /// Calls `seal` for every linked file that has seals, once no more names will come.
    ///
    /// # Errors
    /// The first error of `seal`.
    pub(crate) fn seal_all<E>(
        self,
        mut seal: impl FnMut(&Path, IFlags) -> Result<(), E>,
    ) -> Result<(), E> {
        let met = self.met.into_inner().unwrap_or_else(PoisonError::into_inner);
        let complete = self.complete.into_inner().unwrap_or_else(PoisonError::into_inner);
        let partly = met.into_values().map(|first| (first.path, first.seals));
        partly
            .chain(complete)
            .filter(|(_, seals)| !seals.is_empty())
            .try_for_each(|(path, seals)| seal(&path, seals))
    }
}

/// A thread that panicked stops the whole restoration, so what it left is never used for more
/// than ending the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
