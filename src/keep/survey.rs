//! A look at the persisted paths before anything is changed: which are there, which are not,
//! and which cannot be reached.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use darlings_btrfs as btrfs;
use rustix::fs::{Statx, StatxAttributes};
use rustix::io::Errno;
use serde::Serialize;

use crate::fs::at::{self, Kind};
use crate::fs::dir::{Dir, is};
use crate::names::shown;
use crate::rules::{Rules, Verdict};

/// What a persisted path is in the previous state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// It is there.
    Present {
        /// `directory`, `file`, ...
        kind: Kind,
    },
    /// It is not there, so the result has nothing there either.
    Absent,
    /// An ancestor is no directory. It is not followed: whoever owns it could point anywhere.
    Unreachable {
        /// The ancestor, below the volume's root.
        #[serde(serialize_with = "crate::text::shown_path")]
        ancestor: PathBuf,
        /// What it is instead.
        kind: Kind,
    },
}

/// A persisted path and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Surveyed {
    /// Below the volume's root.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub path: PathBuf,
    /// How many excluded subtrees lie around it; see [`crate::rules::Persisted`].
    #[serde(skip)]
    pub depth: usize,
    /// What it is in the previous state.
    #[serde(flatten)]
    pub state: State,
    /// Where it is in the attic, if it comes back from there.
    #[serde(
        serialize_with = "crate::text::shown_path_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub from: Option<PathBuf>,
}

impl Surveyed {
    /// Where it is in the previous state.
    #[must_use]
    pub fn source(&self) -> &Path {
        self.from.as_deref().unwrap_or(&self.path)
    }
}

/// The entry at `path` below a root, as far as it can be reached without following links.
enum Reached {
    Entry(Kind),
    Nothing,
    Blocked(PathBuf, Kind),
}

/// Looks at every persisted path in the previous state, and at its connectors in the blank.
///
/// # Errors
/// A connector that is no directory in the blank: the configuration asks for what cannot be,
/// and nothing may be changed. An ancestor that is encrypted. Also every failure to look.
pub fn survey(rules: &Rules, previous: &Dir, blank: Option<&Dir>) -> anyhow::Result<Vec<Surveyed>> {
    if let Some(blank) = blank {
        for connector in rules.connectors() {
            check_connector(blank, rules, &connector)?;
        }
    }
    let of_root = previous.status()?;
    ensure!(
        why_closed(&of_root, false).is_none(),
        "the volume's root is encrypted with fscrypt, and without its key nothing in it is found; reset \
         a volume that is not inside an encrypted directory"
    );
    if let Some(closed) = closed(rules, previous, false)?.first() {
        bail!("{}", closed.refusal());
    }
    rules
        .persisted()
        .into_iter()
        .map(|persisted| {
            let state = state_at(previous, &persisted.path)?;
            Ok(Surveyed { path: persisted.path, depth: persisted.depth, state, from: None })
        })
        .collect()
}

/// Looks at one path of the previous state.
pub fn state_at(previous: &Dir, path: &Path) -> anyhow::Result<State> {
    Ok(match reach(previous, path)? {
        Reached::Entry(kind) => State::Present { kind },
        Reached::Nothing => State::Absent,
        Reached::Blocked(ancestor, kind) => State::Unreachable { ancestor, kind },
    })
}

/// What an excluded path is in the previous state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Something is there.
    Taken,
    /// Nothing is there, and the directory that would hold it is.
    Free,
    /// No such directory: what the blank has there has no place in the result.
    None,
}

/// Looks at every excluded path in the previous state.
pub fn survey_excluded(
    rules: &Rules,
    previous: &Dir,
    surveyed: &[Surveyed],
) -> anyhow::Result<Vec<(PathBuf, Place)>> {
    let look = |path: PathBuf| {
        let source = source_of(&path, surveyed);
        let place = match reach(previous, &source)? {
            Reached::Entry(_) => Place::Taken,
            Reached::Blocked(..) => Place::None,
            Reached::Nothing => {
                let (above, _) = at::split(&source).context("BUG: the root is excluded")?;
                let above = previous.open_dir_optional(above)?;
                if above.is_some() { Place::Free } else { Place::None }
            }
        };
        Ok((path, place))
    };
    rules.excluded().into_iter().map(look).collect()
}

