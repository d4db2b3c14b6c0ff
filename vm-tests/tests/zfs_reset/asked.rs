//! Words on the kernel command line: a generation is kept or restored, and no later one is lost.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{Tree, plant};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Ran, Strategy, empty_trash, reset, reset_below};
use crate::pools::{DATASET, change, patiently, put, sh, tree};

#[test]
fn what_the_kernel_command_line_asks_for_is_done_and_can_be_undone() -> Result<()> {
    in_guest(
        "asked::what_the_kernel_command_line_asks_for_is_done_and_can_be_undone",
        checks![
            a_restore_keeps_what_was_live_and_every_later_generation,
            a_snapshot_keeps_a_generation_and_erases_nothing,
            off_changes_nothing,
            a_restore_that_is_killed_is_completed_by_the_same_word_and_not_undone,
        ],
    )
}

/// A dataset that was reset twice, with another content before each and since.
fn used() -> Result<Machine> {
    let blank = |blank: &std::path::Path| {
        put(blank, "etc/motd", "of the blank")?;
        Ok(plant::owner(blank, 1001, 1002)?)
    };
    let machine = Machine::new(&["-O", "xattr=sa"], blank, |_| Ok(()))?
        .by(Strategy::Carry)
        .persist("keep", &[]);
    for boot in ["first", "second", "now"] {
        change(DATASET, |live| {
            put(live, "keep/last", boot)?;
            put(live, &format!("keep/{boot}"), boot)?;
            put(live, &format!("erased/{boot}"), boot)?;
            put(live, "etc/motd", boot)?;
            Ok(plant::xattr(live, "user.of", boot.as_bytes())?)
        })?;
        if boot != "now" {
            reset(&machine.config(), &[])?.well()?;
        }
    }
    ensure!(generations()? == [1, 2], "{:?}", generations()?);
    Ok(machine)
}

fn asked(machine: &Machine, below: &[&str], word: &str) -> Result<Ran> {
    fs::write("/tmp/cmdline", format!("root=ZFS=tank/local/root rw {word}\n"))?;
    reset_below(below, &machine.config(), &["--cmdline", "/tmp/cmdline"])
}

fn well(machine: &Machine, word: &str, outcome: &str) -> Result<()> {
    let ran = asked(machine, &[], word)?.well()?;
    let report = ran.report.context("no report")?;
    ensure!(report["outcome"] == outcome, "{report:#}");
    Ok(())
}

/// The numbers of the snapshots that are generations.
fn generations() -> Result<Vec<u64>> {
    let names = sh("zfs", &["list", "-Hr", "-t", "snapshot", "-o", "name", DATASET])?;
    let ours = format!("{DATASET}@darlings-");
    let numbers = names.lines().filter_map(|name| name.strip_prefix(&ours));
    let mut numbers = numbers.map(|it| Ok(it.parse()?)).collect::<Result<Vec<u64>>>()?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// What the machine boots: everything that is not the tool's own.
fn content(name: &str) -> Result<Tree> {
    let mut tree = tree(name)?;
    tree.entries.retain(|path, _| !path.as_bytes().starts_with(b".darlings"));
    Ok(tree)
}

fn boots() -> Result<Tree> {
    empty_trash(DATASET)?;
    content(DATASET)
}

fn generation(number: u64) -> Result<Tree> {
    content(&format!("{DATASET}@darlings-{number}"))
}

fn must_be(found: &Tree, wanted: &Tree, what: &str) -> Result<()> {
    let lines = found.diff_lines(wanted);
    ensure!(lines.is_empty(), "{what} (found != wanted):\n{lines}");
    Ok(())
}

fn a_restore_keeps_what_was_live_and_every_later_generation() -> Result<()> {
    let machine = used()?;
    let now = boots()?;
    let first = generation(1)?;
    ensure!(first.at("erased/first").is_some() && first.at("keep/second").is_none(), "{first:?}");
    well(&machine, "darlings=restore:1", "restored")?;
    must_be(&boots()?, &first, "the first generation")?;
    must_be(&generation(3)?, &now, "what was live")?;
    assert_eq!(generations()?, [1, 2, 3]);

    well(&machine, "darlings=restore:previous", "restored")?;
    must_be(&boots()?, &now, "undone")?;
    must_be(&generation(4)?, &first, "what was undone")?;
    assert_eq!(generations()?, [1, 2, 3, 4]);

    // And it is a volume like any other.
    machine.reset_and_compare()?;
    assert_eq!(generations()?, [1, 2, 3, 4, 5]);
    Ok(())
}

fn a_snapshot_keeps_a_generation_and_erases_nothing() -> Result<()> {
    let machine = used()?;
    let now = boots()?;
    well(&machine, "darlings=snapshot", "snapshot")?;
    must_be(&boots()?, &now, "live")?;
    must_be(&generation(3)?, &now, "the generation")?;
    assert_eq!(generations()?, [1, 2, 3]);
    Ok(())
}

fn off_changes_nothing() -> Result<()> {
    let machine = used()?;
    let now = tree(DATASET)?;
    well(&machine, "darlings=off", "off")?;
    must_be(&tree(DATASET)?, &now, "live")?;
    assert_eq!(generations()?, [1, 2]);
    Ok(())
}

fn a_restore_that_is_killed_is_completed_by_the_same_word_and_not_undone() -> Result<()> {
    // The first of these kills before anything is moved; all but that one leave it half moved.
    for (call, when) in [("mount", 2), ("renameat2", 1), ("renameat", 2), ("syncfs", 1)] {
        let context = || format!("killed at {call} {when}");
        let machine = used()?;
        let (now, second) = (boots()?, generation(2)?);
        let (trace, inject) =
            (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let ran = asked(&machine, &strace, "darlings=restore:previous")?;
        ensure!(ran.report.is_none(), "not {}:\n{}", context(), ran.stderr);
        patiently(|| well(&machine, "darlings=restore:previous", "restored"))
            .with_context(context)?;
        must_be(&boots()?, &second, "the previous generation").with_context(context)?;
        let newest = *generations()?.last().context("no generation")?;
        must_be(&generation(newest)?, &now, "what was live").with_context(context)?;
        ensure!(newest == 3, "{newest} {}", context());
        sh("zpool", &["destroy", "-f", crate::pools::POOL])?;
    }
    Ok(())
}
