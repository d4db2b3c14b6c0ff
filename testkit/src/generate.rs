//! Random trees and configurations, for property tests.
//!
//! Names come from a small pool, so that blank and previous state collide: a file where the other
//! has a directory, a symlink above a declared path, a hard link across what is kept and what is
//! not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rustix::fs::FileType;

use crate::attributes::Attribute;
use crate::flags::{Flags, LOCKS};
use crate::model::Rule;
use crate::names::{ByteString, RelPath};
use crate::plant as step;
use crate::tree::Time;

/// A tree that can be planted. It is a directory, without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedTree {
    /// What is in it.
    pub children: BTreeMap<ByteString, Node>,
    /// Its own attributes.
    pub attributes: Attributes,
}

/// An entry of a generated tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory(GeneratedTree),
    /// A regular file. Those with the same `set` are one inode, the first one planted.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Whether 128 KiB of hole come before them.
        hole: bool,
        /// Its hard-link set.
        set: Option<u8>,
        /// Its attributes.
        attributes: Attributes,
    },
    /// A symlink and its target.
    Symlink(ByteString, Attributes),
    /// A fifo, socket or device with this minor number.
    Special(FileType, u32, Attributes),
}

/// The attributes of a generated entry; what does not fit its kind is not applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Attributes {
    pub owner: u32,
    pub group: u32,
    pub mode: u32,
    pub mtime: Time,
    pub atime: Time,
    pub xattrs: Vec<&'static str>,
    pub acl: bool,
    pub default_acl: bool,
    pub capability: bool,
    pub flag: Option<Attribute>,
}

/// A whole reset: blank, previous state, configuration.
#[derive(Clone, Debug)]
pub struct Case {
    /// The blank.
    pub blank: GeneratedTree,
    /// Whether there is none, which is as if it were empty, with the attributes of the previous root.
    pub without_blank: bool,
    /// The previous state.
    pub previous: GeneratedTree,
    /// The configuration; valid but for ancestors that the blank may have as non-directories.
    pub rules: Vec<Rule>,
}

/// Seed of a run that nobody told anything: a commit passes or fails the same everywhere.
const USUAL_SEED: u64 = 20_261_201;

/// A runner for `usual` cases that are the same every time, or, where `DARLINGS_CASES` says how
/// many, for so many new ones. Their seed is printed; `PROPTEST_RNG_SEED` repeats it. A failing case
/// is made smaller for a minute.
///
/// # Errors
///
/// When `DARLINGS_CASES` is no number.
pub fn runner(usual: u32) -> Result<TestRunner> {
    let told = std::env::var("DARLINGS_CASES").ok().filter(|number| !number.is_empty());
    let config = Config { failure_persistence: None, max_shrink_time: 60_000, ..Config::default() };
    let rng_seed = match (config.rng_seed, &told) {
        (fixed @ RngSeed::Fixed(_), _) => fixed,
        (RngSeed::Random, None) => RngSeed::Fixed(USUAL_SEED),
        (RngSeed::Random, Some(_)) => RngSeed::Fixed(new_seed()),
    };
    let cases = match told {
        Some(number) => number.parse().context("DARLINGS_CASES is no number")?,
        None => usual,
    };
    eprintln!("{cases} cases, PROPTEST_RNG_SEED={rng_seed}");
    Ok(TestRunner::new(Config { cases, rng_seed, ..config }))
}

/// Another one in every process.
fn new_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// A name from the pool.
pub fn name() -> impl Strategy<Value = ByteString> {
    prop_oneof![
        8 => select(vec!["a", "b", "c", "log"]).prop_map(ByteString::from),
        1 => select(vec![&b"-rf"[..], b"new\nline", b"\xff\xfe", b" ", &[b'n'; 255]]).prop_map(ByteString::from),
    ]
}

