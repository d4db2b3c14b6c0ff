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
    /// Where everything that is written to it, and every flush, is written down.
    pub recording: Option<PathBuf>,
    /// Somebody else writes to the file: the disk shows what is in it at the moment.
    pub is_shown: bool,
}

/// How long a recording can become; it takes no room until then.
const RECORDING: u64 = 4 << 30;

impl Disk {
    /// An empty disk that takes no room until it is written to.
    pub fn blank(path: PathBuf, serial: &str, bytes: u64) -> Result<Self> {
        let describe = || format!("cannot make the disk {}", path.display());
        File::create(&path).and_then(|file| file.set_len(bytes)).with_context(describe)?;
        Ok(Self::raw(path, serial))
    }

    /// A disk that starts as `base` is, and leaves `base` alone.
    pub fn overlay(path: PathBuf, serial: &str, base: &Path) -> Result<Self> {
        program::run(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(base)
                .arg(&path),
        )?;
        Ok(Self { format: "qcow2", ..Self::raw(path, serial) })
    }

    /// A file of this computer as a disk.
    #[must_use]
    pub fn raw(path: PathBuf, serial: &str) -> Self {
        let serial = serial.to_owned();
        Self { path, format: "raw", serial, recording: None, is_shown: false }
    }

    /// The same, and a recording of it: see `darlings_testkit::power`.
    pub fn recorded(self, to: PathBuf) -> Result<Self> {
        File::create_new(&to)
            .and_then(|file| file.set_len(RECORDING))
            .with_context(|| format!("cannot make the recording {}", to.display()))?;
        Ok(Self { recording: Some(to), ..self })
    }

    /// A disk that shows the guest a recording while it is made. Read-only.
    #[must_use]
    pub fn shown(recording: PathBuf, serial: &str) -> Self {
        Self { is_shown: true, ..Self::raw(recording, serial) }
    }

    /// QEMU's options for it, as the `number`th of the guest.
    pub(crate) fn options(&self, number: usize) -> Vec<String> {
        let Self { path, format, serial, .. } = self;
        let (path, node) = (path.display(), format!("disk{number}"));
        // The disks live no longer than the test, and what the guest wrote is in this computer's
        // memory whatever becomes of QEMU: nothing is made durable here.
        let unsafe_cache = "cache.no-flush=on";
        let device = format!("virtio-blk-pci,drive={node},serial={serial}");
        match &self.recording {
            None if self.is_shown => vec![
                "-blockdev".to_owned(),
                format!("driver=file,node-name={node},filename={path},locking=off,read-only=on"),
                "-device".to_owned(),
                device,
            ],
            None => vec![
                "-drive".to_owned(),
                format!("file={path},format={format},if=none,id={node},cache=unsafe,discard=unmap"),
                "-device".to_owned(),
                device,
            ],
            // Here the guest's flushes must come through, to the recording.
            Some(log) => vec![
                "-blockdev".to_owned(),
                format!("driver=file,node-name={node}-file,filename={path},{unsafe_cache}"),
                "-blockdev".to_owned(),
                format!("driver={format},node-name={node}-disk,file={node}-file,{unsafe_cache}"),
                "-blockdev".to_owned(),
                format!(
                    "driver=file,node-name={node}-log,filename={},{unsafe_cache}",
                    log.display()
                ),
                "-blockdev".to_owned(),
                format!(
                    "driver=blklogwrites,node-name={node},file={node}-disk,log={node}-log,\
                     log-sector-size=512"
                ),
                "-device".to_owned(),
                format!("{device},write-cache=on"),
            ],
        }
    }
}
