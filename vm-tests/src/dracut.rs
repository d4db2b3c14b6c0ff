//! A machine that boots by an initrd that dracut has made, with the project installed as a package
//! would: the dracut module finds what it needs, and nothing else puts the reset into the initrd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::boot_files::{self, BootFiles};
use crate::{Filesystem, program};

/// What the project ships, and where a package puts it.
const SHIPPED: [(&str, &str); 3] = [
    (
        include_str!("../../dracut/90darlings/module-setup.sh"),
        "usr/lib/dracut/modules.d/90darlings/module-setup.sh",
    ),
    (
        include_str!("../../systemd/darlings-reset.service"),
        "usr/lib/systemd/system/darlings-reset.service",
    ),
    (
        include_str!("../../systemd/darlings-reset-dir.service"),
        "usr/lib/systemd/system/darlings-reset-dir.service",
    ),
];

/// The identity by which the pool knows its machine; `image/initrd` has the same.
const HOSTID: &str = "dlng";

/// Makes the initrd of a machine with this configuration, in `scratch`.
pub(crate) fn initrd(
    boot: &BootFiles,
    configuration: &str,
    darlings: &Path,
    scratch: &Path,
) -> Result<PathBuf> {
    let installed = scratch.join("installed");
    for (content, path) in SHIPPED {
        put(&installed, path, content)?;
    }
    put(&installed, "etc/darlings.toml", configuration)?;
    put(&installed, "etc/hostid", HOSTID)?;
    let binary = installed.join("usr/bin/darlings");
    let parent = binary.parent().context("BUG: no parent")?;
    fs::create_dir_all(parent)
        .and_then(|()| fs::copy(darlings, &binary))
        .with_context(|| format!("cannot install {}", darlings.display()))?;
    let initrd = scratch.join("initrd");
    program::run(Command::new(boot_files::recipe_path("initrd-dracut")).args([
        boot.debian().as_path(),
        &installed,
        &initrd,
    ]))
    .context("dracut made no initrd")?;
    Ok(initrd)
}

fn put(root: &Path, path: &str, content: &str) -> Result<()> {
    let at = root.join(path);
    let parent = at.parent().context("BUG: no parent")?;
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&at, content))
        .with_context(|| format!("cannot write {}", at.display()))
}

impl Filesystem {
    /// What the kernel is told of the root, as such a machine's boot loader does.
    pub(crate) fn root_options(self) -> &'static str {
        match self {
            Self::Zfs => "root=zfs:rpool/local/root",
            Self::Btrfs => "root=LABEL=root rootfstype=btrfs rootflags=subvol=@,noatime",
        }
    }

    /// The unit of such an initrd after which the volumes can be reached.
    pub(crate) fn reachable_after(self) -> &'static str {
        match self {
            Self::Zfs => "zfs-import-scan.service",
            Self::Btrfs => r"dev-disk-by\x2dlabel-root.device",
        }
    }
}
