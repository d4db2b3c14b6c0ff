//! Where something recovered goes.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Statx, open, openat2};
use rustix::io::Errno;

use super::request::{Refused, Request, Source, check_not_own};
use crate::ask::lookup::{self, Found, Place, Volumes};
use crate::config::Config;
use crate::fs::Dir;
use crate::fs::at;
use crate::names::shown;
use crate::own::Own;
use crate::rules::Verdict;
use crate::volume;

/// Where something recovered goes.
pub(super) struct Target {
    /// Absolute and normal.
    pub(super) path: PathBuf,
    /// On a volume that is reset, its place there.
    pub(super) place: Option<Place>,
    /// The root of that volume.
    pub(super) root: Option<Dir>,
    /// The innermost directory on the way that is there.
    pub(super) parent: Dir,
    /// The name in it that is taken: the target's, or that of the first directory which is missing.
    pub(super) name: OsString,
    /// The directories that are missing, the outermost first, by their paths in the source.
    pub(super) above: Vec<PathBuf>,
    /// Whether something has the target's name.
    pub(super) exists: bool,
}

impl Target {
    /// Finds it. Directories above it are made only where the path goes back to its own place, after
    /// those of `source`, if that has them.
    pub(super) fn find(
        volumes: &mut Volumes<'_>,
        request: &Request<'_>,
        source: Option<&Dir>,
    ) -> anyhow::Result<Self> {
        let to = request.to.unwrap_or(request.path);
        let place = lookup::place(volumes.config(), to)?;
        check_not_own(place.as_ref(), to)?;
        let on_volume = place.filter(|place| place.over.is_none());
        let Some(place) = on_volume else { return Self::elsewhere(to) };
        let root = volumes.store(place.volume)?.live()?;
        let mut target = Self::beneath(to, &place.below, &root)?;
        for above in &target.above {
            let Some(source) = source.filter(|_| request.to.is_none_or(|to| to == request.path))
            else {
                return Err(no_directory(to));
            };
            // What is made is made after the source, so the source must have it.
            source.open_dir(above)?;
        }
        target.place = Some(place);
        target.root = Some(root);
        Ok(target)
    }

    fn beneath(path: &Path, below: &Path, root: &Dir) -> anyhow::Result<Self> {
        let found = lookup::find(root, below)?;
        if let Found::Unreachable { ancestor, kind } = &found {
            return Err(Refused::Wrong(format!(
                "{} cannot be recovered there: {} is a {kind} now, and is not followed; give --to, \
                 with the path that it stands for",
                shown(path),
                shown(ancestor)
            ))
            .into());
        }
        let mut above = Vec::new();
        let mut here = below;
        loop {
            let (parent, name) = at::split(here)
                .with_context(|| format!("{path:?} is a volume itself; give a path in it"))?;
            if let Some(parent) = root.open_dir_optional(parent)? {
                let (path, name) = (path.to_owned(), name.to_owned());
                let exists = found.entry().is_some();
                above.reverse();
                return Ok(Self { path, place: None, root: None, parent, name, above, exists });
            }
            above.push(parent.to_owned());
            here = parent;
        }
    }

    /// A path of the running system that is on no volume.
    fn elsewhere(path: &Path) -> anyhow::Result<Self> {
        let (above, name) = at::split(path)
            .with_context(|| format!("{path:?} is no place for anything; give another --to"))?;
        let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context("cannot open /")?;
        let below = above.strip_prefix("/").context("BUG: the path is not absolute")?;
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let parent = match openat2(&root, below, flags, Mode::empty(), resolve) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Err(no_directory(path)),
            Err(Errno::LOOP) => {
                return Err(Refused::Wrong(format!(
                    "there is a symbolic link on the way to {}, which is not followed; give the path \
                     that it stands for",
                    shown(path)
                ))
                .into());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot open {above:?}")),
        };
        let (parent, name) = (Dir::new(parent, above), name.to_owned());
        let (place, root, above) = (None, None, Vec::new());
        let exists = parent.holds(&name)?;
        Ok(Self { path: path.to_owned(), place, root, parent, name, above, exists })
    }

    /// The directories that are made, as they are told.
    pub(super) fn made(&self) -> Vec<String> {
        let mut paths: Vec<&Path> = self.path.ancestors().skip(1).take(self.above.len()).collect();
        paths.reverse();
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    /// The path of something beside what is made.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        let outermost = self.path.ancestors().nth(self.above.len()).unwrap_or(&self.path);
        outermost.with_file_name(name)
    }

