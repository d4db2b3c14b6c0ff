//! Copying persisted paths into a copy of the blank: the part of `rollback` that every filesystem shares.
//!
//! The target begins as a copy of the blank. [`copy_in`] takes out what the blank has at
//! persisted paths, brings those over from the previous state with everything they have, lays
//! the blank's content back into their excluded parts, and gives ancestors the attributes that
//! rule 2 of the design wants. Nothing outside the three trees is read or written.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use rustix::fs::{IFlags, Mode, mkdirat};

use super::attic::Attic;
use super::survey::{State, Surveyed};
use super::trees::{Trees, connector_before};
use crate::fs::at::{self, os_name};
use crate::own::own_directory;
use crate::rules::{Node, OWN_DIRECTORY, Rules, Verdict};
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
const WORK: &CStr = c"reset";

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
    work: OwnedFd,
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
        let walk = Walk::new(self.trees.target, self.ladder, self.links);
        for (job, path) in &jobs {
            self.start(&walk, job, path.source())
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
            tree::remove(self.work.as_fd(), &aside_name(number)?)
                .context("cannot remove what the blank had at a persisted path")?;
        }
        Ok(())
    }

    fn start<'j>(
        &mut self,
        walk: &Walk<'j>,
        job: &'j Job<'j>,
        source: &Path,
    ) -> anyhow::Result<()> {
        let (source, name) = at::open_parent(self.trees.previous, source)?;
        let (target, _) = at::open_parent(self.trees.target, &job.path)?;
        walk.add(job, source.as_fd(), target.as_fd(), &name, &mut self.scratch)
    }

    /// Makes the connectors of a persisted path and takes away what the blank has at it. If
    /// that is needed for excluded paths it is moved aside, and given back open.
    fn make_room(&mut self, path: &Surveyed, number: usize) -> anyhow::Result<Option<OwnedFd>> {
        let mut above: Vec<&Path> = path.path.ancestors().skip(1).collect();
        above.reverse();
        for connector in above {
            if !self.ensure_connector(connector)? {
                return Ok(None);
            }
        }
        let (parent, name) = at::open_parent(self.trees.target, &path.path)?;
        let wanted_later = matches!(path.state, State::Present { kind: "directory" })
            && self.rules.at(&path.path).is_some_and(Node::has_excluded_below);
        // What stands for a subvolume of the blank's cannot be renamed, and nothing is in it.
        let stub = match at::present(at::status(parent.as_fd(), &name))? {
            Some(status) => is_stub(parent.as_fd(), &status)?,
            None => false,
        };
        if wanted_later && !stub {
            let aside = aside_name(number)?;
            if tree::rename((parent.as_fd(), &name), (self.work.as_fd(), &aside))? {
                return Ok(at::directory_beneath(self.work.as_fd(), Path::new(os_name(&aside)))?);
            }
        } else {
            tree::remove(parent.as_fd(), &name)?;
        }
        Ok(None)
    }

    /// Answers whether there is such a directory now. It is there when the blank or the
    /// previous state has it.
    fn ensure_connector(&mut self, path: &Path) -> anyhow::Result<bool> {
        let target = self.trees.target;
        let there = at::directory_beneath(target, path)?;
        let stub = match &there {
            Some(there) => is_stub(there.as_fd(), &at::status_of(there.as_fd())?)?,
            None => false,
        };
        if let (Some(there), false) = (&there, stub) {
            // A persisted directory on the way has its flags already, and they stay.
            if self.rules.verdict(path) == Verdict::Connector {
                unseal(there.as_fd())?;
            }
            return Ok(true);
        }
        if !stub && connector_before(self.trees.previous, path, self.attic)?.is_none() {
            return Ok(false);
        }
        let (parent, name) = at::open_parent(target, path)?;
        if stub {
            // Nothing can be made in what stands for a subvolume of the blank's.
            tree::remove(parent.as_fd(), &name)?;
        }
        mkdirat(&parent, &name, Mode::RWXU)?;
        let made = at::open_directory(parent.as_fd(), &name)?;
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
        let Some(target) = at::directory_beneath(target, path)? else { return Ok(()) };
        if path.as_os_str().is_empty() {
            tree::remove(own_directory(target.as_fd())?.as_fd(), WORK)
                .context("cannot remove the working directory")?;
        }
        let made = Handle::Open(target.as_fd());
        let of_blank = match blank {
            Some(blank) => at::directory_beneath(blank, path)?,
            None => None,
        };
        if let Some(of_blank) = of_blank {
            // The target began as a copy of it: only what the work in it changed is set.
            let status = at::status_of(of_blank.as_fd())?;
            set_times(made, &status)?;
            let seals = seals_of(of_blank.as_fd())?;
            return self.seal_connector(path, target.as_fd(), seals);
        }
        let Some(before) = connector_before(previous, path, self.attic)? else { return Ok(()) };
        if path.as_os_str().is_empty() {
            made.strip(Some(Mode::RWXU), &mut self.scratch)?;
        }
        let handle = Handle::Open(before.as_fd());
        let (status, flags) = (at::status_of(before.as_fd())?, handle.flags()?);
        let source = Source { handle, status: &status, flags, has_xattrs: true };
        let created = Created { mode: Some(Mode::RWXU) };
        let seals = source.copy_to(made, created, &mut self.scratch)?;
        self.seal_connector(path, target.as_fd(), seals)
    }

    fn seal_connector(
        &mut self,
        path: &Path,
        connector: BorrowedFd<'_>,
        seals: IFlags,
    ) -> anyhow::Result<()> {
        if path.as_os_str().is_empty() {
            self.outcome.root_seals = seals;
            return Ok(());
        }
        Ok(seal(connector, seals)?)
    }
}

fn aside_name(number: usize) -> anyhow::Result<CString> {
    Ok(CString::new(number.to_string())?)
}

/// Makes the tool's own directory anew, with nothing from the blank in it.
fn make_work_directory(target: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    let own = at::c_name(OWN_DIRECTORY.as_ref())?;
    unseal(target).context("cannot clear the flags of the root")?;
    tree::remove(target, &own).with_context(|| format!("cannot remove {own:?} of the blank"))?;
    mkdirat(target, &own, Mode::RWXU).with_context(|| format!("cannot make {own:?}"))?;
    let own = own_directory(target)?;
    Handle::Open(own.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default())?;
    mkdirat(&own, WORK, Mode::RWXU).context("cannot make the working directory")?;
    at::open_directory(own.as_fd(), WORK).context("cannot open the working directory")
}
