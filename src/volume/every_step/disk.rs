//! What is on a modelled disk, and what the invariants say of it.

use std::collections::BTreeMap;

use crate::config::{self, Backing, Strategy};
use crate::keep::carry::Stage;
use crate::rules::Rules;
use crate::volume::{btrfs, zfs};

/// A filesystem with a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    BtrfsRollback,
    BtrfsCarry,
    ZfsRollback,
    ZfsCarry,
    /// A `rollback` that cannot copy what is kept.
    ZfsInstead,
    Dir,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::BtrfsRollback,
        Self::BtrfsCarry,
        Self::ZfsRollback,
        Self::ZfsCarry,
        Self::ZfsInstead,
        Self::Dir,
    ];

    pub(super) fn volume(self, mount_point: &str) -> config::Volume {
        config::Volume {
            mount_point: mount_point.into(),
            backing: match self {
                Self::BtrfsRollback | Self::BtrfsCarry => {
                    Backing::Btrfs(btrfs::modelled::backing())
                }
                Self::ZfsRollback | Self::ZfsCarry | Self::ZfsInstead => {
                    Backing::Zfs(zfs::modelled::backing())
                }
                Self::Dir => Backing::Dir(config::PlainDirectory {
                    path: "/sysroot".into(),
                    blank: Some("/b".into()),
                }),
            },
            strategy: match self {
                Self::BtrfsRollback | Self::ZfsRollback | Self::ZfsInstead => Strategy::Rollback,
                Self::BtrfsCarry | Self::ZfsCarry | Self::Dir => Strategy::Carry,
            },
            keep: None,
            rules: Rules::default(),
        }
    }
}

/// What a part of a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What it held before the first run.
    Old,
    Blank,
    /// Some of what it will hold.
    Half,
    Nothing,
}

/// A tree in three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    /// At persisted paths.
    pub(super) kept: What,
    /// Elsewhere.
    pub(super) rest: What,
    /// The number in its `.darlings`.
    pub(super) number: u64,
}

impl Tree {
    pub(super) const BLANK: Self = Self { kept: What::Nothing, rest: What::Blank, number: 0 };

    /// Whether it is a complete result, of whatever reset.
    pub(super) fn is_result(self) -> bool {
        self.kept == What::Old && self.rest == What::Blank && self.number > FIRST
    }
}

/// The number of the reset before the first run.
const FIRST: u64 = 6;

/// A volume, and everything beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) kind: Kind,
    pub(super) live: Tree,
    /// btrfs: `next` and `ready-N`.
    pub(super) next: Option<Tree>,
    pub(super) ready: Option<(u64, Tree)>,
    /// btrfs: whether the default subvolume is the one with the live name.
    pub(super) default_is_live: bool,
    /// ZFS: the stage, its snapshot, and the property.
    pub(super) stage: Option<Tree>,
    pub(super) secured: Option<(u64, Tree)>,
    pub(super) rolled_back: Option<u64>,
    /// ZFS and directories: the journal, and whether what is kept lies complete in the work or in
    /// the root.
    pub(super) journal: Option<(u64, Stage)>,
    /// Generations by number: what was live.
    pub(super) generations: BTreeMap<u64, Tree>,
    /// Of the last run: everything up to the commit was done, or was before.
    pub(super) was_prepared: bool,
    pub(super) resumed: bool,
}

impl Disk {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            live: Tree { kept: What::Old, rest: What::Old, number: FIRST },
            next: None,
            ready: None,
            default_is_live: true,
            stage: None,
            secured: None,
            rolled_back: None,
            journal: None,
            generations: BTreeMap::new(),
            was_prepared: false,
            resumed: false,
        }
    }

    pub(super) fn as_found_by_the_next_run(&self) -> Self {
        Self { was_prepared: false, resumed: false, ..self.clone() }
    }

    pub(super) fn is_complete_but_for_a_stage(&self) -> bool {
        self.live.is_result() && self.rolled_back.is_none() && self.stage.is_some()
    }

    /// The same, whatever the runs were that made it so.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.without_spare_snapshots() == other.without_spare_snapshots()
    }

    /// A `carry` on ZFS that ends before anything is moved leaves its snapshot, if it cannot remove
    /// it: a generation more, which holds the same as the next one. The numbers go on from there.
    fn without_spare_snapshots(&self) -> Self {
        let mut disk = self.as_found_by_the_next_run();
        if matches!(self.kind, Kind::ZfsCarry | Kind::ZfsInstead) {
            let mut trees: Vec<Tree> = disk.generations.into_values().collect();
            let whole = disk.journal.is_none();
            trees.dedup();
            // The last one is spare too when nothing came of the run.
            trees.pop_if(|tree| whole && *tree == disk.live);
            for (number, tree) in (FIRST..).zip(trees.iter_mut().chain([&mut disk.live])) {
                tree.number = number;
            }
            disk.generations = (FIRST + 1..).zip(trees).collect();
        }
        disk
    }

    /// I1: what is kept is complete somewhere where the next run looks.
    pub(super) fn keeps_what_is_kept(&self) -> bool {
        let rolled_back = self.rolled_back.is_some();
        let secured = self.secured.is_some_and(|(number, tree)| {
            self.rolled_back == Some(number) && tree.kept == What::Old
        });
        // Moved and not copied: it is in the root or in the work, and the journal says where.
        let moved = matches!(self.journal, Some((_, Stage::Moving)));
        (self.live.kept == What::Old && !rolled_back) || secured || moved
    }

    /// I2: the next run completes it without asking.
    pub(super) fn is_recoverable(&self) -> bool {
        match self.kind {
            // After the exchange, the default may still be the old tree's id.
            Kind::BtrfsRollback | Kind::BtrfsCarry => false,
            Kind::ZfsRollback => {
                self.rolled_back.is_some() && self.rolled_back == self.secured.map(|(n, _)| n)
            }
            Kind::ZfsCarry | Kind::ZfsInstead | Kind::Dir => self.journal.is_some(),
        }
    }
}
