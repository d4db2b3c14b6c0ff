//! What a reset put aside in the live volume's `.darlings`: the trash and the attic.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use tracing::warn;

use crate::fs::Dir;
use crate::generations::retention::Dated;
use crate::generations::{removing, removing_name};
use crate::keep::attic::ATTIC;
use crate::own::Own;
use crate::rules::OWN_DIRECTORY;
use crate::text::exact_number;
use crate::tree;

impl Own {
    /// Removes something in it, calling `removed` after each entry that is gone.
    pub(super) fn remove(&self, path: &Path, removed: &mut dyn FnMut()) -> anyhow::Result<()> {
        let (parent, name) = self.open_parent(path)?;
        tree::remove_telling(&parent, &name, removed).map(drop)
    }

    /// What resets have put into the attic, with the time that is written down there, else the one
    /// that `times` has for that reset.
    pub(super) fn attic(&self, times: &BTreeMap<u64, u64>) -> anyhow::Result<Vec<Dated>> {
        let Some(attic) = self.open_dir_optional(ATTIC)? else { return Ok(Vec::new()) };
        let mut found: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        for name in self.in_attic()? {
            let Some(text) = name.to_str() else { continue };
            if let Some(number) = text.strip_suffix(".json").and_then(exact_number) {
                // What says nothing of its age stays, and the rest of the purge goes on.
                let time = time_in(&attic, text).unwrap_or_else(|error| {
                    warn!("{error:#}");
                    None
                });
                found.insert(number, time);
            } else if let Some(number) = exact_number(text) {
                found.entry(number).or_default();
            }
        }
        let dated = found.into_iter().map(|(number, time)| {
            let ended = time.or_else(|| times.get(&number).copied());
            Dated { number, ended }
        });
        Ok(dated.collect())
    }

    /// What is left in the attic of what an earlier purge had begun to remove.
    pub(super) fn begun(&self) -> anyhow::Result<Vec<u64>> {
        let names = self.in_attic()?;
        Ok(names.iter().filter_map(|name| removing(name.to_str().unwrap_or(""))).collect())
    }

    /// Begins to remove what a reset put into the attic, and answers where it is now, below
    /// this directory. It is gone from the attic at once, so that an interruption leaves nothing half
    /// there.
    pub(super) fn doom_attic(&self, number: u64) -> anyhow::Result<PathBuf> {
        let attic = self.open_dir_optional(ATTIC)?.context("the attic is not a directory")?;
        let name = tree::doom(&attic, number.to_string(), removing_name(number))?;
        // Without what it lists it means nothing; a run that was interrupted here left it behind.
        tree::remove(&attic, format!("{number}.json"))?;
        Ok(Path::new(ATTIC).join(name))
    }

    /// The names in the attic, sorted.
    fn in_attic(&self) -> anyhow::Result<Vec<OsString>> {
        let Some(attic) = self.open_dir_optional(ATTIC)? else { return Ok(Vec::new()) };
        let mut names = attic.names()?;
        names.sort();
        Ok(names)
    }
}

/// The time in a list of the attic; nothing else in it matters here.
fn time_in(attic: &Dir, name: &str) -> anyhow::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        time: Option<u64>,
    }
    let Some(text) = attic.read_optional(name)? else { return Ok(None) };
    let list = serde_json::from_slice::<List>(&text);
    Ok(list.with_context(|| format!("cannot read {OWN_DIRECTORY}/{ATTIC}/{name}"))?.time)
}
