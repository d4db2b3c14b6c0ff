//! How datasets, snapshots and properties are called.

use crate::config;

/// The user property that marks a dataset as rolled back and not yet filled again.
/// Its value is the number of the reset.
pub(super) const MARK: &str = "darlings:rolled-back";

/// The part of a snapshot's name, after the `@`, that says whose it is.
pub(super) const OURS: &str = "darlings-";

/// The pool that a dataset is in.
pub(super) fn pool_of(dataset: &str) -> &str {
    dataset.split_once('/').map_or(dataset, |(pool, _)| pool)
}

/// The dataset in which the result is made.
pub(super) fn stage_name(source: &config::Zfs) -> String {
    format!("{}/darlings-stage", source.dataset)
}

/// The snapshot of the stage whose existence means that the stage is complete.
pub(super) fn secured_name(source: &config::Zfs, generation: u64) -> String {
    format!("{}@{OURS}{generation}", stage_name(source))
}

/// The blank's full name; `None` for an empty one.
pub(super) fn blank_name(source: &config::Zfs) -> Option<String> {
    source.blank.as_ref().map(|blank| format!("{}@{blank}", source.dataset))
}

/// The snapshot that is a generation.
pub(super) fn generation_name(source: &config::Zfs, generation: u64) -> String {
    format!("{}@{OURS}{generation}", source.dataset)
}

/// The number in the name of a snapshot that is called as ours are. Whether it is one of ours, only
/// its mark says.
pub(super) fn own_number(name: &str) -> Option<u64> {
    name.split_once('@')?.1.strip_prefix(OURS)?.parse().ok()
}

/// The dataset, in words.
pub(in crate::volume) fn in_words(source: &config::Zfs) -> String {
    format!("ZFS dataset {}", source.dataset)
}
