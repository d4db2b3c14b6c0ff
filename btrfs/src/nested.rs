//! The subvolumes below a subvolume: finding, opening, deleting them.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux_raw_sys::btrfs::{
    BTRFS_ROOT_BACKREF_KEY, BTRFS_ROOT_ITEM_KEY, BTRFS_ROOT_REF_KEY, BTRFS_ROOT_SUBVOL_RDONLY,
};
use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat};
use rustix::io::Errno;

use crate::default::default_subvolume;
use crate::error::{Error, ErrorKind, Result, Subject, ioctl_meaning, usual_meaning};
use crate::ids::{ROOT_INODE, TOP_LEVEL};
use crate::ioctl;
use crate::quota::subvolume_limits;
use crate::search::{
    INODE_REF_KEY, ROOT_TREE, RootRef, inode_ref_name, items, malformed, root_item_flags,
};
use crate::subvolume::{
    delete_subvolume, delete_subvolume_by_id, refuse_top_level, set_read_only, subvolume_id,
};

const OPENING: &str = "opening the directory";

/// A subvolume somewhere below another one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nested {
    /// Its id.
    pub id: u64,
    /// Its path, relative to the root directory of the subvolume that was asked about.
    pub path: PathBuf,
    /// The subvolume in which its name is: the one asked about, or another nested one.
    pub parent_id: u64,
    /// Whether its content is read-only.
    pub read_only: bool,
}

/// All subvolumes below the one in which `file` is, at every depth, sorted by path, so
/// that each comes after the one that holds it.
///
/// They are read from the filesystem's records (`ROOT_REF` in the tree of trees), as
/// `btrfs subvolume list` does, and no directory is walked: the time depends on the
/// number of subvolumes and not on that of files. A stub is not a subvolume and is
/// not listed; a deleted subvolume that the cleaner has not finished with isn't either.
/// Needs `CAP_SYS_ADMIN`.
pub fn nested_subvolumes(file: impl AsFd) -> Result<Vec<Nested>> {
    let file = file.as_fd();
    let id = subvolume_id(file)?;
    nested_below(file, id)
}

