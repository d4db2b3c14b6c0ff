//! Going down and up a tree one name at a time, with a single open descriptor: no recursion, no
//! path longer than a name, no descriptor per level, no symlink followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::names::escape;

/// A directory somewhere below the start, and the way back up.
#[derive(Debug)]
pub struct Descent {
    here: OwnedFd,
    above: Vec<Identity>,
}

/// Which inode something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    /// From what statx said.
    #[must_use]
    pub const fn of(stat: &Statx) -> Self {
        Self { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino }
    }
}

/// Opens without changing the access time where the kernel allows that (it asks for the owner).
pub fn open_quietly(dir: impl AsFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// All that statx tells of a name in a directory; symlinks are not followed.
pub fn stat(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
}

impl Descent {
    /// Starts in a directory.
    pub fn open(start: &Path) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt as _;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let here = open_quietly(rustix::fs::CWD, start.as_os_str().as_bytes(), flags)
            .with_context(|| format!("cannot open the directory {}", start.display()))?;
        Ok(Self { here, above: Vec::new() })
    }

    /// The directory it is in.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// How many levels below the start.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.above.len()
    }

    /// The names in it, sorted, without `.` and `..`.
    pub fn names(&self) -> Result<Vec<Vec<u8>>> {
        // A descriptor of its own, so that the offset is not shared; `Dir::read_from` would open it
        // without O_NOATIME.
        let stream = open_quietly(&self.here, b".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(stream)? {
            let entry = entry.context("cannot read a directory")?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Goes one level down.
    pub fn enter(&mut self, name: &[u8]) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let below = open_quietly(&self.here, name, flags)
            .with_context(|| format!("cannot open the directory {}", escape(name)))?;
        self.above.push(Identity::of(&stat(&self.here, b".")?));
        self.here = below;
        Ok(())
    }

    /// Goes one level up, and makes sure that it is where it came from.
    pub fn leave(&mut self) -> Result<()> {
        let expected = self.above.pop().context("BUG: left the start of a descent")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let up = open_quietly(&self.here, b"..", flags).context("cannot open ..")?;
        let found = Identity::of(&stat(&up, b".")?);
        ensure!(found == expected, "the tree was moved while it was read");
        self.here = up;
        Ok(())
    }
}
