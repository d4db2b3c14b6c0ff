//! A filesystem of a test's own: an image file in a directory of its own, a loop device, a mount.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// Which filesystem to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// btrfs.
    Btrfs,
    /// ext4 with large inodes.
    Ext4,
    /// XFS.
    Xfs,
}

/// How to make and mount it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which filesystem.
    pub filesystem: Filesystem,
    /// Size of the (sparse) image in bytes.
    pub size: u64,
    /// More arguments for mkfs.
    pub mkfs: Vec<String>,
    /// Options for the mount, as `mount -o` takes them for the filesystem itself.
    pub mount: String,
    /// Where the image lies; by default among the temporary files.
    pub below: Option<PathBuf>,
}

/// What an indexer or a scanner reads while a test runs would get another access time, and the test
/// compares those.
const QUIETLY: MountFlags = MountFlags::NOATIME;

/// A mounted filesystem. [`close`](Self::close) takes it down and says whether that worked; dropping
/// it does the same as far as it can, and prints what it could not.
#[derive(Debug)]
pub struct LoopFs {
    options: Options,
    device: Option<PathBuf>,
    mounts: Vec<PathBuf>,
    /// Where it was or is to be mounted, while it is not.
    unmounted: Option<PathBuf>,
    holder: Option<TempDir>,
}

impl fmt::Display for Filesystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Btrfs => "btrfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        })
    }
}

impl Options {
    /// The smallest that is comfortable: 512 MiB, not preallocated.
    #[must_use]
    pub fn new(filesystem: Filesystem) -> Self {
        let mkfs: &[&str] = match filesystem {
            Filesystem::Btrfs | Filesystem::Xfs => &["-q"],
            Filesystem::Ext4 => &["-q", "-F", "-I", "256"],
        };
        let mkfs = mkfs.iter().map(ToString::to_string).collect();
        Self { filesystem, size: 512 << 20, mkfs, mount: String::new(), below: None }
    }

    /// With another size.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = bytes;
        self
    }

    /// With mount options.
    #[must_use]
    pub fn mount(mut self, options: &str) -> Self {
        options.clone_into(&mut self.mount);
        self
    }

    /// With the image below this directory, which decides what lies under the filesystem.
    #[must_use]
    pub fn below(mut self, directory: &Path) -> Self {
        self.below = Some(directory.to_path_buf());
        self
    }
}

impl LoopFs {
    /// Makes and mounts one with the usual options.
    pub fn new(filesystem: Filesystem) -> Result<Self> {
        Self::with(Options::new(filesystem))
    }

