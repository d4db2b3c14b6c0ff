//! `darlings adopt` that is interrupted, and what others do in the meantime.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::common::adopting::{adopt, differences, is_brought, lines, store};
use crate::common::{self, Machine, put, quoted};
use anyhow::Result;
use darlings_testkit::loopfs::{run, unmount};
use darlings_testkit::{Attribute, capability, capture, plant, skip_unless};

/// Kills it at the `when`th of these calls; answers whether it was.
fn killed(machine: &Machine, call: &str, when: u32) -> Result<bool> {
    killed_with(machine, &machine.config(), call, when)
}

/// The same with another configuration.
fn killed_with(machine: &Machine, config: &str, call: &str, when: u32) -> Result<bool> {
    let log = machine.beside("strace");
    common::remove_if_there(&log)?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", "mount -t tmpfs none /run; exec \"$@\"", "sh"])
        .args(["strace", "-f", "-qqq", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace={call}"), "-e"])
        .arg(format!("inject={call}:signal=KILL:when={when}"));
    let adopt = machine.word("adopt", config)?;
    command.arg(adopt.get_program()).args(adopt.get_args()).args(["--threads", "1", "--from"]);
    let ran = machine.ran(command.arg(store(machine)))?;
    let killed = std::fs::read_to_string(log)?.contains("+++ killed by SIGKILL");
    assert!(killed || ran.code == Some(0), "{ran:?}");
    Ok(killed)
}

#[test]
fn killed_at_any_call_that_changes_something_the_next_run_completes_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    // By content: what a directory's times are depends on when it was killed, for those above.
    let small = || -> Result<Machine> {
        let machine = Machine::new(
            |_| Ok(()),
            |live| {
                std::fs::create_dir_all(live.join("a/log"))?;
                put(live, "a/id", "")
            },
        )?;
        machine.volume.make_subvolume("@persist")?;
        for path in ["a/log/one", "a/log/sub/two", "a/id", "b/c/three"] {
            put(&store(&machine), path, path)?;
        }
        plant::mode(&store(&machine).join("b"), 0o711)?;
        let sealed = store(&machine).join("a/log/sub/two");
        plant::flag(&sealed, Attribute::Immutable)?;
        Ok(machine.persist("/a/log", &[]).persist("/a/id", &[]).persist("/b/c", &[]))
    };
    let mut kills = 0;
    for call in [
        "mkdirat",
        "openat",
        "renameat2",
        "renameat",
        "unlinkat",
        "fsync",
        "syncfs",
        "write",
        "ioctl",
    ] {
        for when in (1..).step_by(if call == "openat" || call == "ioctl" { 7 } else { 1 }) {
            let machine = small()?;
            let before = capture(&store(&machine))?;
            let was_killed = killed(&machine, call, when)?;
            let at = format!("killed at {call} {when}");
            let ran = adopt(&machine, &[])?;
            assert_eq!(ran.code, Some(0), "{at}: {ran:?}");
            for path in ["a/log", "a/id", "b/c"] {
                is_brought(&machine, path)?;
            }
            let mode = std::fs::metadata(machine.volume.live().join("b"))?.mode() & 0o7777;
            assert_eq!(mode, 0o711, "{at}");
            assert_eq!(differences(&capture(&store(&machine))?, &before), "", "{at}: the store");
            assert!(!machine.at("@/.darlings/adopt").exists(), "{at}: the copies are left");
            let again = adopt(&machine, &[])?;
            assert!(!again.stdout.contains("is brought"), "{at}: {again:?}");
            machine.close()?;
            if !was_killed {
                break;
            }
            kills += 1;
        }
    }
    println!("killed {kills} times");
    assert!(kills > 40, "it was killed only {kills} times");
    Ok(())
}

