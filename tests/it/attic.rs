//! The attic, by the real binary on real btrfs: what is no longer declared is put away, with
//! everything it had, and comes back when it is declared again.

use std::path::Path;

use crate::common::{self, Machine, put};
use anyhow::{Context as _, Result};
use darlings_testkit::model::Rule;
use darlings_testkit::{Attribute, Time, Tree, capability, capture, fill, plant, skip_unless};

const STRATEGIES: [&str; 2] = ["rollback", "carry"];

/// A machine with the strategy, on which these paths are declared.
fn machine(
    strategy: &str,
    live: impl FnOnce(&Path) -> Result<()>,
    declared: &[&str],
) -> Result<Machine> {
    let blank = |blank: &Path| put(blank, "etc/os-release", "of the blank");
    let mut machine = Machine::new(blank, live)?;
    strategy.clone_into(&mut machine.strategy);
    declare(&mut machine, declared);
    Ok(machine)
}

fn declare(machine: &mut Machine, paths: &[&str]) {
    machine.rules = paths.iter().map(|path| Rule::new(path, &[]).unwrap()).collect();
}

fn reset(machine: &Machine) -> Result<common::Ran> {
    let ran = machine.reset_well()?;
    machine.empty_trash("@")?;
    Ok(ran)
}

fn tree(machine: &Machine, path: &str) -> Result<Tree> {
    capture(&machine.volume.live().join(path))
}

#[test]
fn what_is_no_longer_declared_is_put_away_and_comes_back_exactly_when_it_is_again() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let mut machine = machine(
            strategy,
            |live| {
                std::fs::create_dir_all(live.join("home/mia/projects"))?;
                assert_eq!(fill::everything(&live.join("home/mia/projects"))?, []);
                plant::owner(&live.join("home/mia"), 1000, 100)?;
                plant::mode(&live.join("home/mia"), 0o2710)?;
                plant::xattr(&live.join("home/mia"), "user.of", b"mia")?;
                put(live, "other", "kept")
            },
            &["/home/mia/projects", "/other"],
        )?;
        let planted = tree(&machine, "home/mia/projects")?;
        reset(&machine)?;

        declare(&mut machine, &["/other"]);
        let ran = reset(&machine)?;
        let told = "warning: /home/mia/projects is no longer persisted: it moves to the attic, \
                    and returns when you persist it again";
        assert!(ran.stderr.lines().any(|line| line == told), "{}", ran.stderr);
        assert!(!machine.at("@/home").exists());
        let stored = tree(&machine, ".darlings/attic/2/home/mia/projects")?;
        assert_eq!(stored.diff_lines(&planted), "", "{strategy}");
        let list: serde_json::Value =
            serde_json::from_slice(&std::fs::read(machine.at("@/.darlings/attic/2.json"))?)?;
        assert_eq!(list["paths"], serde_json::json!(["home/mia/projects"]));
        // It stays there, whatever else happens.
        reset(&machine)?;
        let stored = tree(&machine, ".darlings/attic/2/home/mia/projects")?;
        assert_eq!(stored.diff_lines(&planted), "", "{strategy}");

        declare(&mut machine, &["/home/mia/projects", "/other"]);
        let ran = reset(&machine)?;
        assert!(ran.stderr.contains("/home/mia/projects comes back from the attic\n"));
        let back = tree(&machine, "home/mia/projects")?;
        assert_eq!(back.diff_lines(&planted), "", "{strategy}");
        // Neither the blank nor the state before had the directories above it.
        let above = tree(&machine, "home")?;
        let mia = above.at("mia").context("no such directory")?;
        assert_eq!((mia.owner, mia.group, mia.mode), (1000, 100, 0o2710));
        assert_eq!(mia.xattrs.len(), 1);
        assert!(!machine.at("@/.darlings/attic/2/home/mia/projects").exists());
        assert_eq!(machine.text("other")?.as_deref(), Some("kept"));
        machine.close()?;
    }
    Ok(())
}

