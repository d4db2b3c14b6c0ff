use super::*;
use crate::flags::Flags;
use crate::tree::{HardLinks, Kind, Time};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A tree from lines: `path/` is a directory, `path -> target` a symlink, anything else a file. The
/// owner tells which tree an entry came from.
fn tree(owner: u32, lines: &[&str]) -> Result<Tree, String> {
    let entry = |kind| Entry {
        kind,
        owner,
        group: 0,
        mode: 0o755,
        mtime: Time::default(),
        atime: Time::default(),
        xattrs: BTreeMap::new(),
        flags: Flags::default(),
        project: 0,
        links: None,
    };
    let mut tree = Tree::default();
    tree.entries.insert(RelPath::root(), entry(Kind::Directory));
    for line in lines {
        let (path, kind) = if let Some((path, target)) = line.split_once(" -> ") {
            (path, Kind::Symlink { target: target.into() })
        } else if line.ends_with('/') {
            (*line, Kind::Directory)
        } else {
            (*line, Kind::File { size: 0, sha256: String::new(), holes: Vec::new(), blocks: 0 })
        };
        tree.entries.insert(RelPath::normalise(path)?, entry(kind));
    }
    Ok(tree)
}

const B: u32 = 1;
const P: u32 = 2;

/// The result as lines: where each entry came from, its path, a slash for a directory.
fn reset(
    blank: &[&str],
    previous: &[&str],
    rules: &[(&str, &[&str])],
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let rules: Vec<Rule> =
        rules.iter().map(|(path, excludes)| Rule::new(path, excludes)).collect::<Result<_, _>>()?;
    let expected = expected(&tree(B, blank)?, &tree(P, previous)?, &rules)?;
    let mut lines: Vec<String> = expected
        .tree
        .entries
        .iter()
        .map(|(path, entry)| {
            let source = if entry.owner == B { "B" } else { "P" };
            format!("{source} {path}{}", if entry.kind.is_directory() { "/" } else { "" })
        })
        .collect();
    lines.extend(expected.left_behind.iter().map(|path| format!("left {path}")));
    Ok(lines)
}

#[test]
fn without_rules_the_blank_is_the_result() -> Outcome {
    assert_eq!(
        reset(&["etc/", "etc/x"], &["etc/", "etc/y", "z"], &[])?,
        ["B ./", "B etc/", "B etc/x"]
    );
    Ok(())
}

#[test]
fn a_persisted_directory_is_as_it_was_and_nothing_of_the_blank_is_in_it() -> Outcome {
    let blank = ["var/", "var/log/", "var/log/install"];
    let previous = ["var/", "var/log/", "var/log/today", "var/tmp"];
    assert_eq!(
        reset(&blank, &previous, &[("/var/log", &[])])?,
        ["B ./", "B var/", "P var/log/", "P var/log/today"]
    );
    Ok(())
}

#[test]
fn a_persisted_path_that_was_absent_stays_absent_even_where_the_blank_has_it() -> Outcome {
    assert_eq!(reset(&["etc/", "etc/x"], &["etc/"], &[("etc/x", &[])])?, ["B ./", "B etc/"]);
    Ok(())
}

#[test]
fn a_connector_that_the_blank_lacks_is_the_previous_one_even_when_what_it_leads_to_is_absent()
-> Outcome {
    assert_eq!(reset(&[], &["a/", "a/b/", "a/x"], &[("a/b/c", &[])])?, ["B ./", "P a/", "P a/b/"]);
    Ok(())
}

#[test]
fn a_name_that_only_begins_alike_is_not_persisted() -> Outcome {
    assert_eq!(reset(&["ab"], &["a", "ab", "ac"], &[("a", &[])])?, ["B ./", "P a", "B ab"]);
    Ok(())
}

#[test]
fn the_longest_declared_or_excluded_path_decides() -> Outcome {
    let all = ["a/", "a/b/", "a/b/c/", "a/b/c/d/", "a/b/c/d/e", "a/b/y", "a/x"];
    let rules: [(&str, &[&str]); 2] = [("a", &["b", "b/c/d/e"]), ("a/b/c/d", &[])];
    let lines = reset(&all, &all, &rules)?;
    assert_eq!(
        lines,
        ["B ./", "P a/", "B a/b/", "B a/b/c/", "P a/b/c/d/", "B a/b/c/d/e", "B a/b/y", "P a/x"]
    );
    Ok(())
}

#[test]
fn the_way_to_a_path_kept_inside_an_excluded_one_is_made_from_the_previous_state() -> Outcome {
    let previous = ["a/", "a/b/", "a/b/c/", "a/b/c/keep", "a/b/gone"];
    let rules: [(&str, &[&str]); 2] = [("a", &["b"]), ("a/b/c/keep", &[])];
    assert_eq!(
        reset(&[], &previous, &rules)?,
        ["B ./", "P a/", "P a/b/", "P a/b/c/", "P a/b/c/keep"]
    );
    Ok(())
}

