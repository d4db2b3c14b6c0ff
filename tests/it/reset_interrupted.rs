//! A reset that is killed, or that a call fails in, at any of the calls that change something: the
//! live volume is the complete previous state or the complete result at every instant, and the
//! next run gives what an uninterrupted one gives.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Command;

use crate::common::{self, Machine, Ran, put, strace, subvolumes_of};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{run, unmount};
use darlings_testkit::{
    Attribute, Compare, RelPath, Tree, capability, capture, difference, plant, skip_unless,
};

/// Where nested subvolumes are: in a directory, read-only, and in the volume's root.
const NESTED: [&str; 3] = ["keep/nested", "keep/read-only", "single"];

/// A volume of which a reset makes every kind of call: nested subvolumes that come along, one that
/// goes, an immutable file, hard links, a default subvolume, leftovers to be removed.
fn machine() -> Result<Machine> {
    let machine = Machine::new(
        |blank| {
            put(blank, "etc/os-release", "of the blank")?;
            put(blank, "keep/of-the-blank", "of the blank")
        },
        |live| {
            put(live, "keep/file", "kept")?;
            put(live, "keep/below/file", "kept")?;
            put(live, "etc/erased", "erased")?;
            std::fs::hard_link(live.join("keep/file"), live.join("keep/again"))?;
            std::os::unix::fs::symlink("file", live.join("keep/link"))?;
            plant::node(&live.join("keep/fifo"), rustix::fs::FileType::Fifo, 0, 0)?;
            plant::owner(&live.join("keep/below/file"), 1000, 100)?;
            plant::xattr(&live.join("keep/file"), "user.color", b"red")?;
            put(live, "keep/locked/file", "kept")?;
            plant::flag(&live.join("keep/locked/file"), Attribute::Immutable)
                .context("immutable")?;
            Ok(plant::flag(&live.join("keep/locked"), Attribute::AppendOnly)?)
        },
    )?
    .persist("/keep", &[])
    .persist("/single", &[]);
    for nested in NESTED {
        let at = machine.volume.make_subvolume(&format!("@/{nested}"))?;
        put(&at, "content", nested)?;
    }
    read_only(&machine, "@/keep/read-only", true)?;
    machine.volume.make_subvolume("@/gone")?;
    machine.volume.set_default("@")?;
    Ok(machine)
}

fn read_only(machine: &Machine, path: &str, value: bool) -> Result<()> {
    let at = machine.at(path);
    let value = value.to_string();
    run(Command::new("btrfs").args(["property", "set", "-ts"]).arg(at).args(["ro", &value]))?;
    Ok(())
}

/// What a machine boots into, the nested subvolumes as part of it.
#[derive(Debug, PartialEq, Eq)]
struct Live {
    tree: Tree,
    /// Path, id, read-only flag, content.
    nested: Vec<(String, Option<u64>, bool, Option<String>)>,
}

impl Live {
    fn of(machine: &Machine) -> Result<Self> {
        let top = machine.volume.fs.path();
        let (ids, sealed) = (subvolumes_of(top, &[])?, subvolumes_of(top, &["-r"])?);
        let nested = NESTED.iter().map(|nested| {
            let path = format!("@/{nested}");
            let content = std::fs::read_to_string(machine.at(&path).join("content")).ok();
            ((*nested).to_owned(), ids.get(&path).copied(), sealed.contains_key(&path), content)
        });
        Ok(Self { nested: nested.collect(), tree: capture(&machine.volume.live())? })
    }

    fn differences(&self, other: &Self) -> String {
        let mut text = self.tree.diff_lines(&other.tree);
        for (one, two) in self.nested.iter().zip(&other.nested).filter(|(one, two)| one != two) {
            text.extend([format!("{one:?} != {two:?}\n")]);
        }
        text
    }
}

/// What a reset must leave, computed before it.
fn result_of(machine: &Machine) -> Result<Live> {
    let nested = Live::of(machine)?.nested;
    Ok(Live { tree: machine.expected()?.tree, nested })
}

