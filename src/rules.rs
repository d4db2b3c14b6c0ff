//! What is kept: declared paths, made normal, and the tree of rules that a walk asks.
//!
//! Everything here is pure. Section 2 of the design is the law: the longest declared or
//! excluded path decides, and what is neither declared nor excluded belongs to the blank.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// Why a path in the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    /// The path does not begin with a slash.
    NotAbsolute,
    /// The path begins with a slash where a path below another one is wanted.
    NotRelative,
    /// The path holds `..`, which would make its meaning depend on symbolic links.
    Parent,
    /// The path holds a NUL byte, which no filesystem can store.
    Nul,
    /// Nothing is left of the path once it is normal: it names the directory it is relative to.
    Empty,
    /// The path's first component is the tool's own directory.
    Reserved,
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "is not absolute; begin it with a slash",
            Self::NotRelative => "is absolute; give it relative to the persisted path",
            Self::Parent => "holds `..`; write the path it stands for",
            Self::Nul => "holds a NUL byte",
            Self::Empty => "names the whole volume; declare what to keep below it",
            Self::Reserved => "lies in `.darlings`, which is the tool's own",
        })
    }
}

/// The directory in a volume's root that belongs to the tool.
pub const OWN_DIRECTORY: &str = ".darlings";

/// Makes an absolute path normal: no `//`, no `/./`, no slash at the end. `/` itself is allowed.
///
/// # Errors
/// [`PathError`] for a relative path, `..` or a NUL.
pub fn normal_absolute(text: &str) -> Result<PathBuf, PathError> {
    let relative = text.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    Ok(Path::new("/").join(normal_components(relative)?))
}

/// Makes a relative path normal, in the same way; it must not be empty.
///
/// # Errors
/// [`PathError`] for an absolute path, `..`, a NUL, or a path of which nothing is left.
pub fn normal_relative(text: &str) -> Result<PathBuf, PathError> {
    if text.starts_with('/') {
        return Err(PathError::NotRelative);
    }
    let path = normal_components(text)?;
    if path.as_os_str().is_empty() {
        return Err(PathError::Empty);
    }
    Ok(path)
}

fn normal_components(text: &str) -> Result<PathBuf, PathError> {
    if text.contains('\0') {
        return Err(PathError::Nul);
    }
    // A leading `./` keeps `Path` from reading a second slash as the root.
    Path::new("./")
        .join(text.trim_start_matches('/'))
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir => Some(Err(PathError::Parent)),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Which of the three rules of section 2 a path falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// At or below a persisted path: as in the previous state.
    Persisted,
    /// A directory above a persisted path: the blank's metadata, else the previous state's.
    Connector,
    /// Everything else: as in the blank.
    Blank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Persist,
    Exclude,
}

/// One component of the declared paths; see [`Rules`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    mark: Option<Mark>,
    children: BTreeMap<OsString, Node>,
}

impl Node {
    /// The rules below `name`, if any declared or excluded path goes through it.
    #[must_use]
    pub fn child(&self, name: &OsStr) -> Option<&Self> {
        self.children.get(name)
    }

    /// Whether a walk of persisted files leaves this path to the blank.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.mark == Some(Mark::Exclude)
    }

    /// Whether an excluded path lies below this one.
    #[must_use]
    pub fn has_excluded_below(&self) -> bool {
        self.children.values().any(|child| child.is_excluded() || child.has_excluded_below())
    }

    /// The rules one component further, by name.
    pub fn children(&self) -> impl Iterator<Item = (&OsStr, &Self)> {
        self.children.iter().map(|(name, child)| (name.as_os_str(), child))
    }

    /// Whether a persisted path lies below this one.
    #[must_use]
    pub fn has_persisted_below(&self) -> bool {
        self.children
            .values()
            .any(|child| child.mark == Some(Mark::Persist) || child.has_persisted_below())
    }

    /// Removes marks that say nothing new: a persisted path inside a persisted one, an
    /// excluded one inside an excluded one.
    fn simplify(&mut self, around: Option<Mark>) {
        if self.mark == around {
            self.mark = None;
        }
        let inside = self.mark.or(around);
        for child in self.children.values_mut() {
            child.simplify(inside);
        }
        self.children.retain(|_, child| child.mark.is_some() || !child.children.is_empty());
    }
}

