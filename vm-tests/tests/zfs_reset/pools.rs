//! Pools, datasets, and what is in them.
//!
//! Most pools are files in the guest's memory, which is quick and can be put back to what they
//! were; where the writing itself is measured, a pool is on the guest's disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{fs, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{Compare, Tree, capture, difference};
use rustix::mount::{MountFlags, UnmountFlags};

/// The pool of most checks, the dataset that they reset, and its stage.
pub(crate) const POOL: &str = "tank";
pub(crate) const DATASET: &str = "tank/local/root";
pub(crate) const STAGE: &str = "tank/local/root/darlings-stage";
pub(crate) const MARK: &str = "darlings:rolled-back";
pub(crate) const UNDONE: &str = "darlings:undone";

/// Runs a command that must succeed, and returns what it wrote, without the last newline.
pub(crate) fn sh(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// A property as the `zfs` command gives it.
pub(crate) fn property(name: &str, property: &str) -> Result<String> {
    sh("zfs", &["get", "-Hpo", "value", property, name])
}

/// A number that the `zpool` command gives.
pub(crate) fn pool_number(property: &str) -> Result<u64> {
    Ok(sh("zpool", &["get", "-Hpo", "value", property, POOL])?.parse()?)
}

/// Does something where a dataset or a snapshot is mounted.
fn mounted<T>(name: &str, flags: MountFlags, action: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    // Not below /mnt: what is mounted there would get the mount points.
    fs::create_dir_all("/tmp/mounts")?;
    let at = tempfile::tempdir_in("/tmp/mounts").context("cannot make a mount point")?;
    rustix::mount::mount(name, at.path(), "zfs", flags | MountFlags::NOATIME, None)
        .with_context(|| format!("cannot mount {name}"))?;
    let result = action(at.path());
    rustix::mount::unmount(at.path(), UnmountFlags::empty())
        .with_context(|| format!("cannot unmount {name}"))?;
    result
}

/// Changes a dataset.
pub(crate) fn change<T>(name: &str, action: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    mounted(name, MountFlags::empty(), action)
}

/// The tree of a dataset or a snapshot.
pub(crate) fn tree(name: &str) -> Result<Tree> {
    mounted(name, MountFlags::RDONLY, capture)
}

/// Writes a file and makes the directories above it.
pub(crate) fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) -> Result<()> {
    let at = root.join(path);
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&at, text).with_context(|| format!("cannot write {}", at.display()))
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = vec![0; length.next_multiple_of(8)];
    for piece in bytes.chunks_exact_mut(8) {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.copy_from_slice(&state.to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) const MIB: u64 = 1 << 20;

/// Fills a file with data that does not compress.
pub(crate) fn large_file(path: &Path, mebibytes: u64) -> Result<()> {
    static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1, 1 << 20));
    let mut file = fs::File::create(path)?;
    for _ in 0..mebibytes {
        file.write_all(&BLOCK)?;
    }
    Ok(())
}

/// The directory in which the file of a pool lies.
pub(crate) fn home_of(pool: &str) -> PathBuf {
    Path::new("/tmp/pools").join(pool)
}

/// Makes a pool in a file of so many MiB.
pub(crate) fn create_pool(pool: &str, mebibytes: u64, options: &[&str]) -> Result<()> {
    let home = home_of(pool);
    fs::create_dir_all(&home)?;
    let file = home.join("disk");
    fs::File::create(&file)?.set_len(mebibytes << 20)?;
    create_pool_on(pool, file.to_str().context("UTF-8")?, options)
}

/// Makes a pool on a device.
pub(crate) fn create_pool_on(pool: &str, device: &str, options: &[&str]) -> Result<()> {
    let common = ["-f", "-o", "cachefile=none", "-O", "mountpoint=none", "-O", "compression=off"];
    let arguments = [&["create"], &common[..], options, &[pool, device]].concat();
    sh("zpool", &arguments).map(drop)
}

pub(crate) fn export(pool: &str) -> Result<()> {
    sh("zpool", &["export", pool]).map(drop)
}

/// Imports a pool that is in a file.
pub(crate) fn import(pool: &str, options: &[&str]) -> Result<()> {
    let home = home_of(pool);
    let home = home.to_str().context("UTF-8")?;
    let arguments = [&["import", "-N", "-d", home], options, &[pool]].concat();
    sh("zpool", &arguments).map(drop)
}

/// What a killed process had mounted goes a moment after it.
pub(crate) fn patiently(action: impl Fn() -> Result<()>) -> Result<()> {
    for _ in 0..50 {
        if action().is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    action()
}

/// Everything in a pool.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Every dataset, snapshot and bookmark.
    names: String,
    /// Every property that was set on one of them.
    properties: String,
    /// The trees of datasets and snapshots.
    trees: BTreeMap<String, Tree>,
}

impl Whole {
    pub(crate) fn of(pool: &str) -> Result<Self> {
        let columns = "name,guid,createtxg,origin,userrefs,type";
        let names = sh("zfs", &["list", "-Hpr", "-t", "all", "-o", columns, pool])?;
        let sources = ["get", "-Hpr", "-s", "local,received", "-o", "name,property,value", "all"];
        let properties = sh("zfs", &[&sources[..], &[pool]].concat())?;
        let mut trees = BTreeMap::new();
        for line in names.lines().filter(|line| !line.ends_with("bookmark")) {
            let name = line.split('\t').next().unwrap_or_default();
            let inside = fs::read_to_string("/proc/self/mounts")?
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>())
                .find_map(|words| (words[0] == name).then(|| PathBuf::from(words[1])));
            let found = match inside {
                Some(at) => capture(&at)?,
                None => tree(name)?,
            };
            trees.insert(name.to_owned(), found);
        }
        Ok(Self { names, properties, trees })
    }

    /// Demands that another is the same to the last byte, the tool's own directory included.
    pub(crate) fn must_be(&self, other: &Self) -> Result<()> {
        ensure!(self.names == other.names, "was\n{}\nis\n{}", other.names, self.names);
        ensure!(
            self.properties == other.properties,
            "was\n{}\nis\n{}",
            other.properties,
            self.properties
        );
        for (name, tree) in &self.trees {
            let lines = difference::lines(&tree.diff_with(&other.trees[name], &Compare::all()));
            ensure!(lines.is_empty(), "{name} was changed:\n{lines}");
        }
        Ok(())
    }
}
