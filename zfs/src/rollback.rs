//! Rolling a dataset back to its blank snapshot, and marking that it was.
//!
//! Both, and the destruction of later snapshots, happen in one channel program and so in one
//! transaction group: after a power cut either all of it is on disk or nothing is. The
//! program (`rollback.lua`) checks everything before it does anything, in the same syncing
//! context, so that nobody can take a snapshot in between.
//!
//! Bookmarks are the exception. One that is newer than the blank makes ZFS refuse the rollback,
//! and channel programs cannot destroy bookmarks. They go first, in a transaction group of their
//! own, after the program has been tried without doing anything. A bookmark holds no data: what
//! is lost with it is the starting point of an incremental send.

use crate::name::{self, Kind};
use crate::nvlist::List;
use crate::program::Program;
use crate::refusal::{Progress, Refusal};
use crate::{Errno, Error, Zfs};

const PROGRAM: &str = include_str!("rollback.lua");

/// A rollback to be done, and the mark to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback<'a> {
    /// The dataset. It must not be mounted.
    pub dataset: &'a str,
    /// The snapshot of it to go back to: the part of the name after the `@`.
    pub blank: &'a str,
    /// Full names of snapshots (`dataset@name`) and bookmarks (`dataset#name`) of the dataset to
    /// destroy first. All that are newer than the blank must be here. Those that are not there
    /// any more are no error.
    pub destroy_first: &'a [String],
    /// The user property that is the mark.
    pub property: &'a str,
    /// The value that it gets.
    pub value: &'a str,
}

impl Zfs {
    /// Whether [`Zfs::rollback_and_mark`] would succeed now, with the reason if not. Changes
    /// nothing, but waits for a transaction group: only there does ZFS say that the dataset is
    /// mounted (`dsl_dataset_handoff_check`), which no list of mounts shows when it is in
    /// somebody else's namespace.
    pub fn check_rollback(&self, rollback: &Rollback<'_>) -> Result<(), Error> {
        self.check(rollback, Program::sync)
    }

    fn check<'a>(
        &self,
        rollback: &Rollback<'a>,
        program: fn(&'static str, &'a str, &'static str) -> Program<'a>,
    ) -> Result<(), Error> {
        let plan = Plan::new(self, rollback)?;
        let program = program("roll back", rollback.dataset, PROGRAM);
        let answer = program.run(self, &plan.arguments(false))?;
        plan.judge(program, &answer, Vec::new()).map(drop)
    }

    /// Destroys what is newer than the blank snapshot, rolls the dataset back to it, and sets the
    /// property, all in one transaction group (bookmarks are destroyed in one before that).
    /// Returns what was destroyed. On disk when this returns.
    ///
    /// What the dataset's intent log holds is lost too: see [`crate::mount()`] for how to have it
    /// replayed before the last state is taken from the dataset.
    ///
    /// [`Error::RollbackRefused`] means that nothing was changed, except that bookmarks on the
    /// list may be gone. [`Error::RollbackIncomplete`] says what was done before it stopped.
    /// After [`Error::ChannelProgram`] the caller must look for itself: ZFS stopped the program
    /// (an I/O error, say) and did not say where; a dataset that was rolled back is marked even
    /// then.
    pub fn rollback_and_mark(&self, rollback: &Rollback<'_>) -> Result<Vec<String>, Error> {
        self.check(rollback, Program::look)?;
        let plan = Plan::new(self, rollback)?;
        if !plan.doomed_bookmarks.is_empty() {
            self.destroy_bookmarks(&plan.doomed_bookmarks)?;
        }
        let destroyed = plan.doomed_bookmarks.clone();
        let program = Program::sync("roll back", rollback.dataset, PROGRAM);
        let answer = program.run(self, &plan.arguments(true))?;
        plan.judge(program, &answer, destroyed)
    }
}

/// A rollback with its names checked and the dataset's bookmarks sorted into the two kinds.
struct Plan<'a> {
    rollback: &'a Rollback<'a>,
    blank: String,
    snapshots: Vec<String>,
    doomed_bookmarks: Vec<String>,
    kept_bookmarks: Vec<String>,
}

impl<'a> Plan<'a> {
    fn new(zfs: &Zfs, rollback: &'a Rollback<'a>) -> Result<Self, Error> {
        let dataset = rollback.dataset;
        name::check(Kind::Dataset, dataset)?;
        let blank = format!("{dataset}@{}", rollback.blank);
        name::check(Kind::Snapshot, &blank)?;
        name::check_user_property(rollback.property)?;
        let refused = |reason| Error::RollbackRefused {
            dataset: dataset.to_owned(),
            reason,
            destroyed: Vec::new(),
        };

        let (mut snapshots, mut listed_bookmarks) = (Vec::new(), Vec::new());
        for name in rollback.destroy_first {
            match name.strip_prefix(dataset).and_then(|rest| rest.chars().next()) {
                Some('@') if *name != blank => snapshots.push(name.clone()),
                Some('#') => listed_bookmarks.push(name.clone()),
                _ => {
                    return Err(Error::InvalidName {
                        name: name.clone(),
                        wanted: "a snapshot or bookmark of the dataset, other than the blank",
                    });
                }
            }
        }

        // The program refuses if a bookmark appears that is in neither list.
        if !zfs.exists(&blank)? {
            let missing = if zfs.exists(dataset)? { blank } else { dataset.to_owned() };
            return Err(refused(Refusal::Missing { name: missing }));
        }
        let blank_txg = zfs.number(&blank, "createtxg")?;
        let (mut doomed_bookmarks, mut kept_bookmarks) = (Vec::new(), Vec::new());
        for bookmark in zfs.bookmarks(dataset)? {
            let name = format!("{dataset}#{}", bookmark.name);
            if listed_bookmarks.contains(&name) {
                doomed_bookmarks.push(name);
            } else if bookmark.createtxg <= blank_txg {
                kept_bookmarks.push(name);
            }
        }
        Ok(Self { rollback, blank, snapshots, doomed_bookmarks, kept_bookmarks })
    }

