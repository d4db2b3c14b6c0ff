//! `darlings recover` by the real binary on real filesystems.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::looking::{Directory, put_then};
use crate::common::{Machine, put};
use anyhow::Result;
use darlings_testkit::loopfs::{Filesystem, LoopFs, run};
use darlings_testkit::{capability, capture, fill, plant, skip_unless};
use serde_json::json;

/// Two resets, and `/root/try.sh` at each.
fn machine() -> Result<Machine> {
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/keep", &[]);
    let live = machine.volume.live();
    put_then(&live, "keep/file", "kept")?;
    put_then(&live, "root/try.sh", "first")?;
    machine.reset_well()?;
    put_then(&live, "root/try.sh", "second")?;
    plant::mode(&live.join("root"), 0o700)?;
    plant::owner(&live.join("root"), 7, 8)?;
    machine.reset_well()?;
    Ok(machine)
}

/// What is said about something that is not kept.
fn warning(path: &str) -> String {
    format!(
        "warning: the next reset erases {path} again; to keep it, add to FILE:\nwarning: [[persist]]\n\
         warning: path = \"{path}\"\n"
    )
    .replace("warning: [[", "[[")
    .replace("warning: path", "path")
}

fn read(machine: &Machine, path: &str) -> Result<String> {
    Ok(std::fs::read_to_string(machine.volume.live().join(path))?)
}

