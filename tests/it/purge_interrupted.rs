//! `darlings purge` on trash, in the attic, for room, and killed at every call that removes
//! something: by the real binary on real btrfs.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::common::purge::{DAY, machine_after, now};
use crate::common::{self, Machine, Whole, put};
use anyhow::Result;
use darlings_testkit::loopfs::run;
use darlings_testkit::{Attribute, Compare, Flags, capability, capture, plant, skip_unless};

const TRASH: &str = "@/.darlings/trash";

const MIB: u64 = 1 << 20;

fn flags_of(machine: &Machine, path: &str) -> Result<Flags> {
    let file = std::fs::File::open(machine.at(path))?;
    Ok(Flags::read(file)?.expect("no flags"))
}

/// Trash with all that is hard to remove.
fn litter(machine: &Machine, number: u32) -> Result<()> {
    let trash = format!("{TRASH}/{number}");
    let at = machine.at(&trash);
    put(&at, "etc/passwd", "trash")?;
    put(&at, "sealed/below/file", "trash")?;
    put(&at, "log/append-only", "trash")?;
    for name in 0..40 {
        put(&at, &format!("many/{name}"), "trash")?;
    }
    std::os::unix::fs::symlink("/keep/kept", at.join("link"))?;
    // A file that has another name, among what is kept.
    let linked = machine.at("@/keep/linked");
    std::fs::write(&linked, "kept and sealed")?;
    std::fs::hard_link(&linked, at.join("linked"))?;
    plant::flag(&linked, Attribute::Immutable)?;
    plant::flag(&at.join("etc/passwd"), Attribute::Immutable)?;
    plant::flag(&at.join("log/append-only"), Attribute::AppendOnly)?;
    plant::flag(&at.join("log"), Attribute::AppendOnly)?;
    // A subvolume that is read-only, with another one in it, in a directory that is sealed.
    let nested = format!("{trash}/sealed/nested");
    put(&machine.volume.make_subvolume(&nested)?, "file", "trash")?;
    machine.volume.make_subvolume(&format!("{nested}/deep"))?;
    // What a snapshot shows in the place of a nested subvolume: a directory with inode 2.
    let copied = machine.volume.make_subvolume("@copied")?;
    machine.volume.make_subvolume("@copied/inside")?;
    machine.volume.snapshot("@copied", &format!("{trash}/copy"), false)?;
    assert_eq!(std::fs::metadata(at.join("copy/inside"))?.ino(), 2);
    run(Command::new("btrfs").args(["subvolume", "delete"]).arg(copied.join("inside")))?;
    run(Command::new("btrfs").args(["subvolume", "delete"]).arg(copied))?;
    machine.read_only(&nested, true)?;
    plant::flag(&at.join("sealed/below"), Attribute::Immutable)?;
    Ok(plant::flag(&at.join("sealed"), Attribute::Immutable)?)
}

#[test]
fn trash_goes_whatever_flags_it_has_and_other_names_keep_theirs() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(1)?;
    litter(&machine, 1)?;
    put(&machine.at(TRASH), "left-over", "trash")?;
    let before = capture(&machine.volume.live())?;
    let purge = machine.word("purge", &machine.config_keeping(""))?;
    let mut command =
        common::as_the_unit_does(include_str!("../../systemd/darlings-purge.service"));
    let ran = machine.ran(command.arg(purge.get_program()).args(purge.get_args()))?;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(0),
            "/: removed .darlings/trash/1: what the reset moved aside\n\
             /: removed .darlings/trash/left-over: what the reset moved aside\n"
        )
    );
    assert_eq!(std::fs::read_dir(machine.at(TRASH))?.count(), 0);
    assert_eq!(machine.volume.subvolumes()?, ["@", "@blank", "@darlings/root/1"]);
    assert_eq!(flags_of(&machine, "@/keep/linked")?, Flags::of(Attribute::Immutable));
    // What is kept is as it was, but for the links of the file that had two names.
    let after = capture(&machine.volume.live())?;
    let lines = after.diff_lines(&before);
    assert!(lines.lines().all(|line| line.starts_with("keep/linked")), "{lines}");
    plant::flags(&machine.at("@/keep/linked"), Flags::default())?;
    machine.close()
}

