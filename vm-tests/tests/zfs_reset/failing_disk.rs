//! A disk that fails below a pool, by device-mapper. ZFS then suspends the pool, and what writes to it
//! waits or gets an error, until the disk is back and `zpool clear` is said, or the power is cut.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::guest::{checks, in_guest};
use crate::interrupted;
use crate::machine::{Strategy, reset, reset_command};
use crate::pools::{POOL, Whole, change, create_pool_on, export, patiently, sh};
use crate::power_cuts::{Known, recovers};

#[test]
fn a_disk_that_fails_below_a_pool_costs_nothing_that_is_kept() -> Result<()> {
    in_guest(
        "failing_disk::a_disk_that_fails_below_a_pool_costs_nothing_that_is_kept",
        checks![
            a_kept_file_that_cannot_be_read_is_kept_as_it_is,
            a_pool_that_is_suspended_is_left_alone,
            a_disk_that_takes_no_writes_from_a_moment_of_a_rollback_on,
            a_disk_that_takes_no_writes_from_a_moment_of_a_carry_on,
        ],
    )
}

const DISK: &str = "/dev/vda";
/// The same disk, which fails when it is told to.
const BAD: &str = "/dev/mapper/bad";
const MEBIBYTES: u64 = 96;
const SECTORS: u64 = MEBIBYTES * 2048;
/// Emulated, on a computer that is busy with other things.
const LIMIT: Duration = Duration::from_secs(300);

fn whole_disk() -> String {
    format!("0 {SECTORS} linear {DISK} 0")
}

fn no_writes() -> String {
    format!("0 {SECTORS} flakey {DISK} 0 0 3600 1 error_writes")
}

/// The initrd has no udev rules that would say that a device is made: nobody waits for them.
fn dmsetup(arguments: &[&str]) -> Result<()> {
    sh("env", &[&["DM_DISABLE_UDEV=1", "dmsetup"], arguments].concat()).map(drop)
}

/// What the disk is from now on.
fn disk_is(table: &str) -> Result<()> {
    dmsetup(&["suspend", "--noflush", "--nolockfs", "bad"])?;
    dmsetup(&["reload", "bad", "--table", table])?;
    dmsetup(&["resume", "bad"])
}

/// A pool on a disk that can fail, while something is done with it.
fn with_disk(failmode: &str, action: impl FnOnce() -> Result<()>) -> Result<()> {
    sh("modprobe", &["-a", "dm-flakey", "loop"])?;
    dmsetup(&["create", "bad", "--table", &whole_disk()])?;
    let failmode = format!("failmode={failmode}");
    let options = [&["-o", &failmode], &interrupted::OPTIONS[..]].concat();
    create_pool_on(POOL, BAD, &options)?;
    action()?;
    if is_imported()? {
        sh("zpool", &["destroy", POOL])?;
    }
    dmsetup(&["remove", "bad"])
}

/// Neither strategy reads what is kept.
fn a_kept_file_that_cannot_be_read_is_kept_as_it_is() -> Result<()> {
    for strategy in [Strategy::Rollback, Strategy::Carry] {
        println!("{strategy:?}");
        with_disk("wait", || {
            let lines = sh("seq", &["-f", "find me %07.0f", "40000"])?;
            let known = Known::in_pool_with(strategy, |live| {
                Ok(fs::write(live.join("keep/large"), lines)?)
            })?;
            patiently(|| export(POOL))?;
            let found = sh(
                "grep",
                &[
                    "--text",
                    "--byte-offset",
                    "--only-matching",
                    "--max-count=1",
                    "find me 0000001",
                    DISK,
                ],
            )?;
            let at = found.split(':').next().context("no offset")?.parse::<u64>()? / 512;
            let (after, rest) = (at + 64, SECTORS - at - 64);
            disk_is(&format!(
                "0 {at} linear {DISK} 0\n{at} 64 error\n{after} {rest} linear {DISK} {after}"
            ))?;
            import()?;
            let read = change(&known.machine().dataset, |live| {
                Ok(fs::read(live.join("keep/large")).is_ok())
            })?;
            ensure!(!read, "the kept file can be read");
            reset(&known.machine().config(), &[])?.well()?;
            disk_is(&whole_disk())?;
            sh("zpool", &["clear", POOL])?;
            known.check_result()
        })
        .with_context(|| format!("{strategy:?}"))?;
    }
    Ok(())
}

