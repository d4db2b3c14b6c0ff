//! One subvolume: what it is, making it, its read-only flag, deleting it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};

use linux_raw_sys::btrfs::{BTRFS_ROOT_SUBVOL_RDONLY, BTRFS_SUBVOL_RDONLY};
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::default::default_subvolume;
use crate::error::{
    Error, ErrorKind, Result, Subject, component, ioctl_meaning, on_btrfs, usual_meaning,
};
use crate::ids::{ROOT_INODE, STUB_INODE, TOP_LEVEL};
use crate::ioctl;
use crate::uuid::Uuid;

/// What a directory entry is to btrfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The root directory of a subvolume.
    SubvolumeRoot,
    /// The place where the snapshot's source has a nested subvolume. It is not a
    /// subvolume, holds nothing, and nothing can be made in it.
    Stub,
    /// A file or directory of the subvolume that it lies in.
    Ordinary,
}

/// What an entry of a btrfs filesystem is, by its inode number.
///
/// Numbers below 256 are the filesystem's own and never given to a file
/// (`BTRFS_FIRST_FREE_OBJECTID`), so that the number alone decides. Only on btrfs:
/// other filesystems have ordinary inodes 2 and 256.
#[must_use]
pub fn entry_kind(inode: u64) -> EntryKind {
    match inode {
        ROOT_INODE => EntryKind::SubvolumeRoot,
        STUB_INODE => EntryKind::Stub,
        _ => EntryKind::Ordinary,
    }
}

/// What the filesystem records about a subvolume (`BTRFS_IOC_GET_SUBVOL_INFO`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubvolumeInfo {
    /// Its id, which no other subvolume of the filesystem ever had.
    pub id: u64,
    /// The subvolume in which its name is. `None` for the top level, and for one that
    /// is deleted and still open.
    pub parent_id: Option<u64>,
    /// The inode of the directory, in the parent, in which its name is.
    pub dir_id: Option<u64>,
    /// Its name in that directory; empty where there is no parent.
    pub name: OsString,
    /// The transaction that last changed it.
    pub generation: u64,
    /// The transaction that made it. What a snapshot has of a later one was changed in it since.
    pub made: u64,
    /// Whether its content is read-only.
    pub read_only: bool,
    /// Its own identifier. Only a top level made by an old `mkfs.btrfs` has none.
    pub uuid: Option<Uuid>,
    /// Of which subvolume it is a snapshot; that one may be gone.
    pub parent_uuid: Option<Uuid>,
    /// Of which subvolume, on another machine perhaps, `btrfs receive` made it.
    pub received_uuid: Option<Uuid>,
}

/// Whether a snapshot or a mount can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It cannot be changed.
    ReadOnly,
    /// It can.
    Writable,
}

fn failed(
    file: BorrowedFd<'_>,
    operation: &'static str,
    subject: Subject,
) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::system(operation, subject, ioctl_meaning(file, errno), errno)
}

/// Whether the file is on a btrfs filesystem (`statfs(2)`; an `O_PATH` descriptor
/// will do, and a stub is too).
pub fn is_btrfs(file: impl AsFd) -> Result<bool> {
    on_btrfs(file.as_fd()).map_err(|errno| {
        Error::system(
            "reading the kind of the filesystem",
            Subject::Descriptor,
            usual_meaning(errno),
            errno,
        )
    })
}

/// The identifier of the filesystem, as `blkid` and `/dev/disk/by-uuid` show it
/// (`BTRFS_IOC_FS_INFO`).
pub fn filesystem_uuid(file: impl AsFd) -> Result<Uuid> {
    let file = file.as_fd();
    let operation = "reading the identifier of the filesystem";
    ioctl::filesystem_uuid(file).map(Uuid::new).map_err(failed(
        file,
        operation,
        Subject::Descriptor,
    ))
}

/// The id of the subvolume in which the file is (`BTRFS_IOC_INO_LOOKUP` with tree 0).
///
/// Needs no privilege. A stub is in no subvolume: [`ErrorKind::Stub`].
pub fn subvolume_id(file: impl AsFd) -> Result<u64> {
    let file = file.as_fd();
    let operation = "reading the subvolume's id";
    ioctl::containing_tree(file).map_err(failed(file, operation, Subject::Descriptor))
}

