//! What was begun is completed as it was begun, whatever has changed by the next boot: the
//! configuration, the snapshots, or who has the dataset mounted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{RelPath, Tree, plant};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Strategy, empty_trash, killed_at, reset, reset_below};
use crate::pools::{
    DATASET, MARK, POOL, STAGE, Whole, change, noise, patiently, property, put, sh, tree,
};

#[test]
fn what_was_begun_is_completed_as_it_was_begun() -> Result<()> {
    in_guest(
        "resumed::what_was_begun_is_completed_as_it_was_begun",
        checks![
            a_rollback_keeps_what_it_began_to_keep_and_the_next_reset_puts_it_away,
            what_is_declared_again_in_between_comes_back_with_the_next_reset,
            a_stage_of_the_first_versions_is_completed_with_the_lists_of_today,
            a_rollback_goes_back_to_the_blank_that_it_began_with,
            a_carry_is_completed_without_the_blank_that_it_was_made_from,
            a_restore_is_completed_and_tidied_without_the_generation_that_it_was_made_from,
            a_dataset_that_was_rolled_back_must_not_be_booted_where_it_is_mounted,
            a_dataset_that_is_half_moved_must_not_be_booted_where_it_is_mounted,
        ],
    )
}

/// A dataset with much to keep, and one thing to erase.
fn machine() -> Result<Machine> {
    let blank = |blank: &Path| {
        put(blank, "etc/motd", "of the blank")?;
        Ok(plant::owner(blank, 1001, 1002)?)
    };
    let live = |live: &Path| {
        put(live, "etc/motd", "changed")?;
        put(live, "x/file", noise(3, 200_000))?;
        put(live, "srv/y/file", noise(4, 200_000))?;
        put(live, "srv/y/cache/new", "erased")?;
        plant::xattr(&live.join("srv/y/file"), "user.of", b"mia")?;
        plant::owner(&live.join("srv/y"), 1000, 100)?;
        put(live, "z/file", "of z")
    };
    Machine::new(&["-O", "xattr=sa"], blank, live)
}

/// The same dataset with another list.
fn with(machine: &Machine, rules: &[(&str, &[&str])]) -> Machine {
    let rule = |(path, excludes): &(&str, &[&str])| Rule::new(path, excludes).unwrap();
    Machine {
        dataset: machine.dataset.clone(),
        rules: rules.iter().map(rule).collect(),
        strategy: machine.strategy,
        blank: machine.blank,
        more: machine.more.clone(),
    }
}

/// Kills a reset right after it has rolled the dataset back.
fn interrupt_after_the_rollback(machine: &Machine) -> Result<()> {
    // It mounts the dataset once more then, after all that it has looked at.
    for when in 6..12 {
        patiently(|| killed_at(machine, "mount", when))?;
        if property(DATASET, MARK)? != "-" {
            println!("killed at mount {when}");
            return Ok(());
        }
    }
    anyhow::bail!("it was never killed after the rollback")
}

/// What is at and below a path, by paths below that.
fn below(tree: &Tree, top: &str) -> Result<Tree> {
    let top = RelPath::normalise(top).map_err(anyhow::Error::msg)?;
    let mut found = Tree::default();
    for (path, entry) in tree.entries.iter().filter(|(path, _)| path.is_at_or_below(&top)) {
        let rest = RelPath::normalise(&path.as_bytes()[top.as_bytes().len()..]);
        found.entries.insert(rest.map_err(anyhow::Error::msg)?, entry.clone());
    }
    ensure!(!found.entries.is_empty(), "there is no {top}");
    Ok(found)
}

fn must_be(found: &Tree, wanted: &Tree, what: &str) -> Result<()> {
    let lines = found.diff_lines(wanted);
    ensure!(lines.is_empty(), "{what} (found != wanted):\n{lines}");
    Ok(())
}

const X: (&str, &[&str]) = ("x", &[]);
const Y: (&str, &[&str]) = ("srv/y", &["cache"]);
const Z: (&str, &[&str]) = ("z", &[]);

