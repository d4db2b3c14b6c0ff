//! Very deep, very long, and few descriptors: what users can make must not stop a reset.

use std::path::Path;
use std::process::Command;

use crate::common::{Machine, Ran, put};
use anyhow::{Context as _, Result};
use darlings_testkit::descent::Descent;
use darlings_testkit::loopfs::{Filesystem, Options};
use darlings_testkit::{Attribute, Flags, Time, capability, fill, plant, skip_unless};

/// As many descriptors as a process may have where nobody raised the limit: 1024, and 4096.
const FEW: &str = "--nofile=1024:4096";

const LEVELS: usize = 10_000;

/// Runs it with few descriptors and with this many threads.
fn reset_with_few(machine: &Machine, threads: &str) -> Result<Ran> {
    let mut command = Command::new("prlimit");
    command
        .args([FEW, env!("CARGO_BIN_EXE_darlings"), "reset", "--threads", threads])
        .args(machine.arguments(machine.config())?)
        .env_remove("JOURNAL_STREAM");
    machine.ran(&mut command)
}

/// A machine whose live subvolume has a directory of [`LEVELS`] levels, in `keep`.
fn deep_machine(blank: impl FnOnce(&Path) -> Result<()>) -> Result<Machine> {
    let machine = Machine::with(Options::new(Filesystem::Btrfs).size(2 << 30), blank, |live| {
        std::fs::create_dir_all(live.join("keep"))?;
        fill::deep(&live.join("keep"), LEVELS, "d")
    })?;
    Ok(machine.persist("/keep", &[]))
}

/// How many levels of `name` there are, the modes of those that have another than 0755, and what
/// is at the bottom.
fn levels(dir: &Path, name: &str) -> Result<(usize, Vec<u32>, Vec<Vec<u8>>)> {
    let mut descent = Descent::open(dir)?;
    let mut modes = Vec::new();
    loop {
        let names = descent.names()?;
        if names != [name.as_bytes()] {
            return Ok((descent.depth(), modes, names));
        }
        descent.enter(name.as_bytes())?;
        let mode = rustix::fs::fstat(descent.fd())?.st_mode & 0o7777;
        modes.extend((mode != 0o755).then_some(mode));
    }
}

/// A file that could be activated with swapon(8), if it is root's.
fn swap_file(path: &Path) -> Result<()> {
    plant::file(path, &[], Flags::of(Attribute::NoCow))?;
    std::fs::write(path, vec![0; 1 << 20])?;
    darlings_testkit::loopfs::run(Command::new("mkswap").arg("-q").arg(path)).map(drop)
}

