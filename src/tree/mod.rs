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
//! | `equal` | whether two entries have the same bytes, extended attributes or flags |
//! | `links` | hard links among persisted paths |
//! | `attic` | what is no longer declared, and what comes back |
//! | `move_in` | copying several from another tree, for `adopt` |
//! | `clear` | removing and moving whatever flags say |
//! | `lay` | the blank's content without what is persisted, for `carry` |
//! | `bring` | one path alone, for `recover` |
//! | `compare` | what two entries differ in, with all that is below them |
//! | `settle` | times and seals that moving changes, to be set again |

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use darlings_btrfs as btrfs;
use rustix::fs::{IFlags, Mode, Statx, StatxAttributes, mkdirat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::keep::attic::Attic;
use crate::rules::{Node, OWN_DIRECTORY, Rules, Verdict};

mod attic;
mod attributes;
mod bring;
mod clear;
mod compare;
mod data;
mod descent;
mod entry;
mod equal;
mod lay;
mod links;
mod move_in;
mod room;
mod settle;
mod survey;
mod walk;

pub use attributes::{seal, unseal};
pub(crate) use bring::own_directory as make_own_directory;
pub use bring::{Brought, bring};
pub use clear::{doom, exchange, remove, remove_single, remove_telling, rename};
pub use compare::{Difference, Side, differences};
pub use data::{BytesByRung, is_swap_area};
pub use descent::{Directory, OPEN_LEVELS};
pub use equal::{Comparison, Named, same_flags, same_target};
pub use lay::{Copied, Laid, Reserved, Unit, lay, move_stub, take_attributes};
pub use move_in::{MovedIn, fill_file, move_in};
pub use room::Room;
pub use settle::Settled;
pub use survey::{Place, State, Surveyed, source_of, state_at, survey, survey_excluded};

use crate::fs::at;
use crate::fs::at::os_name;
use attributes::{Created, Handle, Scratch, Source};
use data::Ladder;
use lay::connector_before;
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

/// One persisted path that was brought over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Below the volume's root.
    #[serde(serialize_with = "crate::engine::report::shown_path")]
    pub path: PathBuf,
    /// Entries at and below it; `None` when it was moved, and nobody looked what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Bytes of its regular files, holes included; `None` in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// The directory in [`OWN_DIRECTORY`] that exists during a reset only.
const WORK: &CStr = c"reset";

/// Brings the persisted paths over, and the attic. `surveyed` is what [`survey`] said of the same
/// trees, and `attic` what [`crate::keep::attic::look`] did; `generation` is the number of the reset.
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
            clear::remove(self.work.as_fd(), &aside_name(number)?)
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
            Some(status) => entry::is_stub(parent.as_fd(), &status)?,
            None => false,
        };
        if wanted_later && !stub {
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
        let there = at::directory_beneath(target, path)?;
        let stub = match &there {
            Some(there) => entry::is_stub(there.as_fd(), &at::status_of(there.as_fd())?)?,
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
            clear::remove(parent.as_fd(), &name)?;
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
    clear::remove(target, &own).with_context(|| format!("cannot remove {own:?} of the blank"))?;
    mkdirat(target, &own, Mode::RWXU).with_context(|| format!("cannot make {own:?}"))?;
    let own = own_directory(target)?;
    Handle::Open(own.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default())?;
    mkdirat(&own, WORK, Mode::RWXU).context("cannot make the working directory")?;
    at::open_directory(own.as_fd(), WORK).context("cannot open the working directory")
}

/// Makes the tool's own directory if there is none, and sees that it is root's alone. One that is
/// somebody else's, or no directory, is given another name: whoever could make it must not say
/// what a reset does.
///
/// # Errors
/// What could not be made or set.
pub fn ensure_own_directory(root: BorrowedFd<'_>) -> anyhow::Result<()> {
    let cannot = || format!("cannot make {OWN_DIRECTORY}");
    let own = if let Some(own) = trusted_own_directory(root)? {
        own
    } else {
        let name = at::c_name(OWN_DIRECTORY.as_ref())?;
        if let Some(status) = at::present(at::status(root, &name)).with_context(cannot)?
            && is_stub(root, &status)?
        {
            // It has no other name to get: the kernel takes it for full. The subvolume is where it was.
            clear::remove_single(root, &name).with_context(cannot)?;
        }
        let mut number = 1;
        let mut other = at::c_name(format!("{OWN_DIRECTORY}~{number}").as_ref())?;
        while at::present(at::status(root, &other)).with_context(cannot)?.is_some() {
            number += 1;
            other = at::c_name(format!("{OWN_DIRECTORY}~{number}").as_ref())?;
        }
        clear::rename((root, &name), (root, &other)).with_context(cannot)?;
        mkdirat(root, &name, Mode::RWXU).with_context(cannot)?;
        own_directory(root)?
    };
    Handle::Open(own.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default()).with_context(cannot)
}

/// Opens the tool's own directory in a volume's root to believe what it says; `None` where there
/// is none that is root's.
///
/// # Errors
/// As openat2(2) and statx(2).
pub fn trusted_own_directory(root: BorrowedFd<'_>) -> anyhow::Result<Option<OwnedFd>> {
    let cannot = || format!("cannot open {OWN_DIRECTORY}");
    let own = at::directory_beneath(root, Path::new(OWN_DIRECTORY)).with_context(cannot)?;
    let Some(own) = own else { return Ok(None) };
    let status = at::status_of(own.as_fd()).with_context(cannot)?;
    Ok((status.stx_uid == 0 && !is_stub(root, &status)?).then_some(own))
}

/// Whether this stands, in a snapshot, for a subvolume that somebody made: it is root's whoever that was,
/// and nothing can be made in it.
fn is_stub(root: BorrowedFd<'_>, status: &Statx) -> anyhow::Result<bool> {
    Ok(btrfs::entry_kind(status.stx_ino) == btrfs::EntryKind::Stub && btrfs::is_btrfs(root)?)
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

/// The flags of an open file or directory that forbid every change to it.
///
/// # Errors
/// As ioctl(2).
pub fn seals_of(file: BorrowedFd<'_>) -> Result<IFlags, Errno> {
    Handle::Open(file).flags().map(|flags| flags & attributes::SEALING)
}

/// The flags that forbid every change to an entry, by what statx(2) said of it; `None` where the
/// filesystem does not say.
#[must_use]
pub fn seals_in(status: &Statx) -> Option<IFlags> {
    let of = [
        (StatxAttributes::IMMUTABLE, IFlags::IMMUTABLE),
        (StatxAttributes::APPEND, IFlags::APPEND),
    ];
    let told = of.iter().all(|(attribute, _)| status.stx_attributes_mask.contains(*attribute));
    let set = of.iter().filter(|(attribute, _)| status.stx_attributes.contains(*attribute));
    told.then(|| set.map(|(_, flag)| *flag).collect())
}

/// Readies the process for [`restore`]: no umask, so that entries are made with the mode they
/// shall have, and as many open files as it may have: every thread needs some dozens.
///
/// # Errors
/// As setrlimit(2).
pub fn prepare_process() -> anyhow::Result<()> {
    rustix::process::umask(Mode::empty());
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

/// How many threads copy where nobody says it: more than there are processors, up to four, because
/// some of them wait for the disk.
#[must_use]
pub fn usual_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).min(4)
}
