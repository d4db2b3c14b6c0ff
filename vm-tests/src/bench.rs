//! What only guests can show: resets on ZFS beside other tools, and what a reset adds to a boot.
//!
//! The results are lines of JSON: see `xtask/src/bench/results.rs`.

mod boot;
mod results;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::accelerator::Accelerator;
use crate::boot_files::BootFiles;
use crate::disk::Disk;
use crate::machine::built;
use crate::{Filesystem, program, run};

pub use results::{Part, Settings};
use results::{append, lines};

/// What the guest with ZFS does.
const SCRIPT: &str = include_str!("../guest/bench");

/// Measures everything. Lines are added as soon as a guest has ended well.
///
/// # Errors
/// The guest that failed, with what it said.
pub fn run(settings: &Settings) -> Result<()> {
    ensure!(settings.rounds > 0, "nothing is measured in no rounds");
    let mut facts = vec![
        format!(
            "Debian in QEMU with {}",
            match Accelerator::best() {
                Accelerator::Kvm => "KVM",
                Accelerator::Tcg =>
                    "TCG: everything is emulated, so that only ratios say something",
            }
        ),
        load()?,
    ];
    let wants = |part| settings.parts.contains(&part);
    let mut measured = Vec::new();
    if wants(Part::ZfsKept) || wants(Part::ZfsBig) {
        let said = zfs(settings)?;
        let versions = said.lines().filter_map(|line| line.strip_prefix("#version "));
        facts.extend(versions.map(String::from));
        measured = lines(&said)?;
    }
    // What is measured later may fail, and this is complete.
    let day = program::run(std::process::Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    let machine = json!({
        "kind": "machine", "name": "guest", "asked": settings.asked, "day": day.trim(),
        "facts": facts, "versions": [],
    });
    append(&settings.results, &[machine])?;
    append(&settings.results, &measured)?;
    if wants(Part::Boot) {
        boot::measure(settings)?;
    }
    Ok(())
}

/// What else this computer does. It slows guests down more than anything in them.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let load = text.split_whitespace().next().context("/proc/loadavg is empty")?;
    Ok(format!("load {load} of the computer at the start of a part"))
}

fn zfs(settings: &Settings) -> Result<String> {
    let &Settings { mebibytes, rounds, ref parts, .. } = settings;
    let large = if parts.contains(&Part::ZfsBig) { settings.large } else { 0 };
    let files = if parts.contains(&Part::ZfsKept) { &*settings.files } else { &[] };
    let files: Vec<String> = files.iter().map(u32::to_string).collect();
    let scratch = tempfile::tempdir().context("cannot make a directory for a disk")?;
    let script = scratch.path().join("bench");
    fs::write(&script, SCRIPT).context("cannot write the guest's script")?;
    let mut command = run::Command::new(
        Filesystem::Zfs,
        &format!("exec bash /bench {rounds} {large} {mebibytes} {}", files.join(" ")),
    );
    command.files = vec![
        (script, "/bench".to_owned()),
        (built("DARLINGS_BIN", "darlings", "darlings")?, "/usr/bin/darlings".to_owned()),
        (built("TESTKIT_BIN", "darlings-testkit", "testkit")?, "/usr/bin/testkit".to_owned()),
    ];
    // Room for the set, what replaces it, the one that is wiped, and what ZFS keeps for itself.
    let bytes = (u64::from(large) * u64::from(mebibytes) * 6).max(2048) << 20;
    command.disks = vec![Disk::blank(scratch.path().join("disk"), "disk0", bytes)?];
    command.limit = Duration::from_secs(4 * 3600);
    command.stream = true;
    command.succeed(&BootFiles::get()?)
}