/// Where a path at or below a persisted one is in the previous state, or in the attic with it.
#[must_use]
pub fn source_of(path: &Path, surveyed: &[Surveyed]) -> PathBuf {
    let declared = surveyed
        .iter()
        .filter(|declared| path.starts_with(&declared.path))
        .max_by_key(|declared| declared.path.as_os_str().len());
    match declared {
        Some(Surveyed { path: declared, from: Some(from), .. }) => {
            match path.strip_prefix(declared) {
                Ok(below) if !below.as_os_str().is_empty() => from.join(below),
                _ => from.clone(),
            }
        }
        _ => path.to_owned(),
    }
}

/// A directory above a persisted or excluded path that keeps a reset from what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The outermost such directory, below the volume's root.
    pub path: PathBuf,
    /// The path that lies in it, and what it is.
    below: (PathBuf, &'static str),
    why: Why,
    /// No user can have arranged it.
    pub of_root: bool,
}

/// Why a directory is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// With fscrypt. While its key is not loaded the kernel says of every name in it that nothing is
    /// there, and a directory that takes its place would not be encrypted. It does not matter whether
    /// the key is loaded now: it may not be at the next boot.
    Encrypted,
    /// In a plain directory: nothing can be moved out of a subvolume.
    Subvolume,
}

impl Closed {
    /// Why there can be no reset, for one that root has arranged.
    #[must_use]
    pub fn refusal(&self) -> String {
        let (path, below, is) = (shown(&self.path), shown(&self.below.0), self.below.1);
        match self.why {
            Why::Encrypted => format!(
                "{below} is {is}, and {path} above it is encrypted with fscrypt: without its key nothing \
                 in it is found, and a new directory in its place would not be encrypted; persist {path} \
                 itself, without exclusions"
            ),
            Why::Subvolume => in_subvolume(&self.below.0, &self.path),
        }
    }

    /// What becomes of one that a user may have arranged.
    #[must_use]
    pub fn warning(&self, mount_point: &Path) -> String {
        let why = match self.why {
            Why::Encrypted => "it is encrypted with fscrypt, and a reset cannot see what is in it",
            Why::Subvolume => "it is a subvolume, and nothing can be moved out of it",
        };
        format!(
            "{} is kept as a whole, and not only what is persisted in it: {why}; persist it, or put a \
             plain directory in its place",
            shown(&mount_point.join(&self.path))
        )
    }
}

/// Why there can be no reset of a plain directory in which a path that moves lies in a subvolume.
#[must_use]
pub fn in_subvolume(path: &Path, subvolume: &Path) -> String {
    format!(
        "{} lies in the subvolume {}, out of which and into which nothing can be moved; put a directory in \
         its place, or configure the volume with `btrfs` instead of `dir`",
        shown(path),
        shown(subvolume)
    )
}

/// Has these rules keep each directory as a whole that is closed and that a user may have made: no user
/// keeps a volume from being reset, and nothing that is persisted is lost. Answers which those are.
/// What is kept is moved within the tree at `previous`.
pub fn keep_whole(rules: &mut Rules, previous: &Dir) -> anyhow::Result<Vec<Closed>> {
    let mut closed = closed(rules, previous, btrfs::is_btrfs(previous)?)?;
    closed.retain(|it| !it.of_root);
    for it in &closed {
        rules.keep_whole(&it.path);
    }
    Ok(closed)
}

