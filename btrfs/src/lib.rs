//! Safe btrfs operations for darlings, through the kernel's ioctls and not
//! through the `btrfs` command.
//!
//! A *subvolume* is a file tree with inode numbers of its own inside a btrfs
//! filesystem; its root directory has inode 256 and looks like a directory of the
//! subvolume above it. A *snapshot* is a subvolume that starts as a copy of
//! another one. The *top level* (id 5) holds all others. A snapshot does not
//! take along the subvolumes *nested* in its source: each of them appears as a
//! *stub*, an empty directory with inode 2.
//!
//! Operations take descriptors, and names that are one path component, and follow no
//! symlink; only [`mount_top_level`] and [`unmount`] take paths, the caller's own. A
//! descriptor must be open for reading; `O_PATH` is not enough for an ioctl (`EBADF`).
//! Most operations need `CAP_SYS_ADMIN`.
//!
//! What is durable when, *measured* on the disk:
//!
//! | operation | on the disk when it returns |
//! |---|---|
//! | [`snapshot`] | yes, with what the source holds: it commits the transaction |
//! | [`set_read_only`] | yes, but not the content of files written just before: it commits too |
//! | all else that changes something, [`create_subvolume`] too | after the next [`sync`] |
//!
//! ```text
//! subvolume.rs   identity, making, the read-only flag, deleting one
//! nested.rs      the subvolumes below one: finding, opening, deleting
//! quota.rs       how much a subvolume takes and may take, where that is counted
//! space.rs       the room for metadata
//! default.rs     the default subvolume
//! devices.rs     which devices there are, and which can be written to
//! rename.rs      exchanging and moving
//! mount.rs       the top level, mounted for as long as the work takes; sync
//! seals.rs       the immutable and the append-only flag
//! changes.rs     what was changed after a transaction
//! uuid.rs        identifiers, and finding a subvolume by its own
//! xattrs.rs      the names of extended attributes
//! search.rs      reading the filesystem's trees
//! ioctl.rs       the system calls: the only unsafe code
//! error.rs       what can go wrong
//! ```
//!
//! Sources: `include/uapi/linux/btrfs.h` and `btrfs_tree.h` of the kernel;
//! `btrfs-ioctl(2)`, `btrfs-subvolume(8)` and `libbtrfsutil` of btrfs-progs.
//! Statements marked *measured* were tried on Linux 6.18, and have a test.

mod changes;
mod default;
mod devices;
mod error;
mod ids;
mod ioctl;
mod mount;
mod nested;
mod quota;
mod rename;
mod seals;
mod search;
mod space;
mod subvolume;
mod uuid;
mod xattrs;

pub use changes::{Changes, changes_after};
pub use default::{default_subvolume, set_default_subvolume};
pub use devices::Devices;
pub use error::{Error, ErrorKind, Result, Subject};
pub use ids::{ROOT_INODE, STUB_INODE, TOP_LEVEL};
pub use mount::{mount_top_level, sync, unmount, wake_cleaner};
pub use nested::{
    Nested, delete_subvolume_recursive, is_cleaned, nested_subvolumes, open_subvolume,
    subvolume_path,
};
pub use quota::{Accounting, Limit, Usage, snapshot_limit, subvolume_limits, subvolume_usage};
pub use rename::{exchange, rename, rename_noreplace};
pub use seals::{project, set_project, set_seals};
pub use space::{Metadata, records_size};
pub use subvolume::{
    Access, EntryKind, SubvolumeInfo, create_subvolume, delete_subvolume, delete_subvolume_by_id,
    entry_kind, filesystem_uuid, is_btrfs, is_read_only, set_read_only, snapshot, subvolume_id,
    subvolume_info,
};
pub use uuid::{NotAUuid, Uuid, subvolume_with_uuid};
pub use xattrs::xattr_names;
