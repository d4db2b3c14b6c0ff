//! The generations of a ZFS dataset: snapshots `DATASET@darlings-7`.
//!
//! A name alone does not make one: the user property `darlings:generation`, set on the snapshot
//! itself when it was taken, must say the same number.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use darlings_zfs as fs;
use rustix::mount::mount_bind;
use tracing::warn;

use super::mounted::{root, unmount};
use super::names::{MARK, OURS, blank_name, pool_of};
use crate::config;
use crate::fs::Dir;
use crate::generations::{CountedBy, Detail, Generation, Other, Seen, Size, Space, Store};
use crate::keep::carry;
use crate::own::state;
use crate::text::exact_number;
use crate::volume::mounts::{self, Mount};

/// The user property of a snapshot that says that this tool took it as a generation; its value is
/// the number.
const GENERATION: &str = "darlings:generation";

/// ZFS frees in the background, and says only what is free: when that has not changed for so
/// long, nothing more comes.
const QUIET: Duration = Duration::from_secs(3);

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// The generations of a ZFS dataset.
pub(in crate::volume) struct Generations {
    library: fs::Zfs,
    dataset: String,
    /// The full name of the blank snapshot.
    blank: Option<String>,
    live: Option<Mount>,
    /// Snapshots that were looked into.
    snapshots: Vec<Mount>,
    /// How many holds there are on each snapshot, by its full name, as last seen.
    holds: BTreeMap<String, u64>,
    /// Whether something was destroyed that may not be free yet.
    destroyed: bool,
}

impl Generations {
    pub(in crate::volume) fn open(source: &config::Zfs) -> anyhow::Result<Self> {
        let dataset = source.dataset.clone();
        let library = fs::Zfs::open()?;
        ensure!(
            library.exists(&dataset)?,
            "there is no dataset {dataset}; correct the configuration, or import the pool that has it"
        );
        Ok(Self {
            library,
            live: Some(live(&dataset, fs::Access::ReadWrite)?),
            dataset,
            blank: blank_name(source),
            snapshots: Vec::new(),
            holds: BTreeMap::new(),
            destroyed: false,
        })
    }

    /// Mounts a snapshot until everything is closed.
    fn look_into(&mut self, snapshot: &str) -> anyhow::Result<Dir> {
        let mount =
            Mount::new("snapshot", |target| fs::mount(snapshot, target, fs::Access::ReadOnly))
                .with_context(|| format!("cannot mount {snapshot}"))?;
        let root = Dir::root(&*mount)?;
        self.snapshots.push(mount);
        Ok(root)
    }

    fn generation(
        &self,
        snapshot: &fs::Snapshot,
        detail: Detail,
    ) -> anyhow::Result<Result<Generation, &'static str>> {
        let Some(number) = snapshot.name.strip_prefix(OURS).and_then(exact_number) else {
            return Ok(Err("its name does not end in the number of a reset"));
        };
        let name = format!("{}@{}", self.dataset, snapshot.name);
        if !is_marked(&self.library, &name, number)? {
            return Ok(Err("it lacks the property darlings:generation with its number"));
        }
        // The reset that took the snapshot is the one that made the generation end.
        let ended = Some(self.library.number(&name, "creation")?);
        let boot = if detail == Detail::All { boot_of(&name) } else { None };
        let size = Some(Size {
            counted_by: CountedBy::Zfs,
            referenced_bytes: snapshot.referenced,
            exclusive_bytes: snapshot.used,
        });
        Ok(Ok(Generation { number, name, ended, boot, size }))
    }
}

/// Whether this tool took the snapshot as the generation with this number.
fn is_marked(library: &fs::Zfs, name: &str, number: u64) -> anyhow::Result<bool> {
    Ok(match library.property(name, GENERATION)? {
        Some(fs::Property { value, source: fs::Source::Local }) => match value {
            fs::Value::Text(text) => exact_number(&text) == Some(number),
            fs::Value::Number(value) => value == number,
        },
        _ => false,
    })
}

