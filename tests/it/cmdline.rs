//! Words on the kernel command line, by the real binary on real btrfs: each compared as a whole with
//! what was there before.

use std::process::Command;

use crate::common::cmdline::{
    asked, asked_with, boots, cmdline, listed, machine_after, manifest, number, read_only, tree,
    well, with_home,
};
use crate::common::{self, Machine, Ran, put, subvolumes_of};
use anyhow::Result;
use darlings_testkit::loopfs::{run, unmount};
use darlings_testkit::{Attribute, RelPath, Tree, capability, plant, skip_unless};
use serde_json::{Value, json};

#[test]
fn off_touches_nothing_and_says_so() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    // What an interrupted run left before its point of no return is no reason to touch anything.
    machine.volume.make_subvolume("@darlings/root/.darlings/next")?;
    let before = machine.whole()?;
    let ran = well(asked(&machine, "darlings=off")?, "off", "off")?;
    assert_eq!(machine.whole()?.differences(&before), "");
    let device = machine.volume.fs.device().display();
    assert_eq!(
        ran.stderr,
        format!(
            "/ (btrfs subvolume @ on {device}): left as it is\n\
             nothing is reset: the kernel command line says darlings=off\n"
        )
    );
    let volume = &ran.report.as_ref().unwrap()["volumes"][0];
    assert_eq!(
        (&volume["does"], &volume["committed"], &volume["steps"], &volume["previous_state"]),
        (&json!("nothing"), &json!(false), &json!([]), &Value::Null)
    );
    machine.close()
}

#[test]
fn off_asks_neither_for_a_blank_nor_for_an_unmounted_volume() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine_after(1)?;
    machine.blank = "@nowhere".to_owned();
    let before = machine.whole()?;
    assert_eq!(asked(&machine, "")?.code, Some(10));
    let mounted = machine.beside("mounted-root");
    std::fs::create_dir(&mounted)?;
    let device = machine.volume.fs.device();
    run(Command::new("mount").args(["-o", "noatime,subvol=@"]).arg(device).arg(&mounted))?;
    let off = asked(&machine, "darlings=off");
    let others = ["darlings=snapshot", "darlings=restore:1"].map(|word| asked(&machine, word));
    unmount(&mounted)?;
    well(off?, "off", "off")?;
    for ran in others {
        let ran = ran?;
        assert_eq!(ran.code, Some(10));
        assert!(ran.stderr.contains(": /: the subvolume \"@\" is mounted at "), "{}", ran.stderr);
    }
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn a_snapshot_keeps_a_generation_and_erases_nothing_and_its_number_is_never_given_again()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    machine.volume.make_subvolume("@darlings/root/.darlings/next")?;
    let before = tree(&machine, "@")?;
    let persisted = manifest(&machine, "@")?["persisted"].clone();
    // What is declared now is not what the tree was made with.
    let config = machine.config() + "[[persist]]\npath = \"/more\"\n";
    let ran =
        well(asked_with(&machine, &config, "darlings=snapshot", &[])?, "snapshot", "snapshot")?;
    assert_eq!(ran.generation()?, "@darlings/root/3");
    assert_eq!(tree(&machine, "@")?.diff_lines(&before), "");
    assert_eq!(tree(&machine, "@darlings/root/3")?.diff_lines(&before), "");
    anyhow::ensure!(read_only(&machine, "@darlings/root/3")?, "generation 3 can be written to");
    assert_eq!((number(&machine, "@")?, number(&machine, "@darlings/root/3")?), (3, 2));
    assert_eq!(manifest(&machine, "@")?["persisted"], persisted);
    assert_eq!(machine.kept()?, ["1", "2", "3"]);
    assert_eq!(listed(&machine)?, [1, 2, 3]);
    // Somebody removes the newest: its number is taken all the same.
    run(Command::new("btrfs").args(["subvolume", "delete"]).arg(machine.at("@darlings/root/3")))?;
    assert_eq!(machine.reset_well()?.generation()?, "@darlings/root/4");
    machine.close()
}

