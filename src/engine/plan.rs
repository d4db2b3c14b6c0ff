//! What a reset is going to do, as data: printed by `--dry-run`, executed by a reset.
//!
//! A filesystem's part looks first and then computes its [`VolumePlan`] from what it saw and
//! the configuration alone, so that planning is tested without a filesystem.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::keep::survey::State;
use crate::keep::survey::Surveyed;
use crate::names::shown;
use crate::own::state;

/// The plan for one volume, with the steps of its filesystem, or as the engine knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumePlan<S = Described> {
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
    pub steps: Vec<Planned<S>>,
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

impl<S> VolumePlan<S> {
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

impl<S: Serialize + std::fmt::Display> VolumePlan<S> {
    /// The plan for the engine, and the steps for the filesystem's part, in the same order.
    pub fn described(self) -> anyhow::Result<(VolumePlan, Vec<S>)> {
        let describe = |planned: &Planned<S>| -> anyhow::Result<Planned> {
            let Planned { phase, step } = planned;
            let data = serde_json::to_value(step).context("cannot describe a step")?;
            let serde_json::Value::Object(data) = data else { bail!("BUG: a step without a name") };
            Ok(Planned { phase: *phase, step: Described { words: step.to_string(), data } })
        };
        let steps = self.steps.iter().map(describe).collect::<anyhow::Result<_>>()?;
        let plan = VolumePlan {
            steps,
            mount_point: self.mount_point,
            volume: self.volume,
            does: self.does,
            generation: self.generation,
            previous_state: self.previous_state,
            resumes: self.resumes,
            paths: self.paths,
            put_away: self.put_away,
            returned: self.returned,
            leaving: self.leaving,
            warnings: self.warnings,
            restore: self.restore,
        };
        Ok((plan, self.steps.into_iter().map(|planned| planned.step).collect()))
    }
}

/// One step and the phase it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned<S = Described> {
    /// The phase.
    pub phase: Phase,
    /// What is done.
    #[serde(flatten)]
    pub step: S,
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

/// A step as the engine knows it. What there is to do, only the filesystem's part knows: the engine has the
/// words for a person, and for a program the step's name with what it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    /// What is done, as an order: "exchange @a with @b".
    #[serde(skip)]
    pub words: String,
    /// The same for a program.
    #[serde(flatten)]
    pub data: serde_json::Map<String, serde_json::Value>,
}

impl std::fmt::Display for Described {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
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
            writeln!(f, "  attic  {path}, which is no longer persisted")?;
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
