//! The flags that `chattr` sets.

use std::fmt;
use std::os::fd::AsFd;

use linux_raw_sys::general as raw;
use rustix::fs::IFlags;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::attributes::Attribute;

/// The inode flags a user can set. Flags that only tell how the filesystem stores the inode
/// (extents, indexed directory, inline data, encryption) are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

/// Every flag that is captured, with the attribute it is.
pub const KNOWN: [(u32, Attribute); 16] = [
    (raw::FS_IMMUTABLE_FL, Attribute::Immutable),
    (raw::FS_APPEND_FL, Attribute::AppendOnly),
    (raw::FS_NOCOW_FL, Attribute::NoCow),
    (raw::FS_COMPR_FL, Attribute::Compress),
    (raw::FS_NOCOMP_FL, Attribute::NoCompress),
    (raw::FS_NODUMP_FL, Attribute::NoDump),
    (raw::FS_NOATIME_FL, Attribute::NoAccessTime),
    (raw::FS_SYNC_FL, Attribute::Synchronous),
    (raw::FS_DIRSYNC_FL, Attribute::SynchronousDirectory),
    (raw::FS_JOURNAL_DATA_FL, Attribute::JournalData),
    (raw::FS_NOTAIL_FL, Attribute::NoTail),
    (raw::FS_TOPDIR_FL, Attribute::TopDirectory),
    (raw::FS_PROJINHERIT_FL, Attribute::ProjectInherit),
    (raw::FS_SECRM_FL, Attribute::SecureRemoval),
    (raw::FS_UNRM_FL, Attribute::Undelete),
    (raw::FS_DAX_FL, Attribute::DirectAccess),
];

/// Flags that forbid to change or remove the entry.
pub const LOCKS: Flags = Flags(raw::FS_IMMUTABLE_FL | raw::FS_APPEND_FL);

impl Flags {
    /// The flag of one attribute; empty where the attribute is no flag.
    #[must_use]
    pub fn of(attribute: Attribute) -> Self {
        Self(KNOWN.iter().find(|(_, known)| *known == attribute).map_or(0, |(bit, _)| *bit))
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This one without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether any flag of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether none is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The attributes that are set, in the order of [`KNOWN`].
    pub fn attributes(self) -> impl Iterator<Item = Attribute> {
        KNOWN.into_iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, attribute)| attribute)
    }

    /// Reads the flags of an open file or directory; `None` where the filesystem has none.
    pub fn read(file: impl AsFd) -> rustix::io::Result<Option<Self>> {
        use rustix::io::Errno;
        match rustix::fs::ioctl_getflags(file) {
            Ok(flags) => {
                let known = KNOWN.iter().fold(0, |mask, (bit, _)| mask | bit);
                Ok(Some(Self(flags.bits() & known)))
            }
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Sets exactly these, leaving alone the flags that only describe the storage.
    ///
    /// btrfs refuses to go from NOCOW to compression (or back) in one step, so what goes is cleared
    /// before what comes is set.
    pub fn write(self, file: impl AsFd) -> rustix::io::Result<()> {
        let known = KNOWN.iter().fold(0, |mask, (bit, _)| mask | bit);
        let old = rustix::fs::ioctl_getflags(&file)?.bits();
        let set = |flags: u32| {
            rustix::fs::ioctl_setflags(&file, IFlags::from_bits_retain((old & !known) | flags))
        };
        let stays = old & known & self.0;
        if stays != old & known && stays != self.0 {
            set(stays)?;
        }
        set(self.0)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.attributes().map(Attribute::name).collect();
        formatter.write_str(&names.join(" "))
    }
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut flags = Self::default();
        for name in text.split_whitespace() {
            let (bit, _) = KNOWN
                .iter()
                .find(|(_, attribute)| attribute.name() == name)
                .ok_or_else(|| de::Error::custom(format!("{name} is no flag")))?;
            flags.0 |= bit;
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_as_words() {
        let flags = Flags::of(Attribute::NoCow).with(Flags::of(Attribute::Immutable));
        assert_eq!(flags.to_string(), "immutable nocow");
        assert_eq!(flags.without(LOCKS).to_string(), "nocow");
    }

    #[test]
    fn the_name_of_a_flag_has_no_space() {
        for (_, attribute) in KNOWN {
            assert!(!attribute.name().contains(' '), "{attribute:?}");
        }
    }
}
