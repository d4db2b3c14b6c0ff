//! `darlings purge` by the real binary on real btrfs: what goes, what stays, and what it says.

use std::process::Command;

use crate::common::Machine;
use crate::common::purge::{DAY, machine_after, now};
use crate::common::put;
use anyhow::Result;
use darlings_testkit::loopfs::{run, unmount};
use darlings_testkit::{Attribute, capability, plant, skip_unless};
use rustix::fs::FlockOperation;
use serde_json::json;

/// Every subvolume, by its path from the top level.
fn subvolumes(machine: &Machine) -> Result<Vec<String>> {
    machine.volume.subvolumes()
}

/// What is said when generations go.
fn removed(numbers: &[u32], why: &str) -> String {
    let line = |number| format!("/: removed the generation @darlings/root/{number}: {why}\n");
    numbers.iter().map(line).collect()
}

const TOO_MANY: &str = "more are there than `keep.generations`";
const TOO_OLD: &str = "older than `keep.days`";

#[test]
fn the_newest_ones_stay_as_they_were_and_a_second_purge_has_nothing_to_do() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(5)?;
    let before = machine.whole()?;
    let ran = machine.purge("generations = 2", &[])?;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    assert_eq!(ran.stderr, removed(&[1, 2, 3], TOO_MANY));
    assert_eq!(machine.kept()?, ["4", "5"]);
    assert_eq!(subvolumes(&machine)?, ["@", "@blank", "@darlings/root/4", "@darlings/root/5"]);
    let after = machine.whole()?;
    for same in ["@", "@blank", "@darlings/root/4", "@darlings/root/5"] {
        assert_eq!(after.subvolumes[same], before.subvolumes[same], "{same}");
    }
    assert_eq!(machine.purge("generations = 2", &[])?.stderr, "");
    assert_eq!(machine.whole()?.differences(&after), "");

    // The numbers go on.
    assert_eq!(machine.reset_well()?.generation()?, "@darlings/root/6");
    machine.close()
}

#[test]
fn without_a_limit_nothing_goes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(3)?;
    for keep in
        ["", "generations = 3", "days = 1", "generations = 7, days = 1", "min_free = \"1%\""]
    {
        let before = machine.whole()?;
        let ran = machine.purge(keep, &[])?;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{keep}");
        assert_eq!(machine.whole()?.differences(&before), "", "{keep}");
    }
    machine.close()
}

#[test]
fn the_days_count_from_the_reset_that_ended_a_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(4)?;
    machine.ended(1, Some(now() - 31 * DAY))?;
    machine.ended(2, Some(now() - 30 * DAY - 60))?;
    machine.ended(3, Some(now() - 30 * DAY + 600))?;
    let ran = machine.purge("days = 30", &[])?;
    assert_eq!((ran.code, ran.stderr), (Some(0), removed(&[1, 2], TOO_OLD)));
    assert_eq!(machine.kept()?, ["3", "4"]);
    machine.close()
}

#[test]
fn times_that_lie_remove_nothing_more() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(4)?;
    for (number, time) in [(1, Some(now() + DAY)), (2, None), (3, Some(1000)), (4, Some(5))] {
        machine.ended(number, time)?;
    }
    let before = machine.whole()?;
    assert_eq!(machine.purge("days = 0", &[])?.stderr, "");
    assert_eq!(machine.whole()?.differences(&before), "");
    let ran = machine.purge("generations = 3, days = 0", &[])?;
    assert_eq!(ran.stderr, removed(&[1], TOO_MANY));
    machine.close()
}

#[test]
fn the_newest_generation_stays_whatever_the_limits() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    machine.ended(1, Some(now() - 100 * DAY))?;
    machine.ended(2, Some(now() - 100 * DAY))?;
    let keep = "generations = 0, days = 0, min_free = \"99%\"";
    let ran = machine.purge(keep, &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(machine.kept()?, ["2"]);
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(said[0], removed(&[1], TOO_MANY).trim_end());
    assert!(said[1].starts_with("warning: /: "), "{said:?}");
    let stay = " and no generation is left that may go for it: the newest 3 stay";
    assert!(said[1].ends_with(stay), "{said:?}");
    assert_eq!(said.len(), 2);
    machine.close()
}

