//! Pools to test on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, fs, process, thread};

use darlings_zfs::{Error, Zfs};

/// A pool in a file, destroyed on drop.
pub(crate) struct Pool {
    pub(crate) zfs: Zfs,
    pub(crate) name: String,
    /// A directory of its own, which holds the pool's file.
    pub(crate) directory: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// Held by the test that runs. A command that another test starts has for a moment copies of this
/// one's open files, and then what it has mounted is busy.
static ALONE: Mutex<()> = Mutex::new(());

impl Pool {
    /// A fresh pool with the dataset `root` in it; or `None` where there is no ZFS, after
    /// having said so.
    pub(crate) fn new() -> Option<Self> {
        let zfs = open()?;
        let directory = scratch_directory();
        Some(Self::in_directory(zfs, directory))
    }

    /// A pool whose file is in `directory`.
    pub(crate) fn in_directory(zfs: Zfs, directory: PathBuf) -> Self {
        // A test that failed has no state that could be wrong for the next.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        let file = directory.join("disk");
        fs::File::create(&file).unwrap().set_len(256 << 20).unwrap();
        run("zpool", &["create", "-O", "mountpoint=none", &name, file.to_str().unwrap()]);
        let pool = Self { zfs, name, directory, _alone: alone };
        run("zfs", &["create", &pool.root()]);
        pool
    }

    /// The dataset `root`.
    pub(crate) fn root(&self) -> String {
        self.full("root")
    }

    /// The full name of what is at `rest` in the pool.
    pub(crate) fn full(&self, rest: &str) -> String {
        format!("{}/{rest}", self.name)
    }

    /// A new directory to mount at.
    pub(crate) fn mount_point(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    pub(crate) fn export(&self) {
        run("zpool", &["export", &self.name]);
    }

    pub(crate) fn import(&self, options: &[&str]) {
        let directory = self.directory.to_str().unwrap();
        run("zpool", &[&["import", "-d", directory], options, &[&self.name]].concat());
    }

    /// The pool's snapshots and bookmarks, as the `zfs` command lists them.
    pub(crate) fn all_marks(&self) -> Vec<String> {
        let listed = run("zfs", &["list", "-Hro", "name", "-t", "snapshot,bookmark", &self.name]);
        let mut names: Vec<_> =
            listed.lines().map(|name| name.trim_start_matches(&self.name).to_owned()).collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let unmount = |target: &str| report(Command::new("umount").arg(target));
        // Mounts of a test that has failed would keep the pool busy.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let inside = self.directory.to_string_lossy().into_owned() + "/";
        for line in mounts.lines().rev() {
            if let Some(target) = line.split(' ').nth(1).filter(|path| path.starts_with(&inside)) {
                unmount(target);
            }
        }
        report(Command::new("zpool").args(["destroy", "-f", &self.name]));
        let directory = self.directory.to_str().unwrap();
        if mounts.lines().any(|line| line.split(' ').nth(1) == Some(directory)) {
            unmount(directory);
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}

/// Runs a command and only says if it fails: a panic on the way out would hide the first.
fn report(command: &mut Command) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        other => eprintln!("{command:?}: {other:?}"),
    }
}

/// Opens ZFS; or `None` where there is none, after having said so.
pub(crate) fn open() -> Option<Zfs> {
    match Zfs::open() {
        Ok(zfs) => Some(zfs),
        Err(error @ (Error::LibraryMissing { .. } | Error::ModuleMissing { .. }))
            if env::var("DARLINGS_REQUIRE_ZFS").as_deref() != Ok("1") =>
        {
            // Not `eprintln`, which the test harness keeps to itself when a test passes.
            let test = thread::current().name().unwrap_or("?").to_owned();
            let message = format!(
                "SKIPPED: {test}: {error}
"
            );
            std::io::stderr().write_all(message.as_bytes()).unwrap();
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A new directory, whose name no other test has; it may be the name of a pool.
pub(crate) fn scratch_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = env::temp_dir().join(format!("darlings-zfs-{}-{count}", process::id()));
    fs::create_dir(&path).unwrap();
    path
}

/// A property as the `zfs` command gives it.
pub(crate) fn get(name: &str, property: &str) -> String {
    run("zfs", &["get", "-Hpo", "value", property, name])
}

/// Runs a command that must succeed, and returns what it wrote, without the last newline.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).flat_map(u64::to_ne_bytes).take(length).collect()
}

/// The names in a directory, sorted.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// The error as a person reads it: its own words and those of its causes.
pub(crate) fn words<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("it should have failed");
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    let words: Vec<_> =
        std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect();
    words.join(": ")
}
