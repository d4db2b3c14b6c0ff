//! Words on the kernel command line in runs that are killed, or in which a call fails, at any of the
//! calls that change something.

use std::process::Command;

use crate::common::cmdline::{
    asked, asked_with, boots, cmdline, listed, listed_beside, machine_after, number, read_only,
    tree, well, with_home,
};
use crate::common::{self, Machine, Ran, Whole, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::run;
use darlings_testkit::{Attribute, Compare, RelPath, Tree, capability, skip_unless};

/// The word with something injected into the `when`th call of a kind.
fn inject(machine: &Machine, line: &str, call: &str, what: &str, when: u32) -> Result<(Ran, bool)> {
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
        .arg("--cmdline")
        .arg(cmdline(machine, line)?)
        .env_remove("JOURNAL_STREAM");
    let ran = machine.ran(&mut command)?;
    let log = std::fs::read_to_string(log)?;
    let happened = log.contains("(INJECTED)") || log.contains("+++ killed by SIGKILL");
    Ok((ran, happened))
}

/// The calls that change something, in a restore or a snapshot.
const CHANGING: [&str; 9] = [
    "ioctl",
    "mkdirat",
    "renameat2",
    "renameat",
    "unlinkat",
    "utimensat",
    "write",
    "syncfs",
    "mount",
];

/// Removes all generations but the two newest.
fn forget_all_but_two(machine: &Machine) -> Result<()> {
    let numbers = listed(machine)?;
    for number in numbers.iter().rev().skip(2) {
        let at = machine.at(&format!("@darlings/root/{number}"));
        run(Command::new("btrfs").args(["subvolume", "delete"]).arg(at))?;
    }
    Ok(())
}

/// Interrupts a word at every call of these kinds. `check` gets the machine with what it boots
/// before, and what it boots after the interruption.
fn at_every_call(
    line: &str,
    what: &str,
    check: impl Fn(&Machine, &Ran, &Tree) -> Result<&'static str>,
) -> Result<()> {
    let machine = machine_after(2)?;
    let nested = machine.volume.make_subvolume("@/keep/nested")?;
    put(&nested, "content", "nested")?;
    machine.volume.set_default("@")?;
    let mut seen = std::collections::BTreeMap::new();
    for call in CHANGING {
        for when in 1.. {
            // As many as at the beginning, so that as many calls are made.
            forget_all_but_two(&machine)?;
            // The next boot has used it meanwhile.
            put(&machine.volume.live(), "keep/count", &format!("{call} {when}"))?;
            let before = boots(&machine)?;
            let (ran, happened) = inject(&machine, line, call, what, when)?;
            let context = || format!("{what} at {call} {when}:\n{}", ran.stderr);
            if !happened {
                ensure!(when > 1 || call == "write" || ran.code == Some(0), "{}", context());
                break;
            }
            let ended = check(&machine, &ran, &before).with_context(context)?;
            *seen.entry(ended).or_insert(0) += 1;
            let left: Vec<String> =
                machine.kept()?.into_iter().filter(|name| name.parse::<u64>().is_err()).collect();
            ensure!(left.is_empty(), "{left:?} {}", context());
            let (is, shall) =
                (common::default_of(&machine.volume)?, machine.volume.subvolume_id("@")?);
            ensure!(is == shall, "the default is {is} instead of {shall} {}", context());
            ensure!(machine.at("@/keep/nested/content").exists(), "nested {}", context());
            let numbers = listed(&machine)?;
            ensure!(numbers.last() == Some(&number(&machine, "@")?), "{numbers:?} {}", context());
        }
    }
    eprintln!("{line}, {what}: {seen:?}");
    assert!(seen.len() > 1, "always the same: {seen:?}");
    machine.close()
}

/// A tree without the nested subvolume, which moves from one to the other.
fn apart(mut tree: Tree) -> Tree {
    tree.entries.remove(&RelPath::normalise("keep/nested").unwrap());
    tree
}

/// The nested subvolume comes right after the exchange; the times of its directory are settled then.
fn nearly(one: &Tree, two: &Tree) -> bool {
    let compare = Compare::default().without(Attribute::ModificationTime);
    apart(one.clone()).diff_with(&apart(two.clone()), &compare).is_empty()
}

fn ensure_same(one: &Tree, two: &Tree, what: &str) -> Result<()> {
    let difference = apart(one.clone()).diff_lines(&apart(two.clone()));
    ensure!(difference.is_empty(), "{what}:\n{difference}");
    Ok(())
}

/// Interrupted anywhere, a restore of the previous generation, run again with the same word, gives
/// what an uninterrupted one gives: it is not undone by it.
fn restored_at_last(machine: &Machine, before: &Tree) -> Result<&'static str> {
    let live = boots(machine)?;
    let generation = |number: u64| tree(machine, &format!("@darlings/root/{number}"));
    let (numbers, _) = listed_beside(machine)?;
    let newest = *numbers.last().context("no generation")?;
    let ready = format!("@darlings/root/ready-{}", number(machine, "@")?);
    let ended = if machine.at(&ready).exists() {
        ensure!(nearly(&live, &generation(newest)?), "exchanged, and not the generation");
        ensure!(nearly(&tree(machine, &ready)?, before), "exchanged, and not kept");
        "exchanged"
    } else if live.diff_lines(before).is_empty() {
        "before"
    } else {
        ensure_same(&generation(newest)?, before, "what was live is not kept")?;
        ensure_same(&live, &generation(newest - 1)?, "not the generation")?;
        return Ok("after");
    };
    let again = well(asked(machine, "darlings=restore:previous")?, "restored", "restore:previous")?;
    let context = || format!("after the next run:\n{}", again.stderr);
    ensure_same(&boots(machine)?, &generation(newest)?, "not the generation")
        .with_context(context)?;
    let kept = *listed(machine)?.last().context("no generation")?;
    ensure_same(&generation(kept)?, before, "what was live is not kept").with_context(context)?;
    Ok(ended)
}

