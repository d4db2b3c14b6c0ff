//! What the integration tests share: a btrfs of a test's own, the binary run on it, and everything
//! on the filesystem written down.

pub(crate) mod adopting;
pub(crate) mod changes;
pub(crate) mod cmdline;
pub(crate) mod directory;
pub(crate) mod encryption;
pub(crate) mod looking;
pub(crate) mod made_up;
pub(crate) mod purge;
pub(crate) mod strace;
pub(crate) mod user;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::{BtrfsVolume, Filesystem, LoopFs, Options, run};
use darlings_testkit::model::{self, Expected, Rule};
use darlings_testkit::{Compare, Foretold, RelPath, Time, Tree, capture, difference, plant};

/// Whether this is a process in which nothing but the test with this name runs, so that it may change
/// what a process has only one of, as its umask. Elsewhere it runs the test in such a process first.
///
/// # Errors
/// The test failed there.
pub(crate) fn is_own_process(test: &str) -> Result<bool> {
    const CHILD: &str = "DARLINGS_TEST_IN_OWN_PROCESS";
    if std::env::var_os(CHILD).is_some() {
        return Ok(true);
    }
    let mut command = Command::new(std::env::current_exe()?);
    let status = command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").status()?;
    anyhow::ensure!(status.success(), "{test} failed in a process of its own: {status}");
    Ok(false)
}

/// A btrfs with `@` and `@blank`, and the configuration that resets it.
pub(crate) struct Machine {
    pub(crate) volume: BtrfsVolume,
    pub(crate) rules: Vec<Rule>,
    /// Lines before the first table of the configuration.
    pub(crate) head: String,
    /// Replaces `blank = "@blank"`.
    pub(crate) blank: String,
    /// How it is reset: what `DARLINGS_TEST_STRATEGY` says, or `rollback`.
    pub(crate) strategy: String,
}

/// One run of the binary.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The report, if one was written.
    pub(crate) report: Option<serde_json::Value>,
}

impl Machine {
    /// `blank` fills the blank, `live` does to its copy what happened since.
    pub(crate) fn new(
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::with(Options::new(Filesystem::Btrfs), blank, live)
    }

    /// The same on a filesystem made with options.
    pub(crate) fn with(
        options: Options,
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let volume = BtrfsVolume::with(options, blank, live)?;
        let (head, blank, strategy) = (String::new(), "@blank".to_owned(), strategy());
        Ok(Self { volume, rules: Vec::new(), head, blank, strategy })
    }

    /// A machine on a copy of another's filesystem, which must not be mounted at the same time.
    pub(crate) fn of_copy(image: &Path, rules: Vec<Rule>, strategy: &str) -> Result<Self> {
        let options = Options::new(Filesystem::Btrfs).mount("subvolid=5");
        let mut fs = LoopFs::of_image(options, image)?;
        fs.remount_fresh()?;
        let (head, blank, strategy) = (String::new(), "@blank".to_owned(), strategy.to_owned());
        Ok(Self { volume: BtrfsVolume { fs }, rules, head, blank, strategy })
    }

    /// Declares a path.
    pub(crate) fn persist(mut self, path: &str, excludes: &[&str]) -> Self {
        let rule = Rule::new(path, excludes).unwrap_or_else(|why| panic!("{why}"));
        self.rules.push(rule);
        self
    }

