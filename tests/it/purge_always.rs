//! Removing gets done whatever a user made of what is removed, and whatever lies where a file of the
//! tool's own should be: by the real binary on real filesystems.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::looking::Directory;
use crate::common::purge::machine_after;
use crate::common::{Machine, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{Filesystem, LoopFs, run};
use darlings_testkit::{Attribute, capability, plant, skip_unless};
use rustix::fs::{FileType, Mode, OFlags, mkdirat, openat};

fn btrfs(arguments: &[&str], path: &Path) -> Result<()> {
    run(Command::new("btrfs").arg("-q").args(arguments).arg(path)).map(drop)
}

/// Makes `depth` directories, each in the one before, and a file in the last.
fn deep(top: &Path, depth: u32) -> Result<()> {
    std::fs::create_dir_all(top)?;
    let mut at = std::fs::File::open(top)?;
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::RWXU)?;
        at = openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?.into();
    }
    openat(at.as_fd(), "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU)?;
    Ok(())
}

#[test]
fn a_directory_on_btrfs_loses_the_subvolumes_that_were_moved_aside_with_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let rules = "keep = { generations = 1 }\n[[persist]]\npath = \"/keep\"\n";
    let directory = Directory::on(LoopFs::new(Filesystem::Btrfs)?, rules, |_| Ok(()))?;
    let live = directory.live();
    put(&live, "keep/file", "kept")?;
    put(&live, "srv/file", "goes")?;
    // A chain of them, the lower ones read-only, immutable or append-only.
    let mut at = live.join("srv");
    let mut chain = Vec::new();
    for depth in 0..60 {
        at.push(format!("{depth}"));
        btrfs(&["subvolume", "create"], &at)?;
        put(&at, "file", "goes")?;
        chain.push(at.clone());
    }
    for (depth, subvolume) in chain.iter().enumerate().rev() {
        match depth % 4 {
            1 => plant::flag(subvolume, Attribute::Immutable)?,
            2 => plant::flag(subvolume, Attribute::AppendOnly)?,
            _ => {}
        }
        if depth % 3 == 0 {
            run(Command::new("btrfs")
                .args(["property", "set"])
                .arg(subvolume)
                .args(["ro", "true"]))?;
        }
    }
    directory.reset()?;
    directory.reset()?;
    let said = directory.say(&["purge"])?;
    let removed = "/: removed the generation TOP/live/.darlings/generations/1: more are there than \
                   `keep.generations`\n";
    said.is(0, "", removed);
    let left =
        run(Command::new("btrfs").args(["subvolume", "list", "-o"]).arg(directory.fs.path()))?;
    assert_eq!(left, "");
    assert_eq!(std::fs::read_to_string(live.join("keep/file"))?, "kept");
    directory.close()
}

/// Puts something that is not a regular file at a path.
fn put_other(path: &Path, other: &str) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    match other {
        "fifo" => plant::node(path, FileType::Fifo, 0, 0)?,
        // It never ends.
        "device" => plant::node(path, FileType::CharacterDevice, 1, 5)?,
        "directory" => std::fs::create_dir(path)?,
        "link" => std::os::unix::fs::symlink("/dev/zero", path)?,
        _ => unreachable!(),
    }
    Ok(())
}

/// Runs a command of the binary, which must end within half a minute.
fn in_time(machine: &Machine, word: &str, config: &str) -> Result<(Option<i32>, String)> {
    let command = machine.word(word, config)?;
    let mut limited = Command::new("timeout");
    limited.arg("30").arg(command.get_program()).args(command.get_args());
    let output = limited.env_remove("JOURNAL_STREAM").output()?;
    ensure!(output.status.code() != Some(124), "{word} hangs");
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[test]
fn what_is_not_a_file_where_a_file_should_be_hangs_nothing_and_keeps_nothing_from_going()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for other in ["fifo", "device", "directory", "link"] {
        let machine = machine_after(4)?;
        let own = machine.volume.live().join(".darlings");
        let keep = machine.config_keeping("generations = 1, days = 30");
        // The list of something in the attic, the manifest, and the mark of a removal.
        put(&own, "attic/2/old", "stays, since nothing says how old it is")?;
        put(&own, "trash/9/junk", "goes")?;
        put_other(&own.join("attic/2.json"), other)?;
        put_other(&own.join("manifest"), other)?;
        put_other(&machine.at("@darlings/root/removing-1"), other)?;
        let (code, said) = in_time(&machine, "purge", &keep)?;
        assert_eq!(code, Some(0), "{other}: {said}");
        assert_eq!(machine.kept()?, ["4"], "{other}: {said}");
        assert!(said.contains("removed .darlings/trash/9: "), "{other}: {said}");
        assert!(own.join("attic/2/old").exists(), "{other}");
        // The counter: nothing is known of any generation, so none goes; the command ends and says why.
        put_other(&own.join("generation"), other)?;
        let (code, said) = in_time(&machine, "purge", &keep)?;
        assert_eq!(code, Some(1), "{other}: {said}");
        assert!(said.contains("cannot read @/.darlings/generation: "), "{other}: {said}");
        for word in ["generations", "check", "status", "diff"] {
            in_time(&machine, word, &keep)?;
        }
        put_other_away(&own.join("generation"), other)?;
        machine.close()?;
    }
    Ok(())
}

fn put_other_away(path: &Path, other: &str) -> Result<()> {
    let removed =
        if other == "directory" { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// So long does removing a directory take that is so deep.
fn removing(directory: &Directory, depth: u32) -> Result<Duration> {
    let trash = directory.live().join(".darlings/trash");
    deep(&trash.join("1"), depth)?;
    let begun = Instant::now();
    let said = directory.say(&["purge"])?;
    let took = begun.elapsed();
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(std::fs::read_dir(&trash).context("the trash")?.next().is_none(), "{said:?}");
    Ok(took)
}

#[test]
fn a_directory_20000_deep_goes_in_a_time_in_proportion_to_its_depth() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let directory = Directory::new("", |_| Ok(()))?;
    put(&directory.live(), "file", "goes")?;
    directory.reset()?;
    let (shallow, deep) = (removing(&directory, 8_000)?, removing(&directory, 20_000)?);
    eprintln!("8,000 deep in {shallow:?}, 20,000 deep in {deep:?}");
    // 2.5 times as deep; quadratic would be 6.25 times as long.
    assert!(deep < shallow * 5 + Duration::from_secs(2), "{shallow:?}, {deep:?}");
    directory.close()
}
