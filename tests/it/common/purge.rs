//! Running `darlings purge` and `darlings generations`, and volumes with generations to run it on.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use darlings_testkit::loopfs::run;

use super::{Machine, Ran, put};

pub(crate) const DAY: u64 = 24 * 60 * 60;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A volume that keeps `/keep`, and was reset so many times: generations 1 to `resets`. Each had
/// something of its own.
pub(crate) fn machine_after(resets: u32) -> Result<Machine> {
    let machine = Machine::new(|blank| put(blank, "etc/blank", "of the blank"), |_| Ok(()))?;
    let mut machine = machine.persist("/keep", &[]);
    // It moves nothing aside, so that each test says itself what is in the trash.
    "rollback".clone_into(&mut machine.strategy);
    put(&machine.volume.live(), "keep/kept", "kept")?;
    for number in 1..=resets {
        put(&machine.volume.live(), &format!("of/{number}"), "gone with it")?;
        machine.reset_well()?;
    }
    Ok(machine)
}

impl Machine {
    /// The configuration with `keep = { KEEP }`; without, when it is empty.
    pub(crate) fn config_keeping(&self, keep: &str) -> String {
        let keep = if keep.is_empty() { String::new() } else { format!("keep = {{ {keep} }}\n") };
        let mount_point = "mount_point = \"/\"\n";
        self.config().replacen(mount_point, &format!("{mount_point}{keep}"), 1)
    }

    /// The command `darlings WORD` with a configuration, yet to be run.
    pub(crate) fn word(&self, word: &str, config: &str) -> Result<Command> {
        let at = self.beside("darlings.toml");
        std::fs::write(&at, config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
        command.arg(word).arg("--config").arg(at).env_remove("JOURNAL_STREAM");
        Ok(command)
    }

    /// Runs `darlings purge` with `keep = { KEEP }`.
    pub(crate) fn purge(&self, keep: &str, arguments: &[&str]) -> Result<Ran> {
        self.ran(self.word("purge", &self.config_keeping(keep))?.args(arguments))
    }

    /// Runs `darlings generations`.
    pub(crate) fn generations(&self, arguments: &[&str]) -> Result<Ran> {
        self.ran(self.word("generations", &self.config())?.args(arguments))
    }

    /// The names in the generations directory, sorted.
    pub(crate) fn kept(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.at("@darlings/root"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != ".darlings");
        names.sort();
        Ok(names)
    }

    /// Makes a subvolume read-only, or writable.
    pub(crate) fn read_only(&self, path: &str, value: bool) -> Result<()> {
        let mut command = Command::new("btrfs");
        command.args(["property", "set", "-ts"]).arg(self.at(path)).arg("ro");
        run(command.arg(value.to_string())).map(drop)
    }

    /// Writes down when generation `number` ended: in the tree that was made then.
    pub(crate) fn ended(&self, number: u32, time: Option<u64>) -> Result<()> {
        let next = format!("@darlings/root/{}", number + 1);
        let generation = self.at(&next).exists();
        let tree = if generation { next.as_str() } else { "@" };
        if generation {
            self.read_only(tree, false)?;
        }
        edit_manifest(&self.at(tree).join(".darlings/manifest"), time)?;
        if generation {
            self.read_only(tree, true)?;
        }
        Ok(())
    }
}

fn edit_manifest(path: &Path, time: Option<u64>) -> Result<()> {
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
    manifest["time"] = time.into();
    Ok(std::fs::write(path, manifest.to_string())?)
}
