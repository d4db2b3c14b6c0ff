//! What a reset did: in plain words to the journal, as JSON to a file.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::cmdline::Asked;
use crate::engine::plan::{Does, Phase, Planned, VolumePlan};
use crate::fs::at;
use crate::keep::copy_in::Outcome;
use crate::names::shown;
use crate::text::{bytes_in_words, json};
use crate::tree::{BytesByRung, Restored};

/// Where the report of the last reset lies.
pub const DEFAULT_PATH: &str = "/run/darlings/report.json";

/// The report of a reset.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Format of this report; a new field does not change it.
    pub version: u32,
    /// What the kernel command line asks for; `None` when that cannot be understood, or nothing got
    /// so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// How it ended.
    pub outcome: Ending,
    /// What failed, with its causes, and what state things are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From the call to durable.
    pub seconds: f64,
    /// The most memory that the process held at once, in bytes (`VmHWM` of `proc_pid_status(5)`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The volumes, in the order of the configuration. Empty when they could not be planned.
    pub volumes: Vec<VolumeReport>,
}

/// How a reset ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every volume is the complete result.
    Reset,
    /// Every volume is the complete previous state, or (named in the error) the result.
    Failed,
    /// A volume is neither; only another run may touch it.
    Unfinished,
    /// Nothing was to be changed.
    DryRun,
    /// Every volume was left as it was, but for what an interrupted run had left half done.
    Off,
    /// Every volume was kept as a generation, and is what it was.
    Snapshot,
    /// Every volume is what the generation was that was asked for.
    Restored,
}

/// What was done with one volume.
#[derive(Debug, Serialize)]
pub struct VolumeReport {
    /// What was planned.
    #[serde(flatten)]
    pub plan: VolumePlan,
    /// Whether the result is live.
    pub committed: bool,
    /// Whether the previous state is where the plan says, and nothing else is left over.
    pub tidied: bool,
    /// Entries and bytes by persisted path.
    pub restored: Vec<Restored>,
    /// Bytes of regular files by the way they came.
    pub bytes: BytesByRung,
    /// Seconds that each step took, as many as were done.
    pub step_seconds: Vec<f64>,
    /// Seconds by phase.
    pub phase_seconds: PhaseSeconds,
}

/// Seconds by phase.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PhaseSeconds {
    /// Everything before the point of no return.
    pub prepare: f64,
    /// The point of no return and what belongs to it.
    pub commit: f64,
    /// Tidying up.
    pub finish: f64,
}

impl Report {
    /// Whether this run has made every volume the complete result, so that what failed is tidying up.
    /// Not where it only completes an earlier run: the machine may have been used since, and what it
    /// was used for is not erased.
    #[must_use]
    pub fn all_reset(&self) -> bool {
        let reset = |volume: &VolumeReport| volume.committed && !volume.plan.resumes;
        !self.volumes.is_empty() && self.volumes.iter().all(reset)
    }
}

impl VolumeReport {
    /// Nothing was done yet.
    #[must_use]
    pub fn new(plan: VolumePlan) -> Self {
        Self {
            plan,
            committed: false,
            tidied: false,
            restored: Vec::new(),
            bytes: BytesByRung::default(),
            step_seconds: Vec::new(),
            phase_seconds: PhaseSeconds::default(),
        }
    }

    /// At the end of a run, which was to change something: without a previous state that it did not leave.
    #[must_use]
    pub fn ended(mut self) -> Self {
        if !self.committed {
            self.plan.previous_state = None;
        }
        self
    }

    /// Adds what a restoration did. On ZFS there are two, of the same paths: the later one
    /// counts for the paths, both for the bytes.
    pub fn restored(&mut self, outcome: Outcome) {
        self.bytes += outcome.bytes;
        self.restored = outcome.persisted;
    }

    /// Adds the time of a step.
    pub fn took(&mut self, planned: &Planned, time: Duration) {
        let seconds = time.as_secs_f64();
        self.step_seconds.push(seconds);
        *match planned.phase {
            Phase::Prepare => &mut self.phase_seconds.prepare,
            Phase::Commit => &mut self.phase_seconds.commit,
            Phase::Finish => &mut self.phase_seconds.finish,
        } += seconds;
    }

