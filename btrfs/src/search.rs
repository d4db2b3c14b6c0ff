//! Reading the filesystem's own records with `TREE_SEARCH_V2`.
//!
//! A tree is a sorted list of items, each with a key of three numbers
//! (object, type, offset). Keys arrive in the byte order of the machine, the
//! items' content as it is on disk, little-endian and unaligned.

use std::ffi::OsStr;
use std::mem::{offset_of, size_of};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use linux_raw_sys::btrfs::{
    BTRFS_ROOT_TREE_OBJECTID, btrfs_dir_item, btrfs_ioctl_search_header, btrfs_ioctl_search_key,
    btrfs_root_item, btrfs_root_ref,
};

use crate::error::{Error, ErrorKind, Result, Subject, ioctl_meaning};
use crate::ioctl::{Search, tree_search};

const READING: &str = "reading the records of the filesystem";

/// `INODE_REF`: where an inode's name is. Not in `linux-raw-sys`; from the
/// kernel's `btrfs_tree.h`.
pub(crate) const INODE_REF_KEY: u32 = 12;

/// The tree that lists all trees.
pub(crate) const ROOT_TREE: u64 = BTRFS_ROOT_TREE_OBJECTID as u64;

/// Where an item is in its tree. Ordered as the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) object: u64,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
}

impl Key {
    fn next(self) -> Option<Self> {
        if let Some(offset) = self.offset.checked_add(1) {
            return Some(Self { offset, ..self });
        }
        // A type is one byte on disk, whatever the search's field can hold.
        if self.kind < u32::from(u8::MAX) {
            return Some(Self { kind: self.kind + 1, offset: 0, ..self });
        }
        Some(Self { object: self.object.checked_add(1)?, kind: 0, offset: 0 })
    }
}

pub(crate) fn malformed(what: &'static str) -> Error {
    Error::new(READING, Subject::Descriptor, ErrorKind::Malformed(what))
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N]> {
    data.get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .ok_or_else(|| malformed("an item is too short"))
}

fn le64(data: &[u8], at: usize) -> Result<u64> {
    bytes(data, at).map(u64::from_le_bytes)
}

fn name(data: &[u8], length_at: usize, at: usize) -> Result<&OsStr> {
    let length = usize::from(bytes(data, length_at).map(u16::from_le_bytes)?);
    data.get(at..)
        .and_then(|rest| rest.get(..length))
        .map(OsStr::from_bytes)
        .ok_or_else(|| malformed("a name is longer than its item"))
}

/// Calls `visit` for every item of `kind` with that object in the tree, in
/// the order of their offsets, until it breaks.
pub(crate) fn items<T>(
    file: BorrowedFd<'_>,
    tree: u64,
    object: u64,
    kind: u32,
    mut visit: impl FnMut(Key, &[u8]) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let last = Key { object, kind, offset: u64::MAX };
    let mut next = Some(Key { offset: 0, ..last });
    // With one object and one type, the range of whole keys that the kernel answers has
    // nothing else in it.
    while let Some(first) = next.filter(|first| *first <= last) {
        let mut search = Search::new(search_key(tree, first, last));
        tree_search(file, &mut search).map_err(|errno| {
            Error::system(READING, Subject::Descriptor, ioctl_meaning(file, errno), errno)
        })?;
        if search.key.nr_items == 0 {
            break;
        }
        let mut at = 0;
        for _ in 0..search.key.nr_items {
            let (key, length) = header(&search.buffer, at)?;
            at += size_of::<btrfs_ioctl_search_header>();
            let data = search
                .buffer
                .get(at..at + length)
                .ok_or_else(|| malformed("an item is longer than the answer"))?;
            at += length;
            if let ControlFlow::Break(found) = visit(key, data)? {
                return Ok(Some(found));
            }
            next = key.next();
        }
    }
    Ok(None)
}

fn search_key(tree: u64, first: Key, last: Key) -> btrfs_ioctl_search_key {
    btrfs_ioctl_search_key {
        tree_id: tree,
        min_objectid: first.object,
        max_objectid: last.object,
        min_offset: first.offset,
        max_offset: last.offset,
        min_transid: 0,
        max_transid: u64::MAX,
        min_type: first.kind,
        max_type: last.kind,
        nr_items: u32::MAX,
        unused: 0,
        unused1: 0,
        unused2: 0,
        unused3: 0,
        unused4: 0,
    }
}

fn header(buffer: &[u8], at: usize) -> Result<(Key, usize)> {
    let key = Key {
        object: bytes(buffer, at + offset_of!(btrfs_ioctl_search_header, objectid))
            .map(u64::from_ne_bytes)?,
        offset: bytes(buffer, at + offset_of!(btrfs_ioctl_search_header, offset))
            .map(u64::from_ne_bytes)?,
        kind: bytes(buffer, at + offset_of!(btrfs_ioctl_search_header, type_))
            .map(u32::from_ne_bytes)?,
    };
    let length = bytes(buffer, at + offset_of!(btrfs_ioctl_search_header, len))
        .map(u32::from_ne_bytes)
        .map(usize::try_from)?
        .map_err(|_| malformed("an item is larger than the address space"))?;
    Ok((key, length))
}

/// `btrfs_root_ref`: the directory and the name under which a subvolume hangs.
pub(crate) struct RootRef<'a> {
    pub(crate) directory: u64,
    pub(crate) name: &'a OsStr,
}

impl<'a> RootRef<'a> {
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self> {
        Ok(Self {
            directory: le64(data, offset_of!(btrfs_root_ref, dirid))?,
            name: name(data, offset_of!(btrfs_root_ref, name_len), size_of::<btrfs_root_ref>())?,
        })
    }
}

/// The flags of a `btrfs_root_item`.
pub(crate) fn root_item_flags(data: &[u8]) -> Result<u64> {
    le64(data, offset_of!(btrfs_root_item, flags))
}

/// The name in a `btrfs_inode_ref` (an index of 8 bytes, the length of the name in
/// 2, the name). A directory has exactly one.
pub(crate) fn inode_ref_name(data: &[u8]) -> Result<&OsStr> {
    name(data, 8, 10)
}

/// `btrfs_dir_item`: a name, and the object that it leads to.
pub(crate) struct DirItem<'a> {
    pub(crate) target: u64,
    pub(crate) name: &'a OsStr,
}

impl<'a> DirItem<'a> {
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self> {
        Ok(Self {
            // The location is a btrfs_disk_key, which begins with the object.
            target: le64(data, offset_of!(btrfs_dir_item, location))?,
            name: name(data, offset_of!(btrfs_dir_item, name_len), size_of::<btrfs_dir_item>())?,
        })
    }
}
