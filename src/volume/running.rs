//! Volumes as the running system has them.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use darlings_btrfs as fs;

use super::mounts::{self, Mounted};
use crate::config::{self, Backing};

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
///
/// # Errors
/// The list of mounts cannot be read.
pub fn is_mount_point(path: &Path) -> anyhow::Result<bool> {
    Ok(mounts::all()?.iter().any(|mount| mount.mount_point == path))
}

/// Where an open directory lies below the root of the volume, whose own is `live`, if it does. It may
/// be reached by any mount, and on btrfs be in a subvolume that is nested in the volume.
///
/// # Errors
/// The list of mounts cannot be read.
pub fn place_in(
    volume: &config::Volume,
    live: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
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
///
/// # Errors
/// The list of mounts cannot be read.
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

/// Whether ZFS would clone blocks if a pool can: the module's switch for it.
///
/// # Errors
/// It cannot be read.
pub fn zfs_clones_blocks() -> anyhow::Result<bool> {
    let path = "/sys/module/zfs/parameters/zfs_bclone_enabled";
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim() != "0"),
        // 2.1 has neither the switch nor the cloning.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
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
