//! Laying the blank's content beside the previous state, without what is at or below persisted
//! paths, so that they can be moved in: the part of `carry` that copies.
//!
//! The result comes in *units*: the volume's root, and every excluded path, whose content is the
//! blank's inside something that is not. Each is laid in a slot of its own, all on one
//! filesystem with the previous state, and moved from there as a whole.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use rustix::fs::{AtFlags, Mode, fstatfs, mkdirat, unlinkat};
use rustix::io::Errno;

use super::attributes::{Created, Handle, Scratch, Source, remove_labels, unseal};
use super::data::{BytesByRung, Ladder};
use super::entry::is_stub;
use super::links::Links;
use super::settle::Settled;
use super::walk::{Job, Walk};
use super::{Trees, seal_file};
use crate::fs::at;
use crate::keep::attic::Attic;
use crate::rules::{Node, OWN_DIRECTORY};

/// A part of the result that is the blank's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Below the volume's root; empty for the root itself.
    pub path: PathBuf,
    /// Where it is laid, below the target.
    pub slot: PathBuf,
    /// What the blank's content is laid without; see [`Node::of_the_blank`].
    pub rules: Node,
    /// Its directories above persisted paths, below the volume's root, outer ones first. The
    /// root itself is not named.
    pub connectors: Vec<PathBuf>,
}

/// Something of the previous state that cannot be moved and is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Below the root of the previous state.
    pub from: PathBuf,
    /// Below the target; the last component is the same.
    pub to: PathBuf,
    /// What is left out.
    pub rules: Option<Node>,
}

/// What was laid.
#[derive(Debug)]
pub struct Laid {
    /// For each unit, whether there is anything in its slot.
    pub units: Vec<bool>,
    /// Connectors that were made or laid, with what moving things into them changes.
    pub connectors: Vec<(PathBuf, Settled)>,
    /// Bytes of regular files by the way they came.
    pub bytes: BytesByRung,
}

/// Lays the blank's part of every unit into the directory `trees.target`, makes the connectors
/// that the blank lacks and the previous state has, and copies what must be copied.
///
/// # Errors
/// What failed and on which path. The target is then useless; the other trees are untouched.
pub fn lay(
    trees: &Trees<'_>,
    units: &[Unit],
    copies: &[Copied],
    attic: &Attic,
    threads: usize,
) -> anyhow::Result<Laid> {
    let (ladder, links) = (Ladder::default(), Links::default());
    let mut scratch = Scratch::default();
    for unit in units {
        let (above, _) = at::split(&unit.slot).context("BUG: a unit without a slot")?;
        let slot = if unit.path.as_os_str().is_empty() { &unit.slot } else { above };
        mkdirat(trees.target, slot, Mode::RWXU).with_context(|| format!("cannot make {slot:?}"))?;
    }
    if let Some(blank) = trees.blank {
        let jobs: Vec<(PathBuf, Job<'_>)> = units
            .iter()
            .map(|unit| jobs_of(unit, blank, trees.target))
            .collect::<anyhow::Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        let jobs: Vec<_> = jobs.iter().map(|(from, job)| (from.as_path(), job)).collect();
        run(&jobs, blank, trees.target, (&ladder, &links), threads, &mut scratch)
            .context("cannot lay the blank's content")?;
    }
    let mut connectors = Vec::new();
    for unit in units {
        for path in &unit.connectors {
            let made = connector(trees, unit, path, attic, &mut scratch)
                .with_context(|| format!("cannot make the directory {path:?}"))?;
            connectors.extend(made.map(|settled| (path.clone(), settled)));
        }
    }
    let jobs: Vec<_> = copies
        .iter()
        .map(|copied| (&copied.from, job(copied.to.clone(), copied.rules.as_ref())))
        .collect();
    let jobs: Vec<_> = jobs.iter().map(|(from, job)| (from.as_path(), job)).collect();
    run(&jobs, trees.previous, trees.target, (&ladder, &links), threads, &mut scratch)
        .context("cannot copy")?;
    links.seal_all(|path, seals| seal_file(trees.target, path, seals))?;
    let units = units
        .iter()
        .map(|unit| is_laid(trees.target, unit))
        .collect::<anyhow::Result<_>>()
        .context("cannot look at what was laid")?;
    Ok(Laid { units, connectors, bytes: ladder.bytes() })
}

pub(super) fn job(path: PathBuf, rules: Option<&Node>) -> Job<'_> {
    Job { path, rules, aside: None, entries: AtomicU64::new(0), bytes: AtomicU64::new(0) }
}

