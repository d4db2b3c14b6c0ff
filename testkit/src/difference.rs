//! How two trees differ, in lines a person can read.

use std::collections::BTreeSet;
use std::fmt;

use crate::attributes::Attribute;
use crate::flags::{Flags, KNOWN};
use crate::names::{ByteString, RelPath};
use crate::tree::{Entry, HardLinks, Kind, Tree};

/// One attribute of one entry that is not the same in both trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which entry.
    pub path: RelPath,
    /// Which attribute.
    pub attribute: Attribute,
    /// What stands in the line for the attribute: its name, or that of the extended attribute.
    pub what: String,
    /// The value in the first tree.
    pub left: String,
    /// The value in the second tree.
    pub right: String,
}

/// What is left out of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Paths left out with all that is below them. `.darlings` unless told otherwise.
    pub leave_out: Vec<RelPath>,
    /// Attributes left out everywhere, such as [`Attribute::AccessTime`] where a running system
    /// reads the files.
    pub without: BTreeSet<Attribute>,
}

impl Default for Compare {
    fn default() -> Self {
        Self { leave_out: vec![RelPath::root().join(".darlings")], without: BTreeSet::new() }
    }
}

impl Compare {
    /// Everything, the tool's own directory included.
    #[must_use]
    pub fn all() -> Self {
        Self { leave_out: Vec::new(), without: BTreeSet::new() }
    }

    /// Leaves out an attribute.
    #[must_use]
    pub fn without(mut self, attribute: Attribute) -> Self {
        self.without.insert(attribute);
        self
    }

    /// Leaves out a path and what is below it.
    #[must_use]
    pub fn leaving_out(mut self, path: RelPath) -> Self {
        self.leave_out.push(path);
        self
    }

    fn covers(&self, path: &RelPath) -> bool {
        !self.leave_out.iter().any(|left_out| path.is_at_or_below(left_out))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, left, right, .. } = self;
        write!(formatter, "{path}: {what} {left} != {right}")
    }
}

impl Tree {
    /// Every difference to another tree, `.darlings` left out. Empty means the same.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Vec<Difference> {
        self.diff_with(other, &Compare::default())
    }

    /// Every difference to another tree, with a say in what is compared.
    #[must_use]
    pub fn diff_with(&self, other: &Self, compare: &Compare) -> Vec<Difference> {
        let paths: BTreeSet<&RelPath> = self.entries.keys().chain(other.entries.keys()).collect();
        let mut found = Vec::new();
        for path in paths.into_iter().filter(|path| compare.covers(path)) {
            match (self.entries.get(path), other.entries.get(path)) {
                (Some(left), Some(right)) => diff_entry(path, left, right, &mut found),
                (left, right) => {
                    let word =
                        |entry: Option<&Entry>| entry.map_or("absent", |entry| entry.kind.name());
                    push(&mut found, path, Attribute::Existence, word(left), word(right));
                }
            }
        }
        found.retain(|difference| !compare.without.contains(&difference.attribute));
        found.sort_by(|a, b| (&a.path, a.attribute).cmp(&(&b.path, b.attribute)));
        found
    }

    /// The differences as text, a line each; empty means the same. For `assert_eq!(..., "")`.
    #[must_use]
    pub fn diff_lines(&self, other: &Self) -> String {
        lines(&self.diff(other))
    }
}

