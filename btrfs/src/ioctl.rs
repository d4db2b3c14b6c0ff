//! The ioctls, and all the unsafe code of this crate.
//!
//! Numbers and structures are those of the kernel's `include/uapi/linux/btrfs.h`
//! through `linux-raw-sys`; what each ioctl means is in `btrfs-ioctl(2)` of
//! btrfs-progs. Every structure is passed zeroed outside the fields in use, as that
//! page demands.
#![allow(
    unsafe_code,
    reason = "an ioctl's number promises the type behind its pointer, which the compiler cannot check"
)]

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use linux_raw_sys::btrfs::{
    BTRFS_FIRST_FREE_OBJECTID, BTRFS_SUBVOL_RDONLY, BTRFS_SUBVOL_SPEC_BY_ID,
    btrfs_ioctl_fs_info_args, btrfs_ioctl_get_subvol_info_args, btrfs_ioctl_ino_lookup_args,
    btrfs_ioctl_qgroup_limit_args, btrfs_ioctl_search_key, btrfs_ioctl_vol_args_v2,
    btrfs_ioctl_vol_args_v2__bindgen_ty_1, btrfs_ioctl_vol_args_v2__bindgen_ty_2,
    btrfs_qgroup_limit,
};
use linux_raw_sys::ctypes::c_char;
use linux_raw_sys::general::fsxattr;
use linux_raw_sys::ioctl as number;
use rustix::io::Result;
use rustix::ioctl::{Getter, NoArg, Opcode, Setter, Updater, ioctl};

/// How many bytes a name may take in `btrfs_ioctl_vol_args_v2`, its NUL included.
const NAME_FIELD: usize = 4040;

/// How many bytes of items a search for few items brings back at most. Those (root items,
/// references, directory items) take a few hundred bytes each.
pub(crate) const FEW: usize = 16 * 1024;

/// The same for a search for everything: more than the largest leaf (64 KiB) can hold, so that
/// any item fits.
pub(crate) const MANY: usize = 128 * 1024;

/// `btrfs_ioctl_search_args_v2` with room for the answer, which in C is a
/// flexible array member at the end.
#[repr(C)]
pub(crate) struct Search<const SIZE: usize> {
    pub(crate) key: btrfs_ioctl_search_key,
    buffer_size: u64,
    pub(crate) buffer: [u8; SIZE],
}

impl<const SIZE: usize> Search<SIZE> {
    pub(crate) fn new(key: btrfs_ioctl_search_key) -> Self {
        Self { key, buffer_size: SIZE as u64, buffer: [0; SIZE] }
    }
}

/// Calls an ioctl that only reads its argument.
///
/// # Safety
///
/// `NUMBER` must be an ioctl that takes a pointer to a `T`, initialised as that
/// ioctl wants it, and writes nothing back.
unsafe fn write<const NUMBER: Opcode, T>(fd: BorrowedFd<'_>, argument: T) -> Result<()> {
    // SAFETY: the caller promises that NUMBER takes a pointer to a T.
    let setter = unsafe { Setter::<NUMBER, T>::new(argument) };
    // SAFETY: the same promise; the argument lives as long as the call.
    unsafe { ioctl(fd, setter) }
}

/// Calls an ioctl that fills its argument.
///
/// # Safety
///
/// `NUMBER` must be an ioctl that writes a whole, valid `T`.
unsafe fn read<const NUMBER: Opcode, T>(fd: BorrowedFd<'_>) -> Result<T> {
    // SAFETY: the caller promises that NUMBER writes a T.
    let getter = unsafe { Getter::<NUMBER, T>::new() };
    // SAFETY: the same promise: after success the T is initialised.
    unsafe { ioctl(fd, getter) }
}

/// Calls an ioctl that reads its argument and writes its answer over it.
///
/// # Safety
///
/// `NUMBER` must be an ioctl that takes a pointer to a `T` and keeps it valid.
unsafe fn update<const NUMBER: Opcode, T>(fd: BorrowedFd<'_>, argument: &mut T) -> Result<()> {
    // SAFETY: the caller promises that NUMBER takes a pointer to a T.
    let updater = unsafe { Updater::<NUMBER, T>::new(argument) };
    // SAFETY: the same promise; the borrow lasts as long as the call.
    unsafe { ioctl(fd, updater) }
}

