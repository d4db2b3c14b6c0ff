//! From what was seen on a btrfs filesystem to the steps of a reset. Pure.

use std::path::{Path, PathBuf};

use super::journal::Journal;
use crate::config;
use crate::plan::{Phase, Planned, Step, Tree, VolumePlan, shown};
use crate::restore::{State, Surveyed};
use crate::rules::Verdict;

/// Name, in the generations directory, of a result that is being made. Worth nothing.
pub(super) const NEXT: &str = "next";

/// Name, in the generations directory, of a result that is complete and durable, or, once it
/// was exchanged, of the previous state. Which of the two it is, the number in the live
/// subvolume tells.
pub(super) fn ready_name(generation: u64) -> String {
    format!("ready-{generation}")
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Number of the live subvolume's last reset; 0 when it was never reset.
    pub(super) live_generation: u64,
    /// Names in the generations directory.
    pub(super) generations: Vec<String>,
    /// Subvolumes nested in the previous state, relative to it, parents first.
    pub(super) nested: Vec<PathBuf>,
    /// Whether the live subvolume, or in an interrupted reset the previous state, is what the
    /// filesystem mounts by default.
    pub(super) is_default: bool,
    /// Persisted paths in the previous state.
    pub(super) paths: Vec<Surveyed>,
    /// What an interrupted reset had still to do.
    pub(super) journal: Journal,
    /// Whether the result's root is immutable or append-only.
    pub(super) root_is_sealed: bool,
    /// Whether the blank may still be written to.
    pub(super) blank_is_writable: bool,
}

impl Facts {
    /// The number of a reset that was interrupted after the exchange.
    pub(super) fn interrupted(&self) -> Option<u64> {
        let number = self.live_generation;
        (number > 0 && self.generations.contains(&ready_name(number))).then_some(number)
    }

    fn next_generation(&self) -> u64 {
        let highest = self.generations.iter().filter_map(|name| name.parse::<u64>().ok()).max();
        highest.unwrap_or(0).max(self.live_generation) + 1
    }

    /// What runs that were interrupted before the exchange left.
    fn leftovers(&self) -> impl Iterator<Item = &String> {
        self.generations.iter().filter(|name| *name == NEXT || name.starts_with("ready-"))
    }
}

/// The nested subvolumes that move into the result as a whole: the outermost of those below
/// persisted paths, or, of an interrupted reset, those that have not moved yet.
pub(super) fn moving(volume: &config::Volume, facts: &Facts) -> Vec<PathBuf> {
    if facts.interrupted().is_some() {
        return facts.journal.paths().filter(|path| facts.nested.contains(path)).collect();
    }
    let persisted = |path: &&PathBuf| volume.rules.verdict(path) == Verdict::Persisted;
    let mut moving: Vec<PathBuf> = Vec::new();
    for path in facts.nested.iter().filter(persisted) {
        if !moving.iter().any(|outer| path.starts_with(outer)) {
            moving.push(path.clone());
        }
    }
    moving
}

/// Plans the `rollback` of one subvolume.
pub(super) fn rollback(
    volume: &config::Volume,
    source: &config::Btrfs,
    facts: &Facts,
) -> VolumePlan {
    let interrupted = facts.interrupted();
    let generation = interrupted.unwrap_or_else(|| facts.next_generation());
    let home = |name: &str| source.generations.join(name).display().to_string();
    let (ready, kept) = (home(&ready_name(generation)), home(&generation.to_string()));
    let live = source.subvolume.display().to_string();
    let moving = moving(volume, facts);

    let mut steps = Vec::new();
    let mut add = |phase, step| steps.push(Planned { phase, step });
    if interrupted.is_none() {
        for leftover in facts.leftovers() {
            add(Phase::Prepare, Step::Discard { leftover: home(leftover) });
        }
        let blank = source.blank.as_ref().map(|blank| blank.display().to_string());
        add(Phase::Prepare, Step::Stage { blank, target: home(NEXT) });
        add(Phase::Prepare, Step::Restore { from: Tree::Previous, into: Tree::Staged });
        add(Phase::Prepare, Step::Record { into: Tree::Staged });
        add(Phase::Prepare, Step::Secure { name: ready.clone() });
        add(Phase::Commit, Step::Exchange { staged: ready, live });
    }
    for path in &moving {
        add(Phase::Commit, Step::MoveNested { path: path.clone() });
    }
    if facts.is_default {
        add(Phase::Commit, Step::SetDefault);
    }
    let unsettled = match interrupted {
        Some(_) => !facts.journal.is_empty(),
        None => !moving.is_empty() || facts.root_is_sealed,
    };
    if unsettled {
        add(Phase::Commit, Step::Settle);
    }
    add(Phase::Finish, Step::KeepGeneration { name: kept.clone() });

    let leaving = facts
        .nested
        .iter()
        .filter(|path| !moving.iter().any(|moved| path.starts_with(moved)))
        .map(|path| volume.mount_point.join(path).display().to_string())
        .collect();
    VolumePlan {
        mount_point: volume.mount_point.clone(),
        volume: format!(
            "btrfs subvolume {} on {}",
            source.subvolume.display(),
            source.device.display()
        ),
        generation,
        previous_state: Some(kept),
        resumes: interrupted.is_some(),
        paths: facts.paths.clone(),
        leaving,
        warnings: warnings(volume, source, facts),
        steps,
    }
}

