//! What is refused before anything is changed: every error names what is wrong and what to do, and
//! the pool is the same to the last byte.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::plant;

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, reset, reset_below};
use crate::pools::{
    DATASET, MARK, POOL, Whole, change, create_pool, export, import, put, sh, tree,
};
use crate::{full_pool, properties};

#[test]
fn what_cannot_be_reset_is_named_and_nothing_is_changed() -> Result<()> {
    in_guest(
        "bad_input::what_cannot_be_reset_is_named_and_nothing_is_changed",
        checks![
            what_is_missing_or_in_the_way_is_named_and_nothing_is_changed,
            a_dataset_that_is_in_use_or_read_only_is_refused,
            snapshots_that_are_not_ours_are_refused_unless_they_may_be_destroyed,
            a_mark_without_its_stage_is_refused,
            a_file_with_more_attributes_than_can_be_listed_is_moved_and_nothing_copied,
            a_reset_that_moves_instead_of_copying_is_completed_wherever_it_is_killed,
            properties::a_dataset_that_is_read_only_is_refused_by_name,
            properties::a_refreservation_that_leaves_no_room_is_refused,
            properties::a_blank_above_the_refquota_is_refused,
            properties::a_root_that_would_lose_its_init_is_refused,
            full_pool::a_blank_larger_than_what_is_free_is_not_ready,
            full_pool::what_is_cloned_needs_no_room,
            full_pool::a_pool_or_quota_that_is_full_at_any_moment_leaves_all_as_it_was,
        ],
    )
}

/// A small machine whose whole pool can be compared.
pub(crate) fn small_machine() -> Result<Machine> {
    let blank = |blank: &Path| put(blank, "etc/motd", "of the blank");
    let live = |live: &Path| {
        put(live, "etc/motd", "changed")?;
        put(live, "keep/file", "kept")
    };
    Ok(Machine::new(&[], blank, live)?.persist("keep", &[]))
}

/// Resets, which is refused with these words; nothing in the pool is changed.
pub(crate) fn refused(configuration: &str, words: &str) -> Result<()> {
    all_refused(&[(configuration, words)])
}

/// Resets as each of the configurations says, which is refused with the words beside it; nothing in
/// the pool is changed.
fn all_refused(cases: &[(&str, &str)]) -> Result<()> {
    let before = Whole::of(POOL)?;
    for (configuration, words) in cases {
        let ran = reset(configuration, &[])?;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(10), *words));
        let report = ran.report.context("no report")?;
        assert_eq!(report["outcome"], "failed");
    }
    Whole::of(POOL)?.must_be(&before)
}

fn what_is_missing_or_in_the_way_is_named_and_nothing_is_changed() -> Result<()> {
    let machine = small_machine()?;
    let config = machine.config();

    let in_the_way = format!("{config}[[persist]]\npath = \"/etc/motd/below\"\n");
    let no_blank = config.replace("\"blank\"", "\"clean\"");
    let no_dataset = config.replace("local/root", "local/roof");
    let on_another = config.replace("tank/", "other/");
    create_pool("other", 64, &[])?;
    all_refused(&[
        (
            &in_the_way,
            "error: no volume was reset; all are as they were: /: the blank has a file at \
             \"etc/motd\", where persisted paths need a directory; change the blank or the \
             configuration\n",
        ),
        (
            &no_blank,
            "error: no volume was reset; all are as they were: /: the blank snapshot \
             tank/local/root@clean is missing; its snapshots are blank: name one of them\n",
        ),
        (
            &no_dataset,
            "error: no volume was reset; all are as they were: /: there is no dataset \
             tank/local/roof; imported are: other, tank; correct the name, or import the pool \
             that has it\n",
        ),
        (
            &on_another,
            "error: no volume was reset; all are as they were: /: there is no dataset \
             other/local/root; there is tank/local/root: correct the configuration\n",
        ),
    ])?;
    export("other")?;

    // A blank that is there, below the wrong name: a dataset and no snapshot.
    sh("zfs", &["create", "-o", "mountpoint=legacy", "tank/bare"])?;
    let bare = config.replace("tank/local/root", "tank/bare");
    // All that is wrong is told at once.
    let second = "[[volume]]\nmount_point = \"/home\"\nstrategy = \"rollback\"\n\
                  zfs = { dataset = \"tank/home\", blank = \"b\" }\n";
    all_refused(&[
        (
            &on_another,
            "error: no volume was reset; all are as they were: /: the pool \"other\" is not \
             imported; there is tank/local/root: correct the configuration\n",
        ),
        (
            &bare,
            "error: no volume was reset; all are as they were: /: the blank snapshot \
             tank/bare@blank is missing; the dataset has no snapshots: take one of an empty \
             root, or name another dataset\n",
        ),
        (
            &format!("{second}{no_blank}"),
            "error: no volume was reset; all are as they were: /home: there is no dataset \
             tank/home; imported are: tank; correct the name, or import the pool that has it\n\
             /: the blank snapshot tank/local/root@clean is missing; its snapshots are blank: \
             name one of them\n",
        ),
    ])
}

