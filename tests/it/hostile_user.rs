//! Whatever a user does to what they own: `check`, `reset` and `purge` end well, and what is persisted
//! is what it was. Rounds are made up from seeds and really done as uid 1000 (`common/user.rs`).
//!
//! `DARLINGS_ROUNDS=5000 cargo test --test it hostile_user::` tries that many, from `DARLINGS_SEED` on
//! where it is set. A failure prints the seed, with which one round repeats it, and the deeds.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::changes::Noise;
use crate::common::user::{self, Means, USER};
use crate::common::{encryption, persist_tables, put, quoted};
use anyhow::{Context as _, Result, ensure};
use darlings::fs::at;
use darlings_btrfs as btrfs;
use darlings_testkit::loopfs::{Filesystem, LoopFs, Options, run};
use darlings_testkit::model::Rule;
use darlings_testkit::tree::Kind;
use darlings_testkit::{
    Attribute, Compare, RelPath, Tree, capability, capture, difference, plant, remove, skip_unless,
};

/// Directories that belong to the user, in directories that do not.
const HOMES: [&str; 3] = ["home/mia", "var/spool/mia", "srv/box"];

/// What is persisted.
const PERSISTED: [(&str, &str); 8] = [
    ("etc/machine-id", ""),
    ("home/mia/docs", ""),
    ("home/mia/mail", "cache"),
    ("home/mia/mail/cache/inner", ""),
    ("home/mia/.local/share/keyrings", ""),
    ("home/mia/a/b/c/d", ""),
    ("var/spool/mia", ""),
    ("srv/box/file", ""),
];

/// Rounds of each kind where nobody says how many.
const USUAL: u64 = 24;

fn number(variable: &str) -> Result<Option<u64>> {
    match std::env::var(variable) {
        Ok(text) => Ok(Some(text.parse().with_context(|| format!("{variable} is no number"))?)),
        Err(_) => Ok(None),
    }
}

/// What is at a persisted path, with the subvolumes in it.
#[derive(Debug)]
enum Kept {
    /// Nothing that can be reached without following a link.
    Nothing,
    /// Something other than a directory, in words.
    Other(String),
    /// A directory and what is in it: each subvolume by its path, the first one as an empty one.
    Directory(Vec<(PathBuf, bool, Tree)>),
}

fn kept_at(live: BorrowedFd<'_>, path: &Path) -> Result<Kept> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Kept::Nothing);
    };
    let Some(above) = at::directory_beneath(live, above)? else { return Ok(Kept::Nothing) };
    let name = at::c_name(name)?;
    let Some(status) = at::present(at::status(above.as_fd(), &name))? else {
        return Ok(Kept::Nothing);
    };
    if at::kind(&status) == rustix::fs::FileType::Directory {
        let mut found = Vec::new();
        directory(&at::open_directory(above.as_fd(), &name)?, Path::new(""), &mut found)?;
        return Ok(Kept::Directory(found));
    }
    Ok(Kept::Other(format!(
        "{:?} mode {:o} owner {} size {} time {:?}",
        at::kind(&status),
        status.stx_mode,
        status.stx_uid,
        status.stx_size,
        (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
    )))
}

fn directory(root: &OwnedFd, path: &Path, found: &mut Vec<(PathBuf, bool, Tree)>) -> Result<()> {
    let status = at::status_of(root.as_fd())?;
    let is_subvolume = btrfs::is_btrfs(root)?
        && btrfs::entry_kind(status.stx_ino) == btrfs::EntryKind::SubvolumeRoot;
    let read_only = is_subvolume && btrfs::is_read_only(root)?;
    // Longer paths than the kernel takes lead there.
    let tree = capture(&PathBuf::from(format!("/proc/self/fd/{}/.", root.as_raw_fd())))?;
    let inside: Vec<RelPath> = tree
        .entries
        .iter()
        .filter(|(below, entry)| entry.kind == Kind::Subvolume && !below.is_root())
        .map(|(below, _)| below.clone())
        .collect();
    found.push((path.to_owned(), read_only, tree));
    for below in inside {
        let relative = below.below(Path::new(""));
        let opened = at::open_beneath(root.as_fd(), &relative)?;
        directory(&opened, &path.join(relative), found)?;
    }
    Ok(())
}

