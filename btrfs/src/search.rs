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
    BTRFS_ROOT_TREE_OBJECTID, btrfs_dir_item, btrfs_inode_item, btrfs_ioctl_search_header,
    btrfs_ioctl_search_key, btrfs_root_item, btrfs_root_ref,
};

use crate::error::{Error, ErrorKind, Result, Subject, ioctl_meaning};
use crate::ioctl::{FEW, Search, tree_search};

const READING: &str = "reading the records of the filesystem";

/// `INODE_REF`: where an inode's name is. Not in `linux-raw-sys`; from the
/// kernel's `btrfs_tree.h`.
pub(crate) const INODE_REF_KEY: u32 = 12;

/// What a search takes for the tree of the subvolume in which its file is.
pub(crate) const OWN_TREE: u64 = 0;

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

pub(crate) fn le64(data: &[u8], at: usize) -> Result<u64> {
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
    // With one object and one type, the range of whole keys that the kernel answers has
    // nothing else in it.
    range::<FEW, T>(file, tree, (Key { offset: 0, ..last }, last), 0, &mut visit)
}

/// Calls `visit` for every item from the first to the last key, in their order, until it breaks.
/// Leaves of the tree that were written before the transaction `since` are left out, and the kernel
/// does not read them; in the others there are older items too. `SIZE` is the room for one answer.
pub(crate) fn range<const SIZE: usize, T>(
    file: BorrowedFd<'_>,
    tree: u64,
    (first, last): (Key, Key),
    since: u64,
    mut visit: impl FnMut(Key, &[u8]) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let mut search = Box::new(Search::<SIZE>::new(search_key(tree, first, last, since)));
    let mut next = Some(first);
    while let Some(first) = next.filter(|first| *first <= last) {
        search.key = search_key(tree, first, last, since);
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

fn search_key(tree: u64, first: Key, last: Key, since: u64) -> btrfs_ioctl_search_key {
    btrfs_ioctl_search_key {
        tree_id: tree,
        min_objectid: first.object,
        max_objectid: last.object,
        min_offset: first.offset,
        max_offset: last.offset,
        min_transid: since,
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

/// What is read of a `btrfs_inode_item`.
pub(crate) struct InodeItem {
    /// The transaction that last changed the inode.
    pub(crate) changed: u64,
    pub(crate) links: u32,
}

impl InodeItem {
    pub(crate) fn parse(data: &[u8]) -> Result<Self> {
        Ok(Self {
            changed: le64(data, offset_of!(btrfs_inode_item, transid))?,
            links: bytes(data, offset_of!(btrfs_inode_item, nlink)).map(u32::from_le_bytes)?,
        })
    }
}

/// Calls `visit` with each directory in a `btrfs_inode_extref`, which holds all references of an
/// inode whose names and directories have the same hash: the directory and an index of 8 bytes each,
/// the length of the name in 2, the name; one after the other.
pub(crate) fn inode_extref_directories(mut data: &[u8], mut visit: impl FnMut(u64)) -> Result<()> {
    while !data.is_empty() {
        let length = 18 + name(data, 16, 18)?.len();
        visit(le64(data, 0)?);
        data =
            data.get(length..).ok_or_else(|| malformed("a reference is longer than its item"))?;
    }
    Ok(())
}

/// The name in a `btrfs_inode_ref` (an index of 8 bytes, the length of the name in
/// 2, the name). A directory has exactly one.
pub(crate) fn inode_ref_name(data: &[u8]) -> Result<&OsStr> {
    name(data, 8, 10)
}

/// `btrfs_dir_item`: a name, and the object that it leads to.
pub(crate) struct DirItem<'a> {
    pub(crate) target: u64,
    /// The type of that object's key: an inode's, or a subvolume's.
    pub(crate) target_kind: u8,
    /// The transaction in which the name was put there.
    pub(crate) placed: u64,
    /// The type of file, as `BTRFS_FT_*` has it.
    pub(crate) file_type: u8,
    pub(crate) name: &'a OsStr,
}

impl<'a> DirItem<'a> {
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self> {
        Ok(Self {
            // The location is a btrfs_disk_key: the object, then the type.
            target: le64(data, offset_of!(btrfs_dir_item, location))?,
            target_kind: bytes::<1>(data, offset_of!(btrfs_dir_item, location) + 8)?[0],
            placed: le64(data, offset_of!(btrfs_dir_item, transid))?,
            file_type: bytes::<1>(data, offset_of!(btrfs_dir_item, type_))?[0],
            name: name(data, offset_of!(btrfs_dir_item, name_len), size_of::<btrfs_dir_item>())?,
        })
    }
}

/// Calls `visit` with the name of each extended attribute in an item, which holds all whose
/// names have the same hash: a `btrfs_dir_item`, the name and the value, one after the other.
pub(crate) fn xattr_item_names(mut data: &[u8], mut visit: impl FnMut(&OsStr)) -> Result<()> {
    while !data.is_empty() {
        let header = size_of::<btrfs_dir_item>();
        let name = name(data, offset_of!(btrfs_dir_item, name_len), header)?;
        visit(name);
        let value = bytes(data, offset_of!(btrfs_dir_item, data_len)).map(u16::from_le_bytes)?;
        let length = header + name.len() + usize::from(value);
        data = data.get(length..).ok_or_else(|| malformed("a value is longer than its item"))?;
    }
    Ok(())
}
