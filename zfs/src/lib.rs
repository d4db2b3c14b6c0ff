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
mod mount;
mod name;
mod nvlist;
mod pool;
mod program;
mod property;
mod rollback;
mod snapshot;

pub use errno::Errno;
pub use error::Error;
pub use mount::{Access, mount, unmount};
pub use pool::{PoolState, imported_pools, pool_state};
pub use property::{Canmount, Properties, Property, Source, Value};
pub use rollback::{Progress, Refusal, Rollback};
pub use snapshot::{Bookmark, Snapshot};

use ffi::{LoadError, OpenError};

/// ZFS, opened: the libraries and a descriptor of /dev/zfs, closed on drop.
///
/// May be shared between threads, as `libzfs_core` may. A caller that is not root gets
/// [`Error::Other`] with EPERM from everything that runs a channel program.
pub struct Zfs {
    core: ffi::Core,
}

impl std::fmt::Debug for Zfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zfs").finish_non_exhaustive()
    }
}

impl Zfs {
    /// Opens the libraries and /dev/zfs.
    ///
    /// Without the libraries that is [`Error::LibraryMissing`], without the kernel module
    /// [`Error::ModuleMissing`].
    pub fn open() -> Result<Self, Error> {
        ffi::Core::open().map(|core| Self { core }).map_err(|error| match error {
            OpenError::Load(LoadError::Library { name, source }) => {
                Error::LibraryMissing { library: name, source }
            }
            OpenError::Load(LoadError::Symbol { library, symbol, source }) => {
                Error::SymbolMissing { library, symbol, source }
            }
            OpenError::Init(source) => match source.raw() {
                // ENOENT: no device; ENXIO, ENODEV: a device, and no module behind it.
                2 | 6 | 19 => Error::ModuleMissing { source },
                _ => Error::Path { operation: "open", path: "/dev/zfs".into(), source },
            },
        })
    }
}