#[test]
fn a_user_who_fills_the_disk_erases_nothing_of_the_newest_three_generations() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(4)?;
    for kept in [&["2", "3", "4"]; 2] {
        let ran = machine.purge("min_free = \"99%\"", &[])?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(machine.kept()?, kept);
    }
    machine.close()
}

#[test]
fn subvolumes_nested_in_a_generation_go_with_it_whatever_flags_they_have() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    for path in ["@/srv", "@/srv/deep", "@/srv/deep/deeper"] {
        put(&machine.volume.make_subvolume(path)?, "file", "gone")?;
    }
    std::fs::create_dir(machine.at("@/srv/sealed"))?;
    machine.volume.make_subvolume("@/srv/sealed/inside")?;
    plant::flag(&machine.at("@/srv/sealed"), Attribute::Immutable)?;
    plant::flag(&machine.at("@/srv/deep/file"), Attribute::AppendOnly)?;
    machine.read_only("@/srv/deep", true)?;
    machine.reset_well()?;
    plant::flag(&machine.at("@"), Attribute::Immutable)?;
    machine.reset_well()?;
    machine.reset_well()?;
    let nested = ["/srv", "/srv/deep", "/srv/deep/deeper", "/srv/sealed/inside"];
    let nested: Vec<String> = nested.iter().map(|path| format!("@darlings/root/1{path}")).collect();
    assert!(nested.iter().all(|path| subvolumes(&machine).unwrap().contains(path)));
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!((ran.code, ran.stderr), (Some(0), removed(&[1, 2], TOO_MANY)));
    assert_eq!(subvolumes(&machine)?, ["@", "@blank", "@darlings/root/3"]);
    assert_eq!(machine.kept()?, ["3"]);
    machine.close()
}

#[test]
fn what_lies_among_the_generations_and_is_none_stays() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(7)?;
    let home = "@darlings/root";
    for (from, to, read_only) in [
        ("@", "mine", true),
        ("@", "007", true),
        ("@", "99", true),
        ("@darlings/root/6", "6-copy", true),
    ] {
        machine.volume.snapshot(from, &format!("{home}/{to}"), read_only)?;
    }
    // In the places of generations that went.
    for gone in [1, 2, 3, 4] {
        let path = machine.at(&format!("{home}/{gone}"));
        run(Command::new("btrfs").args(["subvolume", "delete"]).arg(path))?;
    }
    machine.volume.snapshot("@darlings/root/7", &format!("{home}/1"), true)?;
    machine.volume.make_subvolume(&format!("{home}/2"))?;
    std::fs::create_dir(machine.at(&format!("{home}/3")))?;
    std::os::unix::fs::symlink("7", machine.at(&format!("{home}/4")))?;
    put(&machine.at(home), "removing-it", "")?;
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!((ran.code, ran.stderr), (Some(0), removed(&[5, 6], TOO_MANY)));
    assert_eq!(
        machine.kept()?,
        ["007", "1", "2", "3", "4", "6-copy", "7", "99", "mine", "removing-it"]
    );
    machine.close()
}

