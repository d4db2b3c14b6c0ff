//! Which calls the binary makes: one that changes something is in the list of those that are
//! interrupted in `interrupted.rs` and `dir.rs`, so that a new one cannot be forgotten.

use std::collections::BTreeSet;

use crate::common::directory::{Volume, ran};
use crate::common::strace::{self, CHANGING, Call, HARMLESS};
use crate::common::{Machine, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::Filesystem;
use darlings_testkit::{Attribute, capability, plant, skip_unless};

const STRATEGIES: [&str; 2] = ["rollback", "carry"];

/// A volume of which a reset makes every kind of call: an excluded path, something for the attic and
/// something that comes back, a nested subvolume, a default subvolume, sealed entries, an immutable
/// root, every kind of file.
fn machine(strategy: &str) -> Result<Machine> {
    let machine = Machine::new(
        |blank| {
            put(blank, "etc/os-release", "of the blank")?;
            put(blank, "keep/.cache/of-the-blank", "of the blank")?;
            std::os::unix::fs::symlink("os-release", blank.join("etc/link"))?;
            plant::node(&blank.join("fifo"), rustix::fs::FileType::Fifo, 0, 0)?;
            std::fs::hard_link(blank.join("etc/os-release"), blank.join("etc/again"))?;
            plant::xattr(&blank.join("etc/os-release"), "user.color", b"red")?;
            Ok(plant::flag(&blank.join("etc/again"), Attribute::Immutable)?)
        },
        |live| {
            put(live, "keep/file", "kept")?;
            put(live, "keep/.cache/erased", "erased")?;
            std::fs::hard_link(live.join("keep/file"), live.join("keep/again"))?;
            std::os::unix::fs::symlink("file", live.join("keep/link"))?;
            plant::node(&live.join("keep/fifo"), rustix::fs::FileType::Fifo, 0, 0)?;
            plant::node(&live.join("keep/null"), rustix::fs::FileType::CharacterDevice, 1, 3)?;
            plant::owner(&live.join("keep/file"), 1000, 100)?;
            plant::xattr(&live.join("keep/file"), "user.color", b"red")?;
            plant::sparse_file(&live.join("keep/sparse"), 1 << 20, &[(4096, b"x")])?;
            put(live, "keep/locked/file", "kept")?;
            plant::flag(&live.join("keep/locked/file"), Attribute::Immutable)?;
            plant::flag(&live.join("keep/locked"), Attribute::AppendOnly)?;
            put(live, "formerly/file", "kept")?;
            put(live, "returning/file", "kept")?;
            put(live, "etc/erased", "erased")
        },
    )?;
    let mut machine = machine.persist("/keep", &[".cache"]);
    strategy.clone_into(&mut machine.strategy);
    let nested = machine.volume.make_subvolume("@/keep/nested")?;
    put(&nested, "content", "nested")?;
    machine.volume.set_default("@")?;
    // Two resets with other lists: the next one puts a path away and brings one back.
    let today = machine.rules.clone();
    let mut machine = machine.persist("/formerly", &[]).persist("/returning", &[]);
    machine.reset_well()?;
    machine.rules.pop();
    machine.reset_well()?;
    machine.rules = today;
    let machine = machine.persist("/returning", &[]);
    put(&machine.volume.live(), "etc/erased", "erased")?;
    plant::flag(&machine.volume.live(), Attribute::Immutable)?;
    Ok(machine)
}

/// What a run calls, all of it.
fn trace(machine: &Machine, word: &str, config: &str) -> Result<Vec<Call>> {
    let log = machine.beside("strace");
    let mut command = strace::traced(&log, &[]);
    command.arg(word).args(if word == "reset" { &["--threads", "1"][..] } else { &[] });
    let arguments = machine.arguments(config)?;
    command.args(if word == "reset" { &arguments[..] } else { &arguments[..2] });
    let ran = machine.ran(&mut command)?;
    ensure!(ran.code == Some(0), "{word}: {}", ran.stderr);
    strace::calls(&log)
}

#[test]
fn every_call_that_changes_something_is_one_that_is_interrupted() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut made = Vec::new();
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        let keep = machine.config_keeping("generations = 1, min_free = \"1%\"");
        for (word, config) in
            [("reset", machine.config()), ("purge", keep.clone()), ("generations", keep)]
        {
            made.extend(trace(&machine, word, &config)?);
        }
        machine.close()?;
    }
    let known = |name: &str| CHANGING.contains(&name) || HARMLESS.contains(&name);
    let unknown: Vec<_> = made
        .iter()
        // `open` and its like are in one list or the other by what they do.
        .filter(|call| {
            !known(&call.name) || (HARMLESS.contains(&call.name.as_str()) && call.changes())
        })
        .map(|call| format!("{}({}", call.name, call.rest))
        .collect();
    assert!(
        unknown.is_empty(),
        "{unknown:#?}: what changes anything belongs to the calls that are interrupted, CHANGING, and \
         else to HARMLESS, in tests/it/common/strace.rs"
    );
    let made: BTreeSet<_> = made.iter().map(|call| call.name.as_str()).collect();
    let never: Vec<_> = CHANGING.iter().filter(|name| !made.contains(*name)).collect();
    assert!(never.len() <= 4, "not seen here: {never:?}");
    Ok(())
}