    /// The path of something, by its path from the top level.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.volume.fs.path().join(path)
    }

    /// The text of a file of the live subvolume; nothing where there is none.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>> {
        match std::fs::read_to_string(self.volume.live().join(path)) {
            Ok(text) => Ok(Some(text)),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why).with_context(|| format!("cannot read {path}")),
        }
    }

    /// A file beside the filesystem that goes with it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.volume.fs.holder().join(name)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> String {
        let device = self.volume.fs.device().display().to_string();
        format!(
            "{}[[volume]]\nmount_point = \"/\"\nstrategy = {}\nbtrfs = {{ device = {}, subvolume = \"@\", blank = {} }}\n{}",
            self.head,
            quoted(&self.strategy),
            quoted(&device),
            quoted(&self.blank),
            persist_tables(&self.rules),
        )
    }

    /// Runs `darlings reset` with the machine's configuration.
    pub(crate) fn reset(&self) -> Result<Ran> {
        self.run(self.config(), &[])
    }

    /// Runs `darlings reset` and demands that it ends well.
    pub(crate) fn reset_well(&self) -> Result<Ran> {
        let ran = self.reset()?;
        anyhow::ensure!(ran.code == Some(0), "exit code {:?}\n{}", ran.code, ran.stderr);
        Ok(ran)
    }

    /// Runs `darlings reset` with any configuration and more arguments.
    pub(crate) fn run(&self, config: impl AsRef<[u8]>, arguments: &[&str]) -> Result<Ran> {
        let mut command = self.command(config)?;
        command.args(arguments);
        self.ran(&mut command)
    }

    /// The command `darlings reset` with a configuration, yet to be run.
    pub(crate) fn command(&self, config: impl AsRef<[u8]>) -> Result<Command> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
        command.arg("reset").args(self.arguments(config)?).env_remove("JOURNAL_STREAM");
        Ok(command)
    }

    /// The arguments that tell it where the configuration and the report are.
    pub(crate) fn arguments(&self, config: impl AsRef<[u8]>) -> Result<[PathBuf; 4]> {
        let at = self.beside("darlings.toml");
        std::fs::write(&at, config)?;
        Ok(["--config".into(), at, "--report".into(), self.beside("report.json")])
    }

    /// Runs a command to its end; whatever it is, it leaves no mount and no directory behind. If it is
    /// a reset, `check` must foretell how it ends.
    pub(crate) fn ran(&self, command: &mut Command) -> Result<Ran> {
        let foretold = Foretold::before(command)?;
        let ran = self.ran_unforetold(command)?;
        match foretold {
            Some(foretold) => foretold.must_agree(ran.code, &ran.stderr).map(|()| ran),
            None => Ok(ran),
        }
    }

    /// The same for a reset that `check` cannot foretell.
    pub(crate) fn ran_unforetold(&self, command: &mut Command) -> Result<Ran> {
        use std::process::Stdio;
        let report = self.beside("report.json");
        remove_if_there(&report)?;
        // One that was killed left its own, and process ids come round again.
        let earlier = all_mount_directories()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let pid = child.id();
        let output = child.wait_with_output()?;
        let mut left = all_mount_directories()?;
        left.retain(|directory| !earlier.contains(directory) && is_of(directory, pid));
        anyhow::ensure!(left.is_empty(), "the run left {left:?}");
        self.told(output)
    }

    fn told(&self, output: Output) -> Result<Ran> {
        let Output { status, stdout, stderr } = output;
        let report = match std::fs::read(self.beside("report.json")) {
            Ok(text) => Some(serde_json::from_slice(&text)?),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
            Err(why) => return Err(why.into()),
        };
        let code = ExitStatus::code(&status);
        let text = |bytes| String::from_utf8(bytes).context("it printed something not UTF-8");
        Ok(Ran { code, stdout: text(stdout)?, stderr: text(stderr)?, report })
    }

    /// What the model says that a reset must leave now.
    pub(crate) fn expected(&self) -> Result<Expected> {
        let blank = if self.blank == "empty" {
            let at = self.volume.make_subvolume("@nothing")?;
            let tree = capture(&at)?;
            run(Command::new("btrfs").args(["subvolume", "delete"]).arg(at))?;
            // Rule 2: where the blank does not have the root, it is as before.
            let mut empty = tree;
            let previous = capture(&self.volume.live())?;
            let root = previous.get(&RelPath::root()).cloned().context("no root")?;
            empty.entries.insert(RelPath::root(), root);
            empty
        } else {
            capture(&self.at(&self.blank))?
        };
        Ok(model::expected(&blank, &capture(&self.volume.live())?, &self.rules)?)
    }

    /// Resets, and compares the result with the model and the generation with the previous state.
    pub(crate) fn reset_and_compare(&self) -> Result<Ran> {
        let mut previous = capture(&self.volume.live())?;
        let expected = self.expected()?;
        let ran = self.reset_well()?;
        self.empty_trash("@")?;
        for moved in moved_subvolumes(&ran) {
            previous.entries.remove(&moved);
        }
        let result = capture(&self.volume.live())?;
        let shown = result.diff_lines(&expected.tree);
        assert_eq!(shown, "", "result != what section 2 wants\n{}", ran.stderr);
        let generation = ran.generation()?;
        let kept = capture(&self.at(&generation))?;
        assert_eq!(kept.diff_lines(&previous), "", "generation != previous state");
        let read_only = run(std::process::Command::new("btrfs")
            .args(["property", "get", "-ts"])
            .arg(self.at(&generation))
            .arg("ro"))?;
        assert_eq!(read_only.trim(), "ro=true", "the generation can be written to");
        Ok(ran)
    }

    /// Removes what `carry` moved aside: a kept file may have another name there.
    pub(crate) fn empty_trash(&self, subvolume: &str) -> Result<()> {
        let own = self.at(subvolume).join(".darlings");
        darlings::tree::remove(std::fs::File::open(own)?.as_fd(), "trash")?;
        Ok(())
    }

    /// Everything on the filesystem.
    pub(crate) fn whole(&self) -> Result<Whole> {
        Whole::of(&self.volume)
    }

    /// Copies the image of the filesystem as it is at this moment.
    pub(crate) fn copy_image(&self, to: &Path) -> Result<()> {
        copy_sparse(&self.beside("image"), to)
    }

    /// Takes everything down.
    pub(crate) fn close(self) -> Result<()> {
        self.volume.close()
    }
}