#[test]
fn a_dry_run_says_what_would_go_and_changes_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(6)?;
    machine.ended(1, Some(now() - 32 * DAY))?;
    machine.ended(2, Some(now() - 31 * DAY))?;
    put(&machine.volume.live(), ".darlings/trash/4/a/b", "trash")?;
    put(&machine.volume.live(), ".darlings/attic/2/a/b", "attic")?;
    let before = machine.whole()?;
    let keep = "generations = 5, days = 30, min_free = \"99%\"";
    let ran = machine.purge(keep, &["--dry-run"])?;
    assert_eq!(ran.code, Some(0));
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        said[..5],
        [
            "/: would remove .darlings/trash/4: what the reset moved aside",
            "/: would remove the generation @darlings/root/1: more are there than `keep.generations`",
            "/: would remove the generation @darlings/root/2: older than `keep.days`",
            "/: would remove from the attic .darlings/attic/2: older than `keep.days`",
            "/: would remove the generation @darlings/root/3: less is free than `keep.min_free`",
        ]
    );
    assert!(said[5].ends_with(": more generations may go, the oldest first"), "{said:?}");
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn the_report_as_json_says_the_same() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    put(&machine.volume.live(), ".darlings/trash/2/a/b", "trash")?;
    let ran = machine.purge("generations = 1", &["--json"])?;
    let mut report: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    for key in ["available_bytes_before", "available_bytes"] {
        assert!(report["volumes"][0][key].take().as_u64().unwrap() > 0);
    }
    assert_eq!(
        report,
        json!({
            "version": 1,
            "dry_run": false,
            "outcome": "done",
            "volumes": [{
                "mount_point": "/",
                "removed": [
                    {"what": "trash", "name": ".darlings/trash/2", "reason": "trash", "entries": 3},
                    {"what": "generation", "name": "@darlings/root/1", "reason": "too_many"},
                ],
                "failed": [],
                "notes": [],
                "available_bytes_before": null,
                "available_bytes": null,
                "min_free_bytes": null,
            }],
        })
    );
    machine.close()
}

#[test]
fn while_a_reset_is_interrupted_nothing_goes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(3)?;
    put(&machine.volume.live(), ".darlings/trash/3/a", "trash")?;
    put(&machine.volume.live(), ".darlings/reset/journal", "{}")?;
    let before = machine.whole()?;
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(1),
            "error: /: a reset was interrupted (its journal is there); reboot, so that the next \
             one completes it\n"
        )
    );
    assert_eq!(machine.whole()?.differences(&before), "");

    std::fs::remove_dir_all(machine.at("@/.darlings/reset"))?;
    // As it is before the previous state has its name.
    machine.read_only("@darlings/root/3", false)?;
    std::fs::rename(machine.at("@darlings/root/3"), machine.at("@darlings/root/ready-3"))?;
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(1),
            "error: /: a reset was interrupted (@darlings/root/ready-3 is the previous state of a \
             reset); reboot, so that the next one completes it\n"
        )
    );
    assert!(machine.at("@/.darlings/trash/3/a").exists());
    assert_eq!(machine.kept()?, ["1", "2", "ready-3"]);
    machine.close()
}

#[test]
fn while_a_reset_or_another_purge_is_at_work_nothing_goes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    for (locked, shown) in
        [("@darlings/root", "\"@darlings/root\""), ("@/.darlings", ".darlings, a purge perhaps")]
    {
        let directory = std::fs::File::open(machine.at(locked))?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
        let ran = machine.purge("generations = 1", &[])?;
        let said = format!("error: /: another run is at work in {shown}; wait for it\n");
        assert_eq!((ran.code, ran.stderr), (Some(1), said));
        assert_eq!(machine.kept()?, ["1", "2"]);
    }
    assert_eq!(machine.purge("generations = 1", &[])?.code, Some(0));
    machine.close()
}

#[test]
fn what_cannot_go_is_told_and_the_rest_goes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(5)?;
    let mounted = machine.beside("generation");
    std::fs::create_dir(&mounted)?;
    let mut mount = Command::new("mount");
    mount
        .args(["-o", "noatime,subvol=@darlings/root/2"])
        .arg(machine.volume.fs.device())
        .arg(&mounted);
    run(&mut mount)?;
    machine.volume.set_default("@darlings/root/3")?;
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!(ran.code, Some(1));
    let id = machine.volume.subvolume_id("@darlings/root/3")?;
    assert_eq!(
        ran.stderr,
        format!(
            "{}error: /: cannot remove @darlings/root/2: it is mounted at {mounted:?}; unmount it\n\
             error: /: cannot remove @darlings/root/3: deleting recursively the subvolume with id \
             {id}: it is the default subvolume of the filesystem; make another one the default \
             before deleting it\n{}",
            removed(&[1], TOO_MANY),
            removed(&[4], TOO_MANY)
        )
    );
    // Whole, and generations still.
    assert_eq!(machine.kept()?, ["2", "3", "5"]);
    assert_eq!(std::fs::read_to_string(machine.at("@darlings/root/2/of/2"))?, "gone with it");
    machine.volume.set_default("@")?;
    unmount(&mounted)?;
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!((ran.code, ran.stderr), (Some(0), removed(&[2, 3], TOO_MANY)));
    machine.close()
}

