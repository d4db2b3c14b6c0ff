//! Directories that are encrypted with fscrypt, by whoever asks: `xfs_io` runs with the credentials of the
//! thread that calls.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::capability;
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};

/// A key of 64 bytes.
pub(crate) const KEY: [u8; 64] = [b'k'; 64];

/// Whether the kernel encrypts directories of an ext4, and there is a program to ask it with.
pub(crate) fn can_encrypt() -> Result<(), String> {
    capability::root_and_ext4()?;
    if !Path::new("/sys/fs/ext4/features/encryption").exists() {
        return Err("this kernel's ext4 does not encrypt".to_owned());
    }
    Command::new("xfs_io").arg("-V").output().map(drop).map_err(|error| format!("xfs_io: {error}"))
}

/// What `xfs_io` says of a directory that is open, with the key as its input.
fn xfs_io(command: &str, at: &OwnedFd, key: &[u8]) -> Result<String> {
    let input = memfd_create("key", MemfdFlags::CLOEXEC)?;
    rustix::io::write(&input, key)?;
    seek(&input, SeekFrom::Start(0))?;
    let mut asked = Command::new("xfs_io");
    // Paths to it may be closed to the user; its errors go nowhere.
    asked.args(["-r", "-c", command, "/proc/self/fd/2"]).stderr(File::from(at.try_clone()?));
    let output = asked.stdin(Stdio::from(input)).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command}: {} {said}", output.status);
    Ok(said)
}

/// Loads a key, and answers which one it is.
pub(crate) fn load(key: &[u8], at: &OwnedFd) -> Result<String> {
    let said = xfs_io("add_enckey", at, key)?;
    let name = said.split_whitespace().last().with_context(|| format!("no key: {said:?}"))?;
    Ok(name.to_owned())
}

/// Takes away what was loaded.
pub(crate) fn unload(key: &str, at: &OwnedFd) -> Result<String> {
    xfs_io(&format!("rm_enckey {key}"), at, &[])
}

/// Encrypts an empty directory.
pub(crate) fn encrypt(at: &OwnedFd, key: &str) -> Result<()> {
    xfs_io(&format!("set_encpolicy {key}"), at, &[]).map(drop)
}

/// With which key, and how, a file is encrypted.
pub(crate) fn policy(at: &Path) -> Result<String> {
    xfs_io("get_encpolicy", &File::open(at)?.into(), &[])
}
