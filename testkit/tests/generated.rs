//! Random trees can be planted, and the model keeps its promises on them.

use anyhow::Result;
use darlings_testkit::generate::{self, Case};
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::{RelPath, Tree, capability, capture, model, remove, skip_unless};
use proptest::test_runner::{TestCaseError, TestRunner};

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
    for path in &again.left_behind {
        anyhow::ensure!(
            is_below_a_kept_obstacle(path, &previous, &expected.tree, &case.rules),
            "the result has something else than a directory above {path}, and it is not kept"
        );
    }
    let difference = model::expected(&blank, &blank, &case.rules)?.tree.diff_lines(&blank);
    anyhow::ensure!(
        difference.is_empty() || has_links(&blank),
        "the blank reset to itself differs:\n{difference}"
    );
    Ok(Some(expected.tree))
}

/// Whether what stands above a declared path is a kept symlink or file: one that is below a declared
/// path itself, as `/a/b` is when `/a` and `/a/b/c/d` are declared and `/a/b/c` is excluded.
fn is_below_a_kept_obstacle(
    path: &RelPath,
    previous: &Tree,
    result: &Tree,
    rules: &[model::Rule],
) -> bool {
    let obstacle = |above: &RelPath| result.get(above).is_some_and(|it| !it.kind.is_directory());
    path.ancestors().into_iter().find(obstacle).is_some_and(|above| {
        let is_declared = rules.iter().any(|rule| above.is_at_or_below(&rule.path));
        is_declared
            && result.get(&above).map(|it| &it.kind) == previous.get(&above).map(|it| &it.kind)
    })
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
    let mut runner = generate::runner(96)?;
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
