//! A dataset with a blank, the configuration that resets it, and runs of the real binary.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs, io};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{Foretold, RelPath, Tree, remove};

use crate::pools::{DATASET, MARK, POOL, UNDONE, change, create_pool, property, sh, tree};

const CONFIGURATION: &str = "/tmp/darlings.toml";
const REPORT: &str = "/tmp/report.json";
/// The program that is tested; `darlings` without it.
const PROGRAM: &str = "DARLINGS_TEST_PROGRAM";

/// One run of the binary.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
    /// The report, if one was written.
    pub(crate) report: Option<serde_json::Value>,
}

impl Ran {
    /// Demands that it ended well.
    pub(crate) fn well(self) -> Result<Self> {
        ensure!(self.code == Some(0), "exit code {:?}\n{}", self.code, self.stderr);
        Ok(self)
    }
}

/// A `darlings reset` that is to be run, below the words of `before` (`strace ...`).
pub(crate) fn reset_command(
    before: &[&str],
    configuration: &str,
    arguments: &[&str],
) -> Result<Command> {
    fs::write(CONFIGURATION, configuration)?;
    if Path::new(REPORT).exists() {
        fs::remove_file(REPORT)?;
    }
    let program = env::var(PROGRAM).unwrap_or_else(|_| "darlings".to_owned());
    let own = [program.as_str(), "reset", "--config", CONFIGURATION, "--report", REPORT];
    let words = [before, &own, arguments].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_remove("JOURNAL_STREAM");
    Ok(command)
}

/// Runs `darlings reset` to its end, below the words of `before` (`strace ...`). `check` must foretell
/// how it ends.
pub(crate) fn reset_below(before: &[&str], configuration: &str, arguments: &[&str]) -> Result<Ran> {
    let mut command = reset_command(before, configuration, arguments)?;
    ran(Foretold::output(&mut command)?)
}

/// Runs `darlings reset` where `check` does not foretell how it ends, for this reason.
pub(crate) fn reset_unforetold(configuration: &str, _reason: &str) -> Result<Ran> {
    let mut command = reset_command(&[], configuration, &[])?;
    ran(command.output().with_context(|| format!("cannot run {command:?}"))?)
}

fn ran(output: Output) -> Result<Ran> {
    let report = match fs::read(REPORT) {
        Ok(text) => Some(serde_json::from_slice(&text)?),
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        Err(why) => return Err(why.into()),
    };
    Ok(Ran { code: output.status.code(), stderr: String::from_utf8(output.stderr)?, report })
}

/// Runs `darlings reset`; it leaves no mount point behind, where a run that is killed leaves its.
pub(crate) fn reset(configuration: &str, arguments: &[&str]) -> Result<Ran> {
    let before = mount_points()?;
    let ran = reset_below(&[], configuration, arguments)?;
    let after = mount_points()?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "the run left {left:?}\n{}", ran.stderr);
    Ok(ran)
}

