//! What of the well-known state is on a volume, and what the rules say about it.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, readlinkat};
use rustix::io::Errno;

use super::found::{Suggestion, SuggestionKind, SuggestionState};
use super::known::Known;
use super::pattern::{has_star, matches};
use crate::ask::diff::is_generated;
use crate::config::{Config, Volume};
use crate::fs::at;
use crate::fs::dir::{Dir, is};
use crate::generations::{Access, Store, close_after};
use crate::rules::{Rules, Verdict};
use crate::volume;

/// So many entries of a directory are counted. A person wants to know whether it is much.
const ENOUGH: u64 = 20_000;

/// So many directories in each other are looked into: users make trees as deep as they like.
const DEEP: u32 = 200;

/// Files up to this size are compared with the blank's.
const SMALL: u64 = 1 << 20;

/// Looks for what is known on one volume. It may be in use; nothing is changed.
///
/// # Errors
/// The volume is not there, or something on it cannot be read.
pub fn look(config: &Config, volume: &Volume, known: &[Known]) -> anyhow::Result<Vec<Suggestion>> {
    let mut store = volume::store(volume, Access::ReadOnly)?;
    let found = look_in(store.as_mut(), config, volume, known);
    close_after(found, store.as_mut())
}

fn look_in(
    store: &mut dyn Store,
    config: &Config,
    volume: &Volume,
    known: &[Known],
) -> anyhow::Result<Vec<Suggestion>> {
    let looking = Looking { live: store.live()?, blank: store.blank()?, rules: &volume.rules };
    let mut found = Vec::new();
    for entry in known {
        for pattern in &entry.paths {
            let Some(names) = pattern.below(&volume.mount_point) else { continue };
            for path in looking.paths(names)? {
                let shown = volume.mount_point.join(&path);
                // What a volume hides below another one's mount point nobody misses.
                if !is_owner(config, volume, &shown) {
                    continue;
                }
                let at = || format!("cannot look at {shown:?}");
                let Some((kind, amount)) = looking.amount(&path).with_context(at)? else {
                    continue;
                };
                let (state, kept_below) = looking.state(&path, kind).with_context(at)?;
                let kept_below =
                    kept_below.iter().map(|path| volume.mount_point.join(path)).collect();
                found.push(Suggestion {
                    path: shown,
                    what: entry.what,
                    why: entry.why,
                    advice: entry.advice,
                    state,
                    kept_below,
                    kind,
                    files: amount.files,
                    bytes: amount.bytes,
                    at_least: amount.at_least,
                });
            }
        }
    }
    Ok(found)
}

/// Whether no other volume has a longer mount point above a path.
fn is_owner(config: &Config, volume: &Volume, path: &Path) -> bool {
    config.volumes.iter().all(|other| {
        !path.starts_with(&other.mount_point)
            || other.mount_point.as_os_str().len() <= volume.mount_point.as_os_str().len()
    })
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    files: u64,
    bytes: u64,
    at_least: bool,
    /// Everything that was looked at, also what does not count.
    entries: u64,
}

struct Looking<'r> {
    live: Dir,
    blank: Option<Dir>,
    rules: &'r Rules,
}

