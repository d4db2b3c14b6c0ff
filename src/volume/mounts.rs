//! Mounts: our own, on directories of our own, and those of others.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, open, unlinkat};
use rustix::io::Errno;

use crate::fs::Dir;
use crate::fs::at;
use crate::fs::octal::unescape;
use crate::text::exact_number;

/// A filesystem mounted to do the work, out of sight of everybody else: see
/// [`crate::fs::process`].
#[derive(Debug)]
pub(super) struct Mount {
    path: PathBuf,
    root: Dir,
}

impl Mount {
    /// Mounts on a new directory.
    pub(super) fn new<E>(
        name: &str,
        mount: impl FnOnce(&Path) -> Result<(), E>,
    ) -> anyhow::Result<Self>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let path = new_directory(name)?;
        // Paths in it are the volume's own, and begin at its root.
        let mounted = mount(&path).map_err(anyhow::Error::from).and_then(|()| {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = open(&path, flags, Mode::empty());
            Ok(Dir::new(root.with_context(|| format!("cannot open {path:?}"))?, ""))
        });
        match mounted {
            Ok(root) => Ok(Self { path, root }),
            Err(error) => {
                remove_directory(&path).context(error.to_string())?;
                Err(error)
            }
        }
    }

    /// Unmounts and removes the directory. Every descriptor in it must be closed.
    pub(super) fn close<E>(self, unmount: impl FnOnce(&Path) -> Result<(), E>) -> anyhow::Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let Self { path, root } = self;
        drop(root);
        unmount(&path)?;
        remove_directory(&path)
    }

    /// The number of its filesystem in the list of mounts.
    pub(super) fn device(&self) -> anyhow::Result<String> {
        let mounts = all()?;
        let own = mounts.iter().rfind(|mount| mount.mount_point == self.path);
        let own = own.with_context(|| format!("{:?} is not in the list of mounts", self.path))?;
        Ok(own.device.clone())
    }

    /// Whether an entry of the list of mounts is this one.
    pub(super) fn is(&self, other: &Mounted) -> bool {
        other.mount_point == self.path
    }
}

/// What went wrong in any of these, in one error: none is left undone because another failed.
pub(super) fn all_done(
    results: impl IntoIterator<Item = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let failed = results.into_iter().filter_map(Result::err);
    let told: Vec<String> = failed.map(|error| format!("{error:#}")).collect();
    ensure!(told.is_empty(), "{}", told.join("; and "));
    Ok(())
}

impl Deref for Mount {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.root
    }
}

/// A directory of our own, which nobody else can have prepared. The modes are given because the
/// process has no umask.
fn new_directory(name: &str) -> anyhow::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let parent = Path::new("/run/darlings");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
        .with_context(|| format!("cannot make {parent:?}"))?;
    if COUNT.load(Ordering::Relaxed) == 0 {
        remove_left_over(parent).with_context(|| format!("cannot tidy up {parent:?}"))?;
    }
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{}-{number}-{name}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            // Of a run that was killed, whose process had our number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {path:?}")),
        }
    }
}

/// Removes the directories of runs that were killed. What they had mounted went with their processes.
fn remove_left_over(parent: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let name = entry?.file_name();
        let process = name.to_str().and_then(|name| name.split_once('-')).map(|(number, _)| number);
        let Some(process) = process.and_then(exact_number) else { continue };
        if Path::new("/proc").join(process.to_string()).try_exists()? {
            continue;
        }
        match unlinkat(CWD, parent.join(&name), AtFlags::REMOVEDIR) {
            // Another run was faster, or it is none of ours.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::BUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {name:?}")),
        }
    }
    Ok(())
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir(path).with_context(|| format!("cannot remove {path:?}"))
}

/// One line of `/proc/PID/mountinfo`; see `proc_pid_mountinfo(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// `major:minor` of the filesystem.
    pub(super) device: String,
    /// The path in the filesystem that is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) mount_point: PathBuf,
    /// Type of the filesystem.
    pub(super) kind: String,
    /// Device or dataset.
    pub(super) source: String,
    /// Options of the filesystem itself.
    pub(super) options: String,
}

/// The mounts that this process sees, and those that the machine's first process sees.
pub(super) fn all() -> anyhow::Result<Vec<Mounted>> {
    let mut mounts = of_process("self")?;
    for mount in of_process("1")? {
        if !mounts.contains(&mount) {
            mounts.push(mount);
        }
    }
    Ok(mounts)
}

/// The mounts that a process sees, by its number or as `self`.
pub(super) fn of_process(process: &str) -> anyhow::Result<Vec<Mounted>> {
    let path = format!("/proc/{process}/mountinfo");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse(line).with_context(|| format!("{path}: {:?}", String::from_utf8_lossy(line)))
        })
        .collect()
}

/// The mount that an open directory is reached by in this process, and its path in the filesystem
/// that is mounted there.
pub(super) fn holding(directory: &Dir) -> anyhow::Result<(Mounted, PathBuf)> {
    let link = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    let path = std::fs::read_link(&link).with_context(|| format!("cannot read {link}"))?;
    // Of several on one mount point the last one hides the others.
    let mount = of_process("self")?
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len())
        .with_context(|| format!("no mount holds {path:?}"))?;
    let below = path.strip_prefix(&mount.mount_point).context("BUG: not below its mount")?;
    let inside = at::joined(&mount.root, below);
    Ok((mount, inside))
}

fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = text(fields.nth(2)?);
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    fields.find(|field| field == b"-")?;
    let kind = text(fields.next()?);
    let source = unescape(fields.next()?).to_string_lossy().into_owned();
    let options = text(fields.next().unwrap_or_default());
    Some(Mounted { device, root, mount_point, kind, source, options })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Where anything is mounted, in the view of this process and in that of the machine's first one.
pub fn mount_points() -> anyhow::Result<BTreeSet<PathBuf>> {
    Ok(all()?.into_iter().map(|mounted| mounted.mount_point).collect())
}

/// What is mounted over a path of a volume: the innermost mount point at or above `path` that lies
/// below the volume's own.
pub fn mounted_over(mount_point: &Path, path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let over = |point: &PathBuf| {
        point != mount_point && point.starts_with(mount_point) && path.starts_with(point)
    };
    Ok(mount_points()?.into_iter().filter(over).max_by_key(|point| point.as_os_str().len()))
}

/// A mount point at or below `path`, if there is one.
pub fn mounted_at_or_below(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    Ok(mount_points()?.into_iter().find(|point| point.starts_with(path)))
}

#[cfg(test)]
mod tests {
    use super::{Mounted, all_done, parse};

    #[test]
    fn every_failure_is_told_and_none_is_no_failure() {
        let failed = |why: &'static str| Err(anyhow::anyhow!(why).context("cannot unmount"));
        let results = [failed("busy"), Ok(()), failed("gone")];
        let told = all_done(results).map_err(|error| error.to_string());
        assert_eq!(told, Err("cannot unmount: busy; and cannot unmount: gone".to_owned()));
        assert!(all_done([Ok(()), Ok(())]).is_ok());
    }

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let line = br"36 35 0:34 /@home\040a /mnt/b\134c rw,noatime master:1 - btrfs /dev/vda1 rw";
        assert_eq!(
            parse(line),
            Some(Mounted {
                device: "0:34".into(),
                root: "/@home a".into(),
                mount_point: r"/mnt/b\c".into(),
                kind: "btrfs".into(),
                source: "/dev/vda1".into(),
                options: "rw".into(),
            })
        );
        assert_eq!(parse(b"36 35 0:34"), None);
    }
}