fn a_dataset_that_is_in_use_or_read_only_is_refused() -> Result<()> {
    let machine = small_machine()?;
    let expected = machine.expected()?;
    sh("mount", &["-t", "zfs", DATASET, "/mnt"])?;
    refused(
        &machine.config(),
        "error: no volume was reset; all are as they were: /: the dataset tank/local/root is \
         mounted at \"/mnt\"; a volume is reset before it is mounted: unmount it, or reboot\n",
    )?;
    sh("umount", &["/mnt"])?;

    // In somebody else's mount namespace, where our list of mounts does not show it.
    let mut other = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -r -t zfs tank/local/root /mnt && echo ready && read x",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut ready)?;
    assert_eq!(ready, "ready\n");
    refused(
        &machine.config(),
        "error: no volume was reset; all are as they were: /: cannot roll tank/local/root \
         back: it is in use (mounted, or being sent or received): unmount it, or reboot\n",
    )?;
    drop(other.stdin.take());
    other.wait()?;

    export(POOL)?;
    import(POOL, &["-o", "readonly=on"])?;
    refused(
        &machine.config(),
        "error: no volume was reset; all are as they were: /: cannot use tank: its pool is \
         imported read-only; export it and import it without readonly=on\n",
    )?;
    export(POOL)?;
    import(POOL, &[])?;
    reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn snapshots_that_are_not_ours_are_refused_unless_they_may_be_destroyed() -> Result<()> {
    let mut machine = small_machine()?;
    let expected = machine.expected()?;
    sh("zfs", &["bookmark", "tank/local/root@blank", "tank/local/root#of-the-blank"])?;
    sh("zfs", &["snapshot", "tank/local/root@mine"])?;
    sh("zfs", &["bookmark", "tank/local/root@mine", "tank/local/root#sent"])?;
    sh("zfs", &["snapshot", "tank/local/root@darlings-7"])?;
    let words = "error: no volume was reset; all are as they were: /: tank/local/root@mine, \
                 tank/local/root@darlings-7, tank/local/root#sent would be destroyed by a \
                 rollback to tank/local/root@blank, since ZFS destroys what is newer; destroy \
                 or send away what you do not need, or write newer_snapshots = \"destroy\"\n";
    refused(&machine.config(), words)?;

    machine.more.push_str(", newer_snapshots = \"destroy\"");
    sh("zfs", &["hold", "keep", "tank/local/root@mine"])?;
    refused(
        &machine.config(),
        "error: no volume was reset; all are as they were: /: cannot roll tank/local/root \
         back: tank/local/root@mine must be destroyed first and is held or mounted: release it \
         (`zfs holds` names the holds) or unmount it: Device or resource busy (os error 16)\n",
    )?;
    sh("zfs", &["release", "keep", "tank/local/root@mine"])?;
    sh("zfs", &["clone", "-o", "mountpoint=legacy", "tank/local/root@mine", "tank/clone"])?;
    refused(
        &machine.config(),
        "error: no volume was reset; all are as they were: /: cannot roll tank/local/root \
         back: tank/local/root@mine must be destroyed first and has clones: destroy or promote \
         them (`zfs get clones` names them): File exists (os error 17)\n",
    )?;
    sh("zfs", &["destroy", "tank/clone"])?;

    // Children and other datasets have snapshots of their own.
    sh("zfs", &["create", "-o", "mountpoint=legacy", "tank/local/root/child"])?;
    sh("zfs", &["snapshot", "tank/local/root/child@newer", "tank/local@newer"])?;
    let ran = reset(&machine.config(), &[])?.well()?;
    let plan = &ran.report.context("no report")?["volumes"][0]["steps"];
    let step = plan.as_array().unwrap().iter().find(|step| step["step"] == "roll_back");
    assert_eq!(
        step.unwrap()["destroys"],
        serde_json::json!([
            "tank/local/root@mine",
            "tank/local/root@darlings-7",
            "tank/local/root#sent"
        ])
    );
    let names = sh("zfs", &["list", "-Hr", "-t", "all", "-o", "name", "tank/local"])?;
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "tank/local",
            "tank/local/root",
            "tank/local/root#of-the-blank",
            "tank/local/root/child",
            "tank/local/root/child@newer",
            "tank/local/root@blank",
            "tank/local@newer",
        ]
    );
    assert_eq!(tree(DATASET)?.diff_lines(&expected), "");

    // Ours, of an earlier strategy, go without being asked, and are named; so does the number.
    machine.more.clear();
    sh("zfs", &["snapshot", "-o", "darlings:generation=41", "tank/local/root@darlings-41"])?;
    let ran = reset(&machine.config(), &[])?.well()?;
    assert_eq!(ran.report.context("no report")?["volumes"][0]["generation"], 42);
    assert_eq!(tree(DATASET)?.diff_lines(&expected), "");
    Ok(())
}

