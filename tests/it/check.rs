//! `darlings check`: what it finds before a reset would.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::common::{Machine, Whole, put, quoted};
use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::{Filesystem, LoopFs, run, unmount};
use darlings_testkit::{capability, skip_unless};
use serde_json::{Value, json};

/// Runs it, and gives its exit code and its JSON.
fn check(config: &Path) -> Result<(Option<i32>, Value)> {
    check_with(config, Path::new("/dev/null"))
}

/// The same on a machine with this fstab.
fn check_with(config: &Path, fstab: &Path) -> Result<(Option<i32>, Value)> {
    let output = Command::new(env!("CARGO_BIN_EXE_darlings"))
        .args(["check", "--json", "--cmdline", "/dev/null", "--fstab"])
        .arg(fstab)
        .arg("--config")
        .arg(config)
        .env_remove("JOURNAL_STREAM")
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), serde_json::from_slice(&output.stdout).context(errors)?))
}

/// A machine with a declared path that is there, and one that is not.
fn machine() -> Result<Machine> {
    let machine = Machine::new(
        |blank| put(blank, "etc/issue", "blank"),
        |live| put(live, "var/log/messages", "kept"),
    )?;
    Ok(machine.persist("/var/log", &[]).persist("/etc/machine-id", &[]))
}

fn write_config(machine: &Machine) -> Result<std::path::PathBuf> {
    let path = machine.beside("check.toml");
    std::fs::write(&path, machine.config())?;
    Ok(path)
}

#[test]
fn a_machine_that_is_ready_is_told_so_and_nothing_changes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    machine.reset_well()?;
    let config = write_config(&machine)?;
    let before = Whole::of(&machine.volume)?;
    let device = machine.volume.fs.device().display().to_string();
    let expected = json!({
        "version": 1,
        "ready": true,
        "volumes": [{
            "mount_point": "/",
            "volume": format!("btrfs subvolume @ on {device}"),
            "ready": true,
            "problems": [],
            "notes": [],
            "present": 1,
            "declared": 2,
            "generations": 1,
        }],
    });
    let (code, mut found) = check(&config)?;
    // Of this machine's own root, which is another than the one that is looked at.
    let notes = found["volumes"][0]["notes"].take();
    let notes: Vec<String> = serde_json::from_value(notes)?;
    let [note] = notes.as_slice() else { panic!("{notes:?}") };
    assert!(note.starts_with("what is mounted there now is "), "{note}");
    assert!(note.ends_with("; what is reset is the subvolume \"@\""), "{note}");
    found["volumes"][0]["notes"] = json!([]);
    assert_eq!((code, found), (Some(0), expected));
    assert_eq!(before.differences(&Whole::of(&machine.volume)?), "");
    machine.close()
}

/// Does something to a machine and its configuration, and gives what is then in the way. It is `ready`
/// all the same where that does not keep the reset from running.
fn problems(ready: bool, spoil: impl FnOnce(&mut Machine) -> Result<()>) -> Result<Vec<String>> {
    let mut machine = machine()?;
    machine.reset_well()?;
    spoil(&mut machine)?;
    let (code, found) = check(&write_config(&machine)?)?;
    let device = machine.volume.fs.device().display().to_string();
    machine.close()?;
    assert_eq!((code, &found["ready"]), (Some(1), &json!(ready)), "{found}");
    assert_eq!(found["volumes"][0]["ready"], json!(ready));
    let problems = found["volumes"][0]["problems"].as_array().context("no problems")?;
    let text = |problem: &Value| Some(problem.as_str()?.replace(&device, "DEVICE"));
    problems.iter().map(|it| text(it).context("no text")).collect()
}

