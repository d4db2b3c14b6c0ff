//! Persisted paths whose content lies elsewhere in the volume: symbolic links, homes of systemd-homed, and
//! what is mounted from an image on the volume.

use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::looking::Directory;
use crate::common::{self, Machine, put, quoted};
use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::{run, unmount};
use darlings_testkit::{capability, skip_unless};
use serde_json::{Value, json};

const BOOT_ANYWAY: i32 = 10;

const DYNAMIC_USER: &str = "/var/lib/dyn is a symbolic link to private/dyn, and a reset erases that; persist \
                            /var/lib/private/dyn";

/// As systemd has it for a service with `DynamicUser=`.
fn dynamic_user(live: &Path) -> Result<()> {
    put(live, "var/lib/private/dyn/state", "state")?;
    Ok(symlink("private/dyn", live.join("var/lib/dyn"))?)
}

/// The problems and the notes of a check of the one volume, but for that something else is mounted at `/`.
fn checked(machine: &Machine) -> Result<(Option<i32>, Vec<String>, Vec<String>)> {
    let said =
        machine.say(&["check", "--json", "--fstab", "/dev/null", "--cmdline", "/dev/null"])?;
    let list = |key: &str| -> Result<Vec<String>> {
        let mut all: Vec<String> = serde_json::from_value(said.json()?["volumes"][0][key].clone())?;
        all.retain(|it| !it.starts_with("what is mounted there now is "));
        Ok(all)
    };
    Ok((said.code, list("problems")?, list("notes")?))
}

fn warnings(ran: &common::Ran) -> Vec<&str> {
    let lines = ran.stderr.lines();
    lines.filter_map(|line| line.strip_prefix("warning: ")).collect()
}

#[test]
fn a_persisted_link_of_roots_is_refused_until_what_it_leads_to_is_persisted() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["carry", "rollback"] {
        let mut machine = Machine::new(|_| Ok(()), dynamic_user)?;
        machine.strategy = strategy.to_owned();
        let mut machine = machine.persist("/var/lib/dyn", &[]);
        let before = machine.whole()?;
        assert_eq!(checked(&machine)?, (Some(1), vec![DYNAMIC_USER.to_owned()], vec![]));
        let ran = machine.reset()?;
        assert_eq!(ran.code, Some(BOOT_ANYWAY));
        let expected =
            format!("error: no volume was reset; all are as they were: /: {DYNAMIC_USER}\n");
        assert_eq!(ran.stderr, expected);
        assert_eq!(machine.whole()?.differences(&before), "");
        machine = machine.persist("/var/lib/private/dyn", &[]);
        assert_eq!(checked(&machine)?, (Some(0), vec![], vec![]));
        let ran = machine.reset_and_compare()?;
        assert_eq!(warnings(&ran), Vec::<&str>::new());
        assert_eq!(machine.text("var/lib/dyn/state")?.as_deref(), Some("state"));
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_plain_directory_is_refused_in_the_same_words() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Directory::new("[[persist]]\npath = \"/var/lib/dyn\"\n", |_| Ok(()))?;
    dynamic_user(&volume.live())?;
    let said = volume.say(&["reset", "--cmdline", "/dev/null", "--report", "/dev/null/none"])?;
    assert_eq!(said.code, Some(BOOT_ANYWAY));
    assert!(said.stderr.contains(&format!("/: {DYNAMIC_USER}\n")), "{said:?}");
    assert!(volume.live().join("var/lib/dyn/state").exists());
    volume.close()
}

/// Whoever owns a directory above the link or above what it leads to has a word in it, and no say in
/// whether the volume is reset.
#[test]
fn a_link_that_a_user_can_have_made_is_a_warning() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "home/mia/work/thesis", "thesis")?;
            put(live, "srv/data/file", "of root")?;
            symlink("work", live.join("home/mia/docs"))?;
            symlink("../../srv/data", live.join("home/mia/data"))?;
            symlink("/home/mia/work", live.join("srv/work"))?;
            lchown(live.join("home/mia"), Some(1000), Some(1000))?;
            Ok(lchown(live.join("home/mia/docs"), Some(1000), Some(1000))?)
        },
    )?;
    let kept = ["/home/mia/docs", "/home/mia/data", "/srv/work"];
    let machine = kept.iter().fold(machine, |machine, path| machine.persist(path, &[]));
    let expected = [
        "/home/mia/data is a symbolic link to ../../srv/data, and a reset erases that; persist /srv/data",
        "/home/mia/docs is a symbolic link to work, and a reset erases that; persist /home/mia/work",
        "/srv/work is a symbolic link to /home/mia/work, and a reset erases that; persist /home/mia/work",
    ];
    assert_eq!(checked(&machine)?, (Some(0), vec![], expected.map(str::to_owned).to_vec()));
    let ran = machine.reset_and_compare()?;
    assert_eq!(warnings(&ran), expected.map(|it| format!("/: {it}")));
    assert_eq!(std::fs::read_link(machine.at("@/home/mia/docs"))?, Path::new("work"));
    machine.close()
}

