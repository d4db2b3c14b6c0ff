//! What the running system has at the declared paths, and whether the volume has it, too: what is
//! mounted there goes with the next boot, and a link into a store is not what it leads to.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, readlinkat};

use super::VolumeCheck;
use crate::config;
use crate::names::shown;
use crate::restore::at;
use crate::volume;

impl VolumeCheck {
    /// Looks at every declared path. `live` is the root of the volume itself, without what is mounted
    /// on it.
    pub(super) fn places(
        &mut self,
        volume: &config::Volume,
        live: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        if volume::other_mount(volume)?.is_some() {
            // What this system has there says nothing about the volume.
            return Ok(());
        }
        for declared in volume.rules.persisted() {
            let path = &declared.path;
            let full = volume.mount_point.join(path);
            let own = Own::look(live, path)?;
            let Some(cover) = volume::cover(&volume.mount_point, &full)? else {
                if let Own::Link(target) = own
                    && target != full
                    && target.ends_with(path)
                {
                    self.notes.push(format!(
                        "{} is a link to {}, and a link is what is kept; `darlings adopt` brings what it \
                         leads to",
                        shown(&full),
                        shown(&target)
                    ));
                }
                continue;
            };
            let (declared_at, full, source) = (&full, shown(&full), &cover.source);
            if !cover.is_part {
                self.notes.push(format!(
                    "{full} is on {source}, which is mounted at {} and not touched by this volume's reset",
                    shown(&cover.mount_point)
                ));
            } else if matches!(own, Own::Nothing) && has_content(declared_at)? {
                self.problems.push(format!(
                    "{full} is a bind mount of {source}, and the volume itself has nothing there: once \
                     nobody mounts it any more it is empty; bring it over with `darlings adopt`"
                ));
            }
        }
        Ok(())
    }
}

/// Whether the running system has anything at a path, where mounts count.
fn has_content(path: &Path) -> anyhow::Result<bool> {
    let look = || -> std::io::Result<bool> {
        let Some(found) = at::present(std::fs::symlink_metadata(path))? else { return Ok(false) };
        Ok(if found.is_dir() {
            std::fs::read_dir(path)?.next().transpose()?.is_some()
        } else {
            !found.is_file() || found.len() > 0
        })
    };
    look().with_context(|| format!("cannot look at {path:?}"))
}

/// What a volume itself has at a path.
enum Own {
    /// Nothing, or only what something is mounted on.
    Nothing,
    /// What a link says.
    Link(PathBuf),
    Content,
}

impl Own {
    fn look(live: BorrowedFd<'_>, path: &Path) -> anyhow::Result<Self> {
        let Some((parent, name)) = at::present(at::open_parent(live, path))? else {
            return Ok(Self::Nothing);
        };
        let Some(status) = at::present(at::status(parent.as_fd(), &name))? else {
            return Ok(Self::Nothing);
        };
        let is_empty = match at::kind(&status) {
            FileType::Directory => {
                let directory = at::open_directory(parent.as_fd(), &name)?;
                at::names(directory.as_fd())?.is_empty()
            }
            FileType::RegularFile => status.stx_size == 0,
            FileType::Symlink => {
                let target = readlinkat(&parent, &name, Vec::new())?;
                return Ok(Self::Link(PathBuf::from(at::os_name(&target))));
            }
            _ => false,
        };
        Ok(if is_empty { Self::Nothing } else { Self::Content })
    }
}
