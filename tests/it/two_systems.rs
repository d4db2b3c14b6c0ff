//! Whose a generations directory is, by the real binary on real btrfs.

use std::path::Path;
use std::process::Command;

use crate::common::cmdline::{
    asked_with, be_used, cmdline, listed_beside, machine_after, manifest, well,
};
use crate::common::{Machine, Ran, put};
use anyhow::Result;
use darlings_testkit::loopfs::run;
use darlings_testkit::{capability, skip_unless};
use serde_json::{Value, json};

/// The configuration of a system whose volume is that subvolume.
fn of(machine: &Machine, subvolume: &str, generations: &str) -> String {
    let text = format!("subvolume = \"{subvolume}\", generations = \"{generations}\"");
    machine.config().replace("subvolume = \"@\"", &text)
}

/// That of a second system, with the default place for its generations.
fn second(machine: &Machine, subvolume: &str) -> String {
    machine.config().replace("subvolume = \"@\"", &format!("subvolume = \"{subvolume}\""))
}

fn shell(machine: &Machine, script: &str) -> Result<String> {
    let mut bash = Command::new("bash");
    run(bash.current_dir(machine.at("")).args(["-c", &format!("set -euo pipefail; {script}")]))
}

/// What every command says that reads, removes or restores, by its name; each must refuse.
fn refusals(machine: &Machine, config: &str) -> Result<Vec<String>> {
    let at = "/keep/last";
    let words: [&[&str]; 10] = [
        &["generations"],
        &["history"],
        &["history", at],
        &["recover", at],
        &["explain", at],
        &["diff"],
        &["diff", "--since", "1"],
        &["purge"],
        &["init"],
        &["check", "--fstab", "/dev/null", "--cmdline", "/dev/null"],
    ];
    let mut said = Vec::new();
    let mut take = |ran: Ran, what: &str| {
        assert_ne!(ran.code, Some(0), "{what}: {}{}", ran.stdout, ran.stderr);
        let all = ran.stdout + &ran.stderr;
        let line = all.lines().find(|line| line.contains("init --take-over"));
        let line = line.unwrap_or_else(|| panic!("{what}: {all}"));
        let begins = line.find("@darlings").unwrap();
        said.push(line[begins..].to_owned());
    };
    for word in words {
        take(machine.ran(machine.word(word[0], config)?.args(&word[1..]))?, word[0]);
    }
    for line in ["", "darlings=snapshot", "darlings=restore:previous", "darlings=restore:1"] {
        let ran = asked_with(machine, config, line, &[])?;
        assert_eq!(ran.code, Some(10), "{line}");
        take(ran, line);
    }
    said.dedup();
    Ok(said)
}

#[test]
fn a_second_system_is_refused_the_generations_of_the_first_by_every_command() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    for subvolume in ["root", "@root"] {
        machine.volume.make_subvolume(subvolume)?;
        put(&machine.at(subvolume), "keep/last", "of the second")?;
        let config = second(&machine, subvolume);
        let before = machine.whole()?;
        assert_eq!(
            refusals(&machine, &config)?,
            [format!(
                "@darlings/root belongs to another system, whose subvolume is @; nothing in it is \
                 read, removed or restored for {subvolume}, and nothing is reset. Write generations \
                 = \"@darlings/root-2\" into its `btrfs`; or, if the other system is gone, give them \
                 to {subvolume}: darlings init --take-over"
            )]
        );
        well(asked_with(&machine, &config, "darlings=off", &[])?, "off", "off")?;
        assert_eq!(machine.whole()?.differences(&before), "", "{subvolume}");
    }
    // Both go on, each with its own.
    let other = of(&machine, "root", "@darlings/root-2");
    well(asked_with(&machine, &other, "", &[])?, "reset", "reset")?;
    assert_eq!(machine.reset_well()?.generation()?, "@darlings/root/3");
    let ids = ["@", "root"].map(|it| manifest(&machine, it).unwrap()["system"].clone());
    assert_ne!(ids[0], ids[1]);
    // And neither is allowed at the other's.
    refusals(&machine, &of(&machine, "@", "@darlings/root-2"))?;
    refusals(&machine, &second(&machine, "root"))?;
    // Nor once that is gone.
    shell(&machine, "btrfs -q subvolume delete @")?;
    refusals(&machine, &second(&machine, "root"))?;
    machine.close()
}

