//! What was: the generations of every volume with what ended each, and the versions of one path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::ask::lookup::{self, Found, Place, Volumes};
use crate::fs::Dir;
use crate::fs::reserved::Reserved;
use crate::generations::listing::Listing;
use crate::generations::{Access, Detail, Generation, Store};
use crate::own::state::{self, Manifest};
use crate::rules::{Rules, Verdict};
use crate::text::shown_path;
use crate::tree::{Difference, Side, differences};

mod text;

pub use text::{generations, numbers};

/// All generations, with what ended them.
#[derive(Debug, Serialize)]
pub struct History {
    /// Format; a new field does not change it.
    pub version: u32,
    /// The volumes, in the order of the configuration.
    pub volumes: Vec<VolumeHistory>,
}

/// The generations of one volume.
#[derive(Debug, Serialize)]
pub struct VolumeHistory {
    /// Where the running system mounts it.
    #[serde(serialize_with = "shown_path")]
    pub mount_point: PathBuf,
    /// Why there is nothing more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The generations, oldest first.
    pub generations: Vec<Told>,
}

/// A generation, and what ended it.
#[derive(Debug, Serialize)]
pub struct Told {
    /// The generation.
    #[serde(flatten)]
    pub generation: Generation,
    /// What ended it; `None` where nobody wrote that down.
    pub ended_by: Option<EndedBy>,
}

/// What ended a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum EndedBy {
    /// A reset.
    Reset,
    /// A restore.
    Restore {
        /// The generation that was restored.
        of: u64,
    },
    /// Nothing: it was copied, and what was live went on.
    Snapshot,
}

impl EndedBy {
    fn of(manifest: &Manifest) -> Self {
        match manifest.restored {
            Some(of) => Self::Restore { of },
            None if manifest.snapshot => Self::Snapshot,
            None => Self::Reset,
        }
    }
}

impl History {
    /// Looks at every volume.
    #[must_use]
    pub fn of(volumes: &mut Volumes<'_>) -> Self {
        let config = volumes.config();
        let listing = Listing::of(config);
        let each = listing.volumes.into_iter().enumerate().map(|(index, listed)| {
            let told = |generation, ended_by| Told { generation, ended_by };
            let mut history = VolumeHistory {
                mount_point: listed.mount_point,
                error: listed.error,
                generations: Vec::new(),
            };
            let mut run = || -> anyhow::Result<BTreeMap<u64, Manifest>> {
                let store = volumes.store(index)?;
                let live = store.live()?;
                manifests(store, &live, &listed.generations)
            };
            let manifests = if history.error.is_none() { run() } else { Ok(BTreeMap::new()) };
            let manifests = manifests.unwrap_or_else(|error| {
                history.error = Some(format!("{error:#}"));
                BTreeMap::new()
            });
            history.generations = listed
                .generations
                .into_iter()
                .map(|it| {
                    let ended_by = manifests.get(&it.number).map(EndedBy::of);
                    told(it, ended_by)
                })
                .collect();
            history
        });
        let volumes = each.collect();
        Self { version: 1, volumes }
    }

    /// Whether every volume could be looked at.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.volumes.iter().all(|volume| volume.error.is_none())
    }
}

/// What runs wrote down, by their numbers: each run's is in the tree that it made.
fn manifests(
    store: &mut dyn Store,
    live: &Dir,
    generations: &[Generation],
) -> anyhow::Result<BTreeMap<u64, Manifest>> {
    let mut found = BTreeMap::new();
    for manifest in generations.iter().rev().map(|it| store.manifest(it)) {
        if let Some(manifest) = manifest? {
            found.entry(manifest.generation).or_insert(manifest);
        }
    }
    if let Some(manifest) = state::manifest_or_warn(live) {
        found.insert(manifest.generation, manifest);
    }
    Ok(found)
}

/// The versions of one path.
#[derive(Debug, Serialize)]
pub struct PathHistory {
    /// Format; a new field does not change it.
    pub version: u32,
    /// The path, absolute and normal.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// Where its volume is mounted.
    #[serde(serialize_with = "shown_path")]
    pub mount_point: PathBuf,
    /// The versions, the newest first: what is live, then each generation in which it differs from
    /// the next newer one.
    pub versions: Vec<Version>,
    /// Generations that do not hold the path because it was kept: those of a plain directory.
    pub not_held: Vec<u64>,
    /// The subvolume or filesystem nested in the volume that holds the path. Generations lack it.
    #[serde(serialize_with = "crate::text::shown_path_if_any")]
    pub nested_in: Option<PathBuf>,
    /// When each generation ended.
    #[serde(skip)]
    pub ended: BTreeMap<u64, u64>,
}

/// A version of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The generation; `None` for what is live.
    pub generation: Option<u64>,
    /// When that ended, in seconds since 1970.
    pub ended: Option<u64>,
    /// What was at the path.
    #[serde(flatten)]
    pub found: Found,
    /// What differs from the next newer version.
    pub differs: Vec<Difference>,
    /// Older generations that have the same, the newest first.
    pub same_in: Vec<u64>,
}

impl PathHistory {
    /// Whether the path is anywhere.
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        self.versions.iter().any(|version| version.found.entry().is_some())
    }
}

