//! Volumes as the running system has them.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use darlings_btrfs as fs;

use super::mounts::{self, Mounted};
use crate::config::{self, Backing};
use crate::fs::Dir;
use crate::names::shown;

/// A plain directory is named where the initrd has it. Here it is at its mount point, unless something
/// is mounted there.
#[must_use]
pub fn in_running_system(volume: &config::Volume) -> config::Volume {
    let mut volume = volume.clone();
    let mount_point = volume.mount_point.clone();
    if let Backing::Dir(dir) = &mut volume.backing
        && dir.path.starts_with("/sysroot")
    {
        let here = |path: &Path| match path.strip_prefix("/sysroot") {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path.to_owned(),
        };
        dir.blank = dir.blank.as_deref().map(here);
        dir.path = mount_point;
    }
    volume
}

/// Whether something is mounted exactly there.
pub fn is_mount_point(path: &Path) -> anyhow::Result<bool> {
    Ok(mounts::all()?.iter().any(|mount| mount.mount_point == path))
}

/// Where an open directory lies below the root of the volume, whose own is `live`, if it does. It may
/// be reached by any mount, and on btrfs be in a subvolume that is nested in the volume.
pub fn place_in(
    volume: &config::Volume,
    live: &Dir,
    directory: &Dir,
) -> anyhow::Result<Option<PathBuf>> {
    let (mount, inside) = mounts::holding(directory)?;
    let root = match &volume.backing {
        Backing::Zfs(zfs) => {
            (mount.kind == "zfs" && mount.source == zfs.dataset).then(|| PathBuf::from("/"))
        }
        Backing::Btrfs(btrfs) => {
            let same = fs::is_btrfs(directory)?
                && fs::filesystem_uuid(directory)? == fs::filesystem_uuid(live)?;
            same.then(|| Path::new("/").join(&btrfs.subvolume))
        }
        Backing::Dir(_) => {
            let (own, root) = mounts::holding(live)?;
            (own.device == mount.device).then_some(root)
        }
    };
    let place = root.and_then(|root| inside.strip_prefix(root).map(Path::to_owned).ok());
    Ok(place)
}

/// What is mounted at the volume's mount point, in words, if it is something else than the volume. The
/// configuration may be right and meant for the next boot; it may also name the wrong one.
pub fn other_mount(volume: &config::Volume) -> anyhow::Result<Option<String>> {
    Ok(other(volume, &mounts::all()?))
}

fn other(volume: &config::Volume, mounts: &[Mounted]) -> Option<String> {
    // Of several the last one hides the others.
    let mounted = mounts.iter().rfind(|mount| mount.mount_point == volume.mount_point)?;
    let (is, here) = match &volume.backing {
        Backing::Zfs(zfs) => {
            let is = mounted.kind == "zfs" && mounted.source == zfs.dataset;
            (is, format!("the dataset {}", zfs.dataset))
        }
        Backing::Btrfs(btrfs) => {
            let root = Path::new("/").join(&btrfs.subvolume);
            let is = mounted.kind == "btrfs" && mounted.root == root;
            (is, format!("the subvolume {:?}", btrfs.subvolume))
        }
        Backing::Dir(_) => return None,
    };
    (!is).then(|| {
        let of = match mounted.kind.as_str() {
            "btrfs" => format!("the subvolume {:?} of {}", mounted.root, mounted.source),
            kind => format!("{} ({kind})", mounted.source),
        };
        format!("what is mounted there now is {of}; what is reset is {here}")
    })
}

/// What is mounted over a path of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// Where, at or above the path.
    pub mount_point: PathBuf,
    /// What, in words.
    pub source: String,
    /// It is a part of a filesystem, as a bind mount is, not the whole of one or of a subvolume.
    pub is_part: bool,
}

/// What is mounted over a path in this process' view: innermost, at or above `path`, and below the
/// volume's own mount point.
///
/// # Errors
/// The list of mounts cannot be read, or the mount cannot be looked at.
pub fn cover(mount_point: &Path, path: &Path) -> anyhow::Result<Option<Cover>> {
    let over = |mount: &Mounted| {
        mount.mount_point != mount_point
            && mount.mount_point.starts_with(mount_point)
            && path.starts_with(&mount.mount_point)
    };
    let mounts = mounts::of_process("self")?;
    let innermost =
        mounts.into_iter().filter(over).max_by_key(|it| it.mount_point.as_os_str().len());
    let Some(mount) = innermost else { return Ok(None) };
    let is_part = if mount.kind == "btrfs" {
        let at = &mount.mount_point;
        let inode = std::fs::metadata(at).with_context(|| format!("cannot look at {at:?}"))?.ino();
        fs::entry_kind(inode) != fs::EntryKind::SubvolumeRoot
    } else {
        mount.root != Path::new("/")
    };
    let source = if mount.root == Path::new("/") {
        mount.source
    } else {
        format!("{} of {}", shown(&mount.root), mount.source)
    };
    Ok(Some(Cover { mount_point: mount.mount_point, source, is_part }))
}

