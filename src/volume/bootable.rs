//! Whether a machine boots from the result as it did from the previous state: a root that held an init
//! with its dynamic loader and its C library, or the modules of the kernel that runs, must hold them
//! afterwards. Otherwise nothing is reset.
//!
//! A root that never held them is not asked for them: NixOS has both in the store, and its volumes
//! are reset to nothing at all.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::FileType;

use super::elsewhere::{MOST_LINKS, through};
use crate::cmdline::Asked;
use crate::config::{self, Backing};
use crate::fs::Dir;
use crate::fs::at;
use crate::names::shown;
use crate::rules::{Rules, Verdict};

/// Where kernels look for an init, and where distributions have it.
const INITS: [&str; 5] =
    ["/sbin/init", "/usr/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/init"];

/// What a distribution with a merged /usr has as links into it. Where a root lacks one of them, systemd makes
/// it before it starts the init (`base-filesystem.c`).
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The C library, beside its dynamic loader. That of musl is its loader.
const LIBRARY: &str = "libc.so.6";

/// NixOS's, which the boot loader names by its path in the store.
const INIT_OF_NIXOS: &str = "/nix/var/nix/profiles/system/init";

/// Where distributions have the modules of their kernels, by the kernels' releases.
const MODULES: [&str; 2] = ["/usr/lib/modules", "/lib/modules"];

/// The files that make the next reset happen, where a package installs them.
const OURS: [&str; 7] = [
    "/etc/darlings.toml",
    "/usr/bin/darlings",
    "/usr/local/bin/darlings",
    "/usr/lib/dracut/modules.d/90darlings",
    "/usr/lib/systemd/system/darlings-reset.service",
    "/usr/lib/systemd/system/darlings-purge.service",
    "/usr/lib/systemd/system/darlings-purge.timer",
];

/// Refuses a result that lacks what the previous state boots by.
pub(super) fn ensure(
    volume: &config::Volume,
    asked: Asked,
    previous: &Dir,
    blank: Option<&Dir>,
) -> anyhow::Result<()> {
    let trees = Trees::of(volume, asked, previous, blank);
    let release = rustix::system::uname();
    let release = release.release().to_str().context("the kernel's release is not UTF-8")?;
    let [modules, index] = [release.to_owned(), format!("{release}/modules.dep")]
        .map(|below| MODULES.map(|modules| Path::new(modules).join(&below)).to_vec());
    let kernel = format!("modules of the running kernel {release}");
    let refuse = |what: &str, has: &Path| -> anyhow::Result<()> {
        bail!(
            "the result would hold no {what}, and the previous state has {}; {}",
            shown(&has),
            remedy(volume, asked)
        )
    };
    for (what, paths) in [
        ("init", INITS.map(PathBuf::from).to_vec()),
        ("init of NixOS", vec![PathBuf::from(INIT_OF_NIXOS)]),
        (kernel.as_str(), modules),
        (kernel.as_str(), index),
    ] {
        if let Some(has) = trees.loses(&paths)? {
            refuse(what, &has)?;
        }
    }
    match trees.loses_loader()? {
        Some((what, has)) => refuse(what, &has),
        None => Ok(()),
    }
}

/// What the owner should know of a root that distributions install: what of it the reset erases that
/// matters later than in the next boot. Nothing is said of a root that boots by something else.
pub fn vanishing(
    volume: &config::Volume,
    previous: &Dir,
    blank: Option<&Dir>,
) -> anyhow::Result<Vec<String>> {
    let trees = Trees::of(volume, Asked::Reset, previous, blank);
    let mut notes = Vec::new();
    for release in trees.releases()? {
        let paths = MODULES.map(|modules| Path::new(modules).join(&release));
        if let Some(has) = trees.loses(&paths)? {
            notes.push(format!(
                "the result would not hold {}: when the kernel {} is booted, nothing is reset; \
                 make the blank anew, or persist it",
                shown(&has),
                shown(&release)
            ));
        }
    }
    let mut has_init = false;
    for init in INITS {
        has_init = has_init || trees.find(Tree::Previous, Path::new(init))?.is_some();
    }
    if !has_init {
        return Ok(notes);
    }
    for path in OURS {
        if let Some(has) = trees.loses(&[PathBuf::from(path)])? {
            notes.push(format!(
                "the reset erases {}, which belongs to darlings itself; persist it, or put it into the \
                 blank",
                shown(&has)
            ));
        }
    }
    Ok(notes)
}

