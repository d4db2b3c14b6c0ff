//! How subvolumes are called that a reset makes, and what lies among the generations.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config;
use crate::fs::Dir;
use crate::names::shown;
use crate::text::exact_number;

/// Where, below the generations directory, a result is being made. It is worth nothing. What somebody
/// else has called `next` lies beside it, and is theirs.
pub(super) const NEXT: &str = ".darlings/next";

/// Name, in the generations directory, of a result that is complete and durable, or, once it
/// was exchanged, of the previous state. Which of the two it is, the number in the live
/// subvolume tells.
pub(super) fn ready_name(generation: u64) -> String {
    format!("ready-{generation}")
}

/// The highest number among the names of generations; 0 where there is none.
pub(super) fn highest(names: &[String]) -> u64 {
    let numbers = names.iter().filter_map(|name| name.parse::<u64>().ok());
    numbers.filter(|number| *number < u64::MAX).max().unwrap_or(0)
}

/// The number of the generation whose [`ready_name`] it is.
pub(super) fn ready_for(name: &str) -> Option<u64> {
    exact_number(name.strip_prefix("ready-")?)
}

/// Name, in the generations directory, of a copy of the live subvolume that is about to be a generation.
pub(super) fn snapshot_name(generation: u64) -> String {
    format!("snapshot-{generation}")
}

/// The number in a name that only something staged has, or what somebody else has called so.
pub(super) fn staged_number(name: &str) -> Option<u64> {
    exact_number(name.strip_prefix("ready-").or_else(|| name.strip_prefix("snapshot-"))?)
}

/// Name, in the generations directory, of a file with the flags that the root of a generation shall
/// have. It is there from before the live root loses them until the generation has them.
pub(super) fn seals_name(generation: u64) -> String {
    format!("seals-{generation}")
}

/// The generation that such a file is for.
pub(super) fn seals_for(name: &str) -> Option<u64> {
    exact_number(name.strip_prefix("seals-")?)
}

/// The subvolume and its device, in words.
pub(in crate::volume) fn in_words(source: &config::Btrfs) -> String {
    format!("btrfs subvolume {} on {}", shown(&source.subvolume), shown(&source.device))
}

pub(super) fn names_in(directory: &Dir) -> anyhow::Result<Vec<String>> {
    let names = directory.names()?;
    let mut names: Vec<String> =
        names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// A name in the generations directory, as the filesystem's calls take it.
pub(super) fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// The parts of `path` that are directories to be made, outermost first.
pub(super) fn each_directory(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
    parts.retain(|part| !part.as_os_str().is_empty());
    parts.reverse();
    parts
}