    fn arguments(&self, perform: bool) -> List {
        List::new()
            .with("dataset", self.rollback.dataset)
            .with("blank", self.blank.as_str())
            .with("snapshots", self.snapshots.clone())
            .with("doomed_bookmarks", self.doomed_bookmarks.clone())
            .with("kept_bookmarks", self.kept_bookmarks.clone())
            .with("property", self.rollback.property)
            .with("value", self.rollback.value)
            .with("perform", perform)
    }

    /// What the program's answer means, when `destroyed` was destroyed before it.
    fn judge(
        &self,
        program: Program<'_>,
        answer: &List,
        mut destroyed: Vec<String>,
    ) -> Result<Vec<String>, Error> {
        let dataset = self.rollback.dataset.to_owned();
        let unexpected = || program.unexpected(&format!("{answer:?}"));
        let name = answer.text("name").map(str::to_owned);
        let errno = answer
            .number("errno")
            .map(|errno| i32::try_from(errno).map(Errno::from_raw).map_err(|_| unexpected()))
            .transpose()?;

        if let Some(refused) = answer.text("refused") {
            let name = name.ok_or_else(unexpected)?;
            let reason = match (refused, errno) {
                ("missing", _) => Refusal::Missing { name },
                ("newer", _) => Refusal::NewerExist {
                    blank: name,
                    newer: answer.array("newer").ok_or_else(unexpected)?,
                },
                ("destroy", Some(source)) => Refusal::CannotDestroy { name, source },
                ("rollback", Some(Errno::BUSY)) => Refusal::Busy,
                ("rollback", Some(source)) => Refusal::Rollback { source },
                ("mark", Some(source)) => Refusal::CannotMark { source },
                _ => return Err(unexpected()),
            };
            return Err(Error::RollbackRefused { dataset, reason, destroyed });
        }

        destroyed.extend(answer.array("destroyed").ok_or_else(unexpected)?);
        let Some(step) = answer.text("step") else { return Ok(destroyed) };
        Err(Error::RollbackIncomplete {
            dataset,
            progress: Progress {
                destroyed,
                rolled_back: answer.boolean("rolled_back").ok_or_else(unexpected)?,
                marked: answer.boolean("marked").ok_or_else(unexpected)?,
                step: step.to_owned(),
                name: name.ok_or_else(unexpected)?,
            },
            source: errno.ok_or_else(unexpected)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{PROGRAM, Plan, Progress, Refusal, Rollback};
    use crate::nvlist::{Data, List};
    use crate::program::Program;
    use crate::{Errno, Error};

    const ROLLBACK: Rollback<'static> = Rollback {
        dataset: "rpool/root",
        blank: "blank",
        destroy_first: &[],
        property: "org.darlings:state",
        value: "rolled-back",
    };

    fn judge(answer: &List) -> Result<Vec<String>, Error> {
        let plan = Plan {
            rollback: &ROLLBACK,
            blank: "rpool/root@blank".into(),
            snapshots: Vec::new(),
            doomed_bookmarks: Vec::new(),
            kept_bookmarks: Vec::new(),
        };
        let program = Program::look("roll back", "rpool/root", PROGRAM);
        plan.judge(program, answer, vec!["rpool/root#mark".into()])
    }

    #[test]
    fn a_rollback_that_stopped_half_way_tells_what_had_been_done() {
        let answer = List::new()
            .with("destroyed", List::new().with("1", "rpool/root@later"))
            .with("marked", false)
            .with("rolled_back", false)
            .with("step", "rollback")
            .with("name", "rpool/root")
            .with("errno", Data::Signed(28));
        let Err(error) = judge(&answer) else { panic!("no error") };
        assert_eq!(
            error.to_string(),
            "rolling rpool/root back stopped half way: it could not rollback rpool/root; not \
             rolled back, not marked, destroyed: rpool/root#mark, rpool/root@later"
        );
        let Error::RollbackIncomplete { progress, source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source, Errno::NOSPC);
        assert_eq!(
            progress,
            Progress {
                destroyed: vec!["rpool/root#mark".into(), "rpool/root@later".into()],
                rolled_back: false,
                marked: false,
                step: "rollback".into(),
                name: "rpool/root".into(),
            }
        );
    }

    #[test]
    fn a_refused_rollback_tells_which_bookmarks_are_gone_already() {
        let answer = List::new()
            .with("refused", "rollback")
            .with("name", "rpool/root")
            .with("errno", Data::Signed(16));
        let Err(Error::RollbackRefused { reason, destroyed, .. }) = judge(&answer) else {
            panic!("not refused")
        };
        assert_eq!(reason, Refusal::Busy);
        assert_eq!(destroyed, ["rpool/root#mark"]);
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_not_taken_for_success() {
        assert!(matches!(judge(&List::new()), Err(Error::UnexpectedAnswer { .. })));
    }
}