#[test]
fn a_file_comes_back_from_the_newest_generation_with_the_directories_above_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let before = machine.whole()?;
    machine.say(&["recover", "/root/try.sh", "--dry-run"])?.is(
        0,
        "/root/try.sh: would be recovered from generation 2\nwould make /root\n",
        &warning("/root/try.sh"),
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.say(&["recover", "/root/try.sh"])?.is(
        0,
        "/root/try.sh: recovered from generation 2: 1 entry, 6 B shared by reflink\nmade /root\n",
        &warning("/root/try.sh"),
    );
    let generation = capture(&machine.at("@darlings/root/2/root"))?;
    assert_eq!(capture(&machine.at("@/root"))?.diff_lines(&generation), "");
    assert_eq!(read(&machine, "root/try.sh")?, "second");
    // Once more: nothing is to be done.
    let before = machine.whole()?;
    machine.say(&["recover", "/root/try.sh", "--from", "2"])?.is(
        0,
        "/root/try.sh: already as generation 2 has it\n",
        &warning("/root/try.sh"),
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn what_is_there_is_replaced_by_force_only_and_stays_in_the_trash() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    put_then(&machine.volume.live(), "root/try.sh", "third one")?;
    let before = machine.whole()?;
    machine.say(&["recover", "/root/try.sh"])?.is(
        4,
        "",
        "error: /root/try.sh is there, and differs from generation 2; give --force to replace all of \
         it, or --to for another place\n",
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.say(&["recover", "/root/try.sh", "--from", "1", "--force"])?.is(
        0,
        "/root/try.sh: recovered from generation 1: 1 entry, 5 B shared by reflink\nWhat it replaced is \
         in .darlings/trash/replaced-1 of the volume; `recover --from trash` brings it back.\n",
        &warning("/root/try.sh"),
    );
    assert_eq!(read(&machine, "root/try.sh")?, "first");
    assert_eq!(read(&machine, ".darlings/trash/replaced-1")?, "third one");
    // Without --from, the newest that differs from what is there now.
    let said = machine.say(&["recover", "/root/try.sh", "--force", "--json"])?.json()?;
    assert_eq!(
        said,
        json!({
            "version": 1,
            "outcome": "recovered",
            "path": "/root/try.sh",
            "from": { "generation": 2 },
            "to": "/root/try.sh",
            "replaced": true,
            "replaced_is_in": ".darlings/trash/replaced-2",
            "made": [],
            "entries": 1,
            "bytes": { "reflinked": 6, "copy_file_range": 0, "copied": 0 },
            "keep_with": "[[persist]]\npath = \"/root/try.sh\"\n",
            "warnings": [
                format!(
                    "the next reset erases /root/try.sh again; to keep it, add to {}:\n[[persist]]\n\
                     path = \"/root/try.sh\"",
                    machine.beside("darlings.toml").display()
                ).replace(&machine.beside("darlings.toml").display().to_string(), "FILE")
            ],
        })
    );
    // What is kept needs no line.
    put_then(&machine.volume.live(), "keep/file", "changed")?;
    let said = machine.say(&["recover", "/keep", "--force"])?;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert_eq!(read(&machine, "keep/file")?, "kept");
    machine.close()
}

#[test]
fn everything_comes_back_exactly_on_the_same_filesystem_and_copied_to_another() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?;
    let live = machine.volume.live();
    for name in ["all", "some"] {
        std::fs::create_dir(live.join(name))?;
    }
    assert_eq!(fill::everything(&live.join("all"))?, []);
    put_then(&live, "some/sparse", "")?;
    plant::sparse_file(&live.join("some/holes"), 1 << 20, &[(0, b"a"), (512 << 10, b"b")])?;
    std::fs::hard_link(live.join("some/holes"), live.join("some/linked"))?;
    plant::xattr(&live.join("some/holes"), "user.note", b"x")?;
    plant::owner(&live.join("some/sparse"), 1000, 100)?;
    let (all, some) = (capture(&live.join("all"))?, capture(&live.join("some"))?);
    machine.reset_well()?;
    assert!(!live.join("all").exists());
    let said = machine.say(&["recover", "/all"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(capture(&live.join("all"))?.diff_lines(&all), "");
    // Into a directory that passes on all it can.
    std::fs::create_dir(live.join("generous"))?;
    plant::mode(&live.join("generous"), 0o2775)?;
    plant::owner(&live.join("generous"), 0, 100)?;
    plant::xattr(
        &live.join("generous"),
        "system.posix_acl_default",
        &plant::example_acl(1003, 1004),
    )?;
    let said = machine.say(&["recover", "/all", "--to", "/generous/copy"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(capture(&live.join("generous/copy"))?.diff_lines(&all), "");
    // Immutable as it is, it is replaced, and what replaces it is sealed again.
    let locked = live.join("generous/copy/locked");
    assert!(locked.exists());
    let said = machine.say(&["recover", "/all/types", "--to", "/generous/copy", "--force"])?;
    assert_eq!(said.code, Some(0), "{said:?}");

    let other = LoopFs::new(Filesystem::Ext4)?;
    let to = other.path().join("there");
    let said = machine.say(&["recover", "/some", "--to", to.to_str().unwrap()])?;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{}", said.stdout);
    assert_eq!(
        said.stdout,
        format!(
            "/some: recovered from generation 1 as {}: 4 entries, 1.0 MiB copied\n",
            to.display()
        )
    );
    assert_eq!(capture(&to)?.diff_lines(&some), "");
    assert_eq!(
        std::fs::metadata(to.join("holes"))?.ino(),
        std::fs::metadata(to.join("linked"))?.ino()
    );
    other.close()?;
    machine.close()
}

#[test]
fn a_link_in_the_way_is_not_followed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let machine = machine()?;
    let live = machine.volume.live();
    std::fs::create_dir(live.join("elsewhere"))?;
    std::os::unix::fs::symlink("elsewhere", live.join("root"))?;
    let before = machine.whole()?;
    machine.say(&["recover", "/root/try.sh", "--force"])?.is(
        2,
        "",
        "error: /root/try.sh cannot be recovered there: root is a symbolic link now, and is not \
         followed; give --to, with the path that it stands for\n",
    );
    // On the way to another place too.
    let other = LoopFs::new(Filesystem::Ext4)?;
    std::os::unix::fs::symlink(".", other.path().join("link"))?;
    let to = other.path().join("link/file");
    let said = machine.say(&["recover", "/root/try.sh", "--to", to.to_str().unwrap()])?;
    assert_eq!(said.code, Some(2));
    assert_eq!(
        said.stderr,
        format!(
            "error: there is a symbolic link on the way to {}, which is not followed; give the path \
             that it stands for\n",
            to.display()
        )
    );
    // A link that is itself at the target is replaced, and what it points at stays.
    put(&live, "elsewhere/try.sh", "another")?;
    std::fs::remove_file(live.join("root"))?;
    std::fs::create_dir(live.join("root"))?;
    std::os::unix::fs::symlink("../elsewhere/try.sh", live.join("root/try.sh"))?;
    let said = machine.say(&["recover", "/root/try.sh", "--force"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(read(&machine, "root/try.sh")?, "second");
    assert_eq!(read(&machine, "elsewhere/try.sh")?, "another");
    drop(before);
    other.close()?;
    machine.close()
}

#[test]
fn what_is_nowhere_or_cannot_be_is_told_with_what_to_do() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    put(&machine.volume.live(), "root/new", "new")?;
    let before = machine.whole()?;
    let refused = |arguments: &[&str], code: i32, words: &str| -> Result<()> {
        let said = machine.say(&[&["recover"], arguments].concat())?;
        said.is(code, "", &format!("error: {words}\n"));
        Ok(())
    };
    refused(&["/root/no"], 3, "/root/no is in none of the 2 generations, nor in the attic")?;
    refused(&["/root/try.sh", "--from", "7"], 3, "there is no generation 7; there are 1, 2")?;
    refused(
        &["/root/new", "--from", "2"],
        3,
        "/root/new is not in generation 2: nothing; `darlings history /root/new` lists those that have \
         it",
    )?;
    refused(&["/root/new", "--from", "attic"], 3, "/root/new is not in the attic")?;
    refused(&["/root/new", "--from", "attic:1"], 3, "/root/new is not in the attic of reset 1")?;
    refused(
        &["/"],
        2,
        "/ is the volume itself; boot with darlings=restore:N to bring all of it back",
    )?;
    refused(
        &["/.darlings/manifest"],
        2,
        "/.darlings/manifest is darlings' own; for what is in the attic or the trash give the path that it \
         had, and --from attic or --from trash",
    )?;
    refused(
        &["/root/try.sh", "--to", "/.darlings/x"],
        2,
        "/.darlings/x is darlings' own; give another --to",
    )?;
    refused(
        &["/root/try.sh", "--to", "/no/such/place"],
        2,
        "there is no directory /no/such to put it into; make it first, or give another --to",
    )?;
    refused(
        &["/proc/version"],
        2,
        "/proc/version is not on the volume /: something else is mounted at /proc, which is \
         not reset, so there are no generations of it",
    )?;
    let said = machine.say(&["recover", "/root/try.sh", "--from", "newest"])?;
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("\"newest\" is neither the number of a generation"), "{said:?}");
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn a_directory_in_which_something_is_mounted_is_not_replaced() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let machine = machine()?;
    let mut other = LoopFs::new(Filesystem::Ext4)?;
    let to = other.path().join("to");
    std::fs::create_dir(&to)?;
    let inside = other.mount_at("mounted/to/inside", "")?;
    put(&inside, "precious", "precious")?;
    let said = machine.say(&["recover", "/keep", "--to", to.to_str().unwrap(), "--force"])?;
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.starts_with("error: ")
            && said.stderr.ends_with(&format!(
                " is in use as a mount point, so {} cannot be replaced; unmount it, or give --to\n",
                to.display()
            )),
        "{said:?}"
    );
    assert_eq!(std::fs::read_to_string(inside.join("precious"))?, "precious");
    other.close()?;
    machine.close()
}

/// A generation has an empty directory in its place.
#[test]
fn a_directory_with_a_subvolume_in_it_is_not_replaced() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?.persist("/var/lib", &[]);
    let live = machine.volume.live();
    put_then(&live, "var/lib/app/data", "old")?;
    put_then(&live, "var/lib/beside", "beside")?;
    let nested = machine.volume.make_subvolume("@/var/lib/app/machines")?;
    put(&nested, "disk", "precious")?;
    machine.reset_well()?;
    put_then(&live, "var/lib/app/data", "newer")?;
    let before = machine.whole()?;
    for (path, more) in [("/var/lib", &["--dry-run"][..]), ("/var/lib", &[]), ("/var/lib/app", &[])]
    {
        let said = machine.say(&[&["recover", path, "--force"][..], more].concat())?;
        said.is(
            2,
            "",
            &format!(
                "error: /var/lib/app/machines is a subvolume of its own, which generation 1 does not hold, \
                 and would be lost with {path}; recover what is beside it path by path, or give --to\n"
            ),
        );
    }
    assert_eq!(machine.whole()?.differences(&before), "");
    let said = machine.say(&["recover", "/var/lib/app/data", "--force"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(read(&machine, "var/lib/app/data")?, "old");
    // Into the subvolume, and beside it, there is no obstacle.
    assert_eq!(read(&machine, "var/lib/app/machines/disk")?, "precious");
    machine.close()
}

#[test]
fn what_was_put_into_the_attic_comes_back_from_it() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let kept = "[[persist]]\npath = \"/keep/deep\"\n";
    let mut directory = Directory::new(kept, |_| Ok(()))?;
    let live = directory.live();
    put_then(&live, "keep/deep/file", "kept")?;
    directory.reset()?;
    directory.rules = String::new();
    directory.reset()?;
    assert!(!live.join("keep").exists());
    let said = directory.say(&["recover", "/keep/deep/file", "--from", "2"])?;
    assert_eq!(said.code, Some(3), "{said:?}");
    directory.say(&["recover", "/keep/deep"])?.is(
        0,
        "/keep/deep: recovered from the attic of reset 2: 2 entries, 4 B brought over by \
         copy_file_range\nmade /keep\n",
        &warning("/keep/deep"),
    );
    let stored = live.join(".darlings/attic/2/keep");
    assert_eq!(capture(&live.join("keep"))?.diff_lines(&capture(&stored)?), "");
    assert_eq!(std::fs::read_to_string(live.join("keep/deep/file"))?, "kept");
    directory.close()
}

#[test]
fn a_plain_directory_does_not_lose_what_it_kept() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let directory = Directory::new("[[persist]]\npath = \"/etc/id\"\n", |_| Ok(()))?;
    let live = directory.live();
    put_then(&live, "etc/id", "kept")?;
    put_then(&live, "etc/erased", "erased")?;
    directory.reset()?;
    directory.say(&["recover", "/etc/id", "--from", "1"])?.is(
        3,
        "",
        "error: /etc/id is not in generation 1: nothing; `darlings history /etc/id` lists those that \
         have it\n",
    );
    directory.say(&["recover", "/etc/id"])?.is(
        3,
        "",
        "error: /etc/id is neither in the only generation nor in the attic; what was kept is in no \
         generation of a plain directory\n",
    );
    directory.say(&["recover", "/etc", "--force"])?.is(
        2,
        "",
        "error: /etc holds what is persisted (/etc/id), which would be replaced with it; recover what is \
         in it path by path, or give --to\n",
    );
    let said = directory.say(&["recover", "/etc/erased"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(std::fs::read_to_string(live.join("etc/erased"))?, "erased");
    assert_eq!(std::fs::read_to_string(live.join("etc/id"))?, "kept");
    directory.close()
}

/// The calls that change a filesystem, in a recovery.
const CHANGING: [&str; 10] = [
    "mkdirat",
    "ioctl",
    "fchown",
    "fchmod",
    "fsetxattr",
    "utimensat",
    "linkat",
    "syncfs",
    "renameat2",
    "unlinkat",
];

/// `recover /dir --force` killed at the `when`th call of a kind.
fn kill(machine: &Machine, call: &str, when: u32) -> Result<Option<i32>> {
    let (trace, inject) =
        (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
    command.arg(env!("CARGO_BIN_EXE_darlings")).args(["recover", "/dir", "--force", "--config"]);
    command.arg(machine.beside("darlings.toml")).env_remove("JOURNAL_STREAM");
    Ok(command.output()?.status.code())
}

fn left_over(live: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(live)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(".darlings-recover-") {
            names.push(name);
        }
    }
    Ok(names)
}

#[test]
fn killed_at_any_call_the_target_is_whole_and_the_next_run_removes_what_was_left() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?;
    let live = machine.volume.live();
    put_then(&live, "dir/one", "one")?;
    std::fs::hard_link(live.join("dir/one"), live.join("dir/linked"))?;
    plant::owner(&live.join("dir/one"), 1000, 100)?;
    plant::xattr(&live.join("dir/one"), "user.note", b"x")?;
    let wanted = capture(&live.join("dir"))?;
    machine.reset_well()?;
    std::fs::write(machine.beside("darlings.toml"), machine.config())?;
    let stride = std::env::var("DARLINGS_STRIDE").map_or(3, |text| text.parse().unwrap());
    let mut killed = 0;
    let mut cleaned = 0;
    for force in [false, true] {
        for call in CHANGING {
            // What has a name at each moment depends on these.
            let stride = if call == "renameat2" { 1 } else { stride };
            for when in (1..).step_by(stride) {
                for name in left_over(&live)?.into_iter().chain(["dir".to_owned()]) {
                    if live.join(&name).exists() {
                        std::fs::remove_dir_all(live.join(&name))?;
                    }
                }
                if force {
                    put_then(&live, "dir/other", "other")?;
                }
                let other = if force { Some(capture(&live.join("dir"))?) } else { None };
                let code = kill(&machine, call, when)?;
                if code == Some(0) {
                    break;
                }
                killed += 1;
                let context = format!("force {force}, killed at {call} {when}: {code:?}");
                let there = live.join("dir").exists().then(|| capture(&live.join("dir")));
                let there = there.transpose()?;
                let whole = match (&there, &other) {
                    (None, None) => true,
                    (None, Some(_)) => false,
                    (Some(there), other) => {
                        there.diff_lines(&wanted).is_empty()
                            || other.as_ref().is_some_and(|it| there.diff_lines(it).is_empty())
                    }
                };
                assert!(whole, "{context}: {there:?}");
                let left = left_over(&live)?;
                let said = machine.say(&["recover", "/dir", "--force"])?;
                assert_eq!(said.code, Some(0), "{context}: {said:?}");
                assert_eq!(capture(&live.join("dir"))?.diff_lines(&wanted), "", "{context}");
                for name in left {
                    cleaned += 1;
                    let words = format!("removed /{name}, which an interrupted run had left");
                    assert!(said.stderr.contains(&words), "{context}: {said:?}");
                }
                assert_eq!(left_over(&live)?, Vec::<String>::new(), "{context}");
            }
        }
    }
    eprintln!("killed at {killed} calls, {cleaned} times something was left");
    assert!(killed > 10 && cleaned > 5, "killed {killed}, cleaned {cleaned}");
    machine.close()
}

#[test]
fn what_only_looks_like_a_leftover_stays() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let live = machine.volume.live();
    // Somebody's own, root's without the mark, and a link to what is precious.
    put(&live, "root/.darlings-recover-1/recovering", "")?;
    put(&live, "root/.darlings-recover-1/new/precious", "precious")?;
    plant::owner(&live.join("root/.darlings-recover-1"), 1000, 100)?;
    plant::mode(&live.join("root/.darlings-recover-1"), 0o700)?;
    put(&live, "root/.darlings-recover-2/precious", "precious")?;
    plant::mode(&live.join("root/.darlings-recover-2"), 0o700)?;
    std::os::unix::fs::symlink("/", live.join("root/.darlings-recover-3"))?;
    let said = machine.say(&["recover", "/root/try.sh"])?;
    said.is(
        0,
        "/root/try.sh: recovered from generation 2: 1 entry, 6 B shared by reflink\n",
        &warning("/root/try.sh"),
    );
    assert_eq!(read(&machine, "root/.darlings-recover-1/new/precious")?, "precious");
    assert_eq!(read(&machine, "root/.darlings-recover-2/precious")?, "precious");
    assert!(live.join("root/.darlings-recover-3").is_symlink());
    machine.close()
}

#[test]
fn nothing_is_recovered_while_a_reset_waits_or_a_purge_works() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    put(&machine.volume.live(), ".darlings/reset/journal", "")?;
    machine.say(&["recover", "/root/try.sh"])?.is(
        1,
        "",
        "error: a reset was interrupted (its journal is there); reboot, so that the next one completes \
         it\n",
    );
    run(Command::new("rm").arg("-r").arg(machine.at("@/.darlings/reset")))?;
    let held = std::fs::File::open(machine.at("@/.darlings"))?;
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive)?;
    let said = machine.say(&["recover", "/root/try.sh"])?;
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.starts_with(
            "error: another run is at work in .darlings, a purge perhaps; wait for it\n"
        ),
        "{said:?}"
    );
    assert!(!machine.at("@/root").exists());
    drop(held);
    machine.close()
}