/// As [`nested_subvolumes`], for any subvolume of the filesystem on which `file` is.
pub(crate) fn nested_below(file: BorrowedFd<'_>, id: u64) -> Result<Vec<Nested>> {
    let mut found = Vec::new();
    let mut unread = VecDeque::from([(id, PathBuf::new())]);
    while let Some((parent_id, parent_path)) = unread.pop_front() {
        for (id, directory, name) in children(file, parent_id)? {
            let path = parent_path.join(directory_path(file, parent_id, directory)?).join(name);
            unread.push_back((id, path.clone()));
            found.push(Nested { id, path, parent_id, read_only: has_read_only_record(file, id)? });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn children(file: BorrowedFd<'_>, parent: u64) -> Result<Vec<(u64, u64, OsString)>> {
    let mut found = Vec::new();
    items(file, ROOT_TREE, parent, BTRFS_ROOT_REF_KEY, |key, data| {
        let entry = RootRef::parse(data)?;
        found.push((key.offset, entry.directory, entry.name.to_owned()));
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(found)
}

fn has_read_only_record(file: BorrowedFd<'_>, id: u64) -> Result<bool> {
    // The record's offset is 0, or for a snapshot the transaction that made it.
    items(file, ROOT_TREE, id, BTRFS_ROOT_ITEM_KEY, |_, data| {
        let flags = root_item_flags(data)?;
        Ok(ControlFlow::Break(flags & u64::from(BTRFS_ROOT_SUBVOL_RDONLY) != 0))
    })?
    .ok_or_else(|| malformed("a subvolume has a name and no record"))
}

/// Whether the kernel's cleaner has finished with a subvolume that was deleted: everything
/// that only it had is free, once the running transaction is committed ([`sync`](crate::sync)).
/// `false` for a subvolume that is not deleted.
pub fn is_cleaned(file: impl AsFd, id: u64) -> Result<bool> {
    let record =
        items(file.as_fd(), ROOT_TREE, id, BTRFS_ROOT_ITEM_KEY, |_, _| Ok(ControlFlow::Break(())))?;
    Ok(record.is_none())
}

/// The path of a directory from the root of its subvolume.
fn directory_path(file: BorrowedFd<'_>, tree: u64, inode: u64) -> Result<PathBuf> {
    match ioctl::directory_path(file, tree, inode) {
        Ok(path) => Ok(PathBuf::from(path)),
        // INO_LOOKUP has room for 4080 bytes, and users may nest deeper than that.
        Err(Errno::NAMETOOLONG) => long_directory_path(file, tree, inode),
        Err(errno) => Err(Error::system(
            "reading the path of a directory in the subvolume",
            Subject::Id(tree),
            ioctl_meaning(file, errno),
            errno,
        )),
    }
}

fn long_directory_path(file: BorrowedFd<'_>, tree: u64, mut inode: u64) -> Result<PathBuf> {
    let mut names = Vec::new();
    while inode != ROOT_INODE {
        let (above, name) = items(file, tree, inode, INODE_REF_KEY, |key, data| {
            Ok(ControlFlow::Break((key.offset, inode_ref_name(data)?.to_owned())))
        })?
        .ok_or_else(|| malformed("a directory has no name"))?;
        names.push(name);
        inode = above;
    }
    Ok(names.into_iter().rev().collect())
}

/// The path of the subvolume with that id, relative to the root directory of
/// `ancestor`'s subvolume; empty if that is the one.
///
/// [`ErrorKind::NotFound`] when there is no such subvolume, or when it is not below
/// the ancestor. Everything is below [`TOP_LEVEL`].
pub fn subvolume_path(ancestor: impl AsFd, id: u64) -> Result<PathBuf> {
    let file = ancestor.as_fd();
    let ancestor = subvolume_id(file)?;
    let mut parts = Vec::new();
    let mut current = id;
    while current != ancestor {
        let parent = if current == TOP_LEVEL {
            None
        } else {
            items(file, ROOT_TREE, current, BTRFS_ROOT_BACKREF_KEY, |key, data| {
                let entry = RootRef::parse(data)?;
                Ok(ControlFlow::Break((key.offset, entry.directory, entry.name.to_owned())))
            })?
        };
        let Some((parent, directory, name)) = parent else {
            return Err(Error::new(
                "finding the path of the subvolume",
                Subject::Id(id),
                ErrorKind::NotFound,
            ));
        };
        parts.push(directory_path(file, parent, directory)?.join(name));
        current = parent;
    }
    Ok(parts.into_iter().rev().collect())
}

/// Opens the root directory of the subvolume with that id, which must be below the one
/// whose root directory `ancestor` is (the mounted top level, as a rule).
///
/// One component at a time and without following symlinks, and the id is checked at the
/// end: what is returned is the subvolume asked for, or an error.
pub fn open_subvolume(ancestor: impl AsFd, id: u64) -> Result<OwnedFd> {
    let path = subvolume_path(ancestor.as_fd(), id)?;
    let opened = open_path(ancestor.as_fd(), &path)?;
    if subvolume_id(&opened)? == id {
        Ok(opened)
    } else {
        Err(Error::new(OPENING, Subject::Path(path), ErrorKind::NotFound))
    }
}

/// Opens a directory one component at a time: a whole path might be longer than the kernel
/// takes, and none of its components may be a symlink.
fn open_path(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let step = |directory: BorrowedFd<'_>, name: &OsStr| {
        openat(
            directory,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| {
            let kind = match errno {
                Errno::NOTDIR | Errno::LOOP => ErrorKind::NotADirectory,
                other => usual_meaning(other),
            };
            Error::system(OPENING, Subject::Path(path.to_owned()), kind, errno)
        })
    };
    let mut opened = step(directory, OsStr::new("."))?;
    for name in path {
        opened = step(opened.as_fd(), name)?;
    }
    Ok(opened)
}

/// Deletes the subvolume with that id and all that are nested in it, the deepest first, and
/// returns the nested ones that went, with their paths relative to it.
///
/// `ancestor` is the root directory of a subvolume above it, as in [`open_subvolume`].
/// Read-only, immutable and append-only flags inside the subvolume that stop a deletion (see
/// [`delete_subvolume`](crate::delete_subvolume)) are cleared; those of the directory in
/// which its own name is are not, and are an error. Limits of quotas that leave no room for it are
/// lifted, and set again at once.
///
/// Nothing is deleted when it or a nested one is the default subvolume
/// ([`ErrorKind::IsDefault`]) or the top level. A failure on the way leaves the subvolume
/// with its own content whole, fewer nested ones, and perhaps writable: calling this again
/// goes on. Durable after [`sync`](crate::sync).
pub fn delete_subvolume_recursive(ancestor: impl AsFd, id: u64) -> Result<Vec<Nested>> {
    let operation = "deleting recursively the subvolume";
    let ancestor = ancestor.as_fd();
    refuse_top_level(operation, id)?;
    let nested = nested_below(ancestor, id)?;
    let default = default_subvolume(ancestor)?;
    if default == id || nested.iter().any(|doomed| doomed.id == default) {
        return Err(Error::new(operation, Subject::Id(default), ErrorKind::IsDefault));
    }
    // Sorted by path, each comes after the one that holds it: backwards, before it.
    for doomed in nested.iter().rev() {
        delete_or(ancestor, doomed.id, &[doomed.parent_id, doomed.id], || {
            let root = open_subvolume(ancestor, id)?;
            let holder = open_subvolume(ancestor, doomed.parent_id)?;
            let directory = open_path(root.as_fd(), doomed.path.parent().unwrap_or(Path::new("")))?;
            set_read_only(&holder, false)?;
            clear_obstacles(&directory)?;
            clear_root(ancestor, doomed.id)
        })?;
    }
    delete_or(ancestor, id, &[id], || clear_root(ancestor, id))?;
    Ok(nested)
}

/// Deletes, and once more after the obstacles are cleared if there are some. Limits on the subvolumes with
/// the ids in `limited` that forbid it are lifted for that moment.
fn delete_or(
    ancestor: BorrowedFd<'_>,
    id: u64,
    limited: &[u64],
    clear: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let is_cleared = |error: &Error| {
        matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::NotPermitted)
            || error.errno() == Some(Errno::DQUOT)
    };
    match delete_anywhere(ancestor, id) {
        Err(error) if is_cleared(&error) => {}
        other => return other,
    }
    let mut limits = Vec::new();
    for id in limited {
        limits.extend(subvolume_limits(ancestor, *id)?);
    }
    let deleted = limits
        .iter()
        .try_for_each(|limit| limit.lift(ancestor))
        .and_then(|()| clear())
        .and_then(|()| delete_anywhere(ancestor, id));
    // A group may limit more than what is deleted, so each of them is set again.
    let set: Vec<_> = limits.iter().map(|limit| limit.set(ancestor)).collect();
    deleted.and(set.into_iter().collect())
}

/// Deletes by id, and by name where the path is longer than the kernel takes: given the id, it asks
/// itself for the path, and has room for 4 KiB (*measured*).
fn delete_anywhere(ancestor: BorrowedFd<'_>, id: u64) -> Result<()> {
    let refused = match delete_subvolume_by_id(ancestor, id) {
        Err(error) if error.errno() == Some(Errno::NAMETOOLONG) => error,
        other => return other,
    };
    let path = subvolume_path(ancestor, id)?;
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(refused) };
    let directory = open_path(ancestor, above)?;
    if subvolume_id(open_path(directory.as_fd(), Path::new(name))?)? == id {
        delete_subvolume(directory, name)
    } else {
        Err(Error::new(OPENING, Subject::Path(path), ErrorKind::NotFound))
    }
}

fn clear_root(ancestor: BorrowedFd<'_>, id: u64) -> Result<()> {
    let root = open_subvolume(ancestor, id)?;
    if obstacles(&root)?.is_empty() {
        return Ok(());
    }
    set_read_only(&root, false)?;
    clear_obstacles(&root)
}

/// The flags of a directory that keep names in it, or itself, from being removed.
const OBSTACLES: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

fn flags_failed(errno: Errno) -> Error {
    Error::system(
        "clearing the immutable and append-only flags",
        Subject::Descriptor,
        usual_meaning(errno),
        errno,
    )
}

fn obstacles(directory: &OwnedFd) -> Result<IFlags> {
    let flags = ioctl_getflags(directory).map_err(flags_failed)?;
    Ok(flags & OBSTACLES)
}

fn clear_obstacles(directory: &OwnedFd) -> Result<()> {
    let flags = ioctl_getflags(directory).map_err(flags_failed)?;
    if flags.intersects(OBSTACLES) {
        ioctl_setflags(directory, flags.difference(OBSTACLES)).map_err(flags_failed)?;
    }
    Ok(())
}
