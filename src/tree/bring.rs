//! Bringing one path of another tree over, with all that it has: the part of `recover` that copies.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::Mode;

use super::attributes::{Handle, Scratch};
use super::copy::job;
use super::data::{BytesByRung, Ladder};
use super::directory::{copy_attributes, stand_in};
use super::flags::seal_file;
use super::links::Links;
use super::settle::Settled;
use super::walk::Walk;
use crate::fs::Dir;

/// What was brought over.
#[derive(Debug)]
pub struct Brought {
    /// Entries, the path itself among them.
    pub entries: u64,
    /// Bytes of regular files by the way they came.
    pub bytes: BytesByRung,
    /// Subvolumes nested in it, below the source's root: they are not part of it, and an empty
    /// directory stands for each.
    pub nested: Vec<PathBuf>,
}

/// How often whoever watches is told how far it is.
const PAUSE: Duration = Duration::from_millis(200);

/// Brings `from`, below `source`, into the directory `target`, which is the caller's own and empty.
/// The directories `above`, of which each lies in the one before and the last holds `from`, are
/// made first, after those of the source.
///
/// The process must have no umask, as for a reset. Times of the directories above are
/// set, and nothing is durable yet. `progress` is told entries and bytes now and then, from another
/// thread.
///
/// # Errors
/// What failed and on which path. The target is then useless.
pub fn bring(
    source: &Dir,
    from: &Path,
    above: &[&Path],
    target: &Dir,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> anyhow::Result<Brought> {
    let (ladder, links) = (Ladder::default(), Links::default());
    let mut scratch = Scratch::default();
    let mut made: Vec<(Dir, Settled)> = Vec::new();
    for path in above {
        let like_it = |scratch: &mut Scratch| -> anyhow::Result<(Dir, Settled)> {
            let like = source.open_dir(path)?;
            let parent = made.last().map_or(target, |(directory, _)| directory);
            let directory = make_bare(parent, path.file_name().context("BUG: no name")?)?;
            copy_attributes(&like, &directory, scratch)?;
            Ok((directory, Settled::look(&like)?))
        };
        made.push(like_it(&mut scratch).with_context(|| format!("cannot make {path:?}"))?);
    }
    let into = made.last().map_or(target, |(directory, _)| directory);
    let job = job(PathBuf::from(from.file_name().context("BUG: no name")?), None);
    let walk = Walk::new(into.as_fd(), &ladder, &links);
    walk.add_at(&job, (source, from), into, &mut scratch).with_context(|| format!("{from:?}"))?;
    let mut nested = std::thread::scope(|scope| {
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let job = &job;
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(PAUSE) {
                progress(job.entries.load(Ordering::Relaxed), job.bytes.load(Ordering::Relaxed));
            }
        });
        let nested = walk.run(threads);
        // The one who watches stops when nobody is left to send.
        drop(done);
        nested
    })?;
    for path in &nested {
        stand_in(into, path)?;
    }
    links.seal_all(|path, seals| seal_file(into, path, seals))?;
    for (directory, settled) in made.iter().rev() {
        settled.settle(directory).context("cannot set the times of a directory above")?;
    }
    let around = from.parent().unwrap_or(Path::new(""));
    for path in &mut nested {
        *path = around.join(&*path);
    }
    let entries = job.entries.load(Ordering::Relaxed);
    Ok(Brought { entries, bytes: ladder.bytes(), nested })
}

/// Makes a directory that is root's alone and inherits nothing.
///
/// # Errors
/// As mkdirat(2) and openat(2), and what could not be taken away.
pub(crate) fn make_bare(parent: &Dir, name: impl AsRef<Path>) -> anyhow::Result<Dir> {
    let directory = parent.make_dir(name)?;
    Handle::Open(directory.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default())?;
    Ok(directory)
}
