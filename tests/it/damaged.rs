//! What lies in `.darlings` or among the generations is damaged, half written, or a newer version's;
//! and two runs that begin at the same moment.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::common::directory::{Volume, on_both};
use crate::common::{self, Machine, Ran, put, strace};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{Filesystem, run};
use darlings_testkit::{Attribute, capability, capture, plant, skip_unless};
use rustix::fs::{FlockOperation, flock};

fn machine() -> Result<Machine> {
    let machine = Machine::new(
        |blank| put(blank, "etc/os-release", "of the blank"),
        |live| {
            put(live, "keep/file", "kept")?;
            put(live, "etc/erased", "erased")
        },
    )?;
    Ok(machine.persist("/keep", &[]))
}

/// Resets with something done to a call. It must have been made.
fn inject(machine: &Machine, call: &str, what: &str, when: u32) -> Result<Ran> {
    let log = machine.beside("strace");
    let mut command = strace::injected(&log, call, what, when);
    command.args(["reset", "--threads", "1"]).args(machine.arguments(machine.config())?);
    let ran = machine.ran(&mut command)?;
    ensure!(strace::happened(&log)?, "{call} {when} was never made: {}", ran.stderr);
    Ok(ran)
}

/// The calls of one kind that a reset makes, on a machine like it.
fn calls(machine: &Machine, kind: &str) -> Result<Vec<strace::Call>> {
    let log = machine.beside("strace");
    let mut command = strace::traced(&log, &[kind]);
    command.args(["reset", "--threads", "1"]).args(machine.arguments(machine.config())?);
    let ran = machine.ran(&mut command)?;
    ensure!(ran.code == Some(0), "{}", ran.stderr);
    strace::calls(&log)
}

#[test]
fn a_manifest_of_a_newer_version_is_refused_and_nothing_is_changed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    machine.reset_well()?;
    put(&machine.volume.live(), ".darlings/manifest", "{\"version\":2,\"kept\":[]}")?;
    let before = machine.whole()?;
    let ran = machine.reset()?;
    assert_eq!(ran.code, Some(10));
    let last = ran.stderr.lines().last().context("nothing was said")?;
    assert_eq!(
        last,
        "error: no volume was reset; all are as they were: /: .darlings/manifest has format 2, which \
         a newer darlings has written, and this one knows none above 1: put the newer one into the \
         initrd, or boot the one that has it"
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

/// A machine whose root is immutable, which a generation of it must be too.
fn sealed_machine() -> Result<Machine> {
    let machine = machine()?;
    plant::flag(&machine.volume.live(), Attribute::Immutable)?;
    Ok(machine)
}

#[test]
fn a_generation_that_was_being_sealed_when_the_run_was_killed_is_sealed_by_the_next() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let twin = sealed_machine()?;
    let all = calls(&twin, "ioctl")?;
    twin.close()?;
    let last = u32::try_from(all.len())?;
    let mut writable = 0;
    for when in last - 12..=last {
        let machine = sealed_machine()?;
        inject(&machine, "ioctl", "signal=SIGKILL", when)?;
        let context = || format!("killed at ioctl {when} of {last}");
        let named = machine.at("@darlings/root/1");
        let sealed = common::subvolumes_of(machine.volume.fs.path(), &["-r"])?;
        writable += usize::from(named.exists() && !sealed.contains_key("@darlings/root/1"));
        machine.reset_well().with_context(context)?;
        let read_only =
            run(Command::new("btrfs").args(["property", "get", "-ts"]).arg(&named).arg("ro"))?;
        ensure!(read_only.trim() == "ro=true", "{}: generation 1 can be written to", context());
        let root = capture(&named)?.at(".").unwrap().clone();
        let immutable = root.flags.attributes().any(|it| it == Attribute::Immutable);
        ensure!(immutable, "{}: generation 1 is no longer immutable", context());
        let mut left = machine.kept()?;
        left.retain(|name| !["1", "2"].contains(&name.as_str()));
        ensure!(left.is_empty(), "{}: left {left:?}", context());
        machine.close()?;
    }
    assert!(writable > 0, "none was killed where it matters");
    Ok(())
}

#[test]
fn two_first_runs_at_once_do_not_both_begin() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    assert!(!machine.at("@darlings").exists());
    // What the other one holds before it has made the directory of the generations.
    let other = std::fs::File::open(machine.volume.live())?;
    flock(&other, FlockOperation::NonBlockingLockExclusive)?;
    let ran = machine.reset()?;
    assert_eq!(ran.code, Some(10));
    let last = ran.stderr.lines().last().context("nothing was said")?;
    assert_eq!(
        last,
        "error: no volume was reset; all are as they were: /: another run is at work in \"@\"; wait \
         for it"
    );
    assert!(!machine.at("@darlings").exists());
    drop(other);
    machine.reset_well()?;
    machine.close()
}

