//! [`Dir`]: an open directory that knows its path, for small files and directories.
//!
//! Paths are relative to it. No symlink is followed, no mount is entered, and nothing above it is reached
//! (openat2(2), see [`super::at`]). Every error names the path once, and its root cause is an [`Errno`].
//! Only ENOENT means that something is absent.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, IFlags, Mode, OFlags, Statx, flock, fsync, ioctl_getflags,
    ioctl_setflags, mkdirat, openat, readlinkat, renameat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::at;
use crate::names::shown;

/// What a small file is called until it is complete. The next one that is written into the same
/// directory replaces what an interrupted run has left under this name.
const UNFINISHED: &str = "new";

/// An open directory and its path.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> Self {
        dir.fd
    }
}

/// A directory and a name in it.
pub type Named = (Dir, OsString);

impl Dir {
    /// An open directory, which errors call by `path`; by nothing for the root that all paths begin at.
    #[must_use]
    pub fn new(fd: OwnedFd, path: impl Into<PathBuf>) -> Self {
        Self { fd, path: path.into() }
    }

    /// Opens a directory by a path of the configuration's or the user's, whose links are followed.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let fd = opened.with_context(|| format!("cannot open the directory {path:?}"))?;
        Ok(Self::new(fd, path))
    }

    /// Opens the root that all paths begin at once more.
    pub fn root(root: impl AsFd) -> anyhow::Result<Self> {
        let opened = at::open_beneath(root.as_fd(), Path::new(""));
        Ok(Self::new(opened.context("cannot open the root")?, ""))
    }

    /// [`Dir::open`], as the root that all paths begin at.
    pub fn open_root(path: &Path) -> anyhow::Result<Self> {
        Self::root(Self::open(path)?)
    }

    /// Another descriptor of the same opening, with the lock on it, if there is one.
    pub fn try_clone(&self) -> anyhow::Result<Self> {
        Ok(Self::new(self.name(self.fd.try_clone(), "keep open", "")?, &self.path))
    }

    /// How errors call what is at a path below it.
    fn call(&self, path: &Path) -> String {
        match at::joined(&self.path, path) {
            whole if whole.as_os_str().is_empty() => "the root".to_owned(),
            whole => shown(&whole),
        }
    }

    /// Adds to an error what could not be done, and with what.
    fn name<T>(
        &self,
        result: Result<T, impl Into<anyhow::Error>>,
        verb: &str,
        path: impl AsRef<Path>,
    ) -> anyhow::Result<T> {
        result.map_err(|error| {
            error.into().context(format!("cannot {verb} {}", self.call(path.as_ref())))
        })
    }

    /// Opens the directory at a path; an empty one is this directory.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref();
        let fd = self.name(at::open_beneath(self.as_fd(), path), "open", path)?;
        Ok(Self::new(fd, at::joined(&self.path, path)))
    }

    /// Opens the directory with a name in it, and where something is mounted on that, what is mounted.
    pub fn open_or_mounted(&self, name: impl AsRef<Path>) -> anyhow::Result<Self> {
        let name = self.leaf(name.as_ref())?;
        let opened = at::open_directory(self.as_fd(), &at::c_name(name)?);
        Ok(Self::new(self.name(opened, "open", name)?, self.path.join(name)))
    }

    /// [`Dir::open_dir`]; `None` where there is no directory: nothing, or something on the way or at the
    /// end that is not one.
    pub fn open_dir_optional(&self, path: impl AsRef<Path>) -> anyhow::Result<Option<Self>> {
        let path = path.as_ref();
        let opened = self.name(at::directory_beneath(self.as_fd(), path), "open", path)?;
        Ok(opened.map(|fd| Self::new(fd, at::joined(&self.path, path))))
    }

    /// The directory that holds a path, which must be there, and the name in it.
    pub fn open_parent(&self, path: impl AsRef<Path>) -> anyhow::Result<Named> {
        let (parent, name) = self.split(path.as_ref())?;
        Ok((self.open_dir(parent)?, name.to_owned()))
    }

    /// The same; `None` where there is no such directory.
    pub fn open_parent_optional(&self, path: impl AsRef<Path>) -> anyhow::Result<Option<Named>> {
        let (parent, name) = self.split(path.as_ref())?;
        Ok(self.open_dir_optional(parent)?.map(|parent| (parent, name.to_owned())))
    }

    /// A path that is a single name: the calls that take one would follow links in anything longer.
    fn leaf<'p>(&self, path: &'p Path) -> anyhow::Result<&'p OsStr> {
        let name = path.file_name().filter(|name| *name == path.as_os_str());
        name.with_context(|| format!("BUG: {path:?} below {:?} is not a name", self.path))
    }

    fn split<'p>(&self, path: &'p Path) -> anyhow::Result<(&'p Path, &'p OsStr)> {
        at::split(path).with_context(|| format!("BUG: no name in {:?} below {:?}", path, self.path))
    }

    /// Makes a directory, which only root may enter, in one that is there.
    pub fn make_dir(&self, path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        self.name(mkdirat(&parent, &name, Mode::RWXU), "make", path)?;
        self.open_dir(path)
    }

    /// Opens the directory at a path, and makes it first where nothing has that name.
    pub fn ensure_dir(&self, path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        match mkdirat(&parent, &name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.open_dir(path),
            Err(error) => self.name(Err(error), "make", path),
        }
    }

    /// Opens a regular file to read.
    pub fn open_file(&self, path: impl AsRef<Path>) -> anyhow::Result<OwnedFd> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        self.name(at::open_file(parent.as_fd(), &at::c_name(&name)?), "open", path)
    }

    /// The attributes of this directory.
    pub fn status(&self) -> anyhow::Result<Statx> {
        self.name(at::status_of(self.as_fd()), "look at", "")
    }

    /// The attributes of what is at a path, of a symlink itself; see [`at::status`].
    pub fn status_at(&self, path: impl AsRef<Path>) -> anyhow::Result<Statx> {
        let path = path.as_ref();
        let gone = || Err(Errno::NOENT);
        self.status_optional(path)?.map_or_else(|| self.name(gone(), "look at", path), Ok)
    }

    /// The same; `None` where nothing is there.
    pub fn status_optional(&self, path: impl AsRef<Path>) -> anyhow::Result<Option<Statx>> {
        let path = path.as_ref();
        let (parent, name) = self.split(path)?;
        let look = |parent: BorrowedFd<'_>| at::present(at::status(parent, &at::c_name(name)?));
        let status = if parent.as_os_str().is_empty() {
            look(self.as_fd())
        } else {
            match at::present(at::open_beneath(self.as_fd(), parent)) {
                Ok(Some(parent)) => look(parent.as_fd()),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.name(status, "look at", path)
    }

    /// Whether something is at a path.
    pub fn holds(&self, path: impl AsRef<Path>) -> anyhow::Result<bool> {
        Ok(self.status_optional(path)?.is_some())
    }

    /// The attributes of what is at a path, in one call; `None` where that cannot tell: see
    /// [`at::status_beneath`].
    pub fn glance(&self, path: impl AsRef<Path>) -> anyhow::Result<Option<Statx>> {
        self.name(at::status_beneath(self.as_fd(), path.as_ref()), "look at", path)
    }

    /// Where a symlink points.
    pub fn read_link(&self, path: impl AsRef<Path>) -> anyhow::Result<PathBuf> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        let target = self.name(readlinkat(&parent, &name, Vec::new()), "read the link", path)?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// The content of a small file; `None` where there is none. Anything that is not a regular file is an
    /// error: a fifo would have nothing to say, a device might never end.
    pub fn read_optional(&self, name: impl AsRef<Path>) -> anyhow::Result<Option<Vec<u8>>> {
        let name = self.leaf(name.as_ref())?;
        let read = || -> anyhow::Result<Option<Vec<u8>>> {
            let c_name = at::c_name(name)?;
            let Some(file) = at::present(at::open_file(self.as_fd(), &c_name))? else {
                return Ok(None);
            };
            let kind = at::kind(&at::status_of(file.as_fd())?);
            ensure!(
                kind == FileType::RegularFile,
                "it is not a regular file but a {}",
                at::Kind::from(kind)
            );
            let mut content = Vec::new();
            File::from(file).read_to_end(&mut content)?;
            Ok(Some(content))
        };
        self.name(read(), "read", name)
    }

    /// Writes a small file that only root can read. When this returns, the file survives a power cut with its
    /// name and content; until then, the file that had the name before does. Immutable and append-only flags on
    /// that file are cleared so that it can be replaced. After a failure nothing of the new file is left.
    pub fn write_durably(&self, name: impl AsRef<Path>, content: &[u8]) -> anyhow::Result<()> {
        let name = self.leaf(name.as_ref())?;
        let write = || -> anyhow::Result<()> {
            let is_file = |status: &Statx| at::kind(status) != FileType::Directory;
            let unfinished = &*self.free_name(UNFINISHED, is_file)?;
            let unlink = || at::present(unlinkat(self, unfinished, AtFlags::empty()));
            let remove = || self.through_flags(unfinished, unlink);
            let write = || -> anyhow::Result<()> {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let made = openat(self, unfinished, flags, Mode::RUSR | Mode::WUSR)?;
                let mut file = File::from(made);
                file.write_all(content)?;
                // Its name must not be durable before its bytes are.
                file.sync_all()?;
                let rename = || Ok(renameat(self, unfinished, self, name)?);
                Ok(self.through_flags(name, rename)?)
            };
            remove()?;
            write().map_err(|error| match remove() {
                Ok(_) => error,
                Err(left) => error.context(format!("and {unfinished:?} is left over: {left}")),
            })?;
            Ok(fsync(self)?)
        };
        self.name(write(), "write", name)
    }

    /// Replaces or removes a file, once more without its flags where those forbid it.
    fn through_flags<T>(&self, name: &OsStr, change: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match change() {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                let file = at::open_file(self.as_fd(), &at::c_name(name)?).map_err(|_| error)?;
                let flags = ioctl_getflags(&file)?;
                ioctl_setflags(&file, flags.difference(IFlags::IMMUTABLE | IFlags::APPEND))?;
                change()
            }
            changed => changed,
        }
    }

    /// `name`, or the first of `name~1`, `name~2` and so on that nothing has but what `may_have` it.
    pub fn free_name(
        &self,
        name: impl AsRef<OsStr>,
        may_have: impl Fn(&Statx) -> bool,
    ) -> anyhow::Result<OsString> {
        let name = name.as_ref();
        let (mut free, mut number) = (name.to_owned(), 0_u32);
        while self.status_optional(&free)?.is_some_and(|status| !may_have(&status)) {
            number += 1;
            let numbered = [name.as_bytes(), format!("~{number}").as_bytes()].concat();
            // A name of 255 bytes has no room for a number.
            free = OsString::from_vec(numbered[numbered.len().saturating_sub(255)..].to_vec());
        }
        Ok(free)
    }

    /// [`Dir::write_durably`], of something as JSON.
    pub fn write_json(
        &self,
        name: impl AsRef<Path>,
        it: &impl serde::Serialize,
    ) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(it);
        self.write_durably(&name, &self.name(text, "write", &name)?)
    }

    /// All names in it. For directories of our own, and roots: it holds them all.
    pub fn names(&self) -> anyhow::Result<Vec<OsString>> {
        let names = self.name(at::names(self.as_fd()), "read", "")?;
        Ok(names.into_iter().map(|name| OsString::from_vec(name.into_bytes())).collect())
    }

    /// Whether it holds nothing. Users' directories may be long: no more than a batch is read.
    pub fn is_empty(&self) -> anyhow::Result<bool> {
        self.name(at::is_empty(self.as_fd()), "read", "")
    }

    /// Removes a name that is not a directory's. Answers whether there was one.
    pub fn remove_file(&self, name: impl AsRef<Path>) -> anyhow::Result<bool> {
        let removed = at::present(unlinkat(self, self.leaf(name.as_ref())?, AtFlags::empty()));
        Ok(self.name(removed, "remove", name)?.is_some())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: impl AsRef<Path>) -> anyhow::Result<()> {
        let removed = unlinkat(self, self.leaf(name.as_ref())?, AtFlags::REMOVEDIR);
        self.name(removed, "remove", name)
    }

    /// Renames within it, over what has the new name. Answers whether there was anything to rename.
    pub fn rename(&self, from: &str, to: &str) -> anyhow::Result<bool> {
        let (from, to) = (self.leaf(from.as_ref())?, self.leaf(to.as_ref())?);
        Ok(self.name(at::present(renameat(self, from, self, to)), "rename", from)?.is_some())
    }

    /// Makes everything on its filesystem durable.
    pub fn sync_filesystem(&self) -> anyhow::Result<()> {
        self.name(syncfs(self), "make durable what is in", "")
    }

    /// Locks it for as long as it is open; `false` where another process has it locked.
    pub fn try_lock(&self) -> anyhow::Result<bool> {
        match flock(self, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            locked => self.name(locked, "lock", "").map(|()| true),
        }
    }
}

/// Whether an error began with this one of the kernel.
#[must_use]
pub fn is(error: &anyhow::Error, errno: Errno) -> bool {
    let cause = error.root_cause();
    let told = cause
        .downcast_ref()
        .copied()
        .or_else(|| cause.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error));
    told == Some(errno)
}