    /// In plain words, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let plan = &self.plan;
        let phases = self.phase_seconds;
        if plan.does == Does::Nothing {
            return vec![format!(
                "{} ({}): {}",
                shown(&plan.mount_point),
                plan.volume,
                plan.title()
            )];
        }
        let mut lines = vec![format!(
            "{} ({}): {}{} in {:.3} s (prepare {:.3}, commit {:.3}, finish {:.3})",
            shown(&plan.mount_point),
            plan.volume,
            plan.title(),
            if plan.does == Does::Snapshot { "," } else { " done" },
            phases.prepare + phases.commit + phases.finish,
            phases.prepare,
            phases.commit,
            phases.finish,
        )];
        for restored in &self.restored {
            let path = shown(&plan.mount_point.join(&restored.path));
            lines.push(match (restored.entries, restored.bytes) {
                (Some(entries), Some(bytes)) => format!(
                    "  kept {path}: {entries} {}, {}",
                    if entries == 1 { "entry" } else { "entries" },
                    bytes_in_words(bytes),
                ),
                _ => format!("  kept {path}: moved as a whole"),
            });
        }
        lines.extend(ways_in_words(self.bytes).into_iter().map(|way| format!("  {way}")));
        match &plan.previous_state {
            Some(previous) if self.tidied => {
                lines.push(format!("  the previous state is {previous}"));
            }
            Some(previous) => lines.push(format!(
                "  the previous state is not yet {previous}: a run that tidies up names it so"
            )),
            None => {}
        }
        lines
    }
}

/// The most memory that this process held at once, in bytes, where the kernel tells.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    // A figure for the curious: without it the report is complete.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return None };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes = line.trim().strip_suffix(" kB")?.parse::<u64>();
    kibibytes.map_or(None, |kibibytes| Some(kibibytes * 1024))
}

/// How the bytes of files came, for a person: each way that some came.
#[must_use]
pub fn ways_in_words(bytes: BytesByRung) -> Vec<String> {
    [
        (bytes.reflinked, "shared by reflink"),
        (bytes.copy_file_range, "brought over by copy_file_range"),
        (bytes.copied, "copied"),
    ]
    .into_iter()
    .filter(|(bytes, _)| *bytes > 0)
    .map(|(bytes, how)| format!("{} {how}", bytes_in_words(bytes)))
    .collect()
}

impl Report {
    /// The report of a reset that was refused before any volume was looked at.
    #[must_use]
    pub fn refused(error: String) -> Self {
        let outcome = Ending::Failed;
        Self {
            version: 1,
            asked: None,
            outcome,
            error: Some(error),
            seconds: 0.0,
            peak_memory_bytes: None,
            volumes: Vec::new(),
        }
    }

    /// How it ended, for the journal; nothing where the error says it, or nothing was done.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let seconds = self.seconds;
        Some(match self.outcome {
            Ending::Reset => format!("reset complete in {seconds:.3} s"),
            Ending::Off if self.volumes.iter().any(|volume| volume.plan.resumes) => {
                "what an interrupted run had left was completed, and nothing else is reset: the kernel \
                 command line says darlings=off"
                    .to_owned()
            }
            Ending::Off => "nothing is reset: the kernel command line says darlings=off".to_owned(),
            Ending::Snapshot => format!("kept, and nothing erased, in {seconds:.3} s"),
            Ending::Restored => format!("restored in {seconds:.3} s"),
            Ending::DryRun | Ending::Failed | Ending::Unfinished => return None,
        })
    }

    /// Writes it to `path`, replacing the report of an earlier reset as a whole. Everybody may
    /// read it and nobody else write it; a reset has no umask that would see to that.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
            }
            let mut beside = path.as_os_str().to_owned();
            beside.push(".new");
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&beside)?;
            // Whatever the umask says, where a run ended before it could clear it.
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.write_all(json(self)?.as_bytes())?;
            Ok(std::fs::rename(&beside, path)?)
        };
        write().with_context(|| format!("cannot write the report {path:?}"))
    }
}

/// What is read of a report that was written earlier.
#[derive(Deserialize)]
struct Earlier {
    outcome: Ending,
}

/// Whether a report is one of a run that did something, and not one of a run that only failed.
pub fn is_of_a_reset(path: &Path) -> anyhow::Result<bool> {
    let text = at::present(std::fs::read_to_string(path));
    let Some(text) = text.with_context(|| format!("cannot read the report {path:?}"))? else {
        return Ok(false);
    };
    // What is none is no loss.
    let earlier = serde_json::from_str::<Earlier>(&text);
    Ok(earlier.is_ok_and(|earlier| earlier.outcome != Ending::Failed))
}

#[cfg(test)]
mod tests {
    use super::bytes_in_words;

    #[test]
    fn bytes_are_told_with_one_decimal_in_the_largest_fitting_unit() {
        assert_eq!(bytes_in_words(0), "0 B");
        assert_eq!(bytes_in_words(1023), "1023 B");
        assert_eq!(bytes_in_words(1536), "1.5 KiB");
        assert_eq!(bytes_in_words(5 << 30), "5.0 GiB");
        assert_eq!(bytes_in_words(u64::MAX), "16384.0 PiB");
    }
}
