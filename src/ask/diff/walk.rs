//! Two trees side by side, entry by entry.
//!
//! Depth first, so that memory grows with the depth, and with the largest directory up to a limit.
//! Open descriptors do not grow with the depth: only the last levels are open, those above are
//! opened again on the way back. The newer tree may be in use, so what is gone between two looks was
//! not there.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use darlings_btrfs as btrfs;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::compare::Comparer;
use super::entry::{Change, DiffEntry, DiffKind, Fate, Managed};
use super::level::{
    Level, Pair, Place, Reading, Ruled, is_gone, managed_entry, open, opened, status,
    status_of_directory,
};
use super::managed::System;
use super::marks::{Both, Marks};
use super::{Done, Watch};
use crate::fs::reserved::Reserved;
use crate::fs::{Dir, at};
use crate::rules::Rules;
use crate::tree::{Difference, Directory, NamedEntry, OPEN_LEVELS};

/// Entries of a directory that are held, and told in order, at once.
const CHUNK: usize = 65_536;

/// How many entries are looked at before progress is told again.
const TELL_EVERY: u64 = 1024;

/// What is compared.
pub(super) struct Trees<'a> {
    pub(super) new: &'a Dir,
    /// `None` for an empty one, of whose root nothing is known.
    pub(super) old: Option<&'a Dir>,
    /// What is persisted, if that is left out.
    pub(super) rules: Option<&'a Rules>,
    /// What goes to the attic.
    pub(super) to_attic: &'a [PathBuf],
    pub(super) mount_point: &'a Path,
    /// Names in the root that nobody's files have.
    pub(super) reserved: Vec<Reserved>,
}

/// Whether a directory itself is told, or only leads to what is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Told,
    Leads,
}