#[test]
fn a_snapshot_of_a_volume_that_was_never_reset_leaves_no_trace_in_its_root() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    plant::flag(&machine.volume.live(), Attribute::Immutable)?;
    machine.read_only("@", true)?;
    let before = tree(&machine, "@")?;
    well(asked(&machine, "darlings=snapshot")?, "snapshot", "snapshot")?;
    assert!(read_only(&machine, "@")? && read_only(&machine, "@darlings/root/1")?);
    assert_eq!(tree(&machine, "@")?.diff_lines(&before), "");
    assert_eq!(tree(&machine, "@darlings/root/1")?.diff_lines(&before), "");
    assert_eq!(number(&machine, "@")?, 1);
    assert!(!machine.at("@darlings/root/1/.darlings").exists());
    assert_eq!(machine.reset_well()?.generation()?, "@darlings/root/2");
    machine.close()
}

#[test]
fn a_restore_makes_the_volume_what_the_generation_was_and_a_second_one_undoes_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(3)?;
    machine.volume.set_default("@")?;
    let before = tree(&machine, "@")?;
    let all = ["1", "2", "3"].map(|number| format!("@darlings/root/{number}"));
    let generations: Vec<Tree> =
        all.iter().map(|path| tree(&machine, path)).collect::<Result<_>>()?;
    let ran = well(asked(&machine, "darlings=restore:2")?, "restored", "restore:2")?;
    assert_eq!(ran.generation()?, "@darlings/root/4");
    assert_eq!(ran.report.as_ref().unwrap()["volumes"][0]["does"], "restore:2");
    assert_eq!(tree(&machine, "@")?.diff_lines(&generations[1]), "");
    assert_eq!(tree(&machine, "@darlings/root/4")?.diff_lines(&before), "");
    assert!(read_only(&machine, "@darlings/root/4")? && !read_only(&machine, "@")?);
    assert_eq!((number(&machine, "@")?, &manifest(&machine, "@")?["restored"]), (4, &json!(2)));
    assert_eq!(common::default_of(&machine.volume)?, machine.volume.subvolume_id("@")?);

    // What was live is the newest generation now.
    well(asked(&machine, "darlings=restore:previous")?, "restored", "restore:previous")?;
    assert_eq!(tree(&machine, "@")?.diff_lines(&before), "");
    assert_eq!(tree(&machine, "@darlings/root/5")?.diff_lines(&generations[1]), "");
    for (path, was) in all.iter().zip(&generations) {
        assert_eq!(tree(&machine, path)?.diff_lines(was), "", "{path}");
    }
    assert_eq!(listed(&machine)?, [1, 2, 3, 4, 5]);

    let ran = machine.reset_and_compare()?;
    assert_eq!(ran.generation()?, "@darlings/root/6");
    assert_eq!(manifest(&machine, "@")?["restored"], Value::Null);
    assert_eq!(listed(&machine)?, [1, 2, 3, 4, 5, 6]);
    machine.close()
}

#[test]
fn a_volume_that_was_never_reset_before_its_generation_is_restored_with_its_flags() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    plant::flag(&machine.volume.live(), Attribute::Immutable)?;
    let first = tree(&machine, "@")?;
    machine.reset_well()?;
    let reset = tree(&machine, "@")?;
    well(asked(&machine, "darlings=restore:1")?, "restored", "restore:1")?;
    assert_eq!(tree(&machine, "@")?.diff_lines(&first), "");
    well(asked(&machine, "darlings=restore:2")?, "restored", "restore:2")?;
    assert_eq!(tree(&machine, "@")?.diff_lines(&reset), "");
    assert_eq!(tree(&machine, "@darlings/root/3")?.diff_lines(&first), "");
    machine.close()
}

#[test]
fn a_restore_needs_no_blank() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine_after(2)?;
    machine.blank = "@nowhere".to_owned();
    let of = tree(&machine, "@darlings/root/1")?;
    well(asked(&machine, "darlings=restore:1")?, "restored", "restore:1")?;
    assert_eq!(tree(&machine, "@")?.diff_lines(&of), "");
    machine.close()
}

