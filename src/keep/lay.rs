//! Laying the blank's content beside the previous state, without what is at or below persisted
//! paths, so that they can be moved in: the part of `carry` that copies.
//!
//! The result comes in *units*: the volume's root, and every excluded path, whose content is the
//! blank's inside something that is not. Each is laid in a slot of its own, all on one
//! filesystem with the previous state, and moved from there as a whole.

use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing::warn;

use super::attic::Attic;
use super::trees::{Trees, connector_before};
use crate::fs::Dir;
use crate::fs::at;
use crate::fs::reserved::Reserved;
use crate::names::shown;
use crate::rules::Node;
use crate::tree::{
    BytesByRung, Copied, Job, Ladder, Links, Scratch, Settled, copy_listable_attributes, job, run,
    seal_file, unseal,
};

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
        trees.target.make_dir(if unit.path.as_os_str().is_empty() { &unit.slot } else { above })?;
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
    let units =
        units.iter().map(|unit| trees.target.holds(&unit.slot)).collect::<anyhow::Result<_>>()?;
    Ok(Laid { units, connectors, bytes: ladder.bytes() })
}

/// What the blank has in a unit, by its path in the blank and its path below the target.
pub(super) fn jobs_of<'u>(
    unit: &'u Unit,
    blank: &Dir,
    target: &Dir,
) -> anyhow::Result<Vec<(PathBuf, Job<'u>)>> {
    if !unit.path.as_os_str().is_empty() {
        let there = match blank.open_parent_optional(&unit.path).context("the blank")? {
            Some((above, name)) => above.status_optional(name).context("the blank")?,
            None => None,
        };
        let path = unit.slot.clone();
        return Ok(there
            .map(|_| (unit.path.clone(), job(path, Some(&unit.rules))))
            .into_iter()
            .collect());
    }
    let mut jobs = Vec::new();
    let root = Dir::root(blank).context("cannot open the blank")?;
    let (of_blank, of_target) = (Reserved::of(blank)?, Reserved::of(target)?);
    let mut buffer = vec![MaybeUninit::uninit(); at::BATCH];
    loop {
        let batch = at::next_batch(root.as_fd(), &mut buffer).context("cannot read the blank")?;
        if batch.is_empty() {
            return Ok(jobs);
        }
        for entry in batch {
            let name = at::os_name(&entry.name);
            let rules = unit.rules.child(name);
            if !of_blank.holds(name)
                && !of_target.holds(name)
                && !rules.is_some_and(Node::is_excluded)
            {
                jobs.push((PathBuf::from(name), job(unit.slot.join(name), rules)));
            }
        }
    }
}

/// Gives a new directory the attributes of the one at `path`, which a user may own.
pub(super) fn make_like(
    before: &Dir,
    made: Dir,
    path: &Path,
    scratch: &mut Scratch,
) -> anyhow::Result<()> {
    if !copy_listable_attributes(before, made, scratch)? {
        warn!(
            "the directory {} has more extended attributes than the kernel lists (64 KiB of names): it \
             keeps its ACLs and security labels, and the rest stays with the previous state",
            shown(&path)
        );
    }
    Ok(())
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
    let place = at::joined(&unit.slot, below);
    if let Some(laid) = trees.target.open_dir_optional(&place)? {
        let settled = Settled::look(&laid)?;
        unseal(&laid)?;
        return Ok(Some(settled));
    }
    let Some(before) = connector_before(trees.previous, path, attic)? else { return Ok(None) };
    let Some((above, name)) = trees.target.open_parent_optional(&place)? else { return Ok(None) };
    make_like(&before, above.make_dir(name)?, path, scratch)?;
    Ok(Some(Settled::look(&before)?))
}
