//! What a configuration says, once it has been checked.

use std::path::PathBuf;

use serde::Deserialize;

use super::min_free::MinFree;
use crate::rules::Rules;

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
    Dir(PlainDirectory),
}

/// A plain directory that is reset, on whatever filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainDirectory {
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
