//! What the running system has at the declared paths, and whether the volume has it, too: what is
//! mounted there goes with the next boot, and a link into a store is not what it leads to.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::FileType;

use super::VolumeCheck;
use crate::config;
use crate::fs::Dir;
use crate::fs::at;
use crate::names::shown;
use crate::rules::Verdict;
use crate::volume::{self, FromWithin};

impl VolumeCheck {
    /// Looks at every declared path. `live` is the root of the volume itself, without what is mounted
    /// on it.
    pub(super) fn places(
        &mut self,
        volume: &config::Volume,
        live: &Dir,
        blank: Option<&Dir>,
    ) -> anyhow::Result<()> {
        if volume::other_mount(volume)?.is_some() {
            // What this system has there says nothing about the volume.
            return Ok(());
        }
        for mount in volume::mounted_from_within(volume)? {
            self.mount_from_within(volume, &mount, blank)?;
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

    /// A mount whose image, or whose encrypted directory, is on the volume, and erased by the next reset. It
    /// is a problem where something is declared that is in it, or that it is in.
    fn mount_from_within(
        &mut self,
        volume: &config::Volume,
        mount: &FromWithin,
        blank: Option<&Dir>,
    ) -> anyhow::Result<()> {
        let below = |path: &Path| path.strip_prefix(&volume.mount_point).unwrap_or(path).to_owned();
        let (at, backing) = (below(&mount.mount_point), below(&mount.backing));
        let in_blank = match blank {
            Some(blank) => blank.glance(&backing)?.is_some(),
            None => false,
        };
        let (at_shown, from) = (shown(&mount.mount_point), shown(&mount.backing));
        let told = |known: &String| known.contains(&from);
        if in_blank
            || volume.rules.verdict(&backing) == Verdict::Persisted
            || self.problems.iter().any(told)
        {
            return Ok(());
        }
        let declared = volume.rules.persisted();
        let concerns = |path: &Path| path.starts_with(&at) || at.starts_with(path);
        let words = format!(
            "{at_shown} is mounted from {from}, which is not kept: the next reset erases it with all that is \
             in it; persist {from}"
        );
        let to = if declared.iter().any(|it| concerns(&it.path)) {
            &mut self.problems
        } else {
            &mut self.notes
        };
        to.push(words);
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
    fn look(live: &Dir, path: &Path) -> anyhow::Result<Self> {
        // An ancestor that is not a directory is not followed: the plan has named it.
        let Some((parent, name)) = live.open_parent_optional(path)? else {
            return Ok(Self::Nothing);
        };
        let Some(status) = parent.status_optional(&name)? else { return Ok(Self::Nothing) };
        let is_empty = match at::kind(&status) {
            FileType::Directory => parent.open_or_mounted(&name)?.is_empty()?,
            FileType::RegularFile => status.stx_size == 0,
            FileType::Symlink => return Ok(Self::Link(parent.read_link(&name)?)),
            _ => false,
        };
        Ok(if is_empty { Self::Nothing } else { Self::Content })
    }
}
