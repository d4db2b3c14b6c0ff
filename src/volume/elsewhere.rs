//! Persisted paths that only stand for content elsewhere in the volume: a symbolic link, as systemd makes
//! one for a service with `DynamicUser=`, or the mount point of a home that systemd-homed keeps in an
//! image or a directory beside it. What is persisted is the link or the mount point, and the content is
//! erased unless it is persisted too.
//!
//! Where only root can have arranged it, it is a mistake in the configuration, and nothing is reset: the
//! content is what was meant. Where a user can have, it is a warning: no user keeps a volume from being
//! reset.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, Statx};

use crate::config;
use crate::fs::Dir;
use crate::fs::at::{self, Kind};
use crate::keep::survey::State;
use crate::keep::survey::Surveyed;
use crate::keep::survey::are_of_root;
use crate::keep::survey::state_at;
use crate::names::shown;
use crate::rules::Verdict;
use crate::text::absolute;
use crate::tree::{Comparison, NamedEntry};

/// As many links as the kernel follows (`MAXSYMLINKS`).
pub(super) const MOST_LINKS: usize = 40;

/// Files up to this size are compared with the blank's byte by byte.
const SMALL: u64 = 1 << 20;

/// Where systemd-homed keeps the home `NAME`: in an image, or in a directory or subvolume.
const OF_HOMED: [&str; 2] = [".home", ".homedir"];

/// A persisted path and the content that it stands for, which the reset erases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// The persisted path and where the content is, in the running system.
    path: PathBuf,
    content: PathBuf,
    /// What the path is.
    stands: Stands,
    /// The blank has something else in the content's place; otherwise it has nothing there.
    replaced: bool,
    /// Nobody but root can have arranged it.
    of_root: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stands {
    /// A link that says this.
    Link(PathBuf),
    HomeOfHomed,
}

impl Elsewhere {
    /// For a person.
    pub(super) fn words(&self) -> String {
        let (path, content) = (shown(&self.path), shown(&self.content));
        let stands = match &self.stands {
            Stands::Link(target) if absolute(&parent(&self.path), target) == self.content => {
                format!("is a symbolic link to {}", shown(target))
            }
            Stands::Link(target) => {
                format!("is a symbolic link to {}, which leads to {content}", shown(target))
            }
            Stands::HomeOfHomed => format!("is where systemd-homed mounts {content}"),
        };
        let erases =
            if self.replaced { "puts the blank's in place of that" } else { "erases that" };
        format!("{path} {stands}, and a reset {erases}; persist {content}")
    }

    /// Whether the reset is refused for it.
    pub(super) fn is_refused(&self) -> bool {
        self.of_root && !self.replaced
    }
}

/// Looks at every persisted path.
pub(super) fn look(
    volume: &config::Volume,
    surveyed: &[Surveyed],
    previous: &Dir,
    blank: Option<&Dir>,
) -> anyhow::Result<Vec<Elsewhere>> {
    let mut found = Vec::new();
    for it in surveyed.iter().filter(|it| it.from.is_none()) {
        let looking = Looking { volume, previous, blank };
        let one = looking.at(it);
        found.extend(one.with_context(|| format!("cannot look what {:?} stands for", it.path))?);
    }
    Ok(found)
}

struct Looking<'a> {
    volume: &'a config::Volume,
    previous: &'a Dir,
    blank: Option<&'a Dir>,
}

