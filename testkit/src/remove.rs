//! Removing what tests leave behind, immutable entries included.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{AtFlags, FileType, OFlags, StatxAttributes};
use rustix::io::Errno;

use crate::descent::{Descent, open_quietly, stat};
use crate::flags::{Flags, LOCKS};
use crate::names::escape;

/// Removes a directory and everything below it. It refuses to cross a mount point, and goes into
/// btrfs subvolumes, which fall when they are empty (read-only ones do not).
pub fn all(dir: &Path) -> Result<()> {
    contents(dir)?;
    std::fs::remove_dir(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// Removes everything below a directory and leaves the directory, its flags cleared.
pub fn contents(dir: &Path) -> Result<()> {
    walk(dir, true).with_context(|| format!("cannot empty {}", dir.display()))
}

/// Clears immutable and append-only of a directory and of everything below it.
pub fn unlock(dir: &Path) -> Result<()> {
    walk(dir, false).with_context(|| format!("cannot clear the flags below {}", dir.display()))
}

fn walk(dir: &Path, remove: bool) -> Result<()> {
    let mut descent = Descent::open(dir)?;
    unlock_here(&descent)?;
    let mut pending = vec![(Vec::new(), descent.names()?.into_iter())];
    while let Some((_, names)) = pending.last_mut() {
        let Some(name) = names.next() else {
            let done = pending.pop();
            if let Some((name, _)) = done.filter(|_| !pending.is_empty()) {
                descent.leave()?;
                if remove {
                    rustix::fs::unlinkat(descent.fd(), &name, AtFlags::REMOVEDIR).with_context(
                        || format!("cannot remove the directory {}", escape(&name)),
                    )?;
                }
            }
            continue;
        };
        let found = stat(descent.fd(), &name)?;
        let kind = FileType::from_raw_mode(u32::from(found.stx_mode));
        if kind == FileType::Directory {
            if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                bail!("{} is a mount point", escape(&name));
            }
            descent.enter(&name)?;
            unlock_here(&descent)?;
            let names = descent.names()?;
            pending.push((name, names.into_iter()));
            continue;
        }
        if kind == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            unlock_file(&open_quietly(descent.fd(), &name, flags)?)?;
        }
        if remove {
            rustix::fs::unlinkat(descent.fd(), &name, AtFlags::empty())
                .with_context(|| format!("cannot remove {}", escape(&name)))?;
        }
    }
    Ok(())
}

fn unlock_here(descent: &Descent) -> Result<()> {
    unlock_file(descent.fd())
}

fn unlock_file(file: impl std::os::fd::AsFd) -> Result<()> {
    let Some(flags) = Flags::read(&file)? else { return Ok(()) };
    if flags.intersects(LOCKS) {
        match flags.without(LOCKS).write(&file) {
            Ok(()) => {}
            Err(Errno::ROFS) => bail!("the filesystem is read-only"),
            Err(errno) => return Err(errno).context("cannot clear immutable or append-only"),
        }
    }
    Ok(())
}