/// What is different at a persisted path that was there.
fn differences(before: &Kept, after: &Kept, excluded: &str) -> Result<String> {
    Ok(match (before, after) {
        (Kept::Nothing, _) => String::new(),
        (Kept::Other(one), Kept::Other(two)) if one == two => String::new(),
        (Kept::Directory(one), Kept::Directory(two)) => {
            let mut compare = Compare::all();
            if !excluded.is_empty() {
                let path = RelPath::normalise(excluded).map_err(anyhow::Error::msg)?;
                compare = compare.leaving_out(path).without(Attribute::HardLinks);
            }
            let erased = |(path, ..): &&(PathBuf, bool, Tree)| {
                excluded.is_empty() || !path.starts_with(excluded)
            };
            let (one, two): (Vec<_>, Vec<_>) =
                (one.iter().filter(erased).collect(), two.iter().filter(erased).collect());
            let paths = |all: &[&(PathBuf, bool, Tree)]| -> Vec<(PathBuf, bool)> {
                all.iter().map(|(path, read_only, _)| (path.clone(), *read_only)).collect()
            };
            let mut told = Vec::new();
            if paths(&one) != paths(&two) {
                told.push(format!("subvolumes {:?} != {:?}", paths(&one), paths(&two)));
            }
            for ((path, _, one), (_, _, two)) in one.iter().zip(&two) {
                let (one, two) = (without_stubs(one, one), without_stubs(two, one));
                let lines = difference::lines(&one.diff_with(&two, &compare));
                if !lines.is_empty() {
                    told.push(format!("in {path:?}: {lines}"));
                }
            }
            told.join("\n")
        }
        (one, two) => format!("{one:?} != {two:?}"),
    })
}

/// A stub is an empty directory that belongs to nobody; a copy of one is an ordinary directory.
fn without_stubs(tree: &Tree, before: &Tree) -> Tree {
    let mut tree = tree.clone();
    let is_stub =
        |path: &RelPath| before.get(path).is_some_and(|entry| entry.kind == Kind::SubvolumeStub);
    tree.entries.retain(|path, _| !is_stub(path));
    tree
}

/// A filesystem on which round after round is tried.
struct Ground {
    fs: LoopFs,
    filesystem: Filesystem,
    /// Empty for a plain directory.
    strategy: &'static str,
    /// What this round's user has; [`Means::key`] in every round where the filesystem encrypts.
    means: Means,
    /// The key of the user, and whether the user has taken it away.
    key: Option<String>,
    is_locked: bool,
}

/// What the administrator allows a home to take, where there is a quota.
const QUOTA: &str = "1M";

impl Ground {
    fn new(filesystem: Filesystem, strategy: &'static str) -> Result<Self> {
        let mut options = Options::new(filesystem).size(2 << 30);
        let mut means = Means::default();
        if filesystem == Filesystem::Btrfs {
            options = options.mount("subvolid=5");
            means.subvolumes = true;
        }
        if filesystem == Filesystem::Ext4 && encryption::can_encrypt().is_ok() {
            options.mkfs.extend(["-O".to_owned(), "encrypt".to_owned()]);
            means.key = Some(&encryption::KEY);
        }
        let fs = LoopFs::with(options)?;
        let ground = Self { fs, filesystem, strategy, means, key: None, is_locked: false };
        let blank = ground.at("@blank");
        Ground::make_volume(&blank, ground.has_strategy())?;
        put(&blank, "etc/os-release", "of the blank")?;
        put(&blank, "home/mia/docs/of-the-blank", "of the blank")?;
        Ok(ground)
    }

    /// Whether the volume is one of btrfs, and no plain directory.
    fn has_strategy(&self) -> bool {
        !self.strategy.is_empty()
    }

    fn is_btrfs(&self) -> bool {
        self.filesystem == Filesystem::Btrfs
    }

    fn at(&self, path: &str) -> PathBuf {
        self.fs.path().join(path)
    }

    fn top(&self) -> Result<OwnedFd> {
        Ok(std::fs::File::open(self.fs.path())?.into())
    }

    /// The live volume; a plain directory on btrfs is in a subvolume, with which all of it goes.
    fn live_path(&self) -> PathBuf {
        self.at(if self.is_btrfs() && !self.has_strategy() { "around/@" } else { "@" })
    }

    fn live(&self) -> Result<OwnedFd> {
        Ok(std::fs::File::open(self.live_path())?.into())
    }

    fn make_volume(at: &Path, subvolume: bool) -> Result<()> {
        if subvolume {
            let (above, name) = (at.parent().context("no parent")?, at.file_name());
            let above = std::fs::File::open(above)?;
            return Ok(btrfs::create_subvolume(above, name.context("no name")?)?);
        }
        Ok(std::fs::create_dir(at)?)
    }