fn a_pool_that_is_suspended_is_left_alone() -> Result<()> {
    for failmode in ["wait", "continue"] {
        with_disk(failmode, || {
            let known = Known::in_pool(Strategy::Carry)?;
            let before = Whole::of(POOL)?;
            disk_is(&no_writes())?;
            // Somebody else writes, if only that nothing has changed, and waits.
            let mut other = Command::new("zpool").args(["sync", "-f", POOL]).spawn()?;
            suspended()?;
            let started = Instant::now();
            let ran = reset(&known.machine().config(), &[])?;
            let words = "error: no volume was reset; all are as they were: /: the pool \"tank\" is \
                         suspended after I/O errors; nothing can be written: mend the device and \
                         run `zpool clear tank`";
            let error = ran.stderr.lines().last().unwrap_or_default();
            assert_eq!((ran.code, error), (Some(10), words));
            println!("{failmode}: refused in {:.1} s", started.elapsed().as_secs_f64());
            disk_is(&whole_disk())?;
            sh("zpool", &["clear", POOL])?;
            ended(&mut other)?.context("`zpool sync` goes on waiting")?;
            Whole::of(POOL)?.must_be(&before)?;
            reset(&known.machine().config(), &[])?.well()?;
            known.check_result()
        })
        .with_context(|| failmode.to_owned())?;
    }
    Ok(())
}

fn a_disk_that_takes_no_writes_from_a_moment_of_a_rollback_on() -> Result<()> {
    // While the stage is filled; once the dataset was rolled back, and is filled from it.
    fails_at(Strategy::Rollback, "wait", "mkdirat", Which::First)?;
    fails_at(Strategy::Rollback, "continue", "linkat", Which::Last)
}

fn a_disk_that_takes_no_writes_from_a_moment_of_a_carry_on() -> Result<()> {
    // While what will be moved in is laid; while things are moved.
    fails_at(Strategy::Carry, "continue", "mkdirat", Which::First)?;
    fails_at(Strategy::Carry, "wait", "renameat2", Which::Middle)
}

/// Which of the calls of a name.
#[derive(Clone, Copy)]
enum Which {
    First,
    Middle,
    Last,
}

fn fails_at(strategy: Strategy, failmode: &str, call: &str, which: Which) -> Result<()> {
    with_disk(failmode, || {
        let known = Known::in_pool(strategy)?;
        patiently(|| export(POOL))?;
        copy(DISK, "/tmp/golden")?;
        put_back()?;
        let counted = || -> Result<usize> {
            let count = count(&known, call)?;
            put_back().map(|()| count)
        };
        let when = match which {
            Which::First => 1,
            Which::Middle => counted()? / 2,
            Which::Last => counted()?,
        };
        let told = format!("{strategy:?}, failmode={failmode}, from {call} {when} on");
        fails(&known, call, when, &told).with_context(|| told.clone())
    })
}

/// Lets the disk fail at a call. Then looks what the machine would have if its power was cut, and
/// what it has if the disk comes back.
fn fails(known: &Known, call: &str, when: usize, told: &str) -> Result<()> {
    let mut run = stopped_at(known, call, when)?;
    disk_is(&no_writes())?;
    sh("kill", &["-CONT", &run.process])?;
    let early = run.ended_or_waits()?;
    copy(DISK, "/tmp/cut")?;

    disk_is(&whole_disk())?;
    sh("zpool", &["clear", POOL])?;
    let code = ended(&mut run.strace)?.context("it goes on waiting")?.code();
    let said = fs::read_to_string(SAID)?;
    // What a process that failed had mounted may have been in use until then.
    patiently(|| export(POOL))?;
    import()?;
    let found = known.found().with_context(|| said.clone())?;
    let waited = if early { "gave up" } else { "waited for the disk" };
    println!("{told}: it {waited}; exit code {code:?}, and the {found}");
    let words = match (code, found.as_str()) {
        (Some(0), "Result") => "reset complete in",
        (Some(10), "Previous") => "no volume was reset; all are as they were",
        (Some(10), "Result") => "every volume was reset and is the complete result",
        (Some(1), _) => "do not use it before",
        _ => bail!("exit code {code:?}, but it is the {found}:\n{said}"),
    };
    ensure!(said.contains(words), "it does not say {words:?}:\n{said}");
    reset(&known.machine().config(), &[])?.well()?;
    known.check_result().context("when the disk was back")?;
    patiently(|| export(POOL))?;

    let device = sh("losetup", &["--find", "--show", "/tmp/cut"])?;
    let found = recovers(known, &device).context("when the power was cut")?;
    println!("    had the power been cut: the {found}");
    patiently(|| export(POOL))?;
    sh("losetup", &["--detach", &device]).map(drop)
}