#[test]
fn where_only_tidying_up_fails_the_machine_boots_whatever_on_failure_says_but_not_once_it_was_used()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let twin = machine()?;
    let naming = calls(&twin, "renameat2")?.len();
    twin.close()?;
    let mut machine = machine()?;
    machine.head = "on_failure = \"emergency\"\n".to_owned();
    // The last rename names the generation.
    let ran = inject(&machine, "renameat2", "error=EIO", u32::try_from(naming)?)?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert!(!machine.at("@/etc/erased").exists());
    // The next boot: the machine was used, and what it was used for would not be erased.
    let again = inject(&machine, "renameat2", "error=EIO", 1)?;
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    machine.reset_well()?;
    machine.close()
}

/// What a crash of a filesystem can leave of a small file.
const DAMAGED: [&str; 3] = ["", "\0\0\0\0", "{\"version\":1,\"gener"];

#[test]
fn a_counter_or_a_manifest_that_is_damaged_is_made_anew_and_no_number_is_used_twice() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["rollback", "carry"] {
        let mut machine = machine()?;
        strategy.clone_into(&mut machine.strategy);
        machine.reset_well()?;
        machine.reset_well()?;
        let mut number = 2;
        let live = machine.volume.live();
        for files in [&["generation"][..], &["manifest"], &["generation", "manifest"]] {
            for damaged in DAMAGED {
                for file in files {
                    put(&live, &format!(".darlings/{file}"), damaged)?;
                }
                put(&live, "etc/erased", "erased")?;
                machine.reset_well().with_context(|| format!("{files:?}: {damaged:?}"))?;
                number += 1;
                let counter = std::fs::read_to_string(live.join(".darlings/generation"))?;
                assert_eq!(counter, format!("{number}\n"));
                assert_eq!(std::fs::read_to_string(live.join("keep/file"))?, "kept");
                assert!(!live.join("etc/erased").exists());
                assert!(!live.join(".darlings/attic").exists());
            }
        }
        let mut kept: Vec<u64> =
            machine.kept()?.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        kept.sort_unstable();
        assert_eq!(kept, (1..=number).collect::<Vec<_>>());
        machine.close()?;
    }
    Ok(())
}

#[test]
fn with_a_damaged_manifest_what_is_no_longer_declared_goes_with_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?.persist("/formerly", &[]);
    put(&machine.volume.live(), "formerly/file", "kept")?;
    machine.reset_well()?;
    machine.rules.pop();
    put(&machine.volume.live(), ".darlings/manifest", "")?;
    let ran = machine.reset()?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let warning = "warning: .darlings/manifest is damaged: nothing is known of what was persisted at that \
                   reset: EOF while parsing a value at line 1 column 0; what is no longer persisted goes \
                   with the generation, not to the attic\n";
    assert_eq!(ran.stderr.matches(warning).count(), 1, "{}", ran.stderr);
    assert!(!machine.at("@/formerly").exists() && !machine.at("@/.darlings/attic").exists());
    let text = std::fs::read_to_string(machine.at("@darlings/root/2/formerly/file"))?;
    assert_eq!(text, "kept");
    machine.close()
}

#[test]
fn where_nothing_says_whether_the_exchange_was_made_nothing_is_removed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    machine.reset_well()?;
    // Killed at the rename that follows the exchange: it gives the generation its name.
    let twin = self::machine()?;
    twin.reset_well()?;
    let naming = u32::try_from(calls(&twin, "renameat2")?.len())?;
    twin.close()?;
    inject(&machine, "renameat2", "signal=SIGKILL", naming)?;
    assert_eq!(machine.kept()?, ["1", "ready-2"]);
    for file in ["generation", "manifest"] {
        put(&machine.volume.live(), &format!(".darlings/{file}"), "")?;
    }
    let before = machine.whole()?;
    let words = "the generation and manifest in .darlings of \"@\" are damaged, so that \
                 \"@darlings/root/ready-2\" may be its previous state, or a result that never became \
                 live; nothing was changed: write 2 into .darlings/generation if \"@\" was reset, and \
                 a lower number if it was not";
    let ran = machine.reset()?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    let last = format!("error: no volume was reset; all are as they were: /: {words}");
    assert_eq!(ran.stderr.lines().last(), Some(last.as_str()));
    assert_eq!(machine.whole()?.differences(&before), "");
    put(&machine.volume.live(), ".darlings/generation", "2")?;
    machine.reset_well()?;
    assert_eq!(machine.kept()?, ["1", "2"]);
    machine.close()
}