#[test]
fn what_is_not_there_cannot_be_restored_and_those_that_are_are_named() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(3)?;
    // None of these is a generation.
    machine.volume.snapshot("@", "@darlings/root/9", true)?;
    std::fs::write(machine.at("@darlings/root/removing-1"), "")?;
    std::fs::write(machine.at("@darlings/root/8"), "")?;
    machine.read_only("@darlings/root/2", false)?;
    let before = machine.whole()?;
    for number in [1, 2, 7, 8, 9] {
        let ran = asked(&machine, &format!("darlings=restore:{number}"))?;
        assert_eq!(ran.code, Some(10));
        assert_eq!(
            ran.stderr,
            format!(
                "error: no volume was restored; all are as they were: /: there is no generation \
                 {number}; there is 3\n"
            )
        );
        let report = ran.report.unwrap();
        assert_eq!(report["asked"], format!("restore:{number}"));
        assert_eq!(report["outcome"], "failed");
    }
    assert_eq!(machine.whole()?.differences(&before), "");
    let machine = {
        machine.close()?;
        machine_after(0)?
    };
    let before = machine.whole()?;
    let ran = asked(&machine, "darlings=restore:previous")?;
    let error =
        "error: no volume was restored; all are as they were: /: there is no generation yet\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(10), error));
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn a_word_that_means_nothing_resets_nothing_and_on_failure_decides() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine_after(1)?;
    let before = machine.whole()?;
    let error = "no volume was reset; all are as they were: the kernel command line says \
                 \"darlings=of\", which means nothing; valid are darlings=off, darlings=snapshot, \
                 darlings=restore:previous, and darlings=restore:N with the number of a \
                 generation. Correct it, or remove it for a reset";
    for (head, code) in [("", 10), ("on_failure = \"emergency\"\n", 1)] {
        head.clone_into(&mut machine.head);
        let ran = asked(&machine, "darlings=off darlings=of quiet")?;
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert_eq!(ran.stderr, format!("error: {error}\n"));
        let report = ran.report.unwrap();
        assert_eq!((&report["asked"], &report["outcome"]), (&Value::Null, &json!("failed")));
        assert_eq!(report["error"], error);
        assert_eq!(machine.whole()?.differences(&before), "");
    }
    let missing = machine.beside("missing");
    let ran = machine.run(machine.config(), &["--cmdline", missing.to_str().unwrap()])?;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("cannot read the kernel command line"), "{}", ran.stderr);
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn a_dry_run_prints_the_plan_of_each_word_and_changes_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    let before = machine.whole()?;
    let device = machine.volume.fs.device().display().to_string();
    let plan = |word: &str| -> Result<String> {
        let ran = asked_with(&machine, &machine.config(), word, &["--dry-run"])?;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        Ok(ran.stdout.replace(&device, "DEVICE"))
    };
    assert_eq!(plan("darlings=off")?, "/ (btrfs subvolume @ on DEVICE), left as it is\n");
    assert_eq!(
        plan("darlings=snapshot")?,
        "/ (btrfs subvolume @ on DEVICE), kept as generation 3, and not reset\n    \
         1. copy @ as @darlings/root/.darlings/next\n    \
         2. record number 3 in the live volume\n    \
         3. keep the previous state as @darlings/root/3\n  \
         The previous state will be @darlings/root/3.\n"
    );
    let restore = "/ (btrfs subvolume @ on DEVICE), reset 3, which restores generation 2\n    \
         1. copy @darlings/root/2 as @darlings/root/.darlings/next\n    \
         2. record the reset and the persisted paths in the stage\n    \
         3. make it durable as @darlings/root/ready-3\n    \
         4. exchange @darlings/root/ready-3 with @\n    \
         5. keep the previous state as @darlings/root/3\n  \
         The previous state will be @darlings/root/3.\n";
    assert_eq!(plan("darlings=restore:2")?, restore);
    assert_eq!(plan("darlings=restore:previous")?, restore);
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn nested_subvolumes_move_where_the_generation_has_a_place_and_others_are_named() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(0)?;
    put(&machine.volume.live(), "keep/later", "a file where a subvolume is later")?;
    let elsewhere = machine.volume.make_subvolume("@/elsewhere")?;
    put(&elsewhere, "content", "in the generation")?;
    machine.reset_well()?;
    std::fs::remove_file(machine.at("@/keep/later"))?;
    std::fs::create_dir_all(machine.at("@/keep/new"))?;
    let made = ["keep/moves", "keep/later", "keep/new/stays", "erased"];
    for nested in made {
        let at = machine.volume.make_subvolume(&format!("@/{nested}"))?;
        put(&at, "content", nested)?;
    }
    machine.read_only("@/keep/moves", true)?;
    plant::flag(&machine.at("@/keep"), Attribute::Immutable)?;
    let before = machine.whole()?.subvolumes;
    let ran = well(asked(&machine, "darlings=restore:1")?, "restored", "restore:1")?;
    let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("warning")).collect();
    assert_eq!(
        lines,
        [
            "warning: /: the subvolume /keep/later finds no place in generation 1, and goes with \
             what was live to @darlings/root/2",
            "warning: /: the subvolume /keep/new/stays finds no place in generation 1, and goes \
             with what was live to @darlings/root/2",
            "warning: /: the subvolume /elsewhere stays in generation 1: a snapshot does not hold \
             it",
            "warning: /erased is a subvolume below no persisted path: it goes with the generation",
        ]
    );
    let ids = subvolumes_of(machine.volume.fs.path(), &[])?;
    let moved = before["@/keep/moves"].id;
    assert_eq!(ids.get("@/keep/moves"), Some(&moved));
    assert!(read_only(&machine, "@/keep/moves")?);
    for nested in &made[1..] {
        let id = ids.get(&format!("@darlings/root/2/{nested}"));
        assert_eq!(id, Some(&before[&format!("@/{nested}")].id), "{nested}");
    }
    assert!(ids.contains_key("@darlings/root/1/elsewhere"));
    assert_eq!(
        std::fs::read_to_string(machine.at("@/keep/later"))?,
        "a file where a subvolume is later"
    );

    // Undone: what moved is back, and what stayed behind has an empty directory in its place.
    well(asked(&machine, "darlings=restore:2")?, "restored", "restore:2")?;
    let ids = subvolumes_of(machine.volume.fs.path(), &[])?;
    assert_eq!(ids.get("@/keep/moves"), Some(&moved));
    let mut was = before["@"].tree.clone();
    let mut is = tree(&machine, "@")?;
    for nested in &made[1..] {
        let path = RelPath::normalise(nested).unwrap();
        was.entries.remove(&path);
        is.entries.remove(&path);
    }
    assert_eq!(is.diff_lines(&was), "");
    machine.close()
}

