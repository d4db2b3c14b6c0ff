//! The manifest: every entry of a tree with every attribute, in memory and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::flags::Flags;
use crate::names::{ByteString, RelPath};

/// A whole tree, written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree {
    /// Every entry by its path; the root is the empty path.
    pub entries: BTreeMap<RelPath, Entry>,
}

/// One entry with its attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is, with what only that kind has.
    #[serde(flatten)]
    pub kind: Kind,
    /// The numeric owner.
    pub owner: u32,
    /// The numeric group.
    pub group: u32,
    /// The twelve bits: permissions, setuid, setgid, sticky.
    #[serde(with = "octal")]
    pub mode: u32,
    /// When it was last changed.
    pub mtime: Time,
    /// When it was last read.
    pub atime: Time,
    /// All extended attributes, raw: ACLs, capabilities and labels are among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<ByteString, ByteString>,
    /// What `chattr` sets.
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// The project id; 0 where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub project: u32,
    /// The other names of the same inode within the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<HardLinks>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// The SHA-256 of its bytes, as sha256sum tells it.
        sha256: String,
        /// Where it holds no data: start and end of each hole, up to the length.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holes: Vec<(u64, u64)>,
        /// Blocks of 512 bytes allocated. For information: never compared.
        #[serde(default)]
        blocks: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: ByteString,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// Another btrfs subvolume. What is in it is captured separately.
    Subvolume,
    /// The empty directory that a btrfs snapshot shows where a subvolume was. The kernel makes up
    /// its owner, mode and times anew each time, so they are recorded as zero.
    SubvolumeStub,
    /// Another filesystem is mounted here. Nothing of it is recorded.
    MountPoint,
}

/// A set of names for one inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardLinks {
    /// The smallest path of the set, which names it.
    pub group: RelPath,
    /// How many names are visible within the tree.
    pub count: u64,
}

/// A time stamp, written `seconds.nanoseconds`; nanoseconds always count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanoseconds: u32,
}

impl Kind {
    /// One word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory => "directory",
            Self::Symlink { .. } => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharacterDevice { .. } => "character device",
            Self::BlockDevice { .. } => "block device",
            Self::Subvolume => "subvolume",
            Self::SubvolumeStub => "subvolume stub",
            Self::MountPoint => "mount point",
        }
    }

    /// Whether `stat` calls it a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        matches!(self, Self::Directory | Self::Subvolume | Self::SubvolumeStub | Self::MountPoint)
    }
}

impl Tree {
    /// The entry at a path.
    #[must_use]
    pub fn get(&self, path: &RelPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// The entry at a path given as text; `None` as well when the text is no path.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Entry> {
        RelPath::normalise(path).ok().and_then(|path| self.entries.get(&path))
    }

    /// The paths as text, in order; `.` is the root.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.entries.keys().map(ToString::to_string).collect()
    }

    /// The same without a path and what is below it: a hard link to something there is none.
    #[must_use]
    pub fn without(mut self, left_out: &str) -> Self {
        let left_out = left_out.as_bytes();
        self.entries.retain(|path, _| {
            let below = path.as_bytes().strip_prefix(left_out);
            !below.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        });
        self.regroup(|_, entry| entry.links.as_ref().map(|links| links.group.clone()));
        self
    }

    /// Names each hard-link set after its smallest path and counts it, after entries came or went.
    /// `set_of` tells which set an entry belongs to; sets of one are none.
    pub(crate) fn regroup<K: Ord>(&mut self, set_of: impl Fn(&RelPath, &Entry) -> Option<K>) {
        let mut sets: BTreeMap<K, Vec<RelPath>> = BTreeMap::new();
        for (path, entry) in &self.entries {
            if let Some(set) = set_of(path, entry) {
                sets.entry(set).or_default().push(path.clone());
            }
        }
        for entry in self.entries.values_mut() {
            entry.links = None;
        }
        for members in sets.into_values().filter(|members| members.len() > 1) {
            let links = HardLinks { group: members[0].clone(), count: members.len() as u64 };
            for member in members {
                if let Some(entry) = self.entries.get_mut(&member) {
                    entry.links = Some(links.clone());
                }
            }
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:09}", self.seconds, self.nanoseconds)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once('.').and_then(|(seconds, nanoseconds)| {
            Some(Self { seconds: seconds.parse().ok()?, nanoseconds: nanoseconds.parse().ok()? })
        });
        parsed.ok_or_else(|| de::Error::custom(format!("{text} is no time")))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Modes as people write them.
mod octal {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    pub(super) fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8)
            .map_err(|why| de::Error::custom(format!("mode {text}: {why}")))
    }
}