/// What the filesystem records about the subvolume in which the file is.
///
/// [`ErrorKind::NotFound`] for a subvolume that is deleted and still open.
pub fn subvolume_info(file: impl AsFd) -> Result<SubvolumeInfo> {
    let file = file.as_fd();
    let operation = "reading the subvolume's record";
    let info = ioctl::subvolume_info(file).map_err(failed(file, operation, Subject::Descriptor))?;
    Ok(SubvolumeInfo {
        id: info.treeid,
        parent_id: (info.parent_id != 0).then_some(info.parent_id),
        dir_id: (info.dirid != 0).then_some(info.dirid),
        name: ioctl::from_chars(&info.name),
        generation: info.generation,
        made: info.otransid,
        read_only: info.flags & u64::from(BTRFS_ROOT_SUBVOL_RDONLY) != 0,
        uuid: Uuid::present(info.uuid),
        parent_uuid: Uuid::present(info.parent_uuid),
        received_uuid: Uuid::present(info.received_uuid),
    })
}

/// Refuses what is not the root directory of a subvolume, before an ioctl that
/// would take its whole subvolume instead or say no more than `EINVAL`.
fn require_root(
    operation: &'static str,
    subject: &Subject,
    subvolume: BorrowedFd<'_>,
) -> Result<()> {
    let refused = |kind| Err(Error::new(operation, subject.clone(), kind));
    if !on_btrfs(subvolume).map_err(failed(subvolume, operation, subject.clone()))? {
        return refused(ErrorKind::NotBtrfs);
    }
    let found = fstat(subvolume).map_err(failed(subvolume, operation, subject.clone()))?;
    match entry_kind(found.st_ino) {
        EntryKind::SubvolumeRoot => Ok(()),
        EntryKind::Stub => refused(ErrorKind::Stub),
        EntryKind::Ordinary => refused(ErrorKind::NotASubvolume),
    }
}

/// Makes an empty subvolume (`BTRFS_IOC_SUBVOL_CREATE_V2`).
///
/// Its root directory gets the owner of the calling process, and mode 0777 less the
/// umask. Durable after [`sync`](crate::sync). [`ErrorKind::AlreadyExists`], [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`].
pub fn create_subvolume(parent: impl AsFd, name: &OsStr) -> Result<()> {
    let operation = "creating subvolume";
    let parent = parent.as_fd();
    let name = component(operation, name)?;
    ioctl::create_subvolume(parent, name).map_err(failed(
        parent,
        operation,
        Subject::Name(name.to_owned()),
    ))
}

/// Makes a snapshot of `source`, the root directory of a subvolume, in `parent`
/// (`BTRFS_IOC_SNAP_CREATE_V2`).
///
/// The snapshot is of one instant, and durable when this returns. Subvolumes nested in
/// the source are stubs in it. A read-only source gives a writable snapshot if asked to.
/// The two may be reached through different mounts of the filesystem (*measured*).
///
/// [`ErrorKind::NotASubvolume`] for any other directory; [`ErrorKind::CrossesMounts`]
/// when the two are on different filesystems.
pub fn snapshot(source: impl AsFd, parent: impl AsFd, name: &OsStr, access: Access) -> Result<()> {
    let operation = "making snapshot";
    let (source, parent) = (source.as_fd(), parent.as_fd());
    let name = component(operation, name)?;
    let subject = Subject::Name(name.to_owned());
    require_root(operation, &subject, source)?;
    ioctl::create_snapshot(source, parent, name, access == Access::ReadOnly)
        .map_err(failed(parent, operation, subject))
}

/// Whether the subvolume's content is read-only (`BTRFS_IOC_SUBVOL_GETFLAGS`).
/// `subvolume` must be its root directory.
pub fn is_read_only(subvolume: impl AsFd) -> Result<bool> {
    let operation = "reading the read-only flag";
    let subvolume = subvolume.as_fd();
    require_root(operation, &Subject::Descriptor, subvolume)?;
    ioctl::subvolume_flags(subvolume)
        .map(|flags| flags & u64::from(BTRFS_SUBVOL_RDONLY) != 0)
        .map_err(failed(subvolume, operation, Subject::Descriptor))
}

/// Makes the subvolume's content read-only, or writable again
/// (`BTRFS_IOC_SUBVOL_SETFLAGS`), unless it is that already. `subvolume` must be its root
/// directory. Durable when this returns; content written just before is so only after
/// [`sync`](crate::sync).
///
/// It takes effect at once, on every mount of the subvolume (*measured*). A received
/// subvolume keeps its `received_uuid` through writable and back (*measured*), so that it
/// goes on counting as what was sent: whoever makes one writable must not change its
/// content. (`btrfs property set` refuses this without `-f`; the kernel does not.)
/// A writable snapshot of it has no `received_uuid`.
///
/// [`ErrorKind::NotPermitted`] while `btrfs send` reads it.
pub fn set_read_only(subvolume: impl AsFd, read_only: bool) -> Result<()> {
    let operation =
        if read_only { "setting the read-only flag" } else { "clearing the read-only flag" };
    let subvolume = subvolume.as_fd();
    require_root(operation, &Subject::Descriptor, subvolume)?;
    let flags = ioctl::subvolume_flags(subvolume).map_err(failed(
        subvolume,
        operation,
        Subject::Descriptor,
    ))?;
    let flag = u64::from(BTRFS_SUBVOL_RDONLY);
    let wanted = if read_only { flags | flag } else { flags & !flag };
    if wanted == flags {
        return Ok(());
    }
    ioctl::set_subvolume_flags(subvolume, wanted).map_err(failed(
        subvolume,
        operation,
        Subject::Descriptor,
    ))
}