/// The numbers of the generations of a dataset, of these snapshots of it.
pub(super) fn numbers(
    library: &fs::Zfs,
    dataset: &str,
    snapshots: &[fs::Snapshot],
) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for snapshot in snapshots {
        let Some(number) = snapshot.name.strip_prefix(OURS).and_then(exact_number) else {
            continue;
        };
        if is_marked(library, &format!("{dataset}@{}", snapshot.name), number)? {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// The root of the dataset. In the running system it is mounted, perhaps with others on top.
pub(super) fn live(dataset: &str, access: fs::Access) -> anyhow::Result<Mount> {
    let mounted = mounts::all()?.into_iter().find(|mount| {
        mount.kind == "zfs" && mount.source == dataset && mount.root == Path::new("/")
    });
    match mounted {
        Some(mounted) => {
            let from = &mounted.mount_point;
            Mount::new("live", |target| mount_bind(from, target))
                .with_context(|| format!("cannot look below what is mounted on {from:?}"))
        }
        None => Mount::new("live", |target| fs::mount(dataset, target, access))
            .with_context(|| format!("cannot mount {dataset}")),
    }
}

/// The boot that a snapshot's own manifest names. What cannot be read is told and left out: the
/// list is of use without it.
fn boot_of(snapshot: &str) -> Option<String> {
    let read = || -> anyhow::Result<Option<String>> {
        let mount =
            Mount::new("generation", |target| fs::mount(snapshot, target, fs::Access::ReadOnly))?;
        let manifest = state::manifest(&mount);
        mount.close(fs::unmount)?;
        Ok(manifest?.and_then(|manifest| manifest.boot))
    };
    read().unwrap_or_else(|error| {
        warn!("cannot find out which boot {snapshot} ended: {error:#}");
        None
    })
}

impl Store for Generations {
    fn lock(&mut self) -> anyhow::Result<()> {
        // The caller's lock on `.darlings` keeps other purges away; what is mounted is not reset.
        Ok(())
    }

    fn unfinished(&self) -> anyhow::Result<Option<String>> {
        let property = self.library.property(&self.dataset, MARK)?;
        let marked = property.is_some_and(|property| property.source == fs::Source::Local);
        if marked {
            return Ok(Some(format!("{} has the property {MARK}", self.dataset)));
        }
        carry::unfinished(&self.live()?)
    }

    fn look(&mut self, detail: Detail) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        self.holds.clear();
        // The blank, and what other tools snapshot, is none of our business.
        let mut snapshots = self.library.snapshots(&self.dataset)?;
        snapshots.retain(|snapshot| snapshot.name.starts_with(OURS));
        for snapshot in snapshots {
            let name = format!("{}@{}", self.dataset, snapshot.name);
            match self.generation(&snapshot, detail)? {
                Ok(generation) => seen.generations.push(generation),
                Err(why) => seen.others.push(Other { name: name.clone(), why: why.to_owned() }),
            }
            self.holds.insert(name, snapshot.userrefs);
        }
        seen.generations.sort_by_key(|generation| generation.number);
        Ok(seen)
    }

    fn remove(&mut self, generation: &Generation) -> anyhow::Result<()> {
        let name = &generation.name;
        let holds = self.holds.get(name).copied().unwrap_or(0);
        ensure!(
            holds == 0,
            "there is a hold on it; `zfs holds {name}` names it and `zfs release` lifts it"
        );
        self.destroyed = true;
        Ok(self.library.destroy(name)?)
    }

    fn live(&self) -> anyhow::Result<Dir> {
        Dir::root(root(self.live.as_ref())?)
    }

    fn tree(&mut self, generation: &Generation) -> anyhow::Result<Dir> {
        self.look_into(&generation.name)
    }

    fn blank(&mut self) -> anyhow::Result<Option<Dir>> {
        let Some(blank) = self.blank.clone() else { return Ok(None) };
        // As a reset says it, and `check` says what is the same once.
        ensure!(self.library.exists(&blank)?, "the blank snapshot {blank} is missing");
        self.look_into(&blank).map(Some)
    }

    fn remove_nested(&mut self, _: &Path) -> anyhow::Result<()> {
        // Datasets below this one are mounted into it and hold nothing of it.
        Ok(())
    }

    fn space(&self) -> anyhow::Result<Space> {
        let pool = pool_of(&self.dataset);
        let all = self.library.available(pool)?.saturating_add(self.library.number(pool, "used")?);
        Ok(Space { available: self.library.available(&self.dataset)?, total: all })
    }

    fn settle(&mut self, enough: u64, waiting: &mut dyn FnMut()) -> anyhow::Result<()> {
        let pool = pool_of(&self.dataset);
        let mut last = (0, Instant::now());
        while self.destroyed {
            self.library.sync_pool(pool)?;
            let available = self.library.available(&self.dataset)?;
            if available >= enough || (available == last.0 && last.1.elapsed() >= QUIET) {
                self.destroyed = false;
                return Ok(());
            }
            if available != last.0 {
                last = (available, Instant::now());
            }
            waiting();
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn close(&mut self) -> anyhow::Result<()> {
        let snapshots = self.snapshots.drain(..).map(|mount| mount.close(fs::unmount));
        let live = unmount(&mut self.live);
        mounts::all_done(snapshots.chain([live]))
    }
}
