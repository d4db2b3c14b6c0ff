//! Nested subvolumes that move along although flags forbid it: their own, those of the directories that
//! hold them, and of the subvolumes in which those lie. A user can set some of them.

use std::path::Path;
use std::process::Command;

use crate::common::cmdline::{asked, asked_with, well, with_home};
use crate::common::{self, Machine, Ran, put, strace, subvolumes_of};
use anyhow::{Context as _, Result, ensure};
use darlings_btrfs as btrfs;
use darlings_testkit::loopfs::run;
use darlings_testkit::{
    Attribute, Flags, RelPath, Time, Tree, capability, capture, plant, skip_unless,
};

const STRATEGIES: [&str; 2] = ["rollback", "carry"];

const PERSISTED: [&str; 4] = ["keep", "single", "srv/git", "home/mia/.local/share/keyrings"];

/// Subvolumes above persisted paths, which do not move.
const ABOVE: [&str; 3] = ["srv", "home/mia/.local", "home/mia/.local/share"];

/// One of them, which is at the limit of its quota group.
const LIMITED: &str = "home/mia/.local/share";

/// Subvolumes that move: where, the flag of their root, and whether they are read-only.
const NESTED: [(&str, Option<Attribute>, bool); 6] = [
    ("keep/locked/plain", None, false),
    ("keep/locked/append", Some(Attribute::AppendOnly), true),
    ("keep/open/immutable", Some(Attribute::Immutable), false),
    ("single", Some(Attribute::Immutable), true),
    ("srv/git/inside", None, true),
    ("home/mia/.local/share/keyrings/x", Some(Attribute::Immutable), false),
];

/// Directories that hold some of them, with a flag of their own.
const HOLDING: [(&str, Attribute); 2] =
    [("keep/locked", Attribute::Immutable), ("srv/git", Attribute::AppendOnly)];

fn machine(strategy: &str) -> Result<Machine> {
    let mut machine =
        Machine::new(|blank| put(blank, "etc/os-release", "of the blank"), |_| Ok(()))?;
    for path in PERSISTED {
        machine = machine.persist(&format!("/{path}"), &[]);
    }
    strategy.clone_into(&mut machine.strategy);
    for directory in ["keep/locked", "keep/open", "srv/git", "home/mia/.local/share/keyrings"] {
        put(&machine.volume.live(), &format!("{directory}/file"), directory)?;
    }
    Ok(machine)
}

fn set_read_only(at: &Path, read_only: bool) -> Result<()> {
    Ok(btrfs::set_read_only(std::fs::File::open(at)?, read_only)?)
}

fn is_subvolume(at: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::symlink_metadata(at) {
        Ok(found) => Ok(found.ino() == btrfs::ROOT_INODE),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why.into()),
    }
}

/// Puts everything in the way that there is, on the first day or after a reset. What the ancestors
/// held comes along.
fn obstruct(machine: &Machine, live: &Path) -> Result<()> {
    clear(machine, live)?;
    put(live, "etc/erased", "erased")?;
    for path in ABOVE {
        if !is_subvolume(&live.join(path))? {
            let aside = live.join(format!("{path}~"));
            std::fs::rename(live.join(path), &aside)?;
            run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(live.join(path)))?;
            run(Command::new("cp")
                .args(["-a", "--reflink=always", "--"])
                .arg(aside.join("."))
                .arg(live.join(path)))?;
            for (nested, ..) in NESTED {
                let Ok(below) = Path::new(nested).strip_prefix(path) else { continue };
                if is_subvolume(&aside.join(below))? {
                    std::fs::remove_dir_all(live.join(nested))?;
                    std::fs::rename(aside.join(below), live.join(nested))?;
                }
            }
            std::fs::remove_dir_all(aside)?;
        }
    }
    for (path, flag, read_only) in NESTED {
        let at = live.join(path);
        if !is_subvolume(&at)? {
            run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&at))?;
            put(&at, "data", path)?;
        }
        if let Some(flag) = flag {
            plant::flag(&at, flag)?;
        }
        set_read_only(&at, read_only)?;
    }
    for (number, (path, flag)) in (1..).zip(HOLDING) {
        let time = Time { seconds: 978_307_200 + number, nanoseconds: 5 };
        plant::times(&live.join(path), time, time)?;
        plant::flag(&live.join(path), flag)?;
    }
    // The outermost last, as the user would.
    for path in ABOVE.iter().rev() {
        set_read_only(&live.join(path), true)?;
    }
    limit(machine, live, "16K")?;
    Ok(rustix::fs::syncfs(std::fs::File::open(machine.volume.fs.path())?)?)
}

