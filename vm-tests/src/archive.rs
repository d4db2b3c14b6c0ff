//! The extra archive that is appended to an initrd.
//!
//! The kernel unpacks several archives one after the other over the same root,
//! in the `newc` format of cpio. Each has to start at a multiple of four bytes,
//! or the kernel finds an "invalid magic" and silently leaves its files out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file with the given content and permissions.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, REGULAR | mode, content)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, SYMLINK, target.as_bytes())
    }

    /// Adds a file of this computer, with its permissions.
    pub fn copy(&mut self, from: &Path, path: &str) -> Result<()> {
        let describe = || format!("cannot read {}, which the guest needs", from.display());
        let content = fs::read(from).with_context(describe)?;
        let mode = fs::metadata(from).with_context(describe)?.permissions().mode() & 0o7777;
        self.file(path, mode, &content)
    }

    /// The finished archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.record("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let Some(relative) = path.strip_prefix('/') else {
            bail!("a path in a guest starts with a slash: {path}");
        };
        for (end, _) in relative.match_indices('/') {
            let above = &relative[..end];
            // The base initrd's own directories must not change their mode, and
            // those that are links there (/bin) must not become directories.
            if !matches!(above, "bin" | "sbin" | "lib" | "lib64" | "tmp")
                && self.directories.insert(above.to_owned())
            {
                self.record(above, DIRECTORY, &[])?;
            }
        }
        self.record(relative, mode, content)
    }

    fn record(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too big for a cpio archive"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, four device numbers,
        // the name's length with its NUL, and a checksum that newc leaves 0.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn every_record_starts_at_a_multiple_of_four() -> anyhow::Result<()> {
        let mut archive = Archive::default();
        archive.file("/a/b", 0o600, b"x")?;
        archive.symlink("/a/c", "b")?;
        let bytes = archive.finish()?;
        let starts: Vec<usize> =
            (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"070701")).collect();
        assert_eq!(starts.len(), 4, "the directory, the file, the link and the trailer");
        assert!(starts.iter().all(|start| start % 4 == 0), "{starts:?}");
        assert_eq!(bytes.len() % 4, 0);
        Ok(())
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(Archive::default().file("etc/x", 0o644, b"").is_err());
    }
}
