//! Plain directories on ext4 and XFS: the same rules by the same moves, in place, whatever
//! interrupts them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use common::{put, quoted, strace};
use darlings_testkit::loopfs::{self, Filesystem, LoopFs, Options, run};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{Attribute, RelPath, Tree, capability, capture, plant, skip_unless};

/// A directory with a blank beside it, on a filesystem of its own.
struct Volume {
    fs: LoopFs,
    rules: Vec<Rule>,
}

/// How a run ended.
struct Ran {
    code: Option<i32>,
    stderr: String,
}

impl Volume {
    /// A volume of which a reset makes every kind of move.
    fn new(filesystem: Filesystem) -> Result<Self> {
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
    fn experienced(filesystem: Filesystem) -> Result<(Self, Tree)> {
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

    fn live(&self) -> PathBuf {
        self.fs.path().join("live")
    }

    fn tree(&self) -> Result<Tree> {
        capture(&self.live())
    }

    fn expected(&self) -> Result<Tree> {
        let blank = capture(&self.fs.path().join("blank"))?;
        Ok(model::expected(&blank, &self.tree()?, &self.rules)?.tree)
    }

    fn config(&self) -> Result<PathBuf> {
        config_at(self.fs.path(), &self.fs.holder().join("darlings.toml"), &self.rules, "")
    }

    /// `darlings` with these arguments, in a `/run` of its own, which goes with it.
    fn command(&self, wrapper: &[&str], arguments: &[&str]) -> Result<Command> {
        Ok(command(wrapper, arguments, &self.config()?))
    }

    fn run(&self, wrapper: &[&str]) -> Result<Ran> {
        ran(self.command(wrapper, &["reset", "--threads", "1"])?)
    }

    /// Resets with something injected into the `when`th call of a kind.
    fn inject(&self, call: &str, what: &str, when: u32) -> Result<Ran> {
        let (trace, inject) =
            (format!("trace={call}"), format!("inject={call}:{what}:when={when}"));
        self.run(&["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject])
    }

    fn reset(&self) -> Result<()> {
        let ran = self.run(&[])?;
        ensure!(ran.code == Some(0), "{:?}: {}", ran.code, ran.stderr);
        Ok(())
    }

    /// Everything in the tool's own directory but what is kept for good.
    fn leftovers(&self) -> Result<Vec<String>> {
        leftovers(&self.live())
    }

    /// The changing calls that a reset makes, in order: which one, and how often it was made before.
    fn points(&self) -> Result<Vec<(String, u32)>> {
        let log = self.fs.holder().join("strace");
        let trace = format!("--trace={}", strace::CHANGING.join(","));
        let ran = self.run(&["strace", "-f", "-qqq", "-o", log.to_str().unwrap(), &trace])?;
        ensure!(ran.code == Some(0), "{}", ran.stderr);
        let changing = strace::calls(&log)?.into_iter().filter(strace::Call::changes);
        Ok(changing.map(|call| (call.name, call.when)).collect())
    }

    fn close(self) -> Result<()> {
        darlings_testkit::remove::all(&self.live())?;
        self.fs.close()
    }
}

fn config_at(top: &Path, at: &Path, rules: &[Rule], more: &str) -> Result<PathBuf> {
    let text_of = |path: &RelPath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    let path = |name: &str| quoted(&top.join(name).display().to_string());
    let mut text = format!(
        "[[volume]]\nmount_point = \"/\"\ndir = {{ path = {}, blank = {} }}\n{more}\n",
        path("live"),
        path("blank"),
    );
    for rule in rules {
        let excludes: Vec<_> = rule.excludes.iter().map(|path| quoted(&text_of(path))).collect();
        let path = quoted(&format!("/{}", text_of(&rule.path)));
        text.extend([format!("[[persist]]\npath = {path}\nexclude = [{}]\n", excludes.join(", "))]);
    }
    std::fs::write(at, text)?;
    Ok(at.to_path_buf())
}

fn command(wrapper: &[&str], arguments: &[&str], config: &Path) -> Command {
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

fn ran(mut command: Command) -> Result<Ran> {
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Ran { code: output.status.code(), stderr })
}

fn leftovers(live: &Path) -> Result<Vec<String>> {
    names(&live.join(".darlings"), &["attic", "generation", "generations", "manifest"])
}

/// That nothing is lost which is no longer declared.
fn check_attic(live: &Path) -> Result<()> {
    let attic = live.join(".darlings/attic");
    let stored = std::fs::read_to_string(attic.join("3/var/formerly/file"))?;
    ensure!(stored == "kept" && names(&attic, &[])? == ["2", "2.json", "3", "3.json"]);
    Ok(())
}

fn names(directory: &Path, without: &[&str]) -> Result<Vec<String>> {
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

const BOTH: [Filesystem; 2] = [Filesystem::Ext4, Filesystem::Xfs];

fn on_both(check: impl Fn(Filesystem) -> Result<()>) -> Result<()> {
    for filesystem in BOTH {
        check(filesystem).with_context(|| format!("on {filesystem}"))?;
    }
    Ok(())
}

#[test]
fn a_directory_is_reset_by_moving_and_what_was_moved_aside_is_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        let volume = Volume::new(filesystem)?;
        let expected = volume.expected()?;
        volume.reset()?;
        let result = volume.tree()?;
        assert_eq!(result.diff_lines(&expected), "");
        assert_eq!(volume.leftovers()?, Vec::<String>::new());
        let generation = volume.live().join(".darlings/generations/1/root");
        let kept = capture(&generation)?;
        let paths: Vec<String> = kept.entries.keys().map(ToString::to_string).collect();
        assert_eq!(
            paths,
            [
                ".",
                "etc",
                "etc/erased",
                "keep",
                "keep/below",
                "keep/below/.cache",
                "keep/below/.cache/erased",
                "locked-clutter",
                "locked-clutter/file",
            ]
        );
        assert!(
            kept.at("locked-clutter")
                .unwrap()
                .flags
                .attributes()
                .any(|it| it == Attribute::Immutable)
        );
        assert_eq!(std::fs::read_to_string(generation.join("etc/erased"))?, "erased");

        // Again: nothing is there to be erased.
        volume.reset()?;
        assert_eq!(volume.tree()?.diff_lines(&expected), "");
        let generations = volume.live().join(".darlings/generations");
        assert_eq!(names(&generations, &[])?, ["1", "2"]);
        volume.close()
    })
}

#[test]
fn killed_at_any_call_and_killed_again_while_recovering_the_next_run_gives_the_result() -> Result<()>
{
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        let points = {
            let (volume, _) = Volume::experienced(filesystem)?;
            let points = volume.points()?;
            volume.close()?;
            points
        };
        let stride = strace::stride(if filesystem == Filesystem::Ext4 { 7 } else { 17 })?;
        for (number, (call, when)) in points.iter().enumerate().skip(2).step_by(stride) {
            let context = || format!("killed at {call} {when}, the {number}th");
            let (volume, expected) = Volume::experienced(filesystem)?;
            let killed = volume.inject(call, "signal=SIGKILL", *when)?;
            ensure!(killed.code != Some(0), "{}: it went on", context());
            // Killed once more a little way on, whatever it does by then.
            volume.inject("renameat2", "signal=SIGKILL", 1 + u32::try_from(number)? % 4)?;
            let ran = volume.run(&[]).with_context(context)?;
            ensure!(ran.code == Some(0), "{}: {}", context(), ran.stderr);
            let difference = volume.tree()?.diff_lines(&expected);
            ensure!(difference.is_empty(), "{}:\n{difference}{}", context(), ran.stderr);
            ensure!(volume.leftovers()?.is_empty(), "{}: {:?}", context(), volume.leftovers()?);
            check_attic(&volume.live()).with_context(context)?;
            volume.close()?;
        }
        eprintln!(
            "{filesystem}: killed twice at {} of {} calls",
            points.len() / stride,
            points.len()
        );
        Ok(())
    })
}