/// What the blank has in a unit, by its path in the blank and its path below the target.
pub(super) fn jobs_of<'u>(
    unit: &'u Unit,
    blank: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
) -> anyhow::Result<Vec<(PathBuf, Job<'u>)>> {
    if !unit.path.as_os_str().is_empty() {
        let (above, name) = at::split(&unit.path).context("BUG: a unit without a name")?;
        let there = match at::directory_beneath(blank, above)
            .with_context(|| format!("cannot open {above:?} of the blank"))?
        {
            Some(above) => at::present(at::status(above.as_fd(), &at::c_name(name)?))
                .with_context(|| format!("cannot look at {:?} of the blank", unit.path))?,
            None => None,
        };
        let path = unit.slot.clone();
        return Ok(there
            .map(|_| (unit.path.clone(), job(path, Some(&unit.rules))))
            .into_iter()
            .collect());
    }
    let mut jobs = Vec::new();
    let root = at::open_beneath(blank, Path::new("")).context("cannot open the blank")?;
    let of_blank = Reserved::of(blank).context("cannot look at the blank")?;
    let of_target = Reserved::of(target).context("cannot look at the target")?;
    let mut buffer = vec![MaybeUninit::uninit(); at::BATCH];
    loop {
        let batch = at::next_batch(root.as_fd(), &mut buffer).context("cannot read the blank")?;
        if batch.is_empty() {
            return Ok(jobs);
        }
        for entry in batch {
            let rules = unit.rules.child(at::os_name(&entry.name));
            if !of_blank.holds(&entry.name)
                && !of_target.holds(&entry.name)
                && !rules.is_some_and(Node::is_excluded)
            {
                let path = at::join(&unit.slot, &entry.name);
                jobs.push((at::join(Path::new(""), &entry.name), job(path, rules)));
            }
        }
    }
}

/// Magic numbers of filesystems, as `statfs(2)` tells them (`linux/magic.h`; `OpenZFS`).
const EXT4: u64 = 0xef53;
const ZFS: u64 = 0x2fc1_2fc1;

/// Names in a volume's root that are not the user's: the tool's own, and those that a filesystem
/// shows there by itself (`.zfs` where `snapdir=visible`, `lost+found` on ext4).
#[derive(Debug, Clone, Copy)]
pub struct Reserved {
    by_filesystem: Option<&'static CStr>,
}

impl Reserved {
    /// Those of the filesystem that an open directory is on.
    ///
    /// # Errors
    /// As statfs(2).
    pub fn of(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        let by_filesystem = match fstatfs(root)?.f_type.cast_unsigned() {
            EXT4 => Some(c"lost+found"),
            ZFS => Some(c".zfs"),
            _ => None,
        };
        Ok(Self { by_filesystem })
    }

    /// Whether a name in the root is one.
    #[must_use]
    pub fn holds(self, name: &CStr) -> bool {
        name.to_bytes() == OWN_DIRECTORY.as_bytes() || Some(name) == self.by_filesystem
    }
}