/// Attributes of every kind, most of them plain.
pub fn attributes() -> impl Strategy<Value = Attributes> {
    let time =
        (select(vec![-5_i64, 0, 981_173_106, 1_700_000_000, 4_102_444_800]), 0..1_000_000_000_u32);
    let time = time.prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
    let plain = (
        select(vec![0, 0, 1000, 3_000_000_000_u32]),
        select(vec![0, 100_u32]),
        select(vec![0o755, 0o700, 0o644, 0o4755, 0o2775, 0o1777, 0o000_u32]),
        time.clone(),
        time,
    );
    let xattrs =
        subsequence(vec!["user.color", "user.empty", "trusted.keep", "security.selinux"], 0..=4);
    let rare = || prop::bool::weighted(0.15);
    let flag = prop::option::weighted(
        0.25,
        select(vec![
            Attribute::Immutable,
            Attribute::AppendOnly,
            Attribute::NoCow,
            Attribute::Compress,
            Attribute::NoDump,
            Attribute::NoAccessTime,
        ]),
    );
    (plain, xattrs, rare(), rare(), rare(), flag).prop_map(
        |(plain, xattrs, acl, default_acl, capability, flag)| {
            let (owner, group, mode, mtime, atime) = plain;
            Attributes {
                owner,
                group,
                mode,
                mtime,
                atime,
                xattrs,
                acl,
                default_acl,
                capability,
                flag,
            }
        },
    )
}

fn leaf() -> impl Strategy<Value = Node> {
    let bytes = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..40), Just(vec![b'x'; 10_001])];
    let set = prop::option::weighted(0.4, 0..3_u8);
    let file = (bytes, prop::bool::weighted(0.2), set, attributes())
        .prop_map(|(bytes, hole, set, attributes)| Node::File { bytes, hole, set, attributes });
    let targets = vec!["a", "../b", "/nowhere", "c/log", "."];
    let symlink = (select(targets), attributes())
        .prop_map(|(to, attributes)| Node::Symlink(to.into(), attributes));
    let kinds =
        vec![FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice];
    let special = (select(kinds), 0..300_u32, attributes());
    let special =
        special.prop_map(|(kind, minor, attributes)| Node::Special(kind, minor, attributes));
    prop_oneof![5 => file, 2 => symlink, 1 => special]
}

fn directory(
    inner: impl Strategy<Value = Node>,
    least: usize,
) -> impl Strategy<Value = GeneratedTree> {
    (btree_map(name(), inner, least..6), attributes())
        .prop_map(|(children, attributes)| GeneratedTree { children, attributes })
}

/// A tree of up to four levels.
pub fn tree() -> impl Strategy<Value = GeneratedTree> {
    let empty = attributes().prop_map(|attributes| {
        Node::Directory(GeneratedTree { children: BTreeMap::new(), attributes })
    });
    let node = prop_oneof![4 => leaf(), 1 => empty];
    let node = node.prop_recursive(3, 32, 5, |inner| directory(inner, 0).prop_map(Node::Directory));
    // A locked root could not be unlocked by anyone but the test, and tells nothing.
    directory(node, 1).prop_map(|mut tree| {
        tree.attributes.flag = None;
        tree
    })
}

/// A blank, a previous state that may have grown out of it, and a configuration about both.
pub fn case() -> impl Strategy<Value = Case> {
    let gone = vec(any::<prop::sample::Index>(), 0..5);
    let grown = prop::bool::weighted(0.7);
    let trees = (tree(), tree(), grown, gone).prop_map(|(blank, other, grown, gone)| {
        let mut previous = if grown { overlay(blank.clone(), other) } else { other };
        // Else a tree that grew out of the blank would have all that the blank has.
        let paths: Vec<RelPath> = blank.paths().into_iter().collect();
        for index in gone {
            previous.remove(index.get(&paths).as_bytes());
        }
        (blank, previous)
    });
    trees.prop_flat_map(|(blank, previous)| {
        let mut paths: BTreeSet<RelPath> = blank.paths();
        paths.extend(previous.paths());
        let rules = rules(paths.into_iter().collect());
        let without_blank = prop::bool::weighted(0.1);
        let parts = (Just(blank), without_blank, Just(previous), rules);
        parts.prop_map(|(blank, without_blank, previous, rules)| Case {
            blank,
            without_blank,
            previous,
            rules,
        })
    })
}

