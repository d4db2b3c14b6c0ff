//! A reset of a plain directory that is killed, that fails or whose power is cut at any of its calls,
//! on ext4 and XFS: the next run gives the result, and nothing that is kept is lost.

use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::directory::{Volume, command, config_at, leftovers, names, on_both, ran};
use crate::common::{self, strace};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{self, Filesystem, run};
use darlings_testkit::{Tree, capability, capture, skip_unless};

/// The changing calls of a reset that makes every kind of move.
fn points(filesystem: Filesystem) -> Result<Vec<(String, u32)>> {
    let (volume, _) = Volume::experienced(filesystem)?;
    let points = volume.points()?;
    volume.close()?;
    Ok(points)
}

/// That nothing is lost which is no longer declared.
fn check_attic(live: &Path) -> Result<()> {
    let attic = live.join(".darlings/attic");
    let stored = std::fs::read_to_string(attic.join("3/var/formerly/file"))
        .context("the attic has lost what is no longer declared")?;
    ensure!(stored == "kept" && names(&attic, &[])? == ["2", "2.json", "3", "3.json"]);
    Ok(())
}

#[test]
fn killed_at_any_call_and_killed_again_while_recovering_the_next_run_gives_the_result() -> Result<()>
{
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        let points = points(filesystem)?;
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
fn a_directory_that_is_half_moved_is_not_called_as_it_was_and_needs_no_blank_to_be_completed()
-> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let (volume, expected) = Volume::experienced(Filesystem::Ext4)?;
    let killed = volume.inject("renameat2", "signal=SIGKILL", 3)?;
    ensure!(killed.code != Some(0), "it went on");
    volume.fs.remount_read_only()?;
    let ran = volume.run(&[])?;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let told = format!(
        "error: not all volumes were reset: / is between the previous state and the result (every \
         persisted path is safe; running `darlings reset` again completes it; do not use it \
         before): /: {:?} is mounted read-only; mount it writable before the reset",
        volume.live()
    );
    assert_eq!(ran.stderr.lines().last(), Some(told.as_str()));
    volume.fs.remount_writable()?;

    let blank = volume.fs.path().join("blank");
    std::fs::rename(&blank, volume.fs.path().join("elsewhere"))?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    assert_eq!(volume.leftovers()?, Vec::<String>::new());
    volume.close()
}

#[test]
fn a_call_that_fails_is_undone_to_the_last_attribute_or_completed_by_the_next_run() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let points = points(Filesystem::Ext4)?;
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
        if became == "undone" {
            let left = volume.leftovers()?;
            ensure!(left.is_empty(), "{}: left {left:?}: {}", context(), failed.stderr);
        }
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
    // What follows the noting that it is complete is no `renameat`.
    let calls = points(Filesystem::Ext4)?;
    let complete = calls.iter().filter(|(call, _)| call == "renameat").count();
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
        let command = command.process_group(0);
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
        let options = if self.is_xfs()? { "loop,noatime,nouuid" } else { "loop,noatime" };
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
        let points = points(filesystem)?;
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
