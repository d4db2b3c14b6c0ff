//! Everything an entry has beside its name and its bytes: owner, mode, extended attributes
//! (ACLs, capabilities and security labels among them), chattr flags, times.
//!
//! The order matters and is kept in one place, [`Source::copy_to`]: chown(2) clears setuid and
//! capabilities, so the owner comes first; btrfs forgets a `btrfs.compression` property when
//! flags are set, so flags come before extended attributes; an immutable file takes nothing
//! more, so the flags that seal come last, after the times, and in a way that does not make
//! btrfs forget the property after all.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context as _;
use linux_raw_sys::general as flag;
use rustix::fs::XattrFlags;
use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, Statx, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fremovexattr, fsetxattr, futimens, ioctl_getflags, ioctl_setflags,
    lgetxattr, llistxattr, lremovexattr, lsetxattr, utimensat,
};
use rustix::io::Errno;

/// chattr(1) flags that a user can set and that are copied. The rest describe how a
/// filesystem stores a file.
const KEPT_FLAGS: IFlags = IFlags::from_bits_retain(
    flag::FS_SECRM_FL
        | flag::FS_UNRM_FL
        | flag::FS_COMPR_FL
        | flag::FS_SYNC_FL
        | flag::FS_IMMUTABLE_FL
        | flag::FS_APPEND_FL
        | flag::FS_NODUMP_FL
        | flag::FS_NOATIME_FL
        | flag::FS_NOCOMP_FL
        | flag::FS_JOURNAL_DATA_FL
        | flag::FS_NOTAIL_FL
        | flag::FS_DIRSYNC_FL
        | flag::FS_TOPDIR_FL
        | flag::FS_NOCOW_FL
        | flag::FS_PROJINHERIT_FL,
);

/// Flags that forbid something later: every change to the entry itself, or, in a directory that gives
/// all that is in it its project, that something of another project is moved there.
pub(crate) const SEALING: IFlags = IFlags::IMMUTABLE
    .union(IFlags::APPEND)
    .union(IFlags::from_bits_retain(flag::FS_PROJINHERIT_FL));

/// Flags that btrfs keeps in step with the extended attribute `btrfs.compression`.
const COMPRESSION: IFlags = IFlags::from_bits_retain(flag::FS_COMPR_FL | flag::FS_NOCOMP_FL);

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of the kernel (`linux/limits.h`), in bytes.
pub(crate) const XATTR_MAX: usize = 65_536;

/// An entry has more extended attributes than the kernel lists. It cannot be copied, but it can be moved.
#[derive(Debug)]
pub(crate) struct Unlistable;

impl std::fmt::Display for Unlistable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "it has more of them than the kernel lists (64 KiB of names): remove some, or put a copy \
             without them in its place",
        )
    }
}

/// Extended attributes of a directory that decide who may do what in it.
const ACCESS: [&CStr; 5] = [
    c"system.posix_acl_access",
    c"system.posix_acl_default",
    c"security.selinux",
    c"security.SMACK64",
    c"security.SMACK64TRANSMUTE",
];

/// Buffers for names and values of extended attributes; one for each thread.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) names: Vec<u8>,
    pub(crate) other_names: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Whether the tree that is copied may have projects, once that is known.
    projects: Option<bool>,
}

impl Default for Scratch {
    fn default() -> Self {
        let buffer = || vec![0; XATTR_MAX];
        Self { names: buffer(), other_names: buffer(), value: buffer(), projects: None }
    }
}

/// An entry whose attributes are read or written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handle<'a> {
    /// A file or directory that is open.
    Open(BorrowedFd<'a>),
    /// Anything else: not opened, because that may block, act on a device, or be impossible.
    Named(BorrowedFd<'a>, &'a CStr),
}

