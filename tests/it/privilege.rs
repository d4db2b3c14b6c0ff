//! The reset and the purge need no more than their units leave them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::strace::{CHANGING, HARMLESS};
use crate::common::{self, Machine, as_the_unit_does, put};
use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::run;
use darlings_testkit::{capability, capture, fill, plant, skip_unless};

/// A home that only its owner may go into, as on most machines: root may by its capabilities alone.
fn home_of_mia(root: &Path) -> Result<()> {
    let home = root.join("home/mia");
    std::fs::create_dir_all(&home)?;
    plant::mode(&home, 0o700)?;
    Ok(plant::owner(&home, 1000, 1000)?)
}

#[test]
fn everything_comes_back_with_the_capabilities_that_the_unit_leaves() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for unit in [
        include_str!("../../systemd/darlings-reset.service"),
        include_str!("../../systemd/darlings-reset-dir.service"),
    ] {
        for strategy in ["rollback", "carry"] {
            let machine = Machine::new(
                |blank| {
                    home_of_mia(blank)?;
                    put(blank, "etc/os-release", "of the blank")
                },
                |live| {
                    let keep = live.join("keep");
                    std::fs::create_dir(&keep)?;
                    assert_eq!(fill::everything(&keep)?, []);
                    home_of_mia(live)?;
                    put(live, "home/mia/work/file", "kept")?;
                    put(live, "home/mia/erased", "erased")?;
                    put(live, "etc/erased", "erased")
                },
            )?;
            let mut machine = machine.persist("/keep", &[]).persist("/home/mia/work", &[]);
            strategy.clone_into(&mut machine.strategy);
            let expected = machine.expected()?;
            let mut command = as_the_unit_does(unit);
            command.arg(env!("CARGO_BIN_EXE_darlings")).arg("reset");
            command.args(machine.arguments(machine.config())?).env_remove("JOURNAL_STREAM");
            let ran = machine.ran(&mut command)?;
            assert_eq!(ran.code, Some(0), "{strategy}: {}", ran.stderr);
            let difference = capture(&machine.volume.live())?.diff_lines(&expected.tree);
            assert_eq!(difference, "", "{strategy}");
            machine.close()?;
        }
    }
    Ok(())
}

/// The calls in a set of systemd's, like `@mount`.
fn calls_in(set: &str) -> Result<BTreeSet<String>> {
    let listed = run(Command::new("systemd-analyze").args(["syscall-filter", set]))?;
    let mut calls = BTreeSet::new();
    // The first line is the set's name.
    for name in listed.lines().skip(1).map(str::trim) {
        match name.chars().next() {
            None | Some('#') => {}
            Some('@') => calls.extend(calls_in(name)?),
            Some(_) => drop(calls.insert(name.to_owned())),
        }
    }
    Ok(calls)
}

/// `every_call` shows that the two lists have every call of a purge.
#[test]
fn the_purge_makes_no_call_that_its_unit_forbids() -> Result<()> {
    let installed = calls_in("@mount").map(drop).map_err(|why| format!("{why:#}"));
    skip_unless!(installed, Ok(()));
    let unit = include_str!("../../systemd/darlings-purge.service");
    let sets = unit.lines().find_map(|line| line.strip_prefix("SystemCallFilter="));
    let mut allowed = BTreeSet::new();
    for set in sets.context("the unit allows everything")?.split(' ') {
        allowed.extend(calls_in(set)?);
    }
    let made = CHANGING.into_iter().chain(HARMLESS);
    let forbidden: Vec<&str> = made.filter(|call| !allowed.contains(*call)).collect();
    assert_eq!(forbidden, [""; 0]);
    Ok(())
}

/// Generations and the trash hold what was erased, and setuid files with known holes, for as long as they
/// are kept.
#[test]
fn no_user_reaches_a_generation_or_the_trash() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |live| put(live, "etc/secret", "erased"))?;
    let machine = machine.persist("/etc/machine-id", &[]);
    machine.reset_well()?;
    // Somebody has the top level mounted where everybody may look, as many do.
    std::fs::set_permissions(machine.beside("."), PermissionsExt::from_mode(0o755))?;
    std::fs::set_permissions(machine.at("."), PermissionsExt::from_mode(0o755))?;
    let directory = common::looking::Directory::new("[[persist]]\npath = \"/kept\"\n", |_| Ok(()))?;
    put(&directory.live(), "etc/secret", "erased")?;
    directory.reset()?;
    std::fs::set_permissions(directory.fs.holder(), PermissionsExt::from_mode(0o755))?;
    for (above, hidden) in [
        (machine.at("@"), machine.at("@darlings/root/1/etc/secret")),
        (machine.at("@"), machine.at("@/.darlings/manifest")),
        (directory.live(), directory.live().join(".darlings/generations/1/root/etc/secret")),
    ] {
        let as_a_user = |path: &Path| {
            let mut command = Command::new("stat");
            command.arg(path).uid(1000).gid(1000).env("LC_ALL", "C").output()
        };
        assert!(hidden.exists(), "{hidden:?}");
        assert!(as_a_user(&above)?.status.success(), "{above:?}");
        let output = as_a_user(&hidden)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.ends_with(": Permission denied\n"), "{hidden:?}: {error}");
    }
    directory.close()?;
    machine.close()
}
