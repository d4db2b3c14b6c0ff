//! Records a disk of this computer: QEMU's storage daemon shows a disk as a file (FUSE), writes down
//! what is done to it, and a loop device makes a disk of that file again. A flush of the loop device
//! is an `fsync` of the file, and reaches the recording as a flush.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A disk whose writes are written down.
#[derive(Debug)]
pub struct Recorder {
    daemon: Option<Child>,
    holder: Option<TempDir>,
}

/// How long the daemon may take to begin or to end.
const LIMIT: Duration = Duration::from_secs(60);

impl Recorder {
    /// Shows the disk `image`, and writes down everything from now on.
    pub fn of(image: &Path) -> Result<Self> {
        let holder = tempfile::Builder::new().prefix("darlings-recorder-").tempdir()?;
        let (log, shown) = (holder.path().join("log"), holder.path().join("disk"));
        for file in [&log, &shown] {
            std::fs::File::create_new(file)?;
        }
        let size = std::fs::metadata(image)?.len();
        // The flushes are what matters; this computer itself need not make anything durable.
        let file = |node: &str, path: &Path| {
            format!("driver=file,node-name={node},filename={},cache.no-flush=on", path.display())
        };
        let export = format!(
            "type=fuse,id=shown,node-name=recorded,mountpoint={},writable=on,allow-other=off",
            shown.display()
        );
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &file("disk", image), "--blockdev", &file("log", &log)])
            .arg("--blockdev")
            .arg("driver=blklogwrites,node-name=recorded,file=disk,log=log,log-sector-size=512")
            .args(["--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start qemu-storage-daemon")?;
        let mut recorder = Self { daemon: Some(daemon), holder: Some(holder) };
        let started = Instant::now();
        while std::fs::metadata(&shown)?.len() != size || size == 0 {
            if let Some(daemon) = &mut recorder.daemon
                && let Some(status) = daemon.try_wait()?
            {
                bail!("qemu-storage-daemon ended with {status}");
            }
            ensure!(started.elapsed() < LIMIT, "qemu-storage-daemon does not show the disk");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(recorder)
    }

    /// The file that is the disk.
    #[must_use]
    pub fn shown(&self) -> PathBuf {
        self.at("disk")
    }

    /// The recording.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.at("log")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.holder.as_ref().map_or(Path::new("/nonexistent"), TempDir::path).join(name)
    }

    /// Ends recording. The recording stays until this is dropped.
    pub fn end(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        let pid = Pid::from_raw(i32::try_from(daemon.id())?).context("no process")?;
        kill_process(pid, Signal::TERM).context("cannot end qemu-storage-daemon")?;
        let status = daemon.wait()?;
        ensure!(status.success(), "qemu-storage-daemon ended with {status}");
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Err(why) = self.end() {
            eprintln!("a recorded disk was left behind: {why:#}");
            if let Some(holder) = self.holder.take() {
                eprintln!("it is in {}", holder.keep().display());
            }
        }
    }
}
