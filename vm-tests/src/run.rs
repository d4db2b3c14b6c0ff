//! One command, run as root in the initrd of a guest; no root is booted.
//!
//! The kernel module is loaded and the scratch disks are there. Tests of code
//! that needs ZFS run so on a computer whose own kernel has none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::Filesystem;
use crate::archive::Archive;
use crate::boot_files::BootFiles;
use crate::disk::Disk;
use crate::qemu::{Ended, Guest};

/// The first program of a guest that boots no root.
const INIT: &str = include_str!("../guest/init");

/// A command to run in a guest.
#[derive(Debug)]
pub struct Command {
    /// The filesystem whose module is loaded and whose tools are there.
    pub filesystem: Filesystem,
    /// A shell script.
    pub script: String,
    /// Files of this computer and where they go in the guest.
    pub files: Vec<(PathBuf, String)>,
    /// Disks of the guest.
    pub disks: Vec<Disk>,
    /// Its memory, in MiB.
    pub memory: u32,
    /// How long it may take.
    pub limit: Duration,
    /// Whether its output is shown while it runs.
    pub stream: bool,
    /// More options for its kernel.
    pub options: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status, 128 and more when a signal ended it.
    pub status: u8,
    /// What it wrote, errors among it.
    pub output: Vec<u8>,
    /// The guest's console.
    pub console: String,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

impl Command {
    /// A script with no files and no disks.
    #[must_use]
    pub fn new(filesystem: Filesystem, script: &str) -> Self {
        Self {
            filesystem,
            script: script.to_owned(),
            files: Vec::new(),
            disks: Vec::new(),
            memory: 3072,
            limit: Duration::from_secs(300),
            stream: false,
            options: String::new(),
        }
    }

    /// Runs it. An exit status of the command is a result; a guest that dies or
    /// reaches the limit is an error that holds its console.
    pub fn run(&self, boot: &BootFiles) -> Result<Finished> {
        let ended = self.guest(boot)?;
        let status = ended.status.trim().strip_prefix("exit ").and_then(|code| code.parse().ok());
        match status {
            Some(status) => Ok(Finished {
                status,
                output: ended.output,
                console: ended.console,
                took: ended.took,
            }),
            None => bail!(
                "the guest {} after {:.0?} and gave no exit status\n--- its output:\n{}\n--- its console:\n{}",
                if ended.timed_out { "was killed at its limit" } else { "died" },
                ended.took,
                String::from_utf8_lossy(&ended.output),
                ended.console
            ),
        }
    }

    /// Runs it until the guest switches itself off without an exit status; gives its output.
    pub fn run_until_off(&self, boot: &BootFiles) -> Result<String> {
        let ended = self.guest(boot)?;
        let output = String::from_utf8_lossy(&ended.output).into_owned();
        if ended.timed_out || !ended.status.is_empty() {
            bail!("the guest did not switch itself off:\n{}\n{}", told(&output), ended.console);
        }
        Ok(output)
    }

    fn guest(&self, boot: &BootFiles) -> Result<Ended> {
        let mut extra = Archive::default();
        extra.file("/darlings-vm/init", 0o755, INIT.as_bytes())?;
        extra.file(
            "/darlings-vm/run",
            0o755,
            format!("#!/bin/bash\n{}\n", self.script).as_bytes(),
        )?;
        for (from, to) in &self.files {
            extra.copy(from, to)?;
        }
        Guest {
            kernel: &boot.kernel,
            initrd: &boot.initrd(self.filesystem),
            extra: &extra.finish()?,
            options: &format!(
                "quiet rdinit=/darlings-vm/init darlings_vm.modules={} {}",
                self.filesystem.name(),
                self.options
            ),
            disks: &self.disks,
            memory: self.memory,
            limit: self.limit,
            stream: self.stream,
        }
        .run()
    }

    /// Runs it and insists on exit status 0; its output is the answer.
    pub fn succeed(&self, boot: &BootFiles) -> Result<String> {
        let finished = self.run(boot)?;
        let output = String::from_utf8_lossy(&finished.output).into_owned();
        if finished.status != 0 {
            bail!("a command in the guest ended with {}:\n{}", finished.status, told(&output));
        }
        Ok(output)
    }
}

/// What a guest said, for this computer's log: indented, so that nobody takes the verdict of a
/// test harness in the guest for one of this computer's.
#[must_use]
pub fn told(output: &str) -> String {
    output.split_inclusive('\n').flat_map(|line| ["    ", line]).collect()
}

/// `HOST:GUEST`, as the `vm` command takes it.
pub fn host_and_guest(text: &str) -> Result<(PathBuf, String), String> {
    match text.split_once(':') {
        Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => {
            Ok((Path::new(host).to_owned(), guest.to_owned()))
        }
        _ => Err(format!("{text} is not HOST:GUEST with an absolute path in the guest")),
    }
}