fn a_rollback_keeps_what_it_began_to_keep_and_the_next_reset_puts_it_away() -> Result<()> {
    let machine = machine()?;
    let (began, older) = (with(&machine, &[X, Y]), with(&machine, &[X]));
    let expected = began.expected()?;
    interrupt_after_the_rollback(&began)?;
    // At the boot menu somebody takes an older generation of the system.
    reset(&older.config(), &[])?.well()?;
    began.must_be(&expected)?;

    let expected_of_older = older.expected()?;
    reset(&older.config(), &[])?.well()?;
    older.must_be(&expected_of_older)?;
    let away = tree(DATASET)?;
    must_be(&below(&away, ".darlings/attic/2/srv/y")?, &below(&expected, "srv/y")?, "the attic")?;

    // And all of it is there again with the newer one.
    reset(&began.config(), &[])?.well()?;
    began.must_be(&expected)
}

fn what_is_declared_again_in_between_comes_back_with_the_next_reset() -> Result<()> {
    let machine = machine()?;
    let (with_z, without) = (with(&machine, &[X, Z]), with(&machine, &[X]));
    let expected_with = with_z.expected()?;
    reset(&with_z.config(), &[])?.well()?;
    with_z.must_be(&expected_with)?;

    // This one puts z into the attic of the stage, and does not get further.
    let expected_without = without.expected()?;
    interrupt_after_the_rollback(&without)?;
    reset(&with_z.config(), &[])?.well()?;
    without.must_be(&expected_without)?;
    reset(&with_z.config(), &[])?.well()?;
    with_z.must_be(&expected_with)
}

/// It has no manifest, and what the first reset put away into it stays there.
fn a_stage_of_the_first_versions_is_completed_with_the_lists_of_today() -> Result<()> {
    let machine = machine()?;
    let (with_z, without) = (with(&machine, &[X, Z]), with(&machine, &[X]));
    let expected_with = with_z.expected()?;
    reset(&with_z.config(), &[])?.well()?;
    let expected_without = without.expected()?;
    interrupt_after_the_rollback(&without)?;
    patiently(|| {
        change(STAGE, |stage| {
            for name in ["manifest", "generation"] {
                let file = stage.join(".darlings").join(name);
                if file.exists() {
                    fs::remove_file(file)?;
                }
            }
            Ok(())
        })
    })?;
    reset(&with_z.config(), &[])?.well()?;
    without.must_be(&expected_without)?;
    reset(&with_z.config(), &[])?.well()?;
    with_z.must_be(&expected_with)
}

/// Another configuration may name another, or, with `carry`, an empty one.
fn a_rollback_goes_back_to_the_blank_that_it_began_with() -> Result<()> {
    let mut machine = machine()?;
    // Older, since a rollback destroys what is newer.
    change(DATASET, |live| put(live, "of-this-blank", "too"))?;
    sh("zfs", &["snapshot", &format!("{DATASET}@second")])?;
    change(DATASET, |live| put(live, "etc/motd", "changed"))?;
    machine.blank = "second";
    let began = with(&machine, &[X]);
    let blank = tree(&format!("{DATASET}@second"))?;
    for (other, blank_by_then) in
        [(Strategy::Rollback, "\"blank\""), (Strategy::Carry, "\"empty\"")]
    {
        let expected = model::expected(&blank, &tree(DATASET)?, &began.rules)?.tree;
        interrupt_after_the_rollback(&began)?;
        let config = with(&machine, &[X]).by(other).config();
        let config = config.replace("\"second\"", blank_by_then);
        reset(&config, &[])?.well()?;
        must_be(&tree(DATASET)?, &expected, "the result")?;
        ensure!(property(DATASET, MARK)? == "-", "the mark is left");
    }
    Ok(())
}

/// What an interrupted `carry` has left.
fn left() -> Result<Option<&'static str>> {
    let live = tree(DATASET)?;
    let has = |name: &&str| live.at(&format!(".darlings/reset/{name}")).is_some();
    Ok(["journal", "complete"].into_iter().find(has))
}

