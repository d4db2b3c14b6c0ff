//! ZFS, opened.

use crate::error::Error;
use crate::ffi::{self, LoadError, OpenError};

/// ZFS, opened: the libraries and a descriptor of /dev/zfs, closed on drop.
///
/// May be shared between threads, as `libzfs_core` may. A caller that is not root gets
/// [`Error::Other`] with EPERM from everything that runs a channel program.
pub struct Zfs {
    pub(crate) core: ffi::Core,
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
