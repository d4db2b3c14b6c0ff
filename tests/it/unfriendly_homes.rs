//! What a user can leave in a home, and the commands that look at it come to an end all the same: files
//! that are huge and hold nothing, trees that are deep, mounts that never answer.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::looking::Directory;
use crate::common::{Machine, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{capability, skip_unless};
use rustix::fs::{Mode, OFlags, mkdirat, openat};

/// As `truncate -s 7E` makes it, with something at the beginning, in the middle and at the end.
fn huge(path: &Path, middle: &str) -> Result<()> {
    let file = std::fs::File::create(path)?;
    file.set_len(7 << 60)?;
    file.write_all_at(b"beginning", 0)?;
    file.write_all_at(middle.as_bytes(), 3 << 60)?;
    Ok(file.write_all_at(b"end", (7 << 60) - 3)?)
}

/// Directories in each other.
fn deep(root: &Path, depth: usize) -> Result<()> {
    let mut at: OwnedFd = std::fs::File::open(root)?.into();
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::RWXU)?;
        at = openat(&at, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    }
    let file = openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?;
    Ok(rustix::io::write(file.as_fd(), b"deep").map(drop)?)
}

#[test]
fn a_file_of_seven_exbibytes_is_compared_by_what_it_holds() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            std::fs::create_dir_all(live.join("home/mia"))?;
            huge(&live.join("home/mia/same"), "middle")?;
            huge(&live.join("home/mia/other"), "middle")?;
            std::fs::File::create(live.join("home/mia/empty"))?.set_len(7 << 60).map_err(Into::into)
        },
    )?;
    "carry".clone_into(&mut machine.strategy);
    let machine = machine.persist("/etc/machine-id", &[]);
    machine.reset_well()?;
    let home = machine.volume.live().join("home/mia");
    std::fs::create_dir_all(&home)?;
    huge(&home.join("same"), "middle")?;
    huge(&home.join("other"), "changed")?;
    std::fs::File::create(home.join("empty"))?.set_len(7 << 60)?;
    let start = Instant::now();
    let said = machine.say(&["history", "/home/mia/same", "--json"])?.json()?;
    assert_eq!(said["versions"][1]["differs"], serde_json::json!(["time"]), "{said:#}");
    let said = machine.say(&["history", "/home/mia/other", "--json"])?.json()?;
    let expected = serde_json::json!(["content", "time"]);
    assert_eq!(said["versions"][1]["differs"], expected, "{said:#}");
    let said = machine.say(&["explain", "/home/mia/empty", "--json"])?.json()?;
    let generations = &said["explained"][0]["volume"]["generations"];
    assert_eq!(generations[0]["differs"], serde_json::json!(["time"]), "{said:#}");
    let said = machine.say(&["diff", "--since", "1", "--flat", "/home/mia"])?.stdout;
    let changed: Vec<&str> =
        said.lines().filter_map(|line| line.split_once("/home/mia/")).map(|it| it.1).collect();
    assert_eq!(changed, ["other  (content)"], "{said}");
    machine.say(&["recover", "/home/mia/other", "--force"])?;
    let mut middle = [0; 6];
    std::fs::File::open(home.join("other"))?.read_exact_at(&mut middle, 3 << 60)?;
    assert_eq!(&middle, b"middle");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    machine.close()
}

const LEVELS: usize = 2000;

/// The way back up a deep tree is no longer than the way down. When each level was opened again by its path,
/// 20,000 of them took 105 s.
#[test]
fn no_level_of_a_deep_tree_is_looked_up_again_on_the_way_back() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine =
        Machine::new(|_| Ok(()), |live| Ok(std::fs::create_dir_all(live.join("home/mia/.ssh"))?))?;
    "carry".clone_into(&mut machine.strategy);
    let machine = machine.persist("/etc/machine-id", &[]);
    let home = machine.volume.live().join("home/mia/.ssh");
    deep(&home, LEVELS)?;
    machine.reset_well()?;
    std::fs::create_dir_all(&home)?;
    deep(&home, LEVELS)?;
    let calls = |arguments: &[&str]| -> Result<usize> {
        let log = machine.beside("calls");
        let mut command = Command::new("strace");
        command.args(["-f", "-qqq", "-e", "trace=openat2", "-o"]).arg(&log);
        command.arg(env!("CARGO_BIN_EXE_darlings")).args(arguments).arg("--config");
        std::fs::write(machine.beside("darlings.toml"), machine.config())?;
        let output = command.arg(machine.beside("darlings.toml")).output()?;
        ensure!(output.status.code().is_some_and(|code| code <= 3), "{output:?}");
        Ok(std::fs::read_to_string(log)?.lines().count())
    };
    // Names in open directories cost openat(2); each openat2(2) is a path from the root.
    for arguments in [
        &["diff", "--flat"][..],
        &["diff", "--since", "1"],
        &["explain", "/home/mia"],
        &["history", "/home/mia"],
        &["suggest"],
    ] {
        let start = Instant::now();
        let opened = calls(arguments)?;
        let took = start.elapsed();
        assert!(opened < LEVELS, "{arguments:?}: {opened} calls");
        assert!(took < Duration::from_secs(60), "{arguments:?}: {took:?}");
    }
    machine.close()
}