#[test]
fn a_call_that_fails_is_undone_to_the_last_attribute_or_completed_by_the_next_run() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let points = {
        let (volume, _) = Volume::experienced(Filesystem::Ext4)?;
        let points = volume.points()?;
        volume.close()?;
        points
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let stride = strace::stride(5)?;
    for (call, when) in points.iter().step_by(stride) {
        let context = || format!("EIO at {call} {when}");
        let (volume, expected) = Volume::experienced(Filesystem::Ext4)?;
        let previous = volume.tree()?;
        let failed = volume.inject(call, "error=EIO", *when)?;
        let now = volume.tree()?;
        let (undone, done) = (now.diff_lines(&previous), now.diff_lines(&expected));
        let became = match (failed.code, undone.is_empty(), done.is_empty()) {
            // To the last attribute.
            (Some(10), true, false) => "undone",
            (Some(10), false, true) => "complete, and not tidy",
            (Some(0), false, true) => "complete, as nothing that matters failed",
            (Some(1), ..) => "unfinished",
            (code, ..) => {
                anyhow::bail!("{}: {code:?}\n{undone}\nor\n{done}{}", context(), failed.stderr)
            }
        };
        *seen.entry(became).or_insert(0) += 1;
        volume.reset().with_context(|| format!("{}; first:\n{}", context(), failed.stderr))?;
        let difference = volume.tree()?.diff_lines(&expected);
        ensure!(difference.is_empty(), "after {}:\n{difference}", context());
        check_attic(&volume.live()).with_context(context)?;
        volume.close()?;
    }
    eprintln!("EIO at {} calls: {seen:?}", points.len().div_ceil(stride));
    assert!(seen["undone"] > 10 && seen["complete, and not tidy"] > 0, "{seen:?}");
    Ok(())
}

