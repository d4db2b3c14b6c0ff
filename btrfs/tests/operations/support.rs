//! A btrfs filesystem of a test's own, on a loop device, that goes away again.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::process::geteuid;
use tempfile::TempDir;

use darlings_btrfs::{Access, ErrorKind, mount_top_level, unmount};

/// Runs the test on a filesystem of its own, or says why it cannot.
pub(crate) fn on_btrfs(name: &str, test: impl FnOnce(&Filesystem)) {
    if let Some(reason) = what_is_missing() {
        assert!(
            std::env::var_os("DARLINGS_REQUIRE_ROOT").is_none_or(|value| value != "1"),
            "{name} cannot run, and DARLINGS_REQUIRE_ROOT is set: {reason}"
        );
        eprintln!("SKIPPED: {name}: {reason}");
        return;
    }
    let filesystem = Filesystem::new();
    test(&filesystem);
    filesystem.close();
}

fn what_is_missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("needs root for a loop device".into());
    }
    for (program, argument) in
        [("mkfs.btrfs", "--version"), ("btrfs", "--version"), ("losetup", "--version")]
    {
        if Command::new(program).arg(argument).output().is_err() {
            return Some(format!("needs {program}"));
        }
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.split_whitespace().any(|word| word == "btrfs") {
        return Some("needs btrfs in the running kernel".into());
    }
    None
}

/// Runs a program and returns what it wrote; panics with its words when it fails.
pub(crate) fn run(program: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `btrfs`, which reads the filesystem independently of this crate.
pub(crate) fn btrfs(arguments: &[&str]) -> String {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    run("btrfs", &arguments)
}

/// A name, as this crate takes it.
pub(crate) fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// A loop device on an image file.
pub(crate) struct LoopDevice {
    path: Option<PathBuf>,
}

impl LoopDevice {
    pub(crate) fn attach(image: &Path, options: &[&str]) -> Self {
        let mut arguments: Vec<&OsStr> = vec![name("--find"), name("--show")];
        arguments.extend(options.iter().copied().map(OsStr::new));
        arguments.push(image.as_os_str());
        let path = PathBuf::from(run("losetup", &arguments).trim_end());
        Self { path: Some(path) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap()
    }

    /// Takes it away and fails if that fails.
    pub(crate) fn detach(mut self) {
        let path = self.path.take().unwrap();
        run("losetup", &[name("--detach"), path.as_os_str()]);
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            let status = Command::new("losetup").arg("--detach").arg(&path).status();
            if !status.as_ref().is_ok_and(ExitStatus::success) {
                eprintln!("left behind: {}: {status:?}", path.display());
            }
        }
    }
}

/// An image file in a directory of its own, attached to a loop device, formatted,
/// and mounted.
pub(crate) struct Filesystem {
    mounts: RefCell<Vec<PathBuf>>,
    device: Option<LoopDevice>,
    directory: Option<TempDir>,
}

impl Filesystem {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("darlings-btrfs-").tempdir().unwrap();
        let image = directory.path().join("image");
        File::create_new(&image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.btrfs", &[name("-q"), image.as_os_str()]);
        let filesystem = Self {
            mounts: RefCell::default(),
            device: Some(LoopDevice::attach(&image, &[])),
            directory: Some(directory),
        };
        let top = filesystem.new_directory("top");
        mount_top_level(filesystem.device(), &top, Access::Writable).unwrap();
        filesystem.adopt(&top);
        filesystem
    }

    /// Sees to it that this mount is taken away.
    pub(crate) fn adopt(&self, target: &Path) {
        self.mounts.borrow_mut().push(target.to_owned());
    }

    /// Forgets a mount that is already gone.
    pub(crate) fn disown(&self, target: &Path) {
        self.mounts.borrow_mut().retain(|mounted| mounted != target);
    }

    /// Mounts something that is not btrfs on a directory.
    pub(crate) fn mount_over(&self, target: &Path) {
        run("mount", &[name("-t"), name("tmpfs"), name("tmpfs"), target.as_os_str()]);
        self.adopt(target);
    }

    /// The records on the disk, as a power cut right now would leave them, in the words
    /// of `btrfs inspect-internal dump-tree`.
    pub(crate) fn records_on_disk(&self) -> String {
        let copy = self.beside().join("copy-of-the-disk");
        let image = self.beside().join("image");
        run("cp", &[name("--sparse=always"), image.as_os_str(), copy.as_os_str()]);
        let records = btrfs(&["inspect-internal", "dump-tree", copy.to_str().unwrap()]);
        std::fs::remove_file(copy).unwrap();
        records
    }

    /// A new directory beside the image, to mount on.
    pub(crate) fn new_directory(&self, name: &str) -> PathBuf {
        let path = self.beside().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// The directory of this test, which is not on the filesystem under test.
    pub(crate) fn beside(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// The loop device.
    pub(crate) fn device(&self) -> &Path {
        self.device.as_ref().unwrap().path()
    }

    /// The path of something in the mounted top level.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.beside().join("top").join(below)
    }

    /// The open top level.
    pub(crate) fn top(&self) -> OwnedFd {
        self.open("")
    }

    /// An open directory below the top level.
    pub(crate) fn open(&self, below: &str) -> OwnedFd {
        open_directory(&self.path(below))
    }

    /// What a file in the top level holds.
    pub(crate) fn read(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap()
    }

    /// Writes a file in the top level.
    pub(crate) fn write(&self, below: &str, content: &str) {
        std::fs::write(self.path(below), content).unwrap();
    }

    /// Mounts the filesystem once more, with options; taken away at the end.
    pub(crate) fn mount_again(&self, below: &str, options: &str) -> PathBuf {
        let target = self.new_directory(below);
        let words = ["-t", "btrfs", "-o", options].map(OsStr::new);
        run("mount", &[&words[..], &[self.device().as_os_str(), target.as_os_str()]].concat());
        self.adopt(&target);
        target
    }

    /// Takes one of the mounts away early.
    pub(crate) fn unmount(&self, target: &Path) {
        unmount_patiently(target).unwrap();
        self.disown(target);
    }

    /// Takes everything away and fails if that fails.
    fn close(mut self) {
        while let Some(target) = self.mounts.get_mut().pop() {
            unmount_patiently(&target).unwrap();
        }
        self.device.take().unwrap().detach();
        self.directory.take().unwrap().close().unwrap();
    }
}

/// The backstop for a test that panics: what it can take away it does, and it says what
/// it cannot. The device and the directory go after this, in the order of the fields.
impl Drop for Filesystem {
    fn drop(&mut self) {
        while let Some(target) = self.mounts.get_mut().pop() {
            if let Err(error) = unmount_patiently(&target) {
                eprintln!("left behind: {error}");
            }
        }
    }
}

/// Unmounts, waiting a little while it is busy: a test in another thread may just be
/// starting a program, which holds a copy of every descriptor until its `exec`.
pub(crate) fn unmount_patiently(target: &Path) -> darlings_btrfs::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match unmount(target) {
            Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Opens a directory for reading.
pub(crate) fn open_directory(path: &Path) -> OwnedFd {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Opens a directory relative to another one.
pub(crate) fn open_below(directory: &OwnedFd, path: &Path) -> OwnedFd {
    openat(directory, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
