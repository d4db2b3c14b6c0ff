//! Putting persisted paths back in place: the part that every filesystem shares.
//!
//! The target begins as a copy of the blank. [`restore`] takes out what the blank has at
//! persisted paths, brings those over from the previous state with everything they have, lays
//! the blank's content back into their excluded parts, and gives connectors the attributes that
//! rule 2 of the design wants. Nothing outside the three trees is read or written.
//!
//! | module | what it knows |
//! |---|---|
//! | `at` | opening relative to a descriptor, never following a link |
//! | `survey` | what is there before anything is changed |
//! | `walk` | one subtree, on several threads |
//! | `entry` | one entry: file, link, device, directory |
//! | `data` | the ladder: reflink, `copy_file_range`, copy |
//! | `attributes` | owner, mode, extended attributes, flags, times, and their order |
//! | `links` | hard links among persisted paths |
//! | `clear` | removing and moving whatever flags say |

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use rustix::fs::{IFlags, Mode, Timestamps, mkdirat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::rules::{Node, OWN_DIRECTORY, Rules, Verdict};

pub mod at;
mod attributes;
mod clear;
mod data;
mod entry;
mod links;
mod survey;
mod walk;

pub use attributes::{seal, unseal};
pub use clear::{remove, rename};
pub use data::BytesByRung;
pub use survey::{State, Surveyed, survey};

use at::os_name;
use attributes::{Created, Handle, Scratch, Source};
use data::Ladder;
use links::Links;
use walk::{Job, Walk};

/// The three trees of a restoration, by their root directories.
#[derive(Debug, Clone, Copy)]
pub struct Trees<'a> {
    /// The previous state, which is only read.
    pub previous: BorrowedFd<'a>,
    /// The blank, which is only read; `None` when it is empty.
    pub blank: Option<BorrowedFd<'a>>,
    /// A copy of the blank that nobody else uses; it becomes the result.
    pub target: BorrowedFd<'a>,
}

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

/// One persisted path that was brought over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Below the volume's root.
    #[serde(serialize_with = "crate::report::shown_path")]
    pub path: PathBuf,
    /// Entries at and below it.
    pub entries: u64,
    /// Bytes of its regular files, holes included.
    pub bytes: u64,
}

/// The directory in [`OWN_DIRECTORY`] that exists during a reset only.
const WORK: &CStr = c"reset";