impl Looking<'_> {
    fn at(&self, persisted: &Surveyed) -> anyhow::Result<Option<Elsewhere>> {
        let path = &persisted.path;
        let stands = match &persisted.state {
            State::Present { kind: Kind::Symlink } => {
                let target = self.previous.read_link(path)?;
                self.resolve(path)?
                    .map(|(content, of_root)| (content, Stands::Link(target), of_root))
            }
            State::Present { kind: Kind::Directory } | State::Absent => self
                .home_of_homed(path)?
                .map(|(content, of_root)| (content, Stands::HomeOfHomed, of_root)),
            State::Present { .. } | State::Unreachable { .. } => None,
        };
        let Some((content, stands, of_root)) = stands else { return Ok(None) };
        if self.volume.rules.verdict(&content) != Verdict::Blank {
            return Ok(None);
        }
        // What is mounted there is not the volume's.
        let Some(status) = self.previous.glance(&content)? else { return Ok(None) };
        // A mount point, mostly. Whether a user's is empty is up to the user.
        if at::kind(&status) == FileType::Directory
            && are_of_root(self.previous, content.ancestors())?
            && self.previous.open_dir(&content)?.is_empty()?
        {
            return Ok(None);
        }
        let Some(replaced) = self.replaced(&content, &status)? else { return Ok(None) };
        let full = |path: &Path| self.volume.mount_point.join(path);
        let (path, content) = (full(path), full(&content));
        Ok(Some(Elsewhere { path, content, stands, replaced, of_root }))
    }

    /// Follows the links of a path within the volume. Answers also whether root alone can have made them.
    fn resolve(&self, path: &Path) -> anyhow::Result<Option<(PathBuf, bool)>> {
        let mount_point = &self.volume.mount_point;
        let (mut path, mut of_root) = (path.to_owned(), true);
        for _ in 0..MOST_LINKS {
            let link = match state_at(self.previous, &path)? {
                State::Present { kind: Kind::Symlink } => path.clone(),
                State::Unreachable { ancestor, kind: Kind::Symlink } => ancestor,
                State::Present { .. } => {
                    let of_root = of_root && self.is_in_hands_of_root(&path)?;
                    return Ok(Some((path, of_root)));
                }
                State::Absent | State::Unreachable { .. } => return Ok(None),
            };
            of_root = of_root && self.is_in_hands_of_root(&link)?;
            match through(self.previous, mount_point, &path, &link)?.strip_prefix(mount_point) {
                Ok(leads_to) if !leads_to.as_os_str().is_empty() => path = leads_to.into(),
                // Elsewhere, or the volume itself.
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The image of a home that systemd-homed would mount at a path where the volume itself has nothing.
    fn home_of_homed(&self, path: &Path) -> anyhow::Result<Option<(PathBuf, bool)>> {
        for ending in OF_HOMED {
            let mut image = path.as_os_str().to_owned();
            image.push(ending);
            let image = PathBuf::from(image);
            if self.previous.glance(&image)?.is_none() {
                continue;
            }
            if let Some(own) = self.previous.open_dir_optional(path)?
                && !own.is_empty()?
            {
                return Ok(None);
            }
            let of_root = self.is_in_hands_of_root(&image)?;
            return Ok(Some((image, of_root)));
        }
        Ok(None)
    }

    /// Whether no user can have put there what is at a path: every directory above it is root's, and
    /// nobody else may write to it.
    fn is_in_hands_of_root(&self, path: &Path) -> anyhow::Result<bool> {
        are_of_root(self.previous, path.ancestors().skip(1))
    }

    /// Whether the blank has something else there than the previous state; `None` where it has the same.
    /// The blank's directories are taken to be the same: what is in them is the blank's after every reset.
    fn replaced(&self, content: &Path, status: &Statx) -> anyhow::Result<Option<bool>> {
        let Some(blank) = self.blank else { return Ok(Some(false)) };
        let Some(other) = blank.glance(content)? else { return Ok(Some(false)) };
        if at::kind(status) != at::kind(&other) {
            return Ok(Some(true));
        }
        let times = |it: &Statx| (it.stx_mtime.tv_sec, it.stx_mtime.tv_nsec);
        let same = match at::kind(status) {
            FileType::RegularFile if status.stx_size != other.stx_size => false,
            FileType::RegularFile if status.stx_size <= SMALL => {
                let (parent, name) = self.previous.open_parent(content)?;
                let (of_blank, _) = blank.open_parent(content)?;
                let name = &*at::c_name(&name)?;
                let one = NamedEntry { parent: parent.as_fd(), name, status };
                let other = NamedEntry { parent: of_blank.as_fd(), name, status: &other };
                Comparison::default().same_bytes(one, other)?
            }
            FileType::RegularFile => times(status) == times(&other),
            _ => true,
        };
        Ok((!same).then_some(true))
    }
}

/// The absolute path that a path stands for whose first link is `link`, both below a volume's root.
pub(super) fn through(
    tree: &Dir,
    mount_point: &Path,
    path: &Path,
    link: &Path,
) -> anyhow::Result<PathBuf> {
    let rest = path.strip_prefix(link).context("BUG: the link is not on the path")?;
    Ok(absolute(&parent(&mount_point.join(link)), &tree.read_link(link)?.join(rest)))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}
