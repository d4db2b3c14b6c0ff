//! [`Own`]: what a volume keeps in its `.darlings`. Only root can damage it, and no damage there should prevent a
//! reset: flags that forbid a change are cleared, and anything in the place of one of its directories is renamed.

use std::ops::Deref;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, ensure};
use rustix::fs::Mode;

use crate::fs::Dir;
use crate::rules::OWN_DIRECTORY;
use crate::tree::{self, Handle, Scratch, is_stub, make_writable, unseal};

pub mod state;
pub mod trash;

/// A volume's `.darlings`, open, and to be believed: a directory of root's.
#[derive(Debug)]
pub struct Own(Dir);

impl Deref for Own {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.0
    }
}

impl Own {
    /// Opens the one in a volume's root; `None` where there is none that is root's. Whoever owns the
    /// volume's root can put another one there.
    pub fn open(root: &Dir) -> anyhow::Result<Option<Self>> {
        let Some(own) = present(root, OWN_DIRECTORY)? else { return Ok(None) };
        Ok((own.status()?.stx_uid == 0).then_some(Self(own)))
    }

    /// Opens one that must be there.
    pub fn of(root: &Dir) -> anyhow::Result<Self> {
        Self::open(root)?.with_context(|| format!("there is no {OWN_DIRECTORY} of root's"))
    }

    /// Opens it to write into it, made if there is none, and makes sure that it is root's alone. One that
    /// belongs to a user, or is not a directory, gets another name: a user who could make it must not say
    /// what a reset does.
    pub fn ensure(root: &Dir) -> anyhow::Result<Self> {
        let ensure = || -> anyhow::Result<Self> {
            let own = match Self::open(root)? {
                Some(own) => own,
                None => Self(make_instead(root, OWN_DIRECTORY)?),
            };
            make_writable(own.as_fd())?;
            own.strip()?;
            Ok(own)
        };
        ensure().with_context(|| format!("cannot make {OWN_DIRECTORY}"))
    }

    /// Opens a directory in it to write into it, made if there is none. Anything else that has the name
    /// gets another one.
    pub fn directory(&self, name: &str) -> anyhow::Result<Dir> {
        let ensure = || -> anyhow::Result<Dir> {
            let directory = match present(self, name)? {
                Some(directory) => directory,
                None => make_instead(self, name)?,
            };
            make_writable(directory.as_fd())?;
            unseal(&directory)?;
            Ok(directory)
        };
        ensure().with_context(|| format!("cannot make {name:?} in {OWN_DIRECTORY}"))
    }

    /// Makes it anew in a tree that nobody uses yet, with nothing in it of what had its name.
    pub(crate) fn make_anew(root: &Dir) -> anyhow::Result<Self> {
        tree::remove(root, OWN_DIRECTORY)?;
        let own = Self(root.make_dir(OWN_DIRECTORY)?);
        own.strip()?;
        Ok(own)
    }

    fn strip(&self) -> anyhow::Result<()> {
        Handle::Open(self.0.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default())
    }

    /// Keeps purges, recoveries, adoptions and resets in place away for as long as it is open.
    pub fn lock(&self) -> anyhow::Result<()> {
        ensure!(
            self.try_lock()?,
            "another run is at work in {OWN_DIRECTORY}, a purge perhaps; wait for it"
        );
        Ok(())
    }
}

/// A directory of the tool's own. Not what stands, in a snapshot, for a subvolume that a user made: it is
/// root's whoever that was, and nothing can be made in it.
fn present(parent: &Dir, name: &str) -> anyhow::Result<Option<Dir>> {
    let Some(found) = parent.open_dir_optional(name)? else { return Ok(None) };
    let is_stub = is_stub(parent, &found.status()?)?;
    Ok((!is_stub).then_some(found))
}

/// Makes a directory in place of whatever has its name.
fn make_instead(parent: &Dir, name: &str) -> anyhow::Result<Dir> {
    if let Some(status) = parent.status_optional(name)?
        && is_stub(parent, &status)?
    {
        // It has no other name to get: the kernel takes it for full. The subvolume is where it was.
        tree::remove_single(parent, name)?;
    }
    tree::rename((parent, name), (parent, &parent.free_name(name, |_| false)?))?;
    parent.make_dir(name)
}