/// Why ZFS would clone no blocks in the dataset's pool, if it would not: what is kept is then copied,
/// which is slower and takes room.
///
/// # Errors
/// The module's switch cannot be read.
pub fn zfs_clones_no_blocks(zfs: &config::Zfs) -> anyhow::Result<Option<String>> {
    let path = "/sys/module/zfs/parameters/zfs_bclone_enabled";
    let is_on = match std::fs::read_to_string(path) {
        Ok(text) => text.trim() != "0",
        // 2.1 has neither the switch nor the cloning.
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
    };
    if !is_on {
        return Ok(Some(
            "ZFS clones no blocks here (zfs_bclone_enabled is 0, or the version is older than 2.2)"
                .to_owned(),
        ));
    }
    let pool = zfs.dataset.split('/').next().unwrap_or_default();
    let unknown = |why: &str| format!("cannot tell whether pool {pool} has block_cloning ({why})");
    // The library has no call that reads the features of a pool. A switch of NixOS has few programs on
    // its PATH.
    let run = |program: &&str| {
        let feature = ["get", "-H", "-o", "value", "feature@block_cloning", pool];
        Command::new(program).args(feature).output()
    };
    let mut outputs =
        ["zpool", "/run/booted-system/sw/bin/zpool", "/usr/sbin/zpool"].iter().map(run);
    let is_there = |output: &std::io::Result<_>| !matches!(output, Err(error) if error.kind() == ErrorKind::NotFound);
    let output = match outputs.find(is_there) {
        Some(Ok(output)) if output.status.success() => output,
        Some(Ok(output)) => {
            return Ok(Some(unknown(String::from_utf8_lossy(&output.stderr).trim())));
        }
        Some(Err(error)) => return Ok(Some(unknown(&format!("zpool: {error}")))),
        None => return Ok(Some(unknown("there is no program zpool"))),
    };
    let value = String::from_utf8_lossy(&output.stdout);
    Ok(match value.trim() {
        "enabled" | "active" => None,
        value => Some(format!(
            "the feature block_cloning of {pool} is {value} (zpool-features(7) says what enabling it means)"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Btrfs, Strategy, Zfs};

    fn mounted(kind: &str, source: &str, root: &str) -> Mounted {
        Mounted {
            device: "0:34".into(),
            root: root.into(),
            mount_point: "/".into(),
            kind: kind.into(),
            source: source.into(),
            options: String::new(),
        }
    }

    fn volume(backing: Backing) -> config::Volume {
        let (strategy, rules) = (Strategy::Carry, crate::rules::Rules::default());
        config::Volume { mount_point: "/".into(), backing, strategy, keep: None, rules }
    }

    #[test]
    fn another_mount_than_the_volume_is_told_and_the_uppermost_counts() {
        let zfs = volume(Backing::Zfs(Zfs {
            dataset: "rpool/local/root".into(),
            blank: None,
            newer_snapshots: config::NewerSnapshots::Refuse,
        }));
        let btrfs = volume(Backing::Btrfs(Btrfs {
            device: "/dev/vda".into(),
            subvolume: "@".into(),
            blank: None,
            generations: "@darlings/root".into(),
        }));
        let on_zfs = mounted("zfs", "rpool/local/root", "/");
        let on_btrfs = mounted("btrfs", "/dev/vda", "/@");
        let old = mounted("btrfs", "/dev/vda", "/@old");
        assert_eq!(other(&zfs, &[old.clone(), on_zfs.clone()]), None);
        assert_eq!(other(&btrfs, std::slice::from_ref(&on_btrfs)), None);
        assert_eq!(other(&btrfs, &[]), None);
        assert_eq!(
            other(&btrfs, &[on_btrfs.clone(), old]).as_deref(),
            Some(
                "what is mounted there now is the subvolume \"/@old\" of /dev/vda; what is reset is \
                 the subvolume \"@\""
            )
        );
        assert_eq!(
            other(&btrfs, &[on_zfs]).as_deref(),
            Some(
                "what is mounted there now is rpool/local/root (zfs); what is reset is the subvolume \
                 \"@\""
            )
        );
        assert_eq!(
            other(&zfs, &[on_btrfs]).as_deref(),
            Some(
                "what is mounted there now is the subvolume \"/@\" of /dev/vda; what is reset is the \
                 dataset rpool/local/root"
            )
        );
    }
}
