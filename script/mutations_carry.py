"""What script/mutations plants in `carry` and in the rules that both strategies share.

Each is a name, the tests that must find it, what a line of theirs must match, and the changes: in
which file, which text, and what it becomes. A text must occur once.
"""

MOD = "src/carry/mod.rs"
AGAIN = "src/carry/again.rs"
TIDY = "src/carry/tidy.rs"
UNDO = "src/carry/undo.rs"
LAYOUT = "src/carry/layout.rs"
JOURNAL = "src/carry/journal.rs"
SURVEY = "src/restore/survey.rs"
LAY = "src/restore/lay.rs"
CLEAR = "src/restore/clear.rs"
RESTORE = "src/restore/mod.rs"
WALK = "src/restore/walk.rs"
RULES = "src/rules.rs"
DIR = "src/volume/dir/mod.rs"

GENERATED = ("generated", None)
NESTED = ("every_attribute", "nested_subvolumes")
KILLED = ("dir_interrupted", "killed_at_any_call")
FAILED = ("dir_interrupted", "a_call_that_fails")

# A kept seal is set by the rename that took it off, and once more in the end, for a crash in
# between: a loss shows without a crash where neither does it.
SEAL_AGAIN = (
    CLEAR,
    "            seal(moved.as_fd(), seals).and(renamed)?;\n",
    "            renamed?;\n            let _ = (moved, seals);\n",
)
SEAL_IN_THE_END = (MOD, "    seal_all(root, &journal.seals)?;\n", "")

NOTE = "        moves::note_progress(&work, number, number + 1)?;\n"
MOVE = """        match run {
            Run::First => moves::make(root, it)?,
            Run::Resumed => make_again(root, it)?,
        }
"""
GATHER = """        again::gather_noting(root, journal, run)?;
        syncfs(root).context("cannot make the moves durable")?;
"""
MARK = '        mkdirat(&work, GATHERED, Mode::RWXU).context("cannot mark that all is gathered")?;\n'
MOVE_ASIDE = "    moves::move_as(&work, &at::c_name(ASIDE.as_ref())?, &home, &name)?;\n"
RENAME_BACK = "        moves::rename(root, &it.to, &it.from)?;\n        moves::note_progress"

