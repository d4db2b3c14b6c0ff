//! `script/bench --tiny` from beginning to end.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::run;
use darlings_testkit::{capability, skip_unless};

/// The sets of a run without virtual machines, each with a word of its own.
const SECTIONS: [&str; 14] = [
    "\n| 40 kept files | 1.00 |",
    "\n| 1 GB of kept big files | 1.00 |",
    "\n| 40 erased files | 1.00 |",
    "\n| 2 persisted paths | 1.00 |",
    "\n| peak memory of a reset: size | `carry` | `rollback` |",
    "\n| removing what was erased: seconds | `darlings purge` | `rm -rf` |",
    "\n| bytes written while removing it: size | `darlings purge` | `rm -rf` |",
    "\n| 20 kept files and as many erased ones | 1.00 |",
    "\n| finding 100 differences: ratios | `darlings diff` | `rsync -naxi --delete` | `darlings diff`, \
     examining everything |",
    "\n| peak memory for finding them: size | `darlings diff` | `rsync -naxi --delete` |",
    "\n| 2 atomic replacements | 1.00 |",
    "\n| write, fsync, rename over it | works; what is kept is the new content | fails: Device or \
     resource busy (os error 16); what is kept is the old content | the link is replaced by a \
     file, and what is kept is the old content |",
    "\n| with their libraries | 1.00 |",
    "\n| start-up: milliseconds | `darlings` | `btrfs` | `cp` | `rsync` | `bash` |",
];

#[test]
fn a_tiny_run_measures_everything_and_makes_the_page_and_leaves_nothing_behind() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let before = std::fs::read_to_string(root.join("README.md"))?;
    let scratch = tempfile::tempdir()?;
    let mut build = Command::new(env!("CARGO"));
    run(build.args(["build", "--quiet", "--bin", "darlings"]).current_dir(&root))?;
    let target =
        Path::new(env!("CARGO_BIN_EXE_xtask")).parent().context("it is in no directory")?;
    let mut command = Command::new(root.join("script/bench"));
    command.arg("--tiny").env("DARLINGS_BENCH_DIR", scratch.path());
    run(command.env("DARLINGS_BIN", target.join("darlings")))?;

    let made = root.join("target/bench/tiny");
    let read = |name: &str| {
        std::fs::read_to_string(made.join(name)).with_context(|| format!("cannot read {name}"))
    };
    let page = read("benchmarks.md")?;
    let missing: Vec<_> = SECTIONS.iter().filter(|words| !page.contains(**words)).collect();
    assert_eq!(missing, Vec::<&&str>::new(), "{page}");
    // Those of the guests: two of ZFS, the boot, the units.
    assert_eq!(page.matches("Not measured in this run.").count(), 4, "{page}");
    // A purge writes something, and a tree takes space.
    assert_eq!(page.matches("| 0 B |").count(), 0, "{page}");
    assert_eq!(read("benchmarks/kept.svg")?.matches("</svg>").count(), 1);
    assert_eq!(read("README.md")?.matches("| 2 persisted paths | 1.00 |").count(), 1);
    assert_eq!(std::fs::read_to_string(root.join("README.md"))?, before, "the real one");

    let left: Vec<_> = std::fs::read_dir(scratch.path())?.collect::<std::io::Result<_>>()?;
    assert_eq!(left.len(), 0, "{left:?}");
    let devices = run(Command::new("losetup").args(["--list", "--output", "BACK-FILE"]))?;
    let scratch = scratch.path().to_string_lossy().into_owned();
    assert!(!devices.contains(&scratch), "{devices}");
    Ok(())
}
