//! A look at the persisted paths before anything is changed: which are there, which are not,
//! and which cannot be reached.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::fs::{FileType, Statx, StatxAttributes};
use rustix::io::Errno;
use serde::Serialize;

use crate::fs::at;
use crate::names::shown;
use crate::rules::{Rules, Verdict};

/// What a persisted path is in the previous state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// It is there.
    Present {
        /// `directory`, `file`, ...
        kind: &'static str,
    },
    /// It is not there, so the result has nothing there either.
    Absent,
    /// An ancestor is no directory. It is not followed: whoever owns it could point anywhere.
    Unreachable {
        /// The ancestor, below the volume's root.
        #[serde(serialize_with = "crate::text::shown_path")]
        ancestor: PathBuf,
        /// What it is instead.
        kind: &'static str,
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
    Entry(FileType),
    Nothing,
    Blocked(PathBuf, FileType),
}

/// Looks at every persisted path in the previous state, and at its connectors in the blank.
///
/// # Errors
/// A connector that is no directory in the blank: the configuration asks for what cannot be,
/// and nothing may be changed. An ancestor that is encrypted. Also every failure to look.
pub fn survey(
    rules: &Rules,
    previous: BorrowedFd<'_>,
    blank: Option<BorrowedFd<'_>>,
) -> anyhow::Result<Vec<Surveyed>> {
    if let Some(blank) = blank {
        for connector in rules.connectors() {
            check_connector(blank, rules, &connector)?;
        }
    }
    refuse_encrypted(rules, previous)?;
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
///
/// # Errors
/// Every failure to look.
pub fn state_at(previous: BorrowedFd<'_>, path: &Path) -> anyhow::Result<State> {
    Ok(match reach(previous, path)? {
        Reached::Entry(kind) => State::Present { kind: at::kind_name(kind) },
        Reached::Nothing => State::Absent,
        Reached::Blocked(ancestor, kind) => {
            State::Unreachable { ancestor, kind: at::kind_name(kind) }
        }
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
///
/// # Errors
/// Every failure to look.
pub fn survey_excluded(
    rules: &Rules,
    previous: BorrowedFd<'_>,
    surveyed: &[Surveyed],
) -> anyhow::Result<Vec<(PathBuf, Place)>> {
    let look = |path: PathBuf| {
        let source = source_of(&path, surveyed);
        let place = match reach(previous, &source)? {
            Reached::Entry(_) => Place::Taken,
            Reached::Blocked(..) => Place::None,
            Reached::Nothing => {
                let (above, _) = at::split(&source).context("BUG: the root is excluded")?;
                let above = at::directory_beneath(previous, above)
                    .with_context(|| format!("cannot look at {above:?}"))?;
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

/// Refuses what lies below a directory that is encrypted with fscrypt. While its key is not loaded the
/// kernel says of every name in it that nothing is there, and a directory that takes its place would
/// not be encrypted. It does not matter whether the key is loaded now: it may not be at the next boot.
fn refuse_encrypted(rules: &Rules, previous: BorrowedFd<'_>) -> anyhow::Result<()> {
    let encrypted = |status: &Statx| status.stx_attributes.contains(StatxAttributes::ENCRYPTED);
    ensure!(
        !encrypted(&at::status_of(previous).context("cannot look at the root")?),
        "the volume's root is encrypted with fscrypt, and without its key nothing in it is found; reset \
         a volume that is not inside an encrypted directory"
    );
    let persisted = rules.persisted().into_iter().map(|it| (it.path, "persisted"));
    let mut looked = BTreeSet::new();
    for (path, is) in persisted.chain(rules.excluded().into_iter().map(|it| (it, "excluded"))) {
        let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        ancestors.pop();
        // The outermost first: what is in an encrypted directory is encrypted.
        for ancestor in ancestors.into_iter().rev() {
            if !looked.insert(ancestor.to_owned()) {
                continue;
            }
            let status = at::status_beneath(previous, ancestor)
                .with_context(|| format!("cannot look at {}", shown(&ancestor)))?;
            ensure!(
                !status.as_ref().is_some_and(encrypted),
                "{} is {is}, and {} above it is encrypted with fscrypt: without its key nothing in it is \
                 found, and a new directory in its place would not be encrypted; persist {} itself, \
                 without exclusions",
                shown(&path),
                shown(&ancestor),
                shown(&ancestor)
            );
        }
    }
    Ok(())
}

fn check_connector(blank: BorrowedFd<'_>, rules: &Rules, connector: &Path) -> anyhow::Result<()> {
    let (path, kind) = match reach(blank, connector)? {
        Reached::Entry(kind) if kind != FileType::Directory => (connector.to_owned(), kind),
        // Inside a persisted path the previous state decides, whatever the blank has there.
        Reached::Blocked(path, kind) if rules.verdict(&path) == Verdict::Connector => (path, kind),
        _ => return Ok(()),
    };
    anyhow::bail!(
        "the blank has a {} at {path:?}, where persisted paths need a directory; change the \
         blank or the configuration",
        at::kind_name(kind)
    )
}

fn reach(root: BorrowedFd<'_>, path: &Path) -> anyhow::Result<Reached> {
    let cannot = |path: &Path| format!("cannot look at {path:?}");
    // Mostly it is there, and one look is enough.
    if let Some(status) = at::status_beneath(root, path).with_context(|| cannot(path))? {
        return Ok(Reached::Entry(at::kind(&status)));
    }
    let mut directory = at::open_beneath(root, Path::new("")).with_context(|| cannot(path))?;
    let mut so_far = PathBuf::new();
    let mut kind = FileType::Directory;
    for name in path {
        if kind != FileType::Directory {
            return Ok(Reached::Blocked(so_far, kind));
        }
        if !so_far.as_os_str().is_empty() {
            let (_, last) = at::split(&so_far).context("BUG: a path without a name")?;
            // What is mounted there is not the volume's, and hides what is.
            directory = match at::open_beneath(directory.as_fd(), Path::new(last)) {
                Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {
                    return Ok(Reached::Nothing);
                }
                opened => opened.with_context(|| cannot(&so_far))?,
            };
        }
        so_far.push(name);
        let status = match at::status(directory.as_fd(), &at::c_name(name)?) {
            // Of a single name: the filesystem cannot hold it. A user's symlink may say anything.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(Reached::Nothing),
            status => status.with_context(|| cannot(&so_far))?,
        };
        kind = at::kind(&status);
    }
    Ok(Reached::Entry(kind))
}
