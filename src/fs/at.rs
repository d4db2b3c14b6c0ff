//! Opening and reading relative to a directory descriptor.
//!
//! Kept files are untrusted: users own them and may have put a symbolic link anywhere. So
//! nothing here follows one, and nothing leaves the directory it starts from (openat2(2)).

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, openat, openat2,
    statx,
};
use rustix::io::Errno;

/// Flags for every descriptor that is read from: no access times change, a fifo or a device
/// put in a file's place cannot make the open hang.
const READ: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOATIME)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Longest path handed to the kernel in one piece; `PATH_MAX` is 4096 with the NUL.
const PIECE: usize = 4000;

/// A name as the kernel wants it. Names that come from a directory hold no NUL.
///
/// # Errors
/// `EINVAL` when the name holds a NUL.
pub fn c_name(name: &OsStr) -> Result<CString, Errno> {
    CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)
}

/// A name as the standard library wants it.
#[must_use]
pub fn os_name(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

/// `None` when the error says that there is nothing at the path; any other error stays one.
///
/// # Errors
/// Every error but `ENOENT`.
pub fn present<T, E: Into<io::Error>>(result: Result<T, E>) -> io::Result<Option<T>> {
    match result.map_err(Into::into) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the directory `name` in `parent` for reading its entries.
///
/// # Errors
/// As openat(2); `ENOTDIR` or `ELOOP` when it is no directory.
pub fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, READ | OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())
}

/// Opens the regular file `name` in `parent` for reading.
///
/// # Errors
/// As openat(2); `ELOOP` when it is a symbolic link.
pub fn open_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, READ | OFlags::RDONLY, Mode::empty())
}

/// Opens the directory at `path` below `root`; an empty path is `root` itself.
/// Longer than `PATH_MAX` is allowed.
///
/// # Errors
/// As openat2(2); `ELOOP` when a component is a symbolic link, `ENOTDIR` when it is another
/// non-directory.
pub fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = READ.difference(OFlags::NOFOLLOW) | OFlags::DIRECTORY;
    let open = |at: BorrowedFd<'_>, path: &Path| openat2(at, path, flags, Mode::empty(), BENEATH);
    if path.as_os_str().is_empty() {
        return Ok(openat(root, c".", READ | OFlags::DIRECTORY, Mode::empty())?);
    }
    if path.as_os_str().len() < PIECE {
        return Ok(open(root, path)?);
    }
    let mut at: Option<OwnedFd> = None;
    let mut piece = PathBuf::new();
    for name in path {
        if piece.as_os_str().len() + name.len() >= PIECE {
            at = Some(open(at.as_ref().map_or(root, AsFd::as_fd), &piece)?);
            piece.clear();
        }
        piece.push(name);
    }
    Ok(open(at.as_ref().map_or(root, AsFd::as_fd), &piece)?)
}

/// Looks at what is at `path` below `root`, itself if it is a symbolic link; `None` when the way
/// there is not one of directories of one filesystem, or too long for one call, so that a closer
/// look must tell.
///
/// # Errors
/// Any other error of openat2(2) and statx(2).
pub fn status_beneath(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Statx>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), BENEATH) {
        Ok(entry) => Ok(Some(status_of(entry.as_fd())?)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The directory at `path` below `root`, or `None` when there is none: nothing there,
/// or something on the way or at the end that is no directory.
///
/// # Errors
/// Any other error of openat2(2).
pub fn directory_beneath(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_beneath(root, path) {
        Err(error)
            if [Errno::LOOP, Errno::NOTDIR]
                .map(Errno::raw_os_error)
                .contains(&error.raw_os_error().unwrap_or(0)) =>
        {
            Ok(None)
        }
        result => present(result),
    }
}

/// The attributes of `name` in `parent`, of a symbolic link itself. Of what is mounted there nobody is
/// asked: a user's FUSE filesystem may never answer, and it refuses root; then it is a directory, of which
/// nothing is known but that it is mounted.
pub fn status(parent: BorrowedFd<'_>, name: &CStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(parent, name, flags, StatxFlags::BASIC_STATS) {
        Err(Errno::ACCESS) => {
            let mut status = statx(parent, name, flags, StatxFlags::empty())?;
            if !is_mounted_on(&status) {
                return Err(Errno::ACCESS);
            }
            status.stx_mode = u16::try_from(FileType::Directory.as_raw_mode()).unwrap_or_default();
            Ok(status)
        }
        status => status,
    }
}

/// Whether another filesystem is mounted on an entry, as seen through this one.
#[must_use]
pub fn is_mounted_on(status: &Statx) -> bool {
    status.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
}

/// The attributes of what `file` refers to.
pub fn status_of(file: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// The type in a file's mode.
#[must_use]
pub fn kind(status: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(status.stx_mode))
}

/// What an entry is, for a person and for JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else: it has no content of its own that could be read.
    Other(FileType),
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Other(FileType::Fifo) => "fifo",
            Self::Other(FileType::Socket) => "socket",
            Self::Other(FileType::CharacterDevice) => "character device",
            Self::Other(FileType::BlockDevice) => "block device",
            Self::Other(_) => "entry of unknown type",
        })
    }
}

impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One directory entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: CString,
    /// Its type as the directory tells it; `Unknown` where the filesystem does not.
    pub kind: FileType,
    /// Its inode number as the directory tells it: of what is mounted on it, or of a subvolume of
    /// btrfs, it is another one.
    pub inode: u64,
}

/// Memory for the entries of a directory, in bytes. Directories are read in batches of this
/// size, so that memory does not grow with their length.
pub const BATCH: usize = 32 * 1024;

/// Reads the next batch of entries of `directory`, without `.` and `..`.
/// Nothing more when it is empty.
pub fn next_batch(
    directory: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<Vec<Entry>, Errno> {
    let mut batch = Vec::new();
    loop {
        let mut raw = RawDir::new(directory, buffer);
        let mut any = false;
        while let Some(entry) = raw.next() {
            let entry = entry?;
            any = true;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let (kind, inode) = (entry.file_type(), entry.ino());
                batch.push(Entry { name: name.to_owned(), kind, inode });
            }
            if raw.is_buffer_empty() {
                break;
            }
        }
        // A batch may hold nothing but the two dots, which is not the end.
        if !any || !batch.is_empty() {
            return Ok(batch);
        }
    }
}

/// All names in a directory. For directories of our own, and roots: it holds them all.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let directory = open_beneath(directory, Path::new(""))?;
    let mut buffer = vec![MaybeUninit::uninit(); BATCH];
    let mut names = Vec::new();
    loop {
        let batch = next_batch(directory.as_fd(), &mut buffer)?;
        if batch.is_empty() {
            return Ok(names);
        }
        names.extend(batch.into_iter().map(|entry| entry.name));
    }
}

/// Whether a directory holds nothing. Users' directories may be long: no more than a batch is read.
pub fn is_empty(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let directory = open_beneath(directory, Path::new(""))?;
    Ok(next_batch(directory.as_fd(), &mut vec![MaybeUninit::uninit(); BATCH])?.is_empty())
}

/// A path through which calls that know only paths reach `name` in `parent`, for entries that
/// must not be opened (devices, fifos) or cannot be (symbolic links). It does not follow `name`
/// itself when the call does not (`lsetxattr` and its like).
#[must_use]
pub fn magic_path(parent: BorrowedFd<'_>, name: &CStr) -> CString {
    use std::os::fd::AsRawFd as _;
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    // No NUL can be inside: the number has none and `name` ends at its own.
    CString::new(path).unwrap_or_else(|_| unreachable!("BUG: a NUL within a C string"))
}

/// Splits a path into the directory and the name in it; `None` for an empty path.
#[must_use]
pub fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

/// Opens the parent of `path` below `root` and gives the name in it.
///
/// # Errors
/// As [`open_beneath`]; `EINVAL` for an empty path.
pub fn open_parent(root: impl AsFd, path: &Path) -> io::Result<(OwnedFd, CString)> {
    let (parent, name) = split(path).ok_or(Errno::INVAL)?;
    Ok((open_beneath(root.as_fd(), parent)?, c_name(name)?))
}

/// Joins two paths; an empty one would put a slash at the end.
#[must_use]
pub fn joined(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

/// Joins a name from a directory to a path.
#[must_use]
pub fn join(path: &Path, name: &CStr) -> PathBuf {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if !bytes.is_empty() {
        bytes.push(b'/');
    }
    bytes.extend_from_slice(name.to_bytes());
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