    /// The live volume as on the first day, and no generations; what the user has is up to the seed.
    fn begin(&mut self, noise: &mut Noise, log: &mut Vec<String>) -> Result<()> {
        self.clean()?;
        self.means.root = noise.below(3) == 0;
        self.means.quota = self.has_strategy() && noise.below(4) == 0;
        log.push(format!("{:?}", self.means));
        let live = self.live_path();
        let root = if self.means.root { USER } else { 0 };
        if self.has_strategy() {
            plant::owner(&self.at("@blank"), root, root)?;
            let blank = std::fs::File::open(self.at("@blank"))?;
            btrfs::snapshot(blank, self.top()?, "@".as_ref(), btrfs::Access::Writable)?;
        } else {
            if self.is_btrfs() {
                Self::make_volume(&self.at("around"), true)?;
            }
            Self::make_volume(&live, self.is_btrfs() && noise.below(2) == 0)?;
            plant::owner(&live, root, root)?;
            put(&live, "etc/os-release", "of the blank")?;
        }
        if self.means.quota {
            self.limit(&live.join("home/mia"))?;
        }
        put(&live, "etc/machine-id", "0123456789abcdef")?;
        put(&live, "junk", "erased")?;
        for (path, _) in &PERSISTED[1..7] {
            put(&live, &format!("{path}/kept"), path)?;
            put(&live, &format!("{path}/below/kept"), path)?;
        }
        put(&live, "home/mia/mail/cache/junk", "erased")?;
        put(&live, "srv/box/file", "kept")?;
        for home in HOMES {
            owned(&live.join(home))?;
        }
        Ok(())
    }

    /// Makes a home a subvolume that may take no more than [`QUOTA`].
    fn limit(&self, home: &Path) -> Result<()> {
        std::fs::remove_dir_all(home)?;
        Self::make_volume(home, true)?;
        let ask = |arguments: &[&str]| {
            run(Command::new("btrfs").args(arguments).arg(self.fs.path())).map(drop)
        };
        ask(&["quota", "enable"])?;
        ask(&["quota", "rescan", "-w"])?;
        let group = format!("0/{}", btrfs::subvolume_id(std::fs::File::open(home)?)?);
        ask(&["qgroup", "limit", QUOTA, &group])
    }

    fn clean(&mut self) -> Result<()> {
        if !self.is_btrfs() {
            if self.at("@").exists() {
                self.unlocked(|| remove::all(&self.at("@")))?;
            }
            return Ok(());
        }
        let top = self.top()?;
        if self.means.quota {
            run(Command::new("btrfs").args(["quota", "disable"]).arg(self.fs.path()))?;
            self.means.quota = false;
        }
        for nested in btrfs::nested_subvolumes(&top)? {
            let is_one = ["@", "around"].iter().any(|one| nested.path == Path::new(one));
            if is_one || nested.path.parent() == Some(Path::new("@darlings/root")) {
                btrfs::delete_subvolume_recursive(&top, nested.id)?;
            }
        }
        let generations = self.at("@darlings");
        if generations.exists() {
            std::fs::remove_dir_all(generations)?;
        }
        Ok(())
    }

    fn config(&self, left_out: Option<&str>) -> Result<PathBuf> {
        let place = if self.has_strategy() {
            format!(
                "strategy = {}\nbtrfs = {{ device = {}, subvolume = \"@\", blank = \"@blank\" }}",
                quoted(self.strategy),
                quoted(&self.fs.device().display().to_string()),
            )
        } else {
            let path = |path: &Path| quoted(&path.display().to_string());
            let (live, blank) = (self.live_path(), self.at("@blank"));
            format!("dir = {{ path = {}, blank = {} }}", path(&live), path(&blank))
        };
        let rules = PERSISTED.iter().filter(|(path, _)| Some(*path) != left_out);
        let rules: Vec<Rule> = rules
            .map(|(path, excluded)| {
                let excluded: &[&str] = if excluded.is_empty() { &[] } else { &[excluded] };
                Rule::new(&format!("/{path}"), excluded).map_err(anyhow::Error::msg)
            })
            .collect::<Result<_>>()?;
        let volume = "[[volume]]\nmount_point = \"/\"\nkeep = { generations = 1 }";
        let text = format!("{volume}\n{place}\n{}", persist_tables(&rules));
        let at = self.fs.holder().join("darlings.toml");
        std::fs::write(&at, text)?;
        Ok(at)
    }

