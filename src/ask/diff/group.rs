//! Many entries as the few lines that matter: a directory stands for what is in it, as long as
//! looking into it would not say more.
//!
//! Entries come in the order of a walk, and what is finished is trimmed at once, so that memory does
//! not grow with their number.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::entry::{Change, DiffEntry};

/// How much a file counts beside its bytes: many small ones matter as one large one does.
const FILE: u64 = 64 * 1024;

/// How many nodes below a finished directory are kept.
const KEPT: usize = 48;

/// How many children of an unfinished directory are held before they are trimmed.
const HELD: usize = 2048;

/// Which part of a directory the lines that stand for it must make up: 1 of so many may be the rest.
const REST: u64 = 4;

/// What is known of the entries of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) files: u64,
    /// Directories that count as themselves: those that were changed.
    pub(super) directories: u64,
    pub(super) bytes: u64,
    pub(super) changed: u64,
    /// The owner, and whether there are others.
    pub(super) owner: Option<u32>,
    pub(super) owners: bool,
}

impl Tally {
    fn of(entry: &DiffEntry<'_>) -> Self {
        let directory = entry.kind.holds_entries();
        let counts = !directory || entry.change == Change::Changed;
        Self {
            files: u64::from(!directory),
            directories: u64::from(directory && counts),
            bytes: entry.bytes,
            changed: u64::from(entry.change == Change::Changed),
            owner: counts.then_some(entry.uid),
            owners: false,
        }
    }

    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.changed += other.changed;
        self.owners |= other.owners
            || matches!((self.owner, other.owner), (Some(one), Some(another)) if one != another);
        self.owner = self.owner.or(other.owner);
    }

    fn weight(&self) -> u64 {
        self.bytes.saturating_add((self.files + self.directories).saturating_mul(FILE))
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.files + self.directories == 0
    }
}

#[derive(Debug, Default)]
struct Node {
    name: OsString,
    /// Everything at and below it.
    all: Tally,
    /// Of that, what has no node of its own.
    rest: Tally,
    children: Vec<Node>,
}

impl Node {
    fn new(name: &OsStr) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn adopt(&mut self, child: Self) {
        self.all.add(&child.all);
        if child.all.is_nothing() {
            return;
        }
        self.children.push(child);
        if self.children.len() > HELD {
            self.keep_heaviest(HELD / 2);
        }
    }

    fn keep_heaviest(&mut self, count: usize) {
        self.children.sort_by_key(|child| std::cmp::Reverse(child.all.weight()));
        for child in self.children.drain(count.min(self.children.len())..) {
            self.rest.add(&child.all);
        }
    }

    /// Keeps at most so many nodes below it, the heaviest.
    fn trim(&mut self, nodes: usize) {
        self.keep_heaviest(nodes);
        let all = u128::from(self.all.weight()).max(1);
        for child in &mut self.children {
            let share = u128::from(child.all.weight()) * nodes as u128 / all;
            child.trim(usize::try_from(share).unwrap_or(0).saturating_sub(1));
        }
    }
}

/// Groups entries that come in the order of a walk.
#[derive(Debug, Default)]
pub(super) struct Groups {
    root: Node,
    /// The directories above the entry that came last, and itself, below the root; each with the end of
    /// its path in `path`.
    open: Vec<(usize, Node)>,
    path: Vec<u8>,
}

/// A line: a directory with what is in it, a single entry, or the rest of a directory whose other
/// parts have lines of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) path: PathBuf,
    pub(super) is_rest: bool,
    pub(super) tally: Tally,
}

impl Groups {
    pub(super) fn add(&mut self, entry: &DiffEntry<'_>) {
        let path = entry.path.as_os_str().as_bytes();
        // From below: what comes next is mostly near.
        let above = |end: usize| {
            path.starts_with(&self.path[..end]) && matches!(path.get(end), None | Some(b'/'))
        };
        let same = self.open.iter().rposition(|(end, _)| above(*end)).map_or(0, |last| last + 1);
        self.close_to(same);
        let mut end = self.open.last().map_or(0, |(end, _)| *end);
        self.path.truncate(end);
        self.path.extend_from_slice(&path[end..]);
        for name in path[end..].split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            end += name.len() + usize::from(end > 0);
            self.open.push((end, Node::new(OsStr::from_bytes(name))));
        }
        let node = self.open.last_mut().map_or(&mut self.root, |(_, node)| node);
        let tally = Tally::of(entry);
        node.all.add(&tally);
        node.rest.add(&tally);
    }

    fn close_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            let Some((_, mut node)) = self.open.pop() else { return };
            node.trim(KEPT);
            self.open.last_mut().map_or(&mut self.root, |(_, above)| above).adopt(node);
        }
    }

    /// Call after the last entry.
    pub(super) fn finish(&mut self) {
        self.close_to(0);
    }

    /// At most so many lines, the heaviest first.
    pub(super) fn lines(&self, limit: usize) -> Vec<Line> {
        if self.root.all.is_nothing() || limit == 0 {
            return Vec::new();
        }
        let mut lines = vec![Shown::whole(PathBuf::new(), &self.root)];
        // Each time the heaviest directory of which its parts say more.
        loop {
            lines.sort_by_key(|line| std::cmp::Reverse(line.tally.weight()));
            let room = limit - lines.len();
            let split = lines
                .iter()
                .enumerate()
                .find_map(|(index, line)| Some((index, line.node?.split(&line.path, room + 1)?)));
            let Some((index, parts)) = split else { break };
            lines.remove(index);
            lines.extend(parts);
        }
        lines
            .into_iter()
            .map(|Shown { path, is_rest, tally, .. }| Line { path, is_rest, tally })
            .collect()
    }
}

