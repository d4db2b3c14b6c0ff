//! What moving an entry changes in the directory that it leaves or comes into, so that it can
//! be set again afterwards, by this run or by one after a crash.

use std::os::fd::AsFd;

use rustix::fs::{IFlags, Timespec, Timestamps, futimens};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes::{seal, times, unseal};
use super::flags::seals_of;
use crate::fs::at;

/// The times and the sealing flags of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Seconds and nanoseconds.
    accessed: (i64, i64),
    modified: (i64, i64),
    /// As `FS_IOC_GETFLAGS` has them.
    seals: u32,
}

impl Settled {
    /// Reads them from an open directory.
    pub fn look(directory: impl AsFd) -> Result<Self, Errno> {
        let directory = directory.as_fd();
        let times = times(&at::status_of(directory)?);
        Ok(Self {
            accessed: (times.last_access.tv_sec, times.last_access.tv_nsec),
            modified: (times.last_modification.tv_sec, times.last_modification.tv_nsec),
            seals: seals_of(directory)?.bits(),
        })
    }

    /// The same without sealing flags, for a root that is still to be renamed.
    #[must_use]
    pub fn unsealed(mut self) -> Self {
        self.seals = 0;
        self
    }

    /// The sealing flags.
    #[must_use]
    pub fn seals(&self) -> IFlags {
        IFlags::from_bits_retain(self.seals)
    }

    /// Sets them on an open directory, whatever seals it.
    pub fn settle(&self, directory: impl AsFd) -> Result<(), Errno> {
        unseal(&directory)?;
        let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
        futimens(
            &directory,
            &Timestamps {
                last_access: time(self.accessed),
                last_modification: time(self.modified),
            },
        )?;
        seal(directory, self.seals())
    }
}