    /// Makes and mounts one.
    pub fn with(options: Options) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("darlings-loop-");
        let holder = match &options.below {
            Some(directory) => builder.tempdir_in(directory),
            None => builder.tempdir(),
        }
        .context("cannot make a directory for an image")?;
        let image = holder.path().join("image");
        std::fs::File::create_new(&image)?.set_len(options.size)?;
        Self::made_in(options, holder, &image)
    }

    /// Makes one in an image that is somewhere else already, and mounts it.
    pub fn in_image(options: Options, image: &Path) -> Result<Self> {
        let holder = tempfile::Builder::new().prefix("darlings-loop-").tempdir()?;
        Self::made_in(options, holder, image)
    }

    fn made_in(options: Options, holder: TempDir, image: &Path) -> Result<Self> {
        run(Command::new(format!("mkfs.{}", options.filesystem)).args(&options.mkfs).arg(image))?;
        let mut made = Self::attached(options, holder, image)?;
        let options = made.options.mount.clone();
        made.mount_at("mounted", &options)?;
        Ok(made)
    }

    /// Attaches an image that has a filesystem, and does not mount it: see
    /// [`remount_fresh`](Self::remount_fresh).
    pub fn of_image(options: Options, image: &Path) -> Result<Self> {
        let holder = tempfile::Builder::new().prefix("darlings-loop-").tempdir()?;
        let mut attached = Self::attached(options, holder, image)?;
        let at = attached.holder().join("mounted");
        std::fs::create_dir(&at)?;
        attached.unmounted = Some(at);
        Ok(attached)
    }

    fn attached(options: Options, holder: TempDir, image: &Path) -> Result<Self> {
        // From here on, Drop knows what to take down.
        let holder = Some(holder);
        let mut made = Self { options, device: None, mounts: Vec::new(), unmounted: None, holder };
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        made.device = Some(PathBuf::from(device.trim_end()));
        Ok(made)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mounts.first().map_or(Path::new("/nonexistent"), PathBuf::as_path)
    }

    /// Its loop device.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.device.as_deref().unwrap_or(Path::new("/nonexistent"))
    }

    /// The directory that holds the image and the mount points; configurations and the like can
    /// stay there too, and go with it.
    #[must_use]
    pub fn holder(&self) -> &Path {
        self.holder.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// Mounts it once more, at a new directory `name` in the holder, for instance with
    /// `subvol=@`.
    pub fn mount_at(&mut self, name: &str, options: &str) -> Result<PathBuf> {
        let at = self.holder().join(name);
        std::fs::create_dir_all(&at)?;
        self.mount_device(&at, options)?;
        self.mounts.push(at.clone());
        Ok(at)
    }

    fn mount_device(&self, at: &Path, options: &str) -> Result<()> {
        let data = std::ffi::CString::new(options)?;
        let kind = self.options.filesystem.to_string();
        rustix::mount::mount(self.device(), at, kind, QUIETLY, Some(data.as_c_str())).with_context(
            || format!("cannot mount {} at {}", self.device().display(), at.display()),
        )
    }

    /// Unmounts everything and mounts again what was first, so that nothing comes from a cache.
    pub fn remount_fresh(&mut self) -> Result<()> {
        self.unmount()?;
        let first = self.unmounted.clone().context("it was never mounted")?;
        let options = self.options.mount.clone();
        self.mount_device(&first, &options)?;
        self.mounts.push(first);
        self.unmounted = None;
        Ok(())
    }

    /// Makes the filesystem read-only, everywhere it is mounted.
    pub fn remount_read_only(&self) -> Result<()> {
        self.remount(QUIETLY | MountFlags::RDONLY)
    }

    /// Makes it writable again.
    pub fn remount_writable(&self) -> Result<()> {
        self.remount(QUIETLY)
    }

    fn remount(&self, flags: MountFlags) -> Result<()> {
        for mount in &self.mounts {
            rustix::mount::mount_remount(mount, flags, "")
                .with_context(|| format!("cannot remount {}", mount.display()))?;
        }
        Ok(())
    }

    /// Writes a file until the filesystem is full, and says which.
    pub fn fill_up(&self) -> Result<PathBuf> {
        let path = self.path().join("filled-up");
        let mut file = std::fs::File::create(&path)?;
        // Noise, so that no compression makes room.
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        for step in [1 << 20, 1 << 16, 1 << 12] {
            loop {
                let bytes: Vec<u8> =
                    (0..step / 8).flat_map(|_| noise.next().to_le_bytes()).collect();
                match file.write_all(&bytes).and_then(|()| file.sync_data()) {
                    Ok(()) => {}
                    Err(why) if Errno::from_io_error(&why) == Some(Errno::NOSPC) => break,
                    Err(why) => return Err(why).context("cannot fill up"),
                }
            }
        }
        Ok(path)
    }

    /// Unmounts every mount and leaves the device attached, as an initrd finds it: no other process
    /// has it mounted any more, either.
    pub fn unmount(&mut self) -> Result<()> {
        self.unmount_here()?;
        self.device.as_deref().map_or(Ok(()), wait_until_free)
    }

    fn unmount_here(&mut self) -> Result<()> {
        while let Some(mount) = self.mounts.last() {
            unmount(mount)?;
            self.unmounted = self.mounts.pop();
        }
        Ok(())
    }

    /// Unmounts what others have mounted below the mounts.
    fn unmount_inside(&self) -> Result<()> {
        let Some(holder) = &self.holder else { return Ok(()) };
        let table = std::fs::read_to_string("/proc/self/mounts").context("no list of mounts")?;
        let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        let inside = |point: &&Path| {
            point.starts_with(holder.path()) && !self.mounts.iter().any(|ours| ours == point)
        };
        // The newest first: it may be on top of an older one.
        points.filter(inside).collect::<Vec<_>>().into_iter().rev().try_for_each(unmount)
    }

    /// Takes everything down: mounts, device, image.
    pub fn close(mut self) -> Result<()> {
        self.take_down()
    }

    /// A copy of the image, which has the same identifiers, can be mounted once this is gone. Where a
    /// process with a mount namespace of its own has a copy of the mounts for long, as a desktop's
    /// indexer may, the kernel keeps the device and the image until that one ends.
    fn take_down(&mut self) -> Result<()> {
        self.unmount_here()?;
        if let Err(why) = self.device.as_deref().map_or(Ok(()), wait_until_free) {
            eprintln!("{why:#}; it is detached once that process ends");
        }
        if let Some(device) = &self.device {
            run(Command::new("losetup").arg("--detach").arg(device))?;
            self.device = None;
        }
        match self.holder.take() {
            Some(holder) => holder.close().context("cannot remove the image"),
            None => Ok(()),
        }
    }
}

