//! The directory beside the target in which something recovered comes into being.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, flock, openat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::Target;
use crate::carry::TRASH;
use crate::names::shown;
use crate::restore::{self, at, make_own_directory, own_directory};
use crate::rules::OWN_DIRECTORY;

/// How the directory's name begins; the number of the process follows.
const NAME: &str = ".darlings-recover-";

/// Says that it is one: nobody but root can put it there.
const MARK: &CStr = c"recovering";

/// Where something is brought over.
const NEW: &CStr = c"new";

/// Where what was at the target waits while names cannot be exchanged.
const REPLACED: &CStr = c"replaced";

/// The directory beside the target.
pub(super) struct Holder {
    name: CString,
    /// With the lock that says that it is in use.
    directory: OwnedFd,
    /// Where something is brought over.
    pub(super) new: OwnedFd,
}

impl Holder {
    /// Makes it.
    pub(super) fn make(target: &Target) -> anyhow::Result<Self> {
        let name = CString::new(format!("{NAME}{}", std::process::id()))?;
        let parent = target.parent.as_fd();
        let shown_name = || shown(&target.beside(&name.to_string_lossy()));
        let directory = make_own_directory(parent, &name)
            .with_context(|| format!("cannot make {}", shown_name()))?;
        let fill = || -> anyhow::Result<OwnedFd> {
            flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&directory, MARK, flags, Mode::RUSR)?;
            make_own_directory(directory.as_fd(), NEW)
        };
        match fill() {
            Ok(new) => Ok(Self { name, directory, new }),
            Err(error) => {
                let error = error.context(format!("cannot prepare {}", shown_name()));
                match restore::remove(parent, &name) {
                    Ok(_) => Err(error),
                    Err(left) => Err(error.context(format!("and it is left over: {left:#}"))),
                }
            }
        }
    }

    /// Gives what was brought over, by its name in `new`, the target's name.
    pub(super) fn commit(&self, target: &Target, made: &CStr) -> anyhow::Result<()> {
        let cannot = || format!("cannot give it the name {}", shown(&target.path));
        // What gets the name must be there after a power cut.
        syncfs(&self.directory).context("cannot make it durable")?;
        let (new, there) =
            ((self.new.as_fd(), made), (target.parent.as_fd(), target.name.as_c_str()));
        if target.exists {
            if !restore::exchange(new, there).with_context(cannot)? {
                self.replace(new, there).with_context(cannot)?;
            }
        } else {
            match restore::rename(new, there) {
                Err(Errno::EXIST) => bail!(
                    "{} came into being meanwhile, and is left alone; try again",
                    shown(&target.path)
                ),
                renamed => ensure!(renamed.with_context(cannot)?, "BUG: nothing was brought over"),
            }
        }
        Ok(())
    }

    /// One name after the other, where they cannot be exchanged.
    fn replace(
        &self,
        new: (BorrowedFd<'_>, &CStr),
        there: (BorrowedFd<'_>, &CStr),
    ) -> Result<(), Errno> {
        let aside = (self.directory.as_fd(), REPLACED);
        restore::rename(there, aside)?;
        match restore::rename(new, there) {
            Ok(_) => restore::rename(aside, new).map(drop),
            Err(error) => restore::rename(aside, there).and(Err(error)),
        }
    }

    /// Puts what was replaced into the trash of the volume, and removes the rest. Answers where it
    /// is there.
    pub(super) fn finish(&self, target: &Target) -> anyhow::Result<Option<String>> {
        syncfs(&self.directory).context("it is in place, and could not be made durable")?;
        let mut kept = None;
        let replaced = at::names(self.new.as_fd()).context("cannot look for what was replaced")?;
        if let (Some(root), Some(name)) = (&target.root, replaced.first()) {
            kept = throw_away(root.as_fd(), (self.new.as_fd(), name)).with_context(|| {
                format!(
                    "it is in place, and what it replaced could not be moved to the trash: it is \
                     in {}/new",
                    shown(&target.beside(&self.name.to_string_lossy()))
                )
            })?;
        }
        remove_unless_needed(target.parent.as_fd(), &self.name).with_context(|| {
            format!(
                "it is in place, and {} is left over",
                shown(&target.beside(&self.name.to_string_lossy()))
            )
        })?;
        Ok(kept)
    }

    /// After a failure: removes it, unless it holds what was at the target.
    pub(super) fn give_up(&self, target: &Target, error: anyhow::Error) -> anyhow::Error {
        let path = shown(&target.beside(&self.name.to_string_lossy()));
        match remove_unless_needed(target.parent.as_fd(), &self.name) {
            Ok(true) => error,
            Ok(false) => error.context(format!("what was there is in {path}/replaced")),
            Err(left) => error.context(format!("{path} is left over ({left:#})")),
        }
    }
}

/// Moves something to the trash of a volume, where the next purge removes it. `None` where it is on
/// another filesystem.
fn throw_away(
    root: BorrowedFd<'_>,
    from: (BorrowedFd<'_>, &CStr),
) -> anyhow::Result<Option<String>> {
    let own = own_directory(root)?;
    let trash = at::c_name(TRASH.as_ref())?;
    if at::present(at::status(own.as_fd(), &trash))?.is_none() {
        make_own_directory(own.as_fd(), &trash)?;
    }
    let trash = at::open_directory(own.as_fd(), &trash)?;
    for number in 1.. {
        let name = format!("replaced-{number}");
        match restore::rename(from, (trash.as_fd(), &CString::new(name.as_str())?)) {
            Ok(true) => return Ok(Some(format!("{OWN_DIRECTORY}/{TRASH}/{name}"))),
            Ok(false) | Err(Errno::XDEV) => return Ok(None),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Removes what interrupted recoveries have left beside the target, and says so.
pub(super) fn clean(target: &Target) -> anyhow::Result<Vec<String>> {
    let parent = target.parent.as_fd();
    let mut told = Vec::new();
    for name in at::names(parent).context("cannot read the target's directory")? {
        if !name.to_bytes().starts_with(NAME.as_bytes()) {
            continue;
        }
        let path = shown(&target.beside(&name.to_string_lossy()));
        if !is_left_over(parent, &name).with_context(|| format!("cannot look at {path}"))? {
            continue;
        }
        let removed = remove_unless_needed(parent, &name)
            .with_context(|| format!("cannot remove {path}, which an interrupted run has left"))?;
        told.push(if removed {
            format!("removed {path}, which an interrupted run had left")
        } else {
            format!(
                "{path}/replaced is what an interrupted run was about to replace; move it back or \
                 remove it, and then {path}"
            )
        });
    }
    Ok(told)
}

/// Whether it is one of ours, and nobody is at work in it. Anybody can give a directory such a name.
fn is_left_over(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<bool> {
    let status = at::present(at::status(parent, name))?;
    let Some(status) = status else { return Ok(false) };
    if at::kind(&status) != FileType::Directory || status.stx_uid != 0 {
        return Ok(false);
    }
    let directory = at::open_directory(parent, name)?;
    let status = at::status_of(directory.as_fd())?;
    let private = status.stx_uid == 0
        && !Mode::from_raw_mode(u32::from(status.stx_mode)).intersects(Mode::RWXG | Mode::RWXO);
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let marked = at::present(at::status(directory.as_fd(), MARK))?.is_some();
    // Interrupted right after it was made.
    let empty = at::names(directory.as_fd())?.is_empty();
    Ok(private && (marked || empty))
}

/// Removes it but where it holds what was at the target, the mark last.
fn remove_unless_needed(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<bool> {
    let directory = at::open_directory(parent, name)?;
    if at::present(at::status(directory.as_fd(), REPLACED))?.is_some() {
        return Ok(false);
    }
    restore::remove(directory.as_fd(), NEW)?;
    at::present(unlinkat(&directory, MARK, AtFlags::empty()))?;
    let path = Path::new(at::os_name(name));
    unlinkat(parent, name, AtFlags::REMOVEDIR)
        .with_context(|| format!("cannot remove {path:?}"))?;
    Ok(true)
}