CARRY = [
    (
        "dir: what was laid stays where a reset fails before it moves anything",
        ("dir", "does_not_fit"),
        r"left: \(true,",
        [(DIR, "        self.laid = true;\n", "")],
    ),
    (
        "dir: check does not ask whether the blank fits",
        ("dir", "does_not_fit"),
        r"left: Some\(0\)",
        [(DIR, "            if self.options.dry_run {\n", "            if false {\n")],
    ),
    (
        "carry: without a journal nothing was moved",
        ("half_moved", "without_its_journal"),
        r"Error: killed at renameat",
        [(JOURNAL, "None if moves::has_begun(&work)? => {", "None if false => {")],
    ),
    (
        "carry: a copy of the journal is not read",
        ("half_moved", "with_one_copy"),
        r"Error: killed at renameat",
        [(
            JOURNAL,
            "complete.into_iter().chain(MOVING.map(",
            "complete.into_iter().chain(MOVING.into_iter().take(1).map(",
        )],
    ),
    (
        "survey: what is below an encrypted directory is looked for",
        ("encrypted", "is_refused"),
        r"left: Some\(0\)",
        [(SURVEY, "    refuse_encrypted(rules, previous)?;\n", "")],
    ),
    (
        "carry: a connector's mode",
        GENERATED,
        r": mode 0?700 != ",
        [(
            LAY,
            "    copy_attributes(before.as_fd(), made.as_fd(), scratch)?;\n",
            "    copy_attributes(before.as_fd(), made.as_fd(), scratch)?;\n"
            "    rustix::fs::fchmod(&made, Mode::RWXU)?;\n",
        )],
    ),
    (
        "carry: all attributes of a connector that the blank lacks",
        GENERATED,
        r": (mode|owner|group) ",
        [(
            LAY,
            "    copy_attributes(before.as_fd(), made.as_fd(), scratch)?;\n    Ok(Some",
            "    let _ = scratch;\n    Ok(Some",
        )],
    ),
    (
        "carry: times of connectors",
        GENERATED,
        r": mtime ",
        [(MOD, "in laid.connectors {", "in laid.connectors.into_iter().take(0) {")],
    ),
    (
        "carry: times of directories around excluded paths",
        GENERATED,
        r": mtime ",
        [(MOD, "    for path in changed {", "    for path in changed.into_iter().take(0) {")],
    ),
    (
        "carry: what an excluded path held stays",
        GENERATED,
        r": existence .* != absent|: (type|bytes|mode|owner) |cannot move",
        [(
            LAYOUT,
            "if place == Place::Taken && !cannot_move {",
            "if place == Place::Taken && self.nested.len() == usize::MAX {",
        )],
    ),
    (
        "carry: the blank's content of an excluded path",
        GENERATED,
        r": existence absent != ",
        [(MOD, "=> laid.units[unit],", "=> laid.units[unit] && unit == usize::MAX,")],
    ),
    (
        "carry: the blank's content of an excluded path where nothing was",
        GENERATED,
        r": existence absent != ",
        [("src/restore/survey.rs", "{ Place::Free } else", "{ Place::None } else")],
    ),
    (
        "carry: what the blank has at a persisted path stays",
        GENERATED,
        r": existence .* != absent|: existence absent != |: (type|bytes) |^Error.*: cannot move",
        [(
            RULES,
            "Self { mark: Some(Mark::Exclude), children: BTreeMap::new() }\n"
            "                }\n                _ => child.of_the_blank(),",
            "Self { mark: None, children: BTreeMap::new() }\n"
            "                }\n                _ => child.of_the_blank(),",
        )],
    ),
    (
        "carry: a file of the blank's is left over in a persisted directory",
        GENERATED,
        r": existence .* != absent",
        [(
            MOD,
            "    let mut undo = Vec::new();\n",
            """    for it in layout.moves.iter().filter(|it| it.why == Why::Keep) {
        let (Some(blank), Some(kept)) = (blank, at::directory_beneath(root, &it.from)?) else {
            continue;
        };
        let Some(blanks) = at::directory_beneath(blank, &it.path)? else { continue };
        for name in at::names(blanks.as_fd())? {
            if at::present(at::status(kept.as_fd(), &name))?.is_none() {
                let was = Settled::look(kept.as_fd())?;
                restore::unseal(kept.as_fd())?;
                mkdirat(&kept, &name, Mode::RWXU)?;
                was.settle(kept.as_fd())?;
                break;
            }
        }
    }
    let mut undo = Vec::new();
""",
        )],
    ),
    (
        "carry: an absent path comes back with the blank's content",
        GENERATED,
        r": existence .* != absent",
        [(
            LAYOUT,
            "        let rules = node.of_the_blank();\n",
            "        let there = node.persisted_within(path).into_iter().map(|(it, _)| it);\n"
            "        let there: Vec<PathBuf> = there\n"
            "            .filter(|it| {\n"
            "                let it = self.persisted.get(it.as_path());\n"
            "                it.is_some_and(|it| it.state != State::Absent)\n"
            "            })\n"
            "            .filter_map(|it| it.strip_prefix(path).map(Path::to_owned).ok())\n"
            "            .collect();\n"
            "        let rules = Node::excluding(there.iter().map(PathBuf::as_path));\n",
        )],
    ),
    (
        "carry: the old content is not moved aside",
        GENERATED,
        r": existence .* != absent|: (type|bytes) |cannot set the times",
        [(MOD, "Ok(is_new(name)? || reserved(name))",
          "Ok(is_new(name)? || reserved(name) || true)")],
    ),
    (
        "carry: the root's attributes",
        GENERATED,
        r"^\.: (mode|owner|group) |\"?\.\"?: (mode|owner|group) ",
        [(MOD, "    restore::take_attributes(of_result.as_fd(), root)\n",
          "    Ok::<(), anyhow::Error>(drop(of_result))\n")],
    ),
    (
        "carry: the root's times",
        GENERATED,
        r"\.: mtime ",
        [(
            MOD,
            '    settled.settle(root).context("cannot set the times of the root")\n',
            # It has them already, with its other attributes.
            "    drop(settled);\n"
            "    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };\n"
            "    let now = rustix::fs::Timestamps { last_access: now, last_modification: now };\n"
            "    Ok(rustix::fs::futimens(root, &now)?)\n",
        )],
    ),
    (
        "carry: seals of what is moved",
        GENERATED,
        r": (immutable|append-only) ",
        [SEAL_AGAIN, SEAL_IN_THE_END],
    ),
    (
        "carry: the outer path is moved before what is excluded in it",
        GENERATED,
        r": existence |: (type|bytes|mode) |cannot move",
        [(
            LAYOUT,
            "self.layout.moves.push(Move { from, to: to_place, path, why: Why::Keep });",
            "self.layout.moves.insert(0, Move { from, to: to_place, path, why: Why::Keep });",
        )],
    ),
    (
        "carry: the innermost path is moved last",
        GENERATED,
        r": existence |: (type|bytes|mode) |cannot move",
        [
            (
                LAYOUT,
                "            let unit = self.unit(rules, &excluded);\n",
                "            let begun = self.layout.moves.len();\n"
                "            let unit = self.unit(rules, &excluded);\n"
                "            let inner = self.layout.moves.split_off(begun);\n",
            ),
            (
                LAYOUT,
                "path, why: Why::Lay { unit } });\n        }\n",
                "path, why: Why::Lay { unit } });\n"
                "            self.layout.moves.extend(inner);\n        }\n",
            ),
        ],
    ),
    (
        "carry: the directory that stands for a subvolume stays",
        NESTED,
        r".",
        [(LAY, "    unlinkat(from.0, from.1, AtFlags::REMOVEDIR)?;\n", "")],
    ),
    (
        "rollback: a connector's mode",
        GENERATED,
        r": mode ",
        [(
            RESTORE,
            "        self.seal_connector(path, target.as_fd(), seals)\n    }\n\n    fn seal",
            "        rustix::fs::fchmod(target.as_fd(), Mode::RWXU)?;\n"
            "        self.seal_connector(path, target.as_fd(), seals)\n    }\n\n    fn seal",
        )],
    ),
    (
        "rollback: what an excluded path held stays",
        GENERATED,
        r": existence .* != absent|: (type|bytes|mode|owner) |cannot",
        [(
            WALK,
            "            if rules.is_some_and(Node::is_excluded) {",
            "            if rules.is_some_and(|_| false) {",
        )],
    ),
    (
        "rollback: an absent path comes back with the blank's content",
        GENERATED,
        r": existence .* != absent",
        [(
            RESTORE,
            "        } else {\n            clear::remove(parent.as_fd(), &name)?;\n",
            "        } else {\n            if matches!(path.state, State::Present { .. }) {\n"
            "                clear::remove(parent.as_fd(), &name)?;\n            }\n",
        )],
    ),
    (
        "carry: killed: a move is noted before it is made",
        KILLED,
        r": existence |cannot",
        [(
            AGAIN,
            MOVE + NOTE,
            NOTE + MOVE,
        )],
    ),
    (
        "carry: killed: all counts as gathered before it is",
        KILLED,
        r": existence |cannot",
        [(MOD, GATHER + MARK, MARK + GATHER)],
    ),
    (
        "carry: killed: the journal is removed before the work is done",
        KILLED,
        r": existence |left|killed at .*: |attic",
        [(
            TIDY,
            MOVE_ASIDE,
            '    restore::remove(work.as_fd(), c"complete")?;\n' + MOVE_ASIDE,
        )],
    ),
    (
        "carry: killed: seals are not set again",
        KILLED,
        r": (immutable|append-only) ",
        [SEAL_IN_THE_END],
    ),
    (
        "carry: undone: the manifest of the reset stays",
        FAILED,
        r"attic|EIO|No such file",
        [(DIR, "        state::restore(root, self.before.as_ref())?;\n", "")],
    ),
    (
        "carry: undone: the moves are taken back in the order in which they were made",
        FAILED,
        r"EIO|undone|unfinished|key",
        [(
            UNDO,
            ".enumerate().take(done).rev() {\n" + RENAME_BACK + "(&work, number + 1, number)?;\n",
            ".enumerate().take(done) {\n" + RENAME_BACK + "(&work, done - number, done - number - 1)?;\n",
        )],
    ),
    (
        "carry: undone: the root keeps the blank's attributes",
        FAILED,
        r"\.: (mode|owner|group)",
        [(
            UNDO,
            "        restore::take_attributes(attributes.as_fd(), root)\n"
            '            .context("cannot set the attributes of the root")?;\n    }\n'
            "    settle_all(root, &journal.undo, Run::First)",
            "        drop(attributes);\n    }\n    settle_all(root, &journal.undo, Run::First)",
        )],
    ),
    (
        "carry: undone: seals of the previous state",
        FAILED,
        r": (immutable|append-only)",
        [SEAL_AGAIN, (UNDO, "    seal_all(root, &journal.undo_seals)?;\n", "")],
    ),
]