/// Resets once more, and demands that every generation is still known.
fn goes_on(machine: &Machine, config: &str, what: &str) -> Result<()> {
    let place = config.split("generations = \"").nth(1).and_then(|rest| rest.split('"').next());
    let place = place.unwrap_or("@darlings/root").to_owned();
    let numbers = || -> Result<(Vec<u64>, Value)> {
        let ran = machine.ran(machine.word("generations", config)?.arg("--json"))?;
        let listing: Value = serde_json::from_str(&ran.stdout)?;
        let volume = &listing["volumes"][0];
        assert_eq!(volume["error"], Value::Null, "{what}");
        let each = volume["generations"].as_array().unwrap().iter();
        Ok((each.filter_map(|it| it["number"].as_u64()).collect(), volume["others"].clone()))
    };
    let (before, others) = numbers()?;
    // Those with a number that a volume does not know, which was restored by hand.
    let known_later = others.as_array().unwrap().len();
    let ran = asked_with(machine, config, "", &[])?;
    assert_eq!(ran.code, Some(0), "{what}: {}", ran.stderr);
    let (after, others) = numbers()?;
    assert_eq!((after.len(), others), (before.len() + known_later + 1, json!([])), "{what}");
    assert_eq!(ran.generation()?, format!("{place}/{}", after.last().unwrap()), "{what}");
    Ok(())
}

#[test]
fn generations_stay_those_of_a_volume_that_is_renamed_restored_copied_or_received() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    let config = machine.config();
    well(asked_with(&machine, &config, "darlings=restore:1", &[])?, "restored", "restore:1")?;
    goes_on(&machine, &config, "restored by a word")?;
    well(asked_with(&machine, &config, "darlings=snapshot", &[])?, "snapshot", "snapshot")?;
    goes_on(&machine, &config, "after a snapshot")?;
    let last = machine.kept()?.len();
    for (script, what) in [
        (format!("mv @ @broken; btrfs -q subvolume snapshot @darlings/root/{last} @"), "by hand"),
        ("btrfs -q subvolume delete @broken; mv @ @b; btrfs -q subvolume snapshot @b @".into(), "of it"),
        (
            "btrfs -q subvolume delete @b; mv @ @b; btrfs -q subvolume create @; cp -a @b/. @/".into(),
            "copied",
        ),
        (
            "btrfs -q subvolume delete @b; btrfs -q property set -ts @ ro true; mkdir in; btrfs -q \
             send @ | btrfs -q receive in; mv @ @b; btrfs -q subvolume snapshot in/@ @; btrfs -q \
             subvolume delete @b"
                .into(),
            "received",
        ),
        ("rm @/.darlings/manifest".into(), "without a manifest"),
        ("echo '{' > @darlings/root/.darlings/record".into(), "with a damaged record"),
        ("rm -r @darlings/root/.darlings".into(), "without a record"),
    ] {
        shell(&machine, &script)?;
        goes_on(&machine, &config, what)?;
    }
    shell(&machine, "mv @ @renamed; mv @darlings @moved")?;
    let renamed = of(&machine, "@renamed", "@moved/root");
    goes_on(&machine, &renamed, "renamed")?;
    goes_on(&machine, &renamed, "renamed, again")?;
    machine.close()
}

#[test]
fn a_snapshot_that_became_a_system_of_its_own_is_refused_until_the_first_is_gone() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    for (made_of, name) in [("@", "@second"), ("@darlings/root/2", "@third")] {
        machine.volume.snapshot(made_of, name, false)?;
        let said = refusals(&machine, &of(&machine, name, "@darlings/root"))?;
        assert!(said[0].contains("another system, whose subvolume is @;"), "{said:?}");
    }
    // Also once the first has gone on.
    be_used(&machine, "more")?;
    machine.reset_well()?;
    let config = of(&machine, "@second", "@darlings/root");
    refusals(&machine, &config)?;

    let take_over = |more: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = machine.word("init", &config)?;
        let ran = machine.ran(command.arg("--take-over").args(more))?;
        Ok((ran.code, ran.stdout))
    };
    let words = "the generations in @darlings/root this system's\n";
    assert_eq!(take_over(&["--dry-run"])?, (Some(0), format!("/: would make {words}")));
    refusals(&machine, &config)?;
    assert_eq!(take_over(&[])?, (Some(0), format!("/: made {words}")));
    assert_eq!(take_over(&[])?, (Some(0), "/: nothing is missing\n".to_owned()));
    assert_eq!(asked_with(&machine, &config, "", &[])?.generation()?, "@darlings/root/4");
    goes_on(&machine, &config, "taken over")?;
    let said = refusals(&machine, &machine.config())?;
    assert!(said[0].contains("another system, whose subvolume is @second;"), "{said:?}");
    machine.close()
}

/// As an earlier version leaves it.
fn forget(machine: &Machine) -> Result<()> {
    let script = "rm -r @darlings/root/.darlings; for m in @*/.darlings/manifest \
                  @darlings/root/*/.darlings/manifest; do [ -e $m ] || continue; s=${m%/.darlings/*}; \
                  btrfs -q property set -f -ts $s ro false; sed -i '/\"system\"/d; s/\\(\"time\": \
                  [0-9]*\\),/\\1/' $m; done; for s in @darlings/root/*; do btrfs -q property set -ts $s \
                  ro true; done";
    shell(machine, script).map(drop)
}

