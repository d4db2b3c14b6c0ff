//! One entry of the previous state: a file with its bytes, a link, a device, a directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::Context as _;
use darlings_btrfs::STUB_INODE;
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, Statx, linkat, makedev, mkdirat, mknodat, openat,
    readlinkat, symlinkat,
};

use super::attributes::{Created, Handle, SEALING, Scratch, Source, permissions, seal};
use super::data::Ladder;
use super::links::{Claim, Links};
use crate::fs::at::{self, open_directory, open_file};

/// What all files of a restoration share.
pub(crate) struct Files<'a> {
    /// Root of the target, where the first names of linked files are.
    pub(crate) target: BorrowedFd<'a>,
    pub(crate) ladder: &'a Ladder,
    pub(crate) links: &'a Links,
}

impl Files<'_> {
    /// Restores an entry that is no directory; `path` gives its place below the target's root.
    /// Answers its bytes, if it is a regular file.
    pub(crate) fn restore(
        &self,
        place: &Place<'_>,
        path: impl Fn() -> PathBuf,
        scratch: &mut Scratch,
    ) -> anyhow::Result<u64> {
        self.make(place, &place.look(scratch)?, path, scratch)
    }

    /// The same with what was seen of the entry.
    pub(crate) fn make(
        &self,
        place: &Place<'_>,
        seen: &Seen,
        path: impl Fn() -> PathBuf,
        scratch: &mut Scratch,
    ) -> anyhow::Result<u64> {
        let status = &seen.status;
        let make = |scratch: &mut Scratch| match &seen.file {
            Some(file) => self.restore_regular(place, file.as_fd(), seen, scratch),
            None => restore_special(place, seen, scratch).map(|()| Unsealed::nothing()),
        };
        if status.stx_nlink < 2 {
            return make(scratch)?.seal().map(|()| seen.bytes());
        }
        match self.links.claim(status) {
            Claim::First(making) => {
                let seals = make(scratch)?.seals;
                making.made(path(), seals);
            }
            Claim::Link(first) => {
                let (parent, name) = at::open_parent(self.target, &first)
                    .with_context(|| format!("cannot open the directory of {first:?}"))?;
                linkat(&parent, &name, place.target, place.name, AtFlags::empty())
                    .with_context(|| format!("cannot link it to {first:?}"))?;
            }
        }
        Ok(seen.bytes())
    }

    fn restore_regular(
        &self,
        place: &Place<'_>,
        source: BorrowedFd<'_>,
        seen: &Seen,
        scratch: &mut Scratch,
    ) -> anyhow::Result<Unsealed> {
        let Seen { status, flags, .. } = seen;
        let mode = permissions(status);
        let made_with = mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target =
            openat(place.target, place.name, new, made_with).context("cannot make the file")?;
        let copy = Handle::Open(target.as_fd());
        if place.inherits {
            copy.strip(Some(made_with), scratch)?;
        }
        // btrfs shares the extents of a NOCOW file with another NOCOW file only, and the flag
        // can be set only while a file is empty.
        let before_data = flags.difference(SEALING);
        if !before_data.is_empty() {
            copy.set_flags(before_data).context("cannot set the flags of chattr(1)")?;
        }
        self.ladder.copy(source, target.as_fd(), status.stx_size)?;
        let created = Created { mode: Some(made_with) };
        let seals = seen.source(Handle::Open(source)).copy_to(copy, created, scratch)?;
        Ok(Unsealed { target: Some(target), seals })
    }
}

/// Inode number of the root of every btrfs subvolume (`BTRFS_FIRST_FREE_OBJECTID`).
const SUBVOLUME_ROOT: u64 = 256;

/// Makes the directory and opens both; `None` when it is a subvolume of its own, which is moved
/// as a whole and not copied. `above` is the device number of the directory that holds it.
pub(crate) fn make_directory(
    place: &Place<'_>,
    above: (u32, u32),
    scratch: &mut Scratch,
) -> anyhow::Result<Option<(OwnedFd, OwnedFd, Statx)>> {
    let source = open_directory(place.source, place.name).context("cannot open the directory")?;
    let status = at::status_of(source.as_fd()).context("cannot read its attributes")?;
    if device(&status) != above {
        if status.stx_ino == SUBVOLUME_ROOT {
            return Ok(None);
        }
        // An empty stub where a snapshot left out a subvolume has a device number of its own
        // and nothing in it; it is restored as the empty directory that it looks like.
        anyhow::ensure!(
            is_stub(source.as_fd(), &status)?,
            "another filesystem is mounted here; unmount it"
        );
    }
    mkdirat(place.target, place.name, Mode::RWXU).context("cannot make the directory")?;
    let target =
        open_directory(place.target, place.name).context("cannot open the new directory")?;
    if place.inherits {
        Handle::Open(target.as_fd()).strip(Some(Mode::RWXU), scratch)?;
    }
    Ok(Some((source, target, status)))
}

