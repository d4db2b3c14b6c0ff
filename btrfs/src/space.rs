//! How much room there is for metadata, and how much of it a subvolume takes. A reflink and a snapshot
//! need nothing else, and it can be full while there is room for data.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::fstatvfs;

use crate::devices::{number_in, read_number};
use crate::error::{Error, Result, Subject, usual_meaning};
use crate::ioctl::MANY;
use crate::search::{Key, OWN_TREE, range};
use crate::subvolume::filesystem_uuid;

/// Metadata of a filesystem, in bytes of its content, however often that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What can still be written.
    pub available: u64,
    /// What is there.
    pub used: u64,
}

impl Metadata {
    /// What the kernel tells of the filesystem that the file is on. `None` where it does not tell
    /// (without sysfs), or where data and metadata lie together.
    pub fn of(file: impl AsFd) -> Result<Option<Self>> {
        let file = file.as_fd();
        let all = PathBuf::from(format!("/sys/fs/btrfs/{}/allocation", filesystem_uuid(file)?));
        let own = all.join("metadata");
        let Some(total) = number_in(&own, "total_bytes")? else { return Ok(None) };
        let get = |name: &str| read_number(&own.join(name));
        let mut taken = 0_u64;
        for name in
            ["bytes_used", "bytes_pinned", "bytes_reserved", "bytes_may_use", "bytes_readonly"]
        {
            taken = taken.saturating_add(get(name)?);
        }
        // As often as it is written, it takes room on devices.
        let times = (get("disk_total")? / total.max(1)).max(1);
        let data = [all.join("data/disk_total"), all.join("data/total_bytes")];
        let (data_on_disk, data_total) = (read_number(&data[0])?, read_number(&data[1])?);
        let mut allocated = get("disk_total")?.saturating_add(data_on_disk);
        allocated = allocated.saturating_add(read_number(&all.join("system/disk_total"))?);
        let status = fstatvfs(file).map_err(|errno| {
            let operation = "reading how much is free on the filesystem";
            Error::system(operation, Subject::Descriptor, usual_meaning(errno), errno)
        })?;
        // The kernel divides it by how often data is written.
        let data_times = (data_on_disk / data_total.max(1)).max(1);
        let devices = status.f_blocks.saturating_mul(status.f_frsize).saturating_mul(data_times);
        let unallocated = devices.saturating_sub(allocated) / times;
        Ok(Some(Self {
            available: total.saturating_sub(taken).saturating_add(unallocated),
            used: get("bytes_used")?,
        }))
    }
}

/// How many bytes the records of the subvolume take in which the file is: names, attributes, small
/// files, where data lies. It stops to count at `enough`. Needs `CAP_SYS_ADMIN`.
pub fn records_size(file: impl AsFd, enough: u64) -> Result<u64> {
    let first = Key { object: 0, kind: 0, offset: 0 };
    let last = Key { object: u64::MAX, kind: u32::from(u8::MAX), offset: u64::MAX };
    let mut bytes = 0_u64;
    range::<MANY, ()>(file.as_fd(), OWN_TREE, (first, last), 0, |_, data| {
        // On the disk each has a header of 25 bytes.
        bytes = bytes.saturating_add(data.len() as u64 + 25);
        Ok(if bytes < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(bytes)
}