/// Runs the binary with something injected into the `when`th call of a kind, in a `/run` of its
/// own, which goes with it even when it is killed. Tells whether that call was made.
fn inject(machine: &Machine, call: &str, what: &str, when: u32) -> Result<(Ran, bool)> {
    let log = machine.beside("strace");
    common::remove_if_there(&log)?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", "mount -t tmpfs none /run; exec \"$@\"", "sh"])
        .args(["strace", "-f", "-qqq", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:{what}:when={when}")])
        .arg(env!("CARGO_BIN_EXE_darlings"))
        .args(["reset", "--threads", "1"])
        .args(machine.arguments(machine.config())?)
        .env_remove("JOURNAL_STREAM");
    let ran = machine.ran(&mut command)?;
    let log = std::fs::read_to_string(log)?;
    let happened = log.contains("(INJECTED)") || log.contains("+++ killed by SIGKILL");
    Ok((ran, happened))
}

/// Where the live volume stands, after something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Previous,
    /// Exchanged, with nested subvolumes still to come.
    Between,
    Result,
}

fn standing(machine: &Machine, previous: &Live, result: &Live) -> Result<Standing> {
    let live = Live::of(machine)?;
    for (state, standing) in [(previous, Standing::Previous), (result, Standing::Result)] {
        if live.differences(state).is_empty() {
            return Ok(standing);
        }
    }
    // The subvolumes that have not come yet are whole in the old tree, and the next run finds them.
    // One that has just come may have changed the times of its directory, and not yet have its
    // read-only flag again: that, too, the next run mends, and the tests look at it then.
    let mut completed = Live { tree: live.tree.clone(), nested: live.nested.clone() };
    for (is, shall) in completed.nested.iter_mut().zip(&result.nested) {
        let path = RelPath::normalise(&is.0).unwrap();
        let known = result.tree.get(&path).context("it is not in the result")?;
        if is.1.is_none() {
            completed.tree.entries.insert(path, known.clone());
            shall.clone_into(is);
        }
        is.2 = shall.2;
    }
    let compare = Compare::default().without(Attribute::ModificationTime);
    let difference = difference::lines(&completed.tree.diff_with(&result.tree, &compare));
    ensure!(
        difference.is_empty() && completed.nested == result.nested,
        "neither the previous state:\n{}nor the result:\n{}",
        live.differences(previous),
        live.differences(result),
    );
    Ok(Standing::Between)
}

/// Puts the machine back to where it was, as if somebody had used it meanwhile.
fn use_it_again(machine: &Machine) -> Result<()> {
    let live = machine.volume.live();
    put(&live, "etc/erased", "erased")?;
    if !live.join("gone").exists() {
        machine.volume.make_subvolume("@/gone")?;
    }
    Ok(())
}

/// The names below the generations directory that are no number: what a run left.
fn leftovers(machine: &Machine) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(machine.at("@darlings/root"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.parse::<u64>().is_err() && name != ".darlings" {
            names.push(name);
        }
    }
    Ok(names)
}

/// The changing calls that a run makes, in order: which one, and how often it was made before.
/// Of those before the exchange only every `DARLINGS_STRIDE`th (11th by default), because nothing
/// that the machine boots from is touched there; from the exchange on every one.
fn points(machine: &Machine) -> Result<Vec<(String, u32)>> {
    let stride = strace::stride(11)?;
    use_it_again(machine)?;
    let log = machine.beside("strace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qqq", "-o"])
        .arg(&log)
        .arg(format!("--trace={}", strace::CHANGING.join(",")))
        .arg(env!("CARGO_BIN_EXE_darlings"))
        .args(["reset", "--threads", "1"])
        .args(machine.arguments(machine.config())?)
        .env_remove("JOURNAL_STREAM");
    let ran = machine.ran(&mut command)?;
    ensure!(ran.code == Some(0), "{}", ran.stderr);
    let mut exchanged = false;
    let mut points = Vec::new();
    let changing = strace::calls(&log)?.into_iter().filter(strace::Call::changes);
    for (number, call) in changing.enumerate() {
        exchanged |= call.rest.contains("RENAME_EXCHANGE");
        if exchanged || number % stride == 0 {
            points.push((call.name, call.when));
        }
    }
    ensure!(exchanged, "no exchange was seen");
    Ok(points)
}