/// Limits what is written in the one that is limited, which has 16 KiB.
fn limit(machine: &Machine, live: &Path, bytes: &str) -> Result<()> {
    if is_subvolume(&live.join(LIMITED))? {
        let top = machine.volume.fs.path();
        if !Command::new("btrfs").args(["qgroup", "show"]).arg(top).output()?.status.success() {
            run(Command::new("btrfs").args(["quota", "enable"]).arg(top))?;
            run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(top))?;
        }
        let group = format!("0/{}", btrfs::subvolume_id(std::fs::File::open(live.join(LIMITED))?)?);
        run(Command::new("btrfs").args(["qgroup", "limit", bytes, &group]).arg(top))?;
    }
    Ok(())
}

/// Takes all of it away.
fn clear(machine: &Machine, live: &Path) -> Result<()> {
    limit(machine, live, "none")?;
    for path in ABOVE {
        if is_subvolume(&live.join(path))? {
            set_read_only(&live.join(path), false)?;
        }
    }
    let open = |path: &Path| -> Result<()> {
        if path.exists() { Ok(plant::flags(path, Flags::default())?) } else { Ok(()) }
    };
    for (path, _) in HOLDING {
        open(&live.join(path))?;
    }
    for (path, ..) in NESTED {
        if is_subvolume(&live.join(path))? {
            set_read_only(&live.join(path), false)?;
        }
        open(&live.join(path))?;
    }
    Ok(())
}

/// Id, whether it is read-only, flags, content.
type Nested = (u64, bool, String, String);

