//! The cluttered root.

use anyhow::Result;
use darlings_testkit::fill::clutter;
use darlings_testkit::{RelPath, capability, capture, remove, skip_unless};

/// A scratch directory is removed with its immutable entries.
fn with_directory<T>(work: impl FnOnce(&std::path::Path) -> Result<T>) -> Result<T> {
    let directory = tempfile::tempdir()?;
    let done = work(directory.path());
    for entry in std::fs::read_dir(directory.path())? {
        remove::all(&entry?.path())?;
    }
    done
}

#[test]
fn the_same_seed_makes_the_same_clutter_and_another_one_goes_on_from_there() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    with_directory(|directory| {
        let made = |name: &str, seed| {
            let root = directory.join(name);
            std::fs::create_dir_all(&root)?;
            clutter(&root, seed)?;
            capture(&root)
        };
        let one = made("one", 1)?;
        assert_eq!(one.diff_lines(&made("other", 1)?), "");
        let later = made("other", 2)?;
        assert!(one.entries.keys().all(|path| later.entries.contains_key(path)));
        let notes = RelPath::normalise("root/notes.txt").map_err(anyhow::Error::msg)?;
        assert_ne!(one.get(&notes), later.get(&notes));
        Ok(())
    })
}
