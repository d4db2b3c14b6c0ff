//! A plain directory that is reset in place, on a filesystem of its own, and the binary run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{Attribute, Foretold, Tree, capture, plant};

use super::{persist_tables, put, quoted, strace};

/// A directory with a blank beside it, on a filesystem of its own.
pub(crate) struct Volume {
    pub(crate) fs: LoopFs,
    pub(crate) rules: Vec<Rule>,
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Volume {
    /// A volume of which a reset makes every kind of move.
    pub(crate) fn new(filesystem: Filesystem) -> Result<Self> {
        let fs = LoopFs::new(filesystem)?;
        let (blank, live) = (fs.path().join("blank"), fs.path().join("live"));
        std::fs::create_dir(&blank)?;
        std::fs::create_dir(&live)?;
        put(&blank, "etc/os-release", "of the blank")?;
        put(&blank, "keep/of-the-blank", "of the blank")?;
        put(&blank, "keep/below/.cache/of-the-blank", "of the blank")?;
        put(&blank, "immutable", "of the blank")?;
        plant::mode(&blank, 0o750)?;
        plant::flag(&blank.join("immutable"), Attribute::Immutable)?;
        put(&live, "etc/erased", "erased")?;
        put(&live, "etc/machine-id", "kept")?;
        put(&live, "keep/file", "kept")?;
        std::fs::hard_link(live.join("keep/file"), live.join("etc/linked"))?;
        put(&live, "keep/below/.cache/erased", "erased")?;
        put(&live, "keep/below/.cache/deep/kept", "kept")?;
        put(&live, "keep/locked/file", "kept")?;
        put(&live, "resolv.conf", "kept")?;
        put(&live, "locked-clutter/file", "erased")?;
        plant::owner(&live.join("keep/below"), 1000, 100)?;
        plant::flag(&live.join("keep/locked/file"), Attribute::AppendOnly)?;
        plant::flag(&live.join("keep/locked"), Attribute::Immutable)?;
        plant::flag(&live.join("resolv.conf"), Attribute::Immutable)?;
        plant::flag(&live.join("locked-clutter"), Attribute::Immutable)?;
        let rule = |path, excludes: &[&str]| Rule::new(path, excludes).map_err(anyhow::Error::msg);
        let rules = vec![
            rule("/keep", &["below/.cache"])?,
            rule("/keep/below/.cache/deep", &[])?,
            rule("/etc/machine-id", &[])?,
            rule("/etc/linked", &[])?,
            rule("/resolv.conf", &[])?,
            rule("/never/there", &[])?,
        ];
        rustix::fs::syncfs(std::fs::File::open(fs.path())?)?;
        Ok(Self { fs, rules })
    }

    /// The same after two resets with other lists: the next one puts a path into the attic and
    /// brings one back from it.
    pub(crate) fn experienced(filesystem: Filesystem) -> Result<(Self, Tree)> {
        let mut volume = Self::new(filesystem)?;
        let live = volume.live();
        put(&live, "var/formerly/file", "kept")?;
        put(&live, "var/returning/file", "kept")?;
        let rule = |path| Rule::new(path, &[]).map_err(anyhow::Error::msg);
        let today = volume.rules.clone();
        volume.rules.extend([rule("/var/formerly")?, rule("/var/returning")?]);
        volume.reset()?;
        let before = volume.tree()?;
        volume.rules.pop();
        volume.reset()?;
        volume.rules = today;
        volume.rules.push(rule("/var/returning")?);
        put(&live, "clutter/file", "erased")?;
        plant::flag(&live.join("clutter"), Attribute::Immutable)?;
        // What a reset must leave, had nothing ever been put away.
        let mut previous = volume.tree()?;
        for (path, entry) in &before.entries {
            if path.to_string().starts_with("var/returning") {
                previous.entries.insert(path.clone(), entry.clone());
            }
        }
        let blank = capture(&volume.fs.path().join("blank"))?;
        let expected = model::expected(&blank, &previous, &volume.rules)?.tree;
        rustix::fs::syncfs(std::fs::File::open(volume.fs.path())?)?;
        Ok((volume, expected))
    }

    /// The directory.
    pub(crate) fn live(&self) -> PathBuf {
        self.fs.path().join("live")
    }

    /// What is in it.
    pub(crate) fn tree(&self) -> Result<Tree> {
        capture(&self.live())
    }

    /// What the model says that a reset must leave now.
    pub(crate) fn expected(&self) -> Result<Tree> {
        let blank = capture(&self.fs.path().join("blank"))?;
        Ok(model::expected(&blank, &self.tree()?, &self.rules)?.tree)
    }

    fn config(&self) -> Result<PathBuf> {
        config_at(self.fs.path(), &self.fs.holder().join("darlings.toml"), &self.rules, "")
    }

    /// The same as [`command`], with the configuration of this volume.
    pub(crate) fn command(&self, wrapper: &[&str], arguments: &[&str]) -> Result<Command> {
        Ok(command(wrapper, arguments, &self.config()?))
    }

    /// Resets, with a program around it.
    pub(crate) fn run(&self, wrapper: &[&str]) -> Result<Ran> {
        ran(self.command(wrapper, &["reset", "--threads", "1"])?)
    }

    /// Resets with something injected into the `when`th call of a kind.
    pub(crate) fn inject(&self, call: &str, what: &str, when: u32) -> Result<Ran> {
        let (trace, inject) =
            (format!("trace={call}"), format!("inject={call}:{what}:when={when}"));
        self.run(&["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject])
    }

    /// Resets, which must end well.
    pub(crate) fn reset(&self) -> Result<()> {
        let ran = self.run(&[])?;
        ensure!(ran.code == Some(0), "{:?}: {}", ran.code, ran.stderr);
        Ok(())
    }

    /// Everything in the tool's own directory but what is kept for good.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>> {
        leftovers(&self.live())
    }

    /// The changing calls that a reset makes, in order: which one, and how often it was made before.
    pub(crate) fn points(&self) -> Result<Vec<(String, u32)>> {
        let log = self.fs.holder().join("strace");
        let trace = format!("--trace={}", strace::CHANGING.join(","));
        let ran = self.run(&["strace", "-f", "-qqq", "-o", log.to_str().unwrap(), &trace])?;
        ensure!(ran.code == Some(0), "{}", ran.stderr);
        let changing = strace::calls(&log)?.into_iter().filter(strace::Call::changes);
        Ok(changing.map(|call| (call.name, call.when)).collect())
    }

    /// Takes everything down.
    pub(crate) fn close(self) -> Result<()> {
        darlings_testkit::remove::all(&self.live())?;
        self.fs.close()
    }
}

/// Writes the configuration of the directory below `top`; `more` are lines of its volume.
pub(crate) fn config_at(top: &Path, at: &Path, rules: &[Rule], more: &str) -> Result<PathBuf> {
    let path = |name: &str| quoted(&top.join(name).display().to_string());
    let text = format!(
        "[[volume]]\nmount_point = \"/\"\ndir = {{ path = {}, blank = {} }}\n{more}\n{}",
        path("live"),
        path("blank"),
        persist_tables(rules),
    );
    std::fs::write(at, text)?;
    Ok(at.to_path_buf())
}

/// `darlings` with these arguments, in a `/run` of its own, with a program around it.
pub(crate) fn command(wrapper: &[&str], arguments: &[&str], config: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", "mount -t tmpfs none /run; exec \"$@\"", "sh"])
        .args(wrapper)
        .arg(env!("CARGO_BIN_EXE_darlings"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end. If it is a reset, `check` must foretell how it ends.
pub(crate) fn ran(mut command: Command) -> Result<Ran> {
    let output = Foretold::output(&mut command)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Ran { code: output.status.code(), stdout, stderr })
}

/// Everything in the tool's own directory of a volume but what is kept for good.
pub(crate) fn leftovers(live: &Path) -> Result<Vec<String>> {
    names(&live.join(".darlings"), &["attic", "generation", "generations", "manifest"])
}

/// What is in a directory, sorted, `without` these names.
pub(crate) fn names(directory: &Path, without: &[&str]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !without.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Does the same on each filesystem that directories are tested on.
pub(crate) fn on_both(check: impl Fn(Filesystem) -> Result<()>) -> Result<()> {
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        check(filesystem).with_context(|| format!("on {filesystem}"))?;
    }
    Ok(())
}