fn to_chars<const N: usize>(name: &OsStr) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(name.as_bytes()) {
        *to = c_char::from_ne_bytes([*from]);
    }
    field
}

/// The name in a field of characters, up to its NUL.
pub(crate) fn from_chars(field: &[c_char]) -> OsString {
    OsString::from_vec(
        field
            .iter()
            .map(|character| character.to_ne_bytes()[0])
            .take_while(|byte| *byte != 0)
            .collect(),
    )
}

/// The argument shared by the ioctls that make and remove subvolumes. The caller
/// has seen to it that the name is one component of at most 255 bytes.
fn volume_arguments(name: &OsStr, source: i64, flags: u32) -> btrfs_ioctl_vol_args_v2 {
    btrfs_ioctl_vol_args_v2 {
        fd: source,
        transid: 0,
        flags: u64::from(flags),
        __bindgen_anon_1: btrfs_ioctl_vol_args_v2__bindgen_ty_1 { unused: [0; 4] },
        __bindgen_anon_2: btrfs_ioctl_vol_args_v2__bindgen_ty_2 {
            name: to_chars::<NAME_FIELD>(name),
        },
    }
}

pub(crate) fn create_subvolume(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let arguments = volume_arguments(name, 0, 0);
    // SAFETY: SUBVOL_CREATE_V2 takes btrfs_ioctl_vol_args_v2, with the name as a
    // NUL-terminated string; no flag asks for a pointer in it to be followed.
    unsafe { write::<{ number::BTRFS_IOC_SUBVOL_CREATE_V2 as Opcode }, _>(parent, arguments) }
}

pub(crate) fn create_snapshot(
    source: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    read_only: bool,
) -> Result<()> {
    let flags = if read_only { BTRFS_SUBVOL_RDONLY } else { 0 };
    let arguments = volume_arguments(name, i64::from(source.as_raw_fd()), flags);
    // SAFETY: SNAP_CREATE_V2 takes btrfs_ioctl_vol_args_v2; the source descriptor
    // is borrowed for longer than the call.
    unsafe { write::<{ number::BTRFS_IOC_SNAP_CREATE_V2 as Opcode }, _>(parent, arguments) }
}

pub(crate) fn destroy_by_name(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let arguments = volume_arguments(name, 0, 0);
    // SAFETY: SNAP_DESTROY_V2 takes btrfs_ioctl_vol_args_v2, here with a name.
    unsafe { write::<{ number::BTRFS_IOC_SNAP_DESTROY_V2 as Opcode }, _>(parent, arguments) }
}

pub(crate) fn destroy_by_id(filesystem: BorrowedFd<'_>, id: u64) -> Result<()> {
    let mut arguments = volume_arguments(OsStr::new(""), 0, BTRFS_SUBVOL_SPEC_BY_ID);
    arguments.__bindgen_anon_2.subvolid = id;
    // SAFETY: SNAP_DESTROY_V2 takes btrfs_ioctl_vol_args_v2, and with SPEC_BY_ID
    // reads the id where the name would be.
    unsafe { write::<{ number::BTRFS_IOC_SNAP_DESTROY_V2 as Opcode }, _>(filesystem, arguments) }
}

pub(crate) fn subvolume_flags(subvolume: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: SUBVOL_GETFLAGS writes one u64.
    unsafe { read::<{ number::BTRFS_IOC_SUBVOL_GETFLAGS as Opcode }, u64>(subvolume) }
}

pub(crate) fn set_subvolume_flags(subvolume: BorrowedFd<'_>, flags: u64) -> Result<()> {
    // SAFETY: SUBVOL_SETFLAGS reads one u64.
    unsafe { write::<{ number::BTRFS_IOC_SUBVOL_SETFLAGS as Opcode }, u64>(subvolume, flags) }
}

pub(crate) fn subvolume_info(file: BorrowedFd<'_>) -> Result<btrfs_ioctl_get_subvol_info_args> {
    // SAFETY: GET_SUBVOL_INFO reads nothing and writes the whole structure, which
    // is made of integers only.
    unsafe { read::<{ number::BTRFS_IOC_GET_SUBVOL_INFO as Opcode }, _>(file) }
}