/// A target is bytes that a user has chosen, and need not be a path that any filesystem can have.
#[test]
fn a_link_of_a_user_that_leads_nowhere_in_the_strangest_words_stops_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "home/mia/fifo-above", "a file")?;
            for (name, target) in [
                ("name", "n".repeat(300)),
                ("above", format!("{}/x", "n".repeat(300))),
                ("deep", "d/".repeat(2047)),
                ("file", "fifo-above/x".to_owned()),
                ("back", "../".repeat(1365)),
            ] {
                let link = live.join("home/mia").join(name);
                symlink(target, &link)?;
                lchown(&link, Some(1000), Some(1000))?;
            }
            Ok(lchown(live.join("home/mia"), Some(1000), Some(1000))?)
        },
    )?;
    let names = ["name", "above", "deep", "file", "back"];
    let machine = names
        .iter()
        .fold(machine, |machine, name| machine.persist(&format!("/home/mia/{name}"), &[]));
    assert_eq!(checked(&machine)?, (Some(0), vec![], vec![]));
    let ran = machine.reset_and_compare()?;
    assert_eq!(warnings(&ran), Vec::<&str>::new());
    machine.close()
}

#[test]
fn a_link_is_nothing_to_speak_of_where_nothing_that_it_leads_to_is_erased() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            put(blank, "usr/share/zone", "UTC")?;
            put(blank, "usr/share/changed", "of the blank")?;
            put(blank, "usr/lib/directory/file", "of the blank")
        },
        |live| {
            put(live, "usr/share/changed", "of the live volume")?;
            put(live, "usr/lib/directory/new", "erased, as everything in it")?;
            put(live, "var/kept/file", "kept")?;
            for (name, target) in [
                ("zone", "../usr/share/zone"),
                ("directory", "/usr/lib/directory"),
                ("changed", "again"),
                ("again", "/usr/share/changed"),
                ("outside", "/../run/somewhere"),
                ("nowhere", "/run/nowhere"),
                ("kept", "/var/kept"),
                ("loop", "loop"),
                ("root", "/"),
            ] {
                put(live, "etc/file", "")?;
                symlink(target, live.join("etc").join(name))?;
            }
            Ok(())
        },
    )?;
    let names = ["zone", "directory", "changed", "outside", "nowhere", "kept", "loop", "root"];
    let machine = names.iter().fold(machine.persist("/var/kept", &[]), |machine, name| {
        machine.persist(&format!("/etc/{name}"), &[])
    });
    let expected = "/etc/changed is a symbolic link to again, which leads to /usr/share/changed, and a reset \
                    puts the blank's in place of that; persist /usr/share/changed";
    assert_eq!(checked(&machine)?, (Some(0), vec![], vec![expected.to_owned()]));
    let ran = machine.reset_and_compare()?;
    assert_eq!(warnings(&ran), [format!("/: {expected}")]);
    machine.close()
}

/// As `/srv/media` to another disk, which is mounted at `/mnt/media` after the reset.
#[test]
fn a_link_to_an_empty_directory_stands_for_nothing_that_could_be_erased() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            std::fs::create_dir_all(live.join("mnt/media"))?;
            std::fs::create_dir(live.join("srv"))?;
            Ok(symlink("/mnt/media", live.join("srv/media"))?)
        },
    )?;
    machine.blank = "empty".to_owned();
    let machine = machine.persist("/srv/media", &[]);
    // Where it is a user's, whether the volume is reset must not depend on what the user puts there.
    let (directory, file) = (machine.at("@/mnt/media"), machine.at("@/mnt/media/file"));
    lchown(&directory, Some(1000), Some(1000))?;
    let refused =
        "/srv/media is a symbolic link to /mnt/media, and a reset erases that; persist /mnt/media";
    assert_eq!(checked(&machine)?, (Some(1), vec![refused.to_owned()], vec![]));
    std::fs::write(&file, "")?;
    assert_eq!(checked(&machine)?, (Some(1), vec![refused.to_owned()], vec![]));
    std::fs::remove_file(&file)?;
    lchown(&directory, Some(0), Some(0))?;
    assert_eq!(checked(&machine)?, (Some(0), vec![], vec![]));
    let ran = machine.reset_and_compare()?;
    assert_eq!(warnings(&ran), Vec::<&str>::new());
    machine.close()
}

