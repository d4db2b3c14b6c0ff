//! What is particular to `carry` on ZFS: where it works, what it refuses, what a purge leaves.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use darlings_testkit::{Attribute, Compare, plant};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Ran, Strategy, reset, reset_below};
use crate::pools::{
    DATASET, MIB, POOL, Whole, change, create_pool, large_file, property, put, sh, tree,
};

#[test]
fn a_carry_follows_the_rules_wherever_a_dataset_is() -> Result<()> {
    in_guest(
        "carry::a_carry_follows_the_rules_wherever_a_dataset_is",
        checks![
            what_is_immutable_moves_and_stays_so,
            a_link_above_a_declared_path_is_not_followed,
            an_empty_blank_leaves_what_is_declared,
            where_the_snapshots_directory_shows,
            other_snapshots_and_children_are_left_alone,
            an_encrypted_dataset_keeps_its_key,
            one_strategy_after_the_other,
            another_configuration_completes_what_was_begun_as_it_was_begun,
            where_a_rename_takes_no_flags,
        ],
    )
}

#[test]
fn a_carry_that_cannot_be_done_changes_nothing() -> Result<()> {
    in_guest(
        "carry::a_carry_that_cannot_be_done_changes_nothing",
        checks![
            what_is_mounted_elsewhere_is_refused,
            a_pool_without_room_for_the_blank_is_left_as_it_was,
        ],
    )
}

#[test]
fn a_purge_leaves_the_newest_generations_and_no_trash() -> Result<()> {
    in_guest(
        "carry::a_purge_leaves_the_newest_generations_and_no_trash",
        checks![generations_go_by_their_number_and_their_mark],
    )
}

fn machine(
    blank: impl FnOnce(&Path) -> Result<()>,
    live: impl FnOnce(&Path) -> Result<()>,
) -> Result<Machine> {
    Ok(Machine::new(&["-O", "xattr=sa"], blank, live)?.by(Strategy::Carry))
}

fn small() -> Result<Machine> {
    let blank = |blank: &Path| {
        put(blank, "etc/motd", "of the blank")?;
        put(blank, "usr/bin/sh", "of the blank")
    };
    let live = |live: &Path| {
        put(live, "etc/motd", "changed")?;
        put(live, "keep/file", "kept")?;
        put(live, "new", "erased")
    };
    Ok(machine(blank, live)?.persist("keep", &[]))
}

fn what_is_immutable_moves_and_stays_so() -> Result<()> {
    let blank = |blank: &Path| {
        put(blank, "var/empty/.keep", "")?;
        put(blank, "etc/motd", "of the blank")?;
        Ok(plant::flag(&blank.join("var/empty"), Attribute::Immutable)?)
    };
    let live = |live: &Path| {
        put(live, "etc/resolv.conf", "made so by a person")?;
        put(live, "etc/id", "kept")?;
        put(live, "top", "in the root itself")?;
        put(live, "keep/sealed/file", "kept")?;
        put(live, "keep/cache/file", "excluded")?;
        for sealed in ["etc/resolv.conf", "etc/id", "top", "keep/cache"] {
            plant::flag(&live.join(sealed), Attribute::Immutable)?;
        }
        for sealed in ["keep/sealed", "keep", "etc"] {
            plant::flag(&live.join(sealed), Attribute::AppendOnly)?;
        }
        Ok(())
    };
    let machine = machine(blank, live)?.persist("keep", &["cache"]).persist("etc/id", &[]);
    machine.reset_and_compare()?;
    machine.reset_and_compare().map(drop)
}

fn a_link_above_a_declared_path_is_not_followed() -> Result<()> {
    let machine = machine(
        |blank| put(blank, "etc/motd", "of the blank"),
        |live| {
            put(live, "secret/log", "elsewhere")?;
            put(live, "keep/file", "kept")?;
            fs::create_dir_all(live.join("home"))?;
            Ok(std::os::unix::fs::symlink("/secret", live.join("home/mia"))?)
        },
    )?
    .persist("home/mia/log", &[])
    .persist("keep", &[]);
    let ran = machine.reset_and_compare()?;
    let words = "/home/mia/log is not brought over: /home/mia is a symbolic link, which is not \
                 followed";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    Ok(())
}

