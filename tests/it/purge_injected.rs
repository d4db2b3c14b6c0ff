//! `darlings purge` killed, and made to fail, at any of the calls that change something: by the real
//! binary on real btrfs, ext4 and XFS.

use std::path::Path;

use crate::common::purge::machine_after;
use crate::common::{self, Machine, Whole, put, quoted, strace};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{Filesystem, LoopFs, Options};
use darlings_testkit::{
    Attribute, Compare, Flags, Foretold, RelPath, Tree, capability, capture, difference, plant,
    skip_unless,
};

const FAULTS: [&str; 3] = ["signal=KILL", "error=EIO", "error=ENOSPC"];

/// A file that is kept, immutable, and has another name in what goes.
const LINKED: &str = "keep/linked";

/// Goes through the calls, three of five with one of the faults each; with `DARLINGS_STRIDE=1` each with
/// all.
fn each_fault(
    calls: &[strace::Call],
    mut strike: impl FnMut(&strace::Call, &'static str) -> Result<bool>,
) -> Result<()> {
    let every = strace::stride(5)?;
    for (first, fault) in FAULTS.into_iter().enumerate() {
        let (mut struck, mut completed) = (0, 0);
        for call in calls.iter().skip(first % every).step_by(every) {
            let all_the_same =
                strike(call, fault).with_context(|| format!("{fault} at {call:?}"))?;
            struck += 1;
            completed += u32::from(all_the_same);
        }
        eprintln!(
            "{fault} at {struck} of {} calls, which did not matter at {completed}",
            calls.len()
        );
        assert!(struck > 0);
    }
    Ok(())
}

/// What a purge says that something went wrong in.
fn must_tell(
    code: Option<i32>,
    stderr: &str,
    fault: &str,
    call: &strace::Call,
    done: bool,
) -> Result<()> {
    match code {
        Some(0) if fault.starts_with("error") => ensure!(done, "it says that all is gone"),
        Some(1) => ensure!(
            call.name == "write" || stderr.contains("os error"),
            "it does not say why: {stderr}"
        ),
        code => ensure!(fault.starts_with("signal"), "exit code {code:?}: {stderr}"),
    }
    Ok(())
}

/// That the file with two names is immutable. While its other name goes it is not, so a purge that is
/// killed just then, or that cannot set the flag again, leaves it so.
fn keeps_its_flag(live: &Path, call: &strace::Call, fault: &str) -> Result<()> {
    let flags = Flags::read(std::fs::File::open(live.join(LINKED))?)?;
    let sets = call.name == "ioctl" && call.rest.contains("FS_IOC_");
    let between = sets || (call.name == "unlinkat" && fault == "signal=KILL");
    let sealed = flags == Some(Flags::of(Attribute::Immutable));
    ensure!(sealed || between, "{LINKED} has {flags:?}");
    Ok(())
}

/// A volume with everything that a purge removes: trash, an old part of the attic, two generations too
/// many, nested subvolumes in all of them, and flags that forbid it.
fn full_machine() -> Result<Machine> {
    let machine = machine_after(0)?;
    for number in 1..=4 {
        for path in ["@/srv", "@/srv/a"] {
            put(&machine.volume.make_subvolume(path)?, "file", "gone")?;
        }
        machine.read_only("@/srv/a", number % 2 == 0)?;
        if number == 2 {
            plant::flag(&machine.at("@"), Attribute::Immutable)?;
        }
        machine.reset_well()?;
    }
    let trash = machine.at("@/.darlings/trash/4");
    litter(&trash, &machine.volume.live())?;
    put(&machine.volume.make_subvolume("@/.darlings/trash/4/nested")?, "file", "trash")?;
    plant::flag(&trash.join("nested"), Attribute::Immutable)?;
    plant::flag(&trash, Attribute::Immutable)?;
    Ok(machine)
}

/// Trash in `trash`, and the attic of reset 1.
fn litter(trash: &Path, live: &Path) -> Result<()> {
    put(trash, "etc/passwd", "trash")?;
    put(trash, "sealed/file", "trash")?;
    for name in 0..4 {
        put(trash, &format!("many/{name}"), "trash")?;
    }
    std::os::unix::fs::symlink("/keep/kept", trash.join("link"))?;
    let linked = live.join(LINKED);
    std::fs::write(&linked, "kept and sealed")?;
    std::fs::hard_link(&linked, trash.join("linked"))?;
    plant::flag(&linked, Attribute::Immutable)?;
    plant::flag(&trash.join("sealed/file"), Attribute::AppendOnly)?;
    plant::flag(&trash.join("sealed"), Attribute::Immutable)?;
    put(&live.join(".darlings/attic/1"), "a/b", "attic")?;
    put(&live.join(".darlings/attic"), "1.json", r#"{"time": 1767225600}"#)
}

const KEEP: &str = "generations = 2, days = 30";

/// How what is kept differs from what it was, but for the file that has two names.
fn differences(now: &Tree, before: &Tree) -> String {
    let compare = Compare::default().leaving_out(RelPath::normalise(LINKED).unwrap());
    difference::lines(&now.diff_with(before, &compare))
}

/// That nothing is touched which is to stay.
fn harmed_nothing(machine: &Machine, before: &Whole) -> Result<()> {
    let now = machine.whole()?;
    for same in ["@", "@blank", "@darlings/root/3", "@darlings/root/4"] {
        let (now, before) = (&now.subvolumes[same], &before.subvolumes[same]);
        let lines = differences(&now.tree, &before.tree);
        ensure!(lines.is_empty(), "{same}:\n{lines}");
        ensure!((now.id, now.read_only) == (before.id, before.read_only), "{same}");
    }
    for nested in ["srv", "srv/a"] {
        for number in [3, 4] {
            let path = format!("@darlings/root/{number}/{nested}");
            let lines = now.subvolumes[&path].tree.diff_lines(&before.subvolumes[&path].tree);
            ensure!(lines.is_empty(), "{path}:\n{lines}");
        }
    }
    let linked = std::fs::read_to_string(machine.volume.live().join(LINKED))?;
    ensure!(linked == "kept and sealed", "{LINKED} has {linked:?}");
    Ok(())
}

/// What is still there that was to go.
fn left(machine: &Machine) -> Result<Vec<String>> {
    let own = capture(&machine.at("@/.darlings"))?;
    let mut left: Vec<String> = own.entries.keys().map(ToString::to_string).collect();
    left.retain(|name| ![".", "attic", "generation", "manifest", "trash"].contains(&&**name));
    left.extend(machine.kept()?.into_iter().filter(|name| name != "3" && name != "4"));
    let subvolumes = machine.volume.subvolumes()?;
    left.extend(subvolumes.into_iter().filter(|path| path.starts_with("@/")));
    Ok(left)
}

#[test]
fn killed_or_failing_at_any_call_that_changes_something_the_next_purge_gets_done() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let scratch = tempfile::tempdir()?;
    let (prepared, image) = (scratch.path().join("prepared"), scratch.path().join("image"));
    let mut machine = full_machine()?;
    let (rules, strategy) = (machine.rules.clone(), machine.strategy.clone());
    let before = machine.whole()?;
    machine.volume.fs.unmount()?;
    machine.copy_image(&prepared)?;
    machine.close()?;
    let fresh = || {
        common::copy_sparse(&prepared, &image)?;
        Machine::of_copy(&image, rules.clone(), &strategy)
    };
    let log = scratch.path().join("strace");
    let calls = {
        let machine = fresh()?;
        let config = machine.arguments(machine.config_keeping(KEEP))?;
        let mut command = strace::traced(&log, &strace::CHANGING);
        let ran = machine.ran(command.arg("purge").args(&config[..2]))?;
        ensure!(ran.code == Some(0) && left(&machine)?.is_empty(), "{}", ran.stderr);
        machine.close()?;
        strace::changing(&log)?
    };
    each_fault(&calls, |call, fault| {
        let machine = fresh()?;
        let config = machine.arguments(machine.config_keeping(KEEP))?;
        let mut command = strace::injected(&log, &call.name, fault, call.when);
        let ran = machine.ran(command.arg("purge").args(&config[..2]))?;
        ensure!(strace::happened(&log)?, "the call was not made: {}", ran.stderr);
        harmed_nothing(&machine, &before)?;
        let done = left(&machine)?.is_empty();
        must_tell(ran.code, &ran.stderr, fault, call, done)?;
        let next = machine.purge(KEEP, &[])?;
        ensure!(next.code == Some(0), "the next purge: {}", next.stderr);
        harmed_nothing(&machine, &before)?;
        ensure!(left(&machine)?.is_empty(), "left: {:?}", left(&machine)?);
        keeps_its_flag(&machine.volume.live(), call, fault)?;
        machine.close()?;
        Ok(done)
    })?;
    scratch.close().context("cannot remove the images")
}

/// A plain directory with the same to be purged; its generations are what was moved aside.
fn full_directory(filesystem: Filesystem) -> Result<LoopFs> {
    let fs = LoopFs::new(filesystem)?;
    let live = fs.path().join("live");
    put(&fs.path().join("blank"), "etc/blank", "of the blank")?;
    put(&live, "keep/kept", "kept")?;
    for number in 1..=4 {
        put(&live, &format!("of/{number}/below"), "gone with it")?;
        plant::flag(&live.join(format!("of/{number}")), Attribute::Immutable)?;
        let ran =
            in_directory(&fs, strace::with_own_run().arg(env!("CARGO_BIN_EXE_darlings")), "reset")?;
        ensure!(ran.0 == Some(0), "{}", ran.1);
    }
    std::fs::create_dir(live.join(".darlings/trash"))?;
    litter(&live.join(".darlings/trash/4"), &live)?;
    plant::flag(&live.join(".darlings/trash/4"), Attribute::Immutable)?;
    Ok(fs)
}

/// Runs `darlings WORD` on the directory; its exit code, and what it says.
fn in_directory(
    fs: &LoopFs,
    command: &mut std::process::Command,
    word: &str,
) -> Result<(Option<i32>, String)> {
    let path = |name: &str| quoted(&fs.path().join(name).display().to_string());
    let config = fs.holder().join("darlings.toml");
    let text = format!(
        "[[volume]]\nmount_point = \"/\"\nkeep = {{ {KEEP} }}\ndir = {{ path = {}, blank = {} }}\n\
         [[persist]]\npath = \"/keep\"\n",
        path("live"),
        path("blank"),
    );
    std::fs::write(&config, text)?;
    let output = Foretold::output(command.arg(word).arg("--config").arg(config))?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

/// What is kept of a directory, and the two generations that stay.
fn kept_of(fs: &LoopFs) -> Result<[Tree; 3]> {
    let live = fs.path().join("live");
    let generation = |number: u32| capture(&live.join(format!(".darlings/generations/{number}")));
    Ok([capture(&live)?, generation(3)?, generation(4)?])
}

/// What is still there that was to go.
fn left_in(fs: &LoopFs) -> Result<Vec<String>> {
    let own = fs.path().join("live/.darlings");
    let mut left = Vec::new();
    for (directory, stay) in [
        ("", &["attic", "generation", "generations", "manifest", "trash"][..]),
        ("attic", &[]),
        ("trash", &[]),
        ("generations", &["3", "4"]),
    ] {
        for entry in std::fs::read_dir(own.join(directory))? {
            let name = entry?.file_name().into_string().unwrap();
            if !stay.contains(&&*name) {
                left.push(format!("{directory}/{name}"));
            }
        }
    }
    Ok(left)
}

#[test]
fn killed_or_failing_at_any_call_in_a_directory_the_next_purge_gets_done() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let scratch = tempfile::tempdir()?;
        let (prepared, image) = (scratch.path().join("prepared"), scratch.path().join("image"));
        let mut fs = full_directory(filesystem)?;
        let before = kept_of(&fs)?;
        fs.unmount()?;
        common::copy_sparse(&fs.holder().join("image"), &prepared)?;
        fs.close()?;
        let fresh = || -> Result<LoopFs> {
            common::copy_sparse(&prepared, &image)?;
            let mut fs = LoopFs::of_image(Options::new(filesystem), &image)?;
            fs.remount_fresh()?;
            Ok(fs)
        };
        let harmed_nothing = |fs: &LoopFs| -> Result<()> {
            for (now, before) in kept_of(fs)?.iter().zip(&before) {
                let lines = differences(now, before);
                ensure!(lines.is_empty(), "{lines}");
            }
            let linked = std::fs::read_to_string(fs.path().join("live").join(LINKED))?;
            ensure!(linked == "kept and sealed", "{LINKED} has {linked:?}");
            Ok(())
        };
        let log = scratch.path().join("strace");
        let calls = {
            let fs = fresh()?;
            let ran = in_directory(&fs, &mut strace::traced(&log, &strace::CHANGING), "purge")?;
            ensure!(ran.0 == Some(0) && left_in(&fs)?.is_empty(), "{}", ran.1);
            fs.close()?;
            strace::changing(&log)?
        };
        each_fault(&calls, |call, fault| {
            let fs = fresh()?;
            let mut command = strace::injected(&log, &call.name, fault, call.when);
            let (code, stderr) = in_directory(&fs, &mut command, "purge")?;
            ensure!(strace::happened(&log)?, "the call was not made: {stderr}");
            harmed_nothing(&fs)?;
            let done = left_in(&fs)?.is_empty();
            must_tell(code, &stderr, fault, call, done)?;
            let next = in_directory(
                &fs,
                strace::with_own_run().arg(env!("CARGO_BIN_EXE_darlings")),
                "purge",
            )?;
            ensure!(next.0 == Some(0), "the next purge: {}", next.1);
            harmed_nothing(&fs)?;
            ensure!(left_in(&fs)?.is_empty(), "left: {:?}", left_in(&fs)?);
            keeps_its_flag(&fs.path().join("live"), call, fault)?;
            fs.close()?;
            Ok(done)
        })
        .with_context(|| format!("on {filesystem}"))?;
        scratch.close().context("cannot remove the images")?;
    }
    Ok(())
}