/// What there is of all this in a tree.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// Path, whether it is read-only; `None` where it is no subvolume.
    above: Vec<(&'static str, Option<bool>)>,
    /// How much the one that is limited may take.
    limit: Option<String>,
    nested: Vec<(&'static str, Option<Nested>)>,
    kept: Vec<Tree>,
}

impl State {
    fn of(machine: &Machine, root: &str) -> Result<Self> {
        let top = machine.volume.fs.path();
        let (ids, read_only) = (subvolumes_of(top, &[])?, subvolumes_of(top, &["-r"])?);
        let id = |path: &str| ids.get(&format!("{root}/{path}")).copied();
        let is_read_only = |path: &str| read_only.contains_key(&format!("{root}/{path}"));
        let above =
            ABOVE.map(|path| (path, id(path).map(|_| is_read_only(path)))).into_iter().collect();
        let limit = match id(LIMITED) {
            Some(id) => limit_of(top, id)?,
            None => None,
        };
        let look = |path: &str| -> Result<Option<Nested>> {
            let Some(id) = id(path) else { return Ok(None) };
            let at = machine.at(root).join(path);
            let flags = Flags::read(std::fs::File::open(&at)?)?.unwrap_or_default();
            let flags = format!("{:?}", flags.attributes().collect::<Vec<_>>());
            Ok(Some((id, is_read_only(path), flags, std::fs::read_to_string(at.join("data"))?)))
        };
        let nested =
            NESTED.iter().map(|(path, ..)| Ok((*path, look(path)?))).collect::<Result<_>>()?;
        let kept = PERSISTED.iter().map(|path| {
            let mut tree = if machine.at(root).join(path).exists() {
                capture(&machine.at(root).join(path))?
            } else {
                Tree::default()
            };
            // Their own attributes are looked at above; their times change when they are moved.
            for (nested, ..) in NESTED {
                let Ok(below) = Path::new(nested).strip_prefix(path) else { continue };
                let below = below.to_str().context("no text")?;
                if !below.is_empty() {
                    tree.entries.remove(&RelPath::normalise(below).map_err(anyhow::Error::msg)?);
                }
            }
            Ok(tree)
        });
        Ok(Self { above, limit, nested, kept: kept.collect::<Result<_>>()? })
    }

    /// The same in the result of a reset.
    fn reset(mut self) -> Self {
        self.above.iter_mut().for_each(|(_, read_only)| *read_only = None);
        self.limit = None;
        self
    }

    /// The same in the generation that the reset keeps.
    fn generation(mut self) -> Self {
        self.nested.iter_mut().for_each(|(_, nested)| *nested = None);
        // It was a subvolume.
        self.kept[1] = Tree::default();
        self
    }

    fn differences(&self, other: &Self) -> String {
        let mut told = Vec::new();
        if self.above != other.above {
            told.push(format!("{:?}\n  != {:?}", self.above, other.above));
        }
        if self.limit != other.limit {
            told.push(format!("limit {:?} != {:?}", self.limit, other.limit));
        }
        for (one, two) in self.nested.iter().zip(&other.nested).filter(|(one, two)| one != two) {
            told.push(format!("{one:?}\n  != {two:?}"));
        }
        told.extend(self.kept.iter().zip(&other.kept).map(|(one, two)| one.diff_lines(two)));
        told.retain(|line| !line.is_empty());
        told.join("\n")
    }
}

/// How much the quota group of a subvolume may refer to.
fn limit_of(top: &Path, id: u64) -> Result<Option<String>> {
    let output = Command::new("btrfs").args(["qgroup", "show", "-r", "--raw"]).arg(top).output()?;
    let group = format!("0/{id}");
    let groups = String::from_utf8(output.stdout)?;
    let of = groups.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut of = of.filter(|fields| fields.first() == Some(&group.as_str()));
    Ok(of.next().and_then(|fields| fields.get(3).map(|&limit| limit.to_owned())))
}

fn same(machine: &Machine, root: &str, state: &State, what: &str) -> Result<()> {
    let difference = State::of(machine, root)?.differences(state);
    ensure!(difference.is_empty(), "{what}, in {root}:\n{difference}");
    Ok(())
}

/// A machine with everything in the way.
fn obstructed(strategy: &str) -> Result<(Machine, State)> {
    let machine = machine(strategy)?;
    obstruct(&machine, &machine.volume.live())?;
    let state = State::of(&machine, "@")?;
    Ok((machine, state))
}

#[test]
fn whatever_forbids_a_move_is_cleared_and_set_again_in_both_trees() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let (machine, mut state) = obstructed(strategy)?;
        for number in 1..=3 {
            machine.reset_well()?;
            let generation = format!("@darlings/root/{number}");
            let kept = State::of(&machine, "@")?;
            same(&machine, &generation, &State { ..state.generation() }, strategy)?;
            ensure!(!machine.at("@/etc/erased").exists(), "{strategy}: it was not reset");
            // What was above is an ordinary directory now, until it is put in the way once more.
            obstruct(&machine, &machine.volume.live())?;
            let again = State::of(&machine, "@")?;
            ensure!(again.nested == kept.nested, "{:?} != {:?}", again.nested, kept.nested);
            state = again;
        }
        let ran = machine.purge("generations = 1", &[])?;
        assert_eq!(ran.code, Some(0), "{strategy}: {}", ran.stderr);
        machine.close()?;
    }
    Ok(())
}

#[test]
fn the_result_has_what_was_kept_with_all_its_flags() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let (machine, state) = obstructed(strategy)?;
        machine.reset_well()?;
        same(&machine, "@", &state.reset(), strategy)?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn to_the_attic_and_back_all_of_it_keeps_its_flags() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let (mut machine, _) = obstructed(strategy)?;
        machine.reset_well()?;
        obstruct(&machine, &machine.volume.live())?;
        let state = State::of(&machine, "@")?.reset();
        let rules = std::mem::take(&mut machine.rules);
        machine.reset_well()?;
        for (path, ..) in NESTED {
            let text = machine.text(&format!(".darlings/attic/2/{path}/data"))?;
            assert_eq!(text.as_deref(), Some(path), "{strategy}");
        }
        machine.rules = rules;
        machine.reset_well()?;
        same(&machine, "@", &state, strategy)?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_restore_moves_what_finds_a_place_and_a_snapshot_moves_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        machine.reset_well()?;
        obstruct(&machine, &machine.volume.live())?;
        let state = State::of(&machine, "@")?;
        well(asked(&machine, "darlings=snapshot")?, "snapshot", "snapshot")?;
        same(&machine, "@", &state, strategy)?;
        // The generation has ordinary directories where there are subvolumes now.
        well(asked(&machine, "darlings=restore:1")?, "restored", "restore:1")?;
        let restored = State::of(&machine, "@")?;
        assert_eq!(restored.nested, state.nested, "{strategy}");
        assert_eq!(restored.above, ABOVE.map(|path| (path, None)), "{strategy}");
        let generation = State::of(&machine, "@darlings/root/3")?;
        assert_eq!(generation.above, state.above, "{strategy}");
        machine.close()?;
    }
    Ok(())
}