/// Up to four rules about these paths, about paths below them, and about paths that are not there.
pub fn rules(paths: Vec<RelPath>) -> impl Strategy<Value = Vec<Rule>> {
    let names = |most| vec(name(), 0..=most);
    let known = paths.clone();
    let index = any::<prop::sample::Index>;
    // What is declared once more inside what is excluded.
    let inside = prop::option::weighted(0.4, (index(), index()));
    // What something lies below is declared more often: that is where things can go wrong.
    let parents: BTreeSet<RelPath> = paths
        .iter()
        .filter_map(|path| {
            let end = path.as_bytes().iter().rposition(|byte| *byte == b'/')?;
            RelPath::normalise(&path.as_bytes()[..end]).ok()
        })
        .collect();
    let mut pool = paths;
    for _ in 0..3 {
        pool.extend(parents.iter().cloned());
    }
    let rule = (select(pool), names(2), vec((index(), names(2)), 0..3), inside);
    let rule = rule.prop_map(move |(path, more, excludes, inside)| {
        let extend = |start: RelPath, more: &[ByteString]| {
            more.iter().fold(start, |path, name| path.join(&name.0))
        };
        // Declared paths mostly are as they are found; the root can never be one.
        let path = if path.is_root() || more.len() == 2 { extend(path, &more) } else { path };
        let below: Vec<&RelPath> =
            known.iter().filter(|known| *known != &path && known.is_at_or_below(&path)).collect();
        let excludes = excludes.into_iter().filter_map(|(index, more)| {
            let start = if below.is_empty() {
                RelPath::root()
            } else {
                let full = index.get(&below).as_bytes();
                let start = if path.is_root() { 0 } else { path.as_bytes().len() + 1 };
                RelPath::normalise(&full[start..]).ok()?
            };
            let start =
                if start.is_root() || more.len() == 2 { extend(start, &more) } else { start };
            Some(start).filter(|exclude| !exclude.is_root())
        });
        let rule = Rule { excludes: excludes.collect(), path };
        let inside = inside.filter(|_| !rule.excludes.is_empty()).and_then(|(exclude, index)| {
            let left_out = rule.path.join(exclude.get(&rule.excludes).as_bytes());
            let below = |known: &&RelPath| **known != left_out && known.is_at_or_below(&left_out);
            let below: Vec<&RelPath> = known.iter().filter(below).collect();
            (!below.is_empty()).then(|| (*index.get(&below)).clone())
        });
        [Some(rule), inside.map(|path| Rule { path, excludes: Vec::new() })]
    });
    vec(rule, 0..=4).prop_map(|rules| {
        let mut seen = BTreeSet::new();
        rules
            .into_iter()
            .flatten()
            .flatten()
            .filter(|rule| !rule.path.is_root() && seen.insert(rule.path.clone()))
            .collect()
    })
}

/// `base` with `over` laid on top: directories merge, anything else of `over` wins.
fn overlay(mut base: GeneratedTree, over: GeneratedTree) -> GeneratedTree {
    for (name, node) in over.children {
        let merged = match (base.children.remove(&name), node) {
            (Some(Node::Directory(below)), Node::Directory(above)) => {
                Node::Directory(overlay(below, above))
            }
            (_, node) => node,
        };
        base.children.insert(name, merged);
    }
    GeneratedTree { children: base.children, attributes: over.attributes }
}

impl GeneratedTree {
    /// Every path in it, the root included.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<RelPath> {
        let mut paths = BTreeSet::from([RelPath::root()]);
        self.add_paths(&RelPath::root(), &mut paths);
        paths
    }

    /// Takes away what is at a path, if there is anything. The root stays.
    fn remove(&mut self, path: &[u8]) {
        let mut names = path.splitn(2, |byte| *byte == b'/');
        let (Some(name), below) = (names.next(), names.next()) else { return };
        let name = ByteString(name.to_vec());
        match (below, self.children.get_mut(&name)) {
            (Some(below), Some(Node::Directory(tree))) => tree.remove(below),
            (Some(_), _) => {}
            (None, _) => drop(self.children.remove(&name)),
        }
    }

    fn add_paths(&self, at: &RelPath, paths: &mut BTreeSet<RelPath>) {
        for (name, node) in &self.children {
            let path = at.join(&name.0);
            if let Node::Directory(below) = node {
                below.add_paths(&path, paths);
            }
            paths.insert(path);
        }
    }
}