/// The previous state and the result, whose entries are the blank's or the previous state's.
struct Trees<'a> {
    volume: &'a config::Volume,
    rules: Rules,
    previous: &'a Dir,
    blank: Option<&'a Dir>,
}

#[derive(Clone, Copy)]
enum Tree {
    Previous,
    Result,
}

impl<'a> Trees<'a> {
    fn of(
        volume: &'a config::Volume,
        asked: Asked,
        previous: &'a Dir,
        blank: Option<&'a Dir>,
    ) -> Self {
        // A restored generation is taken as it is, and nothing is kept beside it.
        let rules = match asked {
            Asked::Restore(_) => Rules::default(),
            Asked::Reset | Asked::Off | Asked::Snapshot => volume.rules.clone(),
        };
        Self { volume, rules, previous, blank }
    }

    /// The first of these paths that the previous state holds, if the result holds none of them. Paths
    /// are absolute; those that are not on the volume count for neither.
    fn loses(&self, paths: &[PathBuf]) -> anyhow::Result<Option<PathBuf>> {
        for path in paths {
            if self.find(Tree::Previous, path)?.is_none() {
                continue;
            }
            for path in paths {
                if self.find(Tree::Result, path)?.is_some() {
                    return Ok(None);
                }
            }
            return Ok(Some(path.clone()));
        }
        Ok(None)
    }

    /// What the inits of the result need to start, if none of them would have all of it that the
    /// previous state has.
    fn loses_loader(&self) -> anyhow::Result<Option<(&'static str, PathBuf)>> {
        let mut lost = None;
        for init in INITS {
            let Some(init) = self.find(Tree::Result, Path::new(init))? else { continue };
            match self.lost_by(&init)? {
                None => return Ok(None),
                it => lost = lost.or(it),
            }
        }
        Ok(lost)
    }

    /// The same of one, which is there in the result.
    fn lost_by(&self, init: &Path) -> anyhow::Result<Option<(&'static str, PathBuf)>> {
        let Some(loader) = self.loader_of(init)? else { return Ok(None) };
        let Some(before) = self.find(Tree::Previous, &loader)? else { return Ok(None) };
        let Some(after) = self.find(Tree::Result, &loader)? else {
            return Ok(Some(("dynamic loader of init", loader)));
        };
        let library = |at: &Path| self.volume.mount_point.join(at.with_file_name(LIBRARY));
        let had = self.find(Tree::Previous, &library(&before))?.is_some();
        let lost = had && self.find(Tree::Result, &library(&after))?.is_none();
        Ok(lost.then(|| ("C library of init", library(&before))))
    }

    /// The dynamic loader that a program of the result names.
    fn loader_of(&self, program: &Path) -> anyhow::Result<Option<PathBuf>> {
        let read = || -> anyhow::Result<Option<PathBuf>> {
            let Some(from) = self.source(Tree::Result, program)? else { return Ok(None) };
            if at::kind(&from.status_at(program)?) != FileType::RegularFile {
                return Ok(None);
            }
            Ok(elf::loader(&from.open_file(program)?.into())?)
        };
        read().with_context(|| format!("cannot read {program:?}"))
    }

    /// Where an absolute path is in a tree, below the volume's root, with all links followed. Nothing
    /// where it leads out of the volume.
    fn find(&self, tree: Tree, path: &Path) -> anyhow::Result<Option<PathBuf>> {
        let mount_point = &self.volume.mount_point;
        let mut next = Some(path.to_owned());
        for _ in 0..MOST_LINKS {
            let Some(path) = next.and_then(|path| self.below(&path)) else { return Ok(None) };
            next = match self.first_link(tree, &path)? {
                Way::Through => return Ok(Some(path)),
                Way::Nowhere => self.made_by_systemd(tree, &path)?,
                Way::Link(from, link) => Some(through(from, mount_point, &path, &link)?),
            };
        }
        Ok(None)
    }

