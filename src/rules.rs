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

    /// Whether a persisted path begins here.
    #[must_use]
    pub fn is_persisted(&self) -> bool {
        self.mark == Some(Mark::Persist)
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

    /// The topmost persisted paths at or below this rule, which itself lies in no persisted
    /// path, each with its rules. `path` is this rule's own path.
    #[must_use]
    pub fn persisted_within(&self, path: &Path) -> Vec<(PathBuf, &Self)> {
        self.marked_within(path, Mark::Persist)
    }

    /// The topmost excluded paths below this rule, which is a persisted path, each with its
    /// rules. `path` is this rule's own path.
    #[must_use]
    pub fn excluded_within(&self, path: &Path) -> Vec<(PathBuf, &Self)> {
        self.marked_within(path, Mark::Exclude)
    }

    fn marked_within(&self, path: &Path, mark: Mark) -> Vec<(PathBuf, &Self)> {
        let mut found = Vec::new();
        for (name, child) in &self.children {
            let below = path.join(name);
            if child.mark == Some(mark) {
                found.push((below, child));
            } else {
                found.extend(child.marked_within(&below, mark));
            }
        }
        found
    }

    /// The directories above the topmost persisted paths below this rule, which itself lies in
    /// no persisted path: each before those below it. `path` is this rule's own path.
    #[must_use]
    pub fn connectors_within(&self, path: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for (name, child) in &self.children {
            if child.mark.is_none() && child.has_persisted_below() {
                let below = path.join(name);
                found.push(below.clone());
                found.extend(child.connectors_within(&below));
            }
        }
        found
    }

    /// The rules for a walk of the blank instead of the previous state: what is persisted is
    /// left out, with all that is below it.
    #[must_use]
    pub fn of_the_blank(&self) -> Self {
        let children = self.children.iter().map(|(name, child)| {
            let child = match child.mark {
                Some(Mark::Persist) => {
                    Self { mark: Some(Mark::Exclude), children: BTreeMap::new() }
                }
                _ => child.of_the_blank(),
            };
            (name.clone(), child)
        });
        Self { mark: None, children: children.collect() }
    }

    /// The rules for a walk of this persisted path that leaves out what is excluded, with all
    /// that is below it.
    #[must_use]
    pub fn without_excluded(&self) -> Self {
        let children = self.children.iter().map(|(name, child)| {
            let child = if child.is_excluded() {
                Self { mark: child.mark, children: BTreeMap::new() }
            } else {
                child.without_excluded()
            };
            (name.clone(), child)
        });
        Self { mark: self.mark, children: children.collect() }
    }

    /// The rules of a walk that leaves out these paths, relative to where it begins.
    pub fn excluding<'p>(paths: impl Iterator<Item = &'p Path>) -> Self {
        let mut root = Self::default();
        for path in paths {
            let node = path
                .iter()
                .fold(&mut root, |node, name| node.children.entry(name.to_owned()).or_default());
            node.mark = Some(Mark::Exclude);
        }
        root
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
    /// The lines of the configuration that declare or exclude a path.
    lines: BTreeMap<PathBuf, Line>,
    /// The digest of the configuration that they are of.
    configuration: Option<String>,
}

/// The line of the configuration that decides about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Whether it excludes the path.
    pub excludes: bool,
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
    /// The rules that a reset went by, from the lists of what was persisted and excluded. Lists that
    /// no configuration gives are taken as far as they go.
    #[must_use]
    pub fn from_lists(persisted: &[PathBuf], excluded: &[PathBuf]) -> Self {
        let mut rules = Self::default();
        let marks = [(excluded, Mark::Exclude), (persisted, Mark::Persist)];
        for (path, mark) in
            marks.iter().flat_map(|(paths, mark)| paths.iter().zip(std::iter::repeat(mark)))
        {
            let root = &mut rules.root;
            let node = path
                .iter()
                .fold(root, |node, name| node.children.entry(name.to_owned()).or_default());
            node.mark = Some(*mark);
        }
        rules.finish();
        rules
    }

    /// Notes the digest of the configuration that they are of; see [`crate::ask::drift`].
    pub fn set_configuration(&mut self, digest: Option<String>) {
        self.configuration = digest;
    }

    /// The digest of the configuration that they are of, where that is known.
    #[must_use]
    pub fn configuration(&self) -> Option<&str> {
        self.configuration.as_deref()
    }

    /// Whether they decide the same about every path.
    #[must_use]
    pub fn same_lists(&self, other: &Self) -> bool {
        self.root == other.root
    }

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

    /// Notes which line of the configuration declares or excludes `path`.
    pub fn note(&mut self, path: &Path, line: Line) {
        self.lines.insert(path.to_owned(), line);
    }

    /// The longest declared or excluded path at or above `path`, and its line. None where nobody
    /// noted one.
    #[must_use]
    pub fn decided_by(&self, path: &Path) -> Option<(&Path, &Line)> {
        path.ancestors()
            .find_map(|above| self.lines.get_key_value(above))
            .map(|(path, line)| (path.as_path(), line))
    }

    /// The declared paths below `path`, and their lines.
    pub fn declared_below(&self, path: &Path) -> impl Iterator<Item = (&Path, &Line)> {
        let below = move |it: &Path| it != path && it.starts_with(path);
        let all = self.lines.iter().map(|(path, line)| (path.as_path(), line));
        all.filter(move |(path, line)| !line.excludes && below(path))
    }

    /// Persists all of a directory, whatever is declared or excluded below it.
    pub fn keep_whole(&mut self, path: &Path) {
        let node = path
            .iter()
            .fold(&mut self.root, |node, name| node.children.entry(name.to_owned()).or_default());
        *node = Node { mark: Some(Mark::Persist), children: BTreeMap::new() };
        self.finish();
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

    /// The innermost excluded path at or above `path`; empty, for the root, when there is none.
    /// Only for paths that are not persisted.
    #[must_use]
    pub fn region(&self, path: &Path) -> PathBuf {
        let (mut node, mut so_far, mut region) = (&self.root, PathBuf::new(), PathBuf::new());
        for name in path {
            let Some(child) = node.child(name) else { break };
            so_far.push(name);
            if child.is_excluded() {
                region.clone_from(&so_far);
            }
            node = child;
        }
        region
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

    /// The persisted and the excluded paths, as they are written down.
    #[must_use]
    pub fn lists(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let persisted = self.persisted().into_iter().map(|persisted| persisted.path);
        (persisted.collect(), self.excluded())
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
mod tests;