fn a_carry_is_completed_without_the_blank_that_it_was_made_from() -> Result<()> {
    let machine = with(&machine()?, &[X, Y]).by(Strategy::Carry);
    let expected = machine.expected()?;
    killed_at(&machine, "renameat2", 2)?;
    assert_eq!(left()?, Some("journal"));
    patiently(|| sh("zfs", &["destroy", &format!("{DATASET}@blank")]).map(drop))?;
    reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn a_restore_is_completed_and_tidied_without_the_generation_that_it_was_made_from() -> Result<()> {
    let machine = with(&machine()?, &[X]).by(Strategy::Carry);
    let wanted = tree(DATASET)?;
    reset(&machine.config(), &[])?.well()?;
    empty_trash(DATASET)?;
    let golden = format!("{DATASET}@golden");
    sh("zfs", &["snapshot", &golden])?;
    fs::write("/tmp/cmdline", "root=ZFS=tank/local/root rw darlings=restore:1\n")?;
    let mut seen = BTreeSet::new();
    // The last is that of the journal's other name: it is complete then, and not tidied up.
    for when in 1..6 {
        patiently(|| sh("zfs", &["rollback", "-r", &golden]).map(drop))?;
        let strace = killing("syncfs", when);
        let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
        let asked = ["--threads", "1", "--cmdline", "/tmp/cmdline"];
        let ran = reset_below(&strace, &machine.config(), &asked)?;
        ensure!(ran.report.is_none(), "not killed at syncfs {when}:\n{}", ran.stderr);
        let Some(left) = left()? else { continue };
        if !seen.insert(left) {
            continue;
        }
        println!("killed at syncfs {when}: {left}");
        // A purge, by a clock that went astray say, or somebody's hand.
        let first = format!("{DATASET}@darlings-1");
        let kept = format!("{DATASET}@golden-1");
        sh("zfs", &["rename", &first, &kept])?;
        reset(&machine.config(), &[])?.well().with_context(|| left)?;
        empty_trash(DATASET)?;
        must_be(&tree(DATASET)?, &wanted, left)?;
        assert_eq!(self::left()?, None);
        sh("zfs", &["rename", &kept, &first])?;
        if left == "complete" {
            break;
        }
    }
    assert_eq!(seen, BTreeSet::from(["complete", "journal"]));
    Ok(())
}

/// A reset is refused, and the machine must not boot.
fn refused_and_unfinished(machine: &Machine) -> Result<()> {
    let before = Whole::of(POOL)?;
    let ran = reset(&machine.config(), &[])?;
    let words = "error: not all volumes were reset: / is between the previous state and the result \
                 (every persisted path is safe; running `darlings reset` again completes it; do not \
                 use it before): /: the dataset tank/local/root is mounted at \"/mnt\"; a volume is \
                 reset before it is mounted: unmount it, or reboot\n";
    // 1 and not 10.
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), words));
    assert_eq!(ran.report.context("no report")?["outcome"], "unfinished");
    Whole::of(POOL)?.must_be(&before)
}

/// Somebody looks at it in the emergency shell, and lets the boot go on.
fn mounted_to_look(machine: &Machine) -> Result<()> {
    let expected = machine.expected()?;
    match machine.strategy {
        Strategy::Rollback => interrupt_after_the_rollback(machine)?,
        Strategy::Carry => killed_at(machine, "renameat2", 2)?,
    }
    for option in ["rw,noatime", "ro"] {
        patiently(|| sh("mount", &["-t", "zfs", "-o", option, DATASET, "/mnt"]).map(drop))?;
        refused_and_unfinished(machine).with_context(|| option)?;
        sh("umount", &["/mnt"])?;
    }
    reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn a_dataset_that_was_rolled_back_must_not_be_booted_where_it_is_mounted() -> Result<()> {
    mounted_to_look(&with(&machine()?, &[X]))
}

fn a_dataset_that_is_half_moved_must_not_be_booted_where_it_is_mounted() -> Result<()> {
    mounted_to_look(&with(&machine()?, &[X]).by(Strategy::Carry))
}

fn killing(call: &str, when: usize) -> Vec<String> {
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e"].map(str::to_owned);
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=SIGKILL:when={when}");
    [&words[..], &[trace, "-e".to_owned(), inject]].concat()
}
