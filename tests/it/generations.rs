//! `darlings generations` by the real binary on real btrfs.

use std::process::Command;

use crate::common::purge::{machine_after, now};
use anyhow::Result;
use darlings_testkit::loopfs::run;
use darlings_testkit::{capability, skip_unless};
use serde_json::{Value, json};

fn boot() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

#[test]
fn each_generation_is_listed_with_its_end_and_the_boot_that_it_ended() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    machine.ended(1, Some(1_767_225_600))?;
    let before = machine.whole()?;
    let ran = machine.generations(&["--json"])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let mut listing: Value = serde_json::from_str(&ran.stdout)?;
    let volume = &mut listing["volumes"][0];
    let total = volume["total_bytes"].take().as_u64().unwrap();
    assert_eq!(total, 512 << 20);
    let available = volume["available_bytes"].take().as_u64().unwrap();
    assert!((1..total).contains(&available), "{available}");
    let ended = volume["generations"][1]["ended"].take().as_u64().unwrap();
    assert!((now() - 60..=now()).contains(&ended), "{ended}");
    let generation = |number: u32, ended: Value, boot: Value| {
        let name = format!("@darlings/root/{number}");
        json!({"number": number, "name": name, "ended": ended, "boot": boot, "size": null})
    };
    assert_eq!(
        listing,
        json!({
            "version": 1,
            "volumes": [{
                "mount_point": "/",
                "available_bytes": null,
                "total_bytes": null,
                "generations": [
                    // It was never reset, so nobody wrote down its boot.
                    generation(1, 1_767_225_600.into(), Value::Null),
                    generation(2, Value::Null, boot()?.into()),
                ],
                "being_removed": [],
                "others": [],
                "replaced": [],
            }],
        })
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn a_person_gets_a_table_and_is_told_what_is_no_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    machine.ended(1, Some(1_767_225_600))?;
    machine.ended(2, Some(1_767_312_059))?;
    machine.volume.snapshot("@", "@darlings/root/mine", true)?;
    machine.volume.snapshot("@", "@darlings/root/3", true)?;
    machine.volume.make_subvolume("@darlings/root/removing")?;
    std::fs::write(machine.at("@darlings/root/removing-1"), "")?;
    let ran = machine.generations(&[])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let (head, rest) = ran.stdout.split_once('\n').unwrap();
    assert!(
        head.starts_with("/: 1 generation, ") && head.ends_with(" of 512.0 MiB free"),
        "{head}"
    );
    let boot = boot()?;
    let column = "BOOT".to_owned() + &" ".repeat(boot.len() - 4);
    assert_eq!(
        rest,
        format!(
            "  NUMBER  ENDED (UTC)       {column}  REACHES  FREES  NAME\n       \
             2  2026-01-02 00:00  {boot}        -      -  @darlings/root/2\n  \
             being removed: @darlings/root/1\n  \
             not a generation: @darlings/root/3: no reset had this number: the last one had 2\n  \
             not a generation: @darlings/root/mine: its name is not the number of a reset\n  \
             not a generation: @darlings/root/removing: its name is not the number of a reset\n"
        )
    );
    machine.close()
}

#[test]
fn sizes_are_those_of_the_quotas() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    let top = machine.volume.fs.path().to_owned();
    run(Command::new("btrfs").args(["quota", "enable"]).arg(&top))?;
    run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(&top))?;
    std::fs::write(machine.at("@/shared"), vec![1; 4 << 20])?;
    std::fs::write(machine.at("@/keep/shared"), vec![1; 2 << 20])?;
    machine.reset_well()?;
    run(Command::new("btrfs").args(["filesystem", "sync"]).arg(&top))?;
    let ran = machine.generations(&["--json"])?;
    let listing: Value = serde_json::from_str(&ran.stdout)?;
    let size = &listing["volumes"][0]["generations"][0]["size"];
    let shown = run(Command::new("btrfs").args(["qgroup", "show", "--raw"]).arg(&top))?;
    let id = format!("0/{}", machine.volume.subvolume_id("@darlings/root/1")?);
    let line: Vec<&str> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|line| line.first() == Some(&id.as_str()))
        .unwrap();
    let number = |column: usize| line[column].parse::<u64>().unwrap();
    assert_eq!(
        size,
        &json!({
            "counted_by": "quota",
            "referenced_bytes": number(1),
            "exclusive_bytes": number(2),
        })
    );
    assert!(number(1) >= 6 << 20, "{shown}");
    assert!((4 << 20..5 << 20).contains(&number(2)), "{shown}");
    machine.close()
}

#[test]
fn a_volume_that_cannot_be_looked_at_is_told_and_fails() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(1)?;
    let other = "[[volume]]\nmount_point = \"/home\"\nbtrfs = { device = \"/dev/nothing-there\", \
                 subvolume = \"@home\", blank = \"empty\" }\n";
    let config = format!("{other}{}", machine.config());
    let ran = machine.ran(&mut machine.word("generations", &config)?)?;
    assert_eq!(ran.code, Some(1));
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(
        lines[0].starts_with("/home: cannot open the btrfs filesystem on \"/dev/nothing-there\": "),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("/: 1 generation, "), "{lines:?}");
    machine.close()
}