/// Deletes the subvolume with that name in `parent` (`BTRFS_IOC_SNAP_DESTROY_V2`).
///
/// The name is gone when this returns; the space comes back bit by bit from the
/// kernel's cleaner, also after a reboot. Durable after [`sync`](crate::sync).
///
/// **btrfs deletes a subvolume that is mounted elsewhere**, and detaches what is mounted
/// on it, without a word (*measured*): programs on it go on with a tree in which nothing
/// can be made. Whoever must not do that reads `/proc/self/mountinfo` first.
///
/// What stops it, *measured*:
///
/// - subvolumes nested in it: [`ErrorKind::HasNestedSubvolumes`]; see
///   [`delete_subvolume_recursive`](crate::delete_subvolume_recursive);
/// - being the default subvolume (`EPERM`): [`ErrorKind::IsDefault`];
/// - an immutable or append-only flag on its root directory or on the directory in which
///   its name is (`EPERM`): [`ErrorKind::NotPermitted`]. Those flags on its content do
///   not matter;
/// - being nested in a read-only subvolume: [`ErrorKind::ReadOnly`]. Its own
///   read-only flag does not matter.
///
/// A stub, an ordinary directory, a file or a symlink is [`ErrorKind::NotASubvolume`];
/// `rmdir` removes a stub.
pub fn delete_subvolume(parent: impl AsFd, name: &OsStr) -> Result<()> {
    let operation = "deleting subvolume";
    let parent = parent.as_fd();
    let name = component(operation, name)?;
    ioctl::destroy_by_name(parent, name).map_err(|errno| {
        let kind = match errno {
            Errno::NOTEMPTY => ErrorKind::HasNestedSubvolumes,
            Errno::INVAL | Errno::NOTDIR => ErrorKind::NotASubvolume,
            Errno::PERM if named_is_default(parent, name) => ErrorKind::IsDefault,
            other => ioctl_meaning(parent, other),
        };
        Error::system(operation, Subject::Name(name.to_owned()), kind, errno)
    })
}

/// Deletes the subvolume with that id, wherever in the filesystem its name is
/// (`BTRFS_IOC_SNAP_DESTROY_V2` with `BTRFS_SUBVOL_SPEC_BY_ID`, Linux 5.7).
///
/// `directory` is any open directory of the filesystem, on a writable mount. Needs
/// `CAP_SYS_ADMIN`. All that [`delete_subvolume`] says is true here as well. An id that
/// no subvolume has is [`ErrorKind::NotFound`], [`TOP_LEVEL`] is [`ErrorKind::TopLevel`].
pub fn delete_subvolume_by_id(directory: impl AsFd, id: u64) -> Result<()> {
    let operation = "deleting subvolume";
    let directory = directory.as_fd();
    refuse_top_level(operation, id)?;
    ioctl::destroy_by_id(directory, id).map_err(|errno| {
        let kind = match errno {
            Errno::NOTEMPTY => ErrorKind::HasNestedSubvolumes,
            Errno::PERM if is_default(directory, id) => ErrorKind::IsDefault,
            // The kernel's words for an id that is not one of a subvolume.
            Errno::INVAL => ErrorKind::NotFound,
            other => ioctl_meaning(directory, other),
        };
        Error::system(operation, Subject::Id(id), kind, errno)
    })
}

/// An error of its own, before anything below it is touched.
pub(crate) fn refuse_top_level(operation: &'static str, id: u64) -> Result<()> {
    if id == TOP_LEVEL {
        Err(Error::new(operation, Subject::Id(id), ErrorKind::TopLevel))
    } else {
        Ok(())
    }
}

/// Whether a refused deletion was refused for this. Where even that cannot be read, the
/// refusal itself is what there is to report, and it is reported.
fn is_default(file: BorrowedFd<'_>, id: u64) -> bool {
    matches!(default_subvolume(file), Ok(default) if default == id)
}

fn named_is_default(parent: BorrowedFd<'_>, name: &OsStr) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
        .is_ok_and(|opened| matches!(subvolume_id(&opened), Ok(id) if is_default(parent, id)))
}
