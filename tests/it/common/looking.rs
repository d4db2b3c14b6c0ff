//! Running the commands that look and recover, on btrfs and on plain directories.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use darlings_testkit::Foretold;
use darlings_testkit::loopfs::{Filesystem, LoopFs, run};

use super::{Machine, put, quoted};

/// A time that files are given: 2026-05-04 03:02:01 UTC.
pub(crate) const THEN: &str = "2026-05-04T03:02:01Z";

/// What a command said, with the paths that differ from run to run replaced by words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// That it ended so, and said nothing else.
    pub(crate) fn is(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!(
            (self.code, self.stdout.as_str(), self.stderr.as_str()),
            (Some(code), stdout, stderr)
        );
    }

    /// Its output as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("{self:?}"))
    }
}

impl Machine {
    /// Runs `darlings` with these arguments.
    pub(crate) fn say(&self, arguments: &[&str]) -> Result<Said> {
        self.say_with(&self.config(), arguments)
    }

    /// The same with another configuration.
    pub(crate) fn say_with(&self, config: &str, arguments: &[&str]) -> Result<Said> {
        let mut command = self.word(arguments[0], config)?;
        let ran = self.ran(command.args(&arguments[1..]))?;
        let file = self.beside("darlings.toml").display().to_string();
        let device = self.volume.fs.device().display().to_string();
        let words = |text: String| text.replace(&file, "FILE").replace(&device, "DEVICE");
        Ok(Said { code: ran.code, stdout: words(ran.stdout), stderr: words(ran.stderr) })
    }
}

/// A file with [`THEN`] for its time.
pub(crate) fn put_then(root: &Path, path: &str, text: &str) -> Result<()> {
    put(root, path, text)?;
    at_time(&root.join(path), THEN)
}

/// Sets the time of an entry.
pub(crate) fn at_time(path: &Path, time: &str) -> Result<()> {
    run(Command::new("touch").args(["--no-dereference", "--date", time]).arg(path)).map(drop)
}

/// A plain directory that is reset.
pub(crate) struct Directory {
    pub(crate) fs: LoopFs,
    /// The tables of the configuration after the volume's.
    pub(crate) rules: String,
}

impl Directory {
    /// On ext4; `blank` fills the blank.
    pub(crate) fn new(rules: &str, blank: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        Self::on(LoopFs::new(Filesystem::Ext4)?, rules, blank)
    }

    /// On a filesystem that is there.
    pub(crate) fn on(
        fs: LoopFs,
        rules: &str,
        blank: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        std::fs::create_dir(fs.path().join("blank"))?;
        std::fs::create_dir(fs.path().join("live"))?;
        blank(&fs.path().join("blank"))?;
        Ok(Self { fs, rules: rules.to_owned() })
    }

    /// The directory.
    pub(crate) fn live(&self) -> PathBuf {
        self.fs.path().join("live")
    }

    /// Resets it, which must end well.
    pub(crate) fn reset(&self) -> Result<()> {
        let said = self.say(&["reset", "--cmdline", "/dev/null", "--report", "/dev/null/none"])?;
        anyhow::ensure!(said.code == Some(0), "{said:?}");
        Ok(())
    }

    /// Runs `darlings` with these arguments.
    pub(crate) fn say(&self, arguments: &[&str]) -> Result<Said> {
        let file = self.fs.holder().join("darlings.toml");
        let at = |name: &str| quoted(&self.fs.path().join(name).display().to_string());
        let config = format!(
            "[[volume]]\nmount_point = \"/\"\ndir = {{ path = {}, blank = {} }}\n{}",
            at("live"),
            at("blank"),
            self.rules
        );
        std::fs::write(&file, config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
        command.args(arguments).arg("--config").arg(&file).env_remove("JOURNAL_STREAM");
        let output = Foretold::output(command.stdin(Stdio::null()))?;
        let top = self.fs.path().display().to_string();
        let words = |bytes: Vec<u8>| -> Result<String> {
            let text = String::from_utf8(bytes)?;
            Ok(text.replace(&file.display().to_string(), "FILE").replace(&top, "TOP"))
        };
        let (stdout, stderr) = (words(output.stdout)?, words(output.stderr)?);
        Ok(Said { code: output.status.code(), stdout, stderr })
    }

    /// Takes everything down.
    pub(crate) fn close(self) -> Result<()> {
        self.fs.close()
    }
}
