//! `darlings history` by the real binary on real filesystems.

use std::process::Command;

use crate::common::looking::{Directory, at_time, put_then};
use crate::common::purge::machine_after;
use crate::common::{Machine, put};
use anyhow::Result;
use darlings_testkit::loopfs::run;
use darlings_testkit::{Attribute, capability, plant, skip_unless};
use serde_json::{Value, json};

fn boot() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

#[test]
fn generations_are_listed_with_what_ended_them() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(1)?;
    let with = |word: &str| -> Result<()> {
        let at = machine.beside("cmdline");
        std::fs::write(&at, word)?;
        let ran = machine.run(machine.config(), &["--cmdline", at.to_str().unwrap()])?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        Ok(())
    };
    with("darlings=snapshot")?;
    with("darlings=restore:1")?;
    for (number, time) in [(1, 1_767_225_600), (2, 1_767_312_059), (3, 1_767_400_000)] {
        machine.ended(number, Some(time))?;
    }
    let boot = boot()?;
    machine.say(&["history"])?.is(
        0,
        &format!(
            "\
/: 3 generations
  NUMBER  ENDED (UTC)       ENDED BY          FREES  BOOT
       1  2026-01-01 00:00  reset                 -  -
       2  2026-01-02 00:00  nothing (a copy)      -  {boot}
       3  2026-01-03 00:26  restore of 1          -  {boot}
"
        ),
        "",
    );
    let said = machine.say(&["history", "--json"])?.json()?;
    let ended_by: Vec<Value> = said["volumes"][0]["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["ended_by"].clone())
        .collect();
    assert_eq!(
        ended_by,
        [
            json!({ "what": "reset" }),
            json!({ "what": "snapshot" }),
            json!({ "what": "restore", "of": 1 })
        ]
    );
    machine.close()
}

#[test]
fn a_shell_is_told_the_generations_and_the_paths_that_only_they_have() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    for (number, time) in [(1, 1_767_225_600), (2, 1_767_312_059)] {
        machine.ended(number, Some(time))?;
    }
    let complete = |arguments: &[&str], values: &str| -> Result<()> {
        machine.say(&[&["complete"], arguments].concat())?.is(0, values, "");
        Ok(())
    };
    complete(&["volumes"], "/\ta volume\n")?;
    complete(&["generations"], "2\t/, 2026-01-02 00:00 UTC\n1\t/, 2026-01-01 00:00 UTC\n")?;
    complete(&["generations", "1"], "1\t/, 2026-01-01 00:00 UTC\n")?;
    complete(&["paths", "/"], "/etc/\tgeneration 2\n/keep/\tgeneration 2\n/of/\tgeneration 2\n")?;
    complete(&["paths", "/k"], "/keep/\tgeneration 2\n")?;
    complete(&["paths", "/of/"], "/of/1\tgeneration 1\n/of/2\tgeneration 2\n")?;
    complete(&["paths", "/nowhere/"], "")?;
    machine.close()
}

/// A machine whose `/keep/file` is a new thing after each reset: see the test.
fn changing() -> Result<Machine> {
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/keep", &[]);
    let keep = machine.volume.live().join("keep");
    let file = keep.join("file");
    put_then(&keep, "file", "one")?; // 1
    put_then(&keep, "untouched", "as it was")?;
    machine.reset_well()?;
    machine.reset_well()?; // 2: the same
    put_then(&keep, "file", "two")?; // 3: the content alone
    machine.reset_well()?;
    plant::mode(&file, 0o600)?; // 4
    machine.reset_well()?;
    plant::owner(&file, 1000, 100)?; // 5
    machine.reset_well()?;
    plant::xattr(&file, "user.note", b"x")?; // 6
    machine.reset_well()?;
    plant::flag(&file, Attribute::NoDump)?; // 7
    machine.reset_well()?;
    at_time(&file, "2026-05-04T03:02:02Z")?; // 8
    machine.reset_well()?;
    std::fs::remove_file(&file)?; // 9
    machine.reset_well()?;
    std::os::unix::fs::symlink("elsewhere", &file)?; // 10
    at_time(&file, "2026-05-04T03:02:03Z")?;
    machine.reset_well()?;
    for number in 1..=10 {
        machine.ended(number, Some(1_767_225_600 + u64::from(number) * 60))?;
    }
    Ok(machine)
}

