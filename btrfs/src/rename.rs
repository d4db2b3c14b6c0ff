//! Exchanging and moving entries, subvolumes above all.
//!
//! What is true of all three functions here, *measured* with subvolumes:
//!
//! - A subvolume can move to any directory of the filesystem, in whatever
//!   subvolume that is, and its content comes along: it is one name that changes. An
//!   ordinary entry stays in its subvolume ([`ErrorKind::CrossesMounts`]), and so an
//!   exchange across subvolumes is one of two subvolumes; a stub is not one.
//! - A read-only subvolume keeps its directory: another name in it is fine, another
//!   directory is [`ErrorKind::ReadOnly`] even within the same parent subvolume, because
//!   its `..` would change. So is anything in a read-only parent. Make it writable,
//!   move it, make it read-only again; see [`set_read_only`](crate::set_read_only).
//! - Both directories must be reached through one mount. Two mounts of one
//!   filesystem are [`ErrorKind::CrossesMounts`].
//! - A subvolume that is mounted elsewhere (`subvol=`) can be moved and exchanged
//!   all the same. Mounts follow the subvolume and not the name: what was mounted
//!   stays, and `/proc/self/mountinfo` shows it under its new name.
//! - What has something mounted on it is [`ErrorKind::Busy`].
//! - A stub cannot be moved ([`ErrorKind::NotEmpty`]).

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result, Subject, component, usual_meaning};

/// Swaps two entries in one step: afterwards each has the other's name, and no
/// instant exists at which either name is absent (`renameat2(2)` with
/// `RENAME_EXCHANGE`). Names are swapped and ids are not: what boots by `subvolid=` or
/// by the default subvolume goes on getting the same tree as before. Durable after [`sync`](crate::sync).
pub fn exchange(
    first_directory: impl AsFd,
    first_name: &OsStr,
    second_directory: impl AsFd,
    second_name: &OsStr,
) -> Result<()> {
    rename_with(
        "exchanging",
        (first_directory, first_name),
        (second_directory, second_name),
        RenameFlags::EXCHANGE,
    )
}

/// Moves an entry to a place where nothing is yet (`RENAME_NOREPLACE`).
/// [`ErrorKind::AlreadyExists`] when something is there.
pub fn rename_noreplace(
    from_directory: impl AsFd,
    from_name: &OsStr,
    to_directory: impl AsFd,
    to_name: &OsStr,
) -> Result<()> {
    rename_with(
        "moving",
        (from_directory, from_name),
        (to_directory, to_name),
        RenameFlags::NOREPLACE,
    )
}

/// Moves an entry, replacing what is in the target's place as `rename(2)` does:
/// a subvolume replaces an empty directory or a stub (*measured*: also across
/// subvolumes; this is how a nested subvolume gets into its own stub's place in a
/// snapshot). Durable after [`sync`](crate::sync).
///
/// A directory with content, or a subvolume with or without, is not replaced:
/// [`ErrorKind::NotEmpty`]. Neither is a file: [`ErrorKind::NotADirectory`].
pub fn rename(
    from_directory: impl AsFd,
    from_name: &OsStr,
    to_directory: impl AsFd,
    to_name: &OsStr,
) -> Result<()> {
    rename_with(
        "moving",
        (from_directory, from_name),
        (to_directory, to_name),
        RenameFlags::empty(),
    )
}

fn rename_with(
    operation: &'static str,
    (from_directory, from_name): (impl AsFd, &OsStr),
    (to_directory, to_name): (impl AsFd, &OsStr),
    flags: RenameFlags,
) -> Result<()> {
    let from = component(operation, from_name)?;
    let to = component(operation, to_name)?;
    renameat_with(from_directory, from, to_directory, to, flags).map_err(|errno| {
        let kind = match errno {
            Errno::NOTEMPTY => ErrorKind::NotEmpty,
            Errno::INVAL => ErrorKind::IntoItself,
            Errno::NOTDIR | Errno::ISDIR => ErrorKind::NotADirectory,
            other => usual_meaning(other),
        };
        Error::system(operation, Subject::Names(from.to_owned(), to.to_owned()), kind, errno)
    })
}