#[test]
fn ten_thousand_levels_come_back_with_few_descriptors_and_are_removed_from_the_blank_with_few()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for threads in ["1", "7"] {
        let machine = deep_machine(|blank| {
            std::fs::create_dir(blank.join("keep"))?;
            fill::deep(&blank.join("keep"), LEVELS, "b")
        })?;
        darlings_testkit::remove::all(&machine.at("@/keep/b"))?;
        let marked = Time { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
        for path in ["@/keep", "@/keep/d", "@/keep/d/d"] {
            plant::times(&machine.at(path), marked, marked)?;
        }
        let ran = reset_with_few(&machine, threads)?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(
            levels(&machine.at("@/keep"), "d")?,
            (LEVELS, vec![], vec![b"bottom".to_vec()]),
            "{threads} threads"
        );
        for path in ["@/keep", "@/keep/d", "@/keep/d/d"] {
            let found = std::fs::metadata(machine.at(path))?.modified()?;
            let since = found.duration_since(std::time::UNIX_EPOCH)?;
            assert_eq!((since.as_secs(), since.subsec_nanos()), (1_000_000_000, 123_456_789));
        }
        let report = ran.report.context("no report")?;
        assert_eq!(report["volumes"][0]["restored"][0]["entries"], LEVELS + 2);
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_failure_ten_thousand_levels_down_is_told_as_any_other() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = deep_machine(|_| Ok(()))?;
    let mut bottom = Descent::open(&machine.at("@/keep"))?;
    for _ in 0..LEVELS {
        bottom.enter(b"d")?;
    }
    rustix::fs::symlinkat("nowhere", bottom.fd(), "link")?;
    for threads in ["1", "2", "7"] {
        let mut command = Command::new("prlimit");
        command
            .args([FEW, "strace", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=symlinkat"])
            .args(["-e", "inject=symlinkat:error=EIO:when=1", env!("CARGO_BIN_EXE_darlings")])
            .args(["reset", "--threads", threads])
            .args(machine.arguments(machine.config())?)
            .env_remove("JOURNAL_STREAM");
        let ran = machine.ran(&mut command)?;
        let end = ran.stderr.lines().last().unwrap_or_default().chars().rev().take(160);
        let end: String = end.collect::<Vec<_>>().into_iter().rev().collect();
        assert!(
            end.contains("d/d/link\": cannot make the symbolic link"),
            "{threads} threads: {end}"
        );
        assert_eq!(ran.code, Some(10), "{threads} threads: {end}");
    }
    drop(bottom);
    machine.close()
}

/// Far more than the descriptors that the test leaves the process.
const MANY: usize = 20_000;

#[test]
fn a_directory_of_twenty_thousand_directories_needs_no_more_descriptors_or_memory() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::with(
        Options::new(Filesystem::Btrfs).size(2 << 30),
        |_| Ok(()),
        |live| {
            std::fs::create_dir(live.join("keep"))?;
            let keep = Descent::open(&live.join("keep"))?;
            for number in 0..MANY {
                let mode = rustix::fs::Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(keep.fd(), format!("{number:06}"), mode)?;
            }
            Ok(())
        },
    )?
    .persist("/keep", &[]);
    // On one processor a thread that was woken is long in coming.
    let mut command = Command::new("taskset");
    command
        .args(["--cpu-list", "0", "prlimit", "--nofile=256:256"])
        .args([env!("CARGO_BIN_EXE_darlings"), "reset", "--threads", "7"])
        .args(machine.arguments(machine.config())?)
        .env_remove("JOURNAL_STREAM");
    let ran = machine.ran(&mut command)?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(machine.at("@/keep"))?.count(), MANY);
    let memory = ran.report.context("no report")?["peak_memory_bytes"].as_u64();
    assert!(memory.is_some_and(|bytes| bytes < 40 << 20), "{memory:?}");
    machine.close()
}

#[test]
fn a_users_file_that_looks_like_a_swap_file_is_brought_over_as_any_other() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |live| Ok(std::fs::create_dir(live.join("keep"))?))?
        .persist("/keep", &[]);
    swap_file(&machine.at("@/keep/disk-of-a-virtual-machine"))?;
    plant::owner(&machine.at("@/keep/disk-of-a-virtual-machine"), 1000, 100)?;
    machine.reset_and_compare()?;
    machine.close()
}

#[test]
fn a_directory_of_the_tools_name_that_is_not_roots_says_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for said in ["no number", "18446744073709551615", "41"] {
        let machine =
            Machine::new(|_| Ok(()), |live| put(live, "keep/file", "kept"))?.persist("/keep", &[]);
        put(&machine.volume.live(), ".darlings/generation", said)?;
        for path in ["@", "@/.darlings", "@/.darlings/generation"] {
            plant::owner(&machine.at(path), 1000, 100)?;
        }
        machine.reset_and_compare()?;
        let generation = std::fs::read_to_string(machine.at("@/.darlings/generation"))?;
        assert_eq!(generation, "1\n", "{said}");
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_file_with_more_extended_attributes_than_can_be_listed_comes_back_with_all() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine =
        Machine::new(|_| Ok(()), |live| put(live, "keep/file", "kept"))?.persist("/keep", &[]);
    let name = |number: usize| format!("user.{number:0200}");
    let file = machine.at("@/keep/file");
    for number in 0..400 {
        plant::xattr(&file, &name(number), number.to_string().as_bytes())?;
    }
    plant::xattr(&file, "system.posix_acl_access", &plant::example_acl(1003, 1004))?;
    let listed = rustix::fs::listxattr(&file, &mut vec![0_u8; 65_536][..]);
    assert_eq!(listed, Err(rustix::io::Errno::TOOBIG));
    machine.reset_well()?;
    let value = |name: &str| -> Result<Vec<u8>> {
        let mut value = vec![0; 1000];
        let length = rustix::fs::getxattr(&file, name, &mut value[..])?;
        value.truncate(length);
        Ok(value)
    };
    for number in 0..400 {
        assert_eq!(value(&name(number))?, number.to_string().as_bytes());
    }
    assert_eq!(value("system.posix_acl_access")?, plant::example_acl(1003, 1004));
    machine.close()
}