fn an_empty_blank_leaves_what_is_declared() -> Result<()> {
    let mut machine = machine(
        |_| Ok(()),
        |live| {
            put(live, "keep/file", "kept")?;
            put(live, "var/log/boots", "1")?;
            put(live, "var/erased", "erased")?;
            plant::mode(&live.join("var"), 0o710)?;
            plant::mode(live, 0o751)?;
            Ok(plant::xattr(live, "user.of", b"the root")?)
        },
    )?
    .persist("keep", &[])
    .persist("var/log", &[]);
    machine.blank = "empty";
    // Rule 2: where the blank lacks the root, it is as before.
    let mut expected = tree(DATASET)?;
    expected.entries.retain(|path, _| {
        let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
        !text.starts_with(".darlings") && text != "var/erased"
    });
    reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn where_the_snapshots_directory_shows() -> Result<()> {
    let machine = small()?;
    sh("zfs", &["set", "snapdir=visible", DATASET])?;
    machine.reset_and_compare()?;
    machine.reset_and_compare().map(drop)
}

fn other_snapshots_and_children_are_left_alone() -> Result<()> {
    let machine = small()?;
    let mine = ["mine", "darlings-mine", "darlings-41"].map(|name| format!("{DATASET}@{name}"));
    for name in &mine {
        sh("zfs", &["snapshot", name])?;
    }
    sh("zfs", &["bookmark", &mine[0], &format!("{DATASET}#mine")])?;
    let child = format!("{DATASET}/child");
    sh("zfs", &["create", "-o", "mountpoint=legacy", &child])?;
    change(&child, |child| put(child, "file", "of the child"))?;
    let expected = machine.expected()?;
    let ran = reset(&machine.config(), &[])?.well()?;
    // Above the highest number that was ever used, by whomever.
    assert_eq!(ran.report.context("no report")?["volumes"][0]["generation"], 42);
    let names = sh("zfs", &["list", "-Hr", "-t", "all", "-o", "name", DATASET])?;
    let mut names: Vec<_> = names.lines().filter_map(|it| it.strip_prefix(DATASET)).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "",
            "#mine",
            "/child",
            "@blank",
            "@darlings-41",
            "@darlings-42",
            "@darlings-mine",
            "@mine"
        ]
    );
    crate::machine::empty_trash(DATASET)?;
    assert_eq!(tree(DATASET)?.diff_lines(&expected), "");
    assert!(tree(&child)?.at("file").is_some());
    Ok(())
}

fn an_encrypted_dataset_keeps_its_key() -> Result<()> {
    fs::write("/tmp/key", [7; 32])?;
    create_pool(POOL, 512, &[])?;
    sh("zfs", &["create", "-p", "tank/local"])?;
    let encrypted =
        ["-o", "encryption=on", "-o", "keyformat=raw", "-o", "keylocation=file:///tmp/key"];
    let live = |live: &Path| put(live, "keep/file", "kept");
    let machine = Machine::in_pool(&encrypted, |blank| put(blank, "etc/motd", "hello"), live)?
        .persist("keep", &[])
        .by(Strategy::Carry);
    machine.reset_and_compare()?;
    assert_eq!(property(DATASET, "encryptionroot")?, DATASET);
    assert_eq!(property(DATASET, "keystatus")?, "available");
    Ok(())
}

fn one_strategy_after_the_other() -> Result<()> {
    let machine = small()?.by(Strategy::Rollback);
    machine.reset_and_compare()?;
    let machine = machine.by(Strategy::Carry);
    machine.reset_and_compare()?;
    let numbers = |name: &str| sh("zfs", &["list", "-Hr", "-t", "snapshot", "-o", "name", name]);
    assert_eq!(numbers(DATASET)?, format!("{DATASET}@blank\n{DATASET}@darlings-2"));
    change(DATASET, |live| put(live, "new", "again"))?;
    // Without what is in its way it is one that keeps no generation.
    let machine = machine.by(Strategy::Rollback);
    machine.reset_and_compare()?;
    assert_eq!(numbers(DATASET)?, format!("{DATASET}@blank"));
    Ok(())
}