    /// The root of the volume whose trash takes what is replaced, and the target's place on it.
    ///
    /// # Errors
    /// No trash can take it: a name is moved within one filesystem, or one subvolume of btrfs.
    pub(super) fn replaceable(&self) -> anyhow::Result<(&Dir, &Place)> {
        let refused = |why: &str| {
            Refused::Wrong(format!(
                "{} is there, and {why}, so nothing would keep what --force replaces; move it \
                 elsewhere first, or give another --to",
                shown(&self.path)
            ))
        };
        let (Some(root), Some(place)) = (&self.root, &self.place) else {
            return Err(refused("is on no volume that is reset").into());
        };
        let Some(own) = Own::open(root)? else {
            return Err(refused("the volume that it is on was never reset").into());
        };
        let (trash, around) = (own.status()?, self.parent.status()?);
        if device(&trash) != device(&around) {
            return Err(refused("is in a filesystem or subvolume of its own").into());
        }
        Ok((root, place))
    }

    /// What is there may be replaced if that was asked for, something can keep it, and nothing is
    /// mounted, nested or persisted in it.
    pub(super) fn check_replaceable(
        &self,
        config: &Config,
        force: bool,
        source: Source,
    ) -> anyhow::Result<()> {
        if !force {
            return Err(Refused::Exists(format!(
                "{} is there, and differs from {source}; give --force to replace all of it, or --to \
                 for another place",
                shown(&self.path)
            ))
            .into());
        }
        if let Some(mounted) = volume::mounted_at_or_below(&self.path)? {
            return Err(Refused::Wrong(format!(
                "{} is in use as a mount point, so {} cannot be replaced; unmount it, or give --to",
                shown(&mounted),
                shown(&self.path)
            ))
            .into());
        }
        let (root, place) = self.replaceable()?;
        let volume = &config.volumes[place.volume];
        let mut persisted = Vec::new();
        if volume.rules.verdict(&place.below) != Verdict::Persisted {
            for it in volume.rules.persisted() {
                if it.path.starts_with(&place.below)
                    && lookup::find(root, &it.path)?.entry().is_some()
                {
                    persisted.push(shown(&volume.mount_point.join(it.path)));
                }
            }
        }
        if !persisted.is_empty() {
            return Err(Refused::Wrong(format!(
                "{} holds what is persisted ({}), which would be replaced with it; recover what is in \
                 it path by path, or give --to",
                shown(&self.path),
                persisted.join(", ")
            ))
            .into());
        }
        // It would go to the trash with what is around it, and no generation holds it.
        let nested = nested_in(&self.parent, &self.name)
            .with_context(|| format!("cannot look for subvolumes in {}", shown(&self.path)))?;
        match nested {
            Some(nested) => Err(Refused::Wrong(format!(
                "{} is a subvolume of its own, which {source} does not hold, and would be lost with {}; \
                 recover what is beside it path by path, or give --to",
                shown(&self.path.with_file_name(nested)),
                shown(&self.path)
            ))
            .into()),
            None => Ok(()),
        }
    }
}

/// A subvolume at or below `name` in `parent`, by its path from there, if there is one. Nothing is
/// mounted there.
fn nested_in(parent: &Dir, name: &OsStr) -> anyhow::Result<Option<PathBuf>> {
    let around = device(&parent.status()?);
    let mut buffer = vec![MaybeUninit::uninit(); at::BATCH];
    let mut unread = vec![PathBuf::from(name)];
    while let Some(path) = unread.pop() {
        // What goes away meanwhile, or was no directory, holds none.
        let Some(directory) = parent.open_dir_optional(&path)? else { continue };
        if device(&directory.status()?) != around {
            return Ok(Some(path));
        }
        loop {
            let batch = at::next_batch(directory.as_fd(), &mut buffer)?;
            if batch.is_empty() {
                break;
            }
            let inside = batch
                .iter()
                .filter(|it| matches!(it.kind, FileType::Directory | FileType::Unknown));
            unread.extend(inside.map(|it| path.join(at::os_name(&it.name))));
        }
    }
    Ok(None)
}

fn device(status: &Statx) -> (u32, u32) {
    (status.stx_dev_major, status.stx_dev_minor)
}

fn no_directory(path: &Path) -> anyhow::Error {
    let above = path.parent().unwrap_or(Path::new("/"));
    Refused::Wrong(format!(
        "there is no directory {} to put it into; make it first, or give another --to",
        shown(above)
    ))
    .into()
}
