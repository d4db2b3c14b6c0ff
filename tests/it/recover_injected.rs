//! `darlings recover --force` killed, and made to fail, at every call that changes something: what it
//! replaces is where it was or in the trash, whatever is done afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::looking::{Directory, Said, put_then};
use crate::common::strace::{self, Call};
use crate::common::{Machine, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{capability, skip_unless};

/// A volume of which `/dir` and `/beside` are in a generation.
trait Volume {
    fn live(&self) -> PathBuf;
    fn holder(&self) -> PathBuf;
    fn said(&self, arguments: &[&str]) -> Result<Said>;
    /// The configuration that the last command was given.
    fn config(&self) -> PathBuf {
        self.holder().join("darlings.toml")
    }
}

impl Volume for Machine {
    fn live(&self) -> PathBuf {
        self.volume.live()
    }
    fn holder(&self) -> PathBuf {
        self.volume.fs.holder().to_path_buf()
    }
    fn said(&self, arguments: &[&str]) -> Result<Said> {
        self.say_with(&self.config_keeping("days = 30"), arguments)
    }
}

impl Volume for Directory {
    fn live(&self) -> PathBuf {
        Self::live(self)
    }
    fn holder(&self) -> PathBuf {
        self.fs.holder().to_path_buf()
    }
    fn said(&self, arguments: &[&str]) -> Result<Said> {
        self.say(arguments)
    }
}

const PRECIOUS: &str = "only here";

fn fill(live: &Path) -> Result<()> {
    put_then(live, "dir/one", "one")?;
    put_then(live, "beside/file", "beside")
}

/// `/dir` has what is in no generation; nothing of an earlier round is left.
fn begin(live: &Path) -> Result<()> {
    for entry in std::fs::read_dir(live)? {
        let path = entry?.path();
        if path.file_name().unwrap() != ".darlings" {
            std::fs::remove_dir_all(path)?;
        }
    }
    let trash = live.join(".darlings/trash");
    if trash.exists() {
        std::fs::remove_dir_all(trash)?;
    }
    put(live, "dir/precious", PRECIOUS)?;
    put(live, "beside/file", "changed")
}

/// Where what was in `/dir` is now, below the root.
fn precious(live: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut unread = vec![live.to_path_buf()];
    while let Some(directory) = unread.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                unread.push(path);
            } else if path.ends_with("precious") && std::fs::read_to_string(&path)? == PRECIOUS {
                found.push(path.strip_prefix(live)?.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

/// It is at its place, or in the trash with a record.
fn is_safe(live: &Path) -> Result<bool> {
    let found = precious(live)?;
    let [found] = &found[..] else { return Ok(false) };
    if found == "dir/precious" {
        return Ok(true);
    }
    let in_trash = found.strip_prefix(".darlings/trash/replaced-");
    let number = in_trash.and_then(|rest| rest.strip_suffix("/precious"));
    let record = number.map(|it| live.join(format!(".darlings/trash/replaced-{it}.json")));
    Ok(record.is_some_and(|record| record.exists()))
}

const RECOVER: [&str; 3] = ["recover", "/dir", "--force"];

/// The calls of a recovery that replaces.
fn calls(volume: &dyn Volume) -> Result<Vec<Call>> {
    begin(&volume.live())?;
    volume.said(&["recover", "/dir", "--dry-run", "--force"])?;
    let log = volume.holder().join("strace");
    let mut command = strace::traced(&log, &[]);
    let output = command.args(RECOVER).arg("--config").arg(volume.config()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    strace::changing(&log)
}

fn strike(volume: &dyn Volume, call: &Call, fault: &str) -> Result<bool> {
    let live = volume.live();
    begin(&live)?;
    volume.said(&["recover", "/dir", "--dry-run", "--force"])?;
    let log = volume.holder().join("strace");
    let mut command: Command = strace::injected(&log, &call.name, fault, call.when);
    let output = command.args(RECOVER).arg("--config").arg(volume.config()).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let happened = strace::happened(&log)?;
    ensure!(precious(&live)?.len() == 1, "right afterwards: {told}");
    // Another recovery there, a purge, and the same once more.
    let beside = volume.said(&["recover", "/beside/file", "--force"])?;
    ensure!(beside.code == Some(0), "another: {told}{beside:?}");
    let root = volume.said(&["recover", "/beside", "--force", "--from", "1"])?;
    ensure!(root.code == Some(0), "another beside it: {told}{root:?}");
    ensure!(is_safe(&live)?, "after another: {:?} {told}{beside:?}{root:?}", precious(&live)?);
    let purged = volume.said(&["purge"])?;
    ensure!(purged.code == Some(0), "{told}{purged:?}");
    ensure!(is_safe(&live)?, "after a purge: {:?} {told}{purged:?}", precious(&live)?);
    let again = volume.said(&RECOVER)?;
    ensure!(again.code == Some(0), "again: {told}{again:?}");
    let found = precious(&live)?;
    ensure!(is_safe(&live)? && found[0] != "dir/precious", "again: {found:?} {told}{again:?}");
    ensure!(std::fs::read_to_string(live.join("dir/one"))? == "one", "{told}{again:?}");
    let left: Vec<_> = std::fs::read_dir(&live)?.collect::<std::io::Result<_>>()?;
    ensure!(left.len() == 3, "{left:?}: {told}{again:?}");
    // It comes back.
    let back = volume.said(&["recover", "/dir/precious", "--from", "trash"])?;
    ensure!(back.code == Some(0), "back: {told}{back:?}");
    ensure!(std::fs::read_to_string(live.join("dir/precious"))? == PRECIOUS, "{back:?}");
    Ok(happened)
}

fn every_fault(volume: &dyn Volume) -> Result<()> {
    let calls = calls(volume)?;
    let every = strace::stride(2)?;
    let (mut struck, mut lost) = (0, Vec::new());
    for (first, fault) in ["signal=KILL", "error=EIO"].into_iter().enumerate() {
        for call in calls.iter().skip(first % every).step_by(every) {
            match strike(volume, call, fault) {
                Ok(happened) => struck += u32::from(happened),
                Err(error) => {
                    lost.push(format!("{fault} at {} {}: {error:#}", call.name, call.when));
                }
            }
        }
    }
    eprintln!("{struck} faults at {} calls", calls.len());
    ensure!(lost.is_empty(), "{} of {}: {lost:#?}", lost.len(), calls.len());
    ensure!(struck > 10, "{struck}");
    Ok(())
}

#[test]
fn what_a_recovery_replaces_on_btrfs_survives_every_fault_and_what_is_done_afterwards() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), fill)?;
    machine.reset_well()?;
    every_fault(&machine)?;
    machine.close()
}

#[test]
fn what_a_recovery_replaces_on_ext4_survives_every_fault_and_what_is_done_afterwards() -> Result<()>
{
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let directory = Directory::new("keep = { days = 30 }\n", |_| Ok(()))?;
    fill(&directory.live())?;
    directory.reset().context("the reset")?;
    every_fault(&directory)?;
    directory.close()
}
