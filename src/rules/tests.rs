//! The rules, one by one.

use super::*;

fn rules(declared: &[(&str, &[&str])]) -> Rules {
    let mut rules = Rules::default();
    for (path, excluded) in declared {
        let excluded: Vec<_> = excluded.iter().map(PathBuf::from).collect();
        assert_eq!(rules.declare(Path::new(path), &excluded), Ok(()));
    }
    rules.finish();
    rules
}

fn paths(found: &[Persisted]) -> Vec<(&str, usize)> {
    found.iter().filter_map(|p| Some((p.path.to_str()?, p.depth))).collect()
}

#[test]
fn slashes_and_dots_are_made_normal() {
    for text in ["/var/log", "/var/log/", "//var///log//", "/./var/./log/."] {
        assert_eq!(normal_absolute(text), Ok(PathBuf::from("/var/log")), "{text}");
    }
    assert_eq!(normal_absolute("/"), Ok(PathBuf::from("/")));
    assert_eq!(normal_relative("./a//b/"), Ok(PathBuf::from("a/b")));
}

#[test]
fn paths_that_cannot_be_meant_are_refused() {
    assert_eq!(normal_absolute("var/log"), Err(PathError::NotAbsolute));
    assert_eq!(normal_absolute(""), Err(PathError::NotAbsolute));
    assert_eq!(normal_absolute("/var/../etc"), Err(PathError::Parent));
    assert_eq!(normal_absolute("/a\0b"), Err(PathError::Nul));
    assert_eq!(normal_relative("/a"), Err(PathError::NotRelative));
    assert_eq!(normal_relative("./"), Err(PathError::Empty));
    assert_eq!(normal_relative("a/.."), Err(PathError::Parent));
}

#[test]
fn a_name_of_dots_is_a_name() {
    assert_eq!(normal_absolute("/a/..."), Ok(PathBuf::from("/a/...")));
    assert_eq!(normal_absolute("/..a"), Ok(PathBuf::from("/..a")));
}

#[test]
fn the_longest_declared_or_excluded_path_decides() {
    let rules = rules(&[("home/mia", &[".cache", "a/b"]), ("home/mia/.cache/nix/keep", &[])]);
    let verdict = |path: &str| rules.verdict(Path::new(path));
    assert_eq!(verdict(""), Verdict::Connector);
    assert_eq!(verdict("home"), Verdict::Connector);
    assert_eq!(verdict("home/eva"), Verdict::Blank);
    assert_eq!(verdict("home/mia"), Verdict::Persisted);
    assert_eq!(verdict("home/mia/a"), Verdict::Persisted);
    assert_eq!(verdict("home/mia/a/b"), Verdict::Blank);
    assert_eq!(verdict("home/mia/a/b/c"), Verdict::Blank);
    assert_eq!(verdict("home/mia/.cache"), Verdict::Connector);
    assert_eq!(verdict("home/mia/.cache/nix"), Verdict::Connector);
    assert_eq!(verdict("home/mia/.cache/nix/keep/x"), Verdict::Persisted);
    assert_eq!(verdict("home/mia/.cache/other"), Verdict::Blank);
}

#[test]
fn a_persisted_path_inside_another_is_one_entry_and_inside_an_excluded_one_comes_after_it() {
    let rules = rules(&[("a", &["x"]), ("a/b", &[]), ("a/x/y", &["z"]), ("a/x/y/z/w", &[])]);
    assert_eq!(paths(&rules.persisted()), [("a", 0), ("a/x/y", 1), ("a/x/y/z/w", 2)]);
    assert_eq!(rules.excluded(), [PathBuf::from("a/x"), PathBuf::from("a/x/y/z")]);
    assert_eq!(
        rules.connectors(),
        [PathBuf::new(), PathBuf::from("a/x"), PathBuf::from("a/x/y/z")]
    );
}

#[test]
fn declaring_a_path_twice_is_an_error_that_names_it() {
    let mut rules = Rules::default();
    assert_eq!(rules.declare(Path::new("a"), &[]), Ok(()));
    assert_eq!(rules.declare(Path::new("a"), &[]), Err(PathBuf::from("a")));
    assert_eq!(rules.declare(Path::new("b"), &["c".into(), "c".into()]), Err(PathBuf::from("b/c")));
}

#[test]
fn a_walk_of_the_blank_leaves_out_what_is_persisted_and_takes_the_rest() {
    let rules = rules(&[("a", &["x"]), ("b/c", &[]), ("a/x/y", &[])]);
    let blank = rules.root().of_the_blank();
    let excluded = |path: &[&str]| {
        let found = path.iter().try_fold(&blank, |node, name| node.child(OsStr::new(name)));
        found.map(Node::is_excluded)
    };
    assert_eq!(excluded(&["a"]), Some(true));
    assert_eq!(excluded(&["a", "x"]), None);
    assert_eq!(excluded(&["b"]), Some(false));
    assert_eq!(excluded(&["b", "c"]), Some(true));
    assert!(!blank.has_persisted_below());
}

#[test]
fn persisted_and_excluded_paths_are_found_by_turns_with_the_connectors_between() {
    let rules = rules(&[("a", &["x", "v/w"]), ("b/c", &[]), ("a/x/y/z", &["q"])]);
    let names = |found: Vec<(PathBuf, &Node)>| -> Vec<PathBuf> {
        found.into_iter().map(|(path, _)| path).collect()
    };
    let top = rules.root().persisted_within(Path::new(""));
    let a = top[0].1;
    assert_eq!(names(top), ["a", "b/c"].map(PathBuf::from));
    let inside = a.excluded_within(Path::new("a"));
    let x = inside[1].1;
    assert_eq!(names(inside), ["a/v/w", "a/x"].map(PathBuf::from));
    assert_eq!(names(x.persisted_within(Path::new("a/x"))), [PathBuf::from("a/x/y/z")]);
    assert_eq!(x.connectors_within(Path::new("a/x")), [PathBuf::from("a/x/y")]);
    assert_eq!(rules.root().connectors_within(Path::new("")), [PathBuf::from("b")]);
}
