//! `darlings adopt`: from a store to the places, whole, once, and through interruptions.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use common::{Machine, Ran, put, quoted};
use darlings_testkit::loopfs::{Filesystem, LoopFs, run};
use darlings_testkit::{
    Attribute, Compare, Tree, capability, capture, difference, fill, plant, skip_unless,
};
use serde_json::json;

/// A machine that lives on a store: the store has everything, the volume nothing but what things
/// are mounted on.
fn machine() -> Result<Machine> {
    let machine = Machine::new(
        |blank| put(blank, "etc/issue", "blank"),
        |live| {
            std::fs::create_dir_all(live.join("var/log"))?;
            put(live, "etc/machine-id", "")
        },
    )?;
    machine.volume.make_subvolume("@persist")?;
    let store = store(&machine);
    put(&store, "var/log/messages", "precious")?;
    put(&store, "var/lib/everything/first", "one")?;
    let everything = store.join("var/lib/everything");
    let refused = fill::everything(&everything)?;
    assert!(refused.is_empty(), "{refused:?}");
    put(&store, "etc/machine-id", "0123")?;
    put(&store, "home/mia/.ssh/key", "secret")?;
    for (path, owner, mode) in [("home/mia", 1000, 0o711), ("home/mia/.ssh", 1000, 0o700)] {
        plant::owner(&store.join(path), owner, 100)?;
        plant::mode(&store.join(path), mode)?;
    }
    Ok(machine
        .persist("/var/log", &[])
        .persist("/var/lib/everything", &[])
        .persist("/etc/machine-id", &[])
        .persist("/home/mia/.ssh", &[])
        .persist("/srv/nowhere", &[]))
}

fn store(machine: &Machine) -> PathBuf {
    machine.at("@persist")
}

fn adopt(machine: &Machine, arguments: &[&str]) -> Result<Ran> {
    let mut command = machine.word("adopt", &machine.config())?;
    machine.ran(command.arg("--from").arg(store(machine)).args(arguments))
}

/// The lines about paths; how many bytes went which way depends on the store.
fn lines(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().filter(|line| line.starts_with('/')).collect()
}

/// What differs between two trees. Nobody can read a link without changing when it was last read.
fn differences(one: &Tree, other: &Tree) -> String {
    let compare = Compare::all().without(Attribute::AccessTime);
    difference::lines(&one.diff_with(other, &compare))
}

/// What was brought over, compared with the store.
fn is_brought(machine: &Machine, path: &str) -> Result<()> {
    let (from, to) = (store(machine).join(path), machine.volume.live().join(path));
    if from.is_dir() {
        let lines = differences(&capture(&to)?, &capture(&from)?);
        assert_eq!(lines, "", "{path}");
    } else {
        assert_eq!(std::fs::read(&to)?, std::fs::read(&from)?, "{path}");
        let of = |path: &Path| -> Result<_> {
            let found = std::fs::symlink_metadata(path)?;
            Ok((found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec()))
        };
        assert_eq!(of(&to)?, of(&from)?, "{path}");
    }
    Ok(())
}

const DECLARED: [&str; 4] = ["var/log", "var/lib/everything", "etc/machine-id", "home/mia/.ssh"];

#[test]
fn a_store_is_brought_over_whole_and_stays_and_a_reset_keeps_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let before = capture(&store(&machine))?;
    let ran = adopt(&machine, &[])?;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = lines(&ran);
    assert_eq!(told[0], "/etc/machine-id: brought over: 1 entries, 4 B");
    assert_eq!(told[1], "/home/mia/.ssh: brought over: 2 entries, 6 B");
    assert_eq!(told[2], "/srv/nowhere: is not in the store");
    assert!(told[3].starts_with("/var/lib/everything: brought over: "), "{told:?}");
    assert_eq!(told[4], "/var/log: brought over: 2 entries, 8 B");
    assert!(ran.stdout.contains(" shared by reflink\n"), "{}", ran.stdout);
    for path in DECLARED {
        is_brought(&machine, path)?;
    }
    // A directory above, which the volume did not have, is made after the store's.
    let home = std::fs::metadata(machine.volume.live().join("home/mia"))?;
    assert_eq!((home.uid(), home.gid(), home.mode() & 0o7777), (1000, 100, 0o711));
    let untouched = differences(&capture(&store(&machine))?, &before);
    assert_eq!(untouched, "", "the store was changed");
    assert!(!machine.at("@/.darlings/adopt").exists());

    let again = adopt(&machine, &[])?;
    assert_eq!(again.code, Some(0));
    assert_eq!(
        again.stdout,
        "/etc/machine-id: was brought over before\n/home/mia/.ssh: was brought over before\n\
         /srv/nowhere: is not in the store\n/var/lib/everything: was brought over before\n\
         /var/log: was brought over before\n"
    );
    machine.reset_and_compare()?;
    for path in DECLARED {
        is_brought(&machine, path)?;
    }
    machine.close()
}

