//! What is known of this boot: its id, and the report of the run in its initrd.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::own::state;

/// What is known of this boot.
#[derive(Debug)]
pub struct Boot {
    /// As the kernel names it.
    pub id: Option<String>,
    /// What the run in the initrd reported.
    pub report: Option<LastReport>,
}

/// What the run in the initrd reported, as far as it is told again.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastReport {
    /// What the kernel command line asked for.
    #[serde(default)]
    pub asked: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// What failed.
    #[serde(default)]
    pub error: Option<String>,
    /// From the call to durable.
    pub seconds: f64,
    /// The volumes.
    #[serde(default)]
    pub volumes: Vec<LastVolume>,
}

/// What was done with one volume.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastVolume {
    /// Where the running system mounts it.
    pub mount_point: String,
    /// `reset`, `restore:N`, `snapshot`, `nothing`.
    pub does: String,
    /// The number of the run.
    pub generation: u64,
    /// Whether that is done; earlier versions did not say.
    #[serde(default)]
    pub committed: Option<bool>,
    /// It is the completion of an interrupted run.
    #[serde(default)]
    pub resumes: bool,
    /// Seconds by phase.
    pub phase_seconds: LastPhases,
    /// What the owner should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Seconds by phase.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LastPhases {
    /// Everything before the point of no return.
    pub prepare: f64,
    /// The point of no return and what belongs to it.
    pub commit: f64,
    /// Tidying up.
    pub finish: f64,
}

impl Boot {
    /// Reads the report at `path` and asks the kernel which boot this is.
    ///
    /// # Errors
    /// The report is there and cannot be read, or the kernel does not say.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let report = match std::fs::read(path) {
            Ok(text) => Some(serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{path:?} is not the report of a reset; name it with --report, or remove it"
                )
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the report {path:?}"));
            }
        };
        Ok(Self { id: Some(state::boot_id()?), report })
    }

    /// What of the report needs attention.
    pub(super) fn attention(&self) -> Vec<String> {
        let Some(report) = &self.report else { return Vec::new() };
        let because = |words: &str| {
            let error = report.error.as_deref().unwrap_or("the report does not say why");
            format!("{words}: {error}")
        };
        let asked = report.asked.as_deref().unwrap_or("something");
        let mut words = match report.outcome.as_str() {
            "reset" => Vec::new(),
            "off" if report.volumes.iter().any(|volume| volume.resumes) => vec![
                "an interrupted run was completed in this boot, and nothing else was reset: \
                 darlings=off was on the kernel command line; the next boot without it resets"
                    .to_owned(),
            ],
            "off" => vec![
                "this boot was not reset: darlings=off was on the kernel command line; the next boot \
                 without it resets"
                    .to_owned(),
            ],
            "snapshot" => vec![
                "this boot was not reset: a generation was kept, as darlings=snapshot asked; the next \
                 boot without it resets"
                    .to_owned(),
            ],
            "restored" => vec![format!(
                "this boot was restored, as darlings={asked} asked; the next boot without it resets"
            )],
            "failed" => vec![because("the reset of this boot failed, and every volume is complete")],
            "unfinished" => {
                vec![because("the reset of this boot is not finished; do not use the volume, reboot")]
            }
            other => vec![format!("the report of this boot says {other:?}, which means nothing here")],
        };
        for volume in &report.volumes {
            let at = &volume.mount_point;
            words.extend(volume.warnings.iter().map(|warning| format!("{at}: {warning}")));
        }
        words
    }
}
