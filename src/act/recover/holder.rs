//! The directory beside the target in which something recovered comes into being.

use std::ffi::OsStr;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::fs::Dir;
use crate::fs::at;
use crate::names::shown;
use crate::own::trash::{self, Replaced};
use crate::tree::{self, make_bare};

/// How the directory's name begins; the number of the process follows.
const NAME: &str = ".darlings-recover-";

/// Says that it is one: only root can put it there. Before something is replaced, it says what:
/// see [`Replacing`].
const MARK: &str = "recovering";

/// Where something is brought over, and where what it replaced is until it is in the trash.
const BROUGHT: &str = "brought";

/// The same in earlier versions.
const NEW: &str = "new";

/// Where what was at the target waits while names cannot be exchanged.
const REPLACED: &str = "replaced";

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
    name: String,
    /// With the lock that says that it is in use.
    directory: Dir,
    /// Where something is brought over.
    pub(super) new: Dir,
}

impl Holder {
    /// Makes it.
    pub(super) fn make(target: &Target) -> anyhow::Result<Self> {
        let name = format!("{NAME}{}", std::process::id());
        let parent = &target.parent;
        let shown_name = || shown(&target.beside(&name));
        let directory =
            make_bare(parent, &name).with_context(|| format!("cannot make {}", shown_name()))?;
        let fill = || -> anyhow::Result<Dir> {
            ensure!(directory.try_lock()?, "another process has it locked");
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&directory, MARK, flags, Mode::RUSR)?;
            make_bare(&directory, BROUGHT)
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
    pub(super) fn commit(&self, target: &Target, made: &OsStr) -> anyhow::Result<()> {
        if target.exists {
            self.note(target, made).context("cannot write down what is about to be replaced")?;
        }
        let cannot = || format!("cannot give it the name {}", shown(&target.path));
        // What gets the name must be there after a power cut.
        self.directory.sync_filesystem()?;
        let (new, there) = ((&self.new, made), (&target.parent, &*target.name));
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
    fn note(&self, target: &Target, made: &OsStr) -> anyhow::Result<()> {
        let (root, place) = target.replaceable()?;
        let replacing = Replacing {
            version: 1,
            brought: self.new.status_at(made)?.stx_ino,
            replaced: Replaced::new(root, &place.below)?,
        };
        self.directory.write_json(MARK, &replacing)
    }

    /// One name after the other, where they cannot be exchanged.
    fn replace(&self, new: (&Dir, &OsStr), there: (&Dir, &OsStr)) -> Result<(), Errno> {
        let aside = (&self.directory, REPLACED);
        tree::rename(there, aside)?;
        match tree::rename(new, there) {
            Ok(_) => tree::rename(aside, new).map(drop),
            Err(error) => tree::rename(aside, there).and(Err(error)),
        }
    }

    /// Puts what was replaced into the trash of the volume, and removes the rest. Answers its number
    /// there.
    pub(super) fn finish(&self, target: &Target) -> anyhow::Result<Option<u64>> {
        self.directory
            .sync_filesystem()
            .context("it is in place, and could not be made durable")?;
        let path = shown(&target.beside(&self.name));
        match settle(target, self.name.as_ref()) {
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
        let path = shown(&target.beside(&self.name));
        match settle(target, self.name.as_ref()) {
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
    let parent = &target.parent;
    let mut told = Vec::new();
    for name in parent.names()? {
        if !name.as_encoded_bytes().starts_with(NAME.as_bytes()) {
            continue;
        }
        let path = shown(&target.beside(&name.to_string_lossy()));
        if !is_left_over(parent, &name)? {
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
fn is_left_over(parent: &Dir, name: &OsStr) -> anyhow::Result<bool> {
    let Some(status) = parent.status_optional(name)? else { return Ok(false) };
    if at::kind(&status) != FileType::Directory || status.stx_uid != 0 {
        return Ok(false);
    }
    let directory = parent.open_dir(name)?;
    let status = directory.status()?;
    let private = status.stx_uid == 0
        && !Mode::from_raw_mode(u32::from(status.stx_mode)).intersects(Mode::RWXG | Mode::RWXO);
    if !directory.try_lock()? {
        return Ok(false);
    }
    // An empty one was interrupted right after it was made.
    Ok(private && (directory.holds(MARK)? || directory.is_empty()?))
}

/// What is left of a directory beside the target.
enum Left {
    /// It is gone. What was replaced is in the trash with this number.
    Nothing { kept: Option<u64> },
    /// It has what was at the target, and an earlier version that did not write down what that is.
    Replaced,
}

/// Moves what was replaced from the directory to the trash, and removes the directory, the mark last.
fn settle(target: &Target, name: &OsStr) -> anyhow::Result<Left> {
    let parent = &target.parent;
    let directory = parent.open_dir(name)?;
    let mut kept = None;
    match replacing(&directory)? {
        Some(replacing) => {
            let (root, _) = target.replaceable()?;
            let mut keep = |from: (&Dir, &OsStr)| -> anyhow::Result<()> {
                kept = Some(trash::keep(root, from, &replacing.replaced)?);
                Ok(())
            };
            if directory.holds(REPLACED)? {
                keep((&directory, REPLACED.as_ref()))?;
            }
            if let Some(brought) = directory.open_dir_optional(BROUGHT)? {
                for name in brought.names()? {
                    if brought.status_at(&name)?.stx_ino != replacing.brought {
                        keep((&brought, &name))?;
                    }
                }
            }
        }
        None if directory.holds(REPLACED)? => {
            return Ok(Left::Replaced);
        }
        None => {}
    }
    for inside in [BROUGHT, NEW, MARK] {
        tree::remove(&directory, inside)?;
    }
    parent.remove_dir(name)?;
    Ok(Left::Nothing { kept })
}

/// What the mark says is about to be replaced, or was; `None` while that is nothing.
fn replacing(directory: &Dir) -> anyhow::Result<Option<Replacing>> {
    let Some(text) = directory.read_optional(MARK)? else { return Ok(None) };
    if text.is_empty() { Ok(None) } else { trash::parse(&text, "its mark").map(Some) }
}
