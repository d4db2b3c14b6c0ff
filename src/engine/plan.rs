//! What a reset is going to do, as data: printed by `--dry-run`, executed by a reset.
//!
//! A filesystem's part looks first and then computes its [`VolumePlan`] from what it saw and
//! the configuration alone, so that planning is tested without a filesystem.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::keep::survey::State;
use crate::keep::survey::Surveyed;
use crate::names::shown;
use crate::own::state;

/// The plan for one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumePlan {
    /// Where the running system mounts it.
    pub mount_point: PathBuf,
    /// The dataset or the subvolume with its device, in words.
    pub volume: String,
    /// What is done with it.
    pub does: Does,
    /// Number of the run, and of the generation that the previous state becomes. Where nothing is
    /// done, that of the last one.
    pub generation: u64,
    /// Where the previous state will be found; `None` when the strategy keeps none.
    pub previous_state: Option<String>,
    /// The reset that this plan completes was interrupted after its point of no return.
    pub resumes: bool,
    /// The persisted paths and what they are in the previous state.
    pub paths: Vec<Surveyed>,
    /// Paths that were persisted last time and are no longer declared: they go to the attic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub put_away: Vec<String>,
    /// Paths that come back from the attic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<String>,
    /// Subvolumes that go with the generation, because they lie below no persisted path.
    pub leaving: Vec<String>,
    /// What the owner should know before or after.
    pub warnings: Vec<String>,
    /// What is done, in this order.
    pub steps: Vec<Planned>,
    /// The restore that made the live volume, or, of an interrupted one, the one that is completed
    /// now. The engine compares it with what is asked for.
    #[serde(skip)]
    pub restore: Option<state::Restore>,
}

/// What a plan does with its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Does {
    /// It is reset.
    Reset,
    /// It becomes what this generation was.
    Restore(u64),
    /// It is kept as a generation and stays what it is.
    Snapshot,
    /// It is left as it is.
    #[default]
    Nothing,
}

impl std::fmt::Display for Does {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset => f.write_str("reset"),
            Self::Restore(number) => write!(f, "restore:{number}"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Serialize for Does {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl VolumePlan {
    /// The plan to leave a volume as it is.
    #[must_use]
    pub fn nothing(mount_point: &Path, volume: String, generation: u64) -> Self {
        Self {
            mount_point: mount_point.to_owned(),
            volume,
            does: Does::Nothing,
            generation,
            previous_state: None,
            resumes: false,
            paths: Vec::new(),
            put_away: Vec::new(),
            returned: Vec::new(),
            leaving: Vec::new(),
            warnings: Vec::new(),
            steps: Vec::new(),
            restore: None,
        }
    }

    /// What the plan is, in a few words.
    #[must_use]
    pub fn title(&self) -> String {
        let number = self.generation;
        match self.does {
            Does::Reset => format!("reset {number}"),
            Does::Restore(of) => format!("reset {number}, which restores generation {of}"),
            Does::Snapshot => format!("kept as generation {number}, and not reset"),
            Does::Nothing => "left as it is".to_owned(),
        }
    }
}

/// One step and the phase it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The phase.
    pub phase: Phase,
    /// What is done.
    #[serde(flatten)]
    pub step: Step,
}

/// The phases of a reset. Each is done for all volumes before the next begins, so that what
/// can fail has been done for all before the first is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing that the machine boots from is touched. A failure is undone.
    Prepare,
    /// The result takes the place of the previous state.
    Commit,
    /// What is left over goes where it belongs; the next run would do it too.
    Finish,
}

/// A tree that entries are read from or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    /// The live volume as the last boot left it.
    Previous,
    /// The copy of the blank in which the result is made.
    Staged,
    /// The live volume once it is blank again (ZFS).
    Live,
}

