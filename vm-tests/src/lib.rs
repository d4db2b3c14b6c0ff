//! Boots real machines with a ZFS or a btrfs root in QEMU.
//!
//! | module | what it does |
//! |---|---|
//! | [`boot_files`] | builds the kernel and the initrds once, and keeps them |
//! | [`image`] | fills the disks of installed machines once, and keeps them |
//! | [`archive`] | writes the extra cpio that carries a test's files into the initrd |
//! | [`disk`] | throw-away disks |
//! | `dracut` | an initrd that dracut makes with the project's module |
//! | [`qemu`] | starts one guest, waits for it with a limit, and never leaves it running |
//! | [`run`] | runs one command in the initrd of a guest and boots no root |
//! | [`mod@bench`] | measures resets on ZFS beside other tools, and what a reset adds to a boot |
//! | [`machine`] | a machine with a root on disk, booted as often as a test likes |
//! | [`trees`] | what a boot writes down of its volumes |
//! | [`capability`] | whether this computer can do any of it |
//!
//! A test changes nothing but the extra cpio: the binary, its configuration, the
//! unit that ships with the project, and the scripts to run at each moment of a
//! boot. So a change of code needs no new image. Where dracut has put the project
//! into an initrd, only the scripts are in the extra cpio.

pub mod accelerator;
pub mod archive;
pub mod bench;
pub mod boot_files;
pub mod capability;
mod child;
pub mod disk;
mod dracut;
pub mod image;
pub mod machine;
pub(crate) mod program;
pub mod qemu;
mod rendered;
pub mod run;
pub mod trees;

/// The filesystem that a machine has its volumes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filesystem {
    /// Datasets of the pool `rpool`.
    Zfs,
    /// Subvolumes of the filesystem labelled `root`.
    Btrfs,
}

impl Filesystem {
    /// Every filesystem there is a machine for.
    pub const ALL: [Self; 2] = [Self::Zfs, Self::Btrfs];

    /// The name, as `mount -t` and the recipe's scripts take it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zfs => "zfs",
            Self::Btrfs => "btrfs",
        }
    }
}