#[test]
fn killed_while_it_is_undone_the_next_run_gives_the_result() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    // The last call before the result is complete fails, and then undoing is killed at each rename
    // and at each removal.
    let (mut killed, failing) = (0, "inject=renameat:error=EIO:when=");
    let complete = {
        let (volume, _) = Volume::experienced(Filesystem::Ext4)?;
        let calls = volume.points()?;
        volume.close()?;
        // What follows the noting that it is complete is no `renameat`.
        calls.iter().filter(|(call, _)| call == "renameat").count()
    };
    let points = (14..44).step_by(3).map(|when| ("renameat2", when));
    for (call, when) in points.chain((1..14).step_by(2).map(|when| ("unlinkat", when))) {
        let (volume, expected) = Volume::experienced(Filesystem::Ext4)?;
        let fail = format!("{failing}{complete}");
        let kill = format!("inject={call}:signal=SIGKILL:when={when}");
        let trace = format!("trace=renameat,{call}");
        let wrapper =
            ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &fail, "-e", &kill];
        let ran = volume.run(&wrapper)?;
        killed += usize::from(ran.code.is_none_or(|code| code > 128));
        volume.reset().with_context(|| format!("after {call} {when}: {}", ran.stderr))?;
        let difference = volume.tree()?.diff_lines(&expected);
        ensure!(difference.is_empty(), "{call} {when}:\n{difference}{}", ran.stderr);
        check_attic(&volume.live())?;
        volume.close()?;
    }
    assert!(killed >= 2, "{killed}");
    Ok(())
}

#[test]
fn a_directory_of_the_tools_name_that_is_not_roots_says_nothing_and_is_erased_like_others()
-> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    put(&volume.live(), ".darlings/reset/journal", "planted")?;
    put(&volume.live(), ".darlings/attic/1.json", "planted")?;
    plant::owner(&volume.live().join(".darlings"), 1000, 100)?;
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    assert_eq!(volume.leftovers()?, Vec::<String>::new());
    let aside = volume.live().join(".darlings/generations/1/root/.darlings~1/attic/1.json");
    assert_eq!(std::fs::read_to_string(aside)?, "planted");
    volume.close()
}

/// A process that is stopped, not yet ended, with all that it started.
struct Stopped(Child);