/// One thing that a reset does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Remove what an interrupted run left before its point of no return.
    Discard {
        /// Subvolume or dataset.
        leftover: String,
    },
    /// Make the copy in which the result is made: of the blank, of the live volume (to `carry`, or
    /// to keep it), or of a generation (to restore it).
    Stage {
        /// What is copied, or `None` for an empty tree.
        from: Option<String>,
        /// Subvolume or dataset that is made.
        target: String,
    },
    /// Bring the persisted paths over.
    Restore {
        /// Read only.
        from: Tree,
        /// Where they go.
        into: Tree,
    },
    /// Take a snapshot of the dataset, which becomes the generation (ZFS).
    Snapshot {
        /// The snapshot.
        name: String,
    },
    /// Lay the blank's content beside the previous one, to `carry`.
    Lay {
        /// The blank, or `None` for an empty tree.
        blank: Option<String>,
        /// Where.
        into: Tree,
    },
    /// Move the persisted paths into the new content, and everything else aside.
    Carry {
        /// Where.
        within: Tree,
    },
    /// Move the new content of the volume in, and everything else aside: a `carry` with nothing
    /// persisted, to restore a generation.
    Replace {
        /// Where.
        within: Tree,
    },
    /// Write the number of the generation that is being kept into the live volume's `.darlings`, so
    /// that no other gets it.
    Count {
        /// The number.
        number: u64,
    },
    /// Write the number of the reset and the list of persisted paths into `.darlings`.
    Record {
        /// The tree that becomes the live volume.
        into: Tree,
    },
    /// Make everything so far durable, under a name that says so.
    Secure {
        /// Subvolume or snapshot whose existence means that it is complete.
        name: String,
    },
    /// Swap the staged subvolume with the live one, atomically (btrfs).
    Exchange {
        /// The staged subvolume; afterwards it is the previous state.
        staged: String,
        /// The live subvolume.
        live: String,
    },
    /// Move a nested subvolume that is kept into the result (btrfs).
    MoveNested {
        /// Below the volume's root.
        #[serde(serialize_with = "crate::text::shown_path")]
        path: PathBuf,
        /// Where it is in the result, below its root: elsewhere if it goes to the attic or comes back
        /// from there.
        #[serde(serialize_with = "crate::text::shown_path")]
        to: PathBuf,
    },
    /// Set the attributes that moving nested subvolumes and exchanging have changed (btrfs).
    Settle,
    /// Make the live subvolume the filesystem's default again (btrfs).
    SetDefault,
    /// Roll the dataset back to its blank snapshot (ZFS). From here only forward is safe.
    RollBack {
        /// The blank snapshot.
        snapshot: String,
        /// Newer snapshots and bookmarks, which a rollback destroys.
        destroys: Vec<String>,
    },
    /// Make the restored dataset durable and note that the reset is complete (ZFS).
    Complete {
        /// The dataset.
        dataset: String,
    },
    /// Move what is aside to the trash and remove what else is left of the work (ZFS).
    Tidy,
    /// Make the previous state a generation.
    KeepGeneration {
        /// Subvolume or directory that it becomes.
        name: String,
    },
    /// Set the flags of a root that an interrupted run had cleared to make it a generation (btrfs).
    Seal {
        /// Number of the generation.
        number: u64,
    },
    /// Destroy the stage (ZFS).
    DestroyStage {
        /// Dataset.
        stage: String,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Discard { leftover } => {
                write!(f, "remove {leftover}, left by an interrupted run")
            }
            Self::Stage { from: Some(from), target } => write!(f, "copy {from} as {target}"),
            Self::Stage { from: None, target } => write!(f, "make {target}, empty"),
            Self::Restore { from, into } => {
                write!(f, "bring the persisted paths from {from} to {into}")
            }
            Self::Lay { blank: Some(blank), into } => {
                write!(f, "lay the content of {blank} beside the old one in {into}")
            }
            Self::Lay { blank: None, into } => {
                write!(f, "make a place for the new content in {into}")
            }
            Self::Carry { within } => {
                write!(f, "move the persisted paths to the new content in {within}, the rest aside")
            }
            Self::Replace { within } => {
                write!(f, "move the new content in, and everything else aside, in {within}")
            }
            Self::Count { number } => {
                write!(f, "write into the live volume that the number {number} is taken")
            }
            Self::Record { into } => {
                write!(f, "record the reset and the persisted paths in {into}")
            }
            Self::Secure { name } => write!(f, "make it durable as {name}"),
            Self::Exchange { staged, live } => write!(f, "exchange {staged} with {live}"),
            Self::MoveNested { path, to } if path == to => {
                write!(f, "move the nested subvolume {} along", shown(path))
            }
            Self::MoveNested { path, to } => {
                write!(f, "move the nested subvolume {} to {}", shown(path), shown(to))
            }
            Self::Seal { number } => write!(
                f,
                "give the root of generation {number} the flags back that an interrupted run cleared"
            ),
            Self::Settle => f.write_str("set the attributes that the exchange has changed"),
            Self::SetDefault => f.write_str("make the live subvolume the default one"),
            Self::RollBack { snapshot, destroys } if destroys.is_empty() => {
                write!(f, "roll back to {snapshot}")
            }
            Self::RollBack { snapshot, destroys } => {
                write!(f, "roll back to {snapshot}, destroying {}", destroys.join(", "))
            }
            Self::Tidy => f.write_str("move what is aside to the trash"),
            Self::Complete { dataset } => write!(f, "make {dataset} durable and mark it complete"),
            Self::Snapshot { name } | Self::KeepGeneration { name } => {
                write!(f, "keep the previous state as {name}")
            }
            Self::DestroyStage { stage } => write!(f, "destroy {stage}"),
        }
    }
}

impl std::fmt::Display for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Previous => "the previous state",
            Self::Staged => "the stage",
            Self::Live => "the live volume",
        })
    }
}

impl std::fmt::Display for VolumePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mount_point, volume, .. } = self;
        write!(f, "{} ({volume}), {}", shown(&mount_point), self.title())?;
        if self.resumes {
            write!(f, ", which was interrupted and is completed now")?;
        }
        writeln!(f)?;
        for path in &self.paths {
            let name = shown(&mount_point.join(&path.path));
            match &path.state {
                State::Present { kind } => writeln!(f, "  keep   {name} ({kind})")?,
                State::Absent => writeln!(f, "  keep   {name} (not there)")?,
                State::Unreachable { ancestor, kind } => writeln!(
                    f,
                    "  leave  {name}: {} is a {kind} and is not followed",
                    shown(&mount_point.join(ancestor))
                )?,
            }
        }
        for path in &self.returned {
            let path = shown(path);
            writeln!(f, "  return {path}, from the attic")?;
        }
        for path in &self.put_away {
            let path = shown(path);
            writeln!(f, "  attic  {path}, which is no longer declared")?;
        }
        for subvolume in &self.leaving {
            let subvolume = shown(subvolume);
            writeln!(f, "  erase  subvolume {subvolume}, which goes with the generation")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  note   {warning}")?;
        }
        for (number, planned) in self.steps.iter().enumerate() {
            writeln!(f, "  {:>3}. {}", number + 1, planned.step)?;
        }
        match &self.previous_state {
            Some(name) => writeln!(f, "  The previous state will be {name}."),
            None if self.does == Does::Nothing => Ok(()),
            None => writeln!(f, "  The previous state is not kept: a ZFS rollback destroys it."),
        }
    }
}