/// Runs `darlings purge` in a `/run` of its own, killed at the `k`-th of these calls; whether it was.
fn killed_at(machine: &Machine, config: &str, call: &str, k: u32) -> Result<bool> {
    let log = machine.beside("strace");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", "mount -t tmpfs none /run; exec \"$@\"", "sh"])
        .args(["strace", "-f", "-qqq", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace={call}"), "-e"])
        .arg(format!("inject={call}:signal=KILL:when={k}"));
    let purge = machine.word("purge", config)?;
    let ran = machine.ran(command.arg(purge.get_program()).args(purge.get_args()))?;
    let killed = std::fs::read_to_string(log)?.contains("+++ killed by SIGKILL");
    assert!(killed || ran.code == Some(0), "{ran:?}");
    Ok(killed)
}

/// What is kept is there and whole, and the list shows whole generations only.
fn harmed_nothing(machine: &Machine, before: &Whole) -> Result<()> {
    let now = machine.whole()?;
    // `keep/linked` is among what is kept, and has another name in the trash: fewer links, and,
    // killed right between clearing its flag and setting it again, another flag.
    for same in ["@blank", "@darlings/root/3", "@darlings/root/4"] {
        let lines = now.subvolumes[same].tree.diff_lines(&before.subvolumes[same].tree);
        assert_eq!(lines, "", "{same}");
        assert_eq!(now.subvolumes[same].read_only, before.subvolumes[same].read_only);
    }
    let lines = now.subvolumes["@"].tree.diff_lines(&before.subvolumes["@"].tree);
    assert!(lines.lines().all(|line| line.starts_with("keep/linked")), "{lines}");
    let ran = machine.generations(&["--json"])?;
    let listing: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    for generation in listing["volumes"][0]["generations"].as_array().unwrap() {
        let name = generation["name"].as_str().unwrap();
        let with_nested = |of: &Whole| -> Vec<String> {
            of.subvolumes.keys().filter(|path| path.starts_with(name)).cloned().collect()
        };
        assert_eq!(with_nested(&now), with_nested(before));
    }
    Ok(())
}

/// Runs it again and again, killed at the first, the second, the third of each of these calls that
/// is made, until it gets done; looks each time whether that did harm. Tells how often it was killed
/// at each.
fn kill_again_and_again(
    machine: &Machine,
    keep: &str,
    calls: &[&str],
    before: &Whole,
) -> Result<Vec<u32>> {
    let config = machine.config_keeping(keep);
    let mut kills = vec![0; calls.len()];
    for k in 1.. {
        let mut any = false;
        for (kills, call) in kills.iter_mut().zip(calls) {
            let killed = killed_at(machine, &config, call, k)?;
            any |= killed;
            *kills += u32::from(killed);
            harmed_nothing(machine, before)?;
        }
        if !any {
            break;
        }
    }
    Ok(kills)
}

#[test]
fn killed_at_every_call_that_removes_trash_it_gets_done_and_harms_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(4)?;
    litter(&machine, 4)?;
    put(&machine.at("@/.darlings/attic/1"), "a/b/c", "attic")?;
    std::fs::write(machine.at("@/.darlings/attic/1.json"), r#"{"time": 1767225600}"#)?;
    let before = machine.whole()?;
    let calls = ["unlinkat", "renameat2", "openat"];
    let kills = kill_again_and_again(&machine, "days = 30", &calls, &before)?;
    assert!(kills.iter().all(|&kills| kills > 0), "{kills:?}");
    let own = capture(&machine.at("@/.darlings"))?;
    let names: Vec<String> = own.entries.keys().map(ToString::to_string).collect();
    assert_eq!(names, [".", "attic", "generation", "manifest", "trash"]);
    assert_eq!(machine.kept()?, ["1", "2", "3", "4"]);
    plant::flags(&machine.at("@/keep/linked"), Flags::default())?;
    machine.close()
}

#[test]
fn killed_at_every_call_that_removes_a_generation_it_leaves_none_half() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    for number in 1..=4 {
        for path in ["@/srv", "@/srv/a", "@/srv/b", "@/srv/a/deep"] {
            put(&machine.volume.make_subvolume(path)?, "file", "gone")?;
        }
        machine.read_only("@/srv/a", true)?;
        if number == 2 {
            plant::flag(&machine.at("@"), Attribute::Immutable)?;
        }
        machine.reset_well()?;
    }
    let before = machine.whole()?;
    let kills = kill_again_and_again(&machine, "generations = 2", &["ioctl"], &before)?;
    assert!(kills[0] > 20, "{kills:?}");
    assert_eq!(machine.kept()?, ["3", "4"]);
    let left = machine.volume.subvolumes()?;
    let left = left.iter().filter(|path| path.starts_with("@darlings")).count();
    assert_eq!(left, 10);
    machine.close()
}