/// Interrupts at the calls that change something, and runs again after each.
fn at_every_call(what: &str, check: impl Fn(&Machine, &Ran, Standing) -> Result<()>) -> Result<()> {
    let machine = machine()?;
    // The first run makes directories that later ones find.
    machine.reset_well()?;
    let points = points(&machine)?;
    let mut seen = BTreeMap::new();
    for (call, when) in &points {
        use_it_again(&machine)?;
        let previous = Live::of(&machine)?;
        let result = result_of(&machine)?;
        let (ran, happened) = inject(&machine, call, what, *when)?;
        let context = || format!("{what} at {call} {when}:\n{}", ran.stderr);
        ensure!(happened, "nothing was interrupted: {}", context());
        let standing = standing(&machine, &previous, &result).with_context(context)?;
        *seen.entry(standing).or_insert(0) += 1;
        check(&machine, &ran, standing).with_context(context)?;

        let again = if standing == Standing::Previous { result_of(&machine)? } else { result };
        let next = machine.reset().with_context(context)?;
        ensure!(next.code == Some(0), "the next run: {}\nafter {}", next.stderr, context());
        let difference = Live::of(&machine)?.differences(&again);
        ensure!(difference.is_empty(), "after the next run:\n{difference}{}", context());
        ensure!(leftovers(&machine)? == Vec::<String>::new(), "leftovers {}", context());
        let (default, id) =
            (common::default_of(&machine.volume)?, machine.volume.subvolume_id("@")?);
        ensure!(default == id, "the default is {default} instead of {id} {}", context());
    }
    eprintln!("{what} at {} calls: {seen:?}", points.len());
    for standing in [Standing::Previous, Standing::Result] {
        assert!(seen.contains_key(&standing), "never {standing:?}");
    }
    machine.close()
}

#[test]
fn killed_at_any_call_the_volume_is_whole_and_the_next_run_completes_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    at_every_call("signal=SIGKILL", |_, ran, _| {
        ensure!(ran.code != Some(0), "it was not killed");
        Ok(())
    })
}

#[test]
fn a_call_that_finds_no_room_is_told_and_undone_or_the_result_is_whole() -> Result<()> {
    fails_at_every_call("error=ENOSPC")
}

#[test]
fn a_call_that_the_device_fails_is_told_and_undone_or_the_result_is_whole() -> Result<()> {
    fails_at_every_call("error=EIO")
}

fn fails_at_every_call(what: &str) -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let ended = RefCell::new(BTreeMap::new());
    at_every_call(what, |_, ran, standing| {
        let report = ran.report.as_ref();
        let outcome = report.and_then(|report| report["outcome"].as_str());
        *ended.borrow_mut().entry((ran.code, outcome.map(str::to_owned), standing)).or_insert(0) +=
            1;
        // Without one it was the report itself, or what is said on standard error.
        let Some(report) = report else { return Ok(()) };
        let error = report["error"].as_str().unwrap_or_default();
        match (ran.code, outcome, standing) {
            (Some(10), Some("failed"), Standing::Previous) => {
                ensure!(
                    error.starts_with("no volume was reset; all are as they were: "),
                    "{error}"
                );
                Ok(())
            }
            (Some(10), Some("failed"), Standing::Result) => {
                ensure!(
                    error.starts_with("every volume was reset and is the complete result; "),
                    "{error}"
                );
                Ok(())
            }
            // The second: it says so, and does not let the machine boot.
            (Some(0), Some("reset"), Standing::Result)
            | (Some(1), Some("unfinished"), Standing::Between) => Ok(()),
            other => Err(anyhow::anyhow!("{other:?}: {error}")),
        }
    })?;
    let ended = ended.into_inner();
    eprintln!("{what}: {ended:?}");
    let often = |code, outcome: &str, standing| {
        ended.get(&(Some(code), Some(outcome.to_owned()), standing)).copied().unwrap_or(0)
    };
    let unreported: usize = ended
        .iter()
        .filter(|((_, outcome, _), _)| outcome.is_none())
        .map(|(_, number)| number)
        .sum();
    assert!(often(10, "failed", Standing::Previous) > 10, "{ended:?}");
    assert!(often(10, "failed", Standing::Result) > 0, "{ended:?}");
    // A report is a file that is made, written and named.
    assert!(unreported <= 6, "{ended:?}");
    Ok(())
}