/// What is declared, the strategy and even the blank's name may change between two boots.
fn another_configuration_completes_what_was_begun_as_it_was_begun() -> Result<()> {
    let interrupt = |machine: &Machine| crate::machine::killed_at(machine, "renameat2", 4);
    let machine = small()?;
    let expected = machine.expected()?;
    interrupt(&machine)?;

    let mut other = small_rules(&machine);
    // What completes it was laid already, whatever else is wrong.
    other.blank = "no-such-blank";
    reset(&other.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn small_rules(machine: &Machine) -> Machine {
    Machine {
        dataset: machine.dataset.clone(),
        rules: Vec::new(),
        strategy: Strategy::Rollback,
        blank: machine.blank,
        more: String::new(),
    }
    .persist("etc", &[])
}

fn outcome(ran: &Ran) -> Result<String> {
    let report = ran.report.as_ref().context("no report")?;
    Ok(report["outcome"].as_str().unwrap_or_default().to_owned())
}

/// ZFS before 2.2 refuses `RENAME_NOREPLACE`.
fn where_a_rename_takes_no_flags() -> Result<()> {
    let machine = small()?;
    let expected = machine.expected()?;
    let refuses = "inject=renameat2:error=EINVAL";
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2", "-e", refuses];
    reset_below(&strace, &machine.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn what_is_mounted_elsewhere_is_refused() -> Result<()> {
    let machine = small()?;
    let expected = machine.expected()?;
    let before = Whole::of(POOL)?;
    for option in ["ro", "rw"] {
        // In somebody else's mount namespace, where our list of mounts does not show it.
        let script = format!("mount -o {option} -t zfs {DATASET} /mnt && echo ready && read x");
        let mut other = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        BufReader::new(other.stdout.take().context("no pipe")?).read_line(&mut ready)?;
        assert_eq!(ready, "ready\n");
        let ran = reset(&machine.config(), &[])?;
        drop(other.stdin.take());
        other.wait()?;
        println!("{option}: {}", ran.stderr);
        assert_eq!(ran.code, Some(10), "{option}: {}", ran.stderr);
        Whole::of(POOL)?.must_be(&before).with_context(|| format!("{option}: {}", ran.stderr))?;
    }
    reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn a_pool_without_room_for_the_blank_is_left_as_it_was() -> Result<()> {
    create_pool(POOL, 200, &["-O", "acltype=posixacl"])?;
    let blank = |blank: &Path| large_file(&blank.join("large"), 15);
    let live = |live: &Path| {
        put(live, "keep/file", "kept")?;
        large_file(&live.join("filler"), 40)
    };
    let machine = Machine::in_pool(&[], blank, live)?.persist("keep", &[]).by(Strategy::Carry);
    fs::write("/sys/module/zfs/parameters/zfs_bclone_enabled", "0")?;
    sh("zfs", &["set", &format!("quota={}", 60 * MIB), "tank/local"])?;
    let before = Whole::of(POOL)?;
    let ran = reset(&machine.config(), &[])?;
    println!("{}", ran.stderr);
    assert_eq!((ran.code, outcome(&ran)?), (Some(10), "failed".into()), "{}", ran.stderr);
    assert!(ran.stderr.contains("raise the quota"), "{}", ran.stderr);
    Whole::of(POOL)?.must_be(&before)?;
    sh("zfs", &["set", "quota=none", "tank/local"])?;
    machine.reset_and_compare().map(drop)
}

fn generations_go_by_their_number_and_their_mark() -> Result<()> {
    let machine = small()?;
    let name = |name: &str| format!("{DATASET}@{name}");
    for boot in 1..=5 {
        change(DATASET, |live| put(live, "new", format!("boot {boot}")))?;
        let ran = reset(&machine.config(), &[])?.well()?;
        assert_eq!(ran.report.context("no report")?["volumes"][0]["generation"], boot);
    }
    let result = {
        let trash = tree(DATASET)?;
        assert!(trash.at(".darlings/trash/5").is_some() && trash.at(".darlings/trash/1").is_some());
        let mut result = trash;
        result.entries.retain(|path, _| !path.as_bytes().starts_with(b".darlings/trash"));
        result
    };
    // Not ours: by name, by its mark; and one that somebody holds on to.
    sh("zfs", &["snapshot", &name("darlings-mine")])?;
    sh("zfs", &["snapshot", &name("darlings-99")])?;
    sh("zfs", &["hold", "mine", &name("darlings-2")])?;
    let purge = || -> Result<(Option<i32>, serde_json::Value)> {
        fs::write("/tmp/darlings.toml", machine.config())?;
        let words = ["purge", "--config", "/tmp/darlings.toml", "--json"];
        let output = Command::new("darlings").args(words).output()?;
        let report = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("it said {output:?}"))?;
        Ok((output.status.code(), report))
    };
    let (code, report) = purge()?;
    println!("{report:#}");
    let names = || -> Result<Vec<String>> {
        let all = sh("zfs", &["list", "-Hr", "-t", "snapshot", "-o", "name", DATASET])?;
        Ok(all.lines().filter_map(|it| it.split_once('@')).map(|it| it.1.to_owned()).collect())
    };
    let left = ["blank", "darlings-2", "darlings-4", "darlings-5", "darlings-mine", "darlings-99"];
    assert_eq!(names()?, left);
    assert_ne!(code, Some(0), "a hold is told");
    let failed = &report["volumes"][0]["failed"];
    assert!(failed.to_string().contains("zfs holds tank/local/root@darlings-2"), "{failed}");
    let live = tree(DATASET)?;
    let lines = live.diff_with(&result, &Compare::default());
    assert_eq!(lines, []);
    let in_trash = live.entries.keys().filter(|it| it.as_bytes().starts_with(b".darlings/trash/"));
    assert_eq!(in_trash.count(), 0);

    sh("zfs", &["release", "mine", &name("darlings-2")])?;
    let (code, _) = purge()?;
    assert_eq!(code, Some(0));
    let left = ["blank", "darlings-4", "darlings-5", "darlings-mine", "darlings-99"];
    assert_eq!(names()?, left);
    Ok(())
}
