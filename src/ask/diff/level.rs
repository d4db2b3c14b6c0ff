//! What a walk knows of the directories on its way down, and how it looks at an entry.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use anyhow::Context as _;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::entry::{DiffKind, Managed};
use super::managed;
use super::marks::Both;
use crate::fs::at;
use crate::rules::Node;
use crate::tree::Directory;

/// What the rules of a reset say of the place of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ruled<'a> {
    /// Those at it and below.
    pub(super) node: Option<&'a Node>,
    /// Whether it is at or below a persisted path.
    pub(super) kept: bool,
}

impl Ruled<'_> {
    pub(super) fn below(self, name: &OsStr) -> Self {
        let node = self.node.and_then(|node| node.child(name));
        let kept = match node {
            Some(node) if node.is_persisted() => true,
            Some(node) if node.is_excluded() => false,
            _ => self.kept,
        };
        Self { node, kept }
    }
}

/// What is known of the place of an entry.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) rules: Ruled<'a>,
    /// Whether it goes to the attic.
    pub(super) attic: bool,
    /// Whether, for all that the marks say, neither it nor a directory above it was moved.
    pub(super) still: bool,
    /// Whether it lies in a subvolume nested in the volume, of which the marks know nothing.
    pub(super) nested: bool,
}

impl Place<'_> {
    pub(super) fn below(self, name: &OsStr) -> Self {
        let rules = self.rules.below(name);
        // What is excluded below a persisted path is erased, whatever becomes of what is around it.
        Self { rules, attic: self.attic && !rules.kept, ..self }
    }

    pub(super) fn is_connector(self) -> bool {
        !self.rules.kept && self.rules.node.is_some_and(Node::has_persisted_below)
    }
}

/// What the entries of a level are taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The newer directory.
    New,
    /// The older one, for what the newer lacks.
    Old,
    /// Nothing more.
    Nothing,
}

/// A directory on the way down, in one tree or in both.
pub(super) struct Level<'a> {
    /// Where its path ends in the path of the level that the walk is at.
    pub(super) path: usize,
    pub(super) new: Option<Directory>,
    pub(super) old: Option<Directory>,
    pub(super) place: Place<'a>,
    /// The marks say what changed in it.
    pub(super) marked: Option<Both>,
    /// What is to be read next.
    pub(super) next: Reading,
    /// Entries that were read and not looked at yet.
    pub(super) pending: std::vec::IntoIter<CString>,
    /// What those were read from.
    pub(super) from: Reading,
    /// Names that the newer directory has, as the marks say unchanged, so that they need not be
    /// looked up again for the older one. It is only as long as what is held at once may be.
    pub(super) unchanged: HashSet<CString>,
}

pub(super) fn opened(directory: Option<&Directory>) -> Option<Rc<OwnedFd>> {
    directory.and_then(Directory::opened)
}

/// One name in the two directories of a level.
pub(super) struct Pair<'p> {
    pub(super) name: &'p CStr,
    pub(super) new: Option<&'p OwnedFd>,
    pub(super) old: Option<&'p OwnedFd>,
}

pub(super) fn status(parent: Option<&OwnedFd>, name: &CStr) -> anyhow::Result<Option<Statx>> {
    let status = parent.map(|parent| at::present(at::status(parent.as_fd(), name)));
    Ok(status.transpose().context("cannot read its attributes")?.flatten())
}

pub(super) fn status_of_directory(
    parent: Option<&OwnedFd>,
    name: &CStr,
) -> anyhow::Result<Option<Statx>> {
    Ok(status(parent, name)?.filter(|status| at::kind(status) == FileType::Directory))
}

/// Opens a directory; `None` if it was removed or replaced a moment ago.
pub(super) fn open(parent: Option<&OwnedFd>, name: &CStr) -> anyhow::Result<Option<OwnedFd>> {
    match parent.map(|parent| at::open_directory(parent.as_fd(), name)).transpose() {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => opened.context("cannot open it"),
    }
}

pub(super) fn managed_entry(
    parent: Option<&OwnedFd>,
    name: &CStr,
    kind: DiffKind,
) -> anyhow::Result<Option<Managed>> {
    let Some(parent) = parent else { return Ok(None) };
    match managed::of_entry(parent.as_fd(), name, kind) {
        // It was replaced a moment ago.
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        managed => managed.context("cannot read the symbolic link"),
    }
}

/// Whether an error only says that something was removed while it was looked at.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref() == Some(&Errno::NOENT)
            || cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    })
}
