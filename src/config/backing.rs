//! What a volume is made of, as its table says it, checked for what a filesystem wants.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::error::{Wrong, wrong_path};
use super::types::{Btrfs, Keep, NewerSnapshots, PlainDirectory, Strategy, Zfs};
use crate::rules::{OWN_DIRECTORY, PathError, normal_absolute, normal_relative};
use crate::text::exact_number;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DirTable {
    path: Spanned<String>,
    blank: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZfsTable {
    dataset: String,
    blank: String,
    #[serde(default)]
    newer_snapshots: NewerSnapshots,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BtrfsTable {
    device: PathBuf,
    subvolume: Spanned<String>,
    blank: Spanned<String>,
    generations: Option<Spanned<String>>,
}

/// The word that stands for a blank with nothing in it.
const EMPTY: &str = "empty";

pub(super) fn check_zfs(
    zfs: &Spanned<ZfsTable>,
    strategy: Strategy,
    keep: Option<&Spanned<Keep>>,
) -> Result<Zfs, Wrong> {
    if let (Some(keep), Strategy::Rollback) = (keep, strategy) {
        return Err(Wrong::at(
            keep,
            "volume.keep: `rollback` on ZFS keeps no generation, since a rollback destroys later \
             snapshots; remove `keep`, or write strategy = \"carry\"",
        ));
    }
    let bad = |key: &str, why: &str| Wrong::at(zfs, format!("volume.zfs.{key}: {why}"));
    let value = zfs.get_ref();
    if value.dataset.is_empty() || value.dataset.contains(['@', '#', '\0']) {
        return Err(bad("dataset", "give a dataset's full name, as in \"rpool/local/root\""));
    }
    if !value.dataset.contains('/') {
        return Err(bad(
            "dataset",
            "a pool's own top dataset cannot be reset; put the root in a dataset below it",
        ));
    }
    if value.blank == EMPTY && strategy == Strategy::Rollback {
        return Err(bad(
            "blank",
            "`rollback` on ZFS needs a snapshot to roll back to; take one while the dataset is \
             empty (`zfs snapshot DATASET@blank`) and name it here, or write strategy = \"carry\"",
        ));
    }
    if value.blank.is_empty() || value.blank.contains(['@', '/', '#', '\0']) {
        return Err(bad(
            "blank",
            "give the snapshot's name alone, without the dataset and the `@`",
        ));
    }
    if value.blank.strip_prefix("darlings-").and_then(exact_number).is_some() {
        return Err(bad(
            "blank",
            "a snapshot of this name is a generation, which is removed in time; take another one of \
             what the root shall be reset to, and name that",
        ));
    }
    let blank = (value.blank != EMPTY).then(|| value.blank.clone());
    let (dataset, newer_snapshots) = (value.dataset.clone(), value.newer_snapshots);
    Ok(Zfs { dataset, blank, newer_snapshots })
}

pub(super) fn check_btrfs(table: BtrfsTable) -> Result<Btrfs, Wrong> {
    if !table.device.is_absolute() {
        return Err(Wrong::at(
            &table.subvolume,
            "volume.btrfs.device: give the absolute path of a block device",
        ));
    }
    let subvolume = subvolume_path("subvolume", &table.subvolume)?;
    let blank = match table.blank.get_ref().as_str() {
        EMPTY => None,
        _ => Some(subvolume_path("blank", &table.blank)?),
    };
    let generations = match &table.generations {
        Some(generations) => subvolume_path("generations", generations)?,
        None => default_generations(&subvolume),
    };
    let inside = |outer: &Path, inner: &Path| inner.starts_with(outer);
    if blank.as_deref().is_some_and(|blank| inside(&subvolume, blank)) {
        return Err(Wrong::at(
            &table.blank,
            "volume.btrfs.blank: the blank lies in the subvolume that is reset; put it beside it",
        ));
    }
    let is_taken = |blank: &Path| match blank.strip_prefix(&generations).map(Path::to_str) {
        Ok(below) => below.is_some_and(is_given_among_generations),
        Err(_) => inside(blank, &generations),
    };
    if blank.as_deref().is_some_and(is_taken) {
        return Err(Wrong::at(
            &table.blank,
            format!(
                "volume.btrfs.blank: it overlaps what darlings makes and removes among the generations in \
                 {generations:?}; take a read-only snapshot elsewhere and name that"
            ),
        ));
    }
    let apart = !inside(&subvolume, &generations) && !inside(&generations, &subvolume);
    if !apart {
        return Err(Wrong::at(
            table.generations.as_ref().unwrap_or(&table.subvolume),
            "volume.btrfs.generations: it must lie outside the subvolume that is reset, which is \
             replaced",
        ));
    }
    Ok(Btrfs { device: table.device, subvolume, blank, generations })
}

pub(super) fn check_dir(table: &DirTable) -> Result<PlainDirectory, Wrong> {
    let absolute = |key: &str, text: &Spanned<String>| {
        normal_absolute(text.get_ref())
            .map_err(|error| wrong_path(&format!("volume.dir.{key}"), text, &error))
    };
    let path = absolute("path", &table.path)?;
    if path == Path::new("/") {
        return Err(Wrong::at(
            &table.path,
            "volume.dir.path: the running system's own root cannot be reset; name it where the \
             initrd has it, as in \"/sysroot\"",
        ));
    }
    let blank = match table.blank.get_ref().as_str() {
        EMPTY => None,
        _ => Some(absolute("blank", &table.blank)?),
    };
    let own = path.join(OWN_DIRECTORY).join("blank");
    if blank.as_ref().is_some_and(|blank| {
        path.starts_with(blank) || (blank.starts_with(&path) && !blank.starts_with(&own))
    }) {
        return Err(Wrong::at(
            &table.blank,
            format!(
                "volume.dir.blank: the blank lies in the directory that is reset, or around it; \
                 put it elsewhere, or at {own:?}"
            ),
        ));
    }
    Ok(PlainDirectory { path, blank })
}

/// A subvolume's path may begin with a slash, as in the mount option `subvol=`.
fn subvolume_path(key: &str, text: &Spanned<String>) -> Result<PathBuf, Wrong> {
    normal_relative(text.get_ref().trim_start_matches('/')).map_err(|error| match error {
        PathError::Empty => Wrong::at(
            text,
            format!(
                "volume.btrfs.{key}: {:?} is the top level of the filesystem, which nothing can \
                 take the place of; name what lies below it (a root that is the top level is moved \
                 first: `btrfs subvolume snapshot / /@`, and boot that)",
                text.get_ref()
            ),
        ),
        error => wrong_path(&format!("volume.btrfs.{key}"), text, &error),
    })
}

/// Whether a path below the generations directory has a name that resets and purges use, or lies inside such an
/// entry. A generation that the configuration names as the blank no longer counts as one; see `Btrfs::examine`.
pub(super) fn is_given_among_generations(below: &str) -> bool {
    let (first, is_inside) = match below.split_once('/') {
        Some((first, _)) => (first, true),
        None => (below, false),
    };
    let numbered = |prefix: &&str| first.strip_prefix(*prefix).and_then(exact_number).is_some();
    let given = ["ready-", "snapshot-", "seals-", "removing-"].iter().any(numbered);
    let is_generation = exact_number(first).is_some();
    given || ["", OWN_DIRECTORY, "next"].contains(&first) || is_generation && is_inside
}

pub(super) fn default_generations(subvolume: &Path) -> PathBuf {
    let name = subvolume.to_string_lossy().trim_start_matches('@').replace('/', "-");
    Path::new("@darlings").join(if name.is_empty() { "root" } else { &name })
}
