//! Throw-away disks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::program;

/// A disk of a guest, found there as `/dev/disk/by-id/virtio-SERIAL`.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file on this computer.
    pub path: PathBuf,
    /// How QEMU is to read it: `raw` or `qcow2`.
    pub format: &'static str,
    /// The serial number, at most 20 bytes.
    pub serial: String,
}

impl Disk {
    /// An empty disk that takes no room until it is written to.
    pub fn blank(path: PathBuf, serial: &str, bytes: u64) -> Result<Self> {
        let describe = || format!("cannot make the disk {}", path.display());
        File::create(&path).and_then(|file| file.set_len(bytes)).with_context(describe)?;
        Ok(Self { path, format: "raw", serial: serial.to_owned() })
    }

    /// A disk that starts as `base` is, and leaves `base` alone.
    pub fn overlay(path: PathBuf, serial: &str, base: &Path) -> Result<Self> {
        program::run(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(base)
                .arg(&path),
        )?;
        Ok(Self { path, format: "qcow2", serial: serial.to_owned() })
    }

    /// A file of this computer as a disk.
    #[must_use]
    pub fn raw(path: PathBuf, serial: &str) -> Self {
        Self { path, format: "raw", serial: serial.to_owned() }
    }
}
