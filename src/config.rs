//! The configuration file: TOML in, checked [`Config`] out.
//!
//! Every error names the file, the line, the key and what to do, and nothing is looked up
//! on any filesystem here: a configuration is right or wrong by itself.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::ask::drift;
use crate::generations::{MinFree, exact_number};
use crate::names::shown;
use crate::rules::{Line, OWN_DIRECTORY, PathError, Rules, normal_absolute, normal_relative};

/// Where the initrd finds its configuration.
pub const DEFAULT_PATH: &str = "/etc/darlings.toml";

/// A configuration that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the machine does when a reset fails while the previous state is whole.
    pub on_failure: OnFailure,
    /// The volumes, in the order of the file.
    pub volumes: Vec<Volume>,
}

/// What the machine does when a reset fails while the previous state is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Boot the previous state unchanged.
    #[default]
    Boot,
    /// Stop the boot.
    Emergency,
}

/// One dataset or subvolume to reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where the running system mounts it; normal.
    pub mount_point: PathBuf,
    /// The filesystem that holds it.
    pub backing: Backing,
    /// How it is reset.
    pub strategy: Strategy,
    /// How long generations are kept; `None` keeps them all, whatever space they take.
    pub keep: Option<Keep>,
    /// Its persisted paths, relative to `mount_point`.
    pub rules: Rules,
}

/// How a volume is reset; both give the same tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The volume goes back to the blank, persisted paths are cloned into it.
    Rollback,
    /// Everything that is not persisted is moved out of the way.
    #[default]
    Carry,
}

/// How long generations are kept. The newest one always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// At most this many.
    pub generations: Option<u32>,
    /// At most this many days after they ended.
    pub days: Option<u32>,
    /// The oldest go while less than this is free.
    pub min_free: Option<MinFree>,
}

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A ZFS dataset.
    Zfs(Zfs),
    /// A btrfs subvolume.
    Btrfs(Btrfs),
    /// A plain directory.
    Dir(Dir),
}

/// A plain directory that is reset, on whatever filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    /// Where it is when the reset runs, in the initrd usually below `/sysroot`.
    pub path: PathBuf,
    /// The directory that is the blank; `None` for an empty one.
    pub blank: Option<PathBuf>,
}

/// A ZFS dataset that is reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zfs {
    /// Its full name, pool first.
    pub dataset: String,
    /// The name of the blank snapshot, without the dataset and the `@`; `None` for an empty one,
    /// which only `carry` can do.
    pub blank: Option<String>,
    /// What a `rollback` does with snapshots that are newer than the blank and not ours.
    pub newer_snapshots: NewerSnapshots,
}

/// What to do with snapshots newer than the blank that `darlings` did not make.
/// A ZFS rollback destroys every later snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NewerSnapshots {
    /// Refuse the reset.
    #[default]
    Refuse,
    /// Destroy them with the rollback.
    Destroy,
}

/// A btrfs subvolume that is reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Btrfs {
    /// The block device, or a link to it below `/dev/disk`.
    pub device: PathBuf,
    /// Path of the live subvolume from the top level of the filesystem.
    pub subvolume: PathBuf,
    /// Path of the blank subvolume; `None` for an empty one.
    pub blank: Option<PathBuf>,
    /// Path of the directory where generations live.
    pub generations: PathBuf,
}

/// A configuration that cannot be used, and where it says so.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    /// Line and column, both from 1.
    place: Option<(usize, usize)>,
    message: String,
    source: Option<std::io::Error>,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", shown(&self.file))?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

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
    ///
    /// # Errors
    /// As [`Config::read`].
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
        let digest = drift::digest(&config);
        for volume in &mut config.volumes {
            volume.rules.set_configuration(Some(digest.clone()));
        }
        Ok(config)
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// What is wrong and where in the text, before the file's name is known.
#[derive(Debug)]
struct Wrong {
    span: Option<Range<usize>>,
    message: String,
}

impl Wrong {
    fn at<T>(spanned: &Spanned<T>, message: impl Into<String>) -> Self {
        Self { span: Some(spanned.span()), message: message.into() }
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
struct DirTable {
    path: Spanned<String>,
    blank: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZfsTable {
    dataset: String,
    blank: String,
    #[serde(default)]
    newer_snapshots: NewerSnapshots,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BtrfsTable {
    device: PathBuf,
    subvolume: Spanned<String>,
    blank: Spanned<String>,
    generations: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersistTable {
    path: Spanned<String>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
}

/// The word that stands for a blank with nothing in it.
const EMPTY: &str = "empty";

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

fn check_zfs(
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

fn check_btrfs(table: BtrfsTable) -> Result<Btrfs, Wrong> {
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

fn check_dir(table: &DirTable) -> Result<Dir, Wrong> {
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
    Ok(Dir { path, blank })
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

/// Whether a path below the generations directory is one that resets and purges give, or lies in one. A
/// generation itself is none any more once it is named as the blank; see `Btrfs::examine`.
fn is_given_among_generations(below: &str) -> bool {
    let (first, is_inside) = match below.split_once('/') {
        Some((first, _)) => (first, true),
        None => (below, false),
    };
    let numbered = |prefix: &&str| first.strip_prefix(*prefix).and_then(exact_number).is_some();
    let given = ["ready-", "snapshot-", "seals-", "removing-"].iter().any(numbered);
    let is_generation = exact_number(first).is_some();
    given || ["", OWN_DIRECTORY, "next"].contains(&first) || is_generation && is_inside
}

fn default_generations(subvolume: &Path) -> PathBuf {
    let name = subvolume.to_string_lossy().trim_start_matches('@').replace('/', "-");
    Path::new("@darlings").join(if name.is_empty() { "root" } else { &name })
}

fn wrong_path(key: &str, text: &Spanned<String>, error: &PathError) -> Wrong {
    Wrong::at(text, format!("{key}: {:?} {error}", text.get_ref()))
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

#[cfg(test)]
mod tests;