/// A comparison under way.
pub(super) struct Walk<'a> {
    trees: &'a Trees<'a>,
    marks: Option<&'a Marks>,
    comparer: Comparer,
    watch: &'a mut dyn Watch,
    system: System,
    is_btrfs: bool,
    levels: Vec<Level<'a>>,
    path: Vec<u8>,
    buffer: Vec<MaybeUninit<u8>>,
    done: Done,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        trees: &'a Trees<'a>,
        marks: Option<&'a Marks>,
        comparer: Comparer,
        watch: &'a mut dyn Watch,
    ) -> anyhow::Result<Self> {
        let done = Done { fast: marks.is_some(), ..Done::default() };
        Ok(Self {
            trees,
            marks,
            comparer,
            watch,
            system: System::look(trees.mount_point)?,
            is_btrfs: btrfs::is_btrfs(trees.new)?,
            levels: Vec::new(),
            path: Vec::new(),
            buffer: vec![MaybeUninit::uninit(); at::BATCH],
            done,
        })
    }

    /// Tells what differs at and below a path.
    pub(super) fn run(mut self, only: &Path) -> anyhow::Result<Done> {
        let mut names = Vec::new();
        for name in only {
            names.push(at::c_name(name).context("the path holds a NUL byte")?);
        }
        self.done.found = self.is_there(only)?;
        self.enter_root(names.is_empty())?;
        let Some(last) = names.pop() else { return self.go_on() };
        for name in names {
            let above = self.levels.len();
            self.visit(&name, Role::Leads)?;
            if self.levels.len() == above {
                return Ok(self.done);
            }
        }
        self.visit(&last, Role::Told)?;
        self.go_on()
    }

    fn is_there(&self, path: &Path) -> anyhow::Result<bool> {
        for root in [Some(self.trees.new), self.trees.old].into_iter().flatten() {
            if path.as_os_str().is_empty() {
                return Ok(true);
            }
            if let Some((above, name)) = root.open_parent_optional(path)?
                && above.holds(name)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn enter_root(&mut self, tell: bool) -> anyhow::Result<()> {
        let Trees { new, old, .. } = *self.trees;
        let (opened, old_opened) = (Dir::root(new)?, old.map(Dir::root).transpose()?);
        let status = new.status()?;
        let mut place = Place {
            rules: Ruled { node: self.trees.rules.map(Rules::root), kept: false },
            attic: false,
            still: true,
            nested: false,
        };
        let mut marked = None;
        if let Some(old) = old {
            let before = old.status().context("the older tree")?;
            if tell {
                let new = NamedEntry { parent: new.as_fd(), name: c".", status: &status };
                let old = NamedEntry { parent: old.as_fd(), name: c".", status: &before };
                let aspects =
                    self.comparer.differences(new, old).context("cannot compare the roots")?;
                if !aspects.is_empty() {
                    self.tell(
                        Change::Changed,
                        DiffKind::Directory,
                        &status,
                        place,
                        &aspects,
                        None,
                    )?;
                }
            }
            marked = self.marked(&mut place, (&status, &before));
        }
        let next = if tell { Reading::New } else { Reading::Nothing };
        self.push(Some(opened.into()), old_opened.map(OwnedFd::from), place, marked, next)
    }

    fn push(
        &mut self,
        new: Option<OwnedFd>,
        old: Option<OwnedFd>,
        place: Place<'a>,
        marked: Option<Both>,
        next: Reading,
    ) -> anyhow::Result<()> {
        self.levels.push(Level {
            path: self.path.len(),
            new: new.map(Directory::new),
            old: old.map(Directory::new),
            place,
            marked,
            next,
            pending: Vec::new().into_iter(),
            from: Reading::Nothing,
            unchanged: HashSet::new(),
        });
        if let Some(far) = self.levels.len().checked_sub(OPEN_LEVELS + 1) {
            let level = &mut self.levels[far];
            for directory in [&mut level.new, &mut level.old].into_iter().flatten() {
                directory.close().context("cannot tell how far a directory was read")?;
            }
        }
        Ok(())
    }

    /// Looks what the marks say of a directory that both trees have.
    fn marked(&self, place: &mut Place<'_>, (new, old): (&Statx, &Statx)) -> Option<Both> {
        let marks = self.marks?;
        let both = Both { new: new.stx_ino, old: old.stx_ino };
        place.still = !place.nested && marks.is_still(both, place.still);
        place.still.then_some(both)
    }

    fn go_on(mut self) -> anyhow::Result<Done> {
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.pending.next() {
                self.visit(&name, Role::Told)?;
            } else if level.next == Reading::Nothing {
                self.leave()?;
            } else {
                self.read_chunk()?;
            }
        }
        Ok(self.done)
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let left = self.levels.pop();
        let (from, old_from) =
            left.as_ref().map_or((None, None), |left| (left.new.as_ref(), left.old.as_ref()));
        let Trees { new, old, .. } = *self.trees;
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        self.path.truncate(level.path);
        let path = Path::new(OsStr::from_bytes(&self.path));
        let again = || format!("cannot open the directory {path:?} again");
        if let Some(directory) = &mut level.new {
            directory.open_again(from, new.as_fd(), path).with_context(again)?;
        }
        if let (Some(directory), Some(old)) = (&mut level.old, old) {
            directory.open_again(old_from, old.as_fd(), path).with_context(again)?;
        }
        Ok(())
    }

    /// Reads the next entries of the last level, in the order of their names as far as they are
    /// held at once. Answers whether that is all.
    fn read_chunk(&mut self) -> anyhow::Result<bool> {
        let (marks, is_root) = (self.marks, self.levels.len() == 1);
        let Some(level) = self.levels.last_mut() else { return Ok(true) };
        let trusted = marks.zip(level.marked);
        let directory = match level.next {
            Reading::New => opened(level.new.as_ref()),
            Reading::Old => opened(level.old.as_ref()),
            Reading::Nothing => None,
        };
        // In a directory that is the blank's but for what was changed in the newer tree.
        let told_by = trusted
            .filter(|(marks, both)| level.next == Reading::New && marks.is_unchanged_in_old(*both));
        let mut names = Vec::new();
        let mut ended = directory.is_none();
        while !ended && names.len() < CHUNK {
            let Some(directory) = &directory else { break };
            let batch = match at::next_batch(directory.as_fd(), &mut self.buffer) {
                // It was removed while it was looked at.
                Err(Errno::NOENT) => Vec::new(),
                batch => batch.with_context(|| {
                    format!("cannot read the directory {:?}", OsStr::from_bytes(&self.path))
                })?,
            };
            ended = batch.is_empty();
            for entry in batch {
                let same = told_by.is_some_and(|(marks, _)| !marks.holds(entry.inode));
                let reserved =
                    || self.trees.reserved.iter().any(|it| it.holds(at::os_name(&entry.name)));
                if same {
                    if level.unchanged.len() < CHUNK {
                        level.unchanged.insert(entry.name);
                    }
                } else if !(is_root && reserved() || level.unchanged.contains(&entry.name)) {
                    names.push(entry.name);
                }
            }
        }
        names.sort_unstable();
        level.pending = names.into_iter();
        level.from = level.next;
        if ended {
            self.done.directories += 1;
            let lacks = level.old.is_some()
                && trusted.is_none_or(|(marks, both)| marks.may_lack_names(both));
            level.next = match level.from {
                Reading::New if lacks => Reading::Old,
                _ => Reading::Nothing,
            };
        }
        Ok(ended)
    }

    /// Looks at one entry of the last level.
    fn visit(&mut self, name: &CStr, role: Role) -> anyhow::Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let (new, old) = (opened(level.new.as_ref()), opened(level.old.as_ref()));
        let (from, mut place) = (level.from, level.place.below(at::os_name(name)));
        self.path.truncate(level.path);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        self.done.entries += 1;
        if self.done.entries.is_multiple_of(TELL_EVERY) {
            self.watch.progress(&self.done);
        }
        let what = self.path.len();
        let pair = Pair { name, new: new.as_deref(), old: old.as_deref() };
        let result = if place.rules.kept {
            self.pass_through(&pair, place, role)
        } else {
            let path = Path::new(OsStr::from_bytes(&self.path));
            place.attic |= self.trees.to_attic.iter().any(|stored| stored == path);
            self.compare(&pair, place, from, role)
        };
        result.with_context(|| {
            let path = self.path.get(..what).unwrap_or_default();
            format!("cannot compare {:?}", OsStr::from_bytes(path))
        })
    }

    /// A persisted path is left alone, but for what is excluded below it.
    fn pass_through(
        &mut self,
        pair: &Pair<'_>,
        mut place: Place<'a>,
        role: Role,
    ) -> anyhow::Result<()> {
        let Some(rules) = place.rules.node.filter(|rules| rules.has_excluded_below()) else {
            return Ok(());
        };
        let Some(status) = status(pair.new, pair.name)? else { return Ok(()) };
        // A subvolume there moves along as a whole, with what is excluded in it.
        if at::kind(&status) != FileType::Directory
            || at::is_mounted_on(&status)
            || self.kind(&status) == Some(DiffKind::Subvolume)
        {
            return Ok(());
        }
        let Some(opened) = open(pair.new, pair.name)? else { return Ok(()) };
        let before = status_of_directory(pair.old, pair.name)?;
        let old_opened = if before.is_some() { open(pair.old, pair.name)? } else { None };
        if let Some(before) = before {
            self.marked(&mut place, (&status, &before));
        }
        self.push(Some(opened), old_opened, place, None, Reading::Nothing)?;
        let mut names = Vec::new();
        let children = (role == Role::Told).then(|| rules.children());
        for (name, _) in children.into_iter().flatten() {
            names.push(at::c_name(name).context("BUG: a declared path holds a NUL")?);
        }
        if let Some(level) = self.levels.last_mut() {
            level.pending = names.into_iter();
            level.from = Reading::New;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        pair: &Pair<'_>,
        place: Place<'a>,
        from: Reading,
        role: Role,
    ) -> anyhow::Result<()> {
        match (status(pair.new, pair.name)?, status(pair.old, pair.name)?) {
            (None, None) => Ok(()),
            // It was looked at when the newer directory was read.
            (Some(_), _) if from == Reading::Old => Ok(()),
            (Some(new), None) => self.one(Change::New, pair, place, &new, role),
            (None, Some(old)) => self.one(Change::Removed, pair, place, &old, role),
            (Some(new), Some(old)) => self.both(pair, place, (&new, &old), role),
        }
    }

    /// An entry that only one tree has.
    fn one(
        &mut self,
        change: Change,
        pair: &Pair<'_>,
        mut place: Place<'a>,
        status: &Statx,
        role: Role,
    ) -> anyhow::Result<()> {
        let Some(kind) = self.kind(status) else { return Ok(()) };
        let parent = if change == Change::Removed { pair.old } else { pair.new };
        if !kind.holds_entries() {
            let managed = managed_entry(parent, pair.name, kind)?;
            return self.tell(change, kind, status, place, &[], managed);
        }
        let path = Path::new(OsStr::from_bytes(&self.path));
        let mounted = at::is_mounted_on(status)
            || (change == Change::New && self.system.is_mount_point(path));
        let mut managed = mounted.then_some(Managed::MountPoint);
        let told = role == Role::Told && !(change == Change::New && place.is_connector());
        if at::is_mounted_on(status) {
            return self.tell(change, kind, status, place, &[], managed);
        }
        let Some(opened) = open(parent, pair.name)? else { return Ok(()) };
        place.nested |= kind == DiffKind::Subvolume;
        let (new, old, next) = match change {
            Change::Removed => (None, Some(opened), Reading::Old),
            _ => (Some(opened), None, Reading::New),
        };
        let next = if role == Role::Told { next } else { Reading::Nothing };
        self.push(new, old, place, None, next)?;
        if told {
            let ended = self.read_chunk()?;
            let empty = self.levels.last().is_some_and(|level| level.pending.len() == 0);
            if ended && empty && managed.is_none() && kind == DiffKind::Directory {
                managed = Some(Managed::EmptyDirectory);
            }
            self.tell(change, kind, status, place, &[], managed)?;
        }
        Ok(())
    }

    /// An entry that both trees have.
    fn both(
        &mut self,
        pair: &Pair<'_>,
        mut place: Place<'a>,
        (status, before): (&Statx, &Statx),
        role: Role,
    ) -> anyhow::Result<()> {
        let (Some(kind), Some(was)) = (self.kind(status), self.kind(before)) else {
            return Ok(());
        };
        if at::is_mounted_on(status) {
            return Ok(());
        }
        let (Some(new), Some(old)) = (pair.new, pair.old) else { return Ok(()) };
        place.nested |= kind == DiffKind::Subvolume;
        let directories = kind.holds_entries() && was.holds_entries();
        let marked = if directories { self.marked(&mut place, (status, before)) } else { None };
        if self.marks.zip(marked).is_some_and(|(marks, both)| marks.is_unchanged(both)) {
            return Ok(());
        }
        if role == Role::Told {
            let new = NamedEntry { parent: new.as_fd(), name: pair.name, status };
            let old = NamedEntry { parent: old.as_fd(), name: pair.name, status: before };
            let aspects = match self.comparer.differences(new, old) {
                Err(error) if is_gone(&error) => return Ok(()),
                aspects => aspects?,
            };
            if !aspects.is_empty() {
                let managed = managed_entry(pair.new, pair.name, kind)?;
                self.tell(Change::Changed, kind, status, place, &aspects, managed)?;
            }
        }
        let opened = if kind.holds_entries() { open(pair.new, pair.name)? } else { None };
        let old_opened = if was.holds_entries() { open(pair.old, pair.name)? } else { None };
        let next = match (&opened, &old_opened) {
            (None, None) => return Ok(()),
            _ if role == Role::Leads => Reading::Nothing,
            (None, Some(_)) => Reading::Old,
            (Some(_), _) => Reading::New,
        };
        self.push(opened, old_opened, place, marked, next)
    }

    fn kind(&self, status: &Statx) -> Option<DiffKind> {
        let nested = self.is_btrfs
            && at::kind(status) == FileType::Directory
            && btrfs::entry_kind(status.stx_ino) == btrfs::EntryKind::SubvolumeRoot;
        if nested { Some(DiffKind::Subvolume) } else { DiffKind::of(at::kind(status)) }
    }

    fn tell(
        &mut self,
        change: Change,
        kind: DiffKind,
        status: &Statx,
        place: Place<'_>,
        aspects: &[Difference],
        managed: Option<Managed>,
    ) -> anyhow::Result<()> {
        let sized = matches!(kind, DiffKind::File | DiffKind::Symlink);
        self.watch.see(&DiffEntry {
            path: Path::new(OsStr::from_bytes(&self.path)),
            change,
            fate: if place.attic && change != Change::Removed { Fate::Attic } else { Fate::Erased },
            kind,
            aspects,
            bytes: if sized { status.stx_size } else { 0 },
            uid: status.stx_uid,
            gid: status.stx_gid,
            mode: u32::from(status.stx_mode) & 0o7777,
            modified: status.stx_mtime.tv_sec,
            managed,
        })
    }
}