fn mount_points() -> Result<BTreeSet<OsString>> {
    match fs::read_dir("/run/darlings") {
        Ok(entries) => {
            Ok(entries.map(|it| it.map(|it| it.file_name())).collect::<Result<_, _>>()?)
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(why) => Err(why.into()),
    }
}

/// Runs a reset that is killed when it enters a system call for the `when`th time.
pub(crate) fn killed_at(machine: &Machine, call: &str, when: usize) -> Result<()> {
    let (trace, inject) =
        (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let ran = reset_below(&strace, &machine.config(), &["--threads", "1"])?;
    ensure!(ran.report.is_none(), "it was not killed at {call} {when}:\n{}", ran.stderr);
    Ok(())
}

/// How a dataset is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    Rollback,
    Carry,
}

/// A dataset with a blank, and the configuration that resets it.
pub(crate) struct Machine {
    pub(crate) dataset: String,
    pub(crate) rules: Vec<Rule>,
    pub(crate) strategy: Strategy,
    /// The table `zfs` without its dataset.
    pub(crate) blank: &'static str,
    /// More keys of the table `zfs`, each with a comma before it.
    pub(crate) more: String,
}

impl Machine {
    /// [`DATASET`] in a new pool.
    pub(crate) fn new(
        options: &[&str],
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        create_pool(POOL, 512, &[&["-O", "acltype=posixacl"], options].concat())?;
        Self::in_pool(&[], blank, live)
    }

    /// [`DATASET`] in a pool that is there.
    pub(crate) fn in_pool(
        options: &[&str],
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let legacy = ["create", "-p", "-o", "mountpoint=legacy"];
        sh("zfs", &[&legacy, options, &[DATASET]].concat())?;
        change(DATASET, blank)?;
        sh("zfs", &["snapshot", &format!("{DATASET}@blank")])?;
        change(DATASET, live)?;
        Ok(Self {
            dataset: DATASET.to_owned(),
            rules: Vec::new(),
            strategy: Strategy::Rollback,
            blank: "blank",
            more: String::new(),
        })
    }

    /// The same, reset by another strategy.
    pub(crate) fn by(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Declares a path, below the volume's root.
    pub(crate) fn persist(mut self, path: &str, excludes: &[&str]) -> Self {
        let rule = Rule::new(path, excludes).unwrap_or_else(|why| panic!("{why}"));
        self.rules.push(rule);
        self
    }

    /// The whole configuration.
    pub(crate) fn config(&self) -> String {
        let strategy = match self.strategy {
            Strategy::Rollback => "strategy = \"rollback\"",
            Strategy::Carry => "strategy = \"carry\"\nkeep = { generations = 2 }",
        };
        let mut text = format!(
            "[[volume]]\nmount_point = \"/\"\n{strategy}\n\
             zfs = {{ dataset = \"{}\", blank = \"{}\"{} }}\n",
            self.dataset, self.blank, self.more
        );
        let text_of = |path: &RelPath| String::from_utf8_lossy(path.as_bytes()).into_owned();
        for rule in &self.rules {
            let path = Path::new("/").join(text_of(&rule.path));
            let excludes: Vec<_> = rule.excludes.iter().map(text_of).collect();
            writeln!(text, "[[persist]]\npath = {path:?}\nexclude = {excludes:?}")
                .unwrap_or_else(|_| unreachable!("BUG: writing to a String cannot fail"));
        }
        text
    }

    /// What the model says that a reset must leave.
    pub(crate) fn expected(&self) -> Result<Tree> {
        let (blank, previous) = (tree(&format!("{}@blank", self.dataset))?, tree(&self.dataset)?);
        Ok(model::expected(&blank, &previous, &self.rules)?.tree)
    }

    /// Resets, compares with the model, and demands that nothing is left over, and that a
    /// generation is the previous state.
    pub(crate) fn reset_and_compare(&self) -> Result<Ran> {
        let (previous, expected) = (tree(&self.dataset)?, self.expected()?);
        let ran = reset(&self.config(), &[])?.well()?;
        self.must_be(&expected).with_context(|| ran.stderr.clone())?;
        if self.strategy == Strategy::Carry {
            let report = ran.report.as_ref().context("no report")?;
            let number = &report["volumes"][0]["generation"];
            let lines = tree(&format!("{}@darlings-{number}", self.dataset))?.diff_lines(&previous);
            ensure!(lines.is_empty(), "generation {number} is not the previous state:\n{lines}");
        }
        Ok(ran)
    }

    /// Demands that the dataset is this tree, and that no stage, work, mark or snapshot is left
    /// over but generations. What `carry` moved aside is removed first: a kept file may have
    /// another name there.
    pub(crate) fn must_be(&self, expected: &Tree) -> Result<()> {
        empty_trash(&self.dataset)?;
        let found = tree(&self.dataset)?;
        let lines = found.diff_lines(expected);
        ensure!(lines.is_empty(), "it is not what section 2 wants (found != wanted):\n{lines}");
        ensure!(found.at(".darlings/reset").is_none(), ".darlings/reset is left over");
        let columns = ["list", "-Hr", "-t", "all", "-o", "name,darlings:generation"];
        let names = sh("zfs", &[&columns[..], &[self.dataset.as_str()]].concat())?;
        let is_expected = |line: &str| {
            let (name, number) = line.split_once('\t').unwrap_or((line, ""));
            match name.strip_prefix(&self.dataset) {
                // A test took it, to be able to go back.
                Some("" | "@blank" | "@golden") => true,
                Some(snapshot) => {
                    self.strategy == Strategy::Carry && *snapshot == format!("@darlings-{number}")
                }
                None => false,
            }
        };
        let left: Vec<&str> = names.lines().filter(|line| !is_expected(line)).collect();
        ensure!(left.is_empty(), "left over: {left:?}");
        for mark in [MARK, UNDONE] {
            let value = property(&self.dataset, mark)?;
            ensure!(value == "-", "the mark {mark} is left: {value}");
        }
        Ok(())
    }
}

/// Removes what a `carry` moved aside.
pub(crate) fn empty_trash(dataset: &str) -> Result<()> {
    change(dataset, |root| {
        let trash = root.join(".darlings/trash");
        if trash.exists() { remove::all(&trash) } else { Ok(()) }
    })
}