/// The closed directories above what these rules name; subvolumes only where `subvolumes` says so.
pub fn closed(rules: &Rules, previous: &Dir, subvolumes: bool) -> anyhow::Result<Vec<Closed>> {
    const PERSISTED: &str = "persisted";
    let persisted = rules.persisted().into_iter().map(|it| (it.path, PERSISTED));
    let excluded = rules.excluded().into_iter().map(|it| (it, "excluded"));
    let mut found: Vec<Closed> = Vec::new();
    let mut open = BTreeSet::new();
    for below in persisted.chain(excluded) {
        let mut ancestors: Vec<&Path> = below.0.ancestors().skip(1).collect();
        ancestors.pop();
        // The outermost first: what is in an encrypted directory is encrypted.
        for path in ancestors.into_iter().rev() {
            if found.iter().any(|it| it.path == path) {
                break;
            }
            if !open.insert(path.to_owned()) {
                continue;
            }
            let status = previous.glance(path)?;
            let Some(why) = status.and_then(|status| why_closed(&status, subvolumes)) else {
                continue;
            };
            // Of what is known not to be there nothing is moved.
            if why == Why::Subvolume && below.1 == PERSISTED && previous.glance(&below.0)?.is_none()
            {
                open.remove(path);
                break;
            }
            open.remove(path);
            let path = path.to_owned();
            let of_root = are_of_root(previous, path.ancestors())?;
            found.push(Closed { path, below: below.clone(), why, of_root });
            break;
        }
    }
    Ok(found)
}

fn why_closed(status: &Statx, subvolumes: bool) -> Option<Why> {
    if status.stx_attributes.contains(StatxAttributes::ENCRYPTED) {
        return Some(Why::Encrypted);
    }
    let subvolume = || btrfs::entry_kind(status.stx_ino) == btrfs::EntryKind::SubvolumeRoot;
    (subvolumes && subvolume()).then_some(Why::Subvolume)
}

/// Whether all these directories, below a volume's root, are root's, and nobody else may write to them.
pub fn are_of_root<'p>(
    root: &Dir,
    directories: impl Iterator<Item = &'p Path>,
) -> anyhow::Result<bool> {
    for directory in directories {
        let directory = root.open_dir(directory)?;
        let status = directory.status()?;
        if status.stx_uid != 0 || status.stx_mode & 0o022 != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_connector(blank: &Dir, rules: &Rules, connector: &Path) -> anyhow::Result<()> {
    let (path, kind) = match reach(blank, connector)? {
        Reached::Entry(kind) if kind != Kind::Directory => (connector.to_owned(), kind),
        // Inside a persisted path the previous state decides, whatever the blank has there.
        Reached::Blocked(path, kind) if rules.verdict(&path) == Verdict::Connector => (path, kind),
        _ => return Ok(()),
    };
    bail!(
        "the blank has a {kind} at {path:?}, where persisted paths need a directory; change the \
         blank or the configuration"
    )
}

fn reach(root: &Dir, path: &Path) -> anyhow::Result<Reached> {
    // Mostly it is there, and one look is enough.
    if let Some(status) = root.glance(path)? {
        return Ok(Reached::Entry(at::kind(&status).into()));
    }
    let mut above: Option<Dir> = None;
    let mut so_far = PathBuf::new();
    let mut kind = Kind::Directory;
    for name in path {
        if kind != Kind::Directory {
            return Ok(Reached::Blocked(so_far, kind));
        }
        if let Some(last) = so_far.file_name() {
            // What is mounted there is not the volume's, and hides what is.
            above = match above.as_ref().unwrap_or(root).open_dir(last) {
                Err(error) if is(&error, Errno::XDEV) => return Ok(Reached::Nothing),
                opened => Some(opened?),
            };
        }
        so_far.push(name);
        kind = match above.as_ref().unwrap_or(root).status_optional(name) {
            Ok(Some(status)) => at::kind(&status).into(),
            // Of a single name: the filesystem cannot hold it. A user's symlink may say anything.
            Err(error) if !is(&error, Errno::NAMETOOLONG) => return Err(error),
            Ok(None) | Err(_) => return Ok(Reached::Nothing),
        };
    }
    Ok(Reached::Entry(kind))
}
