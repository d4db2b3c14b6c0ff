//! The path rules against their definition: the longest declared or excluded path decides, and what
//! is above a declared path and not kept itself is a connector.
//!
//! Lines of the input: `+PATH` declares, `-PATH` excludes below the last declared one.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use darlings::rules::{Rules, Verdict, normal_absolute, normal_relative};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut declared: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
    for line in text.lines() {
        let normal = |path: &str| normal_relative(path.trim_start_matches('/')).ok();
        if let Some(path) = line.strip_prefix('+').and_then(normal) {
            declared.push((path, Vec::new()));
        } else if let (Some(path), Some((_, excluded))) =
            (line.strip_prefix('-').and_then(normal), declared.last_mut())
        {
            excluded.push(path);
        }
        // Making a path normal once more changes nothing.
        if let Ok(path) = normal_absolute(line) {
            let again = normal_absolute(path.to_str().expect("it was text"));
            assert_eq!(again, Ok(path));
        }
    }
    let mut rules = Rules::default();
    // Whether it is kept, by path.
    let mut marks: BTreeMap<PathBuf, bool> = BTreeMap::new();
    for (path, excluded) in &declared {
        let all = excluded.iter().map(|below| (path.join(below), false));
        let twice = std::iter::once((path.clone(), true))
            .chain(all)
            .filter(|(path, kept)| marks.insert(path.clone(), *kept).is_some())
            .count();
        let refused = rules.declare(path, excluded).is_err();
        assert_eq!(refused, twice > 0, "{path:?} {excluded:?}");
        if refused {
            return;
        }
    }
    rules.finish();
    let kept: BTreeSet<&Path> =
        marks.iter().filter(|(_, kept)| **kept).map(|(path, _)| path.as_path()).collect();
    let mut probes: BTreeSet<PathBuf> = marks.keys().map(|path| path.join("below it")).collect();
    probes.extend(marks.keys().flat_map(|path| path.ancestors()).map(Path::to_owned));
    for path in probes {
        let decides = path.ancestors().find_map(|above| marks.get(above));
        // Paths are ordered by component, so what lies below one comes right after it.
        let leads = kept
            .range::<Path, _>((Bound::Excluded(path.as_path()), Bound::Unbounded))
            .next()
            .is_some_and(|next| next.starts_with(&path));
        let expected = match decides {
            Some(true) => Verdict::Persisted,
            Some(false) | None if leads => Verdict::Connector,
            Some(false) | None => Verdict::Blank,
        };
        assert_eq!(rules.verdict(&path), expected, "{path:?} of {marks:?}");
    }
});
