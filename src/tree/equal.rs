//! What two entries differ in, each by itself: the only comparison that there is, and the words for it. What
//! may be left out, because their status says enough, is for the callers to know.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use rustix::fs::{Advice, FileType, SeekFrom, Statx, fadvise, readlinkat, seek};
use rustix::io::{Errno, pread, retry_on_intr};
use serde::Serialize;

use super::attributes::{Handle, Unlistable, XATTR_MAX, each_name, permissions};
use crate::fs::at;

/// Bytes that are read of each of two files at a time.
const PIECE: usize = 128 * 1024;

/// Something that two entries differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Only one of them is there.
    Presence,
    /// One is a file and the other a directory, say.
    Kind,
    /// The bytes of a file.
    Content,
    /// Where a symbolic link points.
    Target,
    /// Which device it stands for.
    Device,
    /// The owner or the group.
    Owner,
    /// The permissions.
    Mode,
    /// The time of the last modification. Never of a directory: a reset sets those itself.
    Time,
    /// Extended attributes: ACLs, capabilities, labels, users' own.
    Attributes,
    /// The flags of chattr(1).
    Flags,
    /// Something in a directory.
    Inside,
}

impl Difference {
    /// For a person.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Presence => "whether it is there",
            Self::Kind => "another kind",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::Time => "time",
            Self::Attributes => "attributes",
            Self::Flags => "flags",
            Self::Inside => "what is in it",
        }
    }
}

/// One of two entries that are compared: a name in a directory, never followed.
#[derive(Debug, Clone, Copy)]
pub struct NamedEntry<'a> {
    /// The directory.
    pub parent: BorrowedFd<'a>,
    /// The name in it; `.` for the directory itself.
    pub name: &'a CStr,
    /// What statx(2) said of it.
    pub status: &'a Statx,
}

impl NamedEntry<'_> {
    /// Opens a file or a directory. Nothing else may be opened: it could block, or act on a device.
    fn open(self, kind: FileType) -> Result<OwnedFd, Errno> {
        match kind {
            FileType::Directory => at::open_directory(self.parent, self.name),
            _ => at::open_file(self.parent, self.name),
        }
    }
}

/// Memory for comparing, to be used again for each pair of entries.
#[derive(Debug)]
pub struct Comparison {
    pieces: [Vec<u8>; 2],
    names: [Vec<u8>; 2],
    values: [Vec<u8>; 2],
}

impl Default for Comparison {
    fn default() -> Self {
        let buffers = |length| [vec![0; length], vec![0; length]];
        Self { pieces: buffers(PIECE), names: buffers(XATTR_MAX), values: buffers(XATTR_MAX) }
    }
}

impl Comparison {
    /// What two entries differ in, beside the time of modification and what is in a directory. `same` says of
    /// two files of the same size that their bytes need not be read. Cheap first: bytes are read only of what
    /// is of one kind.
    pub fn differences(
        &mut self,
        one: NamedEntry<'_>,
        other: NamedEntry<'_>,
        same: impl Fn(&Statx, &Statx) -> bool,
    ) -> anyhow::Result<Vec<Difference>> {
        let (status, before) = (one.status, other.status);
        let kind = at::kind(status);
        if kind != at::kind(before) {
            return Ok(vec![Difference::Kind]);
        }
        let mut found = Vec::new();
        let mut note = |differs: bool, what| found.extend(differs.then_some(what));
        match kind {
            FileType::RegularFile => {
                let differs = status.stx_size != before.stx_size
                    || !same(status, before) && !self.same_bytes(one, other)?;
                note(differs, Difference::Content);
            }
            FileType::Symlink => note(!same_target(one, other)?, Difference::Target),
            _ => {
                let number = |it: &Statx| (it.stx_rdev_major, it.stx_rdev_minor);
                note(number(status) != number(before), Difference::Device);
            }
        }
        let owner = |it: &Statx| (it.stx_uid, it.stx_gid);
        note(owner(status) != owner(before), Difference::Owner);
        note(permissions(status) != permissions(before), Difference::Mode);
        note(!self.same_xattrs(one, other, kind)?, Difference::Attributes);
        note(!same_flags(one, other, kind)?, Difference::Flags);
        Ok(found)
    }

