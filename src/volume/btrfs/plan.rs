//! From what was seen on a btrfs filesystem to the steps of a reset. Pure.

use std::path::PathBuf;

use super::facts::{Facts, moving};
use super::journal::Moving;
use super::names::{NEXT, in_words, ready_name};
use super::step::Step;
use crate::config::{self, Strategy};
use crate::engine::plan::{Does, Phase, Planned, VolumePlan};
use crate::names::{shown, unnamable};

/// What comes before anything is staged: what interrupted runs left goes, or is completed.
pub(super) fn discarding(source: &config::Btrfs, facts: &Facts) -> Vec<Planned<Step>> {
    let home = |name: &str| source.generations.join(name).display().to_string();
    let discard = facts.leftovers().map(|name| Step::Discard { leftover: home(name) });
    let steps = discard.chain(facts.unsealed().map(|number| Step::FlagGeneration { number }));
    steps.map(|step| Planned { phase: Phase::Prepare, step }).collect()
}

/// What follows the exchange.
pub(super) fn settling(facts: &Facts, moving: &[Moving]) -> Vec<Planned<Step>> {
    let mut steps: Vec<Step> = moving
        .iter()
        .map(|Moving { from, to }| Step::MoveNested { path: from.clone(), to: to.clone() })
        .collect();
    if facts.is_default {
        steps.push(Step::SetDefault);
    }
    let unsettled = match facts.interrupted() {
        Some(_) => !facts.journal.is_empty(),
        None => !moving.is_empty() || facts.root_is_sealed,
    };
    if unsettled {
        steps.push(Step::SetAttributes);
    }
    steps.into_iter().map(|step| Planned { phase: Phase::Commit, step }).collect()
}

/// Plans the reset of one subvolume.
pub(super) fn reset(
    volume: &config::Volume,
    source: &config::Btrfs,
    facts: &Facts,
) -> VolumePlan<Step> {
    let interrupted = facts.interrupted();
    let generation = interrupted.unwrap_or_else(|| facts.next_generation());
    let home = |name: &str| source.generations.join(name).display().to_string();
    let (ready, kept) = (home(&ready_name(generation)), home(&generation.to_string()));
    let live = source.subvolume.display().to_string();
    let moving = moving(volume, facts);

    let mut steps = Vec::new();
    if interrupted.is_none() {
        steps.extend(discarding(source, facts));
        let mut add = |phase, step| steps.push(Planned { phase, step });
        let blank = source.blank.as_ref().map(|blank| blank.display().to_string());
        let target = home(NEXT);
        match volume.strategy {
            Strategy::Rollback => {
                add(Phase::Prepare, Step::Stage { from: blank, target });
                add(Phase::Prepare, Step::CopyIn);
            }
            Strategy::Carry => {
                add(Phase::Prepare, Step::Stage { from: Some(live.clone()), target });
                add(Phase::Prepare, Step::Lay { blank });
                add(Phase::Prepare, Step::Carry);
            }
        }
        add(Phase::Prepare, Step::Record);
        add(Phase::Prepare, Step::Secure { name: ready.clone() });
        add(Phase::Commit, Step::Exchange { staged: ready, live });
    }
    steps.extend(settling(facts, &moving));
    let step = Step::KeepGeneration { name: kept.clone() };
    steps.push(Planned { phase: Phase::Finish, step });

    let leaves = |path: &&PathBuf| !moving.iter().any(|moved| path.starts_with(&moved.from));
    let leaving = facts.nested.iter().filter(leaves).map(|path| volume.mount_point.join(path));
    let leaving: Vec<PathBuf> = leaving.collect();
    let mut warnings = warnings(volume, source, facts, &moving);
    warnings.extend(leaving.iter().filter_map(|path| unnamable(path)));
    VolumePlan {
        mount_point: volume.mount_point.clone(),
        volume: in_words(source),
        // An interrupted run is completed as what it was begun as.
        does: match (interrupted, &facts.restore) {
            (Some(_), Some(restore)) => Does::Restore(restore.of),
            _ => Does::Reset,
        },
        generation,
        previous_state: Some(kept),
        resumes: interrupted.is_some(),
        paths: facts.looked.paths.clone(),
        put_away: facts.looked.put_away(&volume.mount_point),
        returned: facts.looked.returned(&volume.mount_point),
        leaving: leaving.iter().map(|path| path.display().to_string()).collect(),
        warnings,
        steps,
        restore: facts.restore.clone(),
    }
}