/// The calls by which subvolumes are moved and their flags set.
const CALLS: [&str; 5] = ["renameat2", "utimensat", "ioctl", "syncfs", "unlinkat"];

fn inject(machine: &Machine, config: &str, injections: &[String], line: &str) -> Result<Ran> {
    let log = machine.beside("strace");
    common::remove_if_there(&log)?;
    let mut command = strace::with_own_run();
    command.args(["strace", "-f", "-qqq", "-o"]).arg(&log);
    command.args(["-e", &format!("trace={}", CALLS.join(","))]);
    for injection in injections {
        command.args(["-e", &format!("inject={injection}")]);
    }
    command.arg(env!("CARGO_BIN_EXE_darlings")).args(["reset", "--threads", "1"]);
    command.args(machine.arguments(config)?);
    command.arg("--cmdline").arg(common::cmdline::cmdline(machine, line)?);
    machine.ran_unforetold(&mut command)
}

/// Those of a reset, from the exchange on.
fn calls_after_the_exchange(machine: &Machine, config: &str) -> Result<Vec<strace::Call>> {
    let log = machine.beside("strace");
    let mut command = strace::traced(&log, &CALLS);
    command.args(["reset", "--threads", "1"]).args(machine.arguments(config)?);
    let ran = machine.ran_unforetold(&mut command)?;
    ensure!(ran.code == Some(0), "{}", ran.stderr);
    let mut calls = strace::changing(&log)?;
    let exchange = calls.iter().position(|call| call.rest.contains("RENAME_EXCHANGE"));
    Ok(calls.split_off(exchange.context("no exchange was seen")?))
}

/// Does something at every so many calls from the exchange on, and lets the next run follow.
fn at_calls(
    strategy: &str,
    what: &str,
    check: impl Fn(&Machine, &Ran, &State) -> Result<()>,
) -> Result<()> {
    let (machine, _) = obstructed(strategy)?;
    machine.reset_well()?;
    obstruct(&machine, &machine.volume.live())?;
    let calls = calls_after_the_exchange(&machine, &machine.config())?;
    for (number, call) in calls.iter().enumerate().step_by(strace::stride(9)?) {
        obstruct(&machine, &machine.volume.live())?;
        let state = State::of(&machine, "@")?;
        let injection = format!("{}:{what}:when={}", call.name, call.when);
        let ran = inject(&machine, &machine.config(), &[injection], "")?;
        let context =
            || format!("{strategy}: {what} at {} {}: {}", call.name, call.when, ran.stderr);
        check(&machine, &ran, &state).with_context(context)?;
        // `darlings=off` completes what was begun, and begins nothing.
        let line = ["", "darlings=off"][number % 2];
        let next = asked(&machine, line)?;
        ensure!(next.code == Some(0), "the next run, {line}: {}\nafter {}", next.stderr, context());
        if State::of(&machine, "@")? == state {
            ensure!(line == "darlings=off", "it was not reset, after {}", context());
            machine.reset_well()?;
        }
        same(&machine, "@", &state.reset(), &context())?;
    }
    machine.close()
}

#[test]
fn killed_after_the_exchange_the_next_run_moves_and_sets_what_is_left() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    STRATEGIES.iter().try_for_each(|strategy| {
        at_calls(strategy, "signal=SIGKILL", |_, ran, _| {
            ensure!(ran.code != Some(0), "it was not killed");
            Ok(())
        })
    })
}

#[test]
fn a_call_that_fails_after_the_exchange_is_undone_to_the_last_flag() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    STRATEGIES.iter().try_for_each(|strategy| {
        at_calls(strategy, "error=EIO", |machine, ran, state| {
            let outcome = ran.report.as_ref().and_then(|report| report["outcome"].as_str());
            let undone = ran.stderr.contains("no volume was reset; all are as they were");
            match (ran.code, outcome) {
                (Some(10), _) if undone => same(machine, "@", state, "undone"),
                // Afterwards nothing is undone: the result is complete.
                (Some(0 | 10), _) => {
                    let state = State::of(machine, "@")?;
                    ensure!(state.above == ABOVE.map(|path| (path, None)), "{state:?}");
                    Ok(())
                }
                other => Err(anyhow::anyhow!("{other:?}")),
            }
        })
    })
}

