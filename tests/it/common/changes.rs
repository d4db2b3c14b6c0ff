//! What happens to a volume while it is used, made up.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{
    AtFlags, CWD, RenameFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, lsetxattr,
    renameat_with, utimensat,
};
use rustix::io::Errno;

use darlings_testkit::loopfs::LoopFs;

/// Noise from a seed, the same every time (splitmix64).
pub(crate) struct Noise(pub u64);

impl Noise {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap_or(0)
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.below(64)).unwrap_or(0)
    }

    fn pick<'p>(&mut self, paths: &'p [PathBuf]) -> &'p Path {
        &paths[self.below(paths.len())]
    }
}

/// Everything below a directory, itself first, but for the tool's own.
fn paths_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                let below = entry?.path();
                if below != root.join(".darlings") {
                    paths.push(below);
                }
            }
        }
    }
    paths[1..].sort();
    Ok(paths)
}

/// Does so many things to a tree. What a flag or a shape forbids is left; answers how many were done.
pub(crate) fn shuffle(root: &Path, noise: &mut Noise, things: usize) -> Result<usize> {
    let mut done = 0;
    for number in 0..things {
        let paths = paths_below(root)?;
        let directories: Vec<PathBuf> = {
            let is_dir = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|it| it.is_dir());
            paths.iter().filter(is_dir).cloned().collect()
        };
        let path = noise.pick(&paths).to_owned();
        let directory = noise.pick(&directories).to_owned();
        match thing(noise, &path, &directory, &paths, number) {
            Ok(true) => done += 1,
            Ok(false) => {}
            // What a flag, or that it is the root, or in itself, or not empty, forbids.
            Err(why) if forbidden(&why) => {}
            Err(why) => return Err(why).with_context(|| format!("{path:?}, {directory:?}")),
        }
    }
    Ok(done)
}

fn forbidden(why: &std::io::Error) -> bool {
    let excused = [
        Errno::PERM,
        Errno::INVAL,
        Errno::BUSY,
        Errno::NOTEMPTY,
        Errno::EXIST,
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::XDEV,
        Errno::MLINK,
        Errno::NXIO,
        Errno::NODEV,
    ];
    excused.map(Errno::raw_os_error).contains(&why.raw_os_error().unwrap_or(0))
}

fn thing(
    noise: &mut Noise,
    path: &Path,
    directory: &Path,
    paths: &[PathBuf],
    number: usize,
) -> std::io::Result<bool> {
    let fresh = directory.join(format!("made-{number}"));
    let metadata = fs::symlink_metadata(path)?;
    let is_file = metadata.is_file();
    match noise.below(16) {
        0 => fs::write(&fresh, format!("new {number}"))?,
        1 => {
            fs::create_dir(&fresh)?;
            fs::write(fresh.join("in it"), "new")?;
        }
        2 => symlink("/nix/store/x", &fresh)?,
        3 if is_file => File::options().append(true).open(path)?.write_all(b"more")?,
        // Other bytes of the same length and with the same time.
        4 if is_file && metadata.len() > 0 => {
            let mut old = fs::read(path)?;
            old[0] ^= 1;
            File::options().write(true).open(path)?.write_all_at(&old[..1], 0)?;
            let was = (metadata.mtime(), metadata.mtime_nsec());
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: was.0, tv_nsec: was.1 },
            };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        5 if !metadata.is_symlink() => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700 | noise.small()))?;
        }
        6 => std::os::unix::fs::lchown(path, Some(noise.small() % 3), None)?,
        7 if !metadata.is_symlink() => {
            lsetxattr(path, c"trusted.made", number.to_string().as_bytes(), XattrFlags::empty())?;
        }
        8 if is_file => fs::remove_file(path)?,
        9 if metadata.is_dir() && *path != paths[0] => fs::remove_dir_all(path)?,
        10 | 11 => fs::rename(path, &fresh)?,
        // Into the place of something else.
        12 => fs::rename(path, noise.pick(paths))?,
        13 | 14 => renameat_with(CWD, path, CWD, noise.pick(paths), RenameFlags::EXCHANGE)?,
        15 => fs::hard_link(path, &fresh)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Every subvolume goes, with whatever is in it.
pub(crate) fn clear(fs: &LoopFs) -> Result<()> {
    let top = File::open(fs.path())?;
    let subvolumes = super::subvolumes_of(fs.path(), &[])?;
    for path in subvolumes.keys().rev() {
        let at = Path::new(path);
        let parent = File::open(fs.path().join(at.parent().context("no parent")?))?;
        darlings_btrfs::delete_subvolume(&parent, at.file_name().context("no name")?)?;
    }
    if fs.path().join("@darlings").exists() {
        fs::remove_dir_all(fs.path().join("@darlings"))?;
    }
    darlings_btrfs::sync(top.as_fd())?;
    Ok(())
}