const CALLS: &str = "/tmp/calls";
const SAID: &str = "/tmp/said";

/// A reset that is stopped.
struct Run {
    strace: Child,
    process: String,
}

fn stopped_at(known: &Known, call: &str, when: usize) -> Result<Run> {
    let (trace, inject) =
        (format!("trace={call}"), format!("inject={call}:signal=SIGSTOP:when={when}"));
    let strace = ["strace", "-f", "-qq", "-o", CALLS, "-e", &trace, "-e", &inject];
    File::create(CALLS)?;
    let mut strace = reset_command(&strace, &known.machine().config(), &["--threads", "1"])?
        .stdout(Stdio::null())
        .stderr(File::create(SAID)?)
        .spawn()
        .context("cannot run strace")?;
    let started = Instant::now();
    loop {
        let calls = fs::read_to_string(CALLS)?;
        if let Some(line) = calls.lines().find(|line| line.contains("stopped by SIGSTOP")) {
            let process = line.split(' ').next().context("a line without a process")?.to_owned();
            return Ok(Run { strace, process });
        }
        let over = strace.try_wait()?.is_some() || started.elapsed() > LIMIT;
        ensure!(!over, "it was not stopped:\n{calls}\n{}", fs::read_to_string(SAID)?);
        sleep(Duration::from_millis(50));
    }
}

impl Run {
    /// Whether it ended although the disk fails. It waits once its pool is suspended and it does not
    /// end for seconds.
    fn ended_or_waits(&mut self) -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            if self.strace.try_wait()?.is_some() {
                return Ok(true);
            }
            if is_suspended()? {
                sleep(Duration::from_secs(3));
                return Ok(self.strace.try_wait()?.is_some());
            }
            sleep(Duration::from_millis(50));
        }
        bail!("it neither ends nor is its pool suspended:\n{}", fs::read_to_string(SAID)?)
    }
}

/// Waits for an end; none if there is none in time.
fn ended(process: &mut Child) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        sleep(Duration::from_millis(50));
    }
    Ok(None)
}

fn is_suspended() -> Result<bool> {
    Ok(fs::read_to_string(format!("/proc/spl/kstat/zfs/{POOL}/state"))?.trim() == "SUSPENDED")
}

fn suspended() -> Result<()> {
    let started = Instant::now();
    while !is_suspended()? {
        ensure!(started.elapsed() < LIMIT, "the pool is not suspended");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn import() -> Result<()> {
    sh("zpool", &["import", "-N", "-o", "cachefile=none", "-d", BAD, POOL]).map(drop)
}

/// Makes the pool again what it was.
fn put_back() -> Result<()> {
    if is_imported()? {
        patiently(|| export(POOL))?;
    }
    copy("/tmp/golden", DISK)?;
    import()
}

fn is_imported() -> Result<bool> {
    Ok(sh("zpool", &["list", "-Ho", "name"])?.lines().any(|name| name == POOL))
}

/// How many calls of a name a reset makes.
fn count(known: &Known, call: &str) -> Result<usize> {
    let trace = format!("trace={call}");
    let strace = ["strace", "-f", "-qq", "-o", CALLS, "-e", &trace];
    let status = reset_command(&strace, &known.machine().config(), &["--threads", "1"])?
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "a reset whose disk is well ended with {status}");
    known.check_result()?;
    Ok(fs::read_to_string(CALLS)?.lines().filter(|line| line.contains(call)).count())
}

/// Copies the part of the disk that the pool is on, past the cache that the disk has beside it.
fn copy(from: &str, to: &str) -> Result<()> {
    let direct = if from == DISK { "iflag=direct" } else { "oflag=direct" };
    let count = format!("count={MEBIBYTES}");
    let (from, to) = (format!("if={from}"), format!("of={to}"));
    sh("dd", &[&from, &to, "bs=1M", &count, direct, "conv=fsync", "status=none"]).map(drop)
}