#[test]
fn what_carry_has_moved_aside_goes_with_the_places_of_nested_subvolumes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine_after(0)?;
    "carry".clone_into(&mut machine.strategy);
    put(&machine.at("@"), "var/erased", "erased")?;
    plant::flag(&machine.at("@/var/erased"), Attribute::Immutable)?;
    put(&machine.volume.make_subvolume("@/srv")?, "file", "goes with the generation")?;
    put(&machine.volume.make_subvolume("@/keep/nested")?, "file", "kept")?;
    let config = machine.config_keeping("generations = 1");
    for number in 1..=2 {
        let ran = machine.run(&config, &[])?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(machine.at(&format!("@/.darlings/trash/{number}")).exists());
    }
    let ran = machine.ran(&mut machine.word("purge", &config)?)?;
    let trash =
        |number| format!("/: removed .darlings/trash/{number}: what the reset moved aside\n");
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(0), format!("{}{}{}", trash(1), trash(2), removed(&[1], TOO_MANY)))
    );
    assert_eq!(subvolumes(&machine)?, ["@", "@/keep/nested", "@blank", "@darlings/root/2"]);
    assert_eq!(std::fs::read_to_string(machine.at("@/keep/nested/file"))?, "kept");
    assert_eq!(std::fs::read_dir(machine.at("@/.darlings/trash"))?.count(), 0);
    machine.close()
}

#[test]
fn it_works_while_the_volume_is_in_use_and_lets_everybody_else_go_first() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine_after(2)?;
    put(&machine.volume.live(), ".darlings/trash/2/a", "trash")?;
    let live = machine.volume.fs.mount_at("live", "subvol=@")?;
    let open = std::fs::File::open(live.join("keep/kept"))?;
    let log = machine.beside("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=ioprio_set,setpriority,unlinkat", "-o"]).arg(&log);
    let purge = machine.word("purge", &machine.config_keeping("generations = 1"))?;
    let ran = machine.ran(command.arg(purge.get_program()).args(purge.get_args()))?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!live.join(".darlings/trash/2").exists());
    assert_eq!(std::io::read_to_string(open)?, "kept");
    let log = std::fs::read_to_string(log)?;
    let calls: Vec<&str> =
        log.lines().filter_map(|line| line.split_once(' ')).map(|(_, call)| call.trim()).collect();
    assert_eq!(calls[0], "setpriority(PRIO_PROCESS, 0, 19)  = 0");
    assert!(
        calls[1].starts_with(
            "ioprio_set(IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)) = 0"
        ),
        "{calls:?}"
    );
    assert!(calls[2].starts_with("unlinkat("), "{calls:?}");
    machine.close()
}

#[test]
fn what_is_named_as_the_blank_is_no_longer_a_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine_after(3)?;
    "@darlings/root/1".clone_into(&mut machine.blank);
    let listed = machine.generations(&[])?;
    assert!(
        listed.stdout.contains(
            "  not a generation: @darlings/root/1: it is the blank, so it is never removed or \
             restored; every reset brings back what had accumulated in it\n"
        ),
        "{}",
        listed.stdout
    );
    machine.reset_well()?;
    assert_eq!(machine.text("of/1")?.as_deref(), Some("gone with it"));
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(machine.kept()?, ["1", "4"]);
    machine.reset_well()?;
    machine.close()
}

/// As earlier versions allowed it.
#[test]
fn a_blank_that_lies_beside_the_generations_is_reset_to_and_never_removed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine_after(1)?;
    machine.volume.snapshot("@blank", "@darlings/root/blank", true)?;
    "@darlings/root/blank".clone_into(&mut machine.blank);
    for strategy in ["carry", "rollback"] {
        strategy.clone_into(&mut machine.strategy);
        machine.reset_well()?;
    }
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(machine.kept()?, ["3", "blank"]);
    machine.reset_well()?;
    machine.close()
}
