//! Reading the file.
//!
//! Every error names the file, the line, the key and what to do, and nothing is looked up
//! on any filesystem here: a configuration is right or wrong by itself.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::backing::{BtrfsTable, DirTable, ZfsTable, check_btrfs, check_dir, check_zfs};
use super::digest::digest;
use super::error::{ConfigError, Wrong, line_and_column, wrong_path};
use super::types::{Backing, Btrfs, Config, Keep, OnFailure, Strategy, Volume};
use crate::rules::{Line, OWN_DIRECTORY, PathError, Rules, normal_absolute, normal_relative};

/// Where the initrd finds its configuration.
pub const DEFAULT_PATH: &str = "/etc/darlings.toml";

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be read, is not UTF-8, is not TOML, has an unknown key,
    /// or says something that cannot be meant.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let at = |place, message, source| ConfigError { file: path.into(), place, message, source };
        let bytes = std::fs::read(path)
            .map_err(|error| at(None, "the configuration cannot be read".into(), Some(error)))?;
        Self::from_bytes(path, &bytes)
    }

    /// Reads what `path` holds.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        let at = |place, message, source| ConfigError { file: path.into(), place, message, source };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let place = line_and_column(&good, good.len());
            at(Some(place), "the configuration is not UTF-8; save it as UTF-8".into(), None)
        })?;
        Self::parse(text).map_err(|wrong| {
            let place = wrong.span.map(|span| line_and_column(text, span.start));
            at(place, wrong.message, None)
        })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let file: File = toml::from_str(text)
            .map_err(|error| Wrong { span: error.span(), message: error.message().to_owned() })?;
        let mut volumes =
            file.volume.into_iter().map(check_volume).collect::<Result<Vec<_>, _>>()?;
        check_volumes_apart(&volumes)?;
        for persist in file.persist {
            assign(&persist, &mut volumes, text)?;
        }
        let mut volumes: Vec<Volume> = volumes.into_iter().map(Spanned::into_inner).collect();
        for volume in &mut volumes {
            volume.rules.finish();
        }
        let mut config = Self { on_failure: file.on_failure, volumes };
        let digest = digest(&config);
        for volume in &mut config.volumes {
            volume.rules.set_configuration(Some(digest.clone()));
        }
        Ok(config)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    on_failure: OnFailure,
    volume: Vec<Spanned<VolumeTable>>,
    #[serde(default)]
    persist: Vec<PersistTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeTable {
    mount_point: Spanned<String>,
    strategy: Option<Spanned<Strategy>>,
    zfs: Option<Spanned<ZfsTable>>,
    btrfs: Option<Spanned<BtrfsTable>>,
    dir: Option<Spanned<DirTable>>,
    keep: Option<Spanned<Keep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersistTable {
    path: Spanned<String>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
}

fn check_volume(table: Spanned<VolumeTable>) -> Result<Spanned<Volume>, Wrong> {
    let span = table.span();
    let table = table.into_inner();
    let mount_point = normal_absolute(table.mount_point.get_ref())
        .map_err(|error| wrong_path("volume.mount_point", &table.mount_point, &error))?;
    let mut strategy = table.strategy.as_ref().map(|it| *it.get_ref()).unwrap_or_default();
    let backing = match (table.zfs, table.btrfs, table.dir) {
        (Some(zfs), None, None) => Backing::Zfs(check_zfs(&zfs, strategy, table.keep.as_ref())?),
        (None, Some(btrfs), None) => Backing::Btrfs(check_btrfs(btrfs.into_inner())?),
        (None, None, Some(dir)) => {
            if let Some(it) = table.strategy.filter(|it| *it.get_ref() == Strategy::Rollback) {
                return Err(Wrong::at(
                    &it,
                    "volume.strategy: a plain directory has nothing to roll back to; write \
                     \"carry\"",
                ));
            }
            strategy = Strategy::Carry;
            Backing::Dir(check_dir(dir.get_ref())?)
        }
        _ => {
            let message = "volume: give exactly one of `zfs`, `btrfs` and `dir`".to_owned();
            return Err(Wrong { span: Some(span), message });
        }
    };
    let keep = table.keep.map(Spanned::into_inner);
    let rules = Rules::default();
    Ok(Spanned::new(span, Volume { mount_point, backing, strategy, keep, rules }))
}

/// Two volumes must not be reset over each other.
fn check_volumes_apart(volumes: &[Spanned<Volume>]) -> Result<(), Wrong> {
    for (index, volume) in volumes.iter().enumerate() {
        for earlier in &volumes[..index] {
            if let Some(same) = clash(earlier.get_ref(), volume.get_ref()) {
                return Err(Wrong::at(volume, format!("volume: {same}")));
            }
        }
    }
    Ok(())
}

fn clash(one: &Volume, other: &Volume) -> Option<String> {
    let twice = |what: &str, named: &dyn std::fmt::Debug| {
        Some(format!("two volumes {what} {named:?}; each may be named once"))
    };
    if one.mount_point == other.mount_point {
        return twice("have mount_point", &one.mount_point);
    }
    match (&one.backing, &other.backing) {
        (Backing::Zfs(a), Backing::Zfs(b)) if a.dataset == b.dataset => {
            twice("reset the dataset", &a.dataset)
        }
        (Backing::Btrfs(a), Backing::Btrfs(b)) if a.device == b.device => {
            if a.subvolume == b.subvolume {
                return twice("reset the subvolume", &a.subvolume);
            }
            if a.generations == b.generations {
                return twice("share the generations", &a.generations);
            }
            goes_with(a, b).or_else(|| goes_with(b, a))
        }
        (Backing::Dir(a), Backing::Dir(b))
            if a.path.starts_with(&b.path) || b.path.starts_with(&a.path) =>
        {
            Some(format!("{:?} and {:?} lie in each other; reset one of them", a.path, b.path))
        }
        _ => None,
    }
}

/// What `inner` needs and would lose when `outer` is reset: it would go with the previous state.
fn goes_with(outer: &Btrfs, inner: &Btrfs) -> Option<String> {
    let needed =
        [Some(&inner.subvolume), inner.blank.as_ref(), Some(&inner.generations)].into_iter();
    let inside = needed.flatten().find(|path| path.starts_with(&outer.subvolume))?;
    Some(format!(
        "{inside:?} lies in the subvolume {:?}, which another volume resets, and would go with its \
         previous state; move it beside that",
        outer.subvolume
    ))
}

/// Gives a persisted path to the volume with the longest mount point above it.
fn assign(table: &PersistTable, volumes: &mut [Spanned<Volume>], file: &str) -> Result<(), Wrong> {
    let path = normal_absolute(table.path.get_ref())
        .map_err(|error| wrong_path("persist.path", &table.path, &error))?;
    if volumes.iter().any(|volume| volume.get_ref().mount_point == path) || path == Path::new("/") {
        return Err(wrong_path("persist.path", &table.path, &PathError::Empty));
    }
    let mut excluded = Vec::new();
    for text in &table.exclude {
        excluded.push(
            normal_relative(text.get_ref())
                .map_err(|error| wrong_path("persist.exclude", text, &error))?,
        );
    }
    let Some((volume, below)) = volumes
        .iter_mut()
        .filter_map(|volume| {
            let below = path.strip_prefix(&volume.get_ref().mount_point).ok()?.to_owned();
            Some((volume, below))
        })
        .max_by_key(|(volume, _)| volume.get_ref().mount_point.as_os_str().len())
    else {
        let message = format!(
            "persist.path: {path:?} is on no volume that is reset; remove it, or add the [[volume]] \
             that holds it"
        );
        return Err(Wrong::at(&table.path, message));
    };
    if below.starts_with(OWN_DIRECTORY) {
        return Err(wrong_path("persist.path", &table.path, &PathError::Reserved));
    }
    let volume = volume.get_mut();
    volume.rules.declare(&below, &excluded).map_err(|twice| {
        let twice = volume.mount_point.join(twice);
        let message = format!("persist: {twice:?} is declared or excluded twice; keep one of them");
        Wrong::at(&table.path, message)
    })?;
    let line = |text: &Spanned<String>| line_and_column(file, text.span().start).0;
    volume.rules.note(&below, Line { number: line(&table.path), excludes: false });
    for (path, text) in excluded.iter().zip(&table.exclude) {
        volume.rules.note(&below.join(path), Line { number: line(text), excludes: true });
    }
    Ok(())
}