struct Shown<'n> {
    path: PathBuf,
    is_rest: bool,
    tally: Tally,
    /// Of which it may still be the sum.
    node: Option<&'n Node>,
}

impl<'n> Shown<'n> {
    fn whole(path: PathBuf, node: &'n Node) -> Self {
        Self { path, is_rest: false, tally: node.all, node: Some(node) }
    }
}

impl Node {
    /// The parts of a directory in at most so many lines; `None` if they say less than it does.
    fn split<'n>(&'n self, path: &Path, limit: usize) -> Option<Vec<Shown<'n>>> {
        if self.children.is_empty() {
            return None;
        }
        let mut heaviest: Vec<&Self> = self.children.iter().collect();
        heaviest.sort_by_key(|child| std::cmp::Reverse(child.all.weight()));
        let mut rest = self.rest;
        let whole = heaviest.len() + usize::from(!rest.is_nothing()) <= limit;
        let shown = if whole { heaviest.len() } else { limit.checked_sub(1)? };
        for child in heaviest.drain(shown..) {
            rest.add(&child.all);
        }
        if heaviest.is_empty() || rest.weight() > self.all.weight() / REST && !whole {
            return None;
        }
        let below = |child: &'n Self| Shown::whole(path.join(&child.name), child);
        let mut parts: Vec<_> = heaviest.into_iter().map(below).collect();
        if !rest.is_nothing() {
            parts.push(Shown { path: path.to_owned(), is_rest: true, tally: rest, node: None });
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{DiffKind, Fate};
    use super::*;

    fn entry(path: &str, bytes: u64) -> DiffEntry<'_> {
        let kind = if path.ends_with('/') { DiffKind::Directory } else { DiffKind::File };
        DiffEntry {
            path: Path::new(path),
            change: Change::New,
            fate: Fate::Erased,
            kind,
            aspects: &[],
            bytes,
            uid: 0,
            gid: 0,
            mode: 0o644,
            modified: 0,
            managed: None,
        }
    }

    fn lines(groups: &Groups, limit: usize) -> Vec<(String, u64, u64)> {
        let shown = |line: Line| {
            let rest = if line.is_rest { "/..." } else { "" };
            (format!("{}{rest}", line.path.display()), line.tally.files, line.tally.bytes)
        };
        groups.lines(limit).into_iter().map(shown).collect()
    }

    #[test]
    fn a_directory_stands_for_many_files_and_what_is_large_has_a_line_of_its_own() {
        let mut groups = Groups::default();
        let names: Vec<String> = (0..500).map(|number| format!("var/cache/{number}")).collect();
        groups.add(&entry("etc/", 0));
        groups.add(&entry("etc/hosts", 100));
        groups.add(&entry("var/", 0));
        groups.add(&entry("var/cache/", 0));
        for name in &names {
            groups.add(&entry(name, 10));
        }
        groups.add(&entry("var/lib/", 0));
        groups.add(&entry("var/lib/image", 1 << 30));
        groups.finish();
        assert_eq!(
            lines(&groups, 10),
            [
                ("var/lib/image".to_owned(), 1, 1 << 30),
                ("var/cache".to_owned(), 500, 5000),
                ("etc/hosts".to_owned(), 1, 100),
            ]
        );
        assert_eq!(lines(&groups, 1), [(String::new(), 502, 5100 + (1 << 30))]);
    }

    fn nodes(node: &Node) -> usize {
        1 + node.children.iter().map(nodes).sum::<usize>()
    }

    #[test]
    fn entries_in_a_hundred_thousand_directories_are_not_all_held() {
        let mut groups = Groups::default();
        for directory in 0..100_000 {
            for file in 0..3 {
                groups.add(&entry(&format!("a/{}/{directory}/{file}", directory / 100), 1));
            }
        }
        let held: usize =
            nodes(&groups.root) + groups.open.iter().map(|(_, node)| nodes(node)).sum::<usize>();
        assert!(held < 100_000, "{held}");
        groups.finish();
        let held = nodes(&groups.root);
        assert!(held < 100, "{held}");
        assert_eq!(groups.root.all.files, 300_000);
        let all: u64 = groups.lines(10).iter().map(|line| line.tally.files).sum();
        assert_eq!(all, 300_000);
    }
}