/// A FUSE filesystem of a user's refuses root; one whose process does nothing never answers; one whose
/// process is gone answers with an error. In a mount namespace of the test's own.
#[test]
fn a_mount_in_a_home_is_not_looked_at() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    if !Path::new("/dev/fuse").exists() {
        capability::skipped("needs /dev/fuse");
        return Ok(());
    }
    let rules = "[[persist]]\npath = \"/home/mia/kept/file\"\n";
    let volume = Directory::new(rules, |_| Ok(()))?;
    for path in ["kept", ".ssh", "other", ".config/file"] {
        put(&volume.live(), &format!("home/mia/{path}/below"), "hidden")?;
    }
    std::fs::create_dir_all(volume.live().join(".darlings"))?;
    // Writes the configuration.
    volume.say(&["check"])?;
    let config = volume.fs.holder().join("darlings.toml");
    let at = volume.live().join("home/mia");
    for gone in ["", "exec 9>&-;"] {
        let mut script = String::from("set -e; ");
        for path in [".ssh", "other", "kept"] {
            let at = at.join(path).display().to_string();
            let options = "fd=9,rootmode=40000,user_id=1000,group_id=1000";
            let mount = format!("exec 9<>/dev/fuse; mount -i -t fuse fuse '{at}' -o {options}; ");
            // Its descriptor stays open in the command, so that nobody closes the connection.
            script.extend([mount.as_str(), "exec {held}<&9; "]);
        }
        if !gone.is_empty() {
            script += "for fd in $(ls /proc/$$/fd); do [ $fd -lt 9 ] || [ $fd = 255 ] || eval \"exec $fd>&-\"; done; ";
        }
        script += "exec timeout --signal=KILL 30 \"$@\"";
        for arguments in [
            &["diff", "--flat"][..],
            &["suggest"],
            &["check", "--fstab", "/dev/null"],
            &["explain", "/home/mia"],
            &["history", "/home/mia"],
            &["generations"],
            &["status", "--report", "/run/darlings/none"],
            &["reset", "--dry-run", "--cmdline", "/dev/null"],
        ] {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "bash", "-c", &script, "bash"]);
            command
                .arg(env!("CARGO_BIN_EXE_darlings"))
                .args(arguments)
                .arg("--config")
                .arg(&config);
            let output = command.stdin(Stdio::null()).env_remove("JOURNAL_STREAM").output()?;
            let text =
                [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
            let code =
                output.status.code().with_context(|| format!("{arguments:?} hangs: {text:?}"))?;
            assert!(!text[1].contains("error:"), "{arguments:?}: {code} {}", text[1]);
            if arguments[0] == "diff" {
                assert!(text[0].contains("home/mia/.config/file/below"), "{}", text[0]);
            }
        }
    }
    volume.close()
}

#[test]
fn the_directory_of_a_run_that_was_killed_goes_with_the_next_run() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/etc/machine-id", &[]);
    // A process that is gone, and that nobody else can have been, and one that is there.
    let gone = Path::new("/run/darlings/4194999-0-top-of-a-test");
    let there = format!("/run/darlings/{}-0-top-of-a-test", std::process::id());
    std::fs::create_dir_all(gone)?;
    std::fs::create_dir_all(&there)?;
    machine.reset_well()?;
    let left = (gone.exists(), Path::new(&there).exists());
    std::fs::remove_dir(&there)?;
    assert_eq!(left, (false, true));
    machine.close()
}
