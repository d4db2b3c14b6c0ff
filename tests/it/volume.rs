//! What a reset does to a volume as a whole, by the real binary on real btrfs: its root, a blank that
//! is empty or was used, its generations, which subvolume is the default one, and what else is on the
//! filesystem.

use std::process::Command;

use crate::common::{Machine, marked, put, quoted, subvolumes_of, time};
use anyhow::Result;
use darlings_testkit::loopfs::run;
use darlings_testkit::{Attribute, capability, capture, plant, skip_unless};

#[test]
fn the_root_of_the_volume_is_as_in_the_blank_though_things_were_made_and_removed_in_it()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            put(blank, "keep", "of the blank")?;
            marked(blank, "", 1001)
        },
        |live| {
            put(live, "keep", "kept")?;
            marked(live, "", 2001)
        },
    )?
    .persist("/keep", &[]);
    machine.reset_and_compare()?;
    let result = capture(&machine.volume.live())?;
    let root = result.at("").unwrap();
    assert_eq!((root.owner, root.mtime, root.atime), (1001, time(2002), time(1001)));
    machine.close()
}

#[test]
fn a_root_that_is_immutable_in_the_blank_or_before_is_no_obstacle() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (of_blank, of_live) in [(true, false), (false, true)] {
        let mut machine =
            Machine::new(|_| Ok(()), |live| put(live, "keep", "kept"))?.persist("/keep", &[]);
        let fresh = machine.volume.make_subvolume("@other")?;
        put(&fresh, "file", "of the blank")?;
        machine.blank = "@other".to_owned();
        for (sealed, at) in [(of_blank, fresh), (of_live, machine.volume.live())] {
            if sealed {
                plant::flag(&at, Attribute::Immutable)?;
            }
        }
        machine.reset_and_compare()?;
        machine.reset_and_compare()?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_volume_that_is_a_read_only_subvolume_is_reset_all_the_same() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |live| put(live, "keep", "kept"))?.persist("/keep", &[]);
    let live = machine.volume.live();
    run(Command::new("btrfs").args(["property", "set", "-ts"]).arg(live).args(["ro", "true"]))?;
    machine.reset_and_compare()?;
    let read_only = subvolumes_of(machine.volume.fs.path(), &["-r"])?;
    let read_only: Vec<String> = read_only.into_keys().collect();
    assert_eq!(read_only, ["@blank", "@darlings/root/1"]);
    machine.close()
}

#[test]
fn a_blank_with_a_directory_of_the_tool_in_it_does_not_bring_it_along() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for immutable in [false, true] {
        let machine = Machine::new(
            |blank| {
                // As when a machine that was reset before becomes the blank.
                put(blank, ".darlings/generation", "41\n")?;
                put(blank, ".darlings/manifest", "{}")?;
                put(blank, ".darlings/attic/old", "old")?;
                let own = blank.join(".darlings");
                plant::mode(&own, 0o777)?;
                if immutable {
                    plant::flag(&own.join("generation"), Attribute::Immutable)?;
                    plant::flag(&own, Attribute::Immutable)?;
                }
                Ok(())
            },
            |live| {
                darlings_testkit::remove::all(&live.join(".darlings"))?;
                put(live, "keep", "kept")
            },
        )?
        .persist("/keep", &[]);
        machine.reset_and_compare()?;
        let own = capture(&machine.at("@/.darlings"))?;
        assert_eq!(own.paths(), [".", "generation", "manifest"]);
        assert_eq!(own.at("").unwrap().mode, 0o700);
        assert_eq!(machine.text(".darlings/generation")?.as_deref(), Some("1\n"));
        machine.close()?;
    }
    Ok(())
}

#[test]
fn an_empty_blank_leaves_the_persisted_paths_alone_and_the_root_as_it_was() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "var/log/journal", "kept")?;
            put(live, "var/erased", "erased")?;
            put(live, "erased", "erased")?;
            marked(live, "var", 2001)?;
            marked(live, "", 2002)
        },
    )?
    .persist("/var/log", &[]);
    machine.blank = "empty".to_owned();
    machine.reset_and_compare()?;
    let result = capture(&machine.volume.live())?;
    assert_eq!(
        result.paths(),
        [
            ".",
            ".darlings",
            ".darlings/generation",
            ".darlings/manifest",
            "var",
            "var/log",
            "var/log/journal"
        ]
    );
    assert_eq!(result.at("").unwrap().owner, 2002);
    machine.close()
}

#[test]
fn no_persisted_path_at_all_leaves_the_blank() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| put(blank, "etc/os-release", "of the blank"),
        |live| put(live, "etc/os-release", "changed"),
    )?;
    machine.reset_and_compare()?;
    let blank = capture(&machine.volume.blank())?;
    assert_eq!(capture(&machine.volume.live())?.diff_lines(&blank), "");
    machine.close()
}