pub(crate) fn filesystem_uuid(file: BorrowedFd<'_>) -> Result<[u8; 16]> {
    let mut arguments = btrfs_ioctl_fs_info_args {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        nodesize: 0,
        sectorsize: 0,
        clone_alignment: 0,
        csum_type: 0,
        csum_size: 0,
        flags: 0,
        generation: 0,
        metadata_uuid: [0; 16],
        reserved: [0; 944],
    };
    // SAFETY: FS_INFO reads the flags of this structure and writes all of it; it
    // is made of integers only.
    unsafe { update::<{ number::BTRFS_IOC_FS_INFO as Opcode }, _>(file, &mut arguments)? };
    Ok(arguments.fsid)
}

fn look_up(file: BorrowedFd<'_>, tree: u64, inode: u64) -> Result<btrfs_ioctl_ino_lookup_args> {
    let mut arguments =
        btrfs_ioctl_ino_lookup_args { treeid: tree, objectid: inode, name: [0; 4080] };
    // SAFETY: INO_LOOKUP reads and writes this structure, made of integers only.
    unsafe { update::<{ number::BTRFS_IOC_INO_LOOKUP as Opcode }, _>(file, &mut arguments)? };
    Ok(arguments)
}

pub(crate) fn containing_tree(file: BorrowedFd<'_>) -> Result<u64> {
    look_up(file, 0, u64::from(BTRFS_FIRST_FREE_OBJECTID)).map(|answer| answer.treeid)
}

pub(crate) fn directory_path(file: BorrowedFd<'_>, tree: u64, inode: u64) -> Result<OsString> {
    look_up(file, tree, inode).map(|answer| from_chars(&answer.name))
}

pub(crate) fn tree_search<const SIZE: usize>(
    file: BorrowedFd<'_>,
    search: &mut Search<SIZE>,
) -> Result<()> {
    // SAFETY: TREE_SEARCH_V2 takes btrfs_ioctl_search_args_v2, whose layout Search
    // has, and writes at most `buffer_size` bytes after it: the buffer's length,
    // which nothing outside `Search::new` can set.
    unsafe { update::<{ number::BTRFS_IOC_TREE_SEARCH_V2 as Opcode }, _>(file, search) }
}

pub(crate) fn set_default_subvolume(file: BorrowedFd<'_>, id: u64) -> Result<()> {
    // SAFETY: DEFAULT_SUBVOL reads one u64.
    unsafe { write::<{ number::BTRFS_IOC_DEFAULT_SUBVOL as Opcode }, u64>(file, id) }
}

pub(crate) fn limit_quota_group(
    file: BorrowedFd<'_>,
    qgroupid: u64,
    lim: btrfs_qgroup_limit,
) -> Result<()> {
    let arguments = btrfs_ioctl_qgroup_limit_args { qgroupid, lim };
    // SAFETY: QGROUP_LIMIT reads one btrfs_ioctl_qgroup_limit_args. Its number says that it writes one
    // too, which it does not; the argument is this function's own.
    unsafe { write::<{ number::BTRFS_IOC_QGROUP_LIMIT as Opcode }, _>(file, arguments) }
}

pub(crate) fn extended_flags(file: BorrowedFd<'_>) -> Result<fsxattr> {
    // SAFETY: FSGETXATTR writes one fsxattr, which is made of integers only.
    unsafe { read::<{ number::FS_IOC_FSGETXATTR as Opcode }, fsxattr>(file) }
}

pub(crate) fn set_extended_flags(file: BorrowedFd<'_>, flags: fsxattr) -> Result<()> {
    // SAFETY: FSSETXATTR reads one fsxattr.
    unsafe { write::<{ number::FS_IOC_FSSETXATTR as Opcode }, fsxattr>(file, flags) }
}

pub(crate) fn sync_and_wake(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: SYNC takes no argument.
    let call = unsafe { NoArg::<{ number::BTRFS_IOC_SYNC as Opcode }>::new() };
    // SAFETY: as above; it touches no memory of this process.
    unsafe { ioctl(file, call) }
}