    /// Runs a command of the binary, which must end well.
    fn ran(&self, word: &str, config: &Path, line: &str) -> Result<()> {
        let (cmdline, report) =
            (self.fs.holder().join("cmdline"), self.fs.holder().join("report.json"));
        std::fs::write(&cmdline, line)?;
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "300", env!("CARGO_BIN_EXE_darlings"), word, "--config"]);
        command.arg(config).env_remove("JOURNAL_STREAM");
        match word {
            "reset" => {
                command.arg("--cmdline").arg(cmdline).arg("--report").arg(&report);
            }
            "check" => {
                command.args(["--json", "--fstab", "/dev/null", "--cmdline"]).arg(cmdline);
            }
            _ => {}
        }
        let output = command.output()?;
        let only_loses = word == "check" && only_loses(&output.stdout)?;
        ensure!(
            output.status.code() == Some(0) || only_loses,
            "{word} {line}: {:?}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if word == "reset" {
            let _: serde_json::Value = serde_json::from_slice(&std::fs::read(report)?)?;
        }
        Ok(())
    }

    /// Does something while the key of the user is there.
    fn unlocked<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(key) = self.key.as_ref().filter(|_| self.is_locked) else { return act() };
        let top = self.top()?;
        encryption::load(&encryption::KEY, &top)?;
        let done = act();
        encryption::unload(key, &top)?;
        done
    }

    fn kept(&self) -> Result<Vec<Kept>> {
        self.unlocked(|| {
            let live = self.live()?;
            let kept = PERSISTED.iter().map(|(path, _)| {
                kept_at(live.as_fd(), Path::new(path)).with_context(|| format!("at {path}"))
            });
            kept.collect()
        })
    }

    /// What the user does, and what is persisted after it. Then the key may be taken away.
    fn acts(&mut self, seed: u64, log: &mut Vec<String>) -> Result<Vec<Kept>> {
        let live = self.live()?;
        let mut homes = Vec::new();
        if self.means.root {
            homes.push(live.try_clone()?);
        }
        for home in HOMES {
            // One that was replaced by a link, say, has gone with the generation.
            homes.extend(at::directory_beneath(live.as_fd(), Path::new(home))?);
        }
        let Some(home) = homes.first() else { return self.kept() };
        let home = home.try_clone()?;
        log.extend(user::acts(seed, homes, self.means)?);
        self.is_locked = false;
        let kept = self.kept()?;
        if let Some(key) = self.means.key {
            // Loaded again, it is still one, which is the user's.
            let is_locked = !seed.is_multiple_of(3);
            self.key = Some(user::as_user(move || {
                let name = encryption::load(key, &home)?;
                if is_locked {
                    encryption::unload(&name, &home)?;
                }
                Ok(name)
            })?);
            self.is_locked = is_locked;
            log.push(format!("locked {is_locked}"));
        }
        Ok(kept)
    }

    /// What a reset erases.
    fn junk(&self) -> Result<()> {
        let live = self.live()?;
        // The user can have made the volume itself read-only.
        let is_subvolume = btrfs::is_btrfs(&live)?
            && btrfs::entry_kind(at::status_of(live.as_fd())?.stx_ino)
                == btrfs::EntryKind::SubvolumeRoot;
        if is_subvolume && btrfs::is_read_only(&live)? {
            return Ok(());
        }
        put(&self.live_path(), "junk", "erased")
    }

    fn same(&self, before: &[Kept], when: &str) -> Result<()> {
        let after = self.kept()?;
        let mut told = Vec::new();
        for (((path, excluded), before), after) in PERSISTED.iter().zip(before).zip(&after) {
            let different = differences(before, after, excluded)?;
            if !different.is_empty() {
                told.push(format!("{path}: {different}"));
            }
        }
        ensure!(
            told.is_empty(),
            "{when}, what is persisted is not what it was:\n{}",
            told.join("\n")
        );
        ensure!(
            !when.ends_with("reset") || !self.live_path().join("junk").exists(),
            "{when}, it was not reset"
        );
        Ok(())
    }

    fn round(&mut self, seed: u64, log: &mut Vec<String>) -> Result<()> {
        let mut noise = Noise(seed);
        self.begin(&mut noise, log).context("cannot begin")?;
        let before = self.acts(seed ^ (1 << 40), log)?;
        let all = self.config(None)?;
        match noise.below(6) {
            // A list that lacks a path puts it away, and the next one brings it back.
            0 => {
                let left_out = PERSISTED[1 + noise.below(7)].0;
                log.push(format!("a reset without {left_out}"));
                self.ran("reset", &self.config(Some(left_out))?, "")?;
                let all = self.config(None)?;
                self.ran("check", &all, "")?;
                self.ran("reset", &all, "")?;
            }
            1 if self.has_strategy() => {
                log.push("a reset, and a restore".to_owned());
                self.ran("reset", &all, "")?;
                self.same(&before, "after the first reset")?;
                self.junk()?;
                self.ran("reset", &all, "darlings=restore:previous")?;
                self.ran("reset", &all, "")?;
            }
            2 if self.has_strategy() => {
                log.push("a snapshot, and a reset".to_owned());
                self.ran("reset", &all, "darlings=snapshot")?;
                self.ran("check", &all, "")?;
                self.ran("reset", &all, "")?;
                self.same(&before, "after the reset")?;
            }
            _ => {
                self.ran("check", &all, "")?;
                self.ran("reset", &all, "")?;
                self.same(&before, "after the first reset")?;
                log.push("-- and then".to_owned());
                self.junk()?;
                let before = self.acts(seed ^ (2 << 40), log)?;
                if noise.below(3) == 0 {
                    log.push("a purge before the reset".to_owned());
                    self.ran("purge", &all, "")?;
                    self.same(&before, "after the first purge")?;
                }
                self.ran("reset", &all, "")?;
                self.same(&before, "after the second reset")?;
            }
        }
        let before = self.kept()?;
        self.ran("purge", &all, "")?;
        self.same(&before, "after the purge")
    }
}