#[test]
fn a_path_is_listed_where_it_differs_from_the_next_newer_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = changing()?;
    machine.say(&["history", "/keep/file"])?.is(
        0,
        "\
/keep/file
  GENERATION  ENDED (UTC)       MODIFIED (UTC)    WHAT
         now  -                 2026-05-04 03:02  symbolic link to elsewhere; the same in 10
           9  2026-01-01 00:09  -                 nothing
           8  2026-01-01 00:08  2026-05-04 03:02  file, 3 B
           7  2026-01-01 00:07  2026-05-04 03:02  file, 3 B; differs: time
           6  2026-01-01 00:06  2026-05-04 03:02  file, 3 B; differs: flags
           5  2026-01-01 00:05  2026-05-04 03:02  file, 3 B; differs: attributes
           4  2026-01-01 00:04  2026-05-04 03:02  file, 3 B; differs: owner
           3  2026-01-01 00:03  2026-05-04 03:02  file, 3 B; differs: mode
           2  2026-01-01 00:02  2026-05-04 03:02  file, 3 B; differs: content; the same in 1
",
        "",
    );
    machine.say(&["history", "/keep/untouched"])?.is(
        0,
        "\
/keep/untouched
  GENERATION  ENDED (UTC)  MODIFIED (UTC)    WHAT
         now  -            2026-05-04 03:02  file, 9 B; the same in 10 to 1
",
        "",
    );
    let said = machine.say(&["history", "/keep", "--json"])?.json()?;
    let numbers: Vec<_> = said["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["generation"].clone(), it["differs"].clone(), it["same_in"].clone()))
        .collect();
    let inside = |number: u64, same: Value| (json!(number), json!(["inside"]), same);
    let none = || json!([]);
    assert_eq!(
        numbers,
        [
            (Value::Null, json!([]), json!([10])),
            inside(9, none()),
            inside(8, none()),
            inside(7, none()),
            inside(6, none()),
            inside(5, none()),
            inside(4, none()),
            inside(3, none()),
            inside(2, json!([1])),
        ]
    );
    machine.say(&["history", "/keep/never"])?.is(
        3,
        "",
        "error: /keep/never is not there, and in no generation of /\n",
    );
    machine.close()
}

#[test]
fn what_is_nested_in_a_directory_is_not_compared_and_told_of_itself() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/keep", &[]);
    let live = machine.volume.live();
    put(&live, "keep/file", "kept")?;
    machine.volume.make_subvolume("@/keep/nested")?;
    put(&live, "keep/nested/file", "kept")?;
    machine.reset_well()?;
    put(&live, "keep/nested/file", "changed")?;
    let said = machine.say(&["history", "/keep", "--json"])?.json()?;
    assert_eq!(said["versions"][0]["same_in"], json!([1]), "{said:#}");
    assert_eq!(said["nested_in"], Value::Null);
    let said = machine.say(&["history", "/keep/nested/file"])?;
    assert!(
        said.stdout.ends_with(
            "\n/keep/nested is a subvolume or filesystem of its own, which no generation of / holds.\n"
        ),
        "{said:?}"
    );
    machine.close()
}

#[test]
fn the_generations_of_a_plain_directory_lack_what_was_kept_then() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let mut directory = Directory::new("", |_| Ok(()))?;
    let live = directory.live();
    put_then(&live, "etc/id", "one")?;
    put_then(&live, "etc/other", "one")?;
    directory.reset()?; // 1: nothing was kept
    put_then(&live, "etc/id", "two!")?;
    directory.rules = "[[persist]]\npath = \"/etc/id\"\n".to_owned();
    directory.reset()?; // 2: it was
    put_then(&live, "etc/other", "three")?;
    let said = directory.say(&["history", "/etc/id", "--json"])?.json()?;
    assert_eq!(said["not_held"], json!([2]));
    let versions: Vec<_> = said["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["generation"].clone(), it["differs"].clone()))
        .collect();
    assert_eq!(versions, [(Value::Null, json!([])), (json!(1), json!(["content"]))]);
    let said = directory.say(&["history", "/etc/id"])?;
    assert_eq!(
        said.stdout.lines().last(),
        Some(
            "Not in generation 2: it was kept, and a generation of a plain directory holds only what \
              was not."
        )
    );
    // What was kept in it makes no difference between directories.
    std::fs::remove_file(live.join("etc/other"))?;
    let said = directory.say(&["history", "/etc", "--json"])?.json()?;
    assert_eq!(said["versions"][0]["same_in"], json!([2]), "{said:#}");
    directory.close()
}

#[test]
fn a_long_history_of_a_directory_that_nobody_touched_reads_no_file() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/keep", &[]);
    "carry".clone_into(&mut machine.strategy);
    let live = machine.volume.live();
    put(&live, "keep/in/file", "kept")?;
    machine.reset_well()?;
    machine.reset_well()?;
    let log = machine.beside("strace");
    std::fs::write(machine.beside("darlings.toml"), machine.config())?;
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-e", "trace=openat,openat2", "-o"]).arg(&log);
    command.arg(env!("CARGO_BIN_EXE_darlings")).args(["history", "/keep", "--config"]);
    run(command.arg(machine.beside("darlings.toml")))?;
    let opened = std::fs::read_to_string(log)?;
    let names = |name: &str| opened.lines().filter(|line| line.contains(name)).count();
    assert!(names("\"in\"") > 0, "{opened}");
    assert_eq!(names("\"file\""), 0, "{opened}");
    machine.close()
}