#[test]
fn the_attic_expires_by_days_and_not_without() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(3)?;
    let attic = machine.at("@/.darlings/attic");
    for number in 1..=5 {
        put(&attic, &format!("{number}/etc/file"), "put away")?;
    }
    let list = |number: u32, time: u64| {
        std::fs::write(
            attic.join(format!("{number}.json")),
            format!(r#"{{"time": {time}, "paths": []}}"#),
        )
    };
    // 1 by its list; 2 by its reset; of 3 the reset is known and the list counts; 4 lies.
    machine.ended(1, Some(now() - 50 * DAY))?;
    list(1, now() - 40 * DAY)?;
    machine.ended(2, Some(now() - 39 * DAY))?;
    machine.ended(3, Some(now() - 38 * DAY))?;
    list(3, now() - 20 * DAY)?;
    list(4, 12)?;
    // A list without its paths, as an interrupted purge leaves it.
    list(6, now() - 19 * DAY)?;
    let before = machine.whole()?;
    assert_eq!(machine.purge("generations = 3", &[])?.stderr, "");
    assert_eq!(machine.whole()?.differences(&before), "");
    let names = || -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&attic)? {
            names.push(entry?.file_name().into_string().unwrap());
        }
        names.sort();
        Ok(names)
    };
    let ran = machine.purge("days = 45", &[])?;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(0), "/: removed the generation @darlings/root/1: older than `keep.days`\n")
    );
    let ran = machine.purge("generations = 9, days = 30", &[])?;
    assert_eq!(
        ran.stderr,
        "/: removed the generation @darlings/root/2: older than `keep.days`\n\
         /: removed from the attic .darlings/attic/1: older than `keep.days`\n\
         /: removed from the attic .darlings/attic/2: older than `keep.days`\n"
    );
    assert_eq!(names()?, ["3", "3.json", "4", "4.json", "5", "6.json"]);
    machine.close()
}

#[test]
fn while_too_little_is_free_the_oldest_go_and_no_more_than_it_takes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    for number in 1..=5 {
        std::fs::write(machine.at("@/big"), vec![number; 20 << 20])?;
        machine.reset_well()?;
    }
    let top = machine.volume.fs.path().to_owned();
    let free = || -> Result<u64> {
        run(Command::new("btrfs").args(["filesystem", "sync"]).arg(&top))?;
        let status = rustix::fs::statvfs(&top)?;
        Ok(status.f_bavail * status.f_frsize)
    };
    let before = free()?;
    let wanted = (before / MIB) + 30;
    let config = machine.config_keeping(&format!("min_free = \"{wanted} MiB\""));
    let ran = machine.ran(&mut machine.word("purge", &config)?)?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(machine.kept()?, ["3", "4", "5"]);
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert!(said[0].starts_with("warning: /: "), "{said:?}");
    let wants = format!(
        "less than the {wanted}.0 MiB that `keep.min_free` wants: the oldest generation goes, \
         @darlings/root/1"
    );
    assert!(said[0].ends_with(&wants), "{said:?}");
    let gone = |number| {
        format!(
            "/: removed the generation @darlings/root/{number}: less is free than `keep.min_free`"
        )
    };
    assert_eq!((said[1], said[3], said.len()), (&*gone(1), &*gone(2), 4));
    let after = free()?;
    assert!(after >= wanted * MIB && after < before + 50 * MIB, "{before} {after}");

    // Enough is free, so nothing goes.
    let ran = machine.ran(&mut machine.word("purge", &config)?)?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));

    // Retention comes first, and what it frees counts.
    let keep = format!("generations = 2, min_free = \"{} MiB\"", wanted + 15);
    let ran = machine.purge(&keep, &[])?;
    assert_eq!(
        ran.stderr,
        "/: removed the generation @darlings/root/3: more are there than `keep.generations`\n"
    );
    assert_eq!(machine.kept()?, ["4", "5"]);
    machine.close()
}

#[test]
fn a_trash_that_leads_elsewhere_is_not_followed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(1)?;
    std::os::unix::fs::symlink("../keep", machine.at(TRASH))?;
    std::os::unix::fs::symlink("../keep", machine.at("@/.darlings/attic"))?;
    let before = machine.whole()?;
    let ran = machine.purge("days = 0", &[])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(machine.whole()?.differences_with(&before, &Compare::all()), "");
    machine.close()
}