/// Copies an image, and leaves out what was never written.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["--sparse=always", "--"]).arg(from).arg(to)).map(drop)
}

impl Ran {
    /// Where the report says that the previous state is.
    pub(crate) fn generation(&self) -> Result<String> {
        let report = self.report.as_ref().context("no report")?;
        let name = &report["volumes"][0]["previous_state"];
        Ok(name.as_str().with_context(|| format!("no previous state in {report}"))?.to_owned())
    }
}

/// The strategy that the tests use: most run with both.
pub(crate) fn strategy() -> String {
    std::env::var("DARLINGS_TEST_STRATEGY").unwrap_or_else(|_| "rollback".to_owned())
}

/// The nested subvolumes that a run says it moved out of the previous state.
fn moved_subvolumes(ran: &Ran) -> Vec<RelPath> {
    let steps = ran.report.as_ref().and_then(|report| report["volumes"][0]["steps"].as_array());
    let moved = steps.into_iter().flatten().filter(|step| step["step"] == "move_nested");
    moved.filter_map(|step| RelPath::normalise(step["path"].as_str()?).ok()).collect()
}

/// Everything on a filesystem: each subvolume with its id, whether it is read-only, and its tree;
/// the top level as `""`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) subvolumes: BTreeMap<String, Subvolume>,
    /// The id of the default subvolume.
    pub(crate) default: u64,
}

/// One subvolume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subvolume {
    pub(crate) id: u64,
    pub(crate) read_only: bool,
    pub(crate) tree: Tree,
}

impl Whole {
    /// Writes everything down.
    pub(crate) fn of(volume: &BtrfsVolume) -> Result<Self> {
        let top = volume.fs.path();
        let mut subvolumes = BTreeMap::new();
        subvolumes
            .insert(String::new(), Subvolume { id: 5, read_only: false, tree: capture(top)? });
        let read_only = subvolumes_of(top, &["-r"])?;
        for (path, id) in subvolumes_of(top, &[])? {
            let tree = capture(&top.join(&path))?;
            let read_only = read_only.contains_key(&path);
            subvolumes.insert(path, Subvolume { id, read_only, tree });
        }
        Ok(Self { subvolumes, default: default_of(volume)? })
    }

    /// Every difference, a line each; the tool's own directories included.
    pub(crate) fn differences(&self, other: &Self) -> String {
        self.differences_with(other, &Compare::all())
    }

    /// Every difference with a say in what is compared within a tree.
    pub(crate) fn differences_with(&self, other: &Self, compare: &Compare) -> String {
        let mut found = String::new();
        let mut tell = |line: String| found.push_str(&line);
        if self.default != other.default {
            tell(format!("default: {} != {}\n", self.default, other.default));
        }
        let paths: std::collections::BTreeSet<_> =
            self.subvolumes.keys().chain(other.subvolumes.keys()).collect();
        for path in paths {
            match (self.subvolumes.get(path), other.subvolumes.get(path)) {
                (Some(one), Some(two)) => {
                    if (one.id, one.read_only) != (two.id, two.read_only) {
                        let words =
                            |it: &Subvolume| format!("id {} read-only {}", it.id, it.read_only);
                        tell(format!("subvolume {path:?}: {} != {}\n", words(one), words(two)));
                    }
                    let lines = difference::lines(&one.tree.diff_with(&two.tree, compare));
                    for line in lines.lines() {
                        tell(format!("subvolume {path:?}: {line}\n"));
                    }
                }
                (one, two) => {
                    let word = |it: Option<&Subvolume>| it.map_or("absent", |_| "there");
                    tell(format!("subvolume {path:?}: {} != {}\n", word(one), word(two)));
                }
            }
        }
        found
    }
}