/// Checks that each small file is written under another name, synced, renamed, and its directory
/// synced, one after the other. Answers the names and where they are, below `root`.
fn written_durably(calls: &[Call], root: &std::path::Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut calls = calls.iter();
    while let Some(call) = calls.next() {
        if call.name != "openat" || !call.rest.contains(r#", "new", O_WRONLY|O_CREAT"#) {
            continue;
        }
        let (_, directory) = call.rest.split_once('<').context("no descriptor")?;
        let (directory, _) = directory.split_once('>').context("no descriptor")?;
        let next = |calls: &mut std::slice::Iter<'_, Call>, name, on: &str| -> Result<String> {
            let call = calls.next().context("nothing comes after it")?;
            let rest = &call.rest;
            ensure!(call.name == name && rest.contains(&format!("<{on}>")), "{name}: {call:?}");
            Ok(rest.clone())
        };
        let new = format!("{directory}/new");
        next(&mut calls, "write", &new)?;
        next(&mut calls, "fsync", &new)?;
        let renamed = next(&mut calls, "renameat", directory)?;
        next(&mut calls, "fsync", directory)?;
        let name = renamed.rsplit('"').nth(1).context("no name")?;
        let path = std::path::Path::new(directory).join(name);
        names.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
    }
    Ok(names)
}

/// The calls that make a small file durable.
const DURABLE: [&str; 4] = ["openat", "write", "fsync", "renameat"];

#[test]
fn a_small_file_of_a_reset_is_synced_then_renamed_and_then_its_directory_is_synced() -> Result<()> {
    skip_unless!(capability::root_and_btrfs().and(capability::root_and_ext4()), Ok(()));
    let next = |names: &[&str]| -> Vec<String> {
        let home = "@darlings/root/.darlings/next/.darlings";
        names.iter().map(|name| format!("{home}/{name}")).collect()
    };
    let beside = [".darlings/record", "seals-3", "seals-3"];
    let beside = beside.map(|name| format!("@darlings/root/{name}"));
    let mine = ["manifest", "generation", "reset/journal"];
    for (strategy, list) in [("rollback", "attic/3.json"), ("carry", "reset/attic.json")] {
        let machine = machine(strategy)?;
        let log = machine.beside("strace");
        let mut command = strace::traced(&log, &DURABLE);
        command.args(["reset", "--threads", "1"]).args(machine.arguments(machine.config())?);
        let ran = machine.ran(&mut command)?;
        ensure!(ran.code == Some(0), "{}", ran.stderr);
        let written = strace::calls(&log)?;
        // The top level is mounted elsewhere in the run's own namespace.
        let at = written.iter().find_map(|call| call.rest.split_once("/@darlings"));
        let (top, _) = at.context("nothing was written beside the live volume")?;
        let (_, top) = top.rsplit_once('<').context("no descriptor")?;
        let names = written_durably(&written, std::path::Path::new(top))?;
        let expected = [next(&[list]), next(&mine), beside.to_vec()].concat();
        assert_eq!(names, expected, "{strategy}");
        machine.close()?;
    }
    let (volume, _) = Volume::experienced(Filesystem::Ext4)?;
    let log = volume.fs.holder().join("strace");
    let traced = format!("--trace={}", DURABLE.join(","));
    let log_at = log.display().to_string();
    let wrapper = ["strace", "-f", "-qqq", "-y", "-s", "256", "-o", &log_at, &traced];
    let ran = ran(volume.command(&wrapper, &["reset", "--threads", "1"])?)?;
    ensure!(ran.code == Some(0), "{}", ran.stderr);
    let names = written_durably(&strace::calls(&log)?, &volume.live().join(".darlings"))?;
    let mut expected = vec!["reset/attic.json", "reset/aside/manifest"];
    expected.extend(["reset/journal", "reset/journal.copy", "manifest", "generation"]);
    assert_eq!(names, expected);
    volume.fs.close()
}
