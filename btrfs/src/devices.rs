//! The devices of a filesystem, as the kernel shows them in `/sys/fs/btrfs`.

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
            let is = |name: &str| -> Result<bool> {
                let file = device.join(name);
                let text = std::fs::read_to_string(&file).map_err(|error| failed(&file, &error))?;
                Ok(text.trim() != "0")
            };
            devices.all += 1;
            devices.missing += usize::from(is("missing")?);
            devices.writable += usize::from(is("writeable")?);
        }
        Ok(Some(devices))
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let errno = Errno::from_io_error(error);
    let kind =
        errno.map_or(ErrorKind::Malformed("it is not as the kernel writes it"), usual_meaning);
    let (operation, subject) =
        ("reading the devices of the filesystem in", Subject::Path(path.into()));
    match errno {
        Some(errno) => Error::system(operation, subject, kind, errno),
        None => Error::new(operation, subject, kind),
    }
}