    /// An absolute path below the volume's root; `None` where it is not on the volume. The links of a merged
    /// /usr are on another volume than what they lead to if that is a volume of its own.
    fn below(&self, path: &Path) -> Option<PathBuf> {
        let strip = |path: &Path| path.strip_prefix(&self.volume.mount_point).map(Path::to_owned);
        strip(path).ok().or_else(|| strip(&merged(path)?).ok())
    }

    /// Where a path leads whose first directory is a link that the root lacks and systemd makes.
    fn made_by_systemd(&self, tree: Tree, path: &Path) -> anyhow::Result<Option<PathBuf>> {
        let Some(leads_to) = merged(&self.volume.mount_point.join(path)) else { return Ok(None) };
        let first = Path::new(path.iter().next().unwrap_or_default());
        let is_there = match self.source(tree, first)? {
            Some(from) => from.glance(first)?.is_some(),
            None => false,
        };
        Ok((!is_there).then_some(leads_to))
    }

    fn first_link(&self, tree: Tree, path: &Path) -> anyhow::Result<Way<'a>> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.pop();
        for above in ancestors.into_iter().rev() {
            let cannot = || format!("cannot look at {above:?}");
            let Some(from) = self.source(tree, above).with_context(cannot)? else {
                return Ok(Way::Nowhere);
            };
            match from.glance(above)? {
                None => return Ok(Way::Nowhere),
                Some(status) if at::kind(&status) == FileType::Symlink => {
                    return Ok(Way::Link(from, above.to_owned()));
                }
                Some(_) => {}
            }
        }
        Ok(if path.as_os_str().is_empty() { Way::Nowhere } else { Way::Through })
    }

    /// The tree that the entry at a path comes from.
    fn source(&self, tree: Tree, path: &Path) -> anyhow::Result<Option<&'a Dir>> {
        let (previous, blank) = (Some(self.previous), self.blank);
        Ok(match (tree, self.rules.verdict(path)) {
            (Tree::Previous, _) | (Tree::Result, Verdict::Persisted) => previous,
            (Tree::Result, Verdict::Blank) => blank,
            (Tree::Result, Verdict::Connector) => match blank {
                Some(blank) if blank.glance(path)?.is_some() => Some(blank),
                _ => previous,
            },
        })
    }

    /// The kernels whose modules the previous state holds, by their releases.
    fn releases(&self) -> anyhow::Result<BTreeSet<OsString>> {
        let mut releases = BTreeSet::new();
        for modules in MODULES {
            let Some(path) = self.find(Tree::Previous, Path::new(modules))? else { continue };
            let found = self.previous.open_dir_optional(&path)?;
            let Some(directory) = found else { continue };
            releases.extend(directory.names()?);
        }
        Ok(releases)
    }
}

/// Where a path leads.
enum Way<'a> {
    /// To something, with no link on the way.
    Through,
    Nowhere,
    /// To a link first, in this tree.
    Link(&'a Dir, PathBuf),
}

/// Where an absolute path is in a merged /usr.
fn merged(path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix("/").ok()?;
    let first = below.iter().next()?;
    MERGED.iter().any(|name| first == *name).then(|| Path::new("/usr").join(below))
}

/// What to do about a blank without an operating system.
fn remedy(volume: &config::Volume, asked: Asked) -> String {
    let make = match (&volume.backing, asked) {
        (_, Asked::Restore(_)) => {
            return "choose another generation; if only the modules are missing, boot a kernel whose \
                    modules it holds"
                .to_owned();
        }
        (Backing::Dir(_), _) => {
            "copy the installed system to a directory (cp -ax) and name that as the blank"
        }
        (Backing::Btrfs(_) | Backing::Zfs(_), _) => {
            "name a blank that is not there yet and make it of the installed system with \
             `darlings init --from-live`"
        }
    };
    format!("{make}, or persist the directories that the system boots from")
}

mod elf;
#[cfg(test)]
mod tests;