/// How often a reset of [`machine`] calls renameat2 up to the exchange.
fn renames_up_to_the_exchange() -> Result<u32> {
    let twin = machine()?;
    let log = twin.beside("strace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qqq", "--trace=renameat2", "-o"])
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_darlings"))
        .arg("reset")
        .args(twin.arguments(twin.config())?)
        .env_remove("JOURNAL_STREAM");
    let ran = twin.ran(&mut command)?;
    ensure!(ran.code == Some(0), "{}", ran.stderr);
    let log = std::fs::read_to_string(log)?;
    let exchange = log.lines().position(|line| line.contains("RENAME_EXCHANGE"));
    twin.close()?;
    Ok(u32::try_from(exchange.context("no exchange was seen")?)? + 1)
}

/// A machine interrupted between two steps after the exchange, as those steps leave it.
fn exchanged(machine: &Machine) -> Result<()> {
    let next = renames_up_to_the_exchange()? + 1;
    let (ran, happened) = inject(machine, "renameat2", "signal=SIGKILL", next)?;
    ensure!(happened && ran.code != Some(0), "{}", ran.stderr);
    Ok(())
}

#[test]
fn between_the_exchange_and_moving_nested_subvolumes_the_next_run_moves_them() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let previous = Live::of(&machine)?;
    let result = result_of(&machine)?;
    exchanged(&machine)?;
    assert_eq!(standing(&machine, &previous, &result)?, Standing::Between);
    assert_eq!(leftovers(&machine)?, ["ready-1"]);

    let dry = machine.run(machine.config(), &["--dry-run"])?;
    let device = machine.volume.fs.device().display();
    let first = format!(
        "/ (btrfs subvolume @ on {device}), reset 1, which was interrupted and is completed now\n"
    );
    assert!(dry.stdout.starts_with(&first), "{}", dry.stdout);
    let ran = machine.reset_well()?;
    assert_eq!(ran.report.as_ref().unwrap()["volumes"][0]["resumes"], true);
    assert_eq!(Live::of(&machine)?.differences(&result), "");
    assert_eq!(leftovers(&machine)?, Vec::<String>::new());
    machine.close()
}

#[test]
fn a_volume_that_was_begun_is_not_called_as_it_was_and_needs_no_blank_to_be_completed() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let previous = Live::of(&machine)?;
    let result = result_of(&machine)?;
    exchanged(&machine)?;
    // Somebody looks at it, and boots on.
    let at = machine.beside("looked-at");
    std::fs::create_dir(&at)?;
    let device = machine.volume.fs.device();
    run(Command::new("mount").args(["-o", "noatime,subvol=@"]).arg(device).arg(&at))?;
    let ran = machine.run(machine.config(), &[]);
    unmount(&at)?;
    let ran = ran?;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let told = format!(
        "error: not all volumes were reset: / is between the previous state and the result (every \
         persisted path is safe; running `darlings reset` again completes it; do not use it \
         before): /: the subvolume \"@\" is mounted at {at:?}; a volume is reset before it is \
         mounted: unmount it, or reboot"
    );
    assert_eq!(ran.stderr.lines().last(), Some(told.as_str()));
    assert_eq!(standing(&machine, &previous, &result)?, Standing::Between);

    std::fs::rename(machine.volume.blank(), machine.at("elsewhere"))?;
    machine.reset_well()?;
    assert_eq!(Live::of(&machine)?.differences(&result), "");
    assert_eq!(leftovers(&machine)?, Vec::<String>::new());
    machine.close()
}

