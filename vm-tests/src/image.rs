//! The filled disks of installed machines, made in a guest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::boot_files::{BootFiles, Cache, DEBIAN, recipe, recipe_path};
use crate::disk::Disk;
use crate::{Filesystem, run};

/// What the filled disks are made from beside Debian. Not the initrd in which a
/// guest fills them: that leaves no trace on them but the host's identity.
const DISKS: [&str; 2] = ["root-tar", "fill-disk"];
/// The size of a machine's disk; it takes only the room that is written to.
const DISK_SIZE: u64 = 4 << 30;

/// What starts a guest, and the disks of installed machines.
#[derive(Clone, Debug)]
pub struct Image {
    /// What starts a guest.
    pub boot: BootFiles,
    disks: PathBuf,
}

impl Image {
    /// Everything that a machine starts from, built when it is not there yet.
    pub fn get() -> Result<Self> {
        let boot = BootFiles::get()?;
        let made_from = [DEBIAN.as_slice(), &DISKS].concat();
        let disks = Cache::open()?.product("disks", &made_from, "a minute", |to| {
            let archive = to.join("root.tar");
            recipe("root-tar", [boot.debian().as_os_str(), archive.as_os_str()])?;
            for filesystem in Filesystem::ALL {
                fill(&boot, filesystem, &archive, to)?;
            }
            fs::remove_file(&archive)
                .with_context(|| format!("cannot remove {}", archive.display()))
        })?;
        Ok(Self { boot, disks })
    }

    /// A machine's disk as it was installed. Not to be written to: make an overlay.
    #[must_use]
    pub fn disk(&self, filesystem: Filesystem) -> PathBuf {
        self.disks.join(format!("{}.raw", filesystem.name()))
    }
}

/// Lets a guest make the filesystem and unpack the archive into it.
fn fill(boot: &BootFiles, filesystem: Filesystem, archive: &Path, to: &Path) -> Result<()> {
    let name = filesystem.name();
    let disk = Disk::blank(to.join(format!("{name}.raw")), "root", DISK_SIZE)?;
    let mut command = run::Command::new(filesystem, &format!("exec /fill-disk {name}"));
    command.files = vec![(recipe_path("fill-disk"), "/fill-disk".to_owned())];
    command.disks = vec![disk, Disk::raw(archive.to_owned(), "archive")];
    command.succeed(boot).with_context(|| format!("cannot fill the {name} machine's disk"))?;
    Ok(())
}
