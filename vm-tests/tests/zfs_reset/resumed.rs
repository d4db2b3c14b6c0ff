//! What was begun is completed as it was begun, whatever has changed by the next boot: the
//! configuration, the snapshots, or who has the dataset mounted.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{RelPath, Tree, plant};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Strategy, killed_at, reset};
use crate::pools::{DATASET, MARK, STAGE, change, noise, patiently, property, put, sh, tree};

#[test]
fn what_was_begun_is_completed_as_it_was_begun() -> Result<()> {
    in_guest(
        "resumed::what_was_begun_is_completed_as_it_was_begun",
        checks![
            a_rollback_keeps_what_it_began_to_keep_and_the_next_reset_puts_it_away,
            what_is_declared_again_in_between_comes_back_with_the_next_reset,
            a_stage_of_the_first_versions_is_completed_with_the_lists_of_today,
            a_rollback_goes_back_to_the_blank_that_it_began_with,
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
