"""What script/mutations plants elsewhere: in the purge, in `diff`, in what is durable, in the benchmarks.

As in mutations_carry.py: a name, the tests that must find it, what a line of theirs must match, and the
changes. Tests of another package have it before a colon.
"""

EXECUTE = "src/volume/btrfs/execute.rs"
STORE = "src/volume/btrfs/generations.rs"
CLEAR = "src/restore/clear.rs"
HOLDER = "src/recover/holder.rs"
AT = "src/restore/at.rs"
ATTRIBUTES = "src/restore/attributes.rs"
RECORD = "src/volume/btrfs/record.rs"

DURABLE = ("interrupted", "counts_as_reset")
HOSTILE = ("hostile", "whatever")
REPLACED = ("recover_injected", "on_btrfs")
PURGED = ("purge_injected", "that_changes_something")
GENERATION = ("purge_interrupted", "removes_a_generation")
DIFF = ("diff_command", "blank_or")
SMALL_FILE = ("every_call", "small_file")
SMOKE = ("xtask:bench", "tiny_run")
REPORT = ("xtask:--bin=xtask", "plot")

FLAGS = "nested_flags"
BTRFS_JOURNAL = "src/volume/btrfs/journal.rs"

ELSEWHERE = [
    (
        "nested subvolumes: what lies above one stays writable",
        (FLAGS, "set_again_in_both_trees"),
        r"Some\(false\)",
        [(BTRFS_JOURNAL, "if was.read_only == Some(true) =>", "if was.read_only.is_none() =>")],
    ),
    (
        "nested subvolumes: the flags of their roots are not set again",
        (FLAGS, "with_all_its_flags"),
        r"\[Immutable\]",
        [(BTRFS_JOURNAL, "self.flags.unwrap_or(0)", "self.flags.map_or(0, |_| 0)")],
    ),
    (
        "nested subvolumes: an attribute stops an undo",
        (FLAGS, "does_not_stop_an_undo"),
        r"left: Some\(1\)",
        [(
            "src/volume/btrfs/undo.rs",
            "let settled = self.work.journal.settle_undone(old.as_fd());",
            "let settled = Ok(self.work.journal.settle_undone(old.as_fd())?);",
        )],
    ),
    (
        "purge: a full disk erases all generations but the newest",
        ("purge", "who_fills_the_disk"),
        r'left: \["4"\]',
        [("src/generations/retention.rs", "KEPT_WITHOUT_ROOM: usize = 3", "KEPT_WITHOUT_ROOM: usize = 1")],
    ),
    (
        "purge: subvolumes below long paths stay",
        ("hostile_user", "rollback"),
        r"File name too long",
        [("btrfs/src/nested.rs", "== Some(Errno::NAMETOOLONG)", "== Some(Errno::NOENT)")],
    ),
    (
        "durable: nothing after the exchange",
        DURABLE,
        r"left: (Previous|Between)",
        [(
            EXECUTE,
            "            fs::set_read_only(&old, true)?;\n            Ok(fs::sync(self.top()?)?)\n",
            "            drop(old);\n            Ok(())\n",
        )],
    ),
    (
        "durable: the exchange alone, without the nested subvolumes",
        DURABLE,
        r"left: Between",
        [(
            EXECUTE,
            "if self.work.commits.as_ref() == Some(step) {",
            "if matches!(step, Step::Exchange { .. }) {",
        )],
    ),
    (
        "hostile: large attribute values",
        HOSTILE,
        r"NODATA|No data",
        [(
            ATTRIBUTES,
            "            target\n                .set(name, value)\n",
            "            if value.len() > 4000 {\n                continue;\n            }\n"
            "            target\n                .set(name, value)\n",
        )],
    ),
    (
        "hostile: names that are no text cannot be removed",
        HOSTILE,
        r"cannot remove",
        [(
            CLEAR,
            "            match unlink(level.fd()?, &entry.name, AtFlags::empty()) {\n",
            "            let name = CString::new(entry.name.to_string_lossy().into_owned())?;\n"
            "            match unlink(level.fd()?, &name, AtFlags::empty()) {\n",
        )],
    ),
    (
        "hostile: what is immutable cannot be removed",
        HOSTILE,
        r"cannot remove.*not permitted",
        [(
            CLEAR,
            "        Err(Errno::PERM) => {\n            // A sealed directory",
            "        Err(Errno::PERM) if name.is_empty() => {\n            // A sealed directory",
        )],
    ),
    (
        "recover: what was replaced is removed with the rest after an interruption",
        REPLACED,
        r"after another: \[\]",
        [(
            HOLDER,
            "                    if at::status(brought.as_fd(), &name)?.stx_ino != replacing.brought {\n",
            "                    if at::status(brought.as_fd(), &name)?.stx_ino == u64::MAX {\n",
        )],
    ),
    (
        "purge: a flag is not set again where the name cannot go",
        PURGED,
        r"keep/linked has Some",
        [(
            CLEAR,
            "            let unlinked = unlinkat(parent, name, flags);\n",
            "            let unlinked = unlinkat(parent, name, flags);\n            unlinked?;\n",
        )],
    ),
    (
        "purge: that a generation is being removed is not written down",
        GENERATION,
        r"left: \[",
        [(
            STORE,
            "        let result = id.map_or(Ok(()), |id| self.delete(id));\n",
            "        unlinkat(home, &intent, AtFlags::empty())?;\n"
            "        let result = id.map_or(Ok(()), |id| self.delete(id));\n"
            "        let home = self.home.as_ref().context(\"BUG: it went away\")?;\n"
            "        openat(home, &intent, flags, Mode::RUSR | Mode::WUSR)?;\n",
        )],
    ),
    (
        "durable: a small file is renamed before it is synced",
        SMALL_FILE,
        r"Error: fsync: Call .*renameat",
        [(AT, "        file.sync_all()?;\n", "")],
    ),
    (
        "durable: the directory of a small file is not synced",
        SMALL_FILE,
        r"Error: fsync: Call .*openat",
        [(AT, "    Ok(fsync(directory)?)\n", "    Ok(())\n")],
    ),
    (
        "purge: its unit forbids to mount",
        ("privilege", "unit_forbids"),
        r'left: \["mount", "umount2"\]',
        [(
            "systemd/darlings-purge.service",
            "SystemCallFilter=@system-service @mount",
            "SystemCallFilter=@system-service",
        )],
    ),
    (
        "diff: the blank is taken for the one that the reset had",
        DIFF,
        r"left: ",
        [(RECORD, " || uuid_of(blank)? != made.blank.uuid {", " {")],
    ),
    (
        "diff: what is recorded of a reset is believed of any tree",
        ("diff", "what_is_told"),
        r"Copied: LookedAt|Copied: Done|Received: Done|Snapshot: Done",
        [(RECORD, ".find(|it| it.uuid == uuid)", ".find(|it| it.made.is_some() && !uuid.is_empty())")],
    ),
    (
        "diff: what is recorded of other rules is believed",
        ("diff_command", "comes_back_once"),
        r"left: ",
        [(RECORD, "changes: same.then_some(changes)", "changes: (same || true).then_some(changes)")],
    ),
    (
        "generations: another system's are taken for its own",
        ("two_systems", "by_every_command"),
        r"panicked at",
        [(RECORD, "record.system == *system", "record.system != *system")],
    ),
    (
        "generations: a copy is taken for the system that it was made of",
        ("two_systems", "of_its_own"),
        r"panicked at",
        [(RECORD, "if other.is_none() && Record", "if Record")],
    ),
    (
        "bench: sets of two contestants are left out of the page",
        SMOKE,
        r"left: .*removing what was erased",
        [(
            "xtask/src/bench/page.rs",
            "    if contestants.is_empty() {\n",
            "    if contestants.len() < 3 {\n",
        )],
    ),
    (
        "bench: what was measured with stays behind",
        SMOKE,
        r"left: 1",
        [("script/bench", 'rm --recursive --force --one-file-system "$scratch"', "true")],
    ),
    (
        "bench: a single row is drawn as a line",
        REPORT,
        r"left: \[|one row is no line",
        [(
            "xtask/src/bench/plot.rs",
            "series.points.len() > 1",
            "!series.points.is_empty()",
        )],
    ),
]
