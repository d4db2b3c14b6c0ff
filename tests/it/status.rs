//! `darlings status` by the real binary on real filesystems.

use crate::common::looking::{Directory, Said, put_then};
use crate::common::purge::{machine_after, now};
use crate::common::{Machine, put};
use anyhow::Result;
use darlings_testkit::{capability, skip_unless};
use serde_json::{Value, json};

/// Runs `status` with the machine's own report, and these words of the clock for times.
fn status(machine: &Machine, config: &str, arguments: &[&str]) -> Result<Said> {
    let report = machine.beside("kept-report.json");
    let mut all = vec!["status", "--report", report.to_str().unwrap()];
    all.extend(arguments);
    machine.say_with(config, &all)
}

/// Keeps the report that a reset has written: the next command's run removes it.
fn keep_report(machine: &Machine, report: &Value) -> Result<()> {
    Ok(std::fs::write(machine.beside("kept-report.json"), report.to_string())?)
}

/// A report with round figures.
fn report(outcome: &str, warnings: &[&str]) -> Value {
    json!({
        "version": 1,
        "asked": "reset",
        "outcome": outcome,
        "seconds": 0.41234,
        "volumes": [{
            "mount_point": "/",
            "does": "reset",
            "generation": 2,
            "phase_seconds": { "prepare": 0.25, "commit": 0.125, "finish": 0.0625 },
            "warnings": warnings,
            "a field of tomorrow": true,
        }],
    })
}

/// A machine that was reset twice, at known times.
fn machine() -> Result<Machine> {
    let machine = machine_after(2)?;
    machine.ended(1, Some(1_767_225_600))?;
    machine.ended(2, Some(1_767_312_059))?;
    keep_report(&machine, &report("reset", &[]))?;
    Ok(machine)
}