/// As a service makes its directory anew while copies wait for days.
#[test]
fn what_came_to_a_place_since_it_was_copied_stays_and_the_copy_waits_until_somebody_decides()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for remedy in ["move what is there", "remove the copy"] {
        let machine = Machine::new(|_| Ok(()), |_| Ok(()))?;
        let machine = machine.persist("/a/first", &[]).persist("/a/second", &[]);
        let live = machine.volume.live();
        machine.volume.make_subvolume("@persist")?;
        for path in ["a/first/file", "a/second/file", "b/third/file"] {
            put(&store(&machine), path, "of the store")?;
        }
        // Once that all copies are complete was made durable.
        assert!(killed(&machine, "fsync", 2)?);
        assert!(live.join(".darlings/adopt/complete").exists() && !live.join("a").exists());
        put(&live, "a/second/base/1", "of the service")?;
        let machine = machine.persist("/b/third", &[]);
        let copy = "/.darlings/adopt/1";
        let blocked = format!(
            "/a/second: cannot be brought over: a directory with content of its own came there after it \
             was copied; move it away and run this again, or remove the copy, {copy}, to keep what is there"
        );
        let before = machine.whole()?;
        let dry_run = adopt(&machine, &["--dry-run"])?;
        let first = "/a/first: was copied by an interrupted run, and is put in its place";
        assert_eq!(lines(&dry_run), [first, &blocked, "/b/third: is brought over"]);
        assert_eq!(before.differences(&machine.whole()?), "");

        let ran = adopt(&machine, &[])?;
        let third = "/b/third: brought over: 2 entries, 12 B";
        assert_eq!((ran.code, lines(&ran)), (Some(1), vec![first, &blocked, third]));
        let again = adopt(&machine, &[])?;
        let before = "was brought over before";
        assert_eq!(
            (again.code, lines(&again)),
            (
                Some(1),
                vec![&*format!("/a/first: {before}"), &blocked, &format!("/b/third: {before}")]
            )
        );
        let text = |path: &str| std::fs::read_to_string(live.join(path)).ok();
        let of_the_store = Some("of the store".to_owned());
        assert_eq!(text("a/second/base/1").as_deref(), Some("of the service"));
        assert_eq!(text(".darlings/adopt/1/second/file"), of_the_store);
        assert_eq!(text("a/first/file"), of_the_store);
        assert_eq!(text("b/third/file"), of_the_store);

        let is_moved = remedy == "move what is there";
        if is_moved {
            std::fs::rename(live.join("a/second"), live.join("a/away"))?;
        } else {
            std::fs::remove_dir_all(live.join(copy.trim_start_matches('/')))?;
        }
        assert_eq!(adopt(&machine, &[])?.code, Some(0), "{remedy}");
        assert_eq!(text("a/second/file"), of_the_store.filter(|_| is_moved), "{remedy}");
        assert_eq!(text("a/second/base/1").is_some(), !is_moved, "{remedy}");
        assert!(!live.join(".darlings/adopt").exists(), "{remedy}");
        machine.close()?;
    }
    Ok(())
}

/// In one run too, since a large copy takes minutes.
#[test]
fn what_came_to_a_place_while_it_was_copied_stays() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |live| Ok(std::fs::create_dir_all(live.join("a/b"))?))?;
    let machine = machine.persist("/a/b", &[]);
    let live = machine.volume.live();
    machine.volume.make_subvolume("@persist")?;
    put(&store(&machine), "a/b/file", "of the store")?;
    // It waits before it makes the copies durable, and somebody else goes on.
    let adopt = machine.word("adopt", &machine.config())?;
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-o", "/dev/null", "-e", "trace=syncfs", "-e"]);
    command.arg("inject=syncfs:delay_enter=1500000:when=1");
    command.arg(adopt.get_program()).args(adopt.get_args()).arg("--from").arg(store(&machine));
    let ran = std::thread::scope(|scope| {
        let running = scope.spawn(|| machine.ran(&mut command));
        while !live.join(".darlings/adopt/0/b/file").exists() && !running.is_finished() {
            std::thread::yield_now();
        }
        put(&live, "a/b/own", "of the service")?;
        running.join().unwrap()
    })?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(std::fs::read_to_string(live.join("a/b/own"))?, "of the service");
    assert_eq!(std::fs::read_to_string(live.join(".darlings/adopt/0/b/file"))?, "of the store");
    machine.close()
}

