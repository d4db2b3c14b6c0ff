//! `darlings adopt`: from a store to the places, whole and once.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::common::adopting::{adopt, differences, is_brought, lines, store};
use crate::common::{Machine, Ran, put, quoted};
use anyhow::Result;
use darlings_testkit::loopfs::{Filesystem, LoopFs, run, unmount};
use darlings_testkit::{Attribute, Tree, capability, capture, fill, plant, skip_unless};
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
        "/etc/machine-id: cannot be brought over: a symbolic link with content of its own is there; \
         move it away, or keep it and ignore the store's"
    );
    assert_eq!(
        told[1],
        "/home/mia/.ssh: cannot be brought over: \"/home\" is a symbolic link, which is not followed"
    );
    assert_eq!(
        told[4],
        "/var/log: cannot be brought over: a directory with content of its own is there; move it \
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
    let own = "a directory with content of its own is there; move it away, or keep it and ignore the \
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
                "{spool}: cannot be brought over: a directory with content of its own is hidden below \
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
        unmount(&root.join(path))?;
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