/// Number of the device that holds an entry; each btrfs subvolume has one.
pub(crate) fn device(status: &Statx) -> (u32, u32) {
    (status.stx_dev_major, status.stx_dev_minor)
}

/// Whether an entry is the directory that stands for a subvolume in a snapshot of what holds it
/// (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`). `near` is that directory, or the one that it is in.
///
/// Its inode number tells, but on btrfs only: any directory of ZFS can have that number, and the root
/// of each ext4 has it.
pub(crate) fn is_stub(near: impl AsFd, status: &Statx) -> anyhow::Result<bool> {
    Ok(status.stx_ino == STUB_INODE && darlings_btrfs::is_btrfs(near)?)
}

/// One entry and where it goes.
pub(crate) struct Place<'a> {
    pub(crate) source: BorrowedFd<'a>,
    pub(crate) target: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
    pub(crate) kind: FileType,
    /// Whether the target's directory may give a new entry something of its own: not one that
    /// the walk made, whose attributes come when all that is in it is there.
    pub(crate) inherits: bool,
}

impl Place<'_> {
    /// Reads what is needed to make the entry anew, all but its bytes. A regular file is opened, and
    /// nothing else ever is.
    pub(crate) fn look(&self, scratch: &mut Scratch) -> anyhow::Result<Seen> {
        let (file, status) = if self.kind == FileType::RegularFile {
            let file = open_file(self.source, self.name).context("cannot open the file")?;
            let status = at::status_of(file.as_fd());
            (Some(file), status)
        } else {
            (None, at::status(self.source, self.name))
        };
        let status = status.context("cannot read its attributes")?;
        anyhow::ensure!(
            at::kind(&status) == self.kind,
            "it was replaced while it was read; is the volume mounted somewhere?"
        );
        let handle = match &file {
            Some(file) => Handle::Open(file.as_fd()),
            None => Handle::Named(self.source, self.name),
        };
        let flags = handle.flags().context("cannot read the flags of chattr(1)")?;
        let xattrs = handle.list(&mut scratch.names).context("cannot list extended attributes")?;
        let has_xattrs = !xattrs.is_empty();
        Ok(Seen { file, status, flags, has_xattrs })
    }
}

/// What was read of an entry that is no directory.
pub(crate) struct Seen {
    /// Open, if it is a regular file.
    file: Option<OwnedFd>,
    status: Statx,
    flags: IFlags,
    has_xattrs: bool,
}

impl Seen {
    /// Its bytes, if it is a regular file.
    pub(crate) fn bytes(&self) -> u64 {
        if self.file.is_some() { self.status.stx_size } else { 0 }
    }

    fn source<'s>(&'s self, handle: Handle<'s>) -> Source<'s> {
        let Self { status, flags, has_xattrs, .. } = self;
        Source { handle, status, flags: *flags, has_xattrs: *has_xattrs }
    }
}

/// A file that is complete but for the flags that seal it.
struct Unsealed {
    target: Option<OwnedFd>,
    seals: IFlags,
}

impl Unsealed {
    fn nothing() -> Self {
        Self { target: None, seals: IFlags::empty() }
    }

    fn seal(self) -> anyhow::Result<()> {
        match self.target {
            Some(target) => seal(target.as_fd(), self.seals).context("cannot set its flags"),
            None => Ok(()),
        }
    }
}

/// Makes a symbolic link, a fifo, a socket or a device.
fn restore_special(place: &Place<'_>, seen: &Seen, scratch: &mut Scratch) -> anyhow::Result<()> {
    let status = &seen.status;
    let kind = at::kind(status);
    let mode = permissions(status);
    let made_with = match kind {
        FileType::Symlink => {
            let link = readlinkat(place.source, place.name, Vec::new())
                .context("cannot read the symbolic link")?;
            symlinkat(&link, place.target, place.name).context("cannot make the symbolic link")?;
            None
        }
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            let device = makedev(status.stx_rdev_major, status.stx_rdev_minor);
            mknodat(place.target, place.name, kind, mode, device)
                .with_context(|| format!("cannot make the {}", at::Kind::from(kind)))?;
            Some(mode)
        }
        FileType::RegularFile | FileType::Directory | FileType::Unknown => {
            anyhow::bail!("it became a {} while it was read", at::Kind::from(kind))
        }
    };
    let target = Handle::Named(place.target, place.name);
    if place.inherits {
        target.strip(made_with, scratch)?;
    }
    let handle = Handle::Named(place.source, place.name);
    seen.source(handle).copy_to(target, Created { mode: made_with }, scratch).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

    use super::*;

    #[test]
    fn a_directory_with_the_number_of_a_stub_is_one_on_btrfs_only() {
        let proc = std::fs::File::open("/proc").unwrap();
        let mut status = at::status_of(proc.as_fd()).unwrap();
        status.stx_ino = STUB_INODE;
        assert!(!is_stub(proc.as_fd(), &status).unwrap());
    }
}