/// Which renameat2 the first move is, and which utimensat the first after the exchange.
fn first_move(machine: &Machine, config: &str) -> Result<(u32, u32)> {
    let calls = calls_after_the_exchange(machine, config)?;
    let nth = |name: &str, skip: usize| {
        let call = calls.iter().filter(|call| call.name == name).nth(skip);
        Ok::<_, anyhow::Error>(call.with_context(|| format!("no {name}"))?.when)
    };
    Ok((nth("renameat2", 1)?, nth("utimensat", 0)?))
}

#[test]
fn an_attribute_that_cannot_be_set_does_not_stop_an_undo() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let (twin, _) = obstructed(strategy)?;
        let (moved, set) = first_move(&twin, &twin.config())?;
        twin.close()?;
        let (machine, state) = obstructed(strategy)?;
        let failing = [
            format!("renameat2:error=EIO:when={}", moved + 2),
            format!("utimensat:error=EIO:when={set}+"),
        ];
        let ran = inject(&machine, &machine.config(), &failing, "")?;
        assert_eq!(ran.code, Some(10), "{strategy}: {}", ran.stderr);
        let last = ran.stderr.lines().find(|line| line.starts_with("error: ")).context("none")?;
        let undone = "error: no volume was reset; all are as they were: /: cannot move the nested \
                      subvolume";
        assert!(last.starts_with(undone), "{}", ran.stderr);
        assert!(ran.stderr.contains("the exchange was undone"), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("cannot set the attributes of the directory"),
            "{}",
            ran.stderr
        );
        let now = State::of(&machine, "@")?;
        assert_eq!((&now.nested, &now.above), (&state.nested, &state.above), "{strategy}");
        machine.reset_well()?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn of_two_volumes_neither_is_left_half_reset() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let make = || -> Result<(Machine, String)> {
            let (machine, _) = obstructed(strategy)?;
            let home = machine.volume.make_subvolume("@home")?;
            put(&home, "zoe/junk", "erased")?;
            run(Command::new("btrfs")
                .args(["-q", "subvolume", "create"])
                .arg(home.join("zoe/.local")))?;
            put(&home, "zoe/.local/share/file", "kept")?;
            let nested = machine.volume.make_subvolume("@home/zoe/.local/share/nested")?;
            put(&nested, "data", "kept")?;
            set_read_only(&home.join("zoe/.local"), true)?;
            let config = with_home(&machine);
            let config = format!("{config}[[persist]]\npath = \"/home/zoe/.local/share\"\n");
            // What the first volume persists below /home would be the second one's.
            Ok((machine, config.replace("/home/mia/", "/mia/")))
        };
        let (machine, config) = make()?;
        let ran = machine.run(&config, &[])?;
        assert_eq!(ran.code, Some(0), "{strategy}: {}", ran.stderr);
        let kept = std::fs::read_to_string(machine.at("@home/zoe/.local/share/nested/data"))?;
        assert_eq!(kept, "kept");
        assert!(!machine.at("@home/zoe/junk").exists());
        machine.close()?;

        // The second one's move fails: it is as it was, and the first is reset.
        let (twin, config) = make()?;
        let calls = calls_after_the_exchange(&twin, &config)?;
        let exchange = calls.iter().rposition(|call| call.rest.contains("RENAME_EXCHANGE"));
        let rest = &calls[exchange.context("no exchange")? + 1..];
        let next = rest.iter().find(|call| call.name == "renameat2").context("no move")?.when;
        twin.close()?;
        let (machine, config) = make()?;
        let ran = inject(&machine, &config, &[format!("renameat2:error=EIO:when={next}")], "")?;
        assert_eq!(ran.code, Some(10), "{strategy}: {}", ran.stderr);
        assert!(machine.at("@home/zoe/junk").exists(), "{}", ran.stderr);
        assert!(!machine.at("@/etc/erased").exists(), "{}", ran.stderr);
        let read_only = subvolumes_of(machine.volume.fs.path(), &["-r"])?;
        assert!(read_only.contains_key("@home/zoe/.local"), "{read_only:?}");
        let ran = machine.run(&config, &[])?;
        assert_eq!(ran.code, Some(0), "{strategy}: {}", ran.stderr);
        machine.close()?;
    }
    Ok(())
}