#[test]
fn a_dry_run_tells_the_same_and_changes_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let before = machine.whole()?;
    let json = adopt(&machine, &["--dry-run", "--json"])?;
    let found: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(
        (&found["dry_run"], &found["volumes"][0]["paths"][0]["entries"]),
        (&true.into(), &serde_json::Value::Null)
    );
    let ran = adopt(&machine, &["--dry-run"])?;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (
            Some(0),
            "/etc/machine-id: is brought over\n/home/mia/.ssh: is brought over\n\
             /srv/nowhere: is not in the store\n/var/lib/everything: is brought over\n\
             /var/log: is brought over\n"
        )
    );
    assert_eq!(before.differences(&machine.whole()?), "");
    machine.close()
}

#[test]
fn what_has_a_content_of_its_own_is_left_and_the_rest_is_brought() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let live = machine.volume.live();
    put(&live, "var/log/own", "own")?;
    std::fs::remove_file(live.join("etc/machine-id"))?;
    symlink("/etc/elsewhere", live.join("etc/machine-id"))?;
    std::fs::create_dir_all(live.join("real"))?;
    symlink("real", live.join("home"))?;
    let ran = adopt(&machine, &[])?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = lines(&ran);
    assert_eq!(
        told[0],
        "/etc/machine-id: cannot be brought over: a symbolic link with a content of its own is there; \
         move it away, or keep it and ignore the store's"
    );
    assert_eq!(
        told[1],
        "/home/mia/.ssh: cannot be brought over: \"/home\" is a symbolic link, which is not followed"
    );
    assert_eq!(
        told[4],
        "/var/log: cannot be brought over: a directory with a content of its own is there; move it \
         away, or keep it and ignore the store's"
    );
    assert_eq!(std::fs::read_to_string(live.join("var/log/own"))?, "own");
    assert!(!live.join("var/log/messages").exists());
    assert_eq!(std::fs::read_dir(live.join("real"))?.count(), 0);
    is_brought(&machine, "var/lib/everything")?;
    machine.close()
}

#[test]
fn a_link_into_the_store_makes_way_for_what_it_stands_for() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let live = machine.volume.live();
    for path in ["etc/machine-id", "var/lib/everything"] {
        std::fs::create_dir_all(live.join(path).parent().unwrap())?;
        if live.join(path).exists() {
            std::fs::remove_file(live.join(path))?;
        }
        symlink(store(&machine).join(path), live.join(path))?;
    }
    assert_eq!(adopt(&machine, &[])?.code, Some(0));
    for path in DECLARED {
        assert!(!live.join(path).is_symlink(), "{path}");
        is_brought(&machine, path)?;
    }
    machine.close()
}

#[test]
fn what_is_excluded_stays_in_the_store_but_for_what_is_declared_in_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?;
    let machine = machine.persist("/p", &["cache"]).persist("/p/cache/wanted", &[]);
    machine.volume.make_subvolume("@persist")?;
    let from = store(&machine);
    for path in ["p/file", "p/cache/junk", "p/cache/wanted/file"] {
        put(&from, path, path)?;
    }
    std::fs::hard_link(from.join("p/file"), from.join("p/cache/wanted/same"))?;
    plant::mode(&from.join("p/cache"), 0o750)?;
    assert_eq!(adopt(&machine, &[])?.code, Some(0));
    let live = machine.volume.live();
    assert_eq!(std::fs::read_to_string(live.join("p/cache/wanted/file"))?, "p/cache/wanted/file");
    assert!(!live.join("p/cache/junk").exists());
    assert_eq!(std::fs::metadata(live.join("p/cache"))?.permissions().mode() & 0o7777, 0o750);
    let inode = |path: &str| std::fs::metadata(live.join(path)).map(|found| found.ino());
    assert_eq!(inode("p/file")?, inode("p/cache/wanted/same")?, "no longer one file");
    machine.close()
}

