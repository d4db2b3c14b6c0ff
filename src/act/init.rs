//! Making what a reset needs, on a system that was not installed for it.
//!
//! Each filesystem looks first (`volume/*/init.rs`), and then makes what it said that is missing.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::config::{self, Backing};
use crate::names::shown;
use crate::volume;
use crate::volume::{InitOptions, Missing};

/// What was missing of every volume, for `--json`. Its schema is in `docs/json.md`.
#[derive(Debug, Serialize)]
pub struct InitReport {
    /// Format; a new field does not change it.
    pub version: u32,
    /// Nothing was made.
    pub dry_run: bool,
    /// The volumes, in the order of the configuration.
    pub volumes: Vec<InitializedVolume>,
}

/// What was missing of one volume.
#[derive(Debug, Serialize)]
pub struct InitializedVolume {
    /// Where the running system mounts it.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub mount_point: PathBuf,
    /// What was made, or would be.
    pub made: Vec<Missing>,
}

/// Makes what is missing of one volume, or says what that is.
///
/// # Errors
/// What could not be made, or cannot be made at all and what to do instead.
pub fn init(volume: &config::Volume, options: InitOptions) -> anyhow::Result<Vec<Missing>> {
    volume::init(volume, options).with_context(|| shown(&volume.mount_point))
}

/// A line for each.
#[must_use]
pub fn in_words(volume: &config::Volume, missing: &[Missing], options: InitOptions) -> String {
    let mount_point = shown(&volume.mount_point);
    let did = if options.dry_run { "would make" } else { "made" };
    let mut lines: Vec<String> =
        missing.iter().map(|missing| format!("{mount_point}: {did} {missing}\n")).collect();
    if options.from_live && is_empty(&volume.backing) {
        lines.push(format!(
            "{mount_point}: blank = \"empty\" is not made of the installed system; write the name of a \
             blank that does not exist yet into the configuration, and run this again\n"
        ));
    } else if missing.is_empty() {
        lines.push(format!("{mount_point}: nothing is missing\n"));
    }
    lines.concat()
}

/// Whether the blank is the word `empty`, and so has no name.
fn is_empty(backing: &Backing) -> bool {
    match backing {
        Backing::Btrfs(source) => source.blank.is_none(),
        Backing::Zfs(source) => source.blank.is_none(),
        Backing::Dir(source) => source.blank.is_none(),
    }
}