#[test]
fn of_two_volumes_one_without_the_generation_keeps_both_from_being_restored() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(2)?;
    put(&machine.volume.make_subvolume("@home")?, "file", "of home")?;
    let before = machine.whole()?;
    let config = with_home(&machine);
    let ran = asked_with(&machine, &config, "darlings=restore:2", &[])?;
    assert_eq!(ran.code, Some(10));
    let error = "error: no volume was restored; all are as they were: /home: there is no \
                 generation yet\n";
    assert_eq!(ran.stderr, error);
    assert_eq!(machine.whole()?.differences(&before), "");

    // With one of its own it is.
    well(asked_with(&machine, &config, "darlings=snapshot", &[])?, "snapshot", "snapshot")?;
    put(&machine.at("@home"), "file", "changed")?;
    let live = boots(&machine)?;
    put(&machine.volume.live(), "keep/last", "changed")?;
    let word = "darlings=restore:previous";
    well(asked_with(&machine, &config, word, &[])?, "restored", "restore:previous")?;
    assert_eq!(boots(&machine)?.diff_lines(&live), "");
    assert_eq!(std::fs::read_to_string(machine.at("@home/file"))?, "of home");
    assert_eq!(std::fs::read_to_string(machine.at("@darlings/home/2/file"))?, "changed");
    machine.close()
}