#[test]
fn what_holds_a_subvolume_stays_in_the_store_and_the_rest_is_brought() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    machine.volume.make_subvolume("@persist/var/log/journal")?;
    std::fs::create_dir(store(&machine).join("srv"))?;
    machine.volume.make_subvolume("@persist/srv/nowhere")?;
    let ran = adopt(&machine, &[])?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = lines(&ran);
    let because = |path: &str| {
        format!(
            "cannot be brought over: {:?} is a subvolume of its own, which is not copied with what is \
             around it; make it an ordinary directory (cp -a --reflink=auto), and run this again",
            store(&machine).join(path)
        )
    };
    assert_eq!(told[2], format!("/srv/nowhere: {}", because("srv/nowhere")));
    assert_eq!(told[4], format!("/var/log: {}", because("var/log/journal")));
    for path in ["var/lib/everything", "etc/machine-id", "home/mia/.ssh"] {
        is_brought(&machine, path)?;
    }
    assert_eq!(std::fs::read_dir(machine.volume.live().join("var/log"))?.count(), 0);
    assert!(!machine.volume.live().join("srv").exists());
    assert!(!machine.at("@/.darlings/adopt").exists());
    machine.close()
}

#[test]
fn what_became_of_each_path_is_told_as_json() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |live| put(live, "own/file", "own"))?;
    machine.volume.make_subvolume("@persist")?;
    for path in ["before", "own/file", "now/file"] {
        put(&store(&machine), path, path)?;
    }
    symlink(store(&machine).join("linked"), machine.volume.live().join("linked"))?;
    let machine = machine.persist("/before", &[]);
    assert_eq!(adopt(&machine, &[])?.code, Some(0));
    let machine = ["/own", "/now", "/nowhere", "/linked"]
        .into_iter()
        .fold(machine, |machine, path| machine.persist(path, &[]));
    let ran = adopt(&machine, &["--json"])?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let found: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    let path = |path: &str, fate: &str, counts: Option<(u64, u64)>, why: Option<&str>| {
        let (entries, bytes) = counts.unzip();
        json!({ "path": path, "fate": fate, "entries": entries, "bytes": bytes, "why": why })
    };
    let own = "a directory with a content of its own is there; move it away, or keep it and ignore the \
               store's";
    assert_eq!(
        found,
        json!({
            "version": 1,
            "dry_run": false,
            "volumes": [{
                "mount_point": "/",
                "paths": [
                    path("/before", "already", None, None),
                    path("/linked", "unlinked", None, None),
                    path("/now", "adopt", Some((2, 8)), None),
                    path("/nowhere", "absent", None, None),
                    path("/own", "blocked", None, Some(own)),
                ],
                "bytes": { "reflinked": 8, "copy_file_range": 0, "copied": 0 },
            }],
        })
    );
    machine.close()
}