#[test]
fn a_home_of_systemd_homed_is_refused_without_what_holds_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "home/zoe.home", "an image")?;
            std::fs::create_dir(live.join("home/zoe"))?;
            put(live, "home/tom.homedir/file", "of tom")?;
            put(live, "home/mia/file", "of mia")?;
            put(live, "home/mia.home", "not of systemd-homed: mia has a home")
        },
    )?;
    let homes = ["/home/zoe", "/home/tom", "/home/mia"];
    let machine = homes.iter().fold(machine, |machine, path| machine.persist(path, &[]));
    let expected = "/home/tom is where systemd-homed mounts /home/tom.homedir, and a reset erases that; persist \
                    /home/tom.homedir; /home/zoe is where systemd-homed mounts /home/zoe.home, and a reset \
                    erases that; persist /home/zoe.home";
    assert_eq!(checked(&machine)?, (Some(1), vec![expected.to_owned()], vec![]));
    let before = machine.whole()?;
    let ran = machine.reset()?;
    assert_eq!(ran.code, Some(BOOT_ANYWAY));
    assert_eq!(
        ran.stderr,
        format!("error: no volume was reset; all are as they were: /: {expected}\n")
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    let machine = machine.persist("/home/zoe.home", &[]).persist("/home/tom.homedir", &[]);
    assert_eq!(checked(&machine)?, (Some(0), vec![], vec![]));
    machine.reset_and_compare()?;
    machine.close()
}

#[test]
fn what_is_mounted_from_an_image_on_the_volume_is_only_as_safe_as_the_image() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            std::fs::create_dir_all(live.join("srv/data/mounted"))?;
            put(live, "srv/own", "kept")?;
            Ok(std::fs::create_dir(live.join("images"))?)
        },
    )?;
    let root = machine.volume.fs.mount_at("live", "subvol=@")?;
    let at = |path: &str| root.join(path).display().to_string();
    let image = at("images/data.img");
    std::fs::File::create(&image)?.set_len(8 << 20)?;
    run(Command::new("mkfs.ext4").args(["-q", &image]))?;
    let device = run(Command::new("losetup").args(["--find", "--show", &image]))?.trim().to_owned();
    run(Command::new("mount").args([&device, &at("srv/data/mounted")]))?;
    put(&root, "srv/data/mounted/file", "in the image")?;
    let config = |persist: &[&str]| {
        let tables = persist.iter().map(|it| format!("[[persist]]\npath = {}\n", quoted(&at(it))));
        format!(
            "[[volume]]\nmount_point = {}\nbtrfs = {{ device = {}, subvolume = \"@\", blank = \"empty\" }}\n{}",
            quoted(&root.display().to_string()),
            quoted(&machine.volume.fs.device().display().to_string()),
            tables.collect::<String>(),
        )
    };
    let look = |persist: &[&str]| -> Result<(Option<i32>, Value, Option<i32>, Value)> {
        let config = config(persist);
        let fstab = ["--fstab", "/dev/null", "--cmdline", "/dev/null"];
        let check = machine.say_with(&config, &[&["check", "--json"], &fstab[..]].concat())?;
        let file = at("srv/data/mounted/file");
        let explain = machine.say_with(&config, &["explain", "--json", &file])?;
        Ok((check.code, check.json()?["volumes"][0].clone(), explain.code, explain.json()?))
    };
    let looked = (|| -> Result<_> {
        let erased = look(&["srv/data"])?;
        let undeclared = look(&["srv/own"])?;
        let kept = look(&["srv/data", "images/data.img"])?;
        let file = at("srv/data/mounted/file");
        let text = machine.say_with(&config(&["srv/data"]), &["explain", &file])?.stdout;
        Ok((erased, undeclared, kept, text))
    })();
    unmount(Path::new(&at("srv/data/mounted")))?;
    run(Command::new("losetup").args(["--detach", &device]))?;
    let (erased, undeclared, kept, text) = looked?;
    let words = format!(
        "{} is mounted from {image}, which is not kept: the next reset erases it with all that is in it; \
         persist {image}",
        at("srv/data/mounted")
    );
    let (code, check, explained, explain) = erased;
    assert_eq!((code, &check["problems"], explained), (Some(1), &json!([words]), Some(3)));
    assert_eq!(explain["mounted_from"], json!(image));
    let verdicts = explain["explained"].as_array().context("nothing is explained")?;
    let verdicts: Vec<&Value> = verdicts.iter().map(|it| &it["verdict"]).collect();
    assert_eq!(verdicts, ["mounted_over", "not_kept"]);
    let heading = format!("\nWhat is mounted there comes from {image}:\n\n{image}: not kept\n");
    assert!(text.contains(&heading), "{text}");
    let (code, check, explained, _) = undeclared;
    assert_eq!((code, explained), (Some(0), Some(3)), "{check}");
    assert_eq!((&check["problems"], &check["notes"]), (&json!([]), &json!([words])));
    let (code, check, explained, _) = kept;
    assert_eq!((code, &check["problems"], explained), (Some(0), &json!([]), Some(0)), "{check}");
    machine.close()
}
