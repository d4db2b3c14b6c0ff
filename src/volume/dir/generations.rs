//! The generations of a plain directory: what resets moved aside, in `.darlings/generations/N`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing::warn;

use crate::config;
use crate::fs::Dir;
use crate::generations::{Detail, Generation, Other, Seen, Space, Store, removing, removing_name};
use crate::keep::carry::{self, ASIDE_ROOT, GENERATIONS, manifest_of};
use crate::own::Own;
use crate::own::state;
use crate::rules::OWN_DIRECTORY;
use crate::text::exact_number;
use crate::tree::{self};

/// The generations of a plain directory.
pub(in crate::volume) struct Generations {
    path: PathBuf,
    root: Dir,
    /// Where the blank is, here and now.
    blank: Option<PathBuf>,
}

impl Generations {
    /// In the initrd the volume is where the configuration says, in the running system at its
    /// mount point.
    pub(in crate::volume) fn open(
        volume: &config::Volume,
        source: &config::PlainDirectory,
    ) -> anyhow::Result<Self> {
        let path = &source.path;
        let there = path
            .join(OWN_DIRECTORY)
            .try_exists()
            .with_context(|| format!("cannot look at {path:?}"))?;
        let path = if there { path.clone() } else { volume.mount_point.clone() };
        let blank = source.blank.as_ref().map(|blank| {
            // A blank in the volume's own filesystem goes where the volume goes.
            let inside = blank.strip_prefix(&source.path);
            inside.map_or_else(|_| blank.clone(), |inside| path.join(inside))
        });
        Ok(Self { root: Dir::open_root(&path)?, path, blank })
    }

    fn home(&self) -> anyhow::Result<Option<Dir>> {
        Own::open(&self.root)?.map_or(Ok(None), |own| own.open_dir_optional(GENERATIONS))
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(OWN_DIRECTORY).join(GENERATIONS).join(name).display().to_string()
    }
}

impl Store for Generations {
    fn lock(&mut self) -> anyhow::Result<()> {
        // The caller's lock on `.darlings` keeps other runs away, resets too. The root is `/`, which
        // anybody can open and lock.
        Ok(())
    }

    fn unfinished(&self) -> anyhow::Result<Option<String>> {
        carry::unfinished(&self.root)
    }

    fn look(&mut self, _: Detail) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let Some(home) = self.home()? else { return Ok(seen) };
        // A manifest says when the reset was that made its tree, and so when the one before ended.
        let mut times = BTreeMap::new();
        let mut note = |manifest: &state::Manifest| {
            if let Some(time) = manifest.time {
                times.entry(manifest.generation).or_insert(time);
            }
        };
        state::manifest_or_warn(&self.root).iter().for_each(&mut note);
        for name in home.names()? {
            let name = name.to_string_lossy();
            if let Some(number) = removing(&name) {
                let name = self.shown(&number.to_string());
                seen.begun.push(Generation { number, name, ended: None, boot: None, size: None });
                continue;
            }
            let Some(number) = exact_number(&name) else {
                let why = "its name is not the number of a reset".to_owned();
                seen.others.push(Other { name: self.shown(&name), why });
                continue;
            };
            let manifest = manifest_of(&home, number).unwrap_or_else(|error| {
                // One that nobody can read must not keep the others from being listed and removed.
                warn!("{}: {error:#}", self.shown(&name));
                None
            });
            manifest.iter().for_each(&mut note);
            let boot = manifest.and_then(|manifest| manifest.boot);
            let name = self.shown(&name);
            seen.generations.push(Generation { number, name, ended: None, boot, size: None });
        }
        seen.generations.sort_by_key(|generation| generation.number);
        for generation in &mut seen.generations {
            generation.ended = times.get(&generation.number).copied();
        }
        Ok(seen)
    }

    fn remove(&mut self, generation: &Generation) -> anyhow::Result<()> {
        let home = self.home()?.context("the generations are gone")?;
        let number = generation.number;
        let name = tree::doom(&home, number.to_string(), removing_name(number))?;
        tree::remove(&home, name).map(drop)
    }

    fn live(&self) -> anyhow::Result<Dir> {
        Dir::root(&self.root)
    }

    fn tree(&mut self, generation: &Generation) -> anyhow::Result<Dir> {
        let home = self.home()?.context("the generations are gone")?;
        let root = Path::new(&generation.number.to_string()).join(ASIDE_ROOT);
        home.open_dir(&root)
    }

    fn manifest(&mut self, generation: &Generation) -> anyhow::Result<Option<state::Manifest>> {
        let home = self.home()?.context("the generations are gone")?;
        manifest_of(&home, generation.number)
    }

    fn holds_persisted(&self) -> bool {
        false
    }

    fn blank(&mut self) -> anyhow::Result<Option<Dir>> {
        self.blank.as_deref().map(Dir::open_root).transpose()
    }

    fn remove_nested(&mut self, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn space(&self) -> anyhow::Result<Space> {
        Space::on(&self.root)
    }

    fn settle(&mut self, _: u64, _: &mut dyn FnMut()) -> anyhow::Result<()> {
        self.root.sync_filesystem()
    }

    fn close(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