/// Below the mounts of the running system, which go on as they are.
#[test]
fn a_system_that_runs_on_the_store_is_filled_below_its_mounts() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    let root = machine.volume.fs.mount_at("live", "subvol=@")?;
    let below = root.strip_prefix("/")?.to_owned();
    // The store has it at the path that it has in the running system.
    let from = store(&machine).join(&below);
    std::fs::create_dir_all(&from)?;
    for path in ["var", "etc"] {
        std::fs::rename(store(&machine).join(path), from.join(path))?;
    }
    plant::xattr(&from.join("var/log"), "user.colour", b"blue")?;
    plant::mode(&from.join("var/log"), 0o2750)?;
    let expected = capture(&from.join("var/log"))?;
    let bind = |path: &str| {
        run(Command::new("mount").arg("--bind").args([from.join(path), root.join(path)]))
    };
    let inode = std::fs::metadata(machine.at("@/etc/machine-id"))?.ino();
    bind("var/log")?;
    bind("etc/machine-id")?;
    // What was written before the mount is hidden by it.
    put(&from, "var/spool/mail", "store")?;
    put(&root, "var/spool/early", "hidden")?;
    bind("var/spool")?;
    plant::mode(&from.join("etc/machine-id"), 0o444)?;
    plant::xattr(&from.join("etc/machine-id"), "user.colour", b"red")?;
    plant::flag(&from.join("etc/machine-id"), Attribute::Immutable)?;
    let id_expected = capture(&from.join("etc"))?;
    let mut config = format!(
        "[[volume]]\nmount_point = {}\nbtrfs = {{ device = {}, subvolume = \"@\", blank = \"empty\" }}\n",
        quoted(&root.display().to_string()),
        quoted(&machine.volume.fs.device().display().to_string()),
    );
    for path in ["var/log", "etc/machine-id", "var/spool"] {
        let path = quoted(&root.join(path).display().to_string());
        config.extend(["[[persist]]\npath = ", &path, "\n"]);
    }
    let run_it = || -> Result<Ran> {
        let mut command = machine.word("adopt", &config)?;
        machine.ran(command.arg("--from").arg(store(&machine)))
    };
    let ran = run_it()?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let [log, id, spool] = ["var/log", "etc/machine-id", "var/spool"]
        .map(|path| root.join(path).display().to_string());
    assert_eq!(
        lines(&ran),
        [
            format!("{id}: brought over: 1 entries, 4 B"),
            format!("{log}: brought over: 2 entries, 8 B"),
            format!(
                "{spool}: cannot be brought over: a directory with a content of its own is hidden below \
                 what is mounted on it; after `mount --bind {} /mnt` it is /mnt/var/spool: move it away, \
                 and run this again",
                root.display()
            ),
        ]
    );
    let filled = capture(&machine.at("@/var/log"))?;
    assert_eq!(filled.diff_lines(&expected), "");
    // The file that it is mounted on is still the same one.
    let there = machine.at("@/etc/machine-id");
    assert_eq!(std::fs::metadata(&there)?.ino(), inode);
    let filled = capture(&machine.at("@/etc"))?;
    assert_eq!(filled.at("machine-id"), id_expected.at("machine-id"));
    // Still mounted, and still the store's.
    std::fs::write(root.join("var/log/later"), "later")?;
    assert!(from.join("var/log/later").exists());
    assert!(!machine.at("@/var/log/later").exists());
    assert!(std::fs::write(root.join("etc/machine-id"), "x").is_err(), "no longer the store's");

    std::fs::remove_file(machine.at("@/var/spool/early"))?;
    let again = run_it()?;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(std::fs::read_to_string(machine.at("@/var/spool/mail"))?, "store");
    for path in ["var/log", "etc/machine-id", "var/spool"] {
        run(Command::new("umount").arg(root.join(path)))?;
    }
    machine.close()
}

/// As impermanence and preservation make them, by whatever name of the store.
#[test]
fn links_into_the_store_are_told_from_others_and_none_is_left_to_nowhere() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?.persist("/etc/never-written", &[]).persist("/etc/elsewhere", &[]);
    let live = machine.volume.live();
    let other_name = machine.beside("persist");
    symlink(store(&machine), &other_name)?;
    std::fs::remove_file(live.join("etc/machine-id"))?;
    symlink(other_name.join("etc/machine-id"), live.join("etc/machine-id"))?;
    symlink(store(&machine).join("etc/never-written"), live.join("etc/never-written"))?;
    symlink("/nonexistent", live.join("etc/elsewhere"))?;
    let ran = adopt(&machine, &["--dry-run"])?;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = lines(&ran);
    assert_eq!(told[0], "/etc/elsewhere: is not in the store");
    assert_eq!(told[1], "/etc/machine-id: is brought over");
    assert_eq!(
        told[2],
        "/etc/never-written: is not in the store, and the link to its place there is removed"
    );
    assert!(live.join("etc/never-written").is_symlink(), "a dry run removed it");
    assert_eq!(adopt(&machine, &[])?.code, Some(0));
    is_brought(&machine, "etc/machine-id")?;
    assert!(!live.join("etc/machine-id").is_symlink());
    assert!(!live.join("etc/never-written").is_symlink());
    assert!(live.join("etc/elsewhere").is_symlink());
    machine.close()
}

