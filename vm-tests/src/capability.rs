//! Whether this computer can build and boot the machines.

use std::env;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// What must be installed; `script/install-tools --vm` installs it.
const PROGRAMS: [&str; 6] =
    ["qemu-system-x86_64", "qemu-img", "mmdebstrap", "setpriv", "zstd", "unshare"];
/// QEMU before this crashes guests under multi-threaded emulation.
const MINIMUM_QEMU: u32 = 10;

/// Why no machine can be booted here, or `None` when one can.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root, which building the image needs".to_owned());
    }
    if let Some(program) = PROGRAMS.iter().find(|program| !installed(program)) {
        return Some(format!("{program} is not installed (script/install-tools --vm installs it)"));
    }
    match qemu_version() {
        Some(version) if version >= MINIMUM_QEMU => None,
        Some(version) => Some(format!("QEMU {version} is older than {MINIMUM_QEMU}")),
        None => Some("qemu-system-x86_64 does not say its version".to_owned()),
    }
}

/// Whether a test can run. Where it cannot, the skip is said out loud, and is a
/// failure when `DARLINGS_REQUIRE_VM=1` says that this computer ought to.
pub fn can_run(test: &str) -> Result<bool> {
    let Some(why) = missing() else { return Ok(true) };
    if env::var_os("DARLINGS_REQUIRE_VM").is_some_and(|value| value == "1") {
        bail!("{test} cannot run here: {why}");
    }
    // Past the test harness, which shows nothing that a passing test prints.
    std::io::stderr().write_all(format!("SKIPPED: {test}: {why}\n").as_bytes())?;
    Ok(false)
}

fn installed(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| Path::join(&dir, program).exists()))
}

fn qemu_version() -> Option<u32> {
    let output = Command::new("qemu-system-x86_64").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
}