/// The persisted paths of one volume, as a tree of components relative to its root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    root: Node,
}

/// A persisted path that starts a subtree of its own, relative to the volume's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persisted {
    /// Relative to the volume's root.
    pub path: PathBuf,
    /// How many excluded subtrees lie around it. One at depth n is restored after all at
    /// depth n - 1, because its connectors come into being with them.
    pub depth: usize,
}

impl Rules {
    /// Adds a persisted path and the paths below it that are left out.
    /// All are relative to the volume's root and normal.
    ///
    /// # Errors
    /// The path that is already declared, or that is both persisted and excluded.
    pub fn declare(&mut self, path: &Path, excluded: &[PathBuf]) -> Result<(), PathBuf> {
        self.mark(path, Mark::Persist)?;
        excluded.iter().try_for_each(|below| self.mark(&path.join(below), Mark::Exclude))
    }

    fn mark(&mut self, path: &Path, mark: Mark) -> Result<(), PathBuf> {
        let node = path
            .iter()
            .fold(&mut self.root, |node, name| node.children.entry(name.to_owned()).or_default());
        if node.mark.replace(mark).is_some() {
            return Err(path.to_owned());
        }
        Ok(())
    }

    /// Call once after the last [`Self::declare`].
    pub fn finish(&mut self) {
        self.root.simplify(Some(Mark::Exclude));
    }

    /// The rules at the volume's root.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The rules at `path`, if a declared or excluded path is or lies below it.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&Node> {
        path.iter().try_fold(&self.root, |node, name| node.child(name))
    }

    /// Which rule of section 2 decides about `path`.
    #[must_use]
    pub fn verdict(&self, path: &Path) -> Verdict {
        let mut node = &self.root;
        let mut around = Mark::Exclude;
        for name in path {
            let Some(child) = node.child(name) else {
                return if around == Mark::Persist { Verdict::Persisted } else { Verdict::Blank };
            };
            around = child.mark.unwrap_or(around);
            node = child;
        }
        match around {
            Mark::Persist => Verdict::Persisted,
            Mark::Exclude if node.has_persisted_below() => Verdict::Connector,
            Mark::Exclude => Verdict::Blank,
        }
    }

    /// The persisted paths, outer ones before those in their excluded parts, else in order.
    #[must_use]
    pub fn persisted(&self) -> Vec<Persisted> {
        let mut found = Vec::new();
        self.visit(&mut |path, node, depth| {
            if node.mark == Some(Mark::Persist) {
                found.push(Persisted { path: path.to_owned(), depth });
            }
        });
        found.sort_by_key(|persisted| persisted.depth);
        found
    }

    /// The excluded paths, relative to the volume's root, in order.
    #[must_use]
    pub fn excluded(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.visit(&mut |path, node, _| {
            if node.is_excluded() {
                found.push(path.to_owned());
            }
        });
        found
    }

    /// The directories above persisted paths, the volume's root (an empty path) first,
    /// each before those below it.
    #[must_use]
    pub fn connectors(&self) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::new()];
        self.visit(&mut |path, _, _| {
            if self.verdict(path) == Verdict::Connector {
                found.push(path.to_owned());
            }
        });
        found
    }

    fn visit(&self, see: &mut dyn FnMut(&Path, &Node, usize)) {
        fn below(
            node: &Node,
            path: &mut PathBuf,
            depth: usize,
            see: &mut dyn FnMut(&Path, &Node, usize),
        ) {
            for (name, child) in &node.children {
                path.push(name);
                see(path, child, depth);
                below(child, path, depth + usize::from(child.is_excluded()), see);
                path.pop();
            }
        }
        below(&self.root, &mut PathBuf::new(), 0, see);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            rules.declare(Path::new("b"), &["c".into(), "c".into()]),
            Err(PathBuf::from("b/c"))
        );
    }
}
