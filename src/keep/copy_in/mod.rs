//! Copying persisted paths into a copy of the blank: the part of `rollback` that every filesystem shares.
//!
//! The target begins as a copy of the blank. [`copy_in`] takes out what the blank has at
//! persisted paths, brings those over from the previous state with everything they have, lays
//! the blank's content back into their excluded parts, and gives ancestors the attributes that
//! rule 2 of the design wants. Nothing outside the three trees is read or written.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use rustix::fs::{IFlags, Mode};

use super::attic::Attic;
use super::survey::{State, Surveyed};
use super::trees::{Trees, connector_before};
use crate::fs::Dir;
use crate::fs::at::Kind;
use crate::own::Own;
use crate::rules::{Node, Rules, Verdict};
use crate::tree::{
    self, BytesByRung, Created, Handle, Job, Ladder, Links, Restored, Scratch, Source, Walk,
    is_stub, seal, seal_file, seals_of, set_times, unseal,
};

mod attic;

/// What a restoration did.
#[derive(Debug)]
pub struct Outcome {
    /// What was brought over, by persisted path.
    pub persisted: Vec<Restored>,
    /// Bytes of regular files by the way they came.
    pub bytes: BytesByRung,
    /// Subvolumes below persisted paths, which are not copied but moved as a whole by the
    /// filesystem's own part; relative to the volume's root. Their places are left empty.
    pub nested: Vec<PathBuf>,
    /// Flags that forbid every change to the root, which the result's root shall have. They are
    /// not set: the filesystem's own part may still have to rename it.
    pub root_seals: IFlags,
}

impl Outcome {
    /// What came of persisted paths that were moved and not copied.
    #[must_use]
    pub fn of_moved(surveyed: &[Surveyed], bytes: BytesByRung) -> Self {
        let present = surveyed.iter().filter(|path| matches!(path.state, State::Present { .. }));
        let restored =
            present.map(|path| Restored { path: path.path.clone(), entries: None, bytes: None });
        Self {
            persisted: restored.collect(),
            bytes,
            nested: Vec::new(),
            root_seals: IFlags::empty(),
        }
    }
}

/// The directory in [`OWN_DIRECTORY`] that exists during a reset only.
const WORK: &str = "reset";

/// Brings the persisted paths over, and the attic. `surveyed` is what [`super::survey::survey`] said of the same
/// trees, and `attic` what [`super::attic::look`] did; `generation` is the number of the reset.
///
/// The process must have no umask: see [`crate::fs::process::prepare`]. The result is not durable until
/// the filesystem is synced.
///
/// # Errors
/// What failed and on which path. The target is then useless; the other trees are untouched.
pub fn copy_in(
    trees: &Trees<'_>,
    rules: &Rules,
    surveyed: &[Surveyed],
    attic: &Attic,
    generation: u64,
    threads: usize,
) -> anyhow::Result<Outcome> {
    let work = make_work_directory(trees.target)?;
    let (ladder, links) = (Ladder::default(), Links::default());
    let mut restoration = Restoration {
        trees,
        rules,
        attic,
        returned: surveyed.iter().filter_map(|path| path.from.clone()).collect(),
        ladder: &ladder,
        links: &links,
        threads,
        work,
        scratch: Scratch::default(),
        outcome: Outcome {
            persisted: Vec::new(),
            bytes: BytesByRung::default(),
            nested: Vec::new(),
            root_seals: IFlags::empty(),
        },
    };
    let depths = surveyed.iter().map(|path| path.depth).max().map_or(0, |deepest| deepest + 1);
    for depth in 0..depths {
        let nested = &restoration.outcome.nested;
        let level: Vec<_> = surveyed
            .iter()
            .filter(|path| path.depth == depth)
            // What lies in a subvolume that moves comes with it.
            .filter(|path| !nested.iter().any(|nested| path.path.starts_with(nested)))
            .collect();
        restoration.bring_over(&level)?;
    }
    restoration.bring_back_inside(attic)?;
    restoration.bring_attic(generation)?;
    restoration.finish_connectors()?;
    let mut outcome = restoration.outcome;
    outcome.bytes = ladder.bytes();
    links.seal_all(|path, seals| seal_file(trees.target, path, seals))?;
    Ok(outcome)
}

/// A restoration under way.
struct Restoration<'a> {
    trees: &'a Trees<'a>,
    rules: &'a Rules,
    attic: &'a Attic,
    /// Where declared paths that come back are in the attic.
    returned: Vec<PathBuf>,
    ladder: &'a Ladder,
    links: &'a Links,
    threads: usize,
    /// Where the blank's content lies that is waiting to be moved into an excluded path.
    work: Dir,
    scratch: Scratch,
    outcome: Outcome,
}