#[test]
fn an_excluded_path_follows_the_blank_only_where_its_directory_is_in_the_result() -> Outcome {
    let rules: [(&str, &[&str]); 1] = [("a", &["b/c"])];
    let blank = ["a/", "a/b/", "a/b/c"];
    assert_eq!(reset(&blank, &["a/", "a/b/"], &rules)?, ["B ./", "P a/", "P a/b/", "B a/b/c"]);
    assert_eq!(reset(&blank, &["a/"], &rules)?, ["B ./", "P a/"]);
    assert_eq!(reset(&blank, &["a/", "a/b"], &rules)?, ["B ./", "P a/", "P a/b"]);
    assert_eq!(reset(&blank, &[], &rules)?, ["B ./"]);
    Ok(())
}

#[test]
fn a_path_both_declared_and_excluded_is_kept() -> Outcome {
    let rules: [(&str, &[&str]); 2] = [("a", &["b"]), ("a/b", &[])];
    assert_eq!(reset(&[], &["a/", "a/b"], &rules)?, ["B ./", "P a/", "P a/b"]);
    Ok(())
}

#[test]
fn nothing_is_followed_through_a_symlink_of_the_previous_state() -> Outcome {
    let blank = ["a/", "a/b/", "a/b/c", "a/other"];
    let previous = ["a/", "a/b -> /etc", "x -> y"];
    let rules: [(&str, &[&str]); 2] = [("a/b/c", &[]), ("x/y", &[])];
    let lines = reset(&blank, &previous, &rules)?;
    assert_eq!(lines, ["B ./", "B a/", "B a/b/", "B a/other", "left a/b/c", "left x/y"]);
    Ok(())
}

#[test]
fn a_file_above_a_declared_path_leaves_it_behind_as_well() -> Outcome {
    assert_eq!(reset(&["a/"], &["a"], &[("a/b", &[])])?, ["B ./", "B a/", "left a/b"]);
    Ok(())
}

#[test]
fn a_persisted_symlink_is_itself_persisted() -> Outcome {
    assert_eq!(reset(&["a/", "a/x"], &["a -> b"], &[("a", &[])])?, ["B ./", "P a"]);
    Ok(())
}

#[test]
fn a_non_directory_of_the_blank_above_a_declared_path_is_refused() -> Outcome {
    let refused = reset(&["var -> usr"], &["var/", "var/log/"], &[("var/log", &[])]);
    let why = refused.err().map(|why| why.to_string());
    assert_eq!(why.as_deref(), Some("var, above var/log, is no directory in the blank"));
    // Not where the ancestor itself is persisted: then it comes from the previous state.
    let rules: [(&str, &[&str]); 2] = [("a", &[]), ("a/b/c", &[])];
    assert_eq!(
        reset(&["a"], &["a/", "a/b/", "a/b/c"], &rules)?,
        ["B ./", "P a/", "P a/b/", "P a/b/c"]
    );
    Ok(())
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let why = |rules: &[(&str, &[&str])]| reset(&[], &[], rules).err().map(|why| why.to_string());
    assert_eq!(why(&[("/", &[])]).as_deref(), Some(". cannot be persisted"));
    assert_eq!(
        why(&[(".darlings/attic", &[])]).as_deref(),
        Some(".darlings/attic cannot be persisted")
    );
    assert_eq!(why(&[("a", &[]), ("/./a//", &[])]).as_deref(), Some("a is declared twice"));
    assert_eq!(why(&[("a", &["."])]).as_deref(), Some("a excludes itself"));
    assert_eq!(why(&[("a/..", &[])]).as_deref(), Some("a/.. holds .."));
}

#[test]
fn the_tools_own_directory_is_left_out() -> Outcome {
    assert_eq!(
        reset(&[".darlings/", ".darlings/x"], &[".darlings/", "a"], &[("a", &[])])?,
        ["B ./", "P a"]
    );
    Ok(())
}

#[test]
fn hard_links_hold_within_each_source_and_never_across() -> Outcome {
    let path = |text: &str| RelPath::normalise(text);
    let linked = |owner, lines: &[&str], members: &[&str]| -> Result<Tree, String> {
        let mut tree = tree(owner, lines)?;
        for member in members {
            let links = HardLinks { group: path(members[0])?, count: members.len() as u64 };
            tree.entries.entry(path(member)?).and_modify(|entry| entry.links = Some(links));
        }
        Ok(tree)
    };
    let files = ["a", "b", "c", "d", "e", "f"];
    let blank = linked(B, &files, &["a", "d", "e"])?;
    let previous = linked(P, &files, &["a", "b", "c", "f"])?;
    let rules = [Rule::new("b", &[])?, Rule::new("c", &[])?];
    let result = expected(&blank, &previous, &rules)?.tree;
    let links: Vec<String> = result
        .entries
        .iter()
        .filter_map(|(path, entry)| {
            entry.links.as_ref().map(|links| format!("{path}: {} {}", links.group, links.count))
        })
        .collect();
    assert_eq!(links, ["a: a 3", "b: b 2", "c: b 2", "d: a 3", "e: a 3"]);

    let alone = expected(&blank, &previous, &[Rule::new("f", &[])?])?.tree;
    assert_eq!(alone.at("f").and_then(|entry| entry.links.clone()), None);
    Ok(())
}