/// What root can do by mistake to a directory of the tool's own. Nothing of it is worth a boot without
/// a reset, and `check` knows that: the helpers compare the two.
fn damage(own: &Path, number: usize) -> Result<bool> {
    let instead_of = |name: &str| -> Result<()> {
        let at = own.join(name);
        if at.exists() { Ok(std::fs::rename(&at, own.join("elsewhere"))?) } else { Ok(()) }
    };
    match number {
        0 => plant::flag(&own.join("generation"), Attribute::Immutable)?,
        1 => plant::flag(&own.join("manifest"), Attribute::AppendOnly)?,
        2 => put(own, "new/file", "root's")?,
        3 => {
            put(own, "new", "half written")?;
            plant::flag(&own.join("new"), Attribute::Immutable)?;
        }
        4 | 5 => {
            let home = if own.join("generations").exists() { "generations" } else { "trash" };
            instead_of(home)?;
            if number == 4 { put(own, home, "root's")? } else { symlink("/", own.join(home))? }
        }
        6 => {
            let home = if own.join("generations").exists() { "generations" } else { "trash" };
            std::fs::create_dir_all(own.join(home))?;
            plant::flag(&own.join(home), Attribute::Immutable)?;
        }
        7 => {
            std::fs::create_dir_all(own.join("attic"))?;
            plant::flag(&own.join("attic"), Attribute::Immutable)?;
        }
        8 => {
            instead_of("attic")?;
            put(own, "attic", "root's")?;
        }
        9 => put(own, "reset", "root's")?,
        10 => plant::flag(own, Attribute::Immutable)?,
        _ => return Ok(false),
    }
    Ok(true)
}

#[test]
fn whatever_root_did_to_the_tools_own_directory_of_a_subvolume_it_is_reset() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["rollback", "carry"] {
        for number in 0.. {
            let mut machine = machine()?.persist("/formerly", &[]);
            strategy.clone_into(&mut machine.strategy);
            let live = machine.volume.live();
            put(&live, "formerly/file", "kept")?;
            machine.reset_well()?;
            put(&live, "etc/erased", "erased")?;
            // Into the attic.
            machine.rules.pop();
            if !damage(&live.join(".darlings"), number)? {
                break;
            }
            machine.reset_well().with_context(|| format!("{strategy}, damage {number}"))?;
            assert_eq!(std::fs::read_to_string(live.join("keep/file"))?, "kept");
            assert_eq!(
                std::fs::read_to_string(live.join(".darlings/attic/2/formerly/file"))?,
                "kept"
            );
            assert!(!live.join("etc/erased").exists());
            machine.reset_well()?;
            assert_eq!(machine.kept()?, ["1", "2", "3"]);
            machine.close()?;
        }
    }
    Ok(())
}

#[test]
fn whatever_root_did_to_the_tools_own_directory_in_a_directory_it_is_reset() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        for number in 0.. {
            let (volume, expected) = Volume::experienced(filesystem)?;
            if !damage(&volume.live().join(".darlings"), number)? {
                return volume.close();
            }
            volume.reset().with_context(|| format!("damage {number}"))?;
            // What would have come back was moved elsewhere.
            if number != 8 {
                assert_eq!(volume.tree()?.diff_lines(&expected), "", "damage {number}");
            }
            let generation = volume.live().join(".darlings/generations/3/root/clutter/file");
            assert_eq!(std::fs::read_to_string(generation)?, "erased");
            volume.reset()?;
            volume.close()?;
        }
        Ok(())
    })
}

fn subvolume(at: &Path) -> Result<()> {
    run(Command::new("btrfs").args(["subvolume", "create"]).arg(at)).map(drop)
}