#[test]
fn what_is_there_is_not_overwritten_and_the_newest_comes_back_first() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let mut machine = machine(strategy, |live| put(live, "state", "1"), &["/state"])?;
        reset(&machine)?;
        declare(&mut machine, &["/state/not", "/never"]);
        // A file where a directory is declared now: the file was declared before, and is put away.
        reset(&machine)?;
        assert_eq!(machine.text(".darlings/attic/2/state")?.as_deref(), Some("1"));
        put(&machine.volume.live(), "state", "2")?;
        declare(&mut machine, &["/state"]);
        reset(&machine)?;
        assert_eq!(machine.text("state")?.as_deref(), Some("2"), "{strategy}");
        declare(&mut machine, &[]);
        reset(&machine)?;
        assert_eq!(machine.text("state")?, None);
        assert_eq!(machine.text(".darlings/attic/4/state")?.as_deref(), Some("2"));
        declare(&mut machine, &["/state"]);
        reset(&machine)?;
        assert_eq!(machine.text("state")?.as_deref(), Some("2"), "{strategy}");
        assert_eq!(machine.text(".darlings/attic/2/state")?.as_deref(), Some("1"));
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_shorter_list_keeps_a_part_and_puts_the_rest_away_and_a_longer_one_brings_it_back() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let mut machine = machine(
            strategy,
            |live| {
                put(live, "var/lib/nixos/uid-map", "ids")?;
                put(live, "var/lib/bluetooth/keys", "keys")?;
                put(live, "var/lib/other", "other")?;
                std::fs::hard_link(live.join("var/lib/other"), live.join("var/lib/nixos/linked"))?;
                plant::flag(&live.join("var/lib/other"), Attribute::Immutable)?;
                plant::mode(&live.join("var/lib"), 0o711)?;
                plant::owner(&live.join("var/lib"), 7, 8)?;
                Ok(())
            },
            &["/var/lib"],
        )?;
        let planted = tree(&machine, "var/lib")?;
        reset(&machine)?;
        declare(&mut machine, &["/var/lib/nixos"]);
        reset(&machine)?;
        assert_eq!(machine.text("var/lib/nixos/uid-map")?.as_deref(), Some("ids"));
        assert_eq!(machine.text("var/lib/other")?, None);
        let stored = |path: &str| machine.text(&format!(".darlings/attic/2/var/lib/{path}"));
        assert_eq!(stored("other")?.as_deref(), Some("other"), "{strategy}");
        assert_eq!(stored("bluetooth/keys")?.as_deref(), Some("keys"));
        assert_eq!(stored("nixos/uid-map")?, None);

        declare(&mut machine, &["/var/lib"]);
        reset(&machine)?;
        let back = tree(&machine, "var/lib")?;
        // Its directory was a connector in between, as the state before had it. What `carry` moved
        // is one file still; a copy cannot know that two trees held one.
        let lines: Vec<String> = back
            .diff_lines(&planted)
            .lines()
            .filter(|line| strategy == "carry" || !line.contains("hard links"))
            // This test has read them.
            .filter(|line| !line.contains(": atime "))
            .map(str::to_owned)
            .collect();
        assert_eq!(lines, [""; 0], "{strategy}");
        machine.close()?;
    }
    Ok(())
}

#[test]
fn what_was_made_anew_in_between_is_not_mixed_with_what_was_put_away() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let live = |live: &Path| {
            put(live, "srv/database/old", "old")?;
            put(live, "srv/database/both", "old")
        };
        let mut machine = machine(strategy, live, &["/srv/database"])?;
        reset(&machine)?;
        declare(&mut machine, &[]);
        reset(&machine)?;
        put(&machine.volume.live(), "srv/database/both", "new")?;
        declare(&mut machine, &["/srv/database"]);
        reset(&machine)?;
        assert_eq!(machine.text("srv/database/both")?.as_deref(), Some("new"), "{strategy}");
        assert_eq!(machine.text("srv/database/old")?, None, "{strategy}");
        let stored = machine.text(".darlings/attic/2/srv/database/old")?;
        assert_eq!(stored.as_deref(), Some("old"));
        machine.close()?;
    }
    Ok(())
}