#[test]
fn somebody_who_used_the_machine_between_two_runs_loses_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    exchanged(&machine)?;
    // The machine was booted although the reset was not complete, and a kept file was written.
    put(&machine.volume.live(), "keep/written-between", "kept")?;
    let mut expected = capture(&machine.volume.live())?;
    machine.reset_well()?;
    let mut without = capture(&machine.volume.live())?;
    for nested in NESTED.map(|nested| RelPath::normalise(nested).unwrap()) {
        without.entries.remove(&nested);
        // A snapshot of the live subvolume has a stub there.
        expected.entries.remove(&nested);
    }
    // The directory that a subvolume came into has the time that it had before the first run.
    let compare = Compare::default().without(Attribute::ModificationTime);
    assert_eq!(without.diff_with(&expected, &compare), []);
    machine.reset_well()?;
    assert_eq!(std::fs::read_to_string(machine.at("@/keep/written-between"))?, "kept");
    machine.close()
}

#[test]
fn between_moving_nested_subvolumes_and_keeping_the_generation_the_next_run_keeps_it() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let result = result_of(&machine)?;
    exchanged(&machine)?;
    // After three moves comes the renaming of `ready-1` to `1`: the kill is before it is done.
    let (_, happened) = inject(&machine, "renameat,renameat2", "signal=SIGKILL", 4)?;
    assert!(happened);
    assert_eq!(leftovers(&machine)?, ["ready-1"]);
    assert_eq!(Live::of(&machine)?.differences(&result), "");
    read_only(&machine, "@darlings/root/ready-1", false)?;
    let generation = capture(&machine.at("@darlings/root/ready-1"))?;
    machine.reset_well()?;
    assert_eq!(leftovers(&machine)?, Vec::<String>::new());
    let kept = capture(&machine.at("@darlings/root/1"))?;
    assert_eq!(kept.diff_lines(&generation), "");
    let sealed = subvolumes_of(machine.volume.fs.path(), &["-r"])?;
    assert!(sealed.contains_key("@darlings/root/1"), "{sealed:?}");
    assert_eq!(Live::of(&machine)?.differences(&result), "");
    machine.close()
}

#[test]
fn a_generation_that_cannot_be_named_does_not_make_the_result_less_complete() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let result = result_of(&machine)?;
    // After the exchange come three moves, and then it.
    let naming = renames_up_to_the_exchange()? + 4;
    let (ran, happened) = inject(&machine, "renameat2", "error=ENOSPC", naming)?;
    assert!(happened);
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    let error = "every volume was reset and is the complete result; what failed is tidying up, \
                 and the next run tidies up again: /: cannot keep the previous state as \
                 @darlings/root/1: ";
    let last = ran.stderr.lines().last().context("it said nothing")?;
    assert!(last.starts_with(&format!("error: {error}")), "{}", ran.stderr);
    let told =
        "\n  the previous state is not yet @darlings/root/1: a run that tidies up names it so\n";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    assert_eq!(Live::of(&machine)?.differences(&result), "");
    assert_eq!(leftovers(&machine)?, ["ready-1"]);

    machine.reset_well()?;
    assert_eq!(leftovers(&machine)?, Vec::<String>::new());
    assert!(machine.at("@darlings/root/1").exists());
    assert_eq!(Live::of(&machine)?.differences(&result), "");
    machine.close()
}