/// Makes the tree in an existing, empty directory, which gets the attributes of the tree's root.
pub fn plant(dir: &Path, tree: &GeneratedTree) -> Result<()> {
    let mut planter = Planter::default();
    planter.directory(dir, tree).with_context(|| format!("cannot plant in {}", dir.display()))?;
    planter.finish()
}

#[derive(Default)]
struct Planter {
    /// The first file of each hard-link set.
    sets: BTreeMap<u8, PathBuf>,
    /// What is left to do once nothing more is made: times, then locks, children before parents.
    later: Vec<(PathBuf, Attributes, bool)>,
}

impl Planter {
    fn directory(&mut self, at: &Path, tree: &GeneratedTree) -> Result<()> {
        self.dress(at, &tree.attributes, FileType::Directory)?;
        for (name, node) in &tree.children {
            let path = at.join(OsStr::from_bytes(&name.0));
            self.node(&path, node).with_context(|| format!("cannot plant {}", path.display()))?;
        }
        Ok(())
    }

    fn node(&mut self, path: &Path, node: &Node) -> Result<()> {
        match node {
            Node::Directory(tree) => {
                std::fs::create_dir(path)?;
                self.directory(path, tree)
            }
            Node::File { bytes, hole, set, attributes } => {
                if let Some(first) = set.and_then(|set| self.sets.get(&set)) {
                    return Ok(std::fs::hard_link(first, path)?);
                }
                if let Some(set) = set {
                    self.sets.insert(*set, path.to_path_buf());
                }
                let early = early_flags(attributes);
                if *hole {
                    let start = 128 * 1024;
                    step::file(path, &[], early)?;
                    let file = std::fs::OpenOptions::new().write(true).open(path)?;
                    file.set_len(start)?;
                    std::os::unix::fs::FileExt::write_all_at(&file, bytes, start)?;
                } else {
                    step::file(path, bytes, early)?;
                }
                self.dress(path, attributes, FileType::RegularFile)
            }
            Node::Symlink(target, attributes) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(&target.0), path)?;
                self.dress(path, attributes, FileType::Symlink)
            }
            Node::Special(kind, minor, attributes) => {
                step::node(path, *kind, 7, *minor)?;
                self.dress(path, attributes, *kind)
            }
        }
    }

    /// Owner, mode, ACLs, extended attributes, and the flags that children inherit.
    fn dress(&mut self, path: &Path, attributes: &Attributes, kind: FileType) -> Result<()> {
        let flagged = matches!(kind, FileType::Directory | FileType::RegularFile);
        step::owner(path, attributes.owner, attributes.group)?;
        if kind != FileType::Symlink {
            step::mode(path, attributes.mode)?;
            if attributes.acl {
                step::xattr(path, "system.posix_acl_access", &step::example_acl(1001, 1002))?;
            }
        }
        if kind == FileType::Directory && attributes.default_acl {
            step::xattr(path, "system.posix_acl_default", &step::example_acl(1003, 1004))?;
        }
        for name in &attributes.xattrs {
            if flagged || !name.starts_with("user.") {
                let value = if name.ends_with("empty") { "" } else { "a value\n" };
                step::xattr(path, name, value.as_bytes())?;
            }
        }
        if kind == FileType::RegularFile && attributes.capability {
            step::xattr(path, "security.capability", &step::file_capability(13))?;
        }
        if kind == FileType::Directory && !early_flags(attributes).is_empty() {
            step::flags(path, early_flags(attributes))?;
        }
        self.later.push((path.to_path_buf(), attributes.clone(), flagged));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        for (path, attributes, flagged) in self.later.into_iter().rev() {
            let told = || format!("cannot finish {}", path.display());
            step::times(&path, attributes.atime, attributes.mtime).with_context(told)?;
            if let Some(flag) =
                attributes.flag.filter(|flag| flagged && Flags::of(*flag).intersects(LOCKS))
            {
                step::flag(&path, flag).with_context(told)?;
            }
        }
        Ok(())
    }
}

fn early_flags(attributes: &Attributes) -> Flags {
    attributes.flag.map_or(Flags::default(), |flag| Flags::of(flag).without(LOCKS))
}
