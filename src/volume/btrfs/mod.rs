//! btrfs: the result is made in a subvolume that nobody uses yet, then exchanged with the
//! live one, atomically.
//!
//! ```text
//! @            the live subvolume
//! @blank       the blank, read-only
//! @darlings/root/
//!     next     a result that is being made: worth nothing, removed by the next run
//!     ready-7  a complete, durable result; after the exchange the previous state
//!     7        the previous state of reset 7: a generation, read-only
//! ```
//!
//! After a crash the next run finds `ready-7`. If the live subvolume says that its last reset
//! was 7, the exchange has happened and what is left is done; else it is removed with `next`.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use darlings_btrfs as fs;
use rustix::fs::{FlockOperation, flock};

use super::mounts::{self, Mount};
use super::{Options, Standing, Volume};
use crate::config;
use crate::plan::{Step, VolumePlan};
use crate::restore::{self, Outcome, at, survey};
use crate::state;

mod execute;
mod journal;
mod plan;

use journal::Journal;
pub(super) use plan::unreachable;
use plan::{Facts, moving, ready_name, rollback};

/// A btrfs subvolume that is reset.
pub(super) struct Btrfs {
    volume: config::Volume,
    source: config::Btrfs,
    options: Options,
    /// The top level of the filesystem; taken when it is closed.
    top: Option<Mount>,
    work: execute::Work,
    standing: Standing,
}

/// A subvolume by the directory that holds it.
struct Named {
    parent: OwnedFd,
    name: OsString,
}

impl Btrfs {
    pub(super) fn open(
        volume: &config::Volume,
        source: &config::Btrfs,
        options: Options,
    ) -> anyhow::Result<Self> {
        let access = if options.dry_run { fs::Access::ReadOnly } else { fs::Access::Writable };
        let top = Mount::new("btrfs", |target| fs::mount_top_level(&source.device, target, access))
            .with_context(|| format!("cannot open the btrfs filesystem on {:?}", source.device))?;
        Ok(Self {
            volume: volume.clone(),
            source: source.clone(),
            options,
            top: Some(top),
            work: execute::Work::default(),
            standing: Standing::Previous,
        })
    }

