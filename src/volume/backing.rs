//! Mounts inside a volume that come from something in the same volume: an image behind a loop device, also
//! as a partition of it or below device mapper (as systemd-homed mounts `/home/mia` from
//! `/home/mia.home`); the directory that eCryptfs or a FUSE filesystem encrypts. Such a mount is safe only
//! if what it comes from is.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, major, minor};

use super::mounts::{self, Mounted, mounted_over};
use crate::config;
use crate::fs::at;

/// A mount, and what it comes from; both in the running system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromWithin {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The image or the directory, which is on the volume.
    pub backing: PathBuf,
}

/// The mounts inside a volume that come from something on the volume itself.
pub fn mounted_from_within(volume: &config::Volume) -> anyhow::Result<Vec<FromWithin>> {
    let is_inside =
        |path: &Path| path != volume.mount_point && path.starts_with(&volume.mount_point);
    let mut found = Vec::new();
    for mount in mounts::of_process("self")?.into_iter().filter(|it| is_inside(&it.mount_point)) {
        for backing in backing(&mount)? {
            let here =
                is_inside(&backing) && mounted_over(&volume.mount_point, &backing)?.is_none();
            // What is mounted of a directory onto itself hides it, and comes from it.
            if here || backing == mount.mount_point {
                found.push(FromWithin { mount_point: mount.mount_point.clone(), backing });
            }
        }
    }
    Ok(found)
}

fn backing(mount: &Mounted) -> anyhow::Result<Vec<PathBuf>> {
    let Mounted { kind, source, device, .. } = mount;
    // A user chooses what a FUSE filesystem says that it comes from: it is not looked at.
    if kind == "ecryptfs" || kind == "fuse" || kind.starts_with("fuse.") {
        return Ok(source.starts_with('/').then(|| PathBuf::from(source)).into_iter().collect());
    }
    if !device.starts_with("0:") {
        return files_behind(device);
    }
    // Of a filesystem that has a device of its own the list has another number.
    if !source.starts_with("/dev/") {
        return Ok(Vec::new());
    }
    let status = at::present(rustix::fs::stat(source.as_str()));
    match status.with_context(|| format!("cannot look at {source:?}"))? {
        Some(status) if FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice => {
            files_behind(&format!("{}:{}", major(status.st_rdev), minor(status.st_rdev)))
        }
        _ => Ok(Vec::new()),
    }
}

/// The files behind a block device by its number, as they are called since they were attached.
fn files_behind(device: &str) -> anyhow::Result<Vec<PathBuf>> {
    let device = Path::new("/sys/dev/block").join(device);
    let read = |path: &Path| -> anyhow::Result<Option<String>> {
        let text = at::present(std::fs::read_to_string(path));
        let text = text.with_context(|| format!("cannot read {path:?}"))?;
        Ok(text.map(|text| text.trim_end_matches('\n').to_owned()))
    };
    // Of a whole loop device, or of one whose partition it is.
    for file in ["loop/backing_file", "../loop/backing_file"] {
        if let Some(file) = read(&device.join(file))? {
            return Ok(vec![PathBuf::from(file)]);
        }
    }
    let below = device.join("slaves");
    let cannot = || format!("cannot read {below:?}");
    let mut files = Vec::new();
    for entry in at::present(std::fs::read_dir(&below)).with_context(cannot)?.into_iter().flatten()
    {
        if let Some(number) = read(&entry.with_context(cannot)?.path().join("dev"))? {
            files.extend(files_behind(&number)?);
        }
    }
    Ok(files)
}
