//! From what was seen of a ZFS dataset to the steps of a reset. Pure.

use anyhow::{Context as _, ensure};

use super::names::{blank_name, generation_name, in_words, secured_name, stage_name};
use super::step::Step;
use crate::config::{self, NewerSnapshots, Strategy};
use crate::engine::plan::{Does, Phase, Planned, VolumePlan};
use crate::keep::carry;
use crate::own::state;
use crate::volume::Looked;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Number of the dataset's last reset; 0 when it was never reset.
    pub(super) live_generation: u64,
    /// Number of a reset that has rolled the dataset back and was then interrupted.
    pub(super) rolled_back: Option<u64>,
    /// Whether there is a stage.
    pub(super) has_stage: bool,
    /// Full names of snapshots and bookmarks newer than the blank, oldest first.
    pub(super) newer: Vec<String>,
    /// Full names of the generations among them: those that bear the mark of a reset, whatever they
    /// are called.
    pub(super) newer_generations: Vec<String>,
    /// What was seen of the trees: of the previous state, or, after a rollback, of the stage.
    pub(super) looked: Looked,
    /// What a `carry` that was interrupted has still to do.
    pub(super) journal: Option<(carry::Journal, carry::Stage)>,
    /// The highest number in the name of a snapshot that is called as ours are; 0 when there is none.
    pub(super) highest: u64,
    /// The restore that made the dataset what it is, or is making it so, if it was one.
    pub(super) restore: Option<state::Restore>,
    /// The generation that is to be restored, if that is asked for.
    pub(super) source: Option<u64>,
}

impl Facts {
    /// Whether a run was interrupted that must be completed.
    pub(super) fn interrupted(&self) -> bool {
        self.rolled_back.is_some() || self.journal.is_some()
    }

    /// What is newer than the blank: generations, and what is not ours.
    fn newer_by_owner(&self) -> (Vec<&str>, Vec<&str>) {
        let is_ours = |name: &&str| self.newer_generations.iter().any(|ours| ours == name);
        self.newer.iter().map(String::as_str).partition(is_ours)
    }

    /// A number that neither a reset, nor a snapshot, nor a list in the attic has.
    pub(super) fn next_generation(&self) -> u64 {
        self.highest.max(self.live_generation).max(self.looked.attic.newest) + 1
    }
}

/// Plans the `carry` of one dataset, or the rest of one that was interrupted.
pub(super) fn carry(
    volume: &config::Volume,
    source: &config::Zfs,
    facts: &Facts,
) -> VolumePlan<Step> {
    let resumed = facts.journal.as_ref().map(|(journal, stage)| (journal.generation(), *stage));
    let generation = resumed.map_or_else(|| facts.next_generation(), |(generation, _)| generation);
    let (name, dataset) = (generation_name(source, generation), source.dataset.clone());
    let mut steps = Vec::new();
    let mut add = |phase, step| steps.push(Planned { phase, step });
    if resumed.is_none() {
        add(Phase::Prepare, Step::Snapshot { name: name.clone() });
        add(Phase::Prepare, Step::Lay { blank: blank_name(source) });
    }
    // An interrupted run is completed as what it was begun as.
    let restores = facts.restore.as_ref().filter(|_| resumed.is_some());
    if resumed.is_none_or(|(_, stage)| stage == carry::Stage::Moving) {
        add(
            Phase::Commit,
            match restores {
                Some(_) => Step::Replace,
                None => Step::Carry,
            },
        );
        add(Phase::Commit, Step::Record);
        add(Phase::Commit, Step::Complete { dataset: dataset.clone() });
    }
    add(Phase::Finish, Step::Tidy);
    VolumePlan {
        mount_point: volume.mount_point.clone(),
        volume: in_words(source),
        does: restores.map_or(Does::Reset, |restore| Does::Restore(restore.of)),
        generation,
        previous_state: Some(name),
        resumes: resumed.is_some(),
        paths: facts.looked.paths.clone(),
        put_away: facts.looked.put_away(&volume.mount_point),
        returned: facts.looked.returned(&volume.mount_point),
        leaving: Vec::new(),
        warnings: facts.looked.warnings(&volume.mount_point),
        steps,
        restore: facts.restore.clone(),
    }
}