    fn top(&self) -> anyhow::Result<BorrowedFd<'_>> {
        self.top.as_ref().map(AsFd::as_fd).context("BUG: the volume is used after it was closed")
    }

    /// Opens a subvolume by its path from the top level.
    fn open_subvolume(&self, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
        let found = at::directory_beneath(self.top()?, path)
            .with_context(|| format!("cannot open the subvolume {path:?}"))?;
        let Some(found) = found else { return Ok(None) };
        let status = at::status_of(found.as_fd()).context("cannot read its attributes")?;
        ensure!(
            fs::entry_kind(status.stx_ino) == fs::EntryKind::SubvolumeRoot,
            "{path:?} on {:?} is a directory and no subvolume; give the path of a subvolume",
            self.source.device
        );
        Ok(Some(found))
    }

    fn live(&self) -> anyhow::Result<OwnedFd> {
        match self.open_subvolume(&self.source.subvolume)? {
            Some(live) => Ok(live),
            None => bail!(
                "there is no subvolume {:?} on {:?}; {}",
                self.source.subvolume,
                self.source.device,
                self.subvolumes_in_words()?
            ),
        }
    }

    fn blank(&self) -> anyhow::Result<Option<OwnedFd>> {
        let Some(path) = &self.source.blank else { return Ok(None) };
        match self.open_subvolume(path)? {
            Some(blank) => Ok(Some(blank)),
            None => bail!(
                "the blank subvolume {path:?} is missing on {:?}; {}. Make one with `btrfs \
                 subvolume snapshot -r`, or write blank = \"empty\"",
                self.source.device,
                self.subvolumes_in_words()?
            ),
        }
    }

    fn subvolumes_in_words(&self) -> anyhow::Result<String> {
        let all = fs::nested_subvolumes(self.top()?)?;
        let own = &self.source.generations;
        let names: Vec<String> = all
            .iter()
            .filter(|subvolume| !subvolume.path.starts_with(own))
            .take(12)
            .map(|subvolume| format!("{:?}", subvolume.path))
            .collect();
        Ok(format!("there are {}", if names.is_empty() { "none".into() } else { names.join(", ") }))
    }

    fn named(&self, path: &Path) -> anyhow::Result<Named> {
        let (parent, name) = at::split(path).context("BUG: a subvolume without a name")?;
        let opened = at::open_beneath(self.top()?, parent)
            .with_context(|| format!("cannot open {parent:?}"))?;
        Ok(Named { parent: opened, name: name.to_owned() })
    }

    /// The directory of the generations, if it was made before.
    fn home(&self) -> anyhow::Result<Option<OwnedFd>> {
        at::directory_beneath(self.top()?, &self.source.generations)
            .with_context(|| format!("cannot open {:?}", self.source.generations))
    }

    fn look(&mut self) -> anyhow::Result<Facts> {
        let live = self.live()?;
        let blank = self.blank()?;
        let home = self.home()?;
        if let Some(home) = &home {
            self.lock(home)?;
        }
        self.check_not_mounted()?;
        let live_id = fs::subvolume_id(&live)?;
        self.check_not_mounted_by_id(live_id)?;
        let mut facts = Facts {
            live_generation: state::generation(live.as_fd())?,
            generations: home.as_ref().map(names_in).transpose()?.unwrap_or_default(),
            ..Facts::default()
        };
        let previous = match (facts.interrupted(), &home) {
            (Some(number), Some(home)) => {
                facts.journal = Journal::read(live.as_fd())?;
                let name = at::c_name(ready_name(number).as_ref())?;
                at::open_directory(home.as_fd(), &name)
                    .with_context(|| format!("cannot open {name:?}"))?
            }
            _ => live,
        };
        facts.nested =
            fs::nested_subvolumes(&previous)?.into_iter().map(|nested| nested.path).collect();
        facts.is_default = fs::default_subvolume(self.top()?)? == fs::subvolume_id(&previous)?;
        facts.paths =
            survey(&self.volume.rules, previous.as_fd(), blank.as_ref().map(AsFd::as_fd))?;
        let root = blank.as_ref().unwrap_or(&previous);
        facts.root_is_sealed = !restore::seals_of(root.as_fd())?.is_empty();
        if let Some(blank) = &blank {
            facts.blank_is_writable = !fs::is_read_only(blank)?;
        }
        self.work.hold(home);
        Ok(facts)
    }

    /// One run at a time; the lock goes with the process.
    fn lock(&self, home: &OwnedFd) -> anyhow::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        flock(home, FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!("another run is at work in {:?}; wait for it", self.source.generations)
        })
    }

    fn check_not_mounted(&self) -> anyhow::Result<()> {
        let top = self.top.as_ref().context("BUG: the volume is used after it was closed")?;
        let device = top.device()?;
        let live = Path::new("/").join(&self.source.subvolume);
        let mounted = mounts::all()?.into_iter().find(|mount| {
            mount.device == device && !top.is(mount) && mount.root.starts_with(&live)
        });
        match mounted {
            Some(mount) if !self.options.dry_run => bail!(
                "the subvolume {:?} is mounted at {:?}; a volume is reset before it is mounted: \
                 unmount it, or reboot",
                self.source.subvolume,
                mount.mount_point
            ),
            _ => Ok(()),
        }
    }

    /// A root that is mounted by number goes on to be the old tree, whatever has its name.
    fn check_not_mounted_by_id(&self, id: u64) -> anyhow::Result<()> {
        if self.volume.mount_point != Path::new("/") {
            return Ok(());
        }
        let path = "/proc/cmdline";
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let number = id.to_string();
        let by_id = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("rootflags="))
            .flat_map(|flags| flags.split(','))
            .any(|flag| flag.strip_prefix("subvolid=") == Some(&number));
        ensure!(
            !by_id,
            "the kernel command line mounts the root by subvolid={id}, which would go on to be \
             the old tree after the exchange; write rootflags=subvol={}",
            self.source.subvolume.display()
        );
        Ok(())
    }
}

fn names_in(directory: &OwnedFd) -> anyhow::Result<Vec<String>> {
    let mut buffer = vec![MaybeUninit::uninit(); at::BATCH];
    let mut names = Vec::new();
    loop {
        let batch = at::next_batch(directory.as_fd(), &mut buffer)
            .context("cannot read the generations directory")?;
        if batch.is_empty() {
            names.sort();
            return Ok(names);
        }
        names.extend(batch.iter().map(|entry| entry.name.to_string_lossy().into_owned()));
    }
}

impl Volume for Btrfs {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let facts = self.look()?;
        let plan = rollback(&self.volume, &self.source, &facts);
        if plan.resumes {
            self.standing = Standing::Unfinished;
        }
        self.work.begin(&plan, moving(&self.volume, &facts), facts);
        Ok(plan)
    }

    fn execute(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
        self.do_step(step)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        self.undo_prepared()
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.work.release();
        match self.top.take() {
            Some(top) => top.close(fs::unmount),
            None => Ok(()),
        }
    }
}

/// A name in the generations directory, as the filesystem's calls take it.
fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// The parts of `path` that are directories to be made, outermost first.
fn each_directory(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
    parts.retain(|part| !part.as_os_str().is_empty());
    parts.reverse();
    parts
}