/// Which write(2) of a reset of [`machine`] says that the commit is over and what comes next begins.
fn write_that_follows_the_commit() -> Result<u32> {
    let twin = machine()?;
    let log = twin.beside("strace");
    let mut command = strace::traced(&log, &["write"]);
    command.args(["reset", "--threads", "1"]).args(twin.arguments(twin.config())?);
    let ran = twin.ran(&mut command)?;
    ensure!(ran.code == Some(0), "{}", ran.stderr);
    let mut calls = strace::calls(&log)?.into_iter();
    let says = calls.find(|call| call.rest.contains("keep the previous state as"));
    twin.close()?;
    Ok(says.context("it does not say that it keeps the previous state")?.when)
}

#[test]
fn what_counts_as_reset_is_the_complete_result_on_the_disk_already() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let (previous, result) = (Live::of(&machine)?, result_of(&machine)?);
    let (ran, happened) =
        inject(&machine, "write", "signal=SIGKILL", write_that_follows_the_commit()?)?;
    ensure!(happened && ran.code != Some(0), "{}", ran.stderr);
    // What the disk has now: the filesystem is mounted all the time, so nothing else has committed.
    let scratch = tempfile::tempdir()?;
    let image = scratch.path().join("image");
    machine.copy_image(&image)?;
    machine.close()?;
    let cut = Machine::of_copy(&image, Vec::new(), &common::strategy())?;
    assert_eq!(standing(&cut, &previous, &result)?, Standing::Result);
    assert_eq!(leftovers(&cut)?, ["ready-1"]);
    cut.close()
}

#[test]
fn twice_in_a_row_is_harmless() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let result = result_of(&machine)?;
    for _ in 0..3 {
        machine.reset_well()?;
        assert_eq!(Live::of(&machine)?.differences(&result), "");
        assert_eq!(leftovers(&machine)?, Vec::<String>::new());
    }
    machine.close()
}

#[test]
fn two_runs_at_once_do_not_meet() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let result = result_of(&machine)?;
    machine.reset_well()?;
    // The lock of another run that is at work.
    let home = std::fs::File::open(machine.at("@darlings/root"))?;
    rustix::fs::flock(&home, rustix::fs::FlockOperation::LockExclusive)?;
    let before = machine.whole()?;
    let ran = machine.reset()?;
    assert_eq!(ran.code, Some(10));
    assert_eq!(
        ran.stderr,
        "error: no volume was reset; all are as they were: /: another run is at work in \
         \"@darlings/root\"; wait for it\n"
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    drop(home);
    machine.reset_well()?;
    assert_eq!(Live::of(&machine)?.differences(&result), "");
    machine.close()
}

#[test]
fn of_two_volumes_the_second_that_cannot_be_prepared_leaves_the_first_as_it_was() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let home = machine.volume.make_subvolume("@home")?;
    put(&home, "mia/file", "kept")?;
    run(Command::new("mkfifo").arg(home.join("mia/fifo")))?;
    let config = format!(
        "{}[[volume]]\nmount_point = \"/home\"\nstrategy = \"rollback\"\nbtrfs = {{ device = {}, \
         subvolume = \"@home\", blank = \"empty\" }}\n[[persist]]\npath = \"/home/mia\"\n",
        machine.config(),
        common::quoted(&machine.volume.fs.device().display().to_string()),
    );
    let before = machine.whole()?;
    let log = machine.beside("strace");
    // The first volume has a fifo, too, which `carry` does not make anew.
    let when = if machine.strategy == "carry" { 1 } else { 2 };
    let mut command = strace::injected(&log, "mknodat", "error=EIO", when);
    command.args(["reset", "--threads", "1"]);
    let ran = machine.ran(command.args(machine.arguments(config)?))?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert!(ran.stderr.contains(": /home: cannot copy the persisted paths"), "{}", ran.stderr);
    let times = Compare::all().without(Attribute::ModificationTime);
    assert_eq!(machine.whole()?.differences_with(&before, &times), "");
    let volumes = &ran.report.as_ref().unwrap()["volumes"];
    assert_eq!(
        (&volumes[0]["committed"], &volumes[1]["committed"]),
        (&false.into(), &false.into())
    );
    machine.close()
}