pub(super) fn run(
    jobs: &[(&Path, &Job<'_>)],
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    (ladder, links): (&Ladder, &Links),
    threads: usize,
    scratch: &mut Scratch,
) -> anyhow::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let walk = Walk::new(target, ladder, links);
    for (from, job) in jobs {
        let mut start = || -> anyhow::Result<()> {
            let (from, name) = at::open_parent(source, from)?;
            let (to, _) = at::open_parent(target, &job.path)?;
            walk.add(job, from.as_fd(), to.as_fd(), &name, scratch)
        };
        start().with_context(|| format!("{from:?}"))?;
    }
    // Subvolumes nested in it are not part of it; a snapshot has an empty directory for each.
    for nested in walk.run(threads)? {
        stand_in(target, &nested)?;
    }
    Ok(())
}

/// Makes the empty directory that stands for a subvolume in one that is otherwise complete: its
/// times and seals stay what they are.
pub(super) fn stand_in(root: BorrowedFd<'_>, nested: &Path) -> anyhow::Result<()> {
    let make = || -> anyhow::Result<()> {
        let (parent, name) = at::open_parent(root, nested)?;
        let was = Settled::look(parent.as_fd())?;
        unseal(parent.as_fd())?;
        mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
        Ok(was.settle(parent.as_fd())?)
    };
    make().with_context(|| format!("cannot make {nested:?}"))
}

/// Moves what a snapshot has in the place of a subvolume, which cannot be renamed: an ordinary empty
/// directory takes its place. Answers whether it was one.
///
/// # Errors
/// As mkdirat(2) and unlinkat(2), and the attribute that could not be copied.
pub fn move_stub(
    from: (BorrowedFd<'_>, &CStr),
    to: (BorrowedFd<'_>, &CStr),
) -> anyhow::Result<bool> {
    if !is_stub(from.0, &at::status(from.0, from.1)?)? {
        return Ok(false);
    }
    let stub = at::open_directory(from.0, from.1)?;
    mkdirat(to.0, to.1, Mode::RWXU)?;
    let made = at::open_directory(to.0, to.1)?;
    let mut scratch = Scratch::default();
    Handle::Open(made.as_fd()).strip(Some(Mode::RWXU), &mut scratch)?;
    copy_attributes(stub.as_fd(), made.as_fd(), &mut scratch)?;
    unlinkat(from.0, from.1, AtFlags::REMOVEDIR)?;
    Ok(true)
}

/// Sees that a connector is in its unit, and open for what comes. `None` when neither the blank
/// nor the previous state has such a directory.
fn connector(
    trees: &Trees<'_>,
    unit: &Unit,
    path: &Path,
    attic: &Attic,
    scratch: &mut Scratch,
) -> anyhow::Result<Option<Settled>> {
    let below = path.strip_prefix(&unit.path).context("BUG: a connector outside of its unit")?;
    // Joining an empty path would put a slash at the end.
    let place =
        if below.as_os_str().is_empty() { unit.slot.clone() } else { unit.slot.join(below) };
    if let Some(laid) = at::directory_beneath(trees.target, &place)? {
        let settled = Settled::look(laid.as_fd())?;
        unseal(laid.as_fd())?;
        return Ok(Some(settled));
    }
    let Some(before) = connector_before(trees.previous, path, attic)? else { return Ok(None) };
    let (above, name) = at::split(&place).context("BUG: a connector without a name")?;
    let Some(above) = at::directory_beneath(trees.target, above)? else { return Ok(None) };
    let name = at::c_name(name)?;
    mkdirat(&above, &name, Mode::RWXU)?;
    let made = at::open_directory(above.as_fd(), &name)?;
    copy_attributes(before.as_fd(), made.as_fd(), scratch)?;
    Ok(Some(Settled::look(before.as_fd())?))
}

/// The directory of the previous state that a connector is made after, or of the attic, if what is
/// below it comes back from there.
pub(super) fn connector_before(
    previous: BorrowedFd<'_>,
    path: &Path,
    attic: &Attic,
) -> std::io::Result<Option<OwnedFd>> {
    match (at::directory_beneath(previous, path)?, attic.above.get(path)) {
        (None, Some(stored)) => at::directory_beneath(previous, stored),
        (before, _) => Ok(before),
    }
}

/// Gives an empty or a foreign directory every attribute of another but its sealing flags.
pub(super) fn copy_attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    scratch: &mut Scratch,
) -> anyhow::Result<()> {
    let (handle, target) = (Handle::Open(from), Handle::Open(to));
    target.strip(Some(Mode::RWXU), scratch)?;
    let (status, flags) = (at::status_of(from)?, handle.flags()?);
    let source = Source { handle, status: &status, flags, has_xattrs: true };
    source.copy_to(target, Created { mode: Some(Mode::RWXU) }, scratch).map(drop)
}

/// Gives a directory that has attributes of its own every attribute of another instead, but its
/// sealing flags.
///
/// # Errors
/// The attribute that could not be copied, in words.
pub fn take_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> anyhow::Result<()> {
    let mut scratch = Scratch::default();
    unseal(to).context("cannot clear its flags")?;
    remove_labels(Handle::Open(to), &mut scratch)?;
    copy_attributes(from, to, &mut scratch)
}

fn is_laid(target: BorrowedFd<'_>, unit: &Unit) -> anyhow::Result<bool> {
    let (parent, name) = at::open_parent(target, &unit.slot)?;
    Ok(at::present(at::status(parent.as_fd(), &name))?.is_some())
}
