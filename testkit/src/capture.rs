//! Writing down a tree as it is, without changing it, not even its access times.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, FileType, OFlags, SeekFrom, Statx, StatxAttributes, StatxTimestamp};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::descent::{Descent, Identity, open_quietly, stat};
use crate::flags::Flags;
use crate::names::{ByteString, RelPath};
use crate::project;
use crate::tree::{Entry, Kind, Time, Tree};

const BTRFS: u64 = 0x9123_683e;
const ZFS: u64 = 0x2fc1_2fc1;
/// The inode number of the root directory of every btrfs subvolume.
const SUBVOLUME_ROOT: u64 = 256;
/// The inode number of the made-up directory where a snapshot had a nested subvolume.
const SUBVOLUME_STUB: u64 = 2;

/// Writes down every entry below `root` (and `root` itself) with every attribute.
///
/// Other filesystems and subvolumes are recorded but not entered, and ZFS's own `.zfs` is left out.
/// Reading a symlink's target moves its access time and nothing can stop that, so it is put back.
pub fn capture(root: &Path) -> Result<Tree> {
    let mut descent = Descent::open(root)?;
    let magic = rustix::fs::fstatfs(descent.fd())?.f_type.cast_unsigned();
    let mut capture = Capture { magic, tree: Tree::default(), linked: BTreeMap::new() };

    let origin = RelPath::root();
    capture
        .entry(descent.fd(), b".", &origin)
        .with_context(|| format!("cannot capture {}", root.display()))?;
    let mut pending = vec![(origin, capture.names(&descent)?.into_iter())];

    while let Some((directory, names)) = pending.last_mut() {
        let Some(name) = names.next() else {
            pending.pop();
            if !pending.is_empty() {
                descent.leave()?;
            }
            continue;
        };
        let path = directory.join(&name);
        let told = || format!("cannot capture {path} below {}", root.display());
        if capture.entry(descent.fd(), &name, &path).with_context(told)? {
            descent.enter(&name).with_context(told)?;
            let names = capture.names(&descent).with_context(told)?;
            pending.push((path, names.into_iter()));
        }
    }

    let Capture { mut tree, linked, .. } = capture;
    tree.regroup(|path, _| linked.get(path).copied());
    Ok(tree)
}

struct Capture {
    magic: u64,
    tree: Tree,
    /// The inodes that have more than one name somewhere.
    linked: BTreeMap<RelPath, Identity>,
}

impl Capture {
    fn names(&self, descent: &Descent) -> Result<Vec<Vec<u8>>> {
        let mut names = descent.names()?;
        if self.magic == ZFS && descent.depth() == 0 {
            names.retain(|name| name != b".zfs");
        }
        Ok(names)
    }

    /// Records one entry; says whether it is a directory to go into.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &RelPath) -> Result<bool> {
        let found = stat(dir, name).context("statx")?;
        let kind = self.kind(dir, name, path, &found)?;
        let enter = kind == Kind::Directory;
        if found.stx_nlink > 1 && !kind.is_directory() {
            self.linked.insert(path.clone(), Identity::of(&found));
        }
        let made_up = matches!(kind, Kind::SubvolumeStub | Kind::MountPoint);
        let entry = if made_up { bare(kind) } else { described(dir, name, &found, kind)? };
        self.tree.entries.insert(path.clone(), entry);
        Ok(enter)
    }

    fn kind(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &RelPath,
        found: &Statx,
    ) -> Result<Kind> {
        let (major, minor) = (found.stx_rdev_major, found.stx_rdev_minor);
        Ok(match FileType::from_raw_mode(u32::from(found.stx_mode)) {
            FileType::Directory if path.is_root() => Kind::Directory,
            FileType::Directory if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => {
                Kind::MountPoint
            }
            FileType::Directory if self.magic == BTRFS && found.stx_ino == SUBVOLUME_ROOT => {
                Kind::Subvolume
            }
            FileType::Directory if self.magic == BTRFS && found.stx_ino == SUBVOLUME_STUB => {
                Kind::SubvolumeStub
            }
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => file(dir, name, found)?,
            FileType::Symlink => Kind::Symlink { target: target(dir, name, found)? },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharacterDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Unknown => anyhow::bail!("mode {:o} is no known type", found.stx_mode),
        })
    }
}

fn bare(kind: Kind) -> Entry {
    Entry {
        kind,
        owner: 0,
        group: 0,
        mode: 0,
        mtime: Time::default(),
        atime: Time::default(),
        xattrs: BTreeMap::new(),
        flags: Flags::default(),
        project: 0,
        links: None,
    }
}

