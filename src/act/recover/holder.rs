//! The directory beside the target in which something recovered comes into being.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, flock, openat, syncfs, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::fs::at;
use crate::names::shown;
use crate::own::trash::{self, Replaced};
use crate::tree::{self, make_own_directory};

/// How the directory's name begins; the number of the process follows.
const NAME: &str = ".darlings-recover-";

/// Says that it is one: only root can put it there. Before something is replaced, it says what:
/// see [`Replacing`].
const MARK: &CStr = c"recovering";

/// Where something is brought over, and where what it replaced is until it is in the trash.
const BROUGHT: &CStr = c"brought";

/// The same in earlier versions.
const NEW: &CStr = c"new";

/// Where what was at the target waits while names cannot be exchanged.
const REPLACED: &CStr = c"replaced";

/// What is about to be replaced.
#[derive(Serialize, Deserialize)]
struct Replacing {
    version: u32,
    /// The inode number of what was brought over: whatever else is in its place was replaced by it.
    brought: u64,
    replaced: Replaced,
}

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
            make_own_directory(directory.as_fd(), BROUGHT)
        };
        match fill() {
            Ok(new) => Ok(Self { name, directory, new }),
            Err(error) => {
                let error = error.context(format!("cannot prepare {}", shown_name()));
                match tree::remove(parent, &name) {
                    Ok(_) => Err(error),
                    Err(left) => Err(error.context(format!("and it is left over: {left:#}"))),
                }
            }
        }
    }

    /// Gives what was brought over, by its name in `new`, the target's name.
    pub(super) fn commit(&self, target: &Target, made: &CStr) -> anyhow::Result<()> {
        if target.exists {
            self.note(target, made).context("cannot write down what is about to be replaced")?;
        }
        let cannot = || format!("cannot give it the name {}", shown(&target.path));
        // What gets the name must be there after a power cut.
        syncfs(&self.directory).context("cannot make it durable")?;
        let (new, there) =
            ((self.new.as_fd(), made), (target.parent.as_fd(), target.name.as_c_str()));
        if target.exists {
            if !tree::exchange(new, there).with_context(cannot)? {
                self.replace(new, there).with_context(cannot)?;
            }
        } else {
            match tree::rename(new, there) {
                Err(Errno::EXIST) => bail!(
                    "{} came into being meanwhile, and is left alone; try again",
                    shown(&target.path)
                ),
                renamed => ensure!(renamed.with_context(cannot)?, "BUG: nothing was brought over"),
            }
        }
        Ok(())
    }

    /// Writes down what is about to be replaced, so that it is kept whatever interrupts this run.
    fn note(&self, target: &Target, made: &CStr) -> anyhow::Result<()> {
        let (root, place) = target.replaceable()?;
        let replacing = Replacing {
            version: 1,
            brought: at::status(self.new.as_fd(), made)?.stx_ino,
            replaced: Replaced::new(root, &place.below)?,
        };
        Ok(at::write_durably(&self.directory, MARK, &serde_json::to_vec_pretty(&replacing)?)?)
    }

    /// One name after the other, where they cannot be exchanged.
    fn replace(
        &self,
        new: (BorrowedFd<'_>, &CStr),
        there: (BorrowedFd<'_>, &CStr),
    ) -> Result<(), Errno> {
        let aside = (self.directory.as_fd(), REPLACED);
        tree::rename(there, aside)?;
        match tree::rename(new, there) {
            Ok(_) => tree::rename(aside, new).map(drop),
            Err(error) => tree::rename(aside, there).and(Err(error)),
        }
    }

    /// Puts what was replaced into the trash of the volume, and removes the rest. Answers its number
    /// there.
    pub(super) fn finish(&self, target: &Target) -> anyhow::Result<Option<u64>> {
        syncfs(&self.directory).context("it is in place, and could not be made durable")?;
        let path = shown(&target.beside(&self.name.to_string_lossy()));
        match settle(target, &self.name) {
            Ok(Left::Nothing { kept }) => Ok(kept),
            Ok(Left::Replaced) => bail!("it is in place, and what it replaced is in {path}"),
            Err(error) => Err(error.context(format!(
                "it is in place, and {path} is left over, perhaps with what it replaced; the next \
                 recovery there puts that into the trash"
            ))),
        }
    }

    /// After a failure: removes it, and keeps what was at the target if that is in it.
    pub(super) fn give_up(&self, target: &Target, error: anyhow::Error) -> anyhow::Error {
        let path = shown(&target.beside(&self.name.to_string_lossy()));
        match settle(target, &self.name) {
            Ok(Left::Nothing { kept: None }) => error,
            Ok(Left::Nothing { kept: Some(number) }) => {
                error.context(format!("what was there is in {}", trash::shown(number)))
            }
            Ok(Left::Replaced) => error.context(format!("what was there is in {path}/replaced")),
            Err(left) => error.context(format!("{path} is left over ({left:#})")),
        }
    }
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
        let left = settle(target, &name)
            .with_context(|| format!("cannot remove {path}, which an interrupted run has left"))?;
        told.push(match left {
            Left::Nothing { kept: None } => {
                format!("removed {path}, which an interrupted run had left")
            }
            Left::Nothing { kept: Some(number) } => format!(
                "removed {path}, which an interrupted run had left; what that run replaced is in {}",
                trash::shown(number)
            ),
            Left::Replaced => format!(
                "{path}/replaced is what an interrupted run was about to replace; move it back or \
                 remove it, and then {path}"
            ),
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
    let empty = at::is_empty(directory.as_fd())?;
    Ok(private && (marked || empty))
}

/// What is left of a directory beside the target.
enum Left {
    /// It is gone. What was replaced is in the trash with this number.
    Nothing { kept: Option<u64> },
    /// It has what was at the target, and an earlier version that did not write down what that is.
    Replaced,
}

/// Moves what was replaced from the directory to the trash, and removes the directory, the mark last.
fn settle(target: &Target, name: &CStr) -> anyhow::Result<Left> {
    let parent = target.parent.as_fd();
    let directory = at::open_directory(parent, name)?;
    let mut kept = None;
    match replacing(&directory)? {
        Some(replacing) => {
            let (root, _) = target.replaceable()?;
            let mut keep = |from: (BorrowedFd<'_>, &CStr)| -> anyhow::Result<()> {
                kept = Some(trash::keep(root, from, &replacing.replaced)?);
                Ok(())
            };
            if at::present(at::status(directory.as_fd(), REPLACED))?.is_some() {
                keep((directory.as_fd(), REPLACED))?;
            }
            if let Some(brought) = at::present(at::open_directory(directory.as_fd(), BROUGHT))? {
                for name in at::names(brought.as_fd())? {
                    if at::status(brought.as_fd(), &name)?.stx_ino != replacing.brought {
                        keep((brought.as_fd(), &name))?;
                    }
                }
            }
        }
        None if at::present(at::status(directory.as_fd(), REPLACED))?.is_some() => {
            return Ok(Left::Replaced);
        }
        None => {}
    }
    for inside in [BROUGHT, NEW, MARK] {
        tree::remove(directory.as_fd(), inside)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
        .with_context(|| format!("cannot remove {:?}", at::os_name(name)))?;
    Ok(Left::Nothing { kept })
}

/// What the mark says is about to be replaced, or was; `None` while that is nothing.
fn replacing(directory: &OwnedFd) -> anyhow::Result<Option<Replacing>> {
    let Some(text) = at::read_optional(directory, MARK)? else { return Ok(None) };
    if text.is_empty() { Ok(None) } else { trash::parse(&text, "its mark").map(Some) }
}
