//! What two entries of two trees differ in. Cheap first: an inode that is the same, and was not
//! changed since, is not looked into.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context as _;
use rustix::fs::{FileType, Statx};

use super::descent::{Directory, OPEN_LEVELS};
use super::entry::{device, is_stub};
use super::equal::{Comparison, Difference, NamedEntry};
use crate::fs::{Dir, at};

/// One of two trees.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Its root.
    pub root: &'a Dir,
    /// The path in it that is compared; empty for the root.
    pub path: &'a Path,
}

/// Compares two entries that are there, with all that is below them. `skip` says which paths below
/// them, relative to them, are left out.
///
/// Below a directory the first difference ends the comparison. What is nested or mounted in one is
/// not looked into. Times of access, numbers of links and of inodes do not count.
pub fn differences(
    one: Side<'_>,
    other: Side<'_>,
    skip: &dyn Fn(&Path) -> bool,
) -> anyhow::Result<Vec<Difference>> {
    let cannot = || format!("cannot compare {:?}", one.path);
    let mut comparing = Comparing { one, other, comparison: Comparison::default() };
    let top = |side: Side<'_>| -> anyhow::Result<(OwnedFd, CString)> {
        let (above, name) = at::split(side.path).unwrap_or((Path::new(""), ".".as_ref()));
        Ok((side.root.open_dir(above)?.into(), at::c_name(name)?))
    };
    let (top, other_top) = (top(one).with_context(cannot)?, top(other).with_context(cannot)?);
    let (mut found, directory) = comparing
        .entry((&top.0, &top.1), (&other_top.0, &other_top.1), true)
        .with_context(cannot)?;
    if directory && comparing.inside(skip).with_context(cannot)? {
        found.push(Difference::Inside);
    }
    Ok(found)
}

struct Comparing<'a> {
    one: Side<'a>,
    other: Side<'a>,
    comparison: Comparison,
}

/// A directory of both trees on the way down.
struct Level {
    one: Directory,
    other: Directory,
    /// How long its path is.
    path: usize,
    /// Names in both that were not looked at yet.
    both: std::vec::IntoIter<CString>,
}

impl Comparing<'_> {
    /// What an entry differs in by itself, and whether it is a directory in both. With `all`
    /// everything is told, else the first difference is enough.
    fn entry(
        &mut self,
        (one, one_name): (&OwnedFd, &CStr),
        (other, other_name): (&OwnedFd, &CStr),
        all: bool,
    ) -> anyhow::Result<(Vec<Difference>, bool)> {
        let (one, other) = (one.as_fd(), other.as_fd());
        let (was, is) = (at::status(one, one_name)?, at::status(other, other_name)?);
        let directory = [&was, &is].iter().all(|it| at::kind(it) == FileType::Directory);
        if directory && (is_nested(one, &was)? || is_nested(other, &is)?) {
            return Ok((Vec::new(), false));
        }
        if unchanged(&was, &is) {
            return Ok((Vec::new(), directory));
        }
        let modified = |it: &Statx| (it.stx_mtime.tv_sec, it.stx_mtime.tv_nsec);
        let later = !directory && modified(&was) != modified(&is);
        if later && !all {
            return Ok((vec![Difference::Time], directory));
        }
        let one = NamedEntry { parent: one, name: one_name, status: &was };
        let other = NamedEntry { parent: other, name: other_name, status: &is };
        let mut found = self.comparison.differences(one, other, |_, _| false)?;
        if later && found != [Difference::Kind] {
            found.push(Difference::Time);
            found.sort_unstable();
        }
        Ok((found, directory))
    }

    /// Whether anything below the two directories differs. Depth first, with the last levels open, so that
    /// a deep tree costs no more than a wide one.
    fn inside(&mut self, skip: &dyn Fn(&Path) -> bool) -> anyhow::Result<bool> {
        let (one, other) = (self.one, self.other);
        let roots = (one.root.open_dir(one.path)?.into(), other.root.open_dir(other.path)?.into());
        let mut below = Vec::new();
        let Some(top) = Level::enter(roots, &below, skip)? else { return Ok(true) };
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            below.truncate(level.path);
            let Some(name) = level.both.next() else {
                let left = levels.pop();
                if let Some(level) = levels.last_mut() {
                    below.truncate(level.path);
                    let path = Path::new(OsStr::from_bytes(&below));
                    let from = left.as_ref();
                    level.one.open_again(
                        from.map(|it| &it.one),
                        one.root.as_fd(),
                        &at::joined(one.path, path),
                    )?;
                    let path = at::joined(other.path, path);
                    level.other.open_again(from.map(|it| &it.other), other.root.as_fd(), &path)?;
                }
                continue;
            };
            let parents = (opened(&level.one)?, opened(&level.other)?);
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name.to_bytes());
            let at = || format!("{:?}", OsStr::from_bytes(&below));
            let (found, is_directory) =
                self.entry((&parents.0, &name), (&parents.1, &name), false).with_context(at)?;
            if !found.is_empty() {
                return Ok(true);
            }
            if !is_directory {
                continue;
            }
            let open =
                |parent: &OwnedFd| at::open_directory(parent.as_fd(), &name).with_context(at);
            let opened = (open(&parents.0)?, open(&parents.1)?);
            let Some(level) = Level::enter(opened, &below, skip).with_context(at)? else {
                return Ok(true);
            };
            levels.push(level);
            if let Some(far) = levels.len().checked_sub(OPEN_LEVELS + 1) {
                levels[far].one.close()?;
                levels[far].other.close()?;
            }
        }
        Ok(false)
    }
}

