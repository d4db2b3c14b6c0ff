//! The plan for a volume that exists only as a model: see `volume::every_step`.

use super::plan::{Facts, carry, instead_of_rollback, rollback, tests::source};
use super::step::Step;
use crate::config::{self, Strategy};
use crate::engine::plan::VolumePlan;
use crate::keep::carry::{Journal, Stage};

/// What is there.
pub(in crate::volume) struct There {
    pub(in crate::volume) live_generation: u64,
    pub(in crate::volume) rolled_back: Option<u64>,
    pub(in crate::volume) has_stage: bool,
    pub(in crate::volume) highest_snapshot: u64,
    pub(in crate::volume) journal: Option<(u64, Stage)>,
}

pub(in crate::volume) fn backing() -> config::Zfs {
    source()
}

pub(in crate::volume) fn plan(
    volume: &config::Volume,
    there: &There,
) -> anyhow::Result<VolumePlan<Step>> {
    let facts = facts(there)?;
    match volume.strategy {
        Strategy::Rollback if facts.journal.is_none() => rollback(volume, &source(), &facts),
        Strategy::Rollback | Strategy::Carry => Ok(carry(volume, &source(), &facts)),
    }
}

pub(in crate::volume) fn plan_instead(
    volume: &config::Volume,
    there: &There,
) -> anyhow::Result<VolumePlan<Step>> {
    Ok(instead_of_rollback(volume, &source(), &facts(there)?))
}

fn facts(there: &There) -> anyhow::Result<Facts> {
    let journal = |(generation, stage)| Ok::<_, anyhow::Error>((journal(generation)?, stage));
    Ok(Facts {
        live_generation: there.live_generation,
        rolled_back: there.rolled_back,
        has_stage: there.has_stage,
        highest: there.highest_snapshot,
        journal: there.journal.map(journal).transpose()?,
        ..Facts::default()
    })
}

/// A journal of which only the number matters.
fn journal(generation: u64) -> anyhow::Result<Journal> {
    let settled = r#"{"accessed":[0,0],"modified":[0,0],"seals":0}"#;
    let manifest =
        format!(r#"{{"version":1,"generation":{generation},"persisted":[],"excluded":[]}}"#);
    let text = format!(
        r#"{{"version":1,"manifest":{manifest},"moves":[],"top":[],"settle":[],"seals":[],
            "root":{settled},"undo":[],"undo_seals":[]}}"#
    );
    Journal::parse(text.as_bytes(), "the journal")
}