#[test]
fn all_is_well_in_one_line_and_the_rest_when_asked() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let before = machine.whole()?;
    let config = machine.config();
    status(&machine, &config, &[])?.is(
        0,
        "All is well: reset 2 on 2026-01-02 00:00 UTC in 0.412 s; 2 generations.\n",
        "",
    );
    let said = status(&machine, &config, &["--verbose"])?;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let (free, rest): (Vec<&str>, Vec<&str>) =
        said.stdout.lines().partition(|line| line.starts_with("  free"));
    assert_eq!(
        rest,
        [
            "All is well.",
            "This boot: reset was asked for, ended as reset, in 0.412 s",
            "",
            "/ (btrfs subvolume @ on DEVICE)",
            "  last run     2, 2026-01-02 00:00 UTC, in this boot",
            "  this boot    reset: prepare 0.250 s, commit 0.125 s, finish 0.062 s",
            "  generations  2, 1",
            "  attic        empty",
            "  to purge     nothing",
        ]
    );
    assert!(free.len() == 1 && free[0].ends_with(" of 512.0 MiB"), "{free:?}");
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn what_the_real_report_says_is_understood() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(1)?;
    let ran = machine.reset_well()?;
    let real = ran.report.unwrap();
    keep_report(&machine, &real)?;
    let said = status(&machine, &machine.config(), &["--json"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    let told = said.json()?;
    let volume = &told["report"]["volumes"][0];
    assert_eq!(volume["phase_seconds"], real["volumes"][0]["phase_seconds"]);
    assert_eq!((&volume["does"], &volume["generation"]), (&json!("reset"), &json!(2)));
    assert_eq!(told["report"]["seconds"], real["seconds"]);
    let last = &told["volumes"][0]["last_run"];
    assert_eq!((&last["number"], &last["this_boot"]), (&json!(2), &json!(true)));
    let time = last["time"].as_u64().unwrap();
    assert!((now() - 60..=now()).contains(&time), "{time}");
    assert_eq!(told["volumes"][0]["generations"], json!([1, 2]));
    machine.close()
}

#[test]
fn what_needs_attention_is_told_first_and_makes_the_exit_code() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let config = machine.config();
    let attention = |config: &str| -> Result<Vec<String>> {
        let said = status(&machine, config, &["--json"])?;
        let told = said.json()?;
        let words = told["attention"].as_array().unwrap();
        assert_eq!(said.code, Some(i32::from(!words.is_empty())));
        assert_eq!(told["well"], json!(words.is_empty()));
        let text = status(&machine, config, &[])?.stdout;
        for (line, words) in text.lines().zip(words) {
            assert_eq!(line, format!("Attention: {}", words.as_str().unwrap()));
        }
        Ok(words.iter().map(|it| it.as_str().unwrap().to_owned()).collect())
    };
    let with = |report: Value| -> Result<Vec<String>> {
        keep_report(&machine, &report)?;
        attention(&config)
    };
    assert_eq!(
        with(json!({ "asked": "off", "outcome": "off", "seconds": 0.1, "volumes": [] }))?,
        [
            "this boot was not reset: darlings=off was on the kernel command line; the next boot without it \
          resets"
        ]
    );
    assert_eq!(
        with(json!({ "asked": "restore:7", "outcome": "restored", "seconds": 0.1 }))?,
        ["this boot was restored, as darlings=restore:7 asked; the next boot without it resets"]
    );
    assert_eq!(
        with(json!({ "outcome": "failed", "error": "no blank", "seconds": 0.1 }))?,
        ["the reset of this boot failed, and every volume is complete: no blank"]
    );
    assert_eq!(
        with(json!({ "outcome": "unfinished", "error": "no disk", "seconds": 0.1 }))?,
        ["the reset of this boot is not finished; do not use the volume, reboot: no disk"]
    );
    assert_eq!(with(report("reset", &["/x is not brought over"]))?, ["/: /x is not brought over"]);
    assert_eq!(with(report("reset", &[]))?, Vec::<String>::new());

    let live = machine.volume.live();
    put(&live, ".darlings/reset/journal", "")?;
    assert_eq!(
        attention(&config)?,
        [
            "/: a reset was interrupted (its journal is there); reboot, so that the next one completes it"
        ]
    );
    std::fs::remove_dir_all(live.join(".darlings/reset"))?;
    for number in ["1", "2", "3"] {
        put(&live, &format!(".darlings/trash/{number}/file"), "")?;
    }
    assert_eq!(
        attention(&config)?,
        ["/: the trash of 3 resets was not removed; run `darlings purge`, and see that \
          darlings-purge.timer is enabled"]
    );
    std::fs::remove_dir_all(live.join(".darlings/trash"))?;
    let little = machine.config_keeping("min_free = \"1 TiB\"");
    let told = attention(&little)?;
    assert!(
        told.len() == 1
            && told[0].ends_with(
                " is free, less than the 1.0 TiB that `keep.min_free` wants; run `darlings purge`"
            ),
        "{told:?}"
    );
    let other = "[[volume]]\nmount_point = \"/home\"\nbtrfs = { device = \"/dev/nothing-there\", \
                 subvolume = \"@home\", blank = \"empty\" }\n";
    let told = attention(&format!("{other}{config}"))?;
    assert!(
        told.len() == 1
            && told[0].starts_with(
                "/home: it cannot be looked at: cannot open the volume \"/home\": cannot open the btrfs"
            ),
        "{told:?}"
    );
    // Nobody reported anything, and what is live was made in another boot.
    std::fs::remove_file(machine.beside("kept-report.json"))?;
    assert_eq!(attention(&config)?, Vec::<String>::new());
    let manifest = live.join(".darlings/manifest");
    let mut old: Value = serde_json::from_slice(&std::fs::read(&manifest)?)?;
    old["boot"] = json!("another");
    std::fs::write(&manifest, old.to_string())?;
    assert_eq!(
        attention(&config)?,
        ["no reset ran in this boot; is darlings-reset.service in the initrd? `journalctl -b -u \
          darlings-reset.service` says more"]
    );
    std::fs::write(machine.beside("kept-report.json"), "no JSON")?;
    let said = status(&machine, &config, &[])?;
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert!(
        said.stderr.contains("is not the report of a reset; name it with --report"),
        "{said:?}"
    );
    machine.close()
}

