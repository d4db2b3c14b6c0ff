//! What only guests can show: resets on ZFS beside other tools, and what a reset adds to a boot.
//!
//! The results are lines of JSON: see `xtask/src/bench/results.rs`.

mod boot;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::accelerator::Accelerator;
use crate::disk::Disk;
use crate::image;
use crate::machine::built;
use crate::{Filesystem, program, run};

/// What the guest with ZFS does.
const SCRIPT: &str = include_str!("../guest/bench");

/// Something that can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Resets on ZFS of many small files.
    ZfsKept,
    /// Resets on ZFS of big files.
    ZfsBig,
    /// Boots, and bind mounts by systemd.
    Boot,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ZfsKept, Self::ZfsBig, Self::Boot];
}

/// What is measured and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is measured at all.
    pub parts: Vec<Part>,
    /// Where lines are added.
    pub results: PathBuf,
    /// The words by which the run was asked for.
    pub asked: String,
    /// Numbers of small files on ZFS.
    pub files: Vec<u32>,
    /// Big files on ZFS.
    pub large: u32,
    /// Their size, in MiB.
    pub mebibytes: u32,
    /// Numbers of bind mounts by systemd.
    pub mounts: Vec<u32>,
    /// How often each contestant runs, and each machine is booted.
    pub rounds: u32,
}

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
    command.succeed(&image::Boot::get()?)
}

/// The guest's lines, a result for each: values of the same contestant are put together by the report.
fn lines(said: &str) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for line in said.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split('\t').collect();
        let [set, at, contestant, took] = words[..] else { bail!("the guest said {line:?}") };
        let took: f64 = took.parse().with_context(|| format!("the guest said {line:?}"))?;
        lines.push(measured(set, at, contestant, took));
    }
    ensure!(!lines.is_empty(), "the guest measured nothing");
    Ok(lines)
}

fn measured(set: &str, at: &str, contestant: &str, value: f64) -> Value {
    json!({
        "kind": "measured", "set": set, "at": at, "contestant": contestant, "values": [value],
    })
}

fn append(file: &Path, lines: &[Value]) -> Result<()> {
    let told = || format!("cannot write results to {}", file.display());
    let mut open = fs::File::options().append(true).create(true).open(file).with_context(told)?;
    for line in lines {
        writeln!(open, "{line}").with_context(told)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn what_a_guest_measured_becomes_lines_of_json() -> anyhow::Result<()> {
        let said = "#version Linux\n# filling\nzfs_kept\t3\tcarry\t2.5\nzfs_kept\t3\tcp\t8.0\n";
        let text: Vec<String> = lines(said)?.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                r#"{"at":"3","contestant":"carry","kind":"measured","set":"zfs_kept","values":[2.5]}"#,
                r#"{"at":"3","contestant":"cp","kind":"measured","set":"zfs_kept","values":[8.0]}"#,
            ]
        );
        Ok(())
    }

    #[test]
    fn what_is_no_measurement_is_an_error() {
        assert!(lines("cannot import tank\n").is_err());
        assert!(lines("# nothing\n").is_err());
    }
}