impl Level {
    /// Reads two directories at a path; `None` where one has what the other lacks.
    fn enter(
        (one, other): (OwnedFd, OwnedFd),
        path: &[u8],
        skip: &dyn Fn(&Path) -> bool,
    ) -> anyhow::Result<Option<Self>> {
        let directory = Path::new(OsStr::from_bytes(path));
        let of_one = names(&one, directory, skip)?;
        let of_other = names(&other, directory, skip)?;
        let (mut both, mut only) = (Vec::new(), Vec::new());
        for name in of_one {
            if of_other.binary_search(&name).is_ok() {
                both.push(name);
            } else {
                only.push((&one, name));
            }
        }
        let elsewhere = of_other.into_iter().filter(|name| both.binary_search(name).is_err());
        only.extend(elsewhere.map(|name| (&other, name)));
        for (parent, name) in only {
            // What is nested moves along with what is live, and leaves nothing behind.
            if !is_nested(parent.as_fd(), &at::status(parent.as_fd(), &name)?)? {
                return Ok(None);
            }
        }
        let (one, other) = (Directory::new(one), Directory::new(other));
        Ok(Some(Self { one, other, path: path.len(), both: both.into_iter() }))
    }
}

fn opened(directory: &Directory) -> anyhow::Result<Rc<OwnedFd>> {
    directory.opened().context("a directory was removed while it was compared")
}

/// The names in a directory, sorted.
fn names(
    opened: &OwnedFd,
    directory: &Path,
    skip: &dyn Fn(&Path) -> bool,
) -> anyhow::Result<Vec<CString>> {
    let mut names = at::names(opened.as_fd())?;
    names.retain(|name| !skip(&at::join(directory, name)));
    names.sort_unstable();
    Ok(names)
}

/// Whether an entry is the root of another subvolume or filesystem, or stands for one.
fn is_nested(parent: BorrowedFd<'_>, status: &Statx) -> anyhow::Result<bool> {
    let directory = at::kind(status) == FileType::Directory;
    Ok(directory && (is_stub(parent, status)? || device(status) != device(&at::status_of(parent)?)))
}

/// Whether two names are of one inode that nothing was done to in between: whatever is done to one
/// sets the time of its change, and nobody can set that back.
fn unchanged(one: &Statx, other: &Statx) -> bool {
    let of = |it: &Statx| {
        let times = (it.stx_ctime.tv_sec, it.stx_ctime.tv_nsec);
        (it.stx_ino, times, it.stx_size, it.stx_mode, it.stx_uid, it.stx_gid)
    };
    of(one) == of(other)
}