/// Whether a check finds nothing wrong but persisted paths to which links lead, which are not followed.
fn only_loses(report: &[u8]) -> Result<bool> {
    let report: serde_json::Value = serde_json::from_slice(report)?;
    let volume = &report["volumes"][0];
    let problems = volume["problems"].as_array().context("no problems")?;
    let lost = |it: &serde_json::Value| {
        it.as_str().is_some_and(|text| text.contains("which is not followed"))
    };
    Ok(report["error"].is_null() && problems.iter().all(lost))
}

/// Gives everything below a directory to the user.
fn owned(at: &Path) -> Result<()> {
    plant::owner(at, USER, USER)?;
    if at.is_dir() {
        for entry in std::fs::read_dir(at)? {
            owned(&entry?.path())?;
        }
    }
    Ok(())
}

fn rounds(filesystem: Filesystem, strategy: &'static str) -> Result<()> {
    let mut ground = Ground::new(filesystem, strategy)?;
    let first = number("DARLINGS_SEED")?.unwrap_or(0);
    let count = number("DARLINGS_ROUNDS")?.unwrap_or(USUAL);
    let go_on = std::env::var_os("DARLINGS_GO_ON").is_some();
    let mut failed = Vec::new();
    for seed in first..first + count {
        let mut log = Vec::new();
        if let Err(error) = ground.round(seed, &mut log) {
            let told = format!(
                "{filesystem} {strategy}: DARLINGS_SEED={seed} DARLINGS_ROUNDS=1\n{}\n{error:#}",
                log.join("\n")
            );
            ensure!(go_on, "{told}");
            eprintln!("{told}\n");
            failed.push(seed);
        }
        if seed % 100 == 99 {
            eprintln!("{filesystem} {strategy}: {} rounds", seed + 1 - first);
        }
    }
    ensure!(failed.is_empty(), "{} of {count} rounds failed: {failed:?}", failed.len());
    ground.clean()?;
    ground.fs.close()
}

#[test]
fn nothing_that_a_user_does_stops_carry_on_btrfs() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    rounds(Filesystem::Btrfs, "carry")
}

#[test]
fn nothing_that_a_user_does_stops_rollback_on_btrfs() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    rounds(Filesystem::Btrfs, "rollback")
}

#[test]
fn nothing_that_a_user_does_stops_a_directory_on_btrfs() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    rounds(Filesystem::Btrfs, "")
}

#[test]
fn nothing_that_a_user_does_stops_a_directory_on_ext4() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    rounds(Filesystem::Ext4, "")
}

#[test]
fn nothing_that_a_user_does_stops_a_directory_on_xfs() -> Result<()> {
    skip_unless!(capability::root_and_xfs(), Ok(()));
    rounds(Filesystem::Xfs, "")
}