fn a_mark_without_its_stage_is_refused() -> Result<()> {
    let machine = small_machine()?;
    sh("zfs", &["set", &format!("{MARK}=7"), DATASET])?;
    let before = Whole::of(POOL)?;
    let ran = reset(&machine.config(), &[])?;
    let words = "error: not all volumes were reset: / is half reset, and what would complete it \
                 is gone or cannot be read (do not use it): /: tank/local/root was rolled back by reset 7 and \
                 tank/local/root/darlings-stage@darlings-7, which holds the persisted paths, is \
                 missing; find its content (a backup, `zpool history`), restore it, and run `zfs \
                 inherit darlings:rolled-back tank/local/root`\n";
    // 1 and not 10: what is rolled back must not be booted.
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), words));
    assert_eq!(ran.report.context("no report")?["outcome"], "unfinished");
    Whole::of(POOL)?.must_be(&before)
}

/// Has a user give an entry more extended attributes than the kernel lists.
fn give_many_attributes(entry: &Path) -> Result<()> {
    plant::owner(entry, 1000, 100)?;
    let names: Vec<_> = (0..400).map(|n| format!("user.{n:0200}=\"1\"\n")).collect();
    fs::write("/tmp/names", format!("# file: {}\n{}", entry.display(), names.concat()))?;
    let mut user = Command::new("setfattr");
    let status = user.arg("--restore=/tmp/names").uid(1000).gid(100).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// What is kept has too many attributes to be copied, and so has a directory above it.
fn a_reset_that_moves_instead_of_copying_is_completed_wherever_it_is_killed() -> Result<()> {
    let live = |live: &Path| {
        put(live, "home/mia/kept", "kept")?;
        plant::owner(&live.join("home/mia"), 1000, 100)?;
        give_many_attributes(&live.join("home/mia/kept"))
    };
    let blank = |blank: &Path| put(blank, "etc/motd", "of the blank");
    let machine = Machine::new(&[], blank, live)?.persist("home/mia/kept", &[]);
    let last = format!("user.{:0200}", 399);
    let mut killed = 0;
    for (call, stride) in [("ioctl", 5), ("/^rename", 1)] {
        for when in (1..).step_by(stride) {
            change(DATASET, |live| {
                give_many_attributes(&live.join("home/mia"))?;
                put(live, "etc/motd", "changed")?;
                put(live, "erased", "erased")
            })?;
            let (trace, inject) =
                (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
            let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let ran = reset_below(&strace, &machine.config(), &["--threads", "1"])?;
            let done = ran.report.is_some();
            if done {
                ran.well()?;
            } else {
                killed += 1;
                reset(&machine.config(), &[])?.well()?;
            }
            change(DATASET, |live| {
                let file = live.join("home/mia/kept");
                let words = ["--only-values", "-n", &last, file.to_str().context("UTF-8")?];
                assert_eq!(sh("getfattr", &words)?, "1", "{call} {when}");
                assert_eq!(fs::read_to_string(&file)?, "kept", "{call} {when}");
                assert_eq!(fs::read_to_string(live.join("etc/motd"))?, "of the blank");
                assert!(!live.join("erased").exists(), "{call} {when}");
                Ok(())
            })?;
            if done {
                break;
            }
        }
    }
    eprintln!("killed {killed} times");
    ensure!(killed > 20, "killed only {killed} times");
    sh("zpool", &["destroy", "-f", POOL])?;
    Ok(())
}

/// The owner of a kept file can make it so, and ZFS does not say what the names are.
fn a_file_with_more_attributes_than_can_be_listed_is_moved_and_nothing_copied() -> Result<()> {
    for stored in ["xattr=sa", "xattr=dir"] {
        let live = |live: &Path| {
            put(live, "etc/motd", "changed")?;
            put(live, "erased", "erased")?;
            put(live, "keep/file", "kept")?;
            put(live, "keep/other", "kept")?;
            give_many_attributes(&live.join("keep/file"))
        };
        let blank = |blank: &Path| put(blank, "etc/motd", "of the blank");
        let machine = Machine::new(&["-O", stored], blank, live)?.persist("keep", &[]);
        let last = format!("user.{:0200}", 399);
        let snapshots = || sh("zfs", &["list", "-Hr", "-t", "all", "-o", "name", DATASET]);
        // Each time, although nothing that is newer than the blank may be destroyed but what is ours.
        for number in [1, 2] {
            let ran = reset(&machine.config(), &[])?.well()?;
            let generation = format!("{DATASET}@darlings-{number}");
            let plan = &ran.report.context("no report")?["volumes"][0];
            let words = "this reset moves the persisted paths, as strategy = \"carry\" does, and \
                         none is lost: one of them cannot be copied: cannot bring over: \
                         \"keep/file\": cannot list extended attributes: it has more of them than \
                         the kernel lists (64 KiB of names): remove some, or put a copy without them \
                         in its place: Argument list too long (os error 7)";
            assert!(ran.stderr.contains(&format!("/: {words}\n")), "{}", ran.stderr);
            assert_eq!(plan["previous_state"], serde_json::json!(generation));
            let warnings = [
                format!(
                    "the next reset destroys {generation}, since a rollback destroys what is newer \
                     than the blank; strategy = \"carry\" keeps it"
                ),
                words.to_owned(),
            ];
            assert_eq!(plan["warnings"], serde_json::json!(warnings), "{stored}");
            assert_eq!(snapshots()?, format!("{DATASET}\n{DATASET}@blank\n{generation}"));
            change(DATASET, |live| {
                let file = live.join("keep/file");
                let words = ["--only-values", "-n", &last, file.to_str().context("UTF-8")?];
                assert_eq!(sh("getfattr", &words)?, "1", "{stored}");
                assert_eq!(fs::read_to_string(live.join("etc/motd"))?, "of the blank");
                assert!(!live.join("erased").exists());
                put(live, "erased", "again")
            })?;
        }
        change(DATASET, |live| {
            let (file, copy) = (live.join("keep/file"), live.join("keep/copy"));
            fs::copy(&file, &copy)?;
            Ok(fs::rename(copy, file)?)
        })?;
        let expected = machine.expected()?;
        let ran = reset(&machine.config(), &[])?.well()?;
        assert_eq!(ran.report.context("no report")?["volumes"][0]["generation"], 3);
        machine.must_be(&expected)?;
        sh("zpool", &["destroy", "-f", POOL])?;
    }
    Ok(())
}
