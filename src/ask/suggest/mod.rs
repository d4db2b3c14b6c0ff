//! What a machine should keep: well-known state that is there, and that the next reset would erase.
//!
//! | module | what it knows |
//! |---|---|
//! | `known` | the list of well-known state, which is data: `known.toml` |
//! | `pattern` | names with `*`, and homes; pure |
//! | `found` | what an answer says of one path |
//! | `look` | what of it is on a volume, and what the rules say |
//! | `render` | the answer as lines for the configuration, in TOML and Nix |
//!
//! Nothing walks the volume: each known path is looked for. So it takes as long on a full disk as on
//! an empty one, but for counting what is in the directories that are found.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::Config;

mod found;
mod known;
mod look;
mod pattern;
mod render;

pub use found::{Suggestion, SuggestionKind, SuggestionState};
pub use known::{Advice, Known, known};
pub use look::look;
pub use render::{nix, toml};

/// What was found on all volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestions {
    version: u32,
    /// Sorted by path.
    pub found: Vec<Suggestion>,
    /// Volumes that could not be looked at.
    pub errors: Vec<UnreadVolume>,
}

/// A volume that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadVolume {
    /// Where the running system mounts it.
    pub mount_point: PathBuf,
    /// Why.
    pub error: String,
}

impl Suggestions {
    /// Looks at every volume of a configuration.
    ///
    /// # Errors
    /// The list of well-known state is wrong, which is a bug.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let known = known()?;
        let mut found = Vec::new();
        let mut errors = Vec::new();
        for volume in &config.volumes {
            match look(config, volume, &known) {
                Ok(on_it) => found.extend(on_it),
                Err(error) => {
                    let mount_point = volume.mount_point.clone();
                    errors.push(UnreadVolume { mount_point, error: format!("{error:#}") });
                }
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { version: 1, found, errors })
    }

    /// What would be erased, with this advice, and can be kept by its name.
    pub fn to_add(&self, advice: Advice) -> impl Iterator<Item = &Suggestion> {
        self.erased(advice).filter(|found| found.path.to_str().is_some())
    }

    /// What would be erased, with this advice.
    pub fn erased(&self, advice: Advice) -> impl Iterator<Item = &Suggestion> {
        self.found.iter().filter(move |found| {
            found.advice == advice
                && matches!(found.state, SuggestionState::NotKept | SuggestionState::PartlyKept)
        })
    }
}
