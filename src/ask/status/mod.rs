//! How things stand: the reset of this boot, generations, the attic, and what purge has to remove.

use std::path::PathBuf;

use serde::Serialize;

use crate::ask::drift;
use crate::ask::lookup::Volumes;
use crate::config::{self, Config};
use crate::generations::retention::{self, Dated, Reason};
use crate::generations::{self, Detail, Generation, Store};
use crate::keep::attic;
use crate::names::shown;
use crate::own::state::{self, Manifest};
use crate::own::trash;
use crate::text::bytes_in_words;
use crate::text::shown_path;
use crate::volume;

mod boot;
mod text;

pub use boot::{Boot, LastPhases, LastReport, LastVolume};

/// How things stand.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Format; a new field does not change it.
    pub version: u32,
    /// Whether nothing needs attention.
    pub well: bool,
    /// What needs it, in words.
    pub attention: Vec<String>,
    /// The report of this boot's run; `None` where there is none.
    pub report: Option<LastReport>,
    /// The volumes, in the order of the configuration.
    pub volumes: Vec<VolumeStatus>,
}

/// How one volume stands.
#[derive(Debug, Default, Serialize)]
pub struct VolumeStatus {
    /// Where the running system mounts it.
    #[serde(serialize_with = "shown_path")]
    pub mount_point: PathBuf,
    /// The dataset, the subvolume with its device, or the directory.
    pub name: String,
    /// Why there is nothing more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The run that made what is live; `None` for a volume that was never reset.
    pub last_run: Option<LastRun>,
    /// Why the next run will complete an interrupted one.
    pub interrupted: Option<String>,
    /// The numbers of the generations, the oldest first.
    pub generations: Vec<u64>,
    /// What they hold that nothing else does, where the filesystem counts that.
    pub exclusive_bytes: Option<u64>,
    /// What can still be written on its filesystem.
    pub available_bytes: Option<u64>,
    /// The size of its filesystem.
    pub total_bytes: Option<u64>,
    /// What is in the attic, the newest first.
    pub attic: Vec<Stored>,
    /// What a purge would remove now.
    pub to_purge: ToPurge,
    /// What the owner should know, and that needs nothing if it is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The run that made what is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastRun {
    /// Its number.
    pub number: u64,
    /// When, in seconds since 1970, by the clock of the initrd.
    pub time: Option<u64>,
    /// Whether it was in this boot.
    pub this_boot: bool,
}

/// What one reset has put into the attic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// The number of the reset.
    pub reset: u64,
    /// When, in seconds since 1970.
    pub time: Option<u64>,
    /// The paths, absolute.
    pub paths: Vec<String>,
}

/// What a purge would remove now, beside what it removes to make room. Nothing of it was counted
/// entry by entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ToPurge {
    /// Names in the trash.
    pub trash: Vec<String>,
    /// Generations that are no longer kept.
    pub generations: Vec<ExpiredCount>,
    /// Generations whose removal was begun.
    pub begun: Vec<u64>,
    /// Resets whose part of the attic is too old.
    pub attic: Vec<u64>,
    /// What `keep.min_free` wants free.
    pub min_free_bytes: Option<u64>,
}

impl ToPurge {
    /// How many things that are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.trash.len() + self.generations.len() + self.begun.len() + self.attic.len()
    }
}

/// A generation that is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ExpiredCount {
    /// Its number.
    pub number: u64,
    /// `too_many` or `too_old`.
    pub reason: &'static str,
}

/// The trash of so many resets is more than a purge that has yet to run.
const FORGOTTEN: usize = 3;

impl Status {
    /// Looks at everything. `boot` is what is known of this boot.
    #[must_use]
    pub fn of(volumes: &mut Volumes<'_>, boot: Boot, now: Option<u64>) -> Self {
        let config = volumes.config();
        let mut attention = boot.attention();
        let mut all = Vec::new();
        for (index, volume) in config.volumes.iter().enumerate() {
            let mut status = VolumeStatus {
                mount_point: volume.mount_point.clone(),
                name: volume::in_words(volume),
                ..VolumeStatus::default()
            };
            let looked =
                volumes.store(index).and_then(|store| status.look(store, volume, &boot, now));
            status.error = looked.err().map(|error| format!("{error:#}"));
            all.push(status);
        }
        if boot.report.is_none() {
            attention.extend(not_reset(config, &all));
        }
        for volume in &all {
            let at = shown(&volume.mount_point);
            attention.extend(volume.attention().into_iter().map(|words| format!("{at}: {words}")));
        }
        let (well, report) = (attention.is_empty(), boot.report);
        Self { version: 1, well, attention, report, volumes: all }
    }
}