fn described(dir: BorrowedFd<'_>, name: &[u8], found: &Statx, kind: Kind) -> Result<Entry> {
    let mut entry = Entry {
        owner: found.stx_uid,
        group: found.stx_gid,
        mode: u32::from(found.stx_mode) & 0o7777,
        mtime: time(found.stx_mtime),
        atime: time(found.stx_atime),
        xattrs: xattrs(dir, name)?,
        ..bare(kind)
    };
    // To open a fifo or a device does something, and none but these two have flags.
    if matches!(entry.kind, Kind::File { .. } | Kind::Directory | Kind::Subvolume) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = open_quietly(dir, name, flags).context("open for its flags")?;
        entry.flags = Flags::read(&opened).context("FS_IOC_GETFLAGS")?.unwrap_or_default();
        entry.project = project::read(&opened).context("FS_IOC_FSGETXATTR")?;
    }
    Ok(entry)
}

const fn time(stamp: StatxTimestamp) -> Time {
    Time { seconds: stamp.tv_sec, nanoseconds: stamp.tv_nsec }
}

/// The path by which the kernel finds a name in an open directory, however deep that is.
fn through_proc(dir: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(OsStr::from_bytes(name))
}

fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> Result<BTreeMap<ByteString, ByteString>> {
    let path = through_proc(dir, name);
    let listed = match xattr::list(&path) {
        Ok(listed) => listed,
        Err(why) if why.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            return Ok(BTreeMap::new());
        }
        Err(why) => return Err(why).context("llistxattr"),
    };
    let mut xattrs = BTreeMap::new();
    for name in listed {
        let value =
            xattr::get(&path, &name).with_context(|| format!("lgetxattr {}", name.display()))?;
        let value =
            value.with_context(|| format!("{} was listed and is not there", name.display()))?;
        xattrs.insert(ByteString(name.into_vec()), ByteString(value));
    }
    Ok(xattrs)
}

fn target(dir: BorrowedFd<'_>, name: &[u8], before: &Statx) -> Result<ByteString> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new()).context("readlink")?;
    let after = stat(dir, name).context("statx")?;
    if time(after.stx_atime) != time(before.stx_atime) {
        let atime =
            Timespec { tv_sec: before.stx_atime.tv_sec, tv_nsec: before.stx_atime.tv_nsec.into() };
        let times = Timestamps {
            last_access: atime,
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        match rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            // Not ours to put back: then it is not ours to compare either.
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno).context("utimensat, to put an access time back"),
        }
    }
    Ok(ByteString(target.into_bytes()))
}

fn file(dir: BorrowedFd<'_>, name: &[u8], found: &Statx) -> Result<Kind> {
    let opened = open_quietly(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)
        .context("open")?;
    let size = found.stx_size;
    let holes = holes(&opened, size).context("SEEK_HOLE")?;
    let sha256 = hash(&opened, size, &holes).context("read")?;
    Ok(Kind::File { size, sha256, holes, blocks: found.stx_blocks })
}

fn holes(file: impl AsFd, size: u64) -> rustix::io::Result<Vec<(u64, u64)>> {
    let mut holes = Vec::new();
    let mut position = 0;
    // Data first: of a file that was cloned from a wholly preallocated one, btrfs says that it
    // has no data and, asked for a hole alone, that it has none of those either.
    while position < size {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(position)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            // A filesystem that cannot tell.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        };
        if data > position {
            holes.push((position, data));
        }
        if data >= size {
            break;
        }
        position = rustix::fs::seek(&file, SeekFrom::Hole(data))?.min(size);
    }
    Ok(holes)
}

/// The SHA-256 of a file's bytes. Holes are hashed as the zeros they read as, without reading them;
/// one of more than 1 GiB as its length, since anybody can make one of 7 EiB.
fn hash(file: impl AsFd, size: u64, holes: &[(u64, u64)]) -> Result<String> {
    const STEP: u64 = 256 * 1024;
    const LARGE: u64 = 1 << 30;

    let mut hasher = Sha256::new();
    let zeros = vec![0; usize::try_from(STEP)?];
    let mut buffer = Vec::new();
    let mut holes = holes.iter().peekable();
    let mut position = 0;
    while position < size {
        while holes.next_if(|(_, end)| *end <= position).is_some() {}
        let (in_hole, end) = match holes.peek() {
            Some((start, end)) if *start <= position => (true, *end),
            Some((start, _)) => (false, *start),
            None => (false, size),
        };
        let length = (end - position).min(STEP);
        let piece = usize::try_from(length)?;
        if in_hole && end - position > LARGE {
            hasher.update((end - position).to_le_bytes());
            position = end;
        } else if in_hole {
            hasher.update(&zeros[..piece]);
            position += length;
        } else {
            buffer.resize(piece, 0);
            let read = rustix::io::pread(&file, &mut buffer, position)?;
            anyhow::ensure!(read > 0, "the file became shorter while it was read");
            hasher.update(&buffer[..read]);
            position += read as u64;
        }
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