#[test]
fn what_would_stop_the_next_reset_is_a_problem_now() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    assert_eq!(
        problems(false, |machine| {
            machine.blank = "@clean".into();
            Ok(())
        })?,
        [
            "the blank subvolume \"@clean\" is missing on \"DEVICE\"; there are \"@\", \"@blank\". Make \
             one with `darlings init`, or of the system as it is now with `darlings init --from-live`"
        ]
    );
    assert_eq!(
        problems(false, |machine| {
            std::fs::rename(machine.at("@"), machine.at("@root"))?;
            Ok(())
        })?,
        [
            "there is no subvolume \"@\" on \"DEVICE\"; there are \"@blank\", \"@root\"",
            "the generations cannot be read: there is no subvolume \"@\" on \"DEVICE\"; there are \
             \"@blank\", \"@root\"",
        ][..1]
    );
    // In the blank a file is in the place of a directory above a declared path.
    let of_blank = problems(false, |machine| {
        *machine = std::mem::replace(machine, self::machine()?).persist("/etc/issue/x", &[]);
        Ok(())
    })?;
    assert_eq!(of_blank.len(), 1, "{of_blank:?}");
    assert!(of_blank[0].contains("\"etc/issue\""), "{of_blank:?}");
    Ok(())
}

#[test]
fn what_the_next_reset_would_lose_is_a_problem_now() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    assert_eq!(
        problems(true, |machine| {
            std::fs::rename(
                machine.volume.live().join("var"),
                machine.volume.live().join("elsewhere"),
            )?;
            Ok(symlink("elsewhere", machine.volume.live().join("var"))?)
        })?,
        [
            "/var/log is not brought over: /var is a symbolic link, which is not followed; declare the \
             path that it stands for"
        ]
    );
    let attic =
        problems(false, |machine| put(&machine.volume.live(), ".darlings/attic/1.json", "{"))?;
    assert_eq!(attic.len(), 1, "{attic:?}");
    assert!(attic[0].contains("attic/1.json"), "{attic:?}");
    Ok(())
}

#[test]
fn what_will_come_to_pass_is_a_note() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    machine.reset_well()?;
    machine.rules.remove(0);
    let (code, found) = check(&write_config(&machine)?)?;
    assert_eq!(code, Some(0), "{found}");
    let notes = found["volumes"][0]["notes"].as_array().context("no notes")?;
    assert_eq!(notes[0], "/var/log is no longer persisted: it moves to the attic");
    machine.close()
}

#[test]
fn a_generation_that_nobody_can_read_is_a_problem() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let found = problems(true, |machine| {
        machine.reset_well()?;
        let generation = machine.at("@darlings/root/2");
        let read_only = |value: &str| {
            run(Command::new("btrfs")
                .args(["property", "set"])
                .arg(&generation)
                .args(["ro", value]))
        };
        read_only("false")?;
        put(&generation, ".darlings/manifest", "{")?;
        read_only("true").map(drop)
    })?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("@darlings/root/2 cannot be read: "), "{found:?}");
    Ok(())
}

#[test]
fn a_volume_that_is_mounted_by_the_number_of_its_subvolume_is_a_problem() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    machine.reset_well()?;
    let config = write_config(&machine)?;
    let fstab = machine.beside("fstab");
    std::fs::write(&fstab, "UUID=1 / btrfs rw,subvolid=256,subvol=/@ 0 0\n")?;
    let (code, found) = check_with(&config, &fstab)?;
    assert_eq!(code, Some(1), "{found}");
    assert_eq!(
        found["volumes"][0]["problems"],
        json!([
            "/ is mounted by subvolid=256 (fstab), which after a reset is the old tree, or no mount at all; \
             write subvol=@ alone"
        ])
    );
    assert_eq!(check_with(&config, &machine.beside("no-such-fstab"))?.0, Some(0));
    machine.close()
}