#[test]
fn what_a_purge_has_to_remove_is_told_without_looking_into_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(4)?;
    keep_report(&machine, &report("reset", &[]))?;
    for number in 1..=4 {
        machine.ended(number, Some(1_767_225_600))?;
    }
    let live = machine.volume.live();
    put(&live, ".darlings/trash/4/deep/file", "")?;
    put(&live, ".darlings/attic/3/home/mia/file", "")?;
    put(
        &live,
        ".darlings/attic/3.json",
        r#"{"version":1,"time":1767225600,"paths":["home/mia"]}"#,
    )?;
    let config = machine.config_keeping("generations = 3, days = 1");
    let said = status(&machine, &config, &["--json"])?;
    let volume = said.json()?["volumes"][0].clone();
    let expired = |number: u64, reason: &str| json!({ "number": number, "reason": reason });
    assert_eq!(
        volume["to_purge"],
        json!({
            "trash": ["4"],
            "generations": [
                expired(1, "too_many"), expired(2, "too_old"), expired(3, "too_old")
            ],
            "begun": [],
            "attic": [3],
            "min_free_bytes": null,
        })
    );
    assert_eq!(
        volume["attic"],
        json!([{ "reset": 3, "time": 1_767_225_600, "paths": ["/home/mia"] }])
    );
    status(&machine, &config, &[])?.is(
        0,
        "All is well: reset 4 on 2026-01-01 00:00 UTC in 0.412 s; 4 generations; 1 path in the attic; 5 \
         to be purged.\n",
        "",
    );
    // As the purge itself sees it.
    let purge: Value = serde_json::from_str(
        &machine.purge("generations = 3, days = 1", &["--dry-run", "--json"])?.stdout,
    )?;
    assert_eq!(purge["volumes"][0]["removed"].as_array().unwrap().len(), 5);
    machine.close()
}

#[test]
fn a_plain_directory_tells_the_same() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let directory = Directory::new("[[persist]]\npath = \"/keep\"\n", |_| Ok(()))?;
    put_then(&directory.live(), "keep/file", "kept")?;
    let nothing = ["--report", "/nothing/there"];
    let said = directory.say(&[&["status", "--json"], &nothing[..]].concat())?;
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.json()?["attention"],
        json!([
            "no reset ran in this boot; is darlings-reset.service in the initrd? `journalctl -b -u \
             darlings-reset.service` says more",
            "/: it was never reset"
        ])
    );
    directory.reset()?;
    let said = directory.say(&[&["status"], &nothing[..]].concat())?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.stdout.starts_with("All is well: reset 1 on ")
            && said.stdout.ends_with(" UTC; 1 generation.\n"),
        "{said:?}"
    );
    directory.close()
}

#[test]
fn a_volume_that_was_not_reset_is_not_told_with_the_times_of_a_reset() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let this_boot = |report: &Value| -> Result<Vec<String>> {
        keep_report(&machine, report)?;
        let said = status(&machine, &machine.config(), &["--verbose"])?;
        let lines = said.stdout.lines().filter_map(|line| line.strip_prefix("  this boot    "));
        Ok(lines.map(str::to_owned).collect())
    };
    let mut failed = report("failed", &[]);
    failed["volumes"][0]["committed"] = json!(false);
    assert_eq!(this_boot(&failed)?, ["reset was not done"]);
    failed["volumes"][0]["committed"] = json!(true);
    let done = "reset: prepare 0.250 s, commit 0.125 s, finish 0.062 s";
    assert_eq!(this_boot(&failed)?, [done]);
    // It could not be planned, so the report has nothing of it.
    failed["volumes"] = json!([]);
    assert_eq!(this_boot(&failed)?, ["nothing was done with it"]);
    let mut off = report("off", &[]);
    off["volumes"][0]["does"] = json!("nothing");
    assert_eq!(this_boot(&off)?, ["left as it is"]);
    let mut completed = report("off", &[]);
    completed["volumes"][0]["resumes"] = json!(true);
    assert_eq!(this_boot(&completed)?, [done]);
    let told = status(&machine, &machine.config(), &[])?.stdout;
    let expected = "Attention: an interrupted run was completed in this boot, and nothing else was reset: \
                    darlings=off was on the kernel command line; the next boot without it resets\n";
    assert!(told.starts_with(expected), "{told}");
    machine.close()
}