impl Stopped {
    /// Runs until the `when`th call of a kind, which it is stopped in.
    fn at(volume: &Volume, call: &str, when: u32) -> Result<Option<Self>> {
        let (trace, inject) =
            (format!("trace={call}"), format!("inject={call}:signal=SIGSTOP:when={when}"));
        let log = volume.fs.holder().join("stopped");
        common::remove_if_there(&log)?;
        let log = log.to_str().context("odd name")?;
        let wrapper = ["strace", "-f", "-qq", "-o", log, "-e", &trace, "-e", &inject];
        let mut command = volume.command(&wrapper, &["reset", "--threads", "1"])?;
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        loop {
            if std::fs::read_to_string(log).is_ok_and(|log| log.contains("--- stopped by SIGSTOP"))
            {
                return Ok(Some(Self(child)));
            }
            if child.try_wait()?.is_some() {
                return Ok(None);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn kill(mut self) -> Result<()> {
        let group = rustix::process::Pid::from_raw(i32::try_from(self.0.id())?).context("no id")?;
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
        ensure!(self.0.wait()?.signal() == Some(9), "it ended by itself");
        Ok(())
    }
}

/// What is on the disk at this moment, mounted at a directory of its own as after a power cut.
struct Cut<'v> {
    volume: &'v Volume,
    at: PathBuf,
    image: PathBuf,
}

impl<'v> Cut<'v> {
    fn of(volume: &'v Volume) -> Result<Self> {
        let (image, at) = (volume.fs.holder().join("cut.img"), volume.fs.holder().join("cut"));
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(volume.fs.holder().join("image"))
            .arg(&image))?;
        Ok(Self { volume, at, image })
    }

    fn mount(&self) -> Result<()> {
        std::fs::create_dir_all(&self.at)?;
        // The other one, with the same identity, is still mounted.
        let options = if self.is_xfs()? { "loop,nouuid" } else { "loop" };
        run(Command::new("mount").args(["-o", options]).arg(&self.image).arg(&self.at)).map(drop)
    }

    fn is_xfs(&self) -> Result<bool> {
        use std::io::Read as _;
        let mut magic = [0; 4];
        std::fs::File::open(&self.image)?.read_exact(&mut magic)?;
        Ok(&magic == b"XFSB")
    }

    fn check(&self, expected: &Tree) -> Result<()> {
        let at = self.volume.fs.holder().join("cut.toml");
        let config = config_at(&self.at, &at, &self.volume.rules, "")?;
        let ran = ran(command(&[], &["reset"], &config))?;
        ensure!(ran.code == Some(0), "the run after the cut: {:?} {}", ran.code, ran.stderr);
        let live = self.at.join("live");
        let difference = capture(&live)?.diff_lines(expected);
        ensure!(difference.is_empty(), "after the cut:\n{difference}{}", ran.stderr);
        let left = leftovers(&live)?;
        ensure!(left.is_empty(), "left: {left:?}");
        check_attic(&live)
    }

    fn unmount(self) -> Result<()> {
        loopfs::unmount(&self.at)?;
        Ok(std::fs::remove_file(&self.image)?)
    }
}

#[test]
fn after_a_power_cut_at_any_call_the_next_run_gives_the_result() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        let points = {
            let (volume, _) = Volume::experienced(filesystem)?;
            let points = volume.points()?;
            volume.close()?;
            points
        };
        let mut cuts = 0;
        let stride = strace::stride(if filesystem == Filesystem::Ext4 { 9 } else { 17 })?;
        for (number, (call, when)) in points.iter().enumerate().step_by(stride) {
            let (volume, expected) = Volume::experienced(filesystem)?;
            let Some(stopped) = Stopped::at(&volume, call, *when)? else {
                anyhow::bail!("it was not stopped at {call} {when}");
            };
            // Every other time the disk has got everything that was done so far, and else only
            // what the run itself had made durable.
            if number % 2 == 0 {
                rustix::fs::syncfs(std::fs::File::open(volume.fs.path())?)?;
            }
            let cut = Cut::of(&volume)?;
            stopped.kill()?;
            let checked = cut.mount().and_then(|()| cut.check(&expected));
            let unmounted = cut.unmount();
            checked
                .and(unmounted)
                .with_context(|| format!("power cut at {call} {when}, the {number}th"))?;
            volume.close()?;
            cuts += 1;
        }
        eprintln!("{filesystem}: {cuts} power cuts in a reset of {} calls", points.len());
        Ok(())
    })
}

