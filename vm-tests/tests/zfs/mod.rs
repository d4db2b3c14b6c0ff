//! What the tests of the ZFS reset share: each runs as a whole in a guest, where it has pools of
//! its own and the real binary.
//!
//! The host copies this very test executable into a guest and runs the one test there. Pools are
//! files in the guest's memory, which is quick and can be put back to what they were; where the
//! writing itself is measured, a pool is on the guest's disk.

#![allow(unreachable_pub, reason = "a module of one test is as good as a crate of its own")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{Compare, RelPath, Tree, capture, difference};
use darlings_vm_tests::disk::Disk;
use darlings_vm_tests::image::Boot;
use darlings_vm_tests::machine::built;
use darlings_vm_tests::{Filesystem, capability, run};
use rustix::mount::{MountFlags, UnmountFlags};

/// Set where a test is already in its guest.
const INSIDE: &str = "DARLINGS_TEST_IS_IN_A_GUEST";
/// Emulated, on a computer that is busy with other things, the longest takes minutes.
const LIMIT: Duration = Duration::from_secs(900);

/// The pool of most tests, the dataset that they reset, and its stage.
pub const POOL: &str = "tank";
pub const DATASET: &str = "tank/local/root";
pub const STAGE: &str = "tank/local/root/darlings-stage";
pub const MARK: &str = "darlings:rolled-back";

/// Runs the body of a test in a guest with ZFS and one disk of 1 GiB, `/dev/vda`.
pub fn in_guest(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    if !capability::can_run(test)? {
        return Ok(());
    }
    let scratch = tempfile::tempdir().context("cannot make a directory for a disk")?;
    let script =
        format!("export {INSIDE}=1\nexec zfs-reset --exact {test} --nocapture --test-threads=1");
    let mut command = run::Command::new(Filesystem::Zfs, &script);
    command.files = vec![
        (env::current_exe().context("this program has no name")?, "/usr/bin/zfs-reset".to_owned()),
        (built("DARLINGS_BIN", "darlings", "darlings")?, "/usr/bin/darlings".to_owned()),
    ];
    command.disks = vec![Disk::blank(scratch.path().join("disk"), "disk0", 1 << 30)?];
    command.limit = LIMIT;
    let said = command.succeed(&Boot::get()?)?;
    ensure!(said.contains("test result: ok. 1 passed"), "the guest did not run {test}:\n{said}");
    print!("{said}");
    Ok(())
}

/// Runs a command that must succeed, and returns what it wrote, without the last newline.
pub fn sh(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// A property as the `zfs` command gives it.
pub fn property(name: &str, property: &str) -> Result<String> {
    sh("zfs", &["get", "-Hpo", "value", property, name])
}

/// Does something where a dataset or a snapshot is mounted.
pub fn mounted<T>(
    name: &str,
    flags: MountFlags,
    action: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let at = tempfile::tempdir_in("/mnt").context("cannot make a mount point")?;
    rustix::mount::mount(name, at.path(), "zfs", flags | MountFlags::NOATIME, None)
        .with_context(|| format!("cannot mount {name}"))?;
    let result = action(at.path());
    rustix::mount::unmount(at.path(), UnmountFlags::empty())
        .with_context(|| format!("cannot unmount {name}"))?;
    result
}

/// Changes a dataset.
pub fn change(name: &str, action: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    mounted(name, MountFlags::empty(), action)
}

/// The tree of a dataset or a snapshot.
pub fn tree(name: &str) -> Result<Tree> {
    mounted(name, MountFlags::RDONLY, capture)
}

/// Writes a file and makes the directories above it.
pub fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) -> Result<()> {
    let at = root.join(path);
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&at, text).with_context(|| format!("cannot write {}", at.display()))
}

/// Bytes that no compression makes smaller.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).flat_map(u64::to_ne_bytes).take(length).collect()
}

/// The directory in which the file of a pool lies.
pub fn home_of(pool: &str) -> PathBuf {
    Path::new("/tmp/pools").join(pool)
}

/// Makes a pool in a file of so many MiB.
pub fn create_pool(pool: &str, mebibytes: u64, options: &[&str]) -> Result<()> {
    let home = home_of(pool);
    fs::create_dir_all(&home)?;
    let file = home.join("disk");
    fs::File::create(&file)?.set_len(mebibytes << 20)?;
    create_pool_on(pool, file.to_str().context("UTF-8")?, options)
}

