//! The registry of attributes: everything section 2 of the contract names, and nothing without a
//! name. A test that takes out the copying of one expects the comparison to name exactly that one.

use std::fmt;

/// One attribute of an entry that a reset must get right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the name says it; see `Attribute::name` for the words")]
pub enum Attribute {
    Existence,
    Type,
    Bytes,
    SymlinkTarget,
    DeviceNumber,
    Owner,
    Group,
    Mode,
    ModificationTime,
    AccessTime,
    FileCapability,
    SecurityLabel,
    UserXattr,
    TrustedXattr,
    OtherXattr,
    AccessAcl,
    DefaultAcl,
    HardLinks,
    Holes,
    Immutable,
    AppendOnly,
    NoCow,
    Compress,
    NoCompress,
    NoDump,
    NoAccessTime,
    Synchronous,
    SynchronousDirectory,
    JournalData,
    NoTail,
    TopDirectory,
    ProjectInherit,
    SecureRemoval,
    Undelete,
    DirectAccess,
    Project,
}

impl Attribute {
    /// All of them, in the order in which differences are told.
    pub const ALL: [Self; 36] = [
        Self::Existence,
        Self::Type,
        Self::Bytes,
        Self::SymlinkTarget,
        Self::DeviceNumber,
        Self::Owner,
        Self::Group,
        Self::Mode,
        Self::ModificationTime,
        Self::AccessTime,
        Self::FileCapability,
        Self::SecurityLabel,
        Self::UserXattr,
        Self::TrustedXattr,
        Self::OtherXattr,
        Self::AccessAcl,
        Self::DefaultAcl,
        Self::HardLinks,
        Self::Holes,
        Self::Immutable,
        Self::AppendOnly,
        Self::NoCow,
        Self::Compress,
        Self::NoCompress,
        Self::NoDump,
        Self::NoAccessTime,
        Self::Synchronous,
        Self::SynchronousDirectory,
        Self::JournalData,
        Self::NoTail,
        Self::TopDirectory,
        Self::ProjectInherit,
        Self::SecureRemoval,
        Self::Undelete,
        Self::DirectAccess,
        Self::Project,
    ];

    /// The attributes that a file on btrfs can have: all but the last ones, which other filesystems
    /// know. [`fill::everything`](crate::fill::everything) makes a non-trivial value of each.
    pub const ON_BTRFS: &'static [Self] = Self::ALL.split_at(28).0;

    /// Its name, as it stands in a difference.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Existence => "existence",
            Self::Type => "type",
            Self::Bytes => "bytes",
            Self::SymlinkTarget => "symlink target",
            Self::DeviceNumber => "device number",
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Mode => "mode",
            Self::ModificationTime => "mtime",
            Self::AccessTime => "atime",
            Self::FileCapability => "file capability",
            Self::SecurityLabel => "security label",
            Self::UserXattr => "user xattr",
            Self::TrustedXattr => "trusted xattr",
            Self::OtherXattr => "other xattr",
            Self::AccessAcl => "access ACL",
            Self::DefaultAcl => "default ACL",
            Self::HardLinks => "hard links",
            Self::Holes => "holes",
            Self::Immutable => "immutable",
            Self::AppendOnly => "append-only",
            Self::NoCow => "nocow",
            Self::Compress => "compress",
            Self::NoCompress => "nocompress",
            Self::NoDump => "nodump",
            Self::NoAccessTime => "noatime",
            Self::Synchronous => "sync",
            Self::SynchronousDirectory => "dirsync",
            Self::JournalData => "journal-data",
            Self::NoTail => "notail",
            Self::TopDirectory => "topdir",
            Self::ProjectInherit => "project-inherit",
            Self::SecureRemoval => "secure-removal",
            Self::Undelete => "undelete",
            Self::DirectAccess => "dax",
            Self::Project => "project",
        }
    }

    /// Which attribute an extended attribute is, by its name.
    #[must_use]
    pub fn of_xattr(name: &[u8]) -> Self {
        match name {
            b"system.posix_acl_access" => Self::AccessAcl,
            b"system.posix_acl_default" => Self::DefaultAcl,
            b"security.capability" => Self::FileCapability,
            _ if name.starts_with(b"security.") => Self::SecurityLabel,
            _ if name.starts_with(b"user.") => Self::UserXattr,
            _ if name.starts_with(b"trusted.") => Self::TrustedXattr,
            _ => Self::OtherXattr,
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_attribute_is_listed_once_and_has_its_own_name() {
        let names: BTreeSet<&str> =
            Attribute::ALL.iter().map(|attribute| attribute.name()).collect();
        assert_eq!(names.len(), 36);
        assert!(Attribute::ALL.is_sorted());
        assert_eq!(Attribute::ON_BTRFS.last(), Some(&Attribute::SynchronousDirectory));
    }

    #[test]
    fn an_xattr_is_sorted_by_its_namespace() {
        assert_eq!(Attribute::of_xattr(b"security.capability"), Attribute::FileCapability);
        assert_eq!(Attribute::of_xattr(b"security.selinux"), Attribute::SecurityLabel);
        assert_eq!(Attribute::of_xattr(b"btrfs.compression"), Attribute::OtherXattr);
        assert_eq!(Attribute::of_xattr(b"system.posix_acl_default"), Attribute::DefaultAcl);
    }
}
