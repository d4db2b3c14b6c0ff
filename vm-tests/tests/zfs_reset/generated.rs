//! Random blanks, previous states and configurations: both strategies make of them what the
//! independent model says.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::attributes::Attribute;
use darlings_testkit::generate::{self, Case, GeneratedTree, Node};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{RelPath, remove};
use proptest::test_runner::TestCaseError;

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Strategy, reset};
use crate::pools::{DATASET, POOL, create_pool, sh, tree};

#[test]
fn both_strategies_make_of_random_trees_what_the_model_says() -> Result<()> {
    in_guest(
        "generated::both_strategies_make_of_random_trees_what_the_model_says",
        checks![on_random_trees],
    )
}

/// Cases of a run that nobody told how many; `DARLINGS_CASES` does.
const FEW: u32 = 25;

/// What became of the cases.
#[derive(Debug, Default)]
struct Tally {
    reset: u32,
    /// Refused, by the model and by the tool.
    refused: u32,
    entries: usize,
    declared: usize,
    exclusions: usize,
    /// Persisted paths that a symlink or a file stands above.
    unreachable: usize,
}

/// ZFS has fewer flags than the generator knows.
fn without_foreign_flags(tree: &mut GeneratedTree) {
    let known = |flag: &mut Option<Attribute>| {
        *flag = flag.filter(|flag| {
            matches!(flag, Attribute::Immutable | Attribute::AppendOnly | Attribute::NoDump)
        });
    };
    known(&mut tree.attributes.flag);
    for node in tree.children.values_mut() {
        match node {
            Node::Directory(below) => without_foreign_flags(below),
            Node::File { attributes, .. } => known(&mut attributes.flag),
            Node::Symlink(_, attributes) | Node::Special(_, _, attributes) => {
                known(&mut attributes.flag);
            }
        }
    }
}

/// The rules that a configuration can hold. TOML is UTF-8. A path both declared and excluded, or
/// excluded twice, is a configuration error to the tool; to the model it is the declared path, so
/// leaving out the exclusion changes nothing.
fn configurable(rules: &[Rule]) -> Vec<Rule> {
    let is_text = |path: &RelPath| std::str::from_utf8(path.as_bytes()).is_ok();
    let mut rules: Vec<Rule> = rules.iter().filter(|rule| is_text(&rule.path)).cloned().collect();
    let mut named: BTreeSet<_> = rules.iter().map(|rule| rule.path.clone()).collect();
    for rule in &mut rules {
        let path = rule.path.clone();
        rule.excludes
            .retain(|exclude| is_text(exclude) && named.insert(path.join(exclude.as_bytes())));
    }
    rules
}

fn on_random_trees() -> Result<()> {
    create_pool(POOL, 512, &["-O", "acltype=posixacl", "-O", "xattr=sa"])?;
    sh("zfs", &["create", "-p", "tank/local"])?;
    let mut runner = generate::runner(FEW)?;
    let cases = runner.config().cases;
    let tally = RefCell::new(Tally::default());
    let start = Instant::now();
    let outcome = runner.run(&generate::case(), |mut case| {
        without_foreign_flags(&mut case.blank);
        without_foreign_flags(&mut case.previous);
        let checked = check(&case, &mut tally.borrow_mut());
        let cleared = sh("zfs", &["destroy", "-r", DATASET]).map(drop);
        checked.and(cleared).map_err(|why| TestCaseError::fail(format!("{why:#}")))
    });
    let seconds = start.elapsed().as_secs_f64();
    println!("{cases} cases in {seconds:.1} s: {:?}", tally.borrow());
    outcome.map_err(|why| anyhow::anyhow!("{why}"))?;
    let tally = tally.into_inner();
    assert_eq!(tally.reset + tally.refused, cases);
    assert!(tally.reset > cases / 2, "{tally:?}");
    Ok(())
}

/// Both strategies, and `carry` once more.
fn check(case: &Case, tally: &mut Tally) -> Result<()> {
    let mut machine = Machine::in_pool(
        &[],
        |at| generate::plant(at, &case.blank),
        |at| {
            remove::contents(at)?;
            generate::plant(at, &case.previous)
        },
    )?
    .by(Strategy::Carry);
    machine.rules = configurable(&case.rules);
    let (blank, previous) = (tree(&format!("{DATASET}@blank"))?, tree(DATASET)?);
    let expected = model::expected(&blank, &previous, &machine.rules);
    let Ok(expected) = expected else {
        tally.refused += 1;
        for strategy in [Strategy::Carry, Strategy::Rollback] {
            machine = machine.by(strategy);
            let ran = reset(&machine.config(), &[])?;
            ensure!(ran.code == Some(10), "not refused: {:?}\n{}", ran.code, ran.stderr);
            machine.must_be(&previous)?;
        }
        return Ok(());
    };
    machine.reset_and_compare().context("carry")?;
    let again = model::expected(&blank, &expected.tree, &machine.rules)?.tree;
    reset(&machine.config(), &[])?.well().context("carry, the second time")?;
    machine.must_be(&again).context("carry, the second time")?;

    // The generation is what it was, to the filesystem too.
    sh("zfs", &["rollback", "-r", &format!("{DATASET}@darlings-1")])?;
    sh("zfs", &["destroy", &format!("{DATASET}@darlings-1")])?;
    machine = machine.by(Strategy::Rollback);
    reset(&machine.config(), &[])?.well().context("rollback")?;
    machine.must_be(&expected.tree).context("rollback")?;

    tally.reset += 1;
    tally.entries += expected.tree.entries.len();
    tally.declared += machine.rules.len();
    tally.exclusions += machine.rules.iter().map(|rule| rule.excludes.len()).sum::<usize>();
    tally.unreachable += expected.left_behind.len();
    Ok(())
}