#[test]
fn a_restore_that_is_killed_at_any_call_is_completed_by_the_same_word_and_not_undone() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    at_every_call("darlings=restore:previous", "signal=SIGKILL", |machine, ran, before| {
        ensure!(ran.code != Some(0), "it was not killed");
        restored_at_last(machine, before)
    })
}

#[test]
fn a_restore_in_which_a_call_fails_is_undone_or_complete() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    at_every_call("darlings=restore:previous", "error=ENOSPC", |machine, ran, before| {
        let live = boots(machine)?;
        if ran.code == Some(10) {
            let error = ran.stderr.lines().last().unwrap_or_default();
            if error.starts_with("error: no volume was restored; all are as they were: ") {
                ensure!(live.diff_lines(before).is_empty(), "{}", live.diff_lines(before));
            }
        }
        restored_at_last(machine, before)
    })
}

#[test]
fn a_snapshot_that_is_killed_at_any_call_leaves_what_is_live_alone() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    at_every_call("darlings=snapshot", "signal=SIGKILL", |machine, ran, before| {
        ensure!(ran.code != Some(0), "it was not killed");
        let difference = boots(machine)?.diff_lines(before);
        ensure!(difference.is_empty(), "{difference}");
        let kept = machine.kept()?;
        let left = kept.iter().any(|name| name.parse::<u64>().is_err());
        for name in kept.iter().filter(|name| name.parse::<u64>().is_ok()) {
            ensure!(read_only(machine, &format!("@darlings/root/{name}"))?, "{name} is writable");
        }
        well(asked(machine, "darlings=snapshot")?, "snapshot", "snapshot")?;
        ensure!(boots(machine)?.diff_lines(before).is_empty(), "{}", ran.stderr);
        Ok(if left { "leftover" } else { "none" })
    })
}

