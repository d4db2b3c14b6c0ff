//! What `darlings recover --force` replaces: listed, kept as long as generations are, and recovered.

use std::path::Path;

use crate::common::Machine;
use crate::common::looking::put_then;
use crate::common::purge::{DAY, now};
use crate::common::put;
use anyhow::Result;
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::{capability, capture, skip_unless};
use serde_json::{Value, json};

/// `/app` is in generation 1; what is there now is `newer`, with a file of its own.
fn machine(strategy: &str) -> Result<Machine> {
    let mut machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/keep", &[]);
    strategy.clone_into(&mut machine.strategy);
    let live = machine.volume.live();
    put_then(&live, "keep/file", "kept")?;
    put_then(&live, "app/data", "old")?;
    machine.reset_well()?;
    // Of what the reset moved aside.
    machine.purge("", &[])?;
    put_then(&live, "app/data", "newer")?;
    put_then(&live, "app/inside/more", "only here")?;
    Ok(machine)
}

fn replace(machine: &Machine) -> Result<()> {
    let said = machine.say(&["recover", "/app", "--force"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    let words = "What it replaced is in .darlings/trash/replaced-1 of the volume; `recover --from trash` \
                 brings it back.\n";
    assert!(said.stdout.ends_with(words), "{said:?}");
    Ok(())
}

/// Changes the time in the record of what was replaced.
fn replaced_at(live: &Path, number: u32, time: u64) -> Result<()> {
    let path = live.join(format!(".darlings/trash/replaced-{number}.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    record["time"] = time.into();
    Ok(std::fs::write(path, record.to_string())?)
}

#[test]
fn what_was_replaced_is_listed_and_comes_back_as_it_was() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine("carry")?;
    let live = machine.volume.live();
    let was = capture(&live.join("app"))?;
    replace(&machine)?;
    replaced_at(&live, 1, 1_767_225_600)?;
    let said = machine.say(&["generations"])?;
    assert!(
        said.stdout.ends_with(
            "  replaced by `darlings recover` at 2026-01-01 00:00 UTC: /app, now \
             .darlings/trash/replaced-1\n"
        ),
        "{said:?}"
    );
    let listed = machine.say(&["generations", "--json"])?.json()?;
    let replaced = json!([
        { "name": ".darlings/trash/replaced-1", "path": "/app", "time": 1_767_225_600 }
    ]);
    assert_eq!(listed["volumes"][0]["replaced"], replaced);
    assert_eq!(
        machine.say(&["status", "--json"])?.json()?["volumes"][0]["to_purge"]["trash"],
        json!([])
    );
    // A part of it, to another place, and all of it, which is an exchange.
    let said =
        machine.say(&["recover", "/app/inside/more", "--from", "trash", "--to", "/app/more"])?;
    assert!(
        said.stdout.starts_with(
            "/app/inside/more: recovered from the trash, replaced-1 as /app/more: 1 entry"
        ),
        "{said:?}"
    );
    let there = capture(&live.join("app"))?;
    let said = machine.say(&["recover", "/app", "--from", "trash:1", "--force"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(capture(&live.join("app"))?.diff_lines(&was), "");
    assert_eq!(capture(&live.join(".darlings/trash/replaced-2"))?.diff_lines(&there), "");
    let said = machine.say(&["recover", "/app", "--from", "trash:3"])?;
    said.is(3, "", "error: /app is not in the trash as replaced-3\n");
    let said = machine.say(&["recover", "/keep/file", "--from", "trash"])?;
    said.is(3, "", "error: /keep/file is not in the trash\n");
    // The directory above it is gone, and the trash does not know what it was like.
    std::fs::remove_dir_all(live.join("app"))?;
    let said = machine.say(&["recover", "/app/inside/more", "--from", "trash"])?;
    said.is(
        2,
        "",
        "error: there is no directory /app/inside to put it into; make it first, or give another --to\n",
    );
    machine.close()
}

#[test]
fn a_purge_keeps_what_was_replaced_as_long_as_a_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine("carry")?;
    let live = machine.volume.live();
    replace(&machine)?;
    let is_there = || live.join(".darlings/trash/replaced-1/inside/more").exists();
    let removed = |why: &str| {
        format!("/: removed what `recover` replaced, .darlings/trash/replaced-1: {why}\n")
    };
    for keep in ["", "days = 30", "generations = 1", "generations = 1, days = 1, min_free = \"1%\""]
    {
        let ran = machine.purge(keep, &[])?;
        assert_eq!((ran.code, ran.stderr.as_str(), is_there()), (Some(0), "", true), "{keep}");
    }
    replaced_at(&live, 1, now() - 31 * DAY)?;
    let would = machine.purge("days = 30", &["--dry-run"])?;
    assert_eq!(
        would.stderr,
        "/: would remove what `recover` replaced, .darlings/trash/replaced-1: older than `keep.days`\n"
    );
    let ran = machine.purge("days = 30", &[])?;
    assert_eq!((ran.code, ran.stderr), (Some(0), removed("older than `keep.days`")));
    assert_eq!(std::fs::read_dir(live.join(".darlings/trash"))?.count(), 0);
    // By number: the generation that was made of its tree is 2.
    put_then(&live, "app/data", "newer")?;
    put_then(&live, "app/inside/more", "only here")?;
    replace(&machine)?;
    for number in 2..=4 {
        assert!(is_there(), "{number}");
        machine.reset_well()?;
        machine.purge("generations = 2", &[])?;
        assert_eq!(machine.kept()?.len(), 2);
    }
    assert!(!is_there());
    machine.close()
}

#[test]
fn what_was_replaced_makes_room_after_the_generations() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine("carry")?;
    replace(&machine)?;
    let ran = machine.purge("min_free = \"99%\"", &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        said[0],
        "/: removed what `recover` replaced, .darlings/trash/replaced-1: less is free than \
         `keep.min_free`"
    );
    assert!(said[1].contains("no generation is left that may go for it"), "{said:?}");
    assert_eq!(machine.kept()?, ["1"]);
    machine.close()
}

/// A copy leaves the trash to the generation, which holds it as long as it is kept itself.
#[test]
fn after_a_rollback_what_was_replaced_comes_back_from_the_trash_of_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine("rollback")?;
    replace(&machine)?;
    machine.reset_well()?;
    let live = machine.volume.live();
    assert!(!live.join("app").exists());
    let said = machine.say(&["recover", "/app", "--from", "trash"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(std::fs::read_to_string(live.join("app/inside/more"))?, "only here");
    machine.close()
}

#[test]
fn what_no_trash_can_take_is_not_replaced() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let machine = machine("carry")?;
    let other = LoopFs::new(Filesystem::Ext4)?;
    let there = other.path().join("there");
    std::fs::write(&there, "precious")?;
    let nested = machine.volume.make_subvolume("@/keep/nested")?;
    put(&nested, "there", "precious")?;
    let before = machine.whole()?;
    let refused = |to: &str, why: &str| -> Result<()> {
        for more in [&["--dry-run"][..], &[]] {
            let arguments = [&["recover", "/app", "--to", to, "--force"], more].concat();
            machine.say(&arguments)?.is(
                2,
                "",
                &format!(
                    "error: {to} is there, and {why}, so nothing would keep what --force replaces; move \
                     it elsewhere first, or give another --to\n"
                ),
            );
        }
        Ok(())
    };
    refused("/keep/nested/there", "is in a filesystem or subvolume of its own")?;
    assert_eq!(machine.whole()?.differences(&before), "");
    let said = machine.say(&["recover", "/app", "--to", there.to_str().unwrap(), "--force"])?;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains(" is there, and is on no volume that is reset, so "), "{said:?}");
    assert_eq!(std::fs::read_to_string(&there)?, "precious");
    other.close()?;
    machine.close()
}

#[test]
fn a_directory_that_holds_persisted_paths_is_not_replaced() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?;
    let mut machine = machine.persist("/etc/id", &[]).persist("/etc/none", &[]);
    machine = machine.persist("/etc/ssh", &["cache"]).persist("/etc/ssh/cache/kept", &[]);
    let live = machine.volume.live();
    put_then(&live, "etc/id", "kept")?;
    put_then(&live, "etc/ssh/key", "old")?;
    put_then(&live, "etc/ssh/cache/kept/file", "kept")?;
    put_then(&live, "etc/erased", "erased")?;
    machine.reset_well()?;
    put_then(&live, "etc/ssh/key", "new")?;
    let before = machine.whole()?;
    for (path, holds) in [
        ("/etc", "/etc/id, /etc/ssh, /etc/ssh/cache/kept"),
        ("/etc/ssh/cache", "/etc/ssh/cache/kept"),
    ] {
        if path == "/etc/ssh/cache" {
            put_then(&live, "etc/ssh/cache/new", "new")?;
        }
        machine.say(&["recover", path, "--from", "1", "--force"])?.is(
            2,
            "",
            &format!(
                "error: {path} holds what is persisted ({holds}), which would be replaced with it; recover \
                 what is in it path by path, or give --to\n"
            ),
        );
        if path == "/etc" {
            // The time of reading aside.
            assert_eq!(machine.whole()?.differences(&before), "");
        }
    }
    // What is persisted itself may be replaced.
    let said = machine.say(&["recover", "/etc/ssh", "--from", "1", "--force"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(std::fs::read_to_string(live.join("etc/ssh/key"))?, "old");
    machine.close()
}