fn warnings(volume: &config::Volume, source: &config::Btrfs, facts: &Facts) -> Vec<String> {
    let mut warnings = Vec::new();
    if facts.blank_is_writable
        && let Some(blank) = &source.blank
    {
        warnings.push(format!(
            "the blank {blank:?} can be written to; make it read-only: btrfs property set -ts \
             PATH ro true"
        ));
    }
    if volume.keep.is_some() {
        warnings.push("`keep` is not applied by this version: no generation is removed".into());
    }
    warnings.extend(facts.paths.iter().filter_map(|path| unreachable(&volume.mount_point, path)));
    warnings
}

/// Words for a persisted path whose ancestor is not followed.
pub(in crate::volume) fn unreachable(mount_point: &Path, path: &Surveyed) -> Option<String> {
    let State::Unreachable { ancestor, kind } = &path.state else { return None };
    Some(format!(
        "{} is not brought over: {} is a {kind}, which is not followed; declare the path that it \
         stands for",
        shown(&mount_point.join(&path.path)),
        shown(&mount_point.join(ancestor)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Backing, Strategy};
    use crate::rules::Rules;

    fn source() -> config::Btrfs {
        config::Btrfs {
            device: "/dev/vda".into(),
            subvolume: "@".into(),
            blank: Some("@blank".into()),
            generations: "@darlings/root".into(),
        }
    }

    fn plan(facts: &Facts) -> VolumePlan {
        let mut rules = Rules::default();
        assert_eq!(rules.declare(Path::new("var/lib"), &["docker".into()]), Ok(()));
        rules.finish();
        let volume = config::Volume {
            mount_point: "/".into(),
            backing: Backing::Btrfs(source()),
            strategy: Strategy::Rollback,
            keep: None,
            rules,
        };
        rollback(&volume, &source(), facts)
    }

    fn steps(plan: &VolumePlan) -> Vec<String> {
        plan.steps.iter().map(|planned| planned.step.to_string()).collect()
    }

    #[test]
    fn a_first_reset_stages_exchanges_and_keeps() {
        let plan = plan(&Facts::default());
        assert_eq!(
            steps(&plan),
            [
                "copy @blank as @darlings/root/next",
                "bring the persisted paths from the previous state to the stage",
                "record the reset and the persisted paths in the stage",
                "make it durable as @darlings/root/ready-1",
                "exchange @darlings/root/ready-1 with @",
                "keep the previous state as @darlings/root/1",
            ]
        );
        assert_eq!((plan.generation, plan.resumes), (1, false));
    }

    #[test]
    fn a_number_is_never_used_twice_even_if_the_live_volume_forgot_it() {
        let generations = ["12", "3", "x"].map(String::from).to_vec();
        let facts = Facts { live_generation: 5, generations, ..Facts::default() };
        assert_eq!(plan(&facts).generation, 13);
        let facts = Facts { live_generation: 20, ..facts };
        assert_eq!(plan(&facts).generation, 21);
    }

    #[test]
    fn what_an_interrupted_run_left_before_the_exchange_is_removed_first() {
        let generations = ["2", "next", "ready-4"].map(String::from).to_vec();
        let facts = Facts { live_generation: 3, generations, ..Facts::default() };
        let plan = plan(&facts);
        assert_eq!(
            steps(&plan)[..2],
            [
                "remove @darlings/root/next, left by an interrupted run",
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