#[test]
fn a_store_that_the_next_reset_would_take_is_refused_unless_it_is_declared() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/var/log", &[]);
    let live = machine.volume.live();
    put(&live, "persist/var/log/messages", "precious")?;
    machine.volume.make_subvolume("@/nested")?;
    put(&live, "nested/var/log/messages", "precious")?;
    let before = machine.whole()?;
    for (from, how) in [("persist", ""), ("persist", "--dry-run"), ("nested", "")] {
        let mut command = machine.word("adopt", &machine.config())?;
        command.arg("--from").arg(live.join(from)).args(Some(how).filter(|it| !it.is_empty()));
        let ran = machine.ran(&mut command)?;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(
            ran.stderr,
            format!(
                "error: /: the store {:?} lies on this volume and is not declared, so that the next reset \
                 would take it; copy it to a file system that is not reset, or declare \"/{from}\" as well, \
                 and run this again\n",
                live.join(from)
            )
        );
    }
    assert_eq!(before.differences(&machine.whole()?), "");
    let machine = machine.persist("/persist", &[]);
    let mut command = machine.word("adopt", &machine.config())?;
    let ran = machine.ran(command.arg("--from").arg(live.join("persist")))?;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(std::fs::read_to_string(live.join("var/log/messages"))?, "precious");
    machine.close()
}

#[test]
fn nothing_is_brought_over_while_another_run_is_at_work() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    machine.reset_well()?;
    let own = std::fs::File::open(machine.at("@/.darlings"))?;
    rustix::fs::flock(&own, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let ran = adopt(&machine, &[])?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("another run is at work in .darlings, a purge perhaps; wait for it"),
        "{ran:?}"
    );
    assert_eq!(adopt(&machine, &["--dry-run"])?.code, Some(0));
    drop(own);
    assert_eq!(adopt(&machine, &[])?.code, Some(0));
    machine.close()
}

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
    for call in
        ["mkdirat", "openat", "renameat2", "renameat", "unlinkat", "syncfs", "write", "ioctl"]
    {
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
        assert!(killed(&machine, "syncfs", 3)?);
        assert!(live.join(".darlings/adopt/complete").exists() && !live.join("a").exists());
        put(&live, "a/second/base/1", "of the service")?;
        let machine = machine.persist("/b/third", &[]);
        let copy = "/.darlings/adopt/1";
        let blocked = format!(
            "/a/second: cannot be brought over: a directory with a content of its own came there after it \
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
        run(Command::new("umount").arg(&log))?;
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
            run(Command::new("umount").arg(&log))?;
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
            run(Command::new("umount").arg(&log))?;
        }
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_plain_directory_is_filled_too() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let fs = LoopFs::new(Filesystem::Ext4)?;
    let scratch = tempfile::tempdir()?;
    let volume = fs.path().join("volume");
    std::fs::create_dir(&volume)?;
    let below = volume.strip_prefix("/")?;
    put(&scratch.path().join(below), "var/log/messages", "precious")?;
    let config = fs.holder().join("adopt.toml");
    std::fs::write(
        &config,
        format!(
            "[[volume]]\nmount_point = {0}\ndir = {{ path = {0}, blank = \"empty\" }}\n[[persist]]\npath = {1}\n",
            quoted(&volume.display().to_string()),
            quoted(&volume.join("var").display().to_string()),
        ),
    )?;
    let output = Command::new(env!("CARGO_BIN_EXE_darlings"))
        .args(["adopt", "--config"])
        .arg(&config)
        .arg("--from")
        .arg(scratch.path())
        .output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let tree = |path: PathBuf| -> Result<Tree> { capture(&path) };
    let (found, from) = (tree(volume.join("var"))?, tree(scratch.path().join(below).join("var"))?);
    assert_eq!(found.diff_lines(&from), "");
    fs.close()
}