/// Nobody reported anything in this boot: whether there was no reset.
fn not_reset(config: &Config, all: &[VolumeStatus]) -> Option<String> {
    let reset = all.iter().any(|volume| volume.last_run.as_ref().is_some_and(|it| it.this_boot));
    let known = all.iter().any(|volume| volume.error.is_none());
    (!reset && known && !config.volumes.is_empty()).then(|| {
        "no reset ran in this boot; is darlings-reset.service in the initrd? `journalctl -b -u \
         darlings-reset.service` says more"
            .to_owned()
    })
}

impl VolumeStatus {
    fn look(
        &mut self,
        store: &mut dyn Store,
        volume: &config::Volume,
        boot: &Boot,
        now: Option<u64>,
    ) -> anyhow::Result<()> {
        let live = store.live()?;
        let live = &live;
        let manifest = state::manifest_or_warn(live);
        self.notes.extend(drift::note(volume, manifest.as_ref()));
        self.last_run = manifest.map(|Manifest { generation, time, boot: of, .. }| LastRun {
            number: generation,
            time,
            this_boot: of.is_some() && of == boot.id,
        });
        self.interrupted = generations::unfinished(store, live)?;
        let seen = store.look(Detail::All)?;
        self.generations = seen.generations.iter().map(|it| it.number).collect();
        let sizes: Option<Vec<u64>> =
            seen.generations.iter().map(|it| it.size.map(|size| size.exclusive_bytes)).collect();
        self.exclusive_bytes = sizes.filter(|it| !it.is_empty()).map(|it| it.into_iter().sum());
        let space = store.space()?;
        (self.available_bytes, self.total_bytes) = (Some(space.available), Some(space.total));
        let lists = attic::lists(live)?;
        let keep = volume.keep.unwrap_or_default();
        let dated: Vec<_> = seen.generations.iter().map(Generation::dated).collect();
        let expired = retention::expired(&dated, keep, now).into_iter().map(|it| {
            let reason = match it.reason {
                Reason::TooMany => "too_many",
                Reason::TooOld => "too_old",
            };
            ExpiredCount { number: it.number, reason }
        });
        let ended = |number| seen.generations.iter().find(|it| it.number == number)?.ended;
        let stored: Vec<Dated> = lists
            .iter()
            .map(|(number, list)| Dated {
                number: *number,
                ended: list.time.or_else(|| ended(*number)),
            })
            .collect();
        self.to_purge = ToPurge {
            trash: trash::look(live)?
                .doomed
                .iter()
                .map(|name| name.to_string_lossy().into_owned())
                .collect(),
            generations: expired.collect(),
            begun: seen.begun.iter().map(|it| it.number).collect(),
            attic: keep
                .days
                .map_or_else(Vec::new, |days| retention::older_than(&stored, days, now)),
            min_free_bytes: keep.min_free.map(|min_free| min_free.of(space.total)),
        };
        let absolute = |path: &PathBuf| self.mount_point.join(path).to_string_lossy().into_owned();
        self.attic = lists
            .iter()
            .map(|(reset, list)| Stored {
                reset: *reset,
                time: list.time,
                paths: list.paths.iter().map(absolute).collect(),
            })
            .collect();
        Ok(())
    }

    fn attention(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(error) = &self.error {
            words.push(format!("it cannot be looked at: {error}"));
            return words;
        }
        if let Some(why) = &self.interrupted {
            words.push(generations::interrupted_in_words(why));
        }
        if self.last_run.is_none() {
            words.push("it was never reset".to_owned());
        }
        let resets = self.to_purge.trash.iter();
        let resets = resets.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).count();
        if resets >= FORGOTTEN {
            words.push(format!(
                "the trash of {resets} resets was not removed; run `darlings purge`, and see that \
                 darlings-purge.timer is enabled"
            ));
        }
        if let (Some(available), Some(wanted)) =
            (self.available_bytes, self.to_purge.min_free_bytes)
            && available < wanted
        {
            words.push(format!(
                "{} is free, less than the {} that `keep.min_free` wants; run `darlings purge`",
                bytes_in_words(available),
                bytes_in_words(wanted)
            ));
        }
        words
    }
}