/// Makes a pool on a device.
pub fn create_pool_on(pool: &str, device: &str, options: &[&str]) -> Result<()> {
    let common = ["-f", "-o", "cachefile=none", "-O", "mountpoint=none", "-O", "compression=off"];
    let arguments = [&["create"], &common[..], options, &[pool, device]].concat();
    sh("zpool", &arguments).map(drop)
}

pub fn export(pool: &str) -> Result<()> {
    sh("zpool", &["export", pool]).map(drop)
}

pub fn import(pool: &str, options: &[&str]) -> Result<()> {
    let home = home_of(pool);
    let home = if home.exists() { home } else { "/dev".into() };
    let arguments =
        [&["import", "-N", "-d", home.to_str().context("UTF-8")?], options, &[pool]].concat();
    sh("zpool", &arguments).map(drop)
}

/// One run of the binary.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The report, if one was written.
    pub report: Option<serde_json::Value>,
}

impl Ran {
    /// Demands that it ended well.
    pub fn well(self) -> Result<Self> {
        ensure!(self.code == Some(0), "exit code {:?}\n{}", self.code, self.stderr);
        Ok(self)
    }
}

const CONFIGURATION: &str = "/tmp/darlings.toml";
const REPORT: &str = "/tmp/report.json";

/// Runs `darlings reset` to its end, below the words of `before` (`strace ...`).
pub fn reset_below(before: &[&str], configuration: &str, arguments: &[&str]) -> Result<Ran> {
    fs::write(CONFIGURATION, configuration)?;
    if Path::new(REPORT).exists() {
        fs::remove_file(REPORT)?;
    }
    let own = ["darlings", "reset", "--config", CONFIGURATION, "--report", REPORT];
    let words = [before, &own, arguments].concat();
    let output = Command::new(words[0])
        .args(&words[1..])
        .env_remove("JOURNAL_STREAM")
        .output()
        .with_context(|| format!("cannot run {words:?}"))?;
    let report = match fs::read(REPORT) {
        Ok(text) => Some(serde_json::from_slice(&text)?),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
        Err(why) => return Err(why.into()),
    };
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
        report,
    })
}

/// Runs `darlings reset`; it leaves no mount point behind.
pub fn reset(configuration: &str, arguments: &[&str]) -> Result<Ran> {
    let ran = reset_below(&[], configuration, arguments)?;
    if let Ok(left) = fs::read_dir("/run/darlings") {
        let left: Vec<_> = left.collect::<Result<_, _>>()?;
        ensure!(left.is_empty(), "the run left {left:?}\n{}", ran.stderr);
    }
    Ok(ran)
}

/// A dataset with a blank, and the configuration that resets it.
pub struct Machine {
    pub dataset: String,
    pub mount_point: String,
    pub rules: Vec<Rule>,
    /// More keys of the table `zfs`, each with a comma before it.
    pub more: String,
}

impl Machine {
    /// [`DATASET`] in a new pool.
    pub fn new(
        options: &[&str],
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        create_pool(POOL, 512, &[&["-O", "acltype=posixacl"], options].concat())?;
        Self::in_pool(DATASET, &[], blank, live)
    }

    /// A dataset in a pool that is there.
    pub fn in_pool(
        dataset: &str,
        options: &[&str],
        blank: impl FnOnce(&Path) -> Result<()>,
        live: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let legacy = ["create", "-p", "-o", "mountpoint=legacy"];
        sh("zfs", &[&legacy, options, &[dataset]].concat())?;
        change(dataset, blank)?;
        sh("zfs", &["snapshot", &format!("{dataset}@blank")])?;
        change(dataset, live)?;
        Ok(Self {
            dataset: dataset.to_owned(),
            mount_point: "/".to_owned(),
            rules: Vec::new(),
            more: String::new(),
        })
    }

    /// Declares a path, below the volume's root.
    pub fn persist(mut self, path: &str, excludes: &[&str]) -> Self {
        let rule = Rule::new(path, excludes).unwrap_or_else(|why| panic!("{why}"));
        self.rules.push(rule);
        self
    }