/// A machine whose reset was killed when everything was still to be moved.
fn stuck(strategy: &str) -> Result<(Machine, State)> {
    let (twin, _) = obstructed(strategy)?;
    let (moved, _) = first_move(&twin, &twin.config())?;
    twin.close()?;
    let (machine, state) = obstructed(strategy)?;
    let ran = inject(
        &machine,
        &machine.config(),
        &[format!("renameat2:signal=SIGKILL:when={moved}")],
        "",
    )?;
    ensure!(ran.code != Some(0), "it was not killed");
    ensure!(machine.at("@darlings/root/ready-1").exists(), "{}", ran.stderr);
    Ok((machine, state))
}

#[test]
fn a_machine_that_the_first_versions_left_stuck_is_completed_with_all_flags() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (strategy, line) in STRATEGIES
        .iter()
        .flat_map(|it| ["", "darlings=off", "darlings=snapshot"].map(|line| (it, line)))
    {
        let (machine, state) = stuck(strategy)?;
        // They wrote less down, and had cleared nothing when the move failed.
        let at = machine.at("@/.darlings/reset/journal");
        let mut journal: serde_json::Value = serde_json::from_slice(&std::fs::read(&at)?)?;
        for nested in journal["nested"].as_array_mut().context("no list")? {
            nested.as_object_mut().context("no object")?.remove("flags");
            for above in ["from", "to"] {
                nested[above].as_object_mut().context("no object")?.remove("read_only");
            }
        }
        std::fs::write(&at, serde_json::to_vec(&journal)?)?;
        obstruct_again(&machine.at("@darlings/root/ready-1"))?;
        let ran = asked_with(&machine, &machine.config(), line, &[])?;
        assert_eq!(ran.code, Some(0), "{strategy} {line}: {}", ran.stderr);
        let result = State::of(&machine, "@")?;
        assert_eq!(result.nested, state.nested, "{strategy} {line}");
        let generation = State::of(&machine, "@darlings/root/1")?;
        assert_eq!(generation.above, state.above, "{strategy} {line}");
        machine.close()?;
    }
    Ok(())
}

/// What the killed run had cleared already.
fn obstruct_again(old: &Path) -> Result<()> {
    for (path, flag, read_only) in NESTED {
        let at = old.join(path);
        set_read_only(&at, false)?;
        if let Some(flag) = flag {
            plant::flag(&at, flag)?;
        }
        set_read_only(&at, read_only)?;
    }
    ABOVE.iter().rev().try_for_each(|path| set_read_only(&old.join(path), true))
}

#[test]
fn what_lost_its_place_while_a_reset_was_incomplete_stays_in_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let (machine, state) = stuck(strategy)?;
        // The machine was used all the same, and the user has put a link there.
        let lost = "home/mia/.local/share/keyrings/x";
        let live = machine.volume.live();
        std::fs::remove_dir_all(live.join("home/mia/.local"))?;
        std::os::unix::fs::symlink("/etc", live.join("home/mia/.local"))?;
        let ran = asked(&machine, "darlings=off")?;
        assert_eq!(ran.code, Some(0), "{strategy}: {}", ran.stderr);
        let warning = format!(
            "warning: /{lost} cannot be moved to its place, which was changed while the reset was \
             incomplete: it stays in generation 1\n"
        );
        assert!(ran.stderr.contains(&warning), "{strategy}: {}", ran.stderr);
        let (result, generation) =
            (State::of(&machine, "@")?, State::of(&machine, "@darlings/root/1")?);
        for (number, (path, was)) in state.nested.iter().enumerate() {
            let (is, other) = (&result.nested[number].1, &generation.nested[number].1);
            let (is, other) = if *path == lost { (other, is) } else { (is, other) };
            assert_eq!((is, other), (was, &None), "{strategy}: {path}");
        }
        assert_eq!(generation.above, state.above, "{strategy}");
        machine.reset_well()?;
        machine.close()?;
    }
    Ok(())
}
