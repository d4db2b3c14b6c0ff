//! A look at the running system before it is trusted to a configuration: whether the next boot will
//! reset every volume, and lose nothing that is declared.
//!
//! What a reset would look at first, this looks at too, by the same code. What is only that the
//! volumes are in use is no problem here; a declared path that cannot be reached is one.

use std::path::PathBuf;

use serde::Serialize;

use crate::ask::drift;
use crate::cmdline::{Asked, CommandLine};
use crate::config::{self, Backing, Config, Strategy};
use crate::engine::plan::VolumePlan;
use crate::engine::reset;
use crate::fs::Dir;
use crate::generations::{Access, Detail, Generation, Store};
use crate::keep::survey::State;
use crate::keep::survey::state_at;
use crate::names::shown;
use crate::own::state;
use crate::rules::Rules;
use crate::volume::{self, Options};

mod fstab;
mod places;

/// What a check found. Its schema is in `docs/nixos.md`; a new field does not change `version`.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Format of this report.
    pub version: u32,
    /// Whether the next reset would succeed. It may still lose something: see the problems.
    pub ready: bool,
    /// What forbids the reset of all volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The volumes, in the order of the configuration.
    pub volumes: Vec<VolumeCheck>,
}

/// What a check found of one volume.
#[derive(Debug, Serialize)]
pub struct VolumeCheck {
    /// Where the running system mounts it.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub mount_point: PathBuf,
    /// The dataset or the subvolume, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Whether a reset of it would succeed.
    pub ready: bool,
    /// What keeps it from being reset, or makes a reset lose what is declared.
    pub problems: Vec<String>,
    /// What the owner should know.
    pub notes: Vec<String>,
    /// How many declared paths are there, and how many there are in all. Unknown where the volume
    /// cannot be looked at.
    pub present: Option<usize>,
    /// See [`Self::present`].
    pub declared: usize,
    /// How many previous states are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generations: Option<usize>,
}

impl Check {
    /// Looks at every volume of `config`. `line` is what the kernel was told; `fstab` is the content
    /// of fstab(5).
    #[must_use]
    pub fn of(config: &Config, line: &CommandLine, fstab: &str) -> Self {
        let look = |volume| VolumeCheck::of(volume, line, fstab);
        let volumes: Vec<_> = config.volumes.iter().map(look).collect();
        let refused = reset::asked(config, line).err();
        let ready = refused.is_none() && volumes.iter().all(|volume| volume.ready);
        // That another root is booted is a problem of its volume.
        let error = refused.filter(|(asked, _)| asked.is_none()).map(|(_, why)| format!("{why:#}"));
        Self { version: 1, ready, error, volumes }
    }

    /// How many problems there are in all.
    #[must_use]
    pub fn problems(&self) -> usize {
        let own = usize::from(self.error.is_some());
        own + self.volumes.iter().map(|volume| volume.problems.len()).sum::<usize>()
    }

    /// A check that could not begin.
    #[must_use]
    pub fn refused(error: String) -> Self {
        Self { version: 1, ready: false, error: Some(error), volumes: Vec::new() }
    }
}

impl VolumeCheck {
    fn of(volume: &config::Volume, line: &CommandLine, fstab: &str) -> Self {
        let volume = volume::in_running_system(volume);
        let mut check = Self {
            mount_point: volume.mount_point.clone(),
            volume: None,
            ready: false,
            problems: Vec::new(),
            notes: Vec::new(),
            present: None,
            declared: volume.rules.persisted().len(),
            generations: None,
        };
        check.problems.extend(volume::boots_another(&volume, line));
        check.or_problem("", |check| check.plan(&volume, line.root_subvolid()));
        check.or_problem("the generations cannot be read: ", |check| check.store(&volume, fstab));
        check.or_problem("", |check| {
            check.notes.extend(volume::other_mount(&volume)?);
            Ok(())
        });
        check.problems.extend(fstab::by_number(&volume, fstab));
        check
    }

    /// Takes a failure to look for a problem: the next boot would fail in the same way.
    fn or_problem(&mut self, what: &str, look: impl FnOnce(&mut Self) -> anyhow::Result<()>) {
        if let Err(error) = look(self) {
            let error = format!("{error:#}");
            // Whatever is missing is missing for all. Some say more of it; the remedy, after the
            // semicolon, is in the words of whoever looks.
            let problem = |told: &str| told.split_once(';').map_or(told, |(it, _)| it).to_owned();
            let same = |known: &String| {
                known.contains(&problem(&error)) || error.contains(&problem(known))
            };
            if !self.problems.iter().any(same) {
                self.problems.push(format!("{what}{error}"));
            }
        }
    }