#[test]
fn subvolumes_in_the_tools_own_directory_are_in_no_way_or_known_before_a_reset_begins() -> Result<()>
{
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["rollback", "carry"] {
        let mut machine = machine()?.persist("/formerly", &[]);
        strategy.clone_into(&mut machine.strategy);
        let live = machine.volume.live();
        put(&live, "formerly/file", "kept")?;
        machine.reset_well()?;
        let trash = live.join(".darlings/trash");
        if trash.exists() {
            std::fs::rename(&trash, live.join(".darlings/elsewhere"))?;
        }
        subvolume(&live.join(".darlings/trash"))?;
        subvolume(&live.join(".darlings/reset"))?;
        put(&live, ".darlings/trash/1/file", "trash")?;
        machine.reset_well()?;
        assert!(!live.join(".darlings/trash/1").exists());
        // As it comes, and with something to put into it.
        subvolume(&live.join(".darlings/attic"))?;
        machine.reset_well()?;
        machine.rules.pop();
        let ran = machine.reset()?;
        assert_eq!(ran.code, Some(10), "{}", ran.stderr);
        let words = "/: \".darlings/attic\" in \"@\" is a subvolume, into which nothing that is no longer \
                     persisted can be put; put a directory in its place\n";
        assert!(ran.stderr.ends_with(words), "{}", ran.stderr);
        std::fs::remove_dir(live.join(".darlings/attic"))?;
        machine.reset_well()?;
        assert_eq!(std::fs::read_to_string(live.join(".darlings/attic/4/formerly/file"))?, "kept");
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_directory_is_not_reset_into_a_subvolume_of_its_own_and_goes_on_whatever_root_did_meanwhile()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Btrfs)?;
    volume.reset()?;
    for name in ["generations", "attic"] {
        let at = volume.live().join(".darlings").join(name);
        let elsewhere = volume.fs.path().join(name);
        if at.exists() {
            std::fs::rename(&at, &elsewhere)?;
        }
        subvolume(&at)?;
        let ran = volume.run(&[])?;
        assert_eq!(ran.code, Some(10), "{}", ran.stderr);
        let words = format!(
            "/: .darlings/{name}/1 lies in the subvolume .darlings/{name}, out of which and into \
             which nothing can be moved; put a directory in its place, or configure the volume with \
             `btrfs` instead of `dir`\n"
        );
        assert!(ran.stderr.ends_with(&words), "{}", ran.stderr);
        std::fs::remove_dir(&at)?;
        if elsewhere.exists() {
            std::fs::rename(elsewhere, at)?;
        }
    }
    volume.reset()?;
    volume.close()?;
    // Interrupted when everything is moved and nothing of it written down: then the manifest, the counter
    // and both copies of the journal are renamed.
    let (twin, _) = Volume::experienced(Filesystem::Ext4)?;
    let renames = twin.points()?.iter().filter(|(call, _)| call == "renameat").count();
    twin.close()?;
    for number in [0, 1, 4, 6, 7, 10] {
        let (volume, expected) = Volume::experienced(Filesystem::Ext4)?;
        volume.inject("renameat", "signal=SIGKILL", u32::try_from(renames)? - 3)?;
        let own = volume.live().join(".darlings");
        assert!(own.join("reset/journal").exists());
        assert!(damage(&own, number)?);
        volume.reset().with_context(|| format!("damage {number}"))?;
        assert_eq!(volume.tree()?.diff_lines(&expected), "", "damage {number}");
        volume.close()?;
    }
    Ok(())
}

#[test]
fn whatever_root_did_beside_the_generations_the_subvolume_is_reset() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["rollback", "carry"] {
        let mut machine = machine()?;
        strategy.clone_into(&mut machine.strategy);
        machine.reset_well()?;
        let own = machine.at("@darlings/root/.darlings");
        let read_only = |at: &Path| -> Result<()> {
            run(Command::new("btrfs").args(["property", "set", "-ts"]).arg(at).args(["ro", "true"]))
                .map(drop)
        };
        plant::flag(&own.join("record"), Attribute::Immutable)?;
        machine.reset_well().context("an immutable record")?;
        plant::flag(&own, Attribute::Immutable)?;
        machine.reset_well().context("an immutable directory")?;
        put(&own, "new/file", "root's")?;
        machine.reset_well().context("a directory in place of the new record")?;
        for inner in ["", "inner", "inner/below", "directory/below"] {
            let at = own.join("next").join(inner);
            std::fs::create_dir_all(at.parent().context("no parent")?)?;
            subvolume(&at)?;
        }
        read_only(&own.join("next/inner/below"))?;
        read_only(&own.join("next/inner"))?;
        machine.reset_well().context("subvolumes nested in a stage")?;
        let record = std::fs::read(own.join("record"))?;
        std::fs::remove_dir_all(&own)?;
        subvolume(&own)?;
        std::fs::write(own.join("record"), record)?;
        subvolume(&own.join("next"))?;
        read_only(&own)?;
        machine.reset_well().context("a read-only subvolume")?;
        assert_eq!(machine.kept()?, ["1", "2", "3", "4", "5", "6"]);
        machine.close()?;
    }
    Ok(())
}
