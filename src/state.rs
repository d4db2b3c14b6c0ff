//! What a volume remembers in `.darlings`: the number of its last reset and what was
//! persisted then.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::restore::{at, own_directory};
use crate::rules::{OWN_DIRECTORY, Rules};

const GENERATION: &std::ffi::CStr = c"generation";
const MANIFEST: &std::ffi::CStr = c"manifest";

/// What was persisted at a reset, so that the next one sees what is no longer declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this file.
    pub version: u32,
    /// Number of the reset that wrote it.
    pub generation: u64,
    /// Persisted paths below the volume's root.
    pub persisted: Vec<PathBuf>,
    /// Excluded paths below the volume's root.
    pub excluded: Vec<PathBuf>,
}

impl Manifest {
    /// The manifest of a reset.
    #[must_use]
    pub fn new(generation: u64, rules: &Rules) -> Self {
        let persisted = rules.persisted().into_iter().map(|persisted| persisted.path).collect();
        Self { version: 1, generation, persisted, excluded: rules.excluded() }
    }
}

/// Writes both files into the own directory of the tree at `root`, which a restoration made.
///
/// # Errors
/// The file that could not be written.
pub fn write(root: BorrowedFd<'_>, manifest: &Manifest) -> anyhow::Result<()> {
    let own = own_directory(root)?;
    let text = serde_json::to_string_pretty(manifest).context("BUG: the manifest is not JSON")?;
    for (name, text) in [(MANIFEST, text), (GENERATION, manifest.generation.to_string())] {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(&own, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(std::io::Error::from)
            .map(std::fs::File::from)
            .and_then(|mut file| writeln!(file, "{text}"))
            .with_context(|| format!("cannot write {OWN_DIRECTORY}/{name:?}"))?;
    }
    Ok(())
}

/// The number of the last reset of the tree at `root`; 0 when it was never reset.
///
/// # Errors
/// The file is there and cannot be read, or holds no number.
pub fn generation(root: BorrowedFd<'_>) -> anyhow::Result<u64> {
    let cannot = || format!("cannot read {OWN_DIRECTORY}/generation");
    let own = at::directory_beneath(root, Path::new(OWN_DIRECTORY)).with_context(cannot)?;
    let Some(own) = own else { return Ok(0) };
    let file = at::present(at::open_file(own.as_fd(), GENERATION)).with_context(cannot)?;
    let Some(file) = file else { return Ok(0) };
    let text = std::io::read_to_string(std::fs::File::from(file)).with_context(cannot)?;
    text.trim().parse().with_context(|| {
        format!("{OWN_DIRECTORY}/generation holds {text:?}, which is no number; remove the file")
    })
}