/// Brings the persisted paths over. `surveyed` is what [`survey`] said of the same trees.
///
/// The process must have no umask: see [`prepare_process`]. The result is not durable until
/// the filesystem is synced.
///
/// # Errors
/// What failed and on which path. The target is then useless; the other trees are untouched.
pub fn restore(
    trees: &Trees<'_>,
    rules: &Rules,
    surveyed: &[Surveyed],
    threads: usize,
) -> anyhow::Result<Outcome> {
    let work = make_work_directory(trees.target)?;
    let (ladder, links) = (Ladder::default(), Links::default());
    let mut restoration = Restoration {
        trees,
        rules,
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
        let level: Vec<_> = surveyed.iter().filter(|path| path.depth == depth).collect();
        restoration.bring_over(&level)?;
    }
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
                jobs.push(Job {
                    path: path.path.clone(),
                    rules: self.rules.at(&path.path),
                    aside,
                    entries: AtomicU64::new(0),
                    bytes: AtomicU64::new(0),
                });
            }
        }
        let walk = Walk::new(self.trees.target, self.ladder, self.links);
        for job in &jobs {
            self.start(&walk, job).with_context(|| format!("cannot bring over {:?}", job.path))?;
        }
        let nested = walk.run(self.threads).context("cannot bring over")?;
        self.outcome.nested.extend(nested);
        self.outcome.persisted.extend(jobs.iter().map(|job| Restored {
            path: job.path.clone(),
            entries: job.entries.load(Ordering::Relaxed),
            bytes: job.bytes.load(Ordering::Relaxed),
        }));
        for number in 0..surveyed.len() {
            clear::remove(self.work.as_fd(), &aside_name(number)?)
                .context("cannot remove what the blank had at a persisted path")?;
        }
        Ok(())
    }

    fn start<'j>(&mut self, walk: &Walk<'j>, job: &'j Job<'j>) -> anyhow::Result<()> {
        let (source, name) = at::open_parent(self.trees.previous, &job.path)?;
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
        if wanted_later {
            let aside = aside_name(number)?;
            if clear::rename((parent.as_fd(), &name), (self.work.as_fd(), &aside))? {
                return Ok(at::directory_beneath(self.work.as_fd(), Path::new(os_name(&aside)))?);
            }
        } else {
            clear::remove(parent.as_fd(), &name)?;
        }
        Ok(None)
    }

    /// Answers whether there is such a directory now. It is there when the blank or the
    /// previous state has it.
    fn ensure_connector(&mut self, path: &Path) -> anyhow::Result<bool> {
        let target = self.trees.target;
        if let Some(there) = at::directory_beneath(target, path)? {
            // A persisted directory on the way has its flags already, and they stay.
            if self.rules.verdict(path) == Verdict::Connector {
                unseal(there.as_fd())?;
            }
            return Ok(true);
        }
        if at::directory_beneath(self.trees.previous, path)?.is_none() {
            return Ok(false);
        }
        let (parent, name) = at::open_parent(target, path)?;
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
            clear::remove(own_directory(target.as_fd())?.as_fd(), WORK)
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
            attributes::set_times(made, &status)?;
            let seals = seals_of(of_blank.as_fd())?;
            return self.seal_connector(path, target.as_fd(), seals);
        }
        let Some(before) = at::directory_beneath(previous, path)? else { return Ok(()) };
        if path.as_os_str().is_empty() {
            made.strip(Some(Mode::RWXU), &mut self.scratch)?;
        }
        let handle = Handle::Open(before.as_fd());
        let (status, flags) = (at::status_of(before.as_fd())?, handle.flags()?);
        let source = Source { handle, status: &status, flags };
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
    clear::remove(target, &own).with_context(|| format!("cannot remove {own:?} of the blank"))?;
    mkdirat(target, &own, Mode::RWXU).with_context(|| format!("cannot make {own:?}"))?;
    let own = own_directory(target)?;
    Handle::Open(own.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default())?;
    mkdirat(&own, WORK, Mode::RWXU).context("cannot make the working directory")?;
    at::open_directory(own.as_fd(), WORK).context("cannot open the working directory")
}

/// Opens the tool's own directory in a volume's root.
///
/// # Errors
/// As openat2(2).
pub fn own_directory(root: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    at::open_beneath(root, Path::new(OWN_DIRECTORY))
        .with_context(|| format!("cannot open {OWN_DIRECTORY}"))
}

fn seal_file(root: BorrowedFd<'_>, path: &Path, seals: IFlags) -> anyhow::Result<()> {
    let seal_it = || -> anyhow::Result<()> {
        let (parent, name) = at::open_parent(root, path)?;
        Ok(seal(at::open_file(parent.as_fd(), &name)?.as_fd(), seals)?)
    };
    seal_it().with_context(|| format!("cannot set the flags of {path:?}"))
}

/// The times of an open file or directory.
///
/// # Errors
/// As statx(2).
pub fn times_of(file: BorrowedFd<'_>) -> Result<Timestamps, Errno> {
    at::status_of(file).map(|status| attributes::times(&status))
}

/// The flags of an open file or directory that forbid every change to it.
///
/// # Errors
/// As ioctl(2).
pub fn seals_of(file: BorrowedFd<'_>) -> Result<IFlags, Errno> {
    Handle::Open(file).flags().map(|flags| flags & attributes::SEALING)
}

/// Readies the process for [`restore`]: no umask, so that entries are made with the mode they
/// shall have, and as many open files as it may have, since every level of the deepest
/// directory needs two.
///
/// # Errors
/// As setrlimit(2).
pub fn prepare_process() -> anyhow::Result<()> {
    rustix::process::umask(Mode::empty());
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}