/// Differences as text, a line each.
#[must_use]
pub fn lines(differences: &[Difference]) -> String {
    let lines = differences.iter().map(ToString::to_string);
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

fn push(
    found: &mut Vec<Difference>,
    path: &RelPath,
    attribute: Attribute,
    left: impl fmt::Display,
    right: impl fmt::Display,
) {
    push_named(found, path, attribute, attribute.name(), left, right);
}

fn push_named(
    found: &mut Vec<Difference>,
    path: &RelPath,
    attribute: Attribute,
    what: impl fmt::Display,
    left: impl fmt::Display,
    right: impl fmt::Display,
) {
    found.push(Difference {
        path: path.clone(),
        attribute,
        what: what.to_string(),
        left: left.to_string(),
        right: right.to_string(),
    });
}

fn diff_entry(path: &RelPath, left: &Entry, right: &Entry, found: &mut Vec<Difference>) {
    if left.kind.name() != right.kind.name() {
        push(found, path, Attribute::Type, left.kind.name(), right.kind.name());
        return;
    }
    diff_kind(path, &left.kind, &right.kind, found);
    if left.owner != right.owner {
        push(found, path, Attribute::Owner, left.owner, right.owner);
    }
    if left.group != right.group {
        push(found, path, Attribute::Group, left.group, right.group);
    }
    if left.mode != right.mode {
        let octal = |mode: u32| format!("{mode:04o}");
        push(found, path, Attribute::Mode, octal(left.mode), octal(right.mode));
    }
    if left.mtime != right.mtime {
        push(found, path, Attribute::ModificationTime, left.mtime, right.mtime);
    }
    if left.atime != right.atime {
        push(found, path, Attribute::AccessTime, left.atime, right.atime);
    }
    diff_xattrs(path, left, right, found);
    if left.links != right.links {
        push(found, path, Attribute::HardLinks, links_text(left), links_text(right));
    }
    diff_flags(path, left.flags, right.flags, found);
    if left.project != right.project {
        push(found, path, Attribute::Project, left.project, right.project);
    }
}

fn diff_kind(path: &RelPath, left: &Kind, right: &Kind, found: &mut Vec<Difference>) {
    match (left, right) {
        (
            Kind::File { size, sha256, holes, blocks: _ },
            Kind::File { size: other_size, sha256: other_sha256, holes: other_holes, blocks: _ },
        ) => {
            if (size, sha256) != (other_size, other_sha256) {
                let text = |size: &u64, sha256: &str| {
                    format!("{size} (sha256 {})", sha256.get(..12).unwrap_or(sha256))
                };
                let (left, right) = (text(size, sha256), text(other_size, other_sha256));
                push(found, path, Attribute::Bytes, left, right);
            }
            if holes != other_holes {
                push(found, path, Attribute::Holes, holes_text(holes), holes_text(other_holes));
            }
        }
        (Kind::Symlink { target }, Kind::Symlink { target: other }) if target != other => {
            push(found, path, Attribute::SymlinkTarget, target, other);
        }
        (
            Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor },
            Kind::CharacterDevice { major: other_major, minor: other_minor }
            | Kind::BlockDevice { major: other_major, minor: other_minor },
        ) if (major, minor) != (other_major, other_minor) => {
            let (left, right) =
                (format!("{major}:{minor}"), format!("{other_major}:{other_minor}"));
            push(found, path, Attribute::DeviceNumber, left, right);
        }
        _ => {}
    }
}

fn holes_text(holes: &[(u64, u64)]) -> String {
    let texts: Vec<String> = holes.iter().map(|(start, end)| format!("{start}..{end}")).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(",") }
}

fn links_text(entry: &Entry) -> String {
    entry.links.as_ref().map_or_else(
        || "none".to_owned(),
        |HardLinks { group, count }| format!("{count} as {group}"),
    )
}

fn diff_xattrs(path: &RelPath, left: &Entry, right: &Entry, found: &mut Vec<Difference>) {
    let names: BTreeSet<&ByteString> = left.xattrs.keys().chain(right.xattrs.keys()).collect();
    for name in names {
        let (value, other) = (left.xattrs.get(name), right.xattrs.get(name));
        if value != other {
            let text = |value: Option<&ByteString>| {
                value.map_or("absent".to_owned(), |value| format!("{value:?}"))
            };
            let attribute = Attribute::of_xattr(name.as_bytes());
            push_named(found, path, attribute, name, text(value), text(other));
        }
    }
}

fn diff_flags(path: &RelPath, left: Flags, right: Flags, found: &mut Vec<Difference>) {
    for (bit, attribute) in KNOWN {
        let word = |flags: Flags| if flags.0 & bit == 0 { "clear" } else { "set" };
        if word(left) != word(right) {
            push(found, path, attribute, word(left), word(right));
        }
    }
}
