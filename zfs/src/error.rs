//! What can go wrong, in words: `libzfs_core` gives a number and no more.

use std::path::PathBuf;

use crate::errno::Errno;
use crate::refusal::{Progress, Refusal};

/// An operation on ZFS that failed.
///
/// Each names what was being done (`operation`) and to what (`name`). Unless the variant says
/// otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A library of ZFS is not on this machine, or not where the dynamic linker looks.
    #[error(
        "cannot open {library}: install the libraries of OpenZFS (2.1 or later; Debian: \
         libzfs4linux and libnvpair3linux, in an initrd also these), or put them on the \
         binary's RUNPATH"
    )]
    LibraryMissing {
        /// Its soname.
        library: &'static str,
        /// What the dynamic linker says.
        source: libloading::Error,
    },
    /// A library of ZFS lacks a function.
    #[error("{library} has no function {symbol}: it is not that of OpenZFS 2.1 or later")]
    SymbolMissing {
        /// Its soname.
        library: &'static str,
        /// The function.
        symbol: &'static str,
        /// What the dynamic linker says.
        source: libloading::Error,
    },
    /// The zfs module is not loaded, so that there is no /dev/zfs.
    #[error("the zfs kernel module is not loaded (no /dev/zfs): run `modprobe zfs` first")]
    ModuleMissing {
        /// What opening /dev/zfs gave.
        source: Errno,
    },
    /// The name of a pool, dataset, snapshot or property that cannot be one.
    #[error("{name:?} is not the name of {wanted}")]
    InvalidName {
        /// The name.
        name: String,
        /// What it should have been the name of.
        wanted: &'static str,
    },
    /// The pool is not imported (or does not exist).
    #[error("cannot {operation} {name}: the pool {pool} is not imported")]
    PoolMissing {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
        /// The pool.
        pool: String,
    },
    /// The pool is imported read-only. Then even looking is refused, since ZFS runs no channel
    /// program on it.
    #[error(
        "cannot {operation} {name}: its pool is imported read-only; export it and import it \
         without readonly=on"
    )]
    PoolReadOnly {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
    },
    /// The pool is suspended: ZFS has lost devices and waits for them.
    #[error(
        "cannot {operation} {name}: its pool is suspended because devices fail; \
         see `zpool status`, then `zpool clear`"
    )]
    PoolSuspended {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
    },
    /// There is no such dataset, snapshot or bookmark.
    #[error("cannot {operation} {name}: it does not exist")]
    DatasetMissing {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
    },
    /// There is one of that name already.
    #[error("cannot {operation} {name}: it exists already")]
    Exists {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
    },
    /// It is in use: mounted, held (`zfs hold`), or being sent or received.
    #[error("cannot {operation} {name}: it is in use (mounted, held, or being sent or received)")]
    Busy {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
    },
    /// Snapshots, children or clones depend on it.
    #[error("cannot {operation} {name}: these depend on it: {}", .dependents.join(", "))]
    HasDependents {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
        /// Snapshots and children of a dataset, clones of a snapshot.
        dependents: Vec<String>,
    },
    /// The pool is full, or the dataset's quota is.
    #[error("cannot {operation} {name}: no space is left in its pool or below its quota")]
    NoSpace {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
        /// ENOSPC or EDQUOT.
        source: Errno,
    },
    /// The dataset is encrypted and its key is not loaded.
    #[error("cannot {operation} {name}: its encryption key is not loaded; see `zfs load-key`")]
    KeyUnavailable {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
    },
    /// A channel program was stopped by ZFS. A program that changes things may have changed some.
    #[error("cannot {operation} {name}: {message}")]
    ChannelProgram {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
        /// The error of Lua, with its stack; or that there was none.
        message: String,
        /// ECHRNG for an error at run time, EINVAL for one of syntax, ETIME and ENOSPC for a
        /// program that took too long or too much memory.
        source: Errno,
    },
    /// ZFS returned something that this version does not understand.
    #[error("cannot {operation} {name}: ZFS answered something unexpected ({what})")]
    UnexpectedAnswer {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
        /// What it was.
        what: String,
    },
    /// A rollback was refused before anything was changed, but perhaps for bookmarks that were
    /// in the way and on the list to be destroyed.
    #[error("cannot roll {dataset} back")]
    RollbackRefused {
        /// The dataset.
        dataset: String,
        /// Why.
        #[source]
        reason: Refusal,
        /// The bookmarks that had been destroyed by then.
        destroyed: Vec<String>,
    },
    /// A rollback stopped half way, with the pool changed as `progress` says.
    #[error("rolling {dataset} back stopped half way: {progress}")]
    RollbackIncomplete {
        /// The dataset.
        dataset: String,
        /// What had been done.
        progress: Progress,
        /// What stopped it.
        source: Errno,
    },
    /// Reading what the kernel says about pools, or mounting, failed on this path.
    #[error("cannot {operation} {path:?}")]
    Path {
        /// What was being done.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel says.
        source: Errno,
    },
    /// Anything else.
    #[error("cannot {operation} {name}")]
    Other {
        /// What was being done.
        operation: &'static str,
        /// To what.
        name: String,
        /// What ZFS or the kernel says.
        source: Errno,
    },
}

impl Error {
    /// The error for `errno` from an ioctl of ZFS (or a mount of it) on `name`.
    pub(crate) fn from_errno(operation: &'static str, name: &str, errno: Errno) -> Self {
        let name = name.to_owned();
        match errno {
            Errno::NOENT => Self::DatasetMissing { operation, name },
            Errno::EXIST => Self::Exists { operation, name },
            Errno::BUSY => Self::Busy { operation, name },
            // `pool_status_check` in module/zfs/zfs_ioctl.c
            Errno::AGAIN => Self::PoolSuspended { operation, name },
            Errno::ROFS => Self::PoolReadOnly { operation, name },
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { operation, name, source: errno },
            _ => Self::Other { operation, name, source: errno },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::Error;
    use crate::Errno;

    fn text(errno: Errno) -> String {
        Error::from_errno("destroy", "rpool/root@old", errno).to_string()
    }

    #[test]
    fn the_errors_that_a_person_can_act_upon_have_their_own_words() {
        assert_eq!(text(Errno::NOENT), "cannot destroy rpool/root@old: it does not exist");
        assert_eq!(
            text(Errno::ROFS),
            "cannot destroy rpool/root@old: its pool is imported read-only; export it and \
             import it without readonly=on"
        );
        assert_eq!(
            text(Errno::AGAIN),
            "cannot destroy rpool/root@old: its pool is suspended because devices fail; \
             see `zpool status`, then `zpool clear`"
        );
    }

    #[test]
    fn any_other_error_keeps_its_number_as_the_source() {
        let error = Error::from_errno("destroy", "rpool/root@old", Errno::from_raw(1024));
        assert_eq!(error.to_string(), "cannot destroy rpool/root@old");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("the pool has a checkpoint (ZFS_ERR_CHECKPOINT_EXISTS, 1024)")
        );
    }
}