#[test]
fn what_was_declared_and_is_now_excluded_is_put_away() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let live = |live: &Path| put(live, "home/mia/.cache/file", "cached");
        let mut machine = machine(strategy, live, &["/home/mia/.cache"])?;
        reset(&machine)?;
        machine.rules = vec![Rule::new("/home/mia", &[".cache"]).unwrap()];
        reset(&machine)?;
        assert!(machine.at("@/home/mia").exists());
        assert!(!machine.at("@/home/mia/.cache").exists());
        let stored = machine.text(".darlings/attic/2/home/mia/.cache/file")?;
        assert_eq!(stored.as_deref(), Some("cached"), "{strategy}");
        machine.close()?;
    }
    Ok(())
}

#[test]
fn subvolumes_in_what_is_put_away_go_to_the_attic_stay_there_and_come_back() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let declared = ["/keep", "/single", "/var/deep"];
        let mut machine = machine(strategy, |live| put(live, "keep/below/file", "1"), &declared)?;
        let make = |path: &str| machine.volume.make_subvolume(&format!("@/{path}"));
        put(&make("single")?, "file", "alone")?;
        put(&make("keep/below/outer")?, "file", "outer")?;
        put(&make("keep/below/outer/inner")?, "file", "inner")?;
        put(&machine.volume.live(), "var/deep/file", "beside")?;
        put(&make("var/deep/locked")?, "file", "locked")?;
        let live = machine.volume.live();
        for path in ["keep/below", "var/deep"] {
            let past = Time { seconds: 978_307_200, nanoseconds: 5 };
            plant::times(&live.join(path), past, past)?;
        }
        plant::flag(&live.join("var/deep"), Attribute::Immutable)?;
        reset(&machine)?;
        let of = |machine: &Machine| -> Result<_> {
            let files = ["single", "keep/below/outer", "keep/below/outer/inner", "var/deep/locked"];
            let texts = files.map(|path| machine.text(&format!("{path}/file")));
            let texts: Vec<_> = texts.into_iter().collect::<Result<_>>()?;
            Ok((tree(machine, "keep")?, tree(machine, "var")?, texts))
        };
        let before = of(&machine)?;

        declare(&mut machine, &[]);
        let ran = reset(&machine)?;
        assert!(!ran.stderr.contains("goes with the generation"), "{}", ran.stderr);
        let kept = machine.text(".darlings/attic/2/keep/below/outer/inner/file")?;
        assert_eq!(kept.as_deref(), Some("inner"), "{strategy}");
        reset(&machine)?;
        declare(&mut machine, &declared);
        reset(&machine)?;
        let after = of(&machine)?;
        assert_eq!(after.0.diff_lines(&before.0), "", "{strategy}");
        assert_eq!(after.1.diff_lines(&before.1), "", "{strategy}");
        assert_eq!(after.2, before.2, "{strategy}");

        // What is removed then is gone: nothing in the attic stands for it.
        std::fs::remove_file(machine.volume.live().join("single/file"))?;
        std::fs::remove_dir(machine.volume.live().join("single"))?;
        reset(&machine)?;
        assert!(!machine.volume.live().join("single").exists(), "{strategy}");
        machine.close()?;
    }
    Ok(())
}

#[test]
fn an_attic_that_somebody_else_has_made_is_erased_and_stops_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let machine = machine(strategy, |live| put(live, "keep/file", "kept"), &["/keep"])?;
        reset(&machine)?;
        // Whoever owns a volume's root can give root's directory another name.
        let live = machine.volume.live();
        std::fs::rename(live.join(".darlings"), live.join("elsewhere"))?;
        put(&live, ".darlings/attic/5.json", "planted")?;
        put(&live, ".darlings/trash/file", "planted")?;
        put(&live, ".darlings/reset/journal", "planted")?;
        put(&machine.volume.make_subvolume("@/.darlings/attic/planted")?, "file", "planted")?;
        plant::owner(&live.join(".darlings"), 1000, 100)?;
        let ran = machine.purge("generations = 2", &[])?;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{strategy}");
        assert!(live.join(".darlings/trash/file").exists(), "{strategy}");
        for _ in 0..2 {
            reset(&machine)?;
            assert_eq!(machine.text("keep/file")?.as_deref(), Some("kept"), "{strategy}");
            assert!(!live.join(".darlings/attic").exists(), "{strategy}");
            assert!(!live.join("elsewhere").exists(), "{strategy}");
        }
        machine.close()?;
    }
    Ok(())
}
