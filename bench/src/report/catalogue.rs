//! The sets: their titles, their units, and who takes part, the one that ratios are to first.

/// What a set's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    Bytes,
}

/// A comparison: rows of one kind, and who is compared in each.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// What a row is a number of, or is.
    pub(crate) row: &'static str,
    /// What is compared.
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    /// Names in the results, and labels on the page.
    pub(crate) contestants: &'static [(&'static str, &'static str)],
}

const CARRY: (&str, &str) = ("carry", "`carry`");
const ROLLBACK: (&str, &str) = ("rollback", "`rollback`");
const CP: (&str, &str) = ("cp", "`cp --reflink=always -a`");
const RSYNC: (&str, &str) = ("rsync", "`rsync -aAXH`");
const WIPE: (&str, &str) = ("wipe", "delete and snapshot, nothing kept");
const BIND: (&str, &str) = ("bind", "delete and snapshot, a bind mount for each path");

const RESETS: &[(&str, &str)] = &[CARRY, ROLLBACK, CP, RSYNC, WIPE];
const ZFS_RESETS: &[(&str, &str)] = &[
    CARRY,
    ROLLBACK,
    ("cp", "`cp --reflink=auto -a`"),
    RSYNC,
    ("wipe", "`zfs rollback -r`, nothing kept"),
];
const PURGES: &[(&str, &str)] = &[("purge", "`darlings purge`"), ("rm", "`rm -rf`")];
const PLACES: &[(&str, &str)] =
    &[("kept", "kept in place"), ("bind", "bind mount"), ("symlink", "symlink into a store")];

pub(crate) const SETS: &[Set] = &[
    set("kept", "kept files", "a reset", Unit::Seconds, RESETS),
    set("big", "GB of kept big files", "a reset", Unit::Seconds, RESETS),
    set("erased", "erased files", "a reset", Unit::Seconds, &[CARRY, ROLLBACK, WIPE]),
    set(
        "declared",
        "declared paths",
        "a reset",
        Unit::Seconds,
        &[CARRY, ROLLBACK, CP, RSYNC, WIPE, BIND],
    ),
    set(
        "memory",
        "kept files",
        "peak memory of a reset",
        Unit::Bytes,
        &[CARRY, ROLLBACK, CP, RSYNC],
    ),
    set("purge", "erased files", "removing what was erased", Unit::Seconds, PURGES),
    set("purge_cpu", "erased files", "processor time of removing", Unit::Seconds, PURGES),
    set("purge_written", "erased files", "bytes that removing writes", Unit::Bytes, PURGES),
    set(
        "space",
        "kept and as many erased files",
        "space that the previous state holds",
        Unit::Bytes,
        &[
            ("carry", "`carry`, before the purge"),
            ("purged", "`carry`, after it"),
            ROLLBACK,
            CP,
            RSYNC,
        ],
    ),
    set("life", "work", "the same work", Unit::Seconds, PLACES),
    set("replace", "one declared file", "saving one declared file", Unit::Seconds, PLACES),
    set(
        "size",
        "what an initrd takes along",
        "the files",
        Unit::Bytes,
        &[("darlings", "`darlings`"), ("script", "bash, btrfs-progs, coreutils, rsync, mount")],
    ),
    set(
        "start",
        "how it is called",
        "start-up",
        Unit::Milliseconds,
        &[
            ("darlings", "`darlings`"),
            ("btrfs", "`btrfs`"),
            ("cp", "`cp`"),
            ("rsync", "`rsync`"),
            ("bash", "`bash`"),
        ],
    ),
    set("zfs_kept", "kept files", "a reset", Unit::Seconds, ZFS_RESETS),
    set("zfs_big", "MiB of kept big files", "a reset", Unit::Seconds, ZFS_RESETS),
    set(
        "boot",
        "stretch of the boot",
        "booting",
        Unit::Seconds,
        &[("without", "without `darlings`"), ("with", "with `darlings`")],
    ),
    set(
        "units",
        "declared paths",
        "putting the kept paths in place",
        Unit::Seconds,
        &[
            ("reset", "`carry`, the whole unit"),
            ("bind", "mount units, by systemd"),
            ("mount", "mount(8) for each"),
        ],
    ),
];

const fn set(
    name: &'static str,
    row: &'static str,
    what: &'static str,
    unit: Unit,
    contestants: &'static [(&'static str, &'static str)],
) -> Set {
    Set { name, row, what, unit, contestants }
}

/// The set of this name.
pub(crate) fn find(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}

impl Set {
    /// How the page calls a contestant.
    pub(crate) fn label(&self, contestant: &str) -> Option<&'static str> {
        self.contestants.iter().find(|(name, _)| *name == contestant).map(|(_, label)| *label)
    }
}