/// Looks for the versions of `path`, which lies at `place`.
pub fn of_path(
    volumes: &mut Volumes<'_>,
    path: &Path,
    place: &Place,
) -> anyhow::Result<PathHistory> {
    let mount_point = volumes.config().volumes[place.volume].mount_point.clone();
    let store = volumes.store(place.volume)?;
    let mut look = Look::begin(store, &place.below)?;
    for generation in look.generations.clone().iter().rev() {
        let number = generation.number;
        look.step(store, generation).with_context(|| format!("generation {number}"))?;
    }
    let Look { versions, not_held, live, generations, .. } = look;
    let ended = generations.iter().filter_map(|it| Some((it.number, it.ended?))).collect();
    let nested_in = lookup::nested_around(&live, &place.below)?;
    let nested_in = nested_in.map(|below| mount_point.join(below));
    Ok(PathHistory {
        version: 1,
        path: path.to_owned(),
        mount_point,
        versions,
        not_held,
        nested_in,
        ended,
    })
}

/// A tree that the next older one is compared with.
struct Tree {
    root: Dir,
    /// What was kept when the tree ended, where that is not in it.
    kept: Option<Rules>,
}

struct Look<'p> {
    path: &'p Path,
    live: Dir,
    reserved: Reserved,
    generations: Vec<Generation>,
    /// What each reset kept; only where generations lack that.
    manifests: Option<BTreeMap<u64, Manifest>>,
    newer: Tree,
    versions: Vec<Version>,
    not_held: Vec<u64>,
}

impl<'p> Look<'p> {
    fn begin(store: &mut dyn Store, path: &'p Path) -> anyhow::Result<Self> {
        let (live, root) = (store.live()?, store.live()?);
        let reserved = Reserved::of(&live).context("cannot look at the root")?;
        let generations = store.look(Detail::Retention)?.generations;
        let manifests = if store.holds_persisted() {
            None
        } else {
            Some(manifests(store, &live, &generations)?)
        };
        let found = lookup::find(&live, path)?;
        let now =
            Version { generation: None, ended: None, found, differs: vec![], same_in: vec![] };
        Ok(Self {
            path,
            live,
            reserved,
            generations,
            manifests,
            newer: Tree { root, kept: None },
            versions: vec![now],
            not_held: Vec::new(),
        })
    }

    fn step(&mut self, store: &mut dyn Store, generation: &Generation) -> anyhow::Result<()> {
        let kept = self.kept_by(generation.number);
        if kept.as_ref().is_some_and(|kept| kept.verdict(self.path) == Verdict::Persisted) {
            self.not_held.push(generation.number);
            return Ok(());
        }
        let older = Tree { root: store.tree(generation)?, kept };
        let found = lookup::find(&older.root, self.path)?;
        let newer = self.versions.last_mut().context("BUG: there is no newer version")?;
        let differs = match (newer.found.entry(), found.entry()) {
            (Some(_), Some(_)) => compare(self.path, self.reserved, &self.newer, &older)?,
            (None, None) if newer.found == found => Vec::new(),
            _ => vec![Difference::Presence],
        };
        if differs.is_empty() {
            newer.same_in.push(generation.number);
        } else {
            let (generation, ended) = (Some(generation.number), generation.ended);
            self.versions.push(Version { generation, ended, found, differs, same_in: vec![] });
        }
        self.newer = older;
        Ok(())
    }

    /// What the reset kept that ended a generation which lacks it.
    fn kept_by(&self, number: u64) -> Option<Rules> {
        let manifest = self.manifests.as_ref().and_then(|manifests| manifests.get(&number));
        let manifest = manifest?;
        Some(Rules::from_lists(&manifest.persisted, &manifest.excluded))
    }
}

fn compare(
    path: &Path,
    reserved: Reserved,
    newer: &Tree,
    older: &Tree,
) -> anyhow::Result<Vec<Difference>> {
    let skip = |below: &Path| {
        let own = path.as_os_str().is_empty()
            && below.parent() == Some(Path::new(""))
            && below.file_name().is_some_and(|name| reserved.holds(name));
        let kept = [&newer.kept, &older.kept].into_iter().flatten();
        own || kept.into_iter().any(|kept| kept.verdict(&path.join(below)) == Verdict::Persisted)
    };
    let (newer, older) = (&newer.root, &older.root);
    differences(Side { root: newer, path }, Side { root: older, path }, &skip)
}

/// Whether what is at `path` in one tree of a volume differs from what is there in another.
pub(crate) fn differ(path: &Path, live: &Dir, other: &Dir) -> anyhow::Result<bool> {
    let reserved = Reserved::of(live).context("cannot look at the root")?;
    let tree =
        |root: &Dir| -> anyhow::Result<Tree> { Ok(Tree { root: Dir::root(root)?, kept: None }) };
    Ok(!compare(path, reserved, &tree(live)?, &tree(other)?)?.is_empty())
}

/// Opens the volumes only to look.
#[must_use]
pub fn read_only(config: &crate::config::Config) -> Volumes<'_> {
    Volumes::new(config, Access::ReadOnly)
}
