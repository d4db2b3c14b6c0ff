//! What was brought over, for `--json`. Its schema is in `docs/json.md`.

use std::path::Path;

use serde::Serialize;

use super::{AdoptFate, Adoption};
use crate::tree::BytesByRung;

/// What became of the paths of every volume.
#[derive(Debug, Serialize)]
pub struct AdoptReport<'a> {
    version: u32,
    dry_run: bool,
    volumes: Vec<OfVolume<'a>>,
}

#[derive(Debug, Serialize)]
struct OfVolume<'a> {
    #[serde(serialize_with = "crate::text::shown_path")]
    mount_point: &'a Path,
    paths: Vec<OfPath<'a>>,
    bytes: BytesByRung,
}

#[derive(Debug, Serialize)]
struct OfPath<'a> {
    #[serde(serialize_with = "crate::text::shown_path")]
    path: &'a Path,
    fate: &'static str,
    entries: Option<u64>,
    bytes: Option<u64>,
    why: Option<&'a str>,
}

impl<'a> AdoptReport<'a> {
    /// Of these.
    #[must_use]
    pub fn of(adoptions: &'a [Adoption], dry_run: bool) -> Self {
        let of_volume = |adoption: &'a Adoption| OfVolume {
            mount_point: &adoption.mount_point,
            paths: adoption.paths.iter().map(|(path, fate)| OfPath::of(path, fate)).collect(),
            bytes: adoption.bytes,
        };
        Self { version: 1, dry_run, volumes: adoptions.iter().map(of_volume).collect() }
    }
}

impl<'a> OfPath<'a> {
    fn of(path: &'a Path, of: &'a AdoptFate) -> Self {
        let (mut entries, mut bytes, mut why) = (None, None, None);
        let fate = match of {
            AdoptFate::Adopt { entries: of_entries, bytes: of_bytes } => {
                (entries, bytes) = (*of_entries, *of_bytes);
                "adopt"
            }
            AdoptFate::Complete => "complete",
            AdoptFate::Already => "already",
            AdoptFate::Absent => "absent",
            AdoptFate::Unlinked => "unlinked",
            AdoptFate::Blocked(words) => {
                why = Some(words.as_str());
                "blocked"
            }
        };
        Self { path, fate, entries, bytes, why }
    }
}