/// Waits until nobody has a device mounted any more. Another test's process that has a mount
/// namespace of its own has a copy of every mount that there was when it began, for as long
/// as it lives: seconds, or a minute where the computer is busy.
fn wait_until_free(device: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let exclusive = OFlags::EXCL.bits().cast_signed();
    for _ in 0..6000 {
        match std::fs::File::options().read(true).custom_flags(exclusive).open(device) {
            Err(why) if why.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(why) => return Err(why).with_context(|| format!("cannot open {device:?}")),
            Ok(_) => return Ok(()),
        }
    }
    anyhow::bail!("{device:?} is still mounted in another mount namespace")
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        // A test that failed half way may have mounted something in it and not come to its end.
        let taken_down = self.unmount_inside().and_then(|()| self.take_down());
        if let Err(why) = taken_down {
            eprintln!("a loop filesystem was left behind: {why:#}");
            // Never delete through what may still be mounted.
            if let Some(holder) = self.holder.take() {
                eprintln!("it is in {}", holder.keep().display());
            }
        }
    }
}

/// Unmounts, and waits while something still looks.
pub fn unmount(mount: &Path) -> Result<()> {
    // Something may still look (a scanner, a child that ends just now): EBUSY gets some time.
    for _ in 0..500 {
        match rustix::mount::unmount(mount, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(20)),
            Err(errno) => {
                return Err(errno).with_context(|| format!("cannot unmount {}", mount.display()));
            }
        }
    }
    bail!("cannot unmount {}: it stays busy", mount.display())
}

/// Runs a command to its end; gives its output, or its complaint as an error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A small generator of noise (xorshift), the same every time.
#[derive(Clone, Debug)]
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// A number below another.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % limit.max(1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A btrfs with its top level mounted, a live subvolume `@` and the read-only blank `@blank`.
#[derive(Debug)]
pub struct BtrfsVolume {
    /// The filesystem; its path is the top level.
    pub fs: LoopFs,
}

impl BtrfsVolume {
    /// Makes one. `blank` fills what becomes the blank; the live subvolume starts as its copy and
    /// `live` does to it what happened since.
    pub fn new(
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::with(Options::new(Filesystem::Btrfs), blank, live)
    }

    /// Makes one with options.
    pub fn with(
        options: Options,
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::on(LoopFs::with(options)?, blank, live)
    }

    /// Makes one on a filesystem that is new.
    pub fn on(
        fs: LoopFs,
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let volume = Self { fs };
        volume.make_subvolume("@")?;
        blank(&volume.live())?;
        volume.snapshot("@", "@blank", true)?;
        live(&volume.live())?;
        Ok(volume)
    }

    /// The live subvolume, seen from the top level.
    #[must_use]
    pub fn live(&self) -> PathBuf {
        self.fs.path().join("@")
    }

    /// The blank, seen from the top level.
    #[must_use]
    pub fn blank(&self) -> PathBuf {
        self.fs.path().join("@blank")
    }

    /// Makes a subvolume, by its path from the top level; the directories above must exist.
    pub fn make_subvolume(&self, path: &str) -> Result<PathBuf> {
        let at = self.fs.path().join(path);
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(&at))?;
        Ok(at)
    }

    /// Makes a snapshot.
    pub fn snapshot(&self, from: &str, to: &str, read_only: bool) -> Result<PathBuf> {
        let at = self.fs.path().join(to);
        let mut command = Command::new("btrfs");
        command.args(["subvolume", "snapshot"]);
        if read_only {
            command.arg("-r");
        }
        run(command.arg(self.fs.path().join(from)).arg(&at))?;
        Ok(at)
    }

    /// The id of a subvolume.
    pub fn subvolume_id(&self, path: &str) -> Result<u64> {
        let out = run(Command::new("btrfs")
            .args(["inspect-internal", "rootid"])
            .arg(self.fs.path().join(path)))?;
        out.trim().parse().with_context(|| format!("btrfs said {out:?}"))
    }

    /// The paths of all subvolumes from the top level, sorted.
    pub fn subvolumes(&self) -> Result<Vec<String>> {
        let out = run(Command::new("btrfs").args(["subvolume", "list"]).arg(self.fs.path()))?;
        let paths = out
            .lines()
            .filter_map(|line| line.split_once(" path "))
            .map(|(_, path)| path.to_owned());
        let mut paths: Vec<String> = paths.collect();
        paths.sort();
        Ok(paths)
    }

    /// Makes a subvolume the default one.
    pub fn set_default(&self, path: &str) -> Result<()> {
        run(Command::new("btrfs")
            .args(["subvolume", "set-default"])
            .arg(self.fs.path().join(path)))?;
        Ok(())
    }

    /// Takes everything down.
    pub fn close(self) -> Result<()> {
        self.fs.close()
    }
}