/// As on a system that still runs on the store of another tool.
#[test]
fn what_only_a_bind_mount_has_is_a_problem_before_it_is_gone() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            for path in ["adopted", "bare", "empty", "whole"] {
                std::fs::create_dir(live.join(path))?;
            }
            put(live, "adopted/file", "own")?;
            put(live, "file", "")?;
            symlink("/store/link", live.join("link"))?;
            Ok(symlink("/elsewhere", live.join("other"))?)
        },
    )?;
    machine.volume.make_subvolume("@store")?;
    for path in ["adopted/file", "empty/file", "empty/absent/file", "file"] {
        put(&machine.at("@store"), path, "the store's")?;
    }
    std::fs::create_dir(machine.at("@store/bare"))?;
    let root = machine.volume.fs.mount_at("live", "subvol=@")?;
    let mut config = format!(
        "[[volume]]\nmount_point = {}\nbtrfs = {{ device = {}, subvolume = \"@\", blank = \"empty\" }}\n",
        quoted(&root.display().to_string()),
        quoted(&machine.volume.fs.device().display().to_string()),
    );
    let declared = [
        "adopted",
        "bare",
        "empty/absent",
        "empty/never",
        "file",
        "whole",
        "link",
        "other",
        "never",
    ];
    for path in declared {
        let path = quoted(&root.join(path).display().to_string());
        config.extend(["[[persist]]\npath = ", &path, "\n"]);
    }
    let at = machine.beside("check.toml");
    std::fs::write(&at, config)?;
    for path in ["adopted", "bare", "empty", "file"] {
        let from = machine.at("@store").join(path);
        run(Command::new("mount").arg("--bind").args([from, root.join(path)]))?;
    }
    run(Command::new("mount").args(["-t", "tmpfs", "some-tmpfs"]).arg(root.join("whole")))?;
    let (code, found) = check(&at)?;
    for path in ["adopted", "bare", "empty", "file", "whole"] {
        unmount(&root.join(path))?;
    }
    let device = machine.volume.fs.device().display().to_string();
    let text = found["volumes"][0].to_string();
    let text = text.replace(&root.display().to_string(), "").replace(&device, "DEVICE");
    let volume: Value = serde_json::from_str(&text)?;
    let nothing_there = |path: &str, from: &str| {
        format!(
            "{path} is a bind mount of {from} of DEVICE, and the volume itself has nothing there: once \
             nobody mounts it any more it is empty; bring it over with `darlings adopt`"
        )
    };
    assert_eq!(code, Some(1), "{found}");
    assert_eq!(
        volume["problems"],
        json!([
            nothing_there("/empty/absent", "/@store/empty"),
            nothing_there("/file", "/@store/file")
        ])
    );
    assert_eq!(
        volume["notes"],
        json!([
            "/link is a link to /store/link, and a link is what is kept; `darlings adopt` brings what it \
             leads to",
            "/whole is on some-tmpfs, which is mounted at /whole and not touched by this volume's reset",
        ])
    );
    machine.close()
}

#[test]
fn a_configuration_that_cannot_be_read_is_no_good() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let scratch = tempfile::tempdir()?;
    put(scratch.path(), "bad.toml", "volumes = 3\n")?;
    let bad = scratch.path().join("bad.toml");
    let (code, found) = check(&bad)?;
    assert_eq!((code, &found["ready"]), (Some(1), &json!(false)));
    let error = found["error"].as_str().context("no error")?;
    assert!(error.starts_with(&format!("{}:1:1: ", bad.display())), "{error}");
    // As every command says it, and as JSON all the same.
    let (code, found) = check(Path::new("/nowhere/darlings.toml"))?;
    let error = "there is no /nowhere/darlings.toml, so darlings resets nothing on this machine; name the \
                 configuration with --config FILE, or write one (see the README)";
    let expected = json!({ "version": 1, "ready": false, "error": error, "volumes": [] });
    assert_eq!((code, found), (Some(2), expected));
    Ok(())
}

