//! Safe operations on ZFS, for `darlings`.
//!
//! ZFS is reached through `libzfs_core.so.3` and `libnvpair.so.3`, which [`Zfs::open`] opens at
//! run time: nothing of ZFS is linked, and on a machine without it the only consequence is a
//! typed error. Properties and lists are read, and several changes are made in one
//! transaction group, by channel programs (zfs-program(8)). The `zfs` and `zpool` commands are
//! never run.
//!
//! All `unsafe` code is in the private module `ffi`.

mod errno;
mod error;
mod ffi;
mod handle;
mod mount;
mod name;
mod nvlist;
mod pool;
mod program;
mod property;
mod refusal;
mod rollback;
mod snapshot;

pub use errno::Errno;
pub use error::Error;
pub use handle::Zfs;
pub use mount::{Access, mount, unmount};
pub use pool::{PoolState, imported_pools, pool_state};
pub use property::{Canmount, Properties, Property, Source, Value};
pub use refusal::{Progress, Refusal};
pub use rollback::Rollback;
pub use snapshot::{Bookmark, Snapshot};