#[test]
fn generations_of_an_earlier_version_are_claimed_by_the_volume_that_follows_from_them() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["carry", "rollback"] {
        for blank in ["@blank", "empty"] {
            for resets in [1, 3] {
                let mut machine = machine_after(0)?;
                (machine.strategy, machine.blank) = (strategy.to_owned(), blank.to_owned());
                for number in 0..resets {
                    be_used(&machine, &number.to_string())?;
                    machine.reset_well()?;
                }
                forget(&machine)?;
                machine.volume.make_subvolume("root")?;
                let said = refusals(&machine, &second(&machine, "root"))?;
                let words = "@darlings/root holds generations that did not come from root: 1";
                assert!(said[0].starts_with(words), "{said:?}");
                let what = format!("{strategy} {blank} {resets}");
                let ran = machine.ran(&mut machine.word("generations", &machine.config())?)?;
                assert_eq!(ran.code, Some(0), "{what}: {}", ran.stdout);
                goes_on(&machine, &machine.config(), &what)?;
                goes_on(&machine, &machine.config(), &what)?;
                machine.close()?;
            }
        }
    }
    Ok(())
}

#[test]
fn generations_of_an_earlier_version_are_claimed_by_what_the_first_reset_to_a_new_blank_made()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (made_of, what) in [("@", "of the live volume"), ("@old-blank", "of the blank before")] {
        let mut machine = machine_after(0)?;
        machine.strategy = "rollback".to_owned();
        for number in 0..2 {
            be_used(&machine, &number.to_string())?;
            machine.reset_well()?;
        }
        shell(
            &machine,
            &format!(
                "mv @blank @old-blank; btrfs -q subvolume snapshot {made_of} @blank; rm -rf \
                 @blank/.darlings; btrfs -q property set -ts @blank ro true; btrfs -q subvolume \
                 delete @old-blank"
            ),
        )?;
        be_used(&machine, "2")?;
        machine.reset_well()?;
        forget(&machine)?;
        machine.volume.make_subvolume("root")?;
        refusals(&machine, &second(&machine, "root"))?;
        goes_on(&machine, &machine.config(), what)?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn what_somebody_else_has_called_next_or_ready_is_left_where_it_is() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for resets in [0, 2] {
        let machine = machine_after(resets)?;
        std::fs::create_dir_all(machine.at("@darlings/root"))?;
        machine.volume.make_subvolume("@darlings/root/next")?;
        put(&machine.at("@darlings/root/next"), "file", "of somebody")?;
        let mut kept = vec!["next".to_owned()];
        if resets > 0 {
            // One has the number of the live volume, and one that of the next reset.
            for number in [2, 3, 9] {
                let name = format!("ready-{number}");
                machine.volume.snapshot("@", &format!("@darlings/root/{name}"), false)?;
                kept.push(name);
            }
        }
        let mut subvolumes = machine.whole()?.subvolumes;
        subvolumes.retain(|path, _| path.starts_with("@darlings/root/"));
        let generation = machine.reset_well()?.generation()?;
        assert_eq!(generation, if resets == 0 { "@darlings/root/1" } else { "@darlings/root/10" });
        machine.reset_well()?;
        well(
            asked_with(&machine, &machine.config(), "darlings=snapshot", &[])?,
            "snapshot",
            "snapshot",
        )?;
        machine.purge("generations = 1", &[])?;
        let after = machine.whole()?.subvolumes;
        for name in &kept {
            let path = format!("@darlings/root/{name}");
            assert_eq!(after.get(&path), subvolumes.get(&path), "{path}");
            let (_, others) = listed_beside(&machine)?;
            let other = json!({"name": path, "why": "its name is not the number of a reset"});
            assert!(others.as_array().unwrap().contains(&other), "{others}");
        }
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_reset_that_fails_leaves_no_directory_that_says_whose_it_is() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    // What is staged cannot get its name.
    let config = of(&machine, "@", "gens");
    let mut command = machine.command(&config)?;
    command.arg("--cmdline").arg(cmdline(&machine, "")?);
    let before = machine.whole()?;
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=renameat2:error=EIO:when=1"]);
    traced.arg(command.get_program()).args(command.get_args()).env_remove("JOURNAL_STREAM");
    let ran = machine.ran(&mut traced)?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert!(!machine.at("gens").exists(), "{}", ran.stderr);
    assert_eq!(machine.whole()?.subvolumes.len(), before.subvolumes.len());
    assert!(Path::new(&machine.at("@/keep/now")).exists());
    machine.close()
}

#[test]
fn a_directory_in_which_no_generation_is_left_belongs_to_the_volume_that_is_reset_next()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    let anew = "btrfs -q subvolume delete @darlings/root/1 @darlings/root/2 @; \
                btrfs -q subvolume snapshot @blank @";
    shell(&machine, anew)?;
    let ran = machine.reset_well()?;
    assert_eq!(ran.generation()?, "@darlings/root/1");
    machine.reset_well()?;
    machine.close()
}