    /// Its table.
    pub fn volume(&self) -> String {
        format!(
            "[[volume]]\nmount_point = \"{}\"\nzfs = {{ dataset = \"{}\", blank = \"blank\"{} }}\n",
            self.mount_point, self.dataset, self.more
        )
    }

    /// The tables of its persisted paths.
    pub fn persisted(&self) -> String {
        let text_of = |path: &RelPath| String::from_utf8_lossy(path.as_bytes()).into_owned();
        let mut text = String::new();
        for rule in &self.rules {
            let path = Path::new(&self.mount_point).join(text_of(&rule.path));
            let excludes: Vec<_> = rule.excludes.iter().map(text_of).collect();
            writeln!(text, "[[persist]]\npath = {path:?}\nexclude = {excludes:?}")
                .unwrap_or_else(|_| unreachable!("BUG: writing to a String cannot fail"));
        }
        text
    }

    /// The whole configuration.
    pub fn config(&self) -> String {
        self.volume() + &self.persisted()
    }

    pub fn blank(&self) -> String {
        format!("{}@blank", self.dataset)
    }

    /// What the model says that a reset must leave.
    pub fn expected(&self) -> Result<Tree> {
        let (blank, previous) = (tree(&self.blank())?, tree(&self.dataset)?);
        Ok(model::expected(&blank, &previous, &self.rules)?.tree)
    }

    /// Resets, compares with the model, and demands that nothing is left over.
    pub fn reset_and_compare(&self) -> Result<Ran> {
        let expected = self.expected()?;
        let ran = reset(&self.config(), &[])?.well()?;
        self.must_be(&expected).with_context(|| ran.stderr.clone())?;
        Ok(ran)
    }

    /// Demands that the dataset is this tree, and that no stage, mark or snapshot is left over.
    pub fn must_be(&self, expected: &Tree) -> Result<()> {
        let lines = tree(&self.dataset)?.diff_lines(expected);
        ensure!(lines.is_empty(), "it is not what section 2 wants (found != wanted):\n{lines}");
        let names = sh("zfs", &["list", "-Hr", "-t", "all", "-o", "name", &self.dataset])?;
        ensure!(names == format!("{0}\n{0}@blank", self.dataset), "left over: {names}");
        let mark = property(&self.dataset, MARK)?;
        ensure!(mark == "-", "the mark is left: {mark}");
        Ok(())
    }
}

/// Everything in a pool.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// Every dataset, snapshot and bookmark.
    pub names: String,
    /// Every property that was set on one of them.
    pub properties: String,
    /// The trees of datasets and snapshots.
    pub trees: BTreeMap<String, Tree>,
}

impl Whole {
    pub fn of(pool: &str) -> Result<Self> {
        let columns = "name,guid,createtxg,origin,userrefs,type";
        let names = sh("zfs", &["list", "-Hpr", "-t", "all", "-o", columns, pool])?;
        let sources = ["get", "-Hpr", "-s", "local,received", "-o", "name,property,value", "all"];
        let properties = sh("zfs", &[&sources[..], &[pool]].concat())?;
        let mut trees = BTreeMap::new();
        for line in names.lines().filter(|line| !line.ends_with("bookmark")) {
            let name = line.split('\t').next().unwrap_or_default();
            let inside = fs::read_to_string("/proc/self/mounts")?
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>())
                .find_map(|words| (words[0] == name).then(|| PathBuf::from(words[1])));
            let found = match inside {
                Some(at) => capture(&at)?,
                None => tree(name)?,
            };
            trees.insert(name.to_owned(), found);
        }
        Ok(Self { names, properties, trees })
    }

    /// Demands that another is the same to the last byte, the tool's own directory included.
    pub fn must_be(&self, other: &Self) -> Result<()> {
        ensure!(self.names == other.names, "was\n{}\nis\n{}", other.names, self.names);
        ensure!(self.properties == other.properties, "{}\n{}", other.properties, self.properties);
        for (name, tree) in &self.trees {
            let lines = difference::lines(&tree.diff_with(&other.trees[name], &Compare::all()));
            ensure!(lines.is_empty(), "{name} was changed:\n{lines}");
        }
        Ok(())
    }
}
