//! What the system makes again by itself, so that nobody misses it.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::fs::readlinkat;
use rustix::io::Errno;

use super::entry::in_running_system;
use super::entry::{DiffKind, Managed};
use crate::volume;

/// Where NixOS' own links point.
const GENERATED: [&[u8]; 2] = [b"/nix/store", b"/etc/static"];

/// What is needed to tell.
pub(super) struct System {
    mount_points: BTreeSet<PathBuf>,
    volume: PathBuf,
}

impl System {
    /// Looks at what is mounted now.
    pub(super) fn look(volume: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self { mount_points: volume::mount_points()?, volume: volume.to_owned() })
    }

    /// Whether something is mounted at a path below the volume's root.
    pub(super) fn is_mount_point(&self, path: &std::path::Path) -> bool {
        self.mount_points.contains(&in_running_system(&self.volume, path))
    }
}

/// Whether an entry that is no directory is one that the system makes.
pub(super) fn of_entry(
    parent: BorrowedFd<'_>,
    name: &CStr,
    kind: DiffKind,
) -> Result<Option<Managed>, Errno> {
    match kind {
        DiffKind::Socket => Ok(Some(Managed::Socket)),
        DiffKind::Symlink => {
            let target = readlinkat(parent, name, Vec::new())?;
            Ok(is_generated(target.as_bytes()).then_some(Managed::NixLink))
        }
        _ => Ok(None),
    }
}

/// Whether what a symbolic link points at is one of NixOS' own places, or in one.
pub(crate) fn is_generated(target: &[u8]) -> bool {
    GENERATED.iter().any(|place| {
        target.strip_prefix(*place).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    })
}

#[cfg(test)]
mod tests {
    use super::is_generated;

    #[test]
    fn a_link_of_nixos_points_at_or_into_one_of_two_places() {
        for target in ["/nix/store/abc-etc/etc", "/etc/static", "/etc/static/ssh/sshd_config"] {
            assert!(is_generated(target.as_bytes()), "{target}");
        }
        for target in ["/nix/storehouse", "/etc/statics/x", "nix/store/x", "/etc", ""] {
            assert!(!is_generated(target.as_bytes()), "{target}");
        }
    }
}
