//! A plain directory on btrfs: nothing can be moved out of a subvolume, or into one, since a rename does
//! not leave the subvolume that it begins in. A subvolume as a whole can be moved.

use std::path::{Path, PathBuf};

use anyhow::bail;
use darlings_btrfs as btrfs;

use crate::fs::Dir;
use crate::keep::attic::ATTIC;
use crate::keep::carry::GENERATIONS;
use crate::keep::survey::{State, closed, in_subvolume};
use crate::own::Own;
use crate::rules::{OWN_DIRECTORY, Rules};
use crate::volume::Looked;

/// Leaves in its place whatever would have to move out of a subvolume or into one. What is no longer
/// persisted goes with the generation, and what is in the attic stays there.
///
/// # Errors
/// A persisted path in a subvolume that root has made, or what is the tool's own: the volume can be reset as `btrfs`, if it is a
/// subvolume itself.
pub(super) fn leave(rules: &Rules, root: &Dir, looked: &mut Looked) -> anyhow::Result<()> {
    if !btrfs::is_btrfs(root)? {
        return Ok(());
    }
    if let Some(closed) = closed(rules, root, true)?.first() {
        bail!("{}", closed.refusal());
    }
    if Own::open(root)?.is_some() {
        for name in [GENERATIONS, ATTIC] {
            let path = Path::new(OWN_DIRECTORY).join(name).join("1");
            if let Some(subvolume) = around(root, &path)? {
                bail!("{}", in_subvolume(&path, &subvolume));
            }
        }
    }
    for path in std::mem::take(&mut looked.attic.stores) {
        let stays = around(root, &path)?.is_some();
        if stays { &mut looked.left } else { &mut looked.attic.stores }.push(path);
    }
    for back in std::mem::take(&mut looked.attic.inside) {
        if around(root, &back.from)?.is_none() && around(root, &back.path)?.is_none() {
            looked.attic.inside.push(back);
        }
    }
    for it in &mut looked.paths {
        if let Some(from) = &it.from
            && around(root, from)?.is_some()
        {
            (it.state, it.from) = (State::Absent, None);
        }
    }
    Ok(())
}

/// The subvolume nested in the volume in which a path lies.
fn around(root: &Dir, path: &Path) -> anyhow::Result<Option<PathBuf>> {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        let status = root.glance(above)?;
        let kind = status.map(|status| btrfs::entry_kind(status.stx_ino));
        if kind == Some(btrfs::EntryKind::SubvolumeRoot) {
            return Ok(Some(above.to_owned()));
        }
    }
    Ok(None)
}