#[test]
fn a_plain_directory_is_left_alone_and_cannot_be_kept_or_restored_as_a_whole() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(1)?;
    let directory = machine.at("directory");
    put(&directory, "file", "of a person")?;
    let before = machine.whole()?;
    let config = format!(
        "{}[[volume]]\nmount_point = \"/directory\"\ndir = {{ path = {}, blank = \"empty\" }}\n",
        machine.config(),
        common::quoted(&directory.display().to_string()),
    );
    well(asked_with(&machine, &config, "darlings=off", &[])?, "off", "off")?;
    for (asked, done) in [("snapshot", "reset"), ("restore:1", "restored")] {
        let ran = asked_with(&machine, &config, &format!("darlings={asked}"), &[])?;
        assert_eq!(ran.code, Some(10));
        assert_eq!(
            ran.stderr,
            format!(
                "error: no volume was {done}; all are as they were: /directory: {directory:?} is a \
                 plain directory, which keeps only what a reset moves aside: {asked} cannot be done \
                 with it; take the word from the kernel command line, or write darlings=off\n"
            )
        );
    }
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn nothing_is_reset_while_the_line_boots_another_root_and_check_says_so() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(1)?;
    std::fs::create_dir(machine.at("@snapshots"))?;
    machine.volume.snapshot("@", "@snapshots/5", true)?;
    let id = subvolumes_of(machine.volume.fs.path(), &[])?["@snapshots/5"];
    let before = machine.whole()?;
    let by_name = "the kernel command line boots the subvolume \"@snapshots/5\", and the \
                   configuration resets \"@\": nothing is reset while another root is booted; boot \
                   \"@\", or name what is booted in the configuration";
    let by_number = format!(
        "the kernel command line mounts the root by subvolid={id}, which is not the subvolume @ that \
         the configuration resets: nothing is reset while another root is booted; boot it by \
         rootflags=subvol=@"
    );
    for (line, why, at) in [
        ("rootflags=subvol=@snapshots/5".to_owned(), by_name, ""),
        ("rootflags=noatime,subvol=/@snapshots/5 systemd.volatile=overlay".to_owned(), by_name, ""),
        ("rootflags=subvol=@,subvol=@snapshots/5/".to_owned(), by_name, ""),
        ("rootflags=subvol=@ rootflags=subvol=@snapshots/5".to_owned(), by_name, ""),
        (format!("rootflags=ro,subvolid={id}"), &by_number, "/: "),
    ] {
        for word in ["", " darlings=snapshot", " darlings=restore:1"] {
            let ran = asked(&machine, &format!("{line}{word}"))?;
            assert_eq!(ran.code, Some(10), "{line}{word}");
            let (head, said) = ran.stderr.split_once("; all are as they were: ").unwrap();
            assert_eq!(said, format!("{at}{why}\n"), "{line}{word}");
            assert!(head.starts_with("error: no volume was "), "{head}");
            let report = ran.report.unwrap();
            assert_eq!(report["outcome"], "failed");
            assert_eq!(report["asked"] == "reset", word.is_empty(), "{report}");
        }
        let ran = check(&machine, &line)?;
        assert_eq!((ran.code, told(&ran)?), (Some(1), json!([why])), "{line}");
        well(asked(&machine, &format!("{line} darlings=off"))?, "off", "off")?;
        assert_eq!(machine.whole()?.differences(&before), "", "{line}");
    }
    for line in ["rootflags=subvol=@", "rootflags=subvol=@snapshots/5,noatime,subvol=//@/"] {
        let ran = check(&machine, line)?;
        assert_eq!((ran.code, told(&ran)?), (Some(0), json!([])), "{line}");
        well(asked(&machine, line)?, "reset", "reset")?;
    }
    machine.close()
}

fn check(machine: &Machine, line: &str) -> Result<Ran> {
    let mut command = machine.word("check", &machine.config())?;
    command.args(["--json", "--fstab", "/dev/null", "--cmdline"]).arg(cmdline(machine, line)?);
    machine.ran(&mut command)
}

fn told(ran: &Ran) -> Result<Value> {
    let check: Value = serde_json::from_str(&ran.stdout)?;
    Ok(check["volumes"][0]["problems"].clone())
}
