//! What the kernel command line can ask for instead of a reset, on btrfs: the plans. Pure.

use std::path::PathBuf;

use super::facts::{Facts, Source, moving, outermost};
use super::names::{NEXT, in_words, ready_name};
use super::plan::{discarding, settling};
use super::step::Step;
use crate::config;
use crate::engine::plan::{Does, Phase, Planned, VolumePlan};
use crate::names::shown;

/// Leaves the subvolume as it is.
pub(super) fn nothing(
    volume: &config::Volume,
    source: &config::Btrfs,
    facts: &Facts,
) -> VolumePlan<Step> {
    VolumePlan {
        restore: facts.restore.clone(),
        ..VolumePlan::nothing(&volume.mount_point, in_words(source), facts.live_generation)
    }
}

/// Keeps a generation, and erases nothing. Its name comes last: until then it is a leftover.
pub(super) fn snapshot(
    volume: &config::Volume,
    source: &config::Btrfs,
    facts: &Facts,
) -> VolumePlan<Step> {
    let number = facts.next_generation();
    let home = |name: &str| source.generations.join(name).display().to_string();
    let kept = home(&number.to_string());
    let mut steps = discarding(source, facts);
    let mut add = |phase, step| steps.push(Planned { phase, step });
    let from = Some(source.subvolume.display().to_string());
    add(Phase::Prepare, Step::Stage { from, target: home(NEXT) });
    add(Phase::Commit, Step::Count { number });
    add(Phase::Commit, Step::KeepGeneration { name: kept.clone() });
    let mut warnings = Vec::new();
    if !facts.nested.is_empty() {
        let names: Vec<String> =
            facts.nested.iter().map(|path| shown(&volume.mount_point.join(path))).collect();
        warnings.push(format!(
            "the generation does not hold the subvolumes {}: a snapshot stops at them",
            names.join(", ")
        ));
    }
    VolumePlan {
        does: Does::Snapshot,
        generation: number,
        previous_state: Some(kept),
        warnings,
        steps,
        ..nothing(volume, source, facts)
    }
}

/// Makes the live subvolume what a generation was, by a copy of it and an exchange.
pub(super) fn restore(
    volume: &config::Volume,
    source: &config::Btrfs,
    facts: &Facts,
    of: &Source,
) -> VolumePlan<Step> {
    let generation = facts.next_generation();
    let home = |name: &str| source.generations.join(name).display().to_string();
    let (ready, kept) = (home(&ready_name(generation)), home(&generation.to_string()));
    let live = source.subvolume.display().to_string();
    let moving = moving(volume, facts);
    let mut steps = discarding(source, facts);
    let mut add = |phase, step| steps.push(Planned { phase, step });
    let from = Some(home(&of.number.to_string()));
    add(Phase::Prepare, Step::Stage { from, target: home(NEXT) });
    add(Phase::Prepare, Step::Record);
    add(Phase::Prepare, Step::Secure { name: ready.clone() });
    add(Phase::Commit, Step::Exchange { staged: ready, live });
    steps.extend(settling(facts, &moving));
    steps.push(Planned { phase: Phase::Finish, step: Step::KeepGeneration { name: kept.clone() } });

    let named = |path: &PathBuf| shown(&volume.mount_point.join(path));
    let staying = outermost(volume, facts)
        .into_iter()
        .filter(|path| !moving.iter().any(|moved| moved.from == *path));
    let mut warnings: Vec<String> = staying
        .map(|path| {
            format!(
                "the subvolume {} finds no place in generation {}, and goes with what was live to \
                 {kept}",
                named(&path),
                of.number
            )
        })
        .collect();
    warnings.extend(of.nested.iter().map(|path| {
        format!(
            "the subvolume {} stays in generation {}: a snapshot does not hold it",
            named(path),
            of.number
        )
    }));
    warnings.extend(of.swap.iter().map(|path| {
        format!(
            "{} is a swap file, which cannot be activated, since generation {} shares its extents",
            named(path),
            of.number
        )
    }));
    VolumePlan {
        does: Does::Restore(of.number),
        generation,
        previous_state: Some(kept),
        leaving: facts
            .nested
            .iter()
            .filter(|path| !outermost(volume, facts).iter().any(|outer| path.starts_with(outer)))
            .map(|path| volume.mount_point.join(path).display().to_string())
            .collect(),
        warnings,
        steps,
        restore: None,
        ..nothing(volume, source, facts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{source, steps, volume};
    use super::*;
    use crate::config::Strategy;

    fn facts() -> Facts {
        let generations = ["3", "5", NEXT].map(String::from).to_vec();
        let nested = ["srv", "var/lib/machines", "var/lib/machines/deep", "var/lib/portables"];
        Facts {
            live_generation: 5,
            generations,
            nested: nested.map(PathBuf::from).to_vec(),
            ..Facts::default()
        }
    }

    #[test]
    fn off_has_no_steps() {
        let plan = nothing(&volume(Strategy::Carry), &source(), &facts());
        assert_eq!((plan.does, plan.generation, plan.steps), (Does::Nothing, 5, Vec::new()));
        assert_eq!(plan.previous_state, None);
    }

    #[test]
    fn a_snapshot_is_named_last() {
        let plan = snapshot(&volume(Strategy::Rollback), &source(), &facts());
        assert_eq!(
            steps(&plan),
            [
                "remove @darlings/root/.darlings/next, left by an interrupted run",
                "copy @ as @darlings/root/.darlings/next",
                "record number 6 in the live volume",
                "keep the previous state as @darlings/root/6",
            ]
        );
        assert_eq!((plan.does, plan.generation), (Does::Snapshot, 6));
        assert_eq!(
            plan.warnings,
            ["the generation does not hold the subvolumes /srv, /var/lib/machines, \
                 /var/lib/machines/deep, /var/lib/portables: a snapshot stops at them"]
        );
    }

    #[test]
    fn a_restore_exchanges_a_copy_of_the_generation_and_names_what_does_not_come_along() {
        let of = Source {
            number: 3,
            nested: vec!["opt".into()],
            fitting: vec!["var/lib/machines".into()],
            swap: Some("var/lib/swap".into()),
        };
        let facts = Facts { is_default: true, source: Some(of.clone()), ..facts() };
        for strategy in [Strategy::Rollback, Strategy::Carry] {
            let plan = restore(&volume(strategy), &source(), &facts, &of);
            assert_eq!(
                steps(&plan),
                [
                    "remove @darlings/root/.darlings/next, left by an interrupted run",
                    "copy @darlings/root/3 as @darlings/root/.darlings/next",
                    "record the reset and the persisted paths in the stage",
                    "make it durable as @darlings/root/ready-6",
                    "exchange @darlings/root/ready-6 with @",
                    "move the nested subvolume var/lib/machines along",
                    "make the live subvolume the default one",
                    "set the attributes that the exchange has changed",
                    "keep the previous state as @darlings/root/6",
                ]
            );
            assert_eq!((plan.does, plan.generation), (Does::Restore(3), 6));
            assert_eq!(plan.leaving, ["/srv"]);
            assert_eq!(
                plan.warnings,
                [
                    "the subvolume /var/lib/portables finds no place in generation 3, and goes \
                     with what was live to @darlings/root/6",
                    "the subvolume /opt stays in generation 3: a snapshot does not hold it",
                    "/var/lib/swap is a swap file, which cannot be activated, since generation 3 \
                     shares its extents",
                ]
            );
        }
    }
}
