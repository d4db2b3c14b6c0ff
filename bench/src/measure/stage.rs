//! The filesystem that resets are measured on: `@template` is what the live subvolume is before each
//! round, and `@blank` what it is reset to.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::{BtrfsVolume, Filesystem, Options, run};
use rustix::fs::Advice;

/// Large enough for everything; the image is sparse.
const SIZE: u64 = 400 << 30;

pub(crate) struct Stage {
    pub(crate) volume: BtrfsVolume,
}

impl Stage {
    /// A blank of a few directories, and a template that is the same until it is grown.
    pub(crate) fn new(scratch: &Path) -> Result<Self> {
        let blank = |root: &Path| {
            for directory in ["etc", "home", "var"] {
                std::fs::create_dir(root.join(directory))?;
            }
            Ok(std::fs::write(root.join("etc/hostname"), "blank\n")?)
        };
        let options = Options::new(Filesystem::Btrfs).size(SIZE).below(scratch);
        let volume = BtrfsVolume::with(options, blank, |_| Ok(()))?;
        std::fs::rename(volume.live(), volume.fs.path().join("@template"))
            .context("cannot name the template")?;
        Ok(Self { volume })
    }

    /// What the live subvolume is before each round, to add something.
    pub(crate) fn template(&self) -> PathBuf {
        self.volume.fs.path().join("@template")
    }

    /// Writes a configuration, and gives its path.
    pub(crate) fn configure(&self, strategy: &str, declared: &[String]) -> Result<PathBuf> {
        let mut text = format!(
            "[[volume]]\nmount_point = \"/\"\nstrategy = {strategy:?}\nbtrfs = {{ device = {:?}, \
             subvolume = \"@\", blank = \"@blank\" }}\n",
            self.volume.fs.device()
        );
        for path in declared {
            write!(text, "[[persist]]\npath = {path:?}\n")?;
        }
        let file = self.beside(&format!("{strategy}.toml"));
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Writes the list of declared paths that the others' scripts read: relative, one a line.
    pub(crate) fn list(&self, declared: &[String]) -> Result<PathBuf> {
        let mut text = String::new();
        for path in declared {
            writeln!(text, "{}", path.trim_start_matches('/'))?;
        }
        let file = self.beside("list");
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// A file or directory next to the image, which goes with it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.volume.fs.holder().join(name)
    }

    /// What earlier rounds left goes, for good, and the live subvolume is the template again.
    pub(crate) fn fresh(&mut self) -> Result<()> {
        self.clear()?;
        self.volume.snapshot("@template", "@", false)?;
        Ok(())
    }

    /// Leaves the template, the blank and what is meant to stay, and nothing in the background.
    pub(crate) fn clear(&mut self) -> Result<()> {
        let stays = ["@template", "@blank", "@persist"];
        let mut all = self.volume.subvolumes()?;
        // What lies in another goes first.
        all.reverse();
        for path in all.iter().filter(|path| !stays.contains(&path.as_str())) {
            let mut delete = Command::new("btrfs");
            delete.args(["subvolume", "delete"]).arg(self.volume.fs.path().join(path));
            run(&mut delete)?;
        }
        self.settle()
    }

    /// Waits until what was deleted is gone and everything is on the disk. `btrfs subvolume sync` would
    /// look once a second, and wait up to 30 for a commit first.
    pub(crate) fn settle(&self) -> Result<()> {
        let top = self.volume.fs.path();
        // This one wakes the kernel's cleaner too, as sync(1) does not.
        run(Command::new("btrfs").args(["filesystem", "sync"]).arg(top))?;
        while !run(Command::new("btrfs").args(["subvolume", "list", "-d"]).arg(top))?.is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        run(Command::new("btrfs").args(["filesystem", "sync"]).arg(top))?;
        Ok(())
    }

    /// Unmounts it, and drops what the machine has of its image: everything comes from the disk. Not
    /// with `drop_caches`, which takes the whole machine's, and on a busy one does not come to an end.
    pub(crate) fn cold(&mut self) -> Result<()> {
        self.volume.fs.unmount()?;
        let image = self.beside("image");
        let told = || format!("cannot drop the caches of {}", image.display());
        let file = File::open(&image).with_context(told)?;
        file.sync_all().with_context(told)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).with_context(told)
    }

    /// The same, and mounted again.
    pub(crate) fn cold_and_mounted(&mut self) -> Result<()> {
        self.cold()?;
        self.volume.fs.remount_fresh()
    }

    /// Bytes that its device was written so far.
    pub(crate) fn written(&self) -> Result<f64> {
        let name = self.volume.fs.device().file_name().context("a loop device has a name")?;
        let file = Path::new("/sys/block").join(name).join("stat");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let sectors = text.split_whitespace().nth(6).context("no sectors in the statistics")?;
        Ok(sectors.parse::<f64>().context("the statistics have no number")? * 512.0)
    }

    /// Bytes in use, every copy counted.
    pub(crate) fn used(&self) -> Result<f64> {
        let mut command = Command::new("btrfs");
        command.args(["filesystem", "df", "--raw"]).arg(self.volume.fs.path());
        let text = run(&mut command)?;
        let mut sum = 0.0;
        // Data, single: total=8388608, used=65536
        for line in text.lines().filter(|line| !line.starts_with("GlobalReserve")) {
            let (kind, numbers) = line.split_once(':').with_context(|| format!("odd: {line}"))?;
            let (_, used) =
                numbers.split_once("used=").with_context(|| format!("no use in {line}"))?;
            let used: f64 = used.trim().parse().with_context(|| format!("no number in {line}"))?;
            sum += if kind.ends_with("DUP") { 2.0 * used } else { used };
        }
        Ok(sum)
    }

    pub(crate) fn close(self) -> Result<()> {
        self.volume.close()
    }
}
