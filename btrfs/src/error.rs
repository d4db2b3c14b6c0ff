//! What can go wrong, with the words for it.
//!
//! The errno gets its meaning where the call is made, because the same number
//! means different things in different calls: `EPERM` from a deletion may be
//! the default subvolume, from a rename it is an immutable flag. The number is
//! kept as the [`source`](std::error::Error::source) in every case.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use linux_raw_sys::general::BTRFS_SUPER_MAGIC;
use rustix::fs::fstatfs;
use rustix::io::Errno;

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation that failed: what was tried, on what, and why it did not work.
///
/// Match on [`Error::kind`]. The text says the reason in words; the system's own
/// error, where there is one, is the [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject}: {kind}")]
pub struct Error {
    operation: &'static str,
    subject: Subject,
    kind: ErrorKind,
    #[source]
    source: Option<Errno>,
}

/// What an operation was about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// The file that an open descriptor stands for.
    Descriptor,
    /// One entry of a directory.
    Name(OsString),
    /// Two entries, the first one being moved to, or exchanged with, the second.
    Names(OsString, OsString),
    /// A subvolume, by its id.
    Id(u64),
    /// A path, as the caller or the filesystem spelled it.
    Path(PathBuf),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor => f.write_str("of an open file"),
            // Users choose names: quoted, and escaped.
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Names(from, to) => write!(f, "{from:?} and {to:?}"),
            Self::Id(id) => write!(f, "with id {id}"),
            Self::Path(path) => write!(f, "{path:?}"),
        }
    }
}

/// Why an operation failed, as far as it changes what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file, or the device, is not on a btrfs filesystem.
    #[error("this is not a btrfs filesystem")]
    NotBtrfs,
    /// The entry exists and is something other than the root of a subvolume.
    #[error("this is not a subvolume")]
    NotASubvolume,
    /// The file is a stub: an empty directory that stands in a snapshot for a
    /// subvolume nested in the snapshot's source.
    #[error("this is the stub of a subvolume that the snapshot left out")]
    Stub,
    /// The top level holds all other subvolumes, and cannot be deleted.
    #[error("this is the top level of the filesystem, which cannot be deleted")]
    TopLevel,
    /// A directory and something else were to take each other's place.
    #[error("one of the two is not a directory")]
    NotADirectory,
    /// No such entry, or no subvolume with that id. Nothing else is "absent".
    #[error("it does not exist")]
    NotFound,
    /// The name is taken.
    #[error("something with that name exists already")]
    AlreadyExists,
    /// The subvolume holds other subvolumes; they have to go first.
    #[error("other subvolumes are nested in it")]
    HasNestedSubvolumes,
    /// The directory in the place of the target is not empty, or what was to
    /// be moved is a stub (which btrfs reports in the same way).
    #[error("the target is not an empty directory, or the source is a stub of a subvolume")]
    NotEmpty,
    /// The filesystem mounts this subvolume by default, and btrfs refuses to
    /// delete it until another one is the default.
    #[error(
        "it is the default subvolume of the filesystem; make another one the default before deleting it"
    )]
    IsDefault,
    /// The filesystem, or a subvolume that had to change, is read-only.
    #[error("it is read-only")]
    ReadOnly,
    /// Missing privilege, an immutable or append-only flag, or a subvolume that
    /// is in use by send or holds an active swap file.
    #[error("not permitted: needs root, and no immutable flag, send or swap file in the way")]
    NotPermitted,
    /// Something holds it: a mount point, another mount, an open file.
    #[error("it is in use")]
    Busy,
    /// The two places are on different filesystems, or on different mounts of one.
    #[error("the two places are not on the same mount of the same filesystem")]
    CrossesMounts,
    /// A subvolume was to be moved into itself.
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    /// The filesystem is full.
    #[error("no space is left on the filesystem")]
    NoSpace,
    /// The name is not a single component: empty, `.`, `..`, longer than 255
    /// bytes, or with a slash or NUL in it.
    #[error("a name must be one path component of at most 255 bytes")]
    InvalidName,
    /// There is no device at the path that was to be mounted, or another device of
    /// the same filesystem has not been found (yet).
    #[error("the device, or another one of the same filesystem, is missing")]
    DeviceMissing,
    /// What was to be mounted is not a block device.
    #[error("this is not a block device")]
    NotABlockDevice,
    /// There is no directory to mount on.
    #[error("there is no such directory to mount on")]
    MountPointMissing,
    /// The path to unmount is not a mount point.
    #[error("nothing is mounted there")]
    NotMounted,
    /// The kernel was built without btrfs, or the module could not be loaded.
    #[error("the running kernel has no btrfs")]
    NoBtrfsInKernel,
    /// The filesystem answered with something that its format does not allow.
    #[error("the filesystem's records are not as its format says: {0}")]
    Malformed(&'static str),
    /// Anything else; the number is the source.
    #[error("the system call failed")]
    Other,
}

impl Error {
    pub(crate) fn new(operation: &'static str, subject: Subject, kind: ErrorKind) -> Self {
        Self { operation, subject, kind, source: None }
    }

    pub(crate) fn system(
        operation: &'static str,
        subject: Subject,
        kind: ErrorKind,
        errno: Errno,
    ) -> Self {
        Self { operation, subject, kind, source: Some(errno) }
    }

    /// Why it failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done, as a phrase (`"deleting subvolume"`).
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// What it was done to.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The system's error number, unless this crate itself refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.source
    }
}

/// The meaning an errno has in nearly every call; a call with a meaning of its
/// own looks at the errno first and comes here for the rest.
pub(crate) fn usual_meaning(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::EXIST => ErrorKind::AlreadyExists,
        Errno::ROFS => ErrorKind::ReadOnly,
        Errno::PERM | Errno::ACCESS => ErrorKind::NotPermitted,
        Errno::BUSY => ErrorKind::Busy,
        Errno::XDEV => ErrorKind::CrossesMounts,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::NoSpace,
        _ => ErrorKind::Other,
    }
}

/// The meaning an errno has in an ioctl on this file. The numbers of btrfs are
/// unknown to every other filesystem, and to a stub (*measured*).
pub(crate) fn ioctl_meaning(file: BorrowedFd<'_>, errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOTTY if on_btrfs(file) == Ok(true) => ErrorKind::Stub,
        Errno::NOTTY => ErrorKind::NotBtrfs,
        other => usual_meaning(other),
    }
}

/// Whether the file is on btrfs, by the filesystem's magic number.
pub(crate) fn on_btrfs(file: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    // The type of this field differs between architectures, in width and in sign;
    // the magic number is 32 bits on all of them.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the field's sign and width differ between architectures"
    )]
    let magic = fstatfs(file)?.f_type as u32;
    Ok(magic == BTRFS_SUPER_MAGIC)
}

/// The name, if it is a single component that the kernel can take.
pub(crate) fn component<'a>(operation: &'static str, name: &'a OsStr) -> Result<&'a OsStr> {
    let bytes = name.as_encoded_bytes();
    let acceptable = !matches!(bytes, b"" | b"." | b"..")
        && bytes.len() <= 255
        && !bytes.iter().any(|byte| matches!(byte, b'/' | 0));
    if acceptable {
        Ok(name)
    } else {
        Err(Error::new(operation, Subject::Name(name.to_owned()), ErrorKind::InvalidName))
    }
}
