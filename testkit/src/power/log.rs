//! The recording: the format of the kernel's dm-log-writes, which QEMU's `blklogwrites` writes too
//! (Documentation/admin-guide/device-mapper/log-writes.rst, and `struct log_write_entry` in
//! drivers/md/dm-log-writes.c).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// What an entry takes before the rest of its sector.
const HEADER: usize = 32;
/// A sector of the recorded disk, whatever the log's own are.
const SECTOR: u64 = 512;

/// What begins a block that [`mark()`] writes.
const MARK: &[u8] = b"darlings power cut: ";
/// Its size: nothing that a disk takes is smaller.
const BLOCK: usize = 4096;

/// What was done to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes were written.
    Write,
    /// Bytes were given up: they read as before or as nothing.
    Discard,
    /// What was written before is durable.
    Flush,
    /// A block that says that something begins or ends.
    Mark(String),
}

/// One thing done to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What.
    pub kind: Kind,
    /// Where on the disk, in bytes.
    pub at: u64,
    /// How many bytes.
    pub length: u64,
    /// It is durable by itself once it is done.
    pub durable: bool,
    /// Where in the log the bytes are.
    pub(super) data: u64,
}

/// A recording.
#[derive(Debug)]
pub struct Log {
    pub(super) file: File,
    /// What was done, in its order.
    pub records: Vec<Record>,
}

impl Log {
    /// Reads a recording: a file, or a disk that shows one and is longer.
    pub fn read(path: &Path) -> Result<Self> {
        let describe = || format!("cannot read the recording {}", path.display());
        let file = File::open(path).with_context(describe)?;
        let records = records(&file).with_context(describe)?;
        Ok(Self { file, records })
    }

    /// The records between two marks.
    pub fn between(&self, begin: &str, end: &str) -> Result<Range<usize>> {
        let (begin, end) = (self.marked(begin)?, self.marked(end)?);
        ensure!(begin < end, "the marks are at {begin} and {end}");
        Ok(begin + 1..end)
    }

    fn marked(&self, name: &str) -> Result<usize> {
        let mut found = self
            .records
            .iter()
            .enumerate()
            .filter(|(_, record)| matches!(&record.kind, Kind::Mark(other) if other == name));
        match (found.next(), found.next()) {
            (Some((at, _)), None) => Ok(at),
            (None, _) => bail!("nothing is marked as {name:?} in the recording"),
            (Some(_), Some(_)) => bail!("more than one is marked as {name:?} in the recording"),
        }
    }

    pub(super) fn data(&self, record: &Record) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(record.length)?];
        self.file.read_exact_at(&mut bytes, record.data).context("cannot read the recording")?;
        Ok(bytes)
    }
}

/// The superblock's count may be of earlier: entries are read until there is none.
fn records(file: &File) -> Result<Vec<Record>> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let [magic, version, ..] = numbers(&header);
    ensure!((magic, version) == (MAGIC, 1), "it is no recording that is known");
    let sector = numbers(&header)[3] & u64::from(u32::MAX);
    ensure!(sector >= SECTOR && sector.is_power_of_two(), "its sectors have {sector} bytes");
    let mut records = Vec::new();
    let mut at = sector;
    loop {
        match file.read_exact_at(&mut header, at) {
            Ok(()) => {}
            Err(why) if why.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(records),
            Err(why) => return Err(why.into()),
        }
        let [first, count, flags, _] = numbers(&header);
        if (count, flags) == (0, 0) {
            return Ok(records);
        }
        let data = at + sector;
        let length = count * SECTOR;
        let kind = if flags & DISCARD != 0 {
            Kind::Discard
        } else if count == 0 && flags & FLUSH != 0 {
            Kind::Flush
        } else {
            kind_of_write(file, data, length)?
        };
        if matches!(kind, Kind::Write | Kind::Mark(_)) {
            ensure!(flags & FLUSH == 0, "a write that is a flush as well is not understood");
        }
        at = data + if kind == Kind::Discard { 0 } else { length.next_multiple_of(sector) };
        records.push(Record { kind, at: first * SECTOR, length, durable: flags & FUA != 0, data });
    }
}

fn numbers(bytes: &[u8; HEADER]) -> [u64; 4] {
    let mut numbers = [0; 4];
    for (number, piece) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(piece);
        *number = u64::from_le_bytes(bytes);
    }
    numbers
}

fn kind_of_write(file: &File, data: u64, length: u64) -> Result<Kind> {
    if length != BLOCK as u64 {
        return Ok(Kind::Write);
    }
    let mut block = [0; BLOCK];
    file.read_exact_at(&mut block, data)?;
    let Some(name) = block.strip_prefix(MARK) else { return Ok(Kind::Write) };
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Kind::Mark(String::from_utf8_lossy(name).into_owned()))
}

/// Writes a block to a place of a device that nothing else uses, and makes it durable: the recording
/// then says when that was.
pub fn mark(device: &Path, at: u64, name: &str) -> Result<()> {
    #[repr(align(4096))]
    struct Block([u8; BLOCK]);
    let mut block = Block([0; BLOCK]);
    let text = [MARK, name.as_bytes()].concat();
    ensure!(text.len() < BLOCK, "{name:?} is too long");
    block.0[..text.len()].copy_from_slice(&text);
    // Past the cache, where blocks beside it would be written again with it.
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = File::options().write(true).custom_flags(direct).open(device);
    file.and_then(|file| file.write_all_at(&block.0, at).and_then(|()| file.sync_all()))
        .with_context(|| format!("cannot mark {}", device.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording by hand, as the format says: three entries, the log's sectors 512 bytes.
    #[test]
    fn a_recording_is_read_to_its_first_empty_entry() -> Result<()> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8] = 1;
        bytes[24..28].copy_from_slice(&512_u32.to_le_bytes());
        for (first, count, flags) in [(8_u64, 2_u64, 0_u64), (0, 0, FLUSH), (16, 4, DISCARD)] {
            let mut entry = vec![0; 512];
            for (at, number) in [first, count, flags].iter().enumerate() {
                entry[8 * at..8 * at + 8].copy_from_slice(&number.to_le_bytes());
            }
            bytes.extend(entry);
            if flags == 0 {
                bytes.extend([7; 1024]);
            }
        }
        bytes.extend([0; 4096]);
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        let log = Log::read(file.path())?;
        let seen: Vec<_> = log.records.iter().map(|it| (&it.kind, it.at, it.length)).collect();
        assert_eq!(
            seen,
            [(&Kind::Write, 4096, 1024), (&Kind::Flush, 0, 0), (&Kind::Discard, 8192, 2048)]
        );
        assert_eq!(log.data(&log.records[0])?, [7; 1024]);
        assert!(log.between("begin", "end").is_err());
        Ok(())
    }
}