    fn plan(&mut self, volume: &config::Volume, root_subvolid: Option<u64>) -> anyhow::Result<()> {
        let options = Options { dry_run: true, threads: 1, asked: Asked::Reset, root_subvolid };
        let mut opened = volume::open(volume, options)?;
        let plan = opened.plan();
        let closed = opened.close();
        match (plan, closed) {
            (Ok(plan), closed) => {
                self.take(&plan);
                self.ready = closed.is_ok();
                closed
            }
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(close)) => Err(error.context(format!("and then: {close:#}"))),
        }
    }

    fn take(&mut self, plan: &VolumePlan) {
        self.volume = Some(plan.volume.clone());
        self.declared = plan.paths.len();
        self.present = Some(plan.paths.iter().filter(|path| is_there(&path.state)).count());
        let unreachable: Vec<String> = plan
            .paths
            .iter()
            .filter_map(|path| volume::unreachable(&plan.mount_point, path))
            .collect();
        let others = plan.warnings.iter().filter(|warning| !unreachable.contains(warning));
        self.notes.extend(others.cloned());
        self.problems.extend(unreachable);
        if plan.resumes {
            self.notes.push(format!(
                "reset {} was interrupted; the next boot completes it",
                plan.generation
            ));
        }
        for path in &plan.put_away {
            let path = shown(path);
            self.notes.push(format!("{path} is no longer persisted: it moves to the attic"));
        }
        for path in &plan.returned {
            self.notes.push(format!("{} comes back from the attic", shown(path)));
        }
        for subvolume in &plan.leaving {
            let subvolume = shown(subvolume);
            self.notes.push(format!(
                "{subvolume} is a subvolume below no persisted path: it goes with the generation"
            ));
        }
    }

    fn store(&mut self, volume: &config::Volume, fstab: &str) -> anyhow::Result<()> {
        let mut store = volume::store(volume, Access::ReadOnly)?;
        let looked = self.look_at_generations(store.as_mut());
        if looked.is_ok() {
            self.or_problem("", |check| check.look_at(store.as_mut(), volume, fstab));
        }
        match (looked, store.close()) {
            (Ok(()), closed) => closed,
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(close)) => Err(error.context(format!("and then: {close:#}"))),
        }
    }

    fn look_at_generations(&mut self, store: &mut dyn Store) -> anyhow::Result<()> {
        let seen = store.look(Detail::Retention)?;
        self.generations = Some(seen.generations.len());
        for generation in &seen.generations {
            if let Err(error) = read(store, generation) {
                self.problems.push(format!("{} cannot be read: {error:#}", generation.name));
            }
        }
        for other in &seen.others {
            self.notes.push(format!("{} is none of the generations: {}", other.name, other.why));
        }
        Ok(())
    }

    fn look_at(
        &mut self,
        store: &mut dyn Store,
        volume: &config::Volume,
        fstab: &str,
    ) -> anyhow::Result<()> {
        if let (Backing::Zfs(zfs), Strategy::Rollback) = (&volume.backing, volume.strategy)
            && let Some(why) = volume::zfs_clones_no_blocks(zfs)?
        {
            self.notes.push(format!("{why}: a rollback copies what is kept"));
        }
        let live = store.live()?;
        let live = &live;
        if !self.ready {
            // The plan would have said so, and something else is in its way.
            self.present = Some(present(&volume.rules, live)?);
        }
        let manifest = state::manifest_or_warn(live);
        self.notes.extend(drift::note(volume, manifest.as_ref()));
        self.problems.extend(fstab::nested(volume, fstab, live)?);
        if let Backing::Zfs(zfs) = &volume.backing
            && self.generations != Some(0)
        {
            self.notes.push(format!(
                "every user can read what was erased, and run old setuid files, in {}, also with \
                 snapdir=hidden; since OpenZFS 2.3 `zfs set snapdir=disabled {}` keeps them out, and \
                 zfs_snapshot_no_setuid=1, a parameter of the module, makes such mounts nosuid",
                shown(&volume.mount_point.join(".zfs/snapshot")),
                zfs.dataset
            ));
        }
        let blank = store.blank()?;
        let blank = blank.as_ref();
        if self.ready {
            self.notes.extend(volume::vanishing(volume, live, blank)?);
        }
        self.places(volume, live, blank)
    }
}

/// How many persisted paths are there in the live volume.
fn present(rules: &Rules, live: &Dir) -> anyhow::Result<usize> {
    let persisted = rules.persisted();
    let mut states = persisted.iter().map(|persisted| state_at(live, &persisted.path));
    states.try_fold(0, |count, state| Ok(count + usize::from(is_there(&state?))))
}

fn is_there(state: &State) -> bool {
    matches!(state, State::Present { .. })
}

/// Whether somebody could get something back from it.
fn read(store: &mut dyn Store, generation: &Generation) -> anyhow::Result<()> {
    let tree = store.tree(generation)?;
    if store.holds_persisted() {
        state::manifest(&tree)?;
    } else {
        store.manifest(generation)?;
    }
    Ok(())
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(error) = &self.error {
            writeln!(f, "{error}")?;
            if self.volumes.is_empty() {
                return Ok(());
            }
        }
        for volume in &self.volumes {
            let mount_point = shown(&volume.mount_point);
            match &volume.volume {
                Some(words) => write!(f, "{mount_point}: {words}")?,
                None => write!(f, "{mount_point}")?,
            }
            match (volume.present, volume.declared) {
                (Some(present), all) => write!(f, ": {present} of {all} persisted paths exist")?,
                (None, all) => {
                    write!(f, ": cannot tell how many of {all} persisted paths exist")?;
                }
            }
            match volume.generations {
                None => writeln!(f)?,
                Some(1) => writeln!(f, ", 1 generation")?,
                Some(more) => writeln!(f, ", {more} generations")?,
            }
            for problem in &volume.problems {
                writeln!(f, "  problem: {problem}")?;
            }
            for note in &volume.notes {
                writeln!(f, "  note: {note}")?;
            }
        }
        let problems = match self.problems() {
            0 => return writeln!(f, "ready: the next reset would succeed"),
            1 => "1 problem".to_owned(),
            more => format!("{more} problems"),
        };
        if self.ready {
            writeln!(f, "{problems}: the next reset would run, but look at what is named above")
        } else {
            writeln!(f, "{problems}: the next boot would reset nothing")
        }
    }
}