/// The id of the default subvolume.
pub(crate) fn default_of(volume: &BtrfsVolume) -> Result<u64> {
    let mut command = Command::new("btrfs");
    let told = run(command.args(["subvolume", "get-default"]).arg(volume.fs.path()))?;
    Ok(told.split_whitespace().nth(1).context("no id")?.parse()?)
}

/// Paths and ids of the subvolumes below a mounted top level.
pub(crate) fn subvolumes_of(top: &Path, options: &[&str]) -> Result<BTreeMap<String, u64>> {
    let out = run(Command::new("btrfs").args(["subvolume", "list"]).args(options).arg(top))?;
    out.lines()
        .map(|line| {
            let (before, path) = line.split_once(" path ").context("no path")?;
            let id = before.split_whitespace().nth(1).context("no id")?;
            Ok((path.to_owned(), id.parse()?))
        })
        .collect()
}

/// What runs a program with the capabilities that a unit of systemd leaves it.
pub(crate) fn as_the_unit_does(unit: &str) -> Command {
    let sets = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = sets.flat_map(|set| set.split(' ')).map(|name| name.trim_start_matches("CAP_"));
    let bounding =
        names.fold("-all".to_owned(), |all, name| format!("{all},+{}", name.to_lowercase()));
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--bounding-set", &bounding]);
    command
}

/// The `[[persist]]` tables that declare these paths.
pub(crate) fn persist_tables(rules: &[Rule]) -> String {
    let text_of = |path: &RelPath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    let mut tables = String::new();
    for rule in rules {
        let path = quoted(&format!("/{}", text_of(&rule.path)));
        let excludes: Vec<_> = rule.excludes.iter().map(|path| quoted(&text_of(path))).collect();
        writeln!(tables, "[[persist]]\npath = {path}\nexclude = [{}]", excludes.join(", "))
            .unwrap_or_else(|_| unreachable!("BUG: writing to a String cannot fail"));
    }
    tables
}

/// A TOML string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a directory in `/run/darlings` is one that a process made to mount on.
fn is_of(directory: &Path, pid: u32) -> bool {
    let name = directory.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(&format!("{pid}-"))
}

/// Everything in `/run/darlings`, where the binary makes directories to mount on.
fn all_mount_directories() -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir("/run/darlings") {
        Ok(entries) => entries,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(why.into()),
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Makes a directory that differs from every default, by a number; the directories above it too.
pub(crate) fn marked(root: &Path, path: &str, number: u32) -> Result<()> {
    let at = root.join(path);
    std::fs::create_dir_all(&at)?;
    plant::owner(&at, number, number + 1)?;
    plant::mode(&at, 0o2750 + (number & 7))?;
    plant::xattr(&at, "user.of", number.to_string().as_bytes())?;
    plant::xattr(&at, "trusted.of", number.to_string().as_bytes())?;
    plant::xattr(&at, "system.posix_acl_access", &plant::example_acl(number, number))?;
    plant::xattr(&at, "system.posix_acl_default", &plant::example_acl(number + 1, number))?;
    Ok(plant::times(&at, time(i64::from(number)), time(i64::from(number) * 2))?)
}

/// So many seconds after 1970, and some of the next one.
pub(crate) const fn time(seconds: i64) -> Time {
    Time { seconds, nanoseconds: 987_654_321 }
}

/// Removes a file; that it is not there is fine.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
            Err(why).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file and makes the directories above it.
pub(crate) fn put(root: &Path, path: &str, text: &str) -> Result<()> {
    let at = root.join(path);
    if let Some(parent) = at.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&at, text).with_context(|| format!("cannot write {}", at.display()))
}
