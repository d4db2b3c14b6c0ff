//! The devices of a filesystem, and other numbers that the kernel shows in `/sys/fs/btrfs`.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result, Subject, usual_meaning};
use crate::subvolume::filesystem_uuid;

/// How many devices a mounted filesystem has, by what can be done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// All that its records name.
    pub all: usize,
    /// Those that are not there: it is mounted `degraded`.
    pub missing: usize,
    /// Those that can be written to. A seed cannot, nor can a device that is read-only.
    pub writable: usize,
}

impl Devices {
    /// Reads which devices the filesystem has that the file is on.
    ///
    /// `None` where the kernel does not tell (before Linux 5.6, or without sysfs).
    pub fn of(file: impl AsFd) -> Result<Option<Self>> {
        let path = PathBuf::from(format!("/sys/fs/btrfs/{}/devinfo", filesystem_uuid(file)?));
        let entries = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(|error| failed(&path, &error))?,
        };
        let mut devices = Self::default();
        for entry in entries {
            let device = entry.map_err(|error| failed(&path, &error))?.path();
            devices.all += 1;
            devices.missing += usize::from(read_number(&device.join("missing"))? != 0);
            devices.writable += usize::from(read_number(&device.join("writeable"))? != 0);
        }
        Ok(Some(devices))
    }
}

/// The number in a file of sysfs.
pub(crate) fn read_number(path: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(path).map_err(|error| failed(path, &error))?;
    text.trim().parse().map_err(|_| Error::new(READING, Subject::Path(path.into()), NO_NUMBER))
}

/// The same, if there is that directory.
pub(crate) fn number_in(directory: &Path, name: &str) -> Result<Option<u64>> {
    match directory.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) => read_number(&directory.join(name)).map(Some),
        Err(error) => Err(failed(directory, &error)),
    }
}

const READING: &str = "reading what the kernel says of the filesystem in";
const NO_NUMBER: ErrorKind = ErrorKind::Malformed("it is not a number");

fn failed(path: &Path, error: &io::Error) -> Error {
    let subject = Subject::Path(path.into());
    match Errno::from_io_error(error) {
        Some(errno) => Error::system(READING, subject, usual_meaning(errno), errno),
        None => Error::new(READING, subject, NO_NUMBER),
    }
}
