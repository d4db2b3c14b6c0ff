//! One guest: started, waited for with a limit, never left running.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::accelerator::Accelerator;
use crate::child::LimitedChild;
use crate::disk::Disk;

/// What every guest is told beside its own options.
///
/// All of these make an emulated boot shorter; none changes how a root is found
/// and mounted. The initcalls left out are self-tests and keyrings (2 s emulated).
const KERNEL_OPTIONS: &str = "console=ttyS0 printk.devkmsg=on panic=-1 nokaslr mitigations=off \
    cryptomgr.notests lsm=capability audit=0 nowatchdog tsc=reliable no_timer_check \
    initcall_blacklist=crypto_kdf108_init,init_encrypted,jent_mod_init,load_system_certificate_list";

/// A guest to be started.
#[derive(Debug)]
pub struct Guest<'a> {
    /// The kernel, uncompressed.
    pub kernel: &'a Path,
    /// The initrd that was built with the image.
    pub initrd: &'a Path,
    /// The archive that goes behind it.
    pub extra: &'a [u8],
    /// Kernel options beside those that every guest gets.
    pub options: &'a str,
    /// Its disks.
    pub disks: &'a [Disk],
    /// Its memory, in MiB.
    pub memory: u32,
    /// How long it may take.
    pub limit: Duration,
    /// Whether what it writes to its first port is shown while it runs.
    pub stream: bool,
}

/// What a guest left behind.
#[derive(Debug)]
pub struct Ended {
    /// What it wrote to its first port.
    pub output: Vec<u8>,
    /// What it wrote to its second port.
    pub status: String,
    /// Its console, for a person.
    pub console: String,
    /// Whether the limit was reached and it was killed.
    pub timed_out: bool,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

impl Guest<'_> {
    /// Runs the guest until it switches itself off or the limit is reached.
    ///
    /// A guest that is stuck is not an error here: what it wrote until then is
    /// what explains it. An error is a QEMU that does not do its part.
    pub fn run(&self) -> Result<Ended> {
        let scratch = tempfile::tempdir().context("cannot make a directory for a guest")?;
        let initrd = scratch.path().join("initrd");
        let console = scratch.path().join("console");
        let status = scratch.path().join("status");
        concatenate(self.initrd, self.extra, &initrd)?;

        let started = Instant::now();
        let mut child = LimitedChild::spawn(&mut self.command(&initrd, &console, &status))
            .context("cannot start QEMU")?;
        let output = child.collect_output(self.stream)?;
        let messages = child.collect_messages()?;
        let ended = child.wait(self.limit)?;
        let took = started.elapsed();
        let output = output.recv().map_err(|_| anyhow!("BUG: the output's reader is gone"))??;
        let messages =
            messages.recv().map_err(|_| anyhow!("BUG: the messages' reader is gone"))??;

        if let Some(exit) = ended
            && !exit.success()
        {
            return Err(anyhow!("QEMU ended with {exit}:\n{}", String::from_utf8_lossy(&messages)));
        }
        Ok(Ended {
            output,
            status: read_text(&status)?,
            console: read_text(&console)?,
            timed_out: ended.is_none(),
            took,
        })
    }

    fn command(&self, initrd: &Path, console: &Path, status: &Path) -> Command {
        // setpriv ties QEMU to the thread that starts it: a test that is killed
        // leaves none behind.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            // Without the old timer the kernel measures its clock by the HPET. Emulated on a busy
            // computer the old one is late: a clock was taken for a hundred times slower than it
            // was, time ran away, and the machine stood still with "rcu_preempt detected stalls".
            .args(["-machine", "q35,pit=off"])
            .args(Accelerator::best().options())
            // One processor. Under emulation a second one now and then loses its timer
            // interrupts and stands still ("rcu_preempt kthread timer wakeup didn't happen"),
            // and two guests at a time boot faster with one each.
            .args(["-smp", "1", "-m", &self.memory.to_string()])
            // A guest ends by a reset, which is immediate; there is nothing left
            // to shut down when its results are out and its disks are synced.
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", &format!("{KERNEL_OPTIONS} {}", self.options)])
            .args(["-serial", &format!("file:{}", console.display())])
            // The first virtio device: that is what names its ports vport0p1, vport0p2.
            .args(["-device", "virtio-serial-pci"])
            .args(["-chardev", "file,id=output,path=/dev/stdout"])
            .args(["-device", "virtserialport,chardev=output,nr=1"])
            .args(["-chardev", &format!("file,id=status,path={}", status.display())])
            .args(["-device", "virtserialport,chardev=status,nr=2"])
            .args(["-device", "virtio-rng-pci"]);
        for (number, disk) in self.disks.iter().enumerate() {
            command.args(disk.options(number));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The base archive and the extra one in one file, which is what QEMU takes.
fn concatenate(base: &Path, extra: &[u8], to: &Path) -> Result<()> {
    let describe = || format!("cannot write the initrd {}", to.display());
    fs::copy(base, to).with_context(describe)?;
    let mut file = File::options().append(true).open(to).with_context(describe)?;
    let length = file.metadata().with_context(describe)?.len();
    let padding = length.next_multiple_of(4) - length;
    file.write_all(&[0; 3][..usize::try_from(padding)?]).with_context(describe)?;
    file.write_all(extra).with_context(describe)
}

fn read_text(path: &Path) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