/// Plans a `carry` in place of a `rollback` that cannot copy everything. As after that, no earlier
/// generation is left: each boot would add one to those that no retention limits.
pub(super) fn instead_of_rollback(
    volume: &config::Volume,
    source: &config::Zfs,
    facts: &Facts,
) -> VolumePlan<Step> {
    let mut plan = carry(volume, source, facts);
    let kept = generation_name(source, plan.generation);
    plan.warnings.extend(destroyed_later(volume, &kept));
    let (ours, _) = facts.newer_by_owner();
    plan.steps.extend(ours.into_iter().map(|name| {
        let step = Step::DestroyGeneration { name: name.to_owned() };
        Planned { phase: Phase::Finish, step }
    }));
    plan
}

/// A warning that a generation made with this volume's strategy does not last.
pub(super) fn destroyed_later(volume: &config::Volume, name: &str) -> Vec<String> {
    match volume.strategy {
        Strategy::Carry => Vec::new(),
        Strategy::Rollback => vec![format!(
            "the next reset destroys {name}, since a rollback destroys what is newer than the \
             blank; strategy = \"carry\" keeps it"
        )],
    }
}

/// Plans the `rollback` of one dataset.
///
/// # Errors
/// Snapshots or bookmarks that are newer than the blank and not ours would be destroyed.
pub(super) fn rollback(
    volume: &config::Volume,
    source: &config::Zfs,
    facts: &Facts,
) -> anyhow::Result<VolumePlan<Step>> {
    let blank = blank_name(source).context("BUG: a rollback without a blank")?;
    let (ours, foreign) = facts.newer_by_owner();
    ensure!(
        foreign.is_empty() || source.newer_snapshots == NewerSnapshots::Destroy,
        "{} would be destroyed by a rollback to {}, since ZFS destroys what is newer; destroy or \
         send away what you do not need, or write newer_snapshots = \"destroy\"",
        foreign.join(", "),
        blank
    );
    let generation = facts.rolled_back.unwrap_or_else(|| facts.next_generation());
    let (stage, dataset) = (stage_name(source), source.dataset.clone());

    let mut steps = Vec::new();
    let mut add = |phase, step| steps.push(Planned { phase, step });
    if facts.rolled_back.is_none() {
        if facts.has_stage {
            add(Phase::Prepare, Step::Discard { leftover: stage.clone() });
        }
        add(Phase::Prepare, Step::Stage { from: blank.clone(), target: stage.clone() });
        add(Phase::Prepare, Step::CopyIntoStage);
        add(Phase::Prepare, Step::Secure { name: secured_name(source, generation) });
    }
    let destroys = facts.newer.clone();
    add(Phase::Commit, Step::RollBack { snapshot: blank, destroys });
    add(Phase::Commit, Step::CopyIntoLive);
    add(Phase::Commit, Step::Record);
    add(Phase::Commit, Step::Complete { dataset: dataset.clone() });
    add(Phase::Finish, Step::DestroyStage { stage });

    let mut warnings = facts.looked.warnings(&volume.mount_point);
    if !ours.is_empty() {
        warnings.push(
            "the rollback destroys the generations of an earlier strategy; they are named below"
                .into(),
        );
    }
    Ok(VolumePlan {
        mount_point: volume.mount_point.clone(),
        volume: in_words(source),
        does: Does::Reset,
        generation,
        previous_state: None,
        resumes: facts.rolled_back.is_some(),
        paths: facts.looked.paths.clone(),
        put_away: facts.looked.put_away(&volume.mount_point),
        returned: facts.looked.returned(&volume.mount_point),
        leaving: Vec::new(),
        warnings,
        steps,
        restore: None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::Backing;
    use crate::keep::attic::Attic;
    use crate::rules::Rules;

    fn plan(newer_snapshots: NewerSnapshots, facts: &Facts) -> anyhow::Result<VolumePlan<Step>> {
        let source = config::Zfs { newer_snapshots, ..source() };
        rollback(&volume(Strategy::Rollback), &source, facts)
    }

    pub(in crate::volume) fn source() -> config::Zfs {
        config::Zfs {
            dataset: "rpool/root".into(),
            blank: Some("blank".into()),
            newer_snapshots: NewerSnapshots::Refuse,
        }
    }

    pub(in crate::volume::zfs) fn volume(strategy: Strategy) -> config::Volume {
        config::Volume {
            mount_point: "/".into(),
            backing: Backing::Zfs(source()),
            strategy,
            keep: None,
            rules: Rules::default(),
        }
    }

    pub(in crate::volume::zfs) fn steps(plan: &VolumePlan<Step>) -> Vec<String> {
        plan.steps.iter().map(|planned| planned.step.to_string()).collect()
    }

    #[test]
    fn a_reset_stages_secures_rolls_back_and_fills() {
        let facts = Facts { has_stage: true, live_generation: 6, ..Facts::default() };
        let plan = plan(NewerSnapshots::Refuse, &facts).unwrap();
        assert_eq!(
            steps(&plan),
            [
                "remove rpool/root/darlings-stage, left by an interrupted run",
                "copy rpool/root@blank as rpool/root/darlings-stage",
                "copy the persisted paths from the previous state into the stage",
                "make it durable as rpool/root/darlings-stage@darlings-7",
                "roll back to rpool/root@blank",
                "copy the persisted paths from the stage into the live volume",
                "record the reset and the persisted paths in the live volume",
                "make rpool/root durable and mark it complete",
                "destroy rpool/root/darlings-stage",
            ]
        );
    }

    #[test]
    fn what_cannot_be_copied_is_moved_and_no_earlier_generation_is_left_but_what_is_not_ours() {
        let newer = ["rpool/root@darlings-6", "rpool/root@mine"].map(String::from).to_vec();
        let newer_generations = vec!["rpool/root@darlings-5".to_owned(), newer[0].clone()];
        let facts = Facts { newer, newer_generations, highest: 6, ..Facts::default() };
        let plan = instead_of_rollback(&volume(Strategy::Rollback), &source(), &facts);
        assert_eq!(
            steps(&plan),
            [
                "keep the previous state as rpool/root@darlings-7",
                "lay the content of rpool/root@blank beside the old one in the live volume",
                "move the persisted paths to the new content in the live volume, the rest aside",
                "record the reset and the persisted paths in the live volume",
                "make rpool/root durable and mark it complete",
                "move what is aside to the trash",
                "destroy rpool/root@darlings-6",
            ]
        );
        assert_eq!(
            plan.warnings,
            [
                "the next reset destroys rpool/root@darlings-7, since a rollback destroys what is newer \
                 than the blank; strategy = \"carry\" keeps it"
            ]
        );
    }

    #[test]
    fn a_run_interrupted_after_the_rollback_goes_forward_only() {
        let facts = Facts { has_stage: true, rolled_back: Some(7), ..Facts::default() };
        let plan = plan(NewerSnapshots::Refuse, &facts).unwrap();
        assert_eq!((plan.generation, plan.resumes), (7, true));
        assert_eq!(steps(&plan)[0], "roll back to rpool/root@blank");
        assert!(plan.steps.iter().all(|planned| planned.phase != Phase::Prepare));
    }

    #[test]
    fn the_number_is_higher_than_any_in_the_attic_where_the_count_was_lost() {
        let attic = Attic { newest: 5, ..Attic::default() };
        let looked = Looked { attic, ..Looked::default() };
        let facts = Facts { live_generation: 0, highest: 3, looked, ..Facts::default() };
        assert_eq!(plan(NewerSnapshots::Refuse, &facts).unwrap().generation, 6);
        assert_eq!(carry(&volume(Strategy::Carry), &source(), &facts).generation, 6);
    }

    #[test]
    fn newer_snapshots_of_others_are_refused_unless_the_configuration_gives_them_up() {
        let newer = ["rpool/root@darlings-3", "rpool/root@darlings-2", "rpool/root#sent"];
        let newer = newer.map(String::from).to_vec();
        let newer_generations = vec![newer[0].clone()];
        let facts = Facts { newer, newer_generations, highest: 3, ..Facts::default() };
        assert_eq!(
            plan(NewerSnapshots::Refuse, &facts).unwrap_err().to_string(),
            "rpool/root@darlings-2, rpool/root#sent would be destroyed by a rollback to \
             rpool/root@blank, since ZFS destroys what is newer; destroy or send away what you do \
             not need, or write newer_snapshots = \"destroy\""
        );
        let plan = plan(NewerSnapshots::Destroy, &facts).unwrap();
        assert_eq!(plan.generation, 4);
        assert!(
            steps(&plan).contains(
                &"roll back to rpool/root@blank, destroying rpool/root@darlings-3, \
              rpool/root@darlings-2, rpool/root#sent"
                    .to_owned()
            )
        );
    }
}
