//! Identifiers, and finding a subvolume by its own.

use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::str::FromStr;

use linux_raw_sys::btrfs::{BTRFS_UUID_KEY_SUBVOL, BTRFS_UUID_TREE_OBJECTID};

use crate::error::Result;
use crate::ioctl::FEW;
use crate::search::{Key, le64, range};

/// A 128-bit identifier, shown in the usual five groups.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

impl Uuid {
    pub(crate) const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The identifier's bytes, as they are on disk.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// btrfs writes zeroes for "none".
    pub(crate) fn present(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an identifier as [`Uuid`] is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct NotAUuid;

impl FromStr for Uuid {
    type Err = NotAUuid;

    fn from_str(text: &str) -> std::result::Result<Self, NotAUuid> {
        let digits = text.replace('-', "");
        let number = u128::from_str_radix(&digits, 16).map_err(|_| NotAUuid)?;
        let uuid = Self(number.to_be_bytes());
        if uuid.to_string() == text { Ok(uuid) } else { Err(NotAUuid) }
    }
}

/// The id of the subvolume with that identifier, on the filesystem of `file`; `None` where there is
/// none any more. Needs `CAP_SYS_ADMIN`.
///
/// It is read from the filesystem's index of them. A kernel without one makes it when it mounts the
/// filesystem.
pub fn subvolume_with_uuid(file: impl AsFd, uuid: Uuid) -> Result<Option<u64>> {
    // The key is the identifier itself, in two halves.
    let key =
        Key { object: le64(&uuid.0, 0)?, kind: BTRFS_UUID_KEY_SUBVOL, offset: le64(&uuid.0, 8)? };
    let tree = u64::from(BTRFS_UUID_TREE_OBJECTID);
    range::<FEW, u64>(file.as_fd(), tree, (key, key), 0, |_, data| {
        Ok(ControlFlow::Break(le64(data, 0)?))
    })
}
