//! Random trees can be planted, and the model keeps its promises on them.

use anyhow::Result;
use darlings_testkit::generate::{self, Case};
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::{Tree, capability, capture, model, remove, skip_unless};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

fn planted(fs: &LoopFs, name: &str, tree: &generate::GeneratedTree) -> Result<Tree> {
    let dir = fs.path().join(name);
    std::fs::create_dir(&dir)?;
    generate::plant(&dir, tree)?;
    let captured = capture(&dir)?;
    remove::all(&dir)?;
    Ok(captured)
}

fn promises(fs: &LoopFs, case: &Case) -> Result<Option<Tree>> {
    let blank = planted(fs, "blank", &case.blank)?;
    let previous = planted(fs, "previous", &case.previous)?;
    let paths: Vec<_> = previous.entries.keys().cloned().collect();
    anyhow::ensure!(case.previous.paths().into_iter().eq(paths), "not everything was planted");
    anyhow::ensure!(
        model::expected(&blank, &previous, &[])?.tree == blank,
        "no rules, and not the blank"
    );

    let Ok(expected) = model::expected(&blank, &previous, &case.rules) else { return Ok(None) };
    let again = model::expected(&blank, &expected.tree, &case.rules)?;
    anyhow::ensure!(
        again.tree == expected.tree,
        "twice is not once:\n{}",
        expected.tree.diff_lines(&again.tree)
    );
    anyhow::ensure!(again.left_behind.is_empty(), "the result has a symlink above a declared path");
    let difference = model::expected(&blank, &blank, &case.rules)?.tree.diff_lines(&blank);
    anyhow::ensure!(
        difference.is_empty() || has_links(&blank),
        "the blank reset to itself differs:\n{difference}"
    );
    Ok(Some(expected.tree))
}

/// Links between what is kept and what is not are cut, even when both trees are the same.
fn has_links(tree: &Tree) -> bool {
    tree.entries.values().any(|entry| entry.links.is_some())
}

#[test]
fn a_reset_of_a_random_tree_is_the_same_when_it_is_done_twice() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let (mut refused, mut kept) = (0, 0);
    let mut runner =
        TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&generate::case(), |case| {
        remove::contents(fs.path()).map_err(|why| TestCaseError::fail(format!("{why:#}")))?;
        promises(&fs, &case).map_err(|why| TestCaseError::fail(format!("{why:#}")))?;
        Ok(())
    });
    // How often the cases are interesting, counted on a run that is the same every time.
    let mut fixed = TestRunner::deterministic();
    for _ in 0..40 {
        use proptest::strategy::{Strategy as _, ValueTree as _};
        let case = generate::case()
            .new_tree(&mut fixed)
            .map_err(|why| anyhow::anyhow!("{why}"))?
            .current();
        remove::contents(fs.path())?;
        match promises(&fs, &case)? {
            None => refused += 1,
            Some(_) if !case.rules.is_empty() => kept += 1,
            Some(_) => {}
        }
    }
    remove::contents(fs.path())?;
    fs.close()?;
    outcome.map_err(|why| anyhow::anyhow!("{why}"))?;
    assert!(refused > 0 && kept > 10, "dull cases: {refused} refused, {kept} with rules");
    Ok(())
}