impl Handle<'_> {
    pub(crate) fn list(self, names: &mut Vec<u8>) -> anyhow::Result<&[u8]> {
        let length = match self {
            Self::Open(file) => flistxattr(file, &mut **names),
            Self::Named(parent, name) => {
                llistxattr(crate::fs::at::magic_path(parent, name), &mut **names)
            }
        };
        match (length, self) {
            (Ok(length), _) => Ok(&names[..length]),
            // The filesystem has no extended attributes at all, so there is none to keep.
            (Err(Errno::OPNOTSUPP), _) => Ok(&[]),
            // More than the call can tell of, which any user can make on btrfs.
            (Err(Errno::TOOBIG), Self::Open(file)) if darlings_btrfs::is_btrfs(file)? => {
                *names = darlings_btrfs::xattr_names(file)?;
                Ok(names)
            }
            (Err(error @ Errno::TOOBIG), _) => Err(anyhow::Error::from(error).context(Unlistable)),
            (Err(error), _) => Err(error.into()),
        }
    }

    pub(crate) fn get<'b>(self, attribute: &CStr, value: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let length = match self {
            Self::Open(file) => fgetxattr(file, attribute, &mut *value)?,
            Self::Named(parent, name) => {
                lgetxattr(crate::fs::at::magic_path(parent, name), attribute, &mut *value)?
            }
        };
        Ok(&value[..length])
    }

    fn set(self, attribute: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(file) => fsetxattr(file, attribute, value, XattrFlags::empty()),
            Self::Named(parent, name) => lsetxattr(
                crate::fs::at::magic_path(parent, name),
                attribute,
                value,
                XattrFlags::empty(),
            ),
        }
    }

    fn remove(self, attribute: &CStr) -> Result<(), Errno> {
        let removed = match self {
            Self::Open(file) => fremovexattr(file, attribute),
            Self::Named(parent, name) => {
                lremovexattr(crate::fs::at::magic_path(parent, name), attribute)
            }
        };
        match removed {
            // XFS lists an ACL under two names, `system.posix_acl_access` and
            // `trusted.SGI_ACL_FILE`: it is gone from both once it is removed from one.
            Err(Errno::NODATA) => Ok(()),
            removed => removed,
        }
    }

    fn set_owner(self, uid: Uid, gid: Gid) -> Result<(), Errno> {
        match self {
            Self::Open(file) => fchown(file, Some(uid), Some(gid)),
            Self::Named(parent, name) => {
                chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn set_mode(self, mode: Mode) -> Result<(), Errno> {
        match self {
            Self::Open(file) => fchmod(file, mode),
            // Never a symbolic link, which has no mode of its own: see `Source::copy_to`.
            Self::Named(parent, name) => chmodat(parent, name, mode, AtFlags::empty()),
        }
    }

    fn set_times(self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Open(file) => futimens(file, times),
            Self::Named(parent, name) => utimensat(parent, name, times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    /// The chattr(1) flags, among those that users set. None for what cannot be opened:
    /// the kernel keeps flags of files and directories only.
    ///
    /// # Errors
    /// As ioctl(2) `FS_IOC_GETFLAGS`; a filesystem without flags has none.
    pub(crate) fn flags(self) -> Result<IFlags, Errno> {
        Ok(self.all_flags()?.unwrap_or(IFlags::empty()) & KEPT_FLAGS)
    }

    fn all_flags(self) -> Result<Option<IFlags>, Errno> {
        let Self::Open(file) = self else { return Ok(None) };
        match ioctl_getflags(file) {
            Ok(flags) => Ok(Some(flags)),
            // Both mean that this filesystem, or this kind of inode, knows no flags.
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the user's flags exactly `wanted`; answers whether anything had to change.
    ///
    /// # Errors
    /// As ioctl(2) `FS_IOC_SETFLAGS`; `EOPNOTSUPP` when flags are wanted where there are none.
    pub(crate) fn set_flags(self, wanted: IFlags) -> Result<bool, Errno> {
        let Self::Open(file) = self else { return Ok(false) };
        let Some(now) = self.all_flags()? else {
            return if wanted.is_empty() { Ok(false) } else { Err(Errno::OPNOTSUPP) };
        };
        if now & KEPT_FLAGS == wanted {
            return Ok(false);
        }
        ioctl_setflags(file, now.difference(KEPT_FLAGS) | wanted)?;
        Ok(true)
    }

    /// Changes an open entry's seals to `seals`; `now` are all flags that it has.
    fn set_seals(self, now: IFlags, seals: IFlags) -> Result<(), Errno> {
        let all = now.difference(SEALING) | seals;
        let Self::Open(file) = self else { return Ok(()) };
        if !now.intersects(COMPRESSION) {
            return self.set_flags(all).map(drop);
        }
        // btrfs would write the compression property anew with the flags.
        match darlings_btrfs::set_seals(file, seals) {
            // Not every filesystem that knows these flags knows this call.
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => self.set_flags(all).map(drop),
            result => result,
        }
    }

    /// Copies the ACLs and the labels of security modules, without listing what there is.
    ///
    /// # Errors
    /// The attribute that could not be copied, in words.
    pub(crate) fn copy_access_to(self, target: Self, scratch: &mut Scratch) -> anyhow::Result<()> {
        for name in ACCESS {
            match self.get(name, &mut scratch.value) {
                Ok(value) => target.set(name, value),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                Err(error) => Err(error),
            }
            .with_context(|| format!("cannot copy extended attribute {name:?}"))?;
        }
        Ok(())
    }

    /// Takes away what a new entry got from the directory it was made in: default ACLs,
    /// a group, setgid, flags, labels. What is then copied to it is all that it has.
    ///
    /// # Errors
    /// The call that failed, in words.
    pub(crate) fn strip(self, mode: Option<Mode>, scratch: &mut Scratch) -> anyhow::Result<()> {
        self.set_flags(IFlags::empty()).context("cannot clear inherited flags")?;
        let names = self.list(&mut scratch.names).context("cannot list extended attributes")?;
        for name in each_name(names).filter(|name| !is_label(name)) {
            self.remove(name).with_context(|| format!("cannot remove inherited {name:?}"))?;
        }
        self.set_owner(Uid::ROOT, Gid::ROOT).context("cannot set the owner")?;
        match mode {
            Some(mode) => self.set_mode(mode).context("cannot set the mode"),
            None => Ok(()),
        }
    }
}

/// A label that a security module gives every new file and that cannot be taken away, only
/// replaced. None is inherited from a directory's own attributes.
fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.")
}

/// Takes away the labels that an entry has of its own, so that it has no others than those that
/// are copied to it.
///
/// # Errors
/// The label that could not be removed.
pub(crate) fn remove_labels(target: Handle<'_>, scratch: &mut Scratch) -> anyhow::Result<()> {
    let names = target.list(&mut scratch.names).context("cannot list extended attributes")?;
    for name in each_name(names).filter(|name| is_label(name)) {
        match target.remove(name) {
            // A security module in force keeps its own; what is copied replaces it.
            Ok(()) | Err(Errno::ACCESS) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove the label {name:?}"));
            }
        }
    }
    Ok(())
}

pub(crate) fn each_name(list: &[u8]) -> impl Iterator<Item = &CStr> {
    list.split_inclusive(|&byte| byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
}

/// The times of an entry, as utimensat(2) takes them.
#[must_use]
pub(crate) fn times(status: &Statx) -> Timestamps {
    let time =
        |seconds, nanoseconds: u32| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps {
        last_access: time(status.stx_atime.tv_sec, status.stx_atime.tv_nsec),
        last_modification: time(status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
    }
}

/// The permission bits, setuid, setgid and sticky among them.
#[must_use]
pub(crate) fn permissions(status: &Statx) -> Mode {
    Mode::from_raw_mode(u32::from(status.stx_mode) & 0o7777)
}

/// What an entry is created with, so that later calls can be left out where nothing differs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Created {
    /// The mode it was created with, exact (the process has no umask); `None` when it has none
    /// of its own (a symbolic link).
    pub mode: Option<Mode>,
}

/// An entry of the previous state, or of the blank, whose attributes another one shall have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The entry itself.
    pub handle: Handle<'a>,
    /// What statx(2) said of it when the copy began.
    pub status: &'a Statx,
    /// Its flags, already read.
    pub flags: IFlags,
    /// Whether it may have extended attributes: false spares looking once more.
    pub has_xattrs: bool,
}

impl Source<'_> {
    /// Gives `target`, new and owned by root with nothing inherited, every attribute of this
    /// entry but the sealing flags, which are returned: set them when nothing more is to come.
    pub(crate) fn copy_to(
        &self,
        target: Handle<'_>,
        created: Created,
        scratch: &mut Scratch,
    ) -> anyhow::Result<IFlags> {
        let uid = Uid::from_raw(self.status.stx_uid);
        let gid = Gid::from_raw(self.status.stx_gid);
        let owned_by_root = uid.is_root() && gid.is_root();
        if !owned_by_root {
            target.set_owner(uid, gid).context("cannot set the owner")?;
        }
        let mode = permissions(self.status);
        // chown(2) clears setuid and setgid, so an owner means the mode is set again.
        let mode_is_right = created.mode == Some(mode)
            && (owned_by_root || !mode.intersects(Mode::SUID | Mode::SGID));
        if created.mode.is_some() && !mode_is_right {
            target.set_mode(mode).context("cannot set the mode")?;
        }
        self.copy_project(target, scratch)?;
        if !self.flags.is_empty() {
            target
                .set_flags(self.flags.difference(SEALING))
                .context("cannot set the flags of chattr(1)")?;
        }
        self.copy_xattrs(target, scratch)?;
        target.set_times(&times(self.status)).context("cannot set the times")?;
        Ok(self.flags & SEALING)
    }

    /// Gives `target` the project, which it may have got from the directory it was made in.
    fn copy_project(&self, target: Handle<'_>, scratch: &mut Scratch) -> anyhow::Result<()> {
        let (Handle::Open(source), Handle::Open(target)) = (self.handle, target) else {
            return Ok(());
        };
        // btrfs has none, and is not asked for each file.
        let may_have = match scratch.projects {
            Some(known) => known,
            None => *scratch.projects.insert(!darlings_btrfs::is_btrfs(source)?),
        };
        if !may_have {
            return Ok(());
        }
        let copy = || -> Result<(), Errno> {
            let project = darlings_btrfs::project(source)?;
            if project == darlings_btrfs::project(target)? {
                return Ok(());
            }
            darlings_btrfs::set_project(target, project)
        };
        match copy() {
            // Where quotas know no projects, there is none to be kept.
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(()),
            copied => copied.context("cannot set the project"),
        }
    }

    fn copy_xattrs(&self, target: Handle<'_>, scratch: &mut Scratch) -> anyhow::Result<()> {
        if !self.has_xattrs {
            return Ok(());
        }
        let Scratch { names, other_names, value, .. } = scratch;
        let names = self.handle.list(names).context("cannot list extended attributes")?;
        if names.is_empty() {
            return Ok(());
        }
        // Only btrfs' own properties are there already, made by the flags.
        let existing = target.list(other_names).context("cannot list extended attributes")?;
        for name in each_name(existing) {
            if !is_label(name) && !each_name(names).any(|wanted| wanted == name) {
                target.remove(name).with_context(|| format!("cannot remove {name:?}"))?;
            }
        }
        for name in each_name(names) {
            let value = self
                .handle
                .get(name, value)
                .with_context(|| format!("cannot read extended attribute {name:?}"))?;
            target
                .set(name, value)
                .with_context(|| format!("cannot set extended attribute {name:?}"))?;
        }
        Ok(())
    }
}

/// Sets the times of `target` to those of `status`.
pub(crate) fn set_times(target: Handle<'_>, status: &Statx) -> Result<(), Errno> {
    target.set_times(&times(status))
}

/// Removes every seal from an open file or directory, so that it can be changed.
/// Answers the seals it had.
pub fn unseal(target: impl AsFd) -> Result<IFlags, Errno> {
    let handle = Handle::Open(target.as_fd());
    let flags = handle.flags()?;
    if flags.intersects(SEALING) {
        handle.set_seals(flags, IFlags::empty())?;
    }
    Ok(flags & SEALING)
}

/// Sets seals in addition to the flags that `target` has.
pub fn seal(target: impl AsFd, seals: IFlags) -> Result<(), Errno> {
    if seals.is_empty() {
        return Ok(());
    }
    let handle = Handle::Open(target.as_fd());
    let flags = handle.flags()?;
    handle.set_seals(flags, flags & SEALING | seals)
}
