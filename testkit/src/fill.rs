//! Trees to reset: one with every kind of entry and attribute, one a person would believe, one
//! that nobody has tidied up for a year, one with very many files.

mod believable;
mod clutter;
mod everything;

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};

pub use believable::{believable_blank, believable_root};
pub use clutter::{CLUTTER_KEPT, clutter, clutter_config};
pub use everything::{Refusal, Wanted, everything, everything_but};

use crate::descent::Descent;

/// A chain of `levels` directories called `name`, one in the other, and a file in the last. It may
/// be far longer than a path can be.
pub fn deep(dir: &Path, levels: usize, name: &str) -> Result<()> {
    let mut descent = Descent::open(dir)?;
    for _ in 0..levels {
        rustix::fs::mkdirat(descent.fd(), name, Mode::from_raw_mode(0o755)).context("mkdirat")?;
        descent.enter(name.as_bytes())?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(descent.fd(), "bottom", flags, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, b"the bottom\n")?;
    Ok(())
}

/// `count` small files, a thousand to a directory.
pub fn many_small(dir: &Path, count: usize) -> Result<()> {
    for chunk in 0..count.div_ceil(1000) {
        let sub = dir.join(format!("{chunk:04}"));
        std::fs::create_dir(&sub).with_context(|| format!("cannot make {}", sub.display()))?;
        for number in chunk * 1000..count.min((chunk + 1) * 1000) {
            let text = format!("file number {number}\n").repeat(1 + number % 40);
            let path = sub.join(format!("{number:07}"));
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}