#[test]
fn a_full_filesystem_is_told_and_nothing_is_moved() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    std::fs::write(volume.fs.path().join("blank/large"), vec![7; 4 << 20])?;
    let filled = volume.fs.fill_up()?;
    let previous = volume.tree()?;
    let ran = volume.run(&[])?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    assert_eq!(volume.tree()?.diff_lines(&previous), "");
    std::fs::remove_file(filled)?;
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    volume.close()
}

#[test]
fn generations_of_a_directory_are_listed_and_purged_like_others() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    for number in 1..=3 {
        put(&volume.live(), "clutter", &number.to_string())?;
        volume.reset()?;
    }
    let config = volume.fs.holder().join("keep.toml");
    let keep = "keep = { generations = 1 }";
    config_at(volume.fs.path(), &config, &volume.rules, keep)?;
    let listed = command(&[], &["generations", "--json"], &config).output()?;
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
    let found = listed["volumes"][0]["generations"].as_array().context("no list")?;
    let numbers: Vec<_> = found.iter().map(|it| it["number"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3].map(Some));
    // What reset 1 ended was never made by a reset, so nobody knows its boot.
    assert_eq!(
        found.iter().map(|it| it["boot"].is_string()).collect::<Vec<_>>(),
        [false, true, true]
    );
    assert!(found.iter().all(|it| it["ended"].is_u64()), "{listed}");
    let before = volume.tree()?;
    let purged = ran(command(&[], &["purge"], &config))?;
    assert_eq!(purged.code, Some(0), "{}", purged.stderr);
    let generations = volume.live().join(".darlings/generations");
    assert_eq!(names(&generations, &[])?, ["3"]);
    assert_eq!(std::fs::read_to_string(generations.join("3/root/clutter"))?, "3");
    assert_eq!(volume.tree()?.diff_lines(&before), "");
    volume.close()
}

#[test]
fn a_directory_that_cannot_be_reset_is_named_with_what_to_do() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let mut volume = Volume::new(Filesystem::Ext4)?;
    let live = volume.live();
    let previous = volume.tree()?;
    let refused = |volume: &Volume, told: &str| -> Result<()> {
        let ran = volume.run(&[])?;
        assert_eq!(ran.code, Some(10));
        let last = ran.stderr.lines().last().context("nothing was said")?;
        assert_eq!(last, format!("error: no volume was reset; all are as they were: /: {told}"));
        Ok(())
    };
    volume.fs.remount_read_only()?;
    let told = format!("{live:?} is mounted read-only; mount it writable before the reset");
    refused(&volume, &told)?;
    volume.fs.remount_writable()?;
    let below = volume.fs.mount_at("mounted/live/etc", "")?;
    let told = format!(
        "something is mounted at {below:?}; a volume is reset before others are mounted on it: \
         unmount it, or let the reset run earlier"
    );
    refused(&volume, &told)?;
    volume.fs.remount_fresh()?;
    assert_eq!(volume.tree()?.diff_lines(&previous), "");
    std::fs::rename(volume.fs.path().join("blank"), volume.fs.path().join("elsewhere"))?;
    let blank = volume.fs.path().join("blank");
    refused(
        &volume,
        &format!("cannot open the directory {blank:?}: No such file or directory (os error 2)"),
    )?;
    assert_eq!(volume.tree()?.diff_lines(&previous), "");
    volume.close()
}

#[test]
fn a_small_filesystem_is_enough_to_keep_large_files() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let fs = LoopFs::with(Options::new(Filesystem::Ext4).size(64 << 20))?;
    for name in ["blank", "live"] {
        std::fs::create_dir(fs.path().join(name))?;
    }
    // More than half of it: nothing could be copied.
    std::fs::write(fs.path().join("live/keep"), vec![1; 40 << 20])?;
    let rules = vec![Rule::new("/keep", &[]).map_err(anyhow::Error::msg)?];
    let volume = Volume { fs, rules };
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    volume.close()
}
