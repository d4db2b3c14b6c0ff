//! The plan for a volume that exists only as a model: see `volume::every_step`.

use super::facts::Facts;
use super::names::{NEXT, ready_name};
use super::plan::{reset, tests::source};
use super::step::Step;
use crate::config;
use crate::engine::plan::VolumePlan;

/// What is there.
pub(in crate::volume) struct There {
    pub(in crate::volume) live_generation: u64,
    pub(in crate::volume) next: bool,
    pub(in crate::volume) ready: Option<u64>,
    pub(in crate::volume) generations: Vec<u64>,
    /// Whether what is live, or the previous state of an interrupted reset, is the default.
    pub(in crate::volume) is_default: bool,
}

pub(in crate::volume) fn backing() -> config::Btrfs {
    source()
}

pub(in crate::volume) fn plan(volume: &config::Volume, there: &There) -> VolumePlan<Step> {
    let mut names: Vec<String> = there.generations.iter().map(u64::to_string).collect();
    names.extend(there.next.then(|| NEXT.to_owned()));
    names.extend(there.ready.map(ready_name));
    let facts = Facts {
        live_generation: there.live_generation,
        generations: names,
        is_default: there.is_default,
        ..Facts::default()
    };
    reset(volume, &source(), &facts)
}
