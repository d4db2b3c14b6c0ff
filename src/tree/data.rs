//! The bytes of a file: shared where the filesystem can, copied where it cannot.
//!
//! Three rungs, tried in turn. `FICLONE` shares every extent of the file at once, holes and
//! preallocation included; btrfs does it within a filesystem, ZFS only within a dataset.
//! `copy_file_range(2)` lets the filesystem choose: ZFS clones blocks between datasets of a pool
//! and never says whether it did. read(2) and write(2) always work. The last two go from one
//! stretch of data to the next, so that holes stay holes.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use anyhow::Context as _;
use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};
use serde::Serialize;

/// Bytes of files by the rung that brought them over. Holes count as the bytes they read as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BytesByRung {
    /// Shared by `FICLONE`: no data was written.
    pub reflinked: u64,
    /// By `copy_file_range(2)`: shared or copied, as the filesystem saw fit.
    pub copy_file_range: u64,
    /// Read and written.
    pub copied: u64,
}

impl std::ops::AddAssign for BytesByRung {
    fn add_assign(&mut self, other: Self) {
        self.reflinked += other.reflinked;
        self.copy_file_range += other.copy_file_range;
        self.copied += other.copied;
    }
}

/// The rungs, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Rung {
    Reflink,
    Range,
    Copy,
}

/// Climbs down the rungs for the files of one source and one target filesystem, and remembers
/// which rung they cannot use at all.
#[derive(Debug, Default)]
pub(crate) struct Ladder {
    first: AtomicU8,
    bytes: [AtomicU64; 3],
}

/// Bytes read and written at a time on the last rung.
const BUFFER: usize = 1024 * 1024;

/// Bytes asked of one `copy_file_range(2)`: a call can be interrupted between two of them.
const RANGE: u64 = 1 << 30;

impl Ladder {
    /// Gives the empty file `target` the `size` bytes of `source`.
    ///
    /// # Errors
    /// The call that failed, in words: no space, a bad disk. What means "not on this rung" is
    /// no error but the way to the next.
    pub(crate) fn copy(
        &self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        size: u64,
    ) -> anyhow::Result<()> {
        if size == 0 {
            return Ok(());
        }
        let first = self.first.load(Ordering::Relaxed);
        if first <= Rung::Reflink as u8 {
            match ioctl_ficlone(target, source) {
                Ok(()) => {
                    self.count(Rung::Reflink, size);
                    return Ok(());
                }
                // This pair of filesystems cannot share, whatever the file.
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => {
                    self.first.fetch_max(Rung::Range as u8, Ordering::Relaxed);
                }
                // This file cannot be shared.
                Err(Errno::INVAL | Errno::TXTBSY | Errno::PERM) => {}
                Err(error) => return Err(error).context("cannot clone the file's extents"),
            }
        }
        ftruncate(target, size).context("cannot set the file's size")?;
        let mut rung = if first <= Rung::Range as u8 { Rung::Range } else { Rung::Copy };
        let mut at = 0;
        while let Some((start, end)) = next_data(source, at, size)? {
            rung = self.copy_stretch(source, target, start, end, rung)?;
            at = end;
        }
        self.count(rung, size);
        Ok(())
    }

    fn copy_stretch(
        &self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        start: u64,
        end: u64,
        rung: Rung,
    ) -> anyhow::Result<Rung> {
        let (mut from, mut to) = (start, start);
        while rung == Rung::Range && from < end {
            let length = usize::try_from((end - from).min(RANGE)).unwrap_or(usize::MAX);
            match copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
                // The file is shorter than it said: nobody else writes to it, so the disk is bad.
                Ok(0) => anyhow::bail!("the file ends at byte {from} instead of {end}"),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.first.fetch_max(Rung::Copy as u8, Ordering::Relaxed);
                    break;
                }
                Err(Errno::INVAL | Errno::TXTBSY | Errno::PERM) => break,
                Err(error) => return Err(error).context("cannot copy a range of the file"),
            }
        }
        if from == end {
            return Ok(rung);
        }
        read_and_write(source, target, from, end)?;
        Ok(Rung::Copy)
    }

    fn count(&self, rung: Rung, size: u64) {
        self.bytes[rung as usize].fetch_add(size, Ordering::Relaxed);
    }

    /// What has been brought over so far.
    #[must_use]
    pub(crate) fn bytes(&self) -> BytesByRung {
        let [reflinked, copy_file_range, copied] =
            [0, 1, 2].map(|rung: usize| self.bytes[rung].load(Ordering::Relaxed));
        BytesByRung { reflinked, copy_file_range, copied }
    }
}

/// The next stretch of data at or after `at`, or `None` when only a hole is left.
pub(crate) fn next_data(
    file: BorrowedFd<'_>,
    at: u64,
    size: u64,
) -> anyhow::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that knows no holes has one stretch.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        Err(error) => return Err(error).context("cannot look for data in the file"),
    };
    let end = seek(file, SeekFrom::Hole(start)).context("cannot look for holes in the file")?;
    Ok((start < size).then_some((start, end.min(size))))
}

fn read_and_write(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    mut at: u64,
    end: u64,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(BUFFER);
        let got = match pread(source, &mut buffer[..want], at) {
            Ok(0) => anyhow::bail!("the file ends at byte {at} instead of {end}"),
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).context("cannot read the file"),
        };
        let mut written = 0;
        while written < got {
            match pwrite(target, &buffer[written..got], at + written as u64) {
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot write the file"),
            }
        }
        at += got as u64;
    }
    Ok(())
}

/// Where mkswap(8) puts its signature in the first page, for pages of 4 KiB.
const SWAP_SIGNATURE_AT: u64 = 4086;

/// Whether an open file holds a swap area.
pub fn is_swap_area(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut signature = [0; 10];
    let got = pread(file, &mut signature, SWAP_SIGNATURE_AT)?;
    Ok(got == signature.len() && &signature == b"SWAPSPACE2")
}
