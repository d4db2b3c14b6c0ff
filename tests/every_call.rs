//! Which calls the binary makes: one that changes something is in the list of those that are
//! interrupted in `interrupted.rs` and `dir.rs`, so that a new one cannot be forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use common::strace::{self, CHANGING, Call, HARMLESS};
use common::{Machine, put};
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
         else to HARMLESS, in tests/common/strace.rs"
    );
    let made: BTreeSet<_> = made.iter().map(|call| call.name.as_str()).collect();
    let never: Vec<_> = CHANGING.iter().filter(|name| !made.contains(*name)).collect();
    assert!(never.len() <= 4, "not seen here: {never:?}");
    Ok(())
}