/// A machine of which a directory that something is mounted on was filled with one of three files when
/// that was interrupted; with its configuration, the mount point, and what the store has for it.
fn half_filled() -> Result<(Machine, String, PathBuf, PathBuf)> {
    for when in 1.. {
        let mut machine =
            Machine::new(|_| Ok(()), |live| Ok(std::fs::create_dir(live.join("log"))?))?;
        machine.volume.make_subvolume("@persist")?;
        let root = machine.volume.fs.mount_at("live", "subvol=@")?;
        let from = store(&machine).join(root.strip_prefix("/")?).join("log");
        for name in ["one", "two", "three"] {
            put(&from, name, name)?;
        }
        let log = root.join("log");
        run(Command::new("mount").arg("--bind").arg(&from).arg(&log))?;
        let config = format!(
            "[[volume]]\nmount_point = {}\nbtrfs = {{ device = {}, subvolume = \"@\", blank = \"empty\" }}\n\
             [[persist]]\npath = {}\n",
            quoted(&root.display().to_string()),
            quoted(&machine.volume.fs.device().display().to_string()),
            quoted(&log.display().to_string()),
        );
        assert!(killed_with(&machine, &config, "renameat2", when)?, "it was never half filled");
        if common::directory::names(&machine.at("@/log"), &[])?.len() == 1 {
            return Ok((machine, config, log, from));
        }
        unmount(&log)?;
        machine.close()?;
    }
    unreachable!("it ends before")
}

#[test]
fn a_mount_point_that_is_half_filled_is_filled_to_its_end_whatever_is_mounted_then() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (is_mounted, is_taken) in [(true, false), (false, false), (false, true)] {
        let at = format!("mounted {is_mounted}, taken {is_taken}");
        let (machine, config, log, from) = half_filled()?;
        let there = machine.at("@/log");
        let rest = common::directory::names(&machine.at("@/.darlings/adopt/0/log"), &[])?;
        assert_eq!(rest.len(), 2, "{at}");
        if !is_mounted {
            unmount(&log)?;
        }
        if is_taken {
            put(&there, &rest[0], "of a service")?;
        }
        let mut command = machine.word("adopt", &config)?;
        let ran = machine.ran(command.arg("--from").arg(store(&machine)))?;
        if is_taken {
            assert_eq!(ran.code, Some(1), "{at}: {ran:?}");
            let told = format!(
                "{0}: cannot be brought over: an interrupted run had put a part of it there, and the rest \
                 cannot follow; unmount what is mounted on {0}, move it away if it is there, remove {1}, \
                 and run this again",
                log.display(),
                log.with_file_name(".darlings/adopt").display(),
            );
            assert_eq!(lines(&ran), [told], "{at}");
            assert_eq!(std::fs::read_to_string(there.join(&rest[0]))?, "of a service");
            // As it says.
            std::fs::rename(&there, machine.at("@/away"))?;
            std::fs::remove_dir_all(machine.at("@/.darlings/adopt"))?;
            let mut command = machine.word("adopt", &config)?;
            let ran = machine.ran(command.arg("--from").arg(store(&machine)))?;
            assert_eq!(ran.code, Some(0), "{at}: {ran:?}");
        } else {
            assert_eq!(ran.code, Some(0), "{at}: {ran:?}");
        }
        let filled = differences(&capture(&there)?, &capture(&from)?);
        assert_eq!(filled, "", "{at}");
        assert!(!machine.at("@/.darlings/adopt").exists(), "{at}");
        if is_mounted {
            unmount(&log)?;
        }
        machine.close()?;
    }
    Ok(())
}