impl Looking<'_> {
    /// The paths below the volume's root that names with stars mean, whether or not there is
    /// something at those without.
    fn paths(&self, names: &[String]) -> anyhow::Result<Vec<PathBuf>> {
        let mut paths = vec![PathBuf::new()];
        for name in names {
            if !has_star(name) {
                for path in &mut paths {
                    path.push(name);
                }
                continue;
            }
            let mut further = Vec::new();
            for path in paths {
                let Some(directory) = directory_of(&self.live, &path)? else { continue };
                let there = directory.names()?;
                let there = there.iter().filter(|there| matches(name, there));
                further.extend(there.map(|there| path.join(there)));
            }
            paths = further;
        }
        Ok(paths)
    }

    /// What is at a path and how much; `None` when there is nothing that counts. Links on the way are
    /// not followed, as a reset does not.
    fn amount(&self, path: &Path) -> anyhow::Result<Option<(SuggestionKind, Amount)>> {
        let (parent, name) = at::split(path).context("BUG: no name in the path")?;
        let Some(parent) = directory_of(&self.live, parent)? else { return Ok(None) };
        let mut amount = Amount::default();
        count(parent.as_fd(), &at::c_name(name)?, &mut amount, 0)?;
        if amount.files == 0 && !amount.at_least {
            return Ok(None);
        }
        let is_directory = at::kind(&parent.status_at(name)?) == FileType::Directory;
        Ok(Some((
            if is_directory { SuggestionKind::Directory } else { SuggestionKind::File },
            amount,
        )))
    }

    /// What the next reset does with what is at a path, and what of it is kept.
    fn state(
        &self,
        path: &Path,
        kind: SuggestionKind,
    ) -> anyhow::Result<(SuggestionState, Vec<PathBuf>)> {
        Ok(match self.rules.verdict(path) {
            Verdict::Persisted => (SuggestionState::Kept, Vec::new()),
            Verdict::Connector => {
                let kept = self.rules.persisted().into_iter().map(|persisted| persisted.path);
                (SuggestionState::PartlyKept, kept.filter(|kept| kept.starts_with(path)).collect())
            }
            Verdict::Blank if !self.rules.region(path).as_os_str().is_empty() => {
                (SuggestionState::Excluded, Vec::new())
            }
            Verdict::Blank if kind == SuggestionKind::File && self.is_in_the_blank(path)? => {
                (SuggestionState::InTheBlank, Vec::new())
            }
            Verdict::Blank => (SuggestionState::NotKept, Vec::new()),
        })
    }

    /// Whether the blank has the same small file.
    fn is_in_the_blank(&self, path: &Path) -> anyhow::Result<bool> {
        let Some(blank) = &self.blank else { return Ok(false) };
        let Some(mine) = small_file(&self.live, path)? else { return Ok(false) };
        Ok(small_file(blank, path)? == Some(mine))
    }
}

/// The directory at a path of the volume; `None` where there is none, or where something else is
/// mounted on the way, as in the root of a running system that is a plain directory.
fn directory_of(root: &Dir, path: &Path) -> anyhow::Result<Option<Dir>> {
    match root.open_dir_optional(path) {
        Err(error) if is(&error, Errno::XDEV) => Ok(None),
        opened => opened,
    }
}

/// The bytes of a file that is small; `None` for everything else.
fn small_file(root: &Dir, path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let Some(status) = root.glance(path)? else { return Ok(None) };
    if at::kind(&status) != FileType::RegularFile || status.stx_size > SMALL {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    std::fs::File::from(root.open_file(path)?).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Counts what is at `name`, and below it.
fn count(
    parent: BorrowedFd<'_>,
    name: &CStr,
    amount: &mut Amount,
    depth: u32,
) -> anyhow::Result<()> {
    if amount.entries >= ENOUGH || depth > DEEP {
        amount.at_least = true;
        return Ok(());
    }
    amount.entries += 1;
    // What goes while it is looked at is not there.
    let Some(status) = at::present(at::status(parent, name))? else { return Ok(()) };
    // What is mounted there is not the volume's, and is not reset with it.
    if at::is_mounted_on(&status) {
        return Ok(());
    }
    match at::kind(&status) {
        FileType::RegularFile => {
            amount.files += 1;
            amount.bytes += status.stx_size;
        }
        FileType::Symlink => amount.files += u64::from(!is_of_the_system(parent, name)?),
        FileType::Directory => {
            let directory = match at::open_directory(parent, name) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                opened => opened.with_context(|| format!("cannot open {name:?}"))?,
            };
            let mut buffer = vec![MaybeUninit::uninit(); at::BATCH];
            loop {
                let batch = at::next_batch(directory.as_fd(), &mut buffer)?;
                if batch.is_empty() || amount.entries >= ENOUGH {
                    break;
                }
                for entry in batch {
                    count(directory.as_fd(), &entry.name, amount, depth + 1)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a symbolic link is one that NixOS makes at each activation.
fn is_of_the_system(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<bool> {
    let Some(target) = at::present(readlinkat(parent, name, Vec::new()))? else { return Ok(true) };
    Ok(is_generated(target.as_bytes()))
}
