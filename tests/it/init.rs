//! `darlings init`: what a reset needs, made on a system that was not installed for it.

use std::process::Command;

use crate::common::{Machine, Ran, put, quoted};
use anyhow::Result;
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::{capability, capture, plant, skip_unless};
use serde_json::{Value, json};

/// A machine that names a blank which is not there.
fn machine() -> Result<Machine> {
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "var/log/messages", "kept")?;
            put(live, "etc/clutter", "clutter")?;
            plant::mode(live, 0o751)?;
            Ok(plant::xattr(live, "user.colour", b"blue")?)
        },
    )?;
    "snapshots/clean/root".clone_into(&mut machine.blank);
    Ok(machine.persist("/var/log", &[]))
}

fn init(machine: &Machine, arguments: &[&str]) -> Result<Ran> {
    machine.ran(machine.word("init", &machine.config())?.args(arguments))
}

#[test]
fn a_missing_blank_and_the_home_of_generations_are_made_and_a_reset_works() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let before = machine.whole()?;
    let planned = init(&machine, &["--dry-run"])?;
    assert_eq!(
        (planned.code, planned.stdout.as_str()),
        (
            Some(0),
            "/: would make the directory @darlings/root for previous states\n\
             /: would make the blank snapshots/clean/root, which is empty\n"
        )
    );
    let json = |dry_run: bool, arguments: &[&str]| -> Result<()> {
        let found: Value = serde_json::from_str(&init(&machine, arguments)?.stdout)?;
        let made = json!([
            { "what": "generations", "name": "@darlings/root" },
            { "what": "empty_blank", "name": "snapshots/clean/root" },
        ]);
        let made = if dry_run { made } else { json!([]) };
        let volumes = json!([{ "mount_point": "/", "made": made }]);
        assert_eq!(found, json!({ "version": 1, "dry_run": dry_run, "volumes": volumes }));
        Ok(())
    };
    json(true, &["--dry-run", "--json"])?;
    assert_eq!(before.differences(&machine.whole()?), "");
    let made = init(&machine, &[])?;
    assert_eq!(made.stdout, planned.stdout.replace("would make", "made"));
    let whole = machine.whole()?;
    let blank = &whole.subvolumes["snapshots/clean/root"];
    assert!(blank.read_only);
    // Nothing in it, and a root like the live one's.
    let mut expected = capture(&machine.volume.live())?;
    expected.entries.retain(|path, _| path.as_bytes().is_empty());
    assert_eq!(blank.tree.diff_lines(&expected), "");
    assert_eq!(init(&machine, &[])?.stdout, "/: nothing is missing\n");
    json(false, &["--json"])?;
    assert_eq!(whole.differences(&machine.whole()?), "");
    machine.reset_well()?;
    assert!(!machine.volume.live().join("etc").exists());
    assert!(machine.volume.live().join("var/log/messages").exists());
    machine.close()
}

#[test]
fn the_blank_can_be_what_is_live() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    put(&machine.volume.live(), ".darlings/manifest", "not of the blank")?;
    assert_eq!(
        init(&machine, &["--from-live"])?.stdout,
        "/: made the directory @darlings/root for previous states\n\
         /: made the blank snapshots/clean/root, of what is live now\n"
    );
    let blank = capture(&machine.at("snapshots/clean/root"))?;
    let live = capture(&machine.volume.live())?.without(".darlings");
    let lines = blank.diff_lines(&live);
    assert!(lines.lines().all(|line| line.starts_with(".: ")), "{lines}");
    machine.close()
}

#[test]
fn what_an_interrupted_run_had_begun_is_made_anew() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    std::fs::create_dir_all(machine.at("snapshots/clean"))?;
    let half = machine.volume.make_subvolume("snapshots/clean/root.darlings-unfinished")?;
    put(&half, "half", "half")?;
    assert_eq!(init(&machine, &[])?.code, Some(0));
    assert!(!half.exists());
    assert_eq!(std::fs::read_dir(machine.at("snapshots/clean/root"))?.count(), 0);
    machine.close()
}

#[test]
fn without_a_subvolume_nothing_is_made() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    std::fs::rename(machine.at("@"), machine.at("@root"))?;
    let before = machine.whole()?;
    let ran = init(&machine, &[])?;
    assert_eq!(ran.code, Some(1));
    let device = machine.volume.fs.device();
    assert_eq!(
        ran.stderr,
        format!(
            "error: /: there is no subvolume \"@\" on {device:?}; there are \"@blank\", \"@root\"\n"
        )
    );
    assert_eq!(before.differences(&machine.whole()?), "");
    machine.close()
}

#[test]
fn the_blank_of_a_plain_directory_is_made_with_the_attributes_of_its_root() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let fs = LoopFs::new(Filesystem::Ext4)?;
    plant::mode(fs.path(), 0o751)?;
    let root = fs.path().display().to_string();
    let config = fs.holder().join("init.toml");
    std::fs::write(
        &config,
        format!(
            "[[volume]]\nmount_point = {0}\ndir = {{ path = {0}, blank = {1} }}\n",
            quoted(&root),
            quoted(&format!("{root}/.darlings/blank")),
        ),
    )?;
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_darlings"))
            .args(["init", "--config"])
            .arg(&config)
            .args(arguments)
            .output()
    };
    let said = |output: std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let blank = fs.path().join(".darlings/blank");
    let words = format!("the blank {}, which is empty\n", blank.display());
    assert_eq!(said(run(&["--dry-run"])?), format!("{root}: would make {words}"));
    assert!(!blank.exists());
    assert_eq!(run(&["--from-live"])?.status.code(), Some(1));
    assert_eq!(said(run(&[])?), format!("{root}: made {words}"));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&blank)?);
    assert_eq!(mode & 0o7777, 0o751);
    assert_eq!(said(run(&[])?), format!("{root}: nothing is missing\n"));
    fs.close()
}
