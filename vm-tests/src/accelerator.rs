//! Whether guests run on KVM or are emulated.

use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::child::LimitedChild;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor's virtualisation.
    Kvm,
    /// Emulation.
    Tcg,
}

/// A boot sector that writes 0x2a to the exit device, at port 0x501, and halts.
const EXIT_42: [u8; 9] = [0xba, 0x01, 0x05, 0xb0, 0x2a, 0xee, 0xf4, 0xeb, 0xfd];
/// What QEMU makes of it: twice the value and one.
const EXITED: i32 = 85;
/// Emulation needs a tenth of a second. A KVM that needs more than this is one
/// that exists without working: nested where nesting is not supported, it was
/// seen to take 40 times as long as emulation.
const LIMIT: Duration = Duration::from_secs(2);

impl Accelerator {
    /// KVM when it is seen to work, else emulation. `/dev/kvm` is no proof.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Accelerator> = OnceLock::new();
        *BEST.get_or_init(|| if kvm_works().unwrap_or(false) { Self::Kvm } else { Self::Tcg })
    }

    /// QEMU's options for it.
    #[must_use]
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            // QEMU's plainest processor: each feature more is one more that the
            // kernel's self-tests and benchmarks try out, emulated.
            Self::Tcg => &["-accel", "tcg,thread=multi", "-cpu", "qemu64"],
        }
    }
}

fn kvm_works() -> anyhow::Result<bool> {
    if !std::path::Path::new("/dev/kvm").exists() {
        return Ok(false);
    }
    let mut sector = [0_u8; 512];
    sector[..EXIT_42.len()].copy_from_slice(&EXIT_42);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), sector)?;
    let drive = format!("file={},format=raw,if=ide", file.path().display());
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args([
            "-machine",
            "pc",
            "-accel",
            "kvm",
            "-m",
            "16",
            "-nodefaults",
            "-display",
            "none",
            "-drive",
        ])
        .arg(drive)
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = LimitedChild::spawn(&mut command)?;
    Ok(child.wait(LIMIT)?.is_some_and(|status| status.code() == Some(EXITED)))
}
