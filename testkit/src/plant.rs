//! Single steps of making an entry. Each does one thing to one path, never follows a symlink, and
//! gives the kernel's answer back as it is.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use crate::attributes::Attribute;
use crate::flags::Flags;
use crate::tree::Time;

/// Opens a file or directory itself, to set its flags or to write to it.
pub fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// A new file with these bytes; the flags are set before there is any data, as NOCOW demands.
pub fn file(path: &Path, bytes: &[u8], early: Flags) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    if !early.is_empty() {
        early.write(&file)?;
    }
    io::Write::write_all(&mut std::fs::File::from(file), bytes)
}

/// A new sparse file: pieces of data, and holes between them and up to the size.
pub fn sparse_file(path: &Path, size: u64, pieces: &[(u64, &[u8])]) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::create_new(path)?;
    file.set_len(size)?;
    for (offset, bytes) in pieces {
        file.write_all_at(bytes, *offset)?;
    }
    Ok(())
}

/// A new file with space allocated and not written.
pub fn preallocated_file(path: &Path, size: u64) -> io::Result<()> {
    let file = std::fs::File::create_new(path)?;
    Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size)?)
}

/// A new fifo, socket or device node.
pub fn node(path: &Path, kind: FileType, major: u32, minor: u32) -> io::Result<()> {
    let device = rustix::fs::makedev(major, minor);
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)?)
}

/// Sets owner and group. It clears setuid and capabilities, so it comes first.
pub fn owner(path: &Path, owner: u32, group: u32) -> io::Result<()> {
    let (owner, group) = (Uid::from_raw(owner), Gid::from_raw(group));
    Ok(rustix::fs::chownat(CWD, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the mode, of anything but a symlink.
pub fn mode(path: &Path, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// Sets both times, and fails where the filesystem silently keeps others.
pub fn times(path: &Path, atime: Time, mtime: Time) -> io::Result<()> {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    let wanted = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    rustix::fs::utimensat(CWD, path, &wanted, AtFlags::SYMLINK_NOFOLLOW)?;
    let found = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let got = (found.st_atime, found.st_mtime);
    if got == (atime.seconds, mtime.seconds) { Ok(()) } else { Err(Errno::OVERFLOW.into()) }
}

/// Sets an extended attribute.
pub fn xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    xattr::set(path, name, value)
}

/// Sets exactly these flags, and fails where the filesystem silently keeps others.
pub fn flags(path: &Path, wanted: Flags) -> io::Result<()> {
    let opened = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    wanted.write(&opened)?;
    if Flags::read(&opened)? == Some(wanted) { Ok(()) } else { Err(Errno::OPNOTSUPP.into()) }
}

/// Sets one flag more.
pub fn flag(path: &Path, attribute: Attribute) -> io::Result<()> {
    let opened = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let old = Flags::read(&opened)?.unwrap_or_default();
    drop(opened);
    flags(path, old.with(Flags::of(attribute)))
}

/// One line of an access control list: tag, permissions, and the id for a named user or group.
pub type AclLine = (u16, u16, u32);

/// The tags of [`AclLine`], and the id of a line that names nobody.
pub mod acl {
    #![expect(missing_docs, reason = "the names are those of linux/posix_acl.h")]
    pub const USER_OBJ: u16 = 0x01;
    pub const USER: u16 = 0x02;
    pub const GROUP_OBJ: u16 = 0x04;
    pub const GROUP: u16 = 0x08;
    pub const MASK: u16 = 0x10;
    pub const OTHER: u16 = 0x20;
    pub const NOBODY: u32 = u32::MAX;
}

/// The bytes of an access control list as the kernel takes them in `system.posix_acl_*`.
#[must_use]
pub fn acl_bytes(lines: &[AclLine]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in lines {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// An access control list that gives one named user `rw-` and one named group `r-x`.
#[must_use]
pub fn example_acl(user: u32, group: u32) -> Vec<u8> {
    acl_bytes(&[
        (acl::USER_OBJ, 7, acl::NOBODY),
        (acl::USER, 6, user),
        (acl::GROUP_OBJ, 5, acl::NOBODY),
        (acl::GROUP, 5, group),
        (acl::MASK, 7, acl::NOBODY),
        (acl::OTHER, 4, acl::NOBODY),
    ])
}

/// `cap_net_raw+ep` (bit 13) or another capability, as `security.capability` holds it (version 2).
#[must_use]
pub fn file_capability(bit: u32) -> Vec<u8> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    let permitted = [(1_u64 << bit) & 0xffff_ffff, (1_u64 << bit) >> 32];
    let mut bytes = REVISION_2_EFFECTIVE.to_le_bytes().to_vec();
    for half in permitted {
        bytes.extend_from_slice(&half.to_le_bytes()[..4]);
        bytes.extend_from_slice(&[0; 4]);
    }
    bytes
}