    /// Whether two files have the same bytes, up to the first that differ. Where both have holes nothing is
    /// read: anybody can make a file of 7 EiB that holds nothing.
    pub fn same_bytes(
        &mut self,
        one: NamedEntry<'_>,
        other: NamedEntry<'_>,
    ) -> anyhow::Result<bool> {
        let open = |file: NamedEntry<'_>| -> anyhow::Result<(OwnedFd, u64)> {
            let opened = file.open(FileType::RegularFile).context("cannot open it")?;
            // It is read once, from the beginning to the end.
            fadvise(&opened, 0, None, Advice::Sequential).context("cannot read it ahead")?;
            let size = at::status_of(opened.as_fd()).context("cannot look at it")?.stx_size;
            Ok((opened, size))
        };
        let ((one, size), (other, other_size)) =
            (open(one)?, open(other).context("the other one")?);
        if size != other_size {
            return Ok(false);
        }
        let [piece, other_piece] = &mut self.pieces;
        let mut at = 0;
        while at < size {
            let data = data_from(&one, at, size).context("cannot read it")?;
            let other_data = data_from(&other, at, size).context("cannot read the other one")?;
            let first = if data.start <= other_data.start { data } else { other_data };
            at = first.start;
            while at < first.end {
                let length = usize::try_from(first.end - at).map_or(PIECE, |left| left.min(PIECE));
                let filled = fill(&one, at, &mut piece[..length]).context("cannot read it")?;
                let other_filled = fill(&other, at, &mut other_piece[..length])
                    .context("cannot read the other one")?;
                if piece[..filled] != other_piece[..other_filled] {
                    return Ok(false);
                }
                if filled < length {
                    return Ok(true);
                }
                at += length as u64;
            }
        }
        Ok(true)
    }

    /// Whether two entries of this kind have the same extended attributes.
    fn same_xattrs(
        &mut self,
        one: NamedEntry<'_>,
        other: NamedEntry<'_>,
        kind: FileType,
    ) -> anyhow::Result<bool> {
        let [names, other_names] = &mut self.names;
        let [value, other_value] = &mut self.values;
        let (mut held, mut other_held) = (None, None);
        let (handle, names) = list(one, kind, names, &mut held)?;
        let (other_handle, other_names) = list(other, kind, other_names, &mut other_held)?;
        let mut sorted: Vec<&CStr> = each_name(names).collect();
        let mut other_sorted: Vec<&CStr> = each_name(other_names).collect();
        sorted.sort_unstable();
        other_sorted.sort_unstable();
        if sorted != other_sorted {
            return Ok(false);
        }
        for name in sorted {
            if get(handle, name, value)? != get(other_handle, name, other_value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether two symbolic links have the same target.
fn same_target(one: NamedEntry<'_>, other: NamedEntry<'_>) -> anyhow::Result<bool> {
    let target = |link: NamedEntry<'_>| {
        readlinkat(link.parent, link.name, Vec::new()).context("cannot read the symbolic link")
    };
    Ok(target(one)? == target(other)?)
}

/// Whether two entries of this kind have the same flags of chattr(1), as far as users set them. Only
/// files and directories have any.
fn same_flags(one: NamedEntry<'_>, other: NamedEntry<'_>, kind: FileType) -> anyhow::Result<bool> {
    if !matches!(kind, FileType::Directory | FileType::RegularFile) {
        return Ok(true);
    }
    let flags = |entry: NamedEntry<'_>| -> anyhow::Result<_> {
        let cannot = "cannot read the flags of chattr(1)";
        let opened = entry.open(kind).context(cannot)?;
        Handle::Open(opened.as_fd()).flags().context(cannot)
    };
    Ok(flags(one)? == flags(other)?)
}

/// Where a file has data next, at or after an offset; both ends are its size where there is none.
fn data_from(file: &OwnedFd, offset: u64, size: u64) -> Result<Range<u64>, Errno> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(start) if start < size => Ok(start..seek(file, SeekFrom::Hole(start))?.min(size)),
        Ok(_) | Err(Errno::NXIO) => Ok(size..size),
        Err(error) => Err(error),
    }
}

/// Reads from an offset until the buffer is full or the file ends; gives how many bytes it read.
fn fill(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match retry_on_intr(|| pread(file, &mut buffer[filled..], offset + filled as u64))? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

/// The value of an attribute; `None` where it was removed a moment ago.
fn get<'b>(
    handle: Handle<'_>,
    name: &CStr,
    value: &'b mut [u8],
) -> anyhow::Result<Option<&'b [u8]>> {
    match handle.get(name, value) {
        Err(Errno::NODATA) => Ok(None),
        value => {
            value.map(Some).with_context(|| format!("cannot read extended attribute {name:?}"))
        }
    }
}

/// The names of an entry's extended attributes. It is opened only where there are more than a call
/// without a descriptor can tell of.
fn list<'a, 'n>(
    entry: NamedEntry<'a>,
    kind: FileType,
    names: &'n mut Vec<u8>,
    held: &'a mut Option<OwnedFd>,
) -> anyhow::Result<(Handle<'a>, &'n [u8])> {
    let cannot = "cannot list extended attributes";
    let unopened = Handle::Named(entry.parent, entry.name);
    let length = match unopened.list(names) {
        Ok(list) => list.len(),
        Err(error) if error.is::<Unlistable>() => {
            let opened: &'a OwnedFd = held.insert(entry.open(kind).context(cannot)?);
            let handle = Handle::Open(OwnedFd::as_fd(opened));
            return Ok((handle, handle.list(names).context(cannot)?));
        }
        Err(error) => return Err(error.context(cannot)),
    };
    Ok((unopened, &names[..length]))
}