#[test]
fn a_plain_directory_is_looked_at_where_it_is_mounted_now() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let fs = LoopFs::new(Filesystem::Ext4)?;
    put(fs.path(), "var/log/messages", "kept")?;
    let mount_point = fs.path().display().to_string();
    let config = fs.holder().join("check.toml");
    std::fs::write(
        &config,
        format!(
            "[[volume]]\nmount_point = {}\ndir = {{ path = \"/sysroot\", blank = \"empty\" }}\n\
             [[persist]]\npath = {}\n",
            quoted(&mount_point),
            quoted(&format!("{mount_point}/var/log")),
        ),
    )?;
    let expected = json!({
        "version": 1,
        "ready": true,
        "volumes": [{
            "mount_point": mount_point,
            "volume": format!("directory {mount_point}"),
            "ready": true,
            "problems": [],
            "notes": [],
            "present": 1,
            "declared": 1,
            "generations": 0,
        }],
    });
    assert_eq!(check(&config)?, (Some(0), expected));
    std::fs::remove_dir_all(fs.path().join("var"))?;
    symlink("/etc", fs.path().join("var"))?;
    let (code, found) = check(&config)?;
    assert_eq!(code, Some(1), "{found}");
    fs.close()
}

#[test]
fn a_mount_of_a_subvolume_that_goes_with_the_generation_is_a_problem() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    for path in ["@/home", "@/var/log/kept"] {
        machine.volume.make_subvolume(path)?;
    }
    let config = write_config(&machine)?;
    let fstab = machine.beside("fstab");
    std::fs::write(
        &fstab,
        "UUID=1-2 /home btrfs rw,subvol=/@/home 0 0\n\
         UUID=1-2 /kept btrfs subvol=@/var/log/kept 0 0\n\
         UUID=1-2 /not-there btrfs subvol=@/not-there 0 0\n\
         UUID=1-2 /beside btrfs subvol=@home 0 0\n\
         UUID=1-2 / btrfs subvol=@ 0 0\n",
    )?;
    let (code, found) = check_with(&config, &fstab)?;
    let expected = "/home is mounted from the subvolume @/home (fstab), which lies in @ and goes with the \
                    generation, so that the mount fails after a reset; move it out of @, or persist /home";
    assert_eq!((code, &found["volumes"][0]["problems"]), (Some(1), &json!([expected])));
    machine.close()
}

#[test]
fn paths_are_counted_although_the_blank_is_missing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    machine.blank = "@clean".into();
    let (code, found) = check(&write_config(&machine)?)?;
    let volume = &found["volumes"][0];
    assert_eq!((code, &volume["present"], &volume["declared"]), (Some(1), &json!(1), &json!(2)));
    // Without the volume nothing can be counted, and nothing is claimed.
    std::fs::rename(machine.at("@"), machine.at("@elsewhere"))?;
    let (code, found) = check(&write_config(&machine)?)?;
    assert_eq!((code, &found["volumes"][0]["present"]), (Some(1), &Value::Null));
    machine.close()
}

#[test]
fn an_ancestor_that_is_a_link_is_named_once_and_not_the_generations_for_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "elsewhere/x", "kept")?;
            put(live, "file", "not a directory")?;
            Ok(symlink("elsewhere", live.join("link"))?)
        },
    )?;
    let root = machine.volume.fs.mount_at("live", "subvol=@")?;
    let at = |path: &str| quoted(&root.join(path).display().to_string());
    let config = machine.beside("check.toml");
    std::fs::write(
        &config,
        format!(
            "[[volume]]\nmount_point = {}\nbtrfs = {{ device = {}, subvolume = \"@\", blank = \"empty\" }}\n\
             [[persist]]\npath = {}\n[[persist]]\npath = {}\n",
            quoted(&root.display().to_string()),
            quoted(&machine.volume.fs.device().display().to_string()),
            at("file/x"),
            at("link/x"),
        ),
    )?;
    let (code, found) = check(&config)?;
    let problems = found["volumes"][0]["problems"].to_string();
    let problems: Value = serde_json::from_str(&problems.replace(&root.display().to_string(), ""))?;
    let unreachable = |path: &str, above: &str, kind: &str| {
        format!(
            "{path} is not brought over: {above} is a {kind}, which is not followed; declare the path \
             that it stands for"
        )
    };
    assert_eq!(
        (code, problems),
        (
            Some(1),
            json!([
                unreachable("/file/x", "/file", "file"),
                unreachable("/link/x", "/link", "symbolic link")
            ])
        )
    );
    machine.close()
}
