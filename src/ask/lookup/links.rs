//! What a path with symbolic links on it stands for, on the volumes that are reset. A reset does not
//! follow them; a person does.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::fs::FileType;
use serde::Serialize;

use super::{Place, Volumes, place};
use crate::fs::at;
use crate::text::{absolute, shown_path};

/// A symbolic link on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Where it is.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// What it says.
    #[serde(serialize_with = "shown_path")]
    pub target: PathBuf,
}

/// As many links as the kernel follows (`MAXSYMLINKS`).
const MOST: usize = 40;

/// Follows the links on an absolute, normal path. What is on no volume that is reset is not looked
/// at.
///
/// # Errors
/// What cannot be read, and more links than the kernel follows.
pub fn resolve(volumes: &mut Volumes<'_>, path: &Path) -> anyhow::Result<(Vec<Link>, PathBuf)> {
    let mut links = Vec::new();
    let mut path = path.to_owned();
    while let Some(link) = first(volumes, &path)? {
        ensure!(
            links.len() < MOST,
            "{:?} leads through more than {MOST} symbolic links, too many to follow",
            links.first().map_or(path.as_path(), |link: &Link| &link.path)
        );
        let above = link.path.parent().unwrap_or(Path::new("/"));
        let rest = path.strip_prefix(&link.path).context("BUG: the link is not on the path")?;
        path = absolute(above, &link.target.join(rest));
        links.push(link);
    }
    Ok((links, path))
}

/// The first link on a path.
fn first(volumes: &mut Volumes<'_>, path: &Path) -> anyhow::Result<Option<Link>> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    for above in ancestors {
        let Some(Place { volume, below, over: None }) = place(volumes.config(), above)? else {
            continue;
        };
        if below.as_os_str().is_empty() {
            continue;
        }
        let live = volumes.store(volume)?.live()?;
        // What is not there leads nowhere.
        let Some(status) = live.glance(&below)? else { return Ok(None) };
        if at::kind(&status) == FileType::Symlink {
            return Ok(Some(Link { path: above.to_owned(), target: live.read_link(&below)? }));
        }
    }
    Ok(None)
}