impl Restoration<'_> {
    /// Persisted paths with the same number of excluded subtrees around them.
    fn bring_over(&mut self, surveyed: &[&Surveyed]) -> anyhow::Result<()> {
        let mut jobs = Vec::new();
        for (number, path) in surveyed.iter().enumerate() {
            let aside = self
                .make_room(path, number)
                .with_context(|| format!("cannot make room for {:?}", path.path))?;
            if matches!(path.state, State::Present { .. }) {
                let job = Job {
                    path: path.path.clone(),
                    rules: self.rules.at(&path.path),
                    aside,
                    entries: AtomicU64::new(0),
                    bytes: AtomicU64::new(0),
                };
                jobs.push((job, *path));
            }
        }
        let walk = Walk::new(self.trees.target.as_fd(), self.ladder, self.links);
        for (job, path) in &jobs {
            let from = (self.trees.previous, path.source());
            walk.add_at(job, from, self.trees.target, &mut self.scratch)
                .with_context(|| format!("cannot bring over {:?}", job.path))?;
        }
        let nested = walk.run(self.threads).context("cannot bring over")?;
        self.outcome.nested.extend(nested);
        self.outcome.persisted.extend(jobs.iter().map(|(job, _)| Restored {
            path: job.path.clone(),
            entries: Some(job.entries.load(Ordering::Relaxed)),
            bytes: Some(job.bytes.load(Ordering::Relaxed)),
        }));
        for number in 0..surveyed.len() {
            tree::remove(&self.work, number.to_string())
                .context("cannot remove what the blank had at a persisted path")?;
        }
        Ok(())
    }

    /// Makes the connectors of a persisted path and takes away what the blank has at it. If
    /// that is needed for excluded paths it is moved aside, and given back open.
    fn make_room(&mut self, path: &Surveyed, number: usize) -> anyhow::Result<Option<Dir>> {
        let mut above: Vec<&Path> = path.path.ancestors().skip(1).collect();
        above.reverse();
        for connector in above {
            if !self.ensure_connector(connector)? {
                return Ok(None);
            }
        }
        let (parent, name) = self.trees.target.open_parent(&path.path)?;
        let wanted_later = matches!(path.state, State::Present { kind: Kind::Directory })
            && self.rules.at(&path.path).is_some_and(Node::has_excluded_below);
        // What stands for a subvolume of the blank's cannot be renamed, and nothing is in it.
        let stub = match parent.status_optional(&name)? {
            Some(status) => is_stub(&parent, &status)?,
            None => false,
        };
        if wanted_later && !stub {
            let aside = number.to_string();
            if tree::rename((&parent, &name), (&self.work, &aside))? {
                return self.work.open_dir_optional(&aside);
            }
        } else {
            tree::remove(&parent, &name)?;
        }
        Ok(None)
    }

    /// Answers whether there is such a directory now. It is there when the blank or the
    /// previous state has it.
    fn ensure_connector(&mut self, path: &Path) -> anyhow::Result<bool> {
        let target = self.trees.target;
        let there = target.open_dir_optional(path)?;
        let stub = match &there {
            Some(there) => is_stub(there, &there.status()?)?,
            None => false,
        };
        if let (Some(there), false) = (&there, stub) {
            // A persisted directory on the way has its flags already, and they stay.
            if self.rules.verdict(path) == Verdict::Connector {
                unseal(there)?;
            }
            return Ok(true);
        }
        if !stub && connector_before(self.trees.previous, path, self.attic)?.is_none() {
            return Ok(false);
        }
        let (parent, name) = target.open_parent(path)?;
        if stub {
            // Nothing can be made in what stands for a subvolume of the blank's.
            tree::remove(&parent, &name)?;
        }
        let made = parent.make_dir(&name)?;
        Handle::Open(made.as_fd()).strip(Some(Mode::RWXU), &mut self.scratch)?;
        Ok(true)
    }

    /// Rule 2 of the design, for every connector and the root, the deepest first: their own
    /// times come after everything in them.
    fn finish_connectors(&mut self) -> anyhow::Result<()> {
        for path in self.rules.connectors().iter().rev() {
            self.finish_connector(path)
                .with_context(|| format!("cannot set the attributes of the directory {path:?}"))?;
        }
        Ok(())
    }

    fn finish_connector(&mut self, path: &Path) -> anyhow::Result<()> {
        let Trees { previous, blank, target } = *self.trees;
        let Some(target) = target.open_dir_optional(path)? else { return Ok(()) };
        if path.as_os_str().is_empty() {
            tree::remove(&*Own::of(&target)?, WORK)
                .context("cannot remove the working directory")?;
        }
        let made = Handle::Open(target.as_fd());
        let of_blank = match blank {
            Some(blank) => blank.open_dir_optional(path)?,
            None => None,
        };
        if let Some(of_blank) = of_blank {
            // The target began as a copy of it: only what the work in it changed is set.
            let status = of_blank.status()?;
            set_times(made, &status)?;
            let seals = seals_of(&of_blank)?;
            return self.seal_connector(path, &target, seals);
        }
        let Some(before) = connector_before(previous, path, self.attic)? else { return Ok(()) };
        if path.as_os_str().is_empty() {
            made.strip(Some(Mode::RWXU), &mut self.scratch)?;
        }
        let handle = Handle::Open(before.as_fd());
        let (status, flags) = (before.status()?, handle.flags()?);
        let source = Source { handle, status: &status, flags, has_xattrs: true };
        let created = Created { mode: Some(Mode::RWXU) };
        let seals = source.copy_to(made, created, &mut self.scratch)?;
        self.seal_connector(path, &target, seals)
    }

    fn seal_connector(
        &mut self,
        path: &Path,
        connector: &Dir,
        seals: IFlags,
    ) -> anyhow::Result<()> {
        if path.as_os_str().is_empty() {
            self.outcome.root_seals = seals;
            return Ok(());
        }
        Ok(seal(connector, seals)?)
    }
}

/// Makes the tool's own directory anew, with nothing from the blank in it.
fn make_work_directory(target: &Dir) -> anyhow::Result<Dir> {
    unseal(target).context("cannot clear the flags of the root")?;
    Own::make_anew(target)?.make_dir(WORK)
}
