//! What the kernel command line can ask for instead of a reset, on ZFS: the plans. Pure.

use super::names::{generation_name, in_words};
use super::plan::{Facts, destroyed_later};
use super::step::Step;
use crate::config;
use crate::engine::plan::{Does, Phase, Planned, VolumePlan};

/// Leaves the dataset as it is.
pub(super) fn nothing(
    volume: &config::Volume,
    source: &config::Zfs,
    facts: &Facts,
) -> VolumePlan<Step> {
    VolumePlan {
        restore: facts.restore.clone(),
        ..VolumePlan::nothing(&volume.mount_point, in_words(source), facts.live_generation)
    }
}

/// Keeps a generation, and erases nothing.
pub(super) fn snapshot(
    volume: &config::Volume,
    source: &config::Zfs,
    facts: &Facts,
) -> VolumePlan<Step> {
    let number = facts.next_generation();
    let name = generation_name(source, number);
    let steps = vec![
        planned(Phase::Prepare, Step::Snapshot { name: name.clone() }),
        planned(Phase::Commit, Step::Count { number }),
        planned(Phase::Commit, Step::Complete { dataset: source.dataset.clone() }),
    ];
    VolumePlan {
        does: Does::Snapshot,
        generation: number,
        warnings: destroyed_later(volume, &name),
        previous_state: Some(name),
        steps,
        ..nothing(volume, source, facts)
    }
}

/// Makes the dataset what generation `of` was. Going back to it would destroy the later ones, so its
/// content is laid and moved in as that of a blank is by `carry`, with nothing persisted.
pub(super) fn restore(
    volume: &config::Volume,
    source: &config::Zfs,
    facts: &Facts,
    of: u64,
) -> VolumePlan<Step> {
    let number = facts.next_generation();
    let name = generation_name(source, number);
    let blank = Some(generation_name(source, of));
    let steps = vec![
        planned(Phase::Prepare, Step::Snapshot { name: name.clone() }),
        planned(Phase::Prepare, Step::Lay { blank }),
        planned(Phase::Commit, Step::Replace),
        planned(Phase::Commit, Step::Record),
        planned(Phase::Commit, Step::Complete { dataset: source.dataset.clone() }),
        planned(Phase::Finish, Step::Tidy),
    ];
    VolumePlan {
        does: Does::Restore(of),
        generation: number,
        warnings: destroyed_later(volume, &name),
        previous_state: Some(name),
        steps,
        restore: None,
        ..nothing(volume, source, facts)
    }
}

fn planned(phase: Phase, step: Step) -> Planned<Step> {
    Planned { phase, step }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{source, steps, volume};
    use super::*;
    use crate::config::Strategy;

    const WARNING: &str = "the next reset destroys rpool/root@darlings-8, since a rollback \
                           destroys what is newer than the blank; strategy = \"carry\" keeps it";

    fn facts() -> Facts {
        Facts { live_generation: 6, highest: 7, ..Facts::default() }
    }

    #[test]
    fn off_has_no_steps() {
        let plan = nothing(&volume(Strategy::Carry), &source(), &facts());
        assert_eq!((plan.does, plan.generation, plan.steps), (Does::Nothing, 6, Vec::new()));
        assert_eq!(plan.previous_state, None);
    }

    #[test]
    fn a_snapshot_is_taken_and_its_number_counted_and_a_rollback_will_destroy_it() {
        let plan = snapshot(&volume(Strategy::Rollback), &source(), &facts());
        assert_eq!(
            steps(&plan),
            [
                "keep the previous state as rpool/root@darlings-8",
                "record number 8 in the live volume",
                "make rpool/root durable and mark it complete",
            ]
        );
        assert_eq!((plan.does, plan.generation), (Does::Snapshot, 8));
        assert_eq!(plan.warnings, [WARNING]);
        let plan = snapshot(&volume(Strategy::Carry), &source(), &facts());
        assert_eq!(plan.warnings, Vec::<String>::new());
    }

    #[test]
    fn a_restore_lays_the_generation_and_destroys_no_later_one() {
        for (strategy, warnings) in [(Strategy::Carry, vec![]), (Strategy::Rollback, vec![WARNING])]
        {
            let plan = restore(&volume(strategy), &source(), &facts(), 3);
            assert_eq!(
                steps(&plan),
                [
                    "keep the previous state as rpool/root@darlings-8",
                    "lay the content of rpool/root@darlings-3 beside the old one in the live volume",
                    "move the new content in, and everything else aside, in the live volume",
                    "record the reset and the persisted paths in the live volume",
                    "make rpool/root durable and mark it complete",
                    "move what is aside to the trash",
                ]
            );
            assert_eq!((plan.does, plan.generation), (Does::Restore(3), 8));
            assert_eq!(plan.previous_state.as_deref(), Some("rpool/root@darlings-8"));
            assert_eq!(plan.warnings, warnings);
        }
    }
}