#[test]
fn the_generations_are_counted_and_each_is_the_state_before_its_reset() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/keep", &[]);
    let mut before = Vec::new();
    for number in 1..=3_u64 {
        put(&machine.volume.live(), "keep/count", &number.to_string())?;
        put(&machine.volume.live(), "erased", &number.to_string())?;
        before.push(capture(&machine.volume.live())?);
        let ran = machine.reset_and_compare()?;
        assert_eq!(ran.generation()?, format!("@darlings/root/{number}"));
        assert_eq!(ran.report.unwrap()["volumes"][0]["generation"], number);
    }
    for (number, before) in (1..).zip(&before) {
        let kept = capture(&machine.at(&format!("@darlings/root/{number}")))?;
        assert_eq!(kept.diff_with(before, &darlings_testkit::Compare::all()), []);
    }
    // A generation that somebody removed is not counted again.
    run(Command::new("btrfs").args(["subvolume", "delete"]).arg(machine.at("@darlings/root/3")))?;
    let ran = machine.reset_and_compare()?;
    assert_eq!(ran.generation()?, "@darlings/root/4");
    machine.close()
}

#[test]
fn two_volumes_of_one_filesystem_are_reset_in_one_run_and_each_path_belongs_to_the_longest_mount_point()
-> Result<()> {
    const OWN: [&str; 3] = [".darlings", ".darlings/generation", ".darlings/manifest"];
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            std::fs::create_dir(blank.join("home"))?;
            Ok(std::fs::create_dir(blank.join("homely"))?)
        },
        |live| {
            put(live, "home/mia/keep", "hidden below the mount point")?;
            put(live, "homely/keep", "kept")?;
            put(live, "erased", "erased")
        },
    )?;
    let home = machine.volume.make_subvolume("@home")?;
    put(&home, "skel", "of the blank")?;
    machine.volume.snapshot("@home", "@home-blank", true)?;
    put(&home, "mia/keep", "kept")?;
    put(&home, "mia/erased", "erased")?;
    put(&home, "skel", "changed")?;
    let config = format!(
        "{}[[volume]]\nmount_point = \"/home\"\nbtrfs = {{ device = {}, subvolume = \"/@home\", \
         blank = \"@home-blank\", generations = \"@old/home\" }}\n[[persist]]\npath = \
         \"/homely/keep\"\n[[persist]]\npath = \"/home/mia/keep\"\n",
        machine.config(),
        quoted(&machine.volume.fs.device().display().to_string()),
    );
    let ran = machine.run(config, &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    machine.empty_trash("@")?;
    machine.empty_trash("@home")?;
    let names = |path: &str| -> Result<Vec<String>> { Ok(capture(&machine.at(path))?.paths()) };
    assert_eq!(names("@")?, [&["."], &OWN[..], &["home", "homely", "homely/keep"]].concat());
    assert_eq!(names("@home")?, [&["."], &OWN[..], &["mia", "mia/keep", "skel"]].concat());
    assert_eq!(std::fs::read_to_string(machine.at("@home/skel"))?, "of the blank");
    assert_eq!(std::fs::read_to_string(machine.at("@home/mia/keep"))?, "kept");
    assert_eq!(std::fs::read_to_string(machine.at("@old/home/1/mia/erased"))?, "erased");
    assert_eq!(std::fs::read_to_string(machine.at("@darlings/root/1/erased"))?, "erased");
    machine.close()
}

#[test]
fn the_default_subvolume_stays_the_live_one_and_another_default_is_left_alone() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |live| put(live, "keep", "kept"))?.persist("/keep", &[]);
    let default = || machine.whole().map(|whole| whole.default);
    assert_eq!(default()?, 5);
    machine.reset_and_compare()?;
    assert_eq!(default()?, 5);

    machine.volume.set_default("@")?;
    let old = machine.volume.subvolume_id("@")?;
    machine.reset_and_compare()?;
    let new = machine.volume.subvolume_id("@")?;
    assert_ne!(new, old);
    assert_eq!(default()?, new);

    machine.volume.set_default("@blank")?;
    machine.reset_and_compare()?;
    assert_eq!(default()?, machine.volume.subvolume_id("@blank")?);
    machine.close()
}

#[test]
fn the_blank_and_everything_else_on_the_filesystem_stay_untouched() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            darlings_testkit::fill::everything(blank)?;
            Ok(())
        },
        |live| put(live, "keep/file", "kept"),
    )?
    .persist("/keep", &[])
    .persist("/types", &["odd-size"])
    .persist("/locked/immutable-directory/below", &[]);
    let other = machine.volume.make_subvolume("@other")?;
    put(&other, "file", "untouched")?;
    let mut before = machine.whole()?;
    machine.reset_and_compare()?;
    let mut after = machine.whole()?;
    for name in ["", "@", "@darlings/root/1"] {
        before.subvolumes.remove(name);
        after.subvolumes.remove(name);
    }
    assert_eq!(after.differences(&before), "");
    let names: Vec<String> = subvolumes_of(machine.volume.fs.path(), &[])?.into_keys().collect();
    assert_eq!(names, ["@", "@blank", "@darlings/root/1", "@other"]);
    machine.close()
}
