//! Nested subvolumes that move along, where something is in the way.

use std::os::unix::fs::chown;
use std::process::Command;

use crate::common::{Machine, put, subvolumes_of};
use anyhow::Result;
use darlings_testkit::loopfs::run;
use darlings_testkit::{Attribute, capability, capture, plant, skip_unless};

#[test]
fn an_immutable_root_is_no_obstacle_to_subvolumes_that_move_out_of_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for attribute in [Attribute::Immutable, Attribute::AppendOnly] {
        let machine = Machine::new(|_| Ok(()), |live| put(live, "keep/file", "kept"))?
            .persist("/keep", &[])
            .persist("/single", &[]);
        let single = machine.volume.make_subvolume("@/single")?;
        put(&single, "content", "moves")?;
        plant::flag(&machine.volume.live(), attribute)?;
        let before = capture(&single)?;
        let expected = machine.expected()?.tree;

        let ran = machine.reset_well()?;

        assert_eq!(capture(&machine.volume.live())?.diff_lines(&expected), "");
        assert_eq!(capture(&machine.at("@/single"))?.diff_lines(&before), "");
        let generation = capture(&machine.at(&ran.generation()?))?;
        let root = generation.get(&darlings_testkit::RelPath::root()).unwrap();
        assert_eq!(root.flags.attributes().collect::<Vec<_>>(), [attribute]);
        let mut all: Vec<String> =
            subvolumes_of(machine.volume.fs.path(), &[])?.into_keys().collect();
        all.sort();
        assert_eq!(all, ["@", "@/single", "@blank", "@darlings/root/1"]);
        machine.close()?;
    }
    Ok(())
}

#[test]
fn what_is_declared_or_excluded_within_a_subvolume_that_moves_comes_with_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| put(blank, "keep/sub/excluded/of-the-blank", "of the blank"),
        |live| {
            std::fs::remove_dir_all(live.join("keep"))?;
            Ok(std::fs::create_dir(live.join("keep"))?)
        },
    )?
    .persist("/keep", &["sub/excluded"])
    .persist("/keep/sub/excluded/inner", &[]);
    let sub = machine.volume.make_subvolume("@/keep/sub")?;
    put(&sub, "excluded/inner/file", "kept")?;
    put(&sub, "excluded/file", "excluded, and not erased")?;
    let before = capture(&sub)?;

    let ran = machine.reset_well()?;

    assert_eq!(capture(&machine.at("@/keep/sub"))?.diff_lines(&before), "");
    let warning = "warning: /: /keep/sub/excluded is excluded and not erased: it lies in the \
                   subvolume /keep/sub, which is kept as a whole\n";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    machine.close()
}

#[test]
fn what_stands_for_a_subvolume_in_the_blank_is_no_obstacle_to_what_is_kept_there() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["rollback", "carry"] {
        let mut machine = Machine::new(
            |blank| {
                std::fs::create_dir(blank.join("var"))?;
                for path in ["srv", "var/machines"] {
                    run(Command::new("btrfs").args(["subvolume", "create"]).arg(blank.join(path)))?;
                }
                Ok(())
            },
            |live| {
                for path in ["srv", "var/machines"] {
                    std::fs::remove_dir(live.join(path))?;
                }
                put(live, "srv/data/file", "kept")?;
                put(live, "srv/other", "erased")?;
                put(live, "var/machines/file", "kept")?;
                put(live, "var/machines/cache/file", "erased")
            },
        )?
        .persist("/srv/data", &[])
        .persist("/var/machines", &["cache"]);
        strategy.clone_into(&mut machine.strategy);

        for _ in 0..2 {
            machine.reset_well()?;
            let tree = capture(&machine.volume.live())?;
            let paths: Vec<String> = tree.entries.keys().map(ToString::to_string).collect();
            let kept: Vec<&str> = paths
                .iter()
                .map(String::as_str)
                .filter(|it| !it.starts_with(".darlings"))
                .collect();
            let expected = [
                ".",
                "srv",
                "srv/data",
                "srv/data/file",
                "var",
                "var/machines",
                "var/machines/file",
            ];
            assert_eq!(kept, expected, "{strategy}");
        }
        machine.close()?;
    }
    Ok(())
}

#[test]
fn what_stands_for_a_subvolume_at_a_kept_path_is_kept_as_an_ordinary_directory() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (strategy, path, excludes) in [
        ("carry", "/var/machines", &[][..]),
        ("rollback", "/var/machines", &[]),
        ("carry", "/var", &["machines"]),
        ("rollback", "/var", &["machines"]),
    ] {
        let mut machine = Machine::new(
            |blank| {
                std::fs::create_dir(blank.join("var"))?;
                let at = blank.join("var/machines");
                run(Command::new("btrfs").args(["subvolume", "create"]).arg(at)).map(drop)
            },
            |_| Ok(()),
        )?
        .persist(path, excludes);
        strategy.clone_into(&mut machine.strategy);
        let live = machine.volume.live();
        std::fs::remove_dir(live.join("var/machines"))?;
        std::fs::remove_dir(live.join("var"))?;
        std::fs::remove_dir(&live)?;
        // A copy of the blank, as after a restore.
        machine.volume.snapshot("@blank", "@", false)?;

        for _ in 0..2 {
            machine.reset_well()?;
            put(&live, "var/machines/file", "can be made")?;
        }
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_subvolume_that_a_user_calls_as_ours_is_called_goes_with_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["rollback", "carry"] {
        // A home is a volume, and its root is the user's.
        let mut machine =
            Machine::new(|_| Ok(()), |live| put(live, "keep/file", "kept"))?.persist("/keep", &[]);
        strategy.clone_into(&mut machine.strategy);
        let theirs = machine.volume.make_subvolume("@/.darlings")?;
        put(&theirs, "generation", "7")?;
        chown(&theirs, Some(1000), Some(1000))?;

        for generation in ["1", "2"] {
            let ran = machine.reset_well()?;
            assert_eq!(ran.generation()?, format!("@darlings/root/{generation}"), "{strategy}");
        }

        assert_eq!(std::fs::read_to_string(machine.at("@/keep/file"))?, "kept");
        let mut all: Vec<String> =
            subvolumes_of(machine.volume.fs.path(), &[])?.into_keys().collect();
        all.sort();
        let generations = ["@darlings/root/1", "@darlings/root/1/.darlings", "@darlings/root/2"];
        assert_eq!(all, [&["@", "@blank"][..], &generations].concat(), "{strategy}");
        machine.close()?;
    }
    Ok(())
}