fn warnings(
    volume: &config::Volume,
    source: &config::Btrfs,
    facts: &Facts,
    moving: &[Moving],
) -> Vec<String> {
    let mut warnings = Vec::new();
    if facts.blank_is_writable
        && let Some(blank) = &source.blank
    {
        warnings.push(format!(
            "the blank {blank:?} can be written to; make it read-only: btrfs property set -ts \
             PATH ro true"
        ));
    }
    warnings.extend(facts.looked.warnings(&volume.mount_point));
    for path in volume.rules.excluded() {
        if let Some(Moving { to: nested, .. }) = moving.iter().find(|it| path.starts_with(&it.to)) {
            warnings.push(format!(
                "{} is excluded and not erased: it lies in the subvolume {}, which is kept as a \
                 whole",
                shown(&volume.mount_point.join(&path)),
                shown(&volume.mount_point.join(nested)),
            ));
        }
    }
    warnings
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Backing;
    use crate::keep::attic;
    use crate::rules::Rules;

    pub(in crate::volume) fn source() -> config::Btrfs {
        config::Btrfs {
            device: "/dev/vda".into(),
            subvolume: "@".into(),
            blank: Some("@blank".into()),
            generations: "@darlings/root".into(),
        }
    }

    fn plan(facts: &Facts) -> VolumePlan<Step> {
        plan_with(Strategy::Rollback, facts)
    }

    fn plan_with(strategy: Strategy, facts: &Facts) -> VolumePlan<Step> {
        reset(&volume(strategy), &source(), facts)
    }

    pub(in crate::volume::btrfs) fn volume(strategy: Strategy) -> config::Volume {
        let mut rules = Rules::default();
        assert_eq!(rules.declare(Path::new("var/lib"), &["docker".into()]), Ok(()));
        rules.finish();
        config::Volume {
            mount_point: "/".into(),
            backing: Backing::Btrfs(source()),
            strategy,
            keep: None,
            rules,
        }
    }

    pub(in crate::volume::btrfs) fn steps(plan: &VolumePlan<Step>) -> Vec<String> {
        plan.steps.iter().map(|planned| planned.step.to_string()).collect()
    }

    #[test]
    fn a_first_reset_stages_exchanges_and_keeps() {
        let plan = plan(&Facts::default());
        assert_eq!(
            steps(&plan),
            [
                "copy @blank as @darlings/root/.darlings/next",
                "copy the persisted paths from the previous state into the stage",
                "record the reset and the persisted paths in the stage",
                "make it durable as @darlings/root/ready-1",
                "exchange @darlings/root/ready-1 with @",
                "keep the previous state as @darlings/root/1",
            ]
        );
        assert_eq!((plan.generation, plan.resumes), (1, false));
    }

    #[test]
    fn to_carry_the_live_subvolume_is_copied_and_things_are_moved_in_the_copy() {
        let plan = plan_with(Strategy::Carry, &Facts::default());
        assert_eq!(
            steps(&plan),
            [
                "copy @ as @darlings/root/.darlings/next",
                "lay the content of @blank beside the old one in the stage",
                "move the persisted paths to the new content in the stage, the rest aside",
                "record the reset and the persisted paths in the stage",
                "make it durable as @darlings/root/ready-1",
                "exchange @darlings/root/ready-1 with @",
                "keep the previous state as @darlings/root/1",
            ]
        );
    }

    #[test]
    fn a_number_is_never_used_twice_even_if_the_live_volume_forgot_it() {
        let generations = ["12", "3", "x"].map(String::from).to_vec();
        let facts = Facts { live_generation: 5, generations, ..Facts::default() };
        assert_eq!(plan(&facts).generation, 13);
        let facts = Facts { live_generation: 20, ..facts };
        assert_eq!(plan(&facts).generation, 21);
        let mut facts = facts;
        facts.looked.attic.newest = 30;
        assert_eq!(plan(&facts).generation, 31);
        facts.taken = 40;
        assert_eq!(plan(&facts).generation, 41);
    }

    #[test]
    fn what_an_interrupted_run_left_before_the_exchange_is_removed_first() {
        let generations = ["2", NEXT, "next", "ready-4"].map(String::from).to_vec();
        let facts = Facts { live_generation: 3, generations, ..Facts::default() };
        let plan = plan(&facts);
        assert_eq!(
            steps(&plan)[..2],
            [
                "remove @darlings/root/.darlings/next, left by an interrupted run",
                "remove @darlings/root/ready-4, left by an interrupted run",
            ]
        );
        assert_eq!((plan.generation, plan.resumes), (4, false));
    }

    #[test]
    fn a_run_interrupted_after_the_exchange_is_only_completed() {
        let facts = Facts {
            live_generation: 4,
            generations: vec!["ready-4".into()],
            nested: vec!["var/lib/machines".into()],
            is_default: true,
            ..Facts::default()
        };
        let plan = plan(&facts);
        assert_eq!(
            steps(&plan),
            [
                "make the live subvolume the default one",
                "keep the previous state as @darlings/root/4",
            ]
        );
        assert_eq!((plan.generation, plan.resumes), (4, true));
    }

    #[test]
    fn what_would_come_back_into_a_subvolume_that_moves_itself_stays_in_the_attic() {
        let in_attic = ".darlings/attic/3/var/lib/machines/deep";
        let nested = [in_attic, "var/lib/machines"].map(PathBuf::from);
        let mut facts = Facts { nested: nested.to_vec(), ..Facts::default() };
        let path = PathBuf::from("var/lib/machines/deep");
        facts.looked.attic.inside.push(attic::Returned { from: nested[0].clone(), path });
        let moved = nested.map(|path| Moving { from: path.clone(), to: path });
        assert_eq!(moving(&volume(Strategy::Carry), &facts), moved);
    }

    #[test]
    fn nested_subvolumes_move_if_they_are_persisted_and_leave_if_not() {
        let nested =
            ["srv", "var/lib/docker/a", "var/lib/machines", "var/lib/machines/deep", "var/tmp"];
        let facts = Facts { nested: nested.map(PathBuf::from).to_vec(), ..Facts::default() };
        let plan = plan(&facts);
        let moves: Vec<_> = steps(&plan).into_iter().filter(|step| step.contains("move")).collect();
        assert_eq!(moves, ["move the nested subvolume var/lib/machines along"]);
        assert_eq!(plan.leaving, ["/srv", "/var/lib/docker/a", "/var/tmp"]);
    }
}
