//! The digest of a configuration: what a reset goes by, in sixteen digits.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::types::{Backing, Config};

/// The digest of a configuration: FNV-1a with 64 bits, since nobody but root writes either side.
#[must_use]
pub fn digest(config: &Config) -> String {
    let mut parts = vec![format!("{:?}", config.on_failure).into_bytes()];
    let mut volumes: Vec<_> = config.volumes.iter().collect();
    volumes.sort_by_key(|volume| &volume.mount_point);
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    for volume in volumes {
        let (kind, places) = match &volume.backing {
            Backing::Btrfs(it) => (
                "btrfs",
                [Some(&it.device), Some(&it.subvolume), it.blank.as_ref(), Some(&it.generations)],
            ),
            Backing::Dir(it) => ("dir", [Some(&it.path), it.blank.as_ref(), None, None]),
            Backing::Zfs(it) => {
                let newer = format!("{:?}", it.newer_snapshots);
                let blank = it.blank.as_deref().unwrap_or_default();
                parts.extend([&it.dataset, blank, &newer].map(|text| text.as_bytes().to_vec()));
                ("zfs", [None; 4])
            }
        };
        parts.extend([kind.into(), bytes(&volume.mount_point)]);
        parts.push(format!("{:?}", volume.strategy).into_bytes());
        parts.extend(places.map(|place| place.map(|it| bytes(it)).unwrap_or_default()));
        let lists = [
            ("persisted", volume.rules.persisted().into_iter().map(|it| it.path).collect()),
            ("excluded", volume.rules.excluded()),
        ];
        for (name, paths) in lists {
            let paths: Vec<PathBuf> = paths;
            parts.push(name.into());
            parts.extend(paths.iter().map(|path| bytes(path)));
        }
    }
    // No path holds a NUL.
    format!("{:016x}", fnv1a(parts.join(&0).iter()))
}

pub(crate) fn fnv1a<'b>(bytes: impl Iterator<Item = &'b u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