/// A machine whose restore was killed right after the exchange, at whichever call of renameat2 that
/// is.
fn killed_after_the_exchange(
    word: &str,
    prepare: impl Fn() -> Result<Machine>,
) -> Result<(Machine, Tree)> {
    for when in 1.. {
        let machine = prepare()?;
        let before = boots(&machine)?;
        let (_, happened) = inject(&machine, word, "renameat2", "signal=SIGKILL", when)?;
        ensure!(happened, "never killed after the exchange");
        if !boots(&machine)?.diff_lines(&before).is_empty() {
            let kept = machine.kept()?;
            ensure!(kept.last().is_some_and(|it| it == "ready-3"), "{kept:?}");
            return Ok((machine, before));
        }
        machine.close()?;
    }
    unreachable!("a restore has an end")
}

#[test]
fn whatever_is_asked_a_run_that_was_interrupted_after_the_exchange_is_completed_first() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (word, outcome, kept) in [
        ("", "reset", vec!["1", "2", "3"]),
        ("darlings=off", "off", vec!["1", "2", "3"]),
        ("darlings=restore:1", "restored", vec!["1", "2", "3"]),
        ("darlings=restore:previous", "restored", vec!["1", "2", "3"]),
        ("darlings=snapshot", "snapshot", vec!["1", "2", "3", "4"]),
        ("darlings=restore:3", "restored", vec!["1", "2", "3", "4"]),
        ("darlings=x", "failed", vec!["1", "2", "3"]),
    ] {
        let (machine, before) =
            killed_after_the_exchange("darlings=restore:1", || machine_after(2))?;
        let of = tree(&machine, "@darlings/root/1")?;
        assert_eq!(boots(&machine)?.diff_lines(&of), "");
        let whole = Whole::of(&machine.volume)?;
        let dry = asked_with(&machine, &machine.config(), word, &["--dry-run"])?;
        assert_eq!(Whole::of(&machine.volume)?.differences(&whole), "", "{word}");
        let first = dry.stdout.lines().next().unwrap_or_default();
        let title =
            "reset 3, which restores generation 1, which was interrupted and is completed now";
        assert!(first.ends_with(title), "{word}: {first}");
        let ran = asked(&machine, word)?;
        assert_eq!(ran.report.as_ref().unwrap()["outcome"], outcome, "{word}: {}", ran.stderr);
        assert_eq!(machine.kept()?, kept, "{word}: {}", ran.stderr);
        assert_eq!(tree(&machine, "@darlings/root/3")?.diff_lines(&before), "", "{word}");
        let shall = if word == "darlings=restore:3" { &before } else { &of };
        assert_eq!(boots(&machine)?.diff_lines(shall), "", "{word}");
        if word == "darlings=x" {
            assert!(
                ran.stderr.contains(
                    "error: what an interrupted run had left was completed, and nothing else done: "
                ),
                "{}",
                ran.stderr
            );
        }
        machine.close()?;
    }
    Ok(())
}

#[test]
fn of_two_volumes_an_interrupted_restore_is_completed_and_the_other_follows() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let word = "darlings=restore:previous";
    // As a run leaves it that was killed between the two commits: of `/` alone.
    let (machine, _) = killed_after_the_exchange(word, || {
        let machine = machine_after(1)?;
        put(&machine.volume.make_subvolume("@home")?, "file", "of home")?;
        let config = with_home(&machine);
        well(asked_with(&machine, &config, "darlings=snapshot", &[])?, "snapshot", "snapshot")?;
        put(&machine.volume.live(), "keep/last", "changed")?;
        put(&machine.at("@home"), "file", "changed")?;
        Ok(machine)
    })?;
    let config = with_home(&machine);
    let root = tree(&machine, "@darlings/root/2")?;
    let home = tree(&machine, "@darlings/home/1")?;
    well(asked_with(&machine, &config, word, &[])?, "restored", "restore:previous")?;
    assert_eq!(boots(&machine)?.diff_lines(&root), "");
    assert_eq!(tree(&machine, "@home")?.diff_lines(&home), "");
    assert_eq!(std::fs::read_to_string(machine.at("@darlings/root/3/keep/last"))?, "changed");
    assert_eq!(std::fs::read_to_string(machine.at("@darlings/home/2/file"))?, "changed");
    machine.close()
}
