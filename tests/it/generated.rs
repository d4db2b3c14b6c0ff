//! Random blanks, previous states and configurations: the result of a reset is what the
//! independent model of section 2 says.

use std::cell::RefCell;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use crate::common::made_up::{config, configurable};
use crate::common::{is_own_process, subvolumes_of};
use anyhow::{Context as _, Result, ensure};
use darlings::cmdline::Asked;
use darlings::config::Strategy;
use darlings::engine::report::Ending;
use darlings::volume::Options;
use darlings_testkit::generate::{self, Case};
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::model;
use darlings_testkit::{Tree, capability, capture, skip_unless};
use proptest::test_runner::TestCaseError;

/// Cases of a run that nobody told how many; `DARLINGS_CASES` does.
const CASES: u32 = 250;

/// What became of the cases.
#[derive(Debug, Default)]
struct Tally {
    reset: u32,
    /// Refused, by the model and by the tool.
    refused: u32,
    /// Persisted paths, present or not.
    paths: usize,
    /// Of these, those that a symlink or a file stands above.
    unreachable: usize,
    entries: usize,
    exclusions: usize,
}

/// What a reset without a blank begins with: an empty directory with the root's attributes.
fn root_of(previous: &Tree) -> Tree {
    let root = previous.entries.iter().filter(|(path, _)| path.is_root());
    Tree { entries: root.map(|(path, entry)| (path.clone(), entry.clone())).collect() }
}

/// One reset of made-up trees, and another one right after it.
fn check(fs: &LoopFs, strategy: Strategy, case: &Case, tally: &mut Tally) -> Result<()> {
    let top = std::fs::File::open(fs.path())?;
    for (name, tree) in [("@", &case.previous), ("@blank", &case.blank)] {
        darlings_btrfs::create_subvolume(&top, name.as_ref())?;
        generate::plant(&fs.path().join(name), tree)?;
    }
    let planted = capture(&fs.path().join("@blank"))?;
    let previous = capture(&fs.path().join("@"))?;
    let blank = if case.without_blank { root_of(&previous) } else { planted.clone() };
    let rules = configurable(&case.rules);
    let expected = model::expected(&blank, &previous, &rules);
    let config = config("/", fs.device(), strategy, case.without_blank, &rules)?;
    let options = Options { dry_run: false, threads: 2, asked: Asked::Reset, root_subvolid: None };

    let ended = darlings::engine::reset::reset(&config, options);
    purge(fs)?;
    let result = capture(&fs.path().join("@"))?;
    let Ok(expected) = expected else {
        tally.refused += 1;
        ensure!(ended.report.outcome == Ending::Failed, "not refused: {:?}", ended.report);
        ensure!(result == previous, "refused, and changed:\n{}", result.diff_lines(&previous));
        return Ok(());
    };
    if let Some(error) = ended.error {
        return Err(error);
    }
    let difference = result.diff_lines(&expected.tree);
    ensure!(difference.is_empty(), "result != model:\n{difference}");
    let generation = capture(&fs.path().join("@darlings/root/1"))?;
    let difference = generation.diff_lines(&previous);
    ensure!(difference.is_empty(), "generation != previous state:\n{difference}");
    let after = capture(&fs.path().join("@blank"))?;
    let difference = after.diff_lines(&planted);
    ensure!(difference.is_empty(), "the blank was changed:\n{difference}");

    let ended = darlings::engine::reset::reset(&config, options);
    if let Some(error) = ended.error {
        return Err(error.context("the second time"));
    }
    purge(fs)?;
    let blank = if case.without_blank { root_of(&expected.tree) } else { blank };
    let again = model::expected(&blank, &expected.tree, &rules)?.tree;
    let difference = capture(&fs.path().join("@"))?.diff_lines(&again);
    ensure!(difference.is_empty(), "the second result != model:\n{difference}");

    tally.reset += 1;
    tally.entries += result.entries.len();
    tally.paths += ended.report.volumes[0].plan.paths.len();
    tally.unreachable += expected.left_behind.len();
    tally.exclusions += rules.iter().map(|rule| rule.excludes.len()).sum::<usize>();
    Ok(())
}

/// Removes what `carry` moved aside: a kept file may have another name there.
fn purge(fs: &LoopFs) -> Result<()> {
    let own = fs.path().join("@/.darlings");
    if own.exists() {
        darlings::tree::remove(std::fs::File::open(own)?.as_fd(), "trash")?;
    }
    Ok(())
}

/// Every subvolume goes, with whatever is in it.
fn clear(fs: &LoopFs) -> Result<()> {
    let top = std::fs::File::open(fs.path())?;
    let subvolumes = subvolumes_of(fs.path(), &[])?;
    for path in subvolumes.keys().rev() {
        let at = Path::new(path);
        let parent = at.parent().context("no parent")?;
        let parent = std::fs::File::open(fs.path().join(parent))?;
        darlings_btrfs::delete_subvolume(&parent, at.file_name().context("no name")?)?;
    }
    if fs.path().join("@darlings").exists() {
        std::fs::remove_dir_all(fs.path().join("@darlings"))?;
    }
    darlings_btrfs::sync(&top)?;
    Ok(())
}

#[test]
fn both_strategies_make_of_random_trees_what_the_model_says_and_again_the_second_time() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    if !is_own_process(
        "generated::both_strategies_make_of_random_trees_what_the_model_says_and_again_the_second_time",
    )? {
        return Ok(());
    }
    darlings::fs::process::prepare()?;
    let mut runner = generate::runner(CASES)?;
    let cases = runner.config().cases;
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let tally = RefCell::new(Tally::default());
    let start = Instant::now();
    let outcome = runner.run(&generate::case(), |case| {
        for strategy in [Strategy::Rollback, Strategy::Carry] {
            let checked = check(&fs, strategy, &case, &mut tally.borrow_mut());
            let cleared = clear(&fs);
            checked
                .and(cleared)
                .map_err(|why| TestCaseError::fail(format!("{strategy:?}: {why:#}")))?;
        }
        Ok(())
    });
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{cases} cases in {seconds:.1} s: {:?}", tally.borrow());
    fs.close()?;
    outcome.map_err(|why| anyhow::anyhow!("{why}"))?;
    let tally = tally.into_inner();
    assert_eq!(tally.reset + tally.refused, 2 * cases);
    if cases >= CASES {
        let dull = tally.refused == 0 || tally.unreachable == 0 || tally.exclusions == 0;
        assert!(!dull, "{tally:?}");
    }
    Ok(())
}
