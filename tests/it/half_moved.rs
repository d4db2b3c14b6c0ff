//! A volume that is reset in place, whose run was interrupted, and that was booted and used half
//! moved all the same: the next run still completes it, nothing that was written meanwhile is lost,
//! and what the reset had begun as is what it ends as.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::common::{self, directory, put, quoted};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::{capability, capture, plant, skip_unless};

/// Kept paths; the first one leaves out `a/.cache`.
const KEPT: [&str; 5] = ["keep", "keep/a/.cache/inner/kept", "etc/id", "var/log", "single"];

struct Volume {
    fs: LoopFs,
}

impl Volume {
    fn new() -> Result<Self> {
        let fs = LoopFs::new(Filesystem::Ext4)?;
        let (blank, live) = (fs.path().join("blank"), fs.path().join("live"));
        std::fs::create_dir(&blank)?;
        std::fs::create_dir(&live)?;
        put(&blank, "etc/os-release", "of the blank")?;
        put(&blank, "keep/a/.cache/of-the-blank", "of the blank")?;
        plant::mode(&blank, 0o751)?;
        plant::xattr(&blank, "user.of", b"the blank")?;
        put(&live, "keep/file", "kept")?;
        put(&live, "keep/a/.cache/erased", "erased")?;
        put(&live, "keep/a/.cache/inner/kept", "kept")?;
        put(&live, "etc/id", "kept")?;
        put(&live, "var/log/file", "kept")?;
        put(&live, "single", "kept")?;
        put(&live, "clutter/file", "erased")?;
        Ok(Self { fs })
    }

    fn live(&self) -> PathBuf {
        self.fs.path().join("live")
    }

    /// Resets, in a `/run` of its own, with a program around it.
    fn reset(&self, wrapper: &[&str]) -> Result<(Option<i32>, String)> {
        self.run(wrapper, &["reset", "--threads", "1"])
    }

    fn run(&self, wrapper: &[&str], arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let at = self.fs.holder().join("darlings.toml");
        let path = |name: &str| quoted(&self.fs.path().join(name).display().to_string());
        let mut config = format!(
            "[[volume]]\nmount_point = \"/\"\ndir = {{ path = {}, blank = {} }}\n",
            path("live"),
            path("blank")
        );
        for kept in KEPT {
            let exclude = if kept == "keep" { "\"a/.cache\"" } else { "" };
            writeln!(config, "[[persist]]\npath = \"/{kept}\"\nexclude = [{exclude}]")?;
        }
        std::fs::write(&at, config)?;
        let ran = directory::ran(directory::command(wrapper, arguments, &at))?;
        Ok((ran.code, ran.stderr))
    }

    /// Kills a reset at the `when`th call of a kind. Tells whether it made so many.
    fn kill(&self, call: &str, when: usize) -> Result<bool> {
        let (trace, inject) =
            (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
        let (code, _) =
            self.reset(&["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject])?;
        Ok(code != Some(0))
    }

    fn reset_well(&self) -> Result<String> {
        let (code, stderr) = self.reset(&[])?;
        ensure!(code == Some(0), "{code:?}: {stderr}");
        Ok(stderr)
    }

    fn close(self) -> Result<()> {
        self.fs.close()
    }
}

/// The text of every file at and below a directory.
fn texts(at: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(at)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            texts(&entry.path(), found)?;
        } else {
            found.push(std::fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

/// The attic and all that is not the tool's own: what neither a purge nor a reset removes.
fn safe_texts(live: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(live)? {
        let path = entry?.path();
        if path.ends_with(".darlings") {
            let attic = path.join("attic");
            if attic.is_dir() {
                texts(&attic, &mut found)?;
            }
        } else if path.is_dir() {
            texts(&path, &mut found)?;
        } else {
            found.push(std::fs::read_to_string(path)?);
        }
    }
    Ok(found)
}

/// Kills at every rename of a reset, lets `meanwhile` use the volume, resets, and checks.
fn half_moved_at_every_rename(
    meanwhile: impl Fn(&Path) -> Result<()>,
    check: impl Fn(&Path, &str) -> Result<()>,
) -> Result<()> {
    let mut killed = 0;
    // Of the moves, and of what notes how many were made.
    let mut at = ("renameat2", 1);
    loop {
        let (call, when) = at;
        let volume = Volume::new()?;
        let context = || format!("killed at {call} {when}");
        if !volume.kill(call, when)? {
            volume.close()?;
            if call == "renameat" {
                break;
            }
            at = ("renameat", 1);
            continue;
        }
        at = (call, when + 1);
        killed += 1;
        let live = volume.live();
        meanwhile(&live).with_context(context)?;
        let said = volume.reset_well().with_context(context)?;
        check(&live, &said).with_context(|| format!("{}:\n{said}", context()))?;
        let left: Vec<_> = std::fs::read_dir(live.join(".darlings"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        ensure!(!left.contains(&"reset".to_owned()), "{}: {left:?}", context());
        // And the one after it is a reset like any other.
        put(&live, "clutter/again", "erased")?;
        volume.reset_well().with_context(context)?;
        ensure!(!live.join("clutter").exists(), "{}: it was not reset again", context());
        volume.close()?;
    }
    assert!(killed > 20, "it made only {killed} renames");
    Ok(())
}

#[test]
fn what_is_written_to_kept_paths_of_a_half_moved_volume_is_never_lost() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let written = |path: &str| format!("written to {path} meanwhile");
    let meanwhile = |live: &Path| -> Result<()> {
        for kept in ["keep/file", "keep/a/.cache/inner/kept", "etc/id", "var/log/file", "single"] {
            // As editors do: what was there is replaced, so it is not lost by being moved back.
            let beside = format!("{kept}.new");
            put(live, &beside, &written(kept))?;
        }
        for kept in ["keep/file", "etc/id", "var/log/file", "single"] {
            if !live.join(kept).exists() {
                put(live, kept, &written(&format!("{kept} made again")))?;
            }
        }
        put(live, "keep/a/.cache/made-again", "erased")
    };
    let check = |live: &Path, _: &str| -> Result<()> {
        let safe = safe_texts(live)?;
        // Beside a kept path is not kept, inside one is.
        for kept in ["keep/file", "var/log/file"] {
            ensure!(safe.contains(&written(kept)), "{kept} is lost: {safe:?}");
        }
        ensure!(safe.iter().filter(|text| *text == "kept").count() == 5, "{safe:?}");
        Ok(())
    };
    half_moved_at_every_rename(meanwhile, check)
}

#[test]
fn what_is_removed_from_a_half_moved_volume_does_not_stop_the_next_run() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let meanwhile = |live: &Path| -> Result<()> {
        for gone in ["etc", "var", "keep", "single"] {
            let gone = live.join(gone);
            if gone.is_dir() {
                std::fs::remove_dir_all(gone)?;
            } else {
                common::remove_if_there(&gone)?;
            }
        }
        Ok(())
    };
    half_moved_at_every_rename(meanwhile, |_, _| Ok(()))
}

#[test]
fn what_is_made_again_in_place_of_a_kept_path_goes_to_the_attic_and_is_told() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new()?;
    // Everything is gathered, and nothing exchanged yet: see the rename that is killed.
    let gathered = (1..100)
        .find(|when| {
            let twin = Volume::new().unwrap();
            let killed = twin.kill("renameat2", *when).unwrap();
            let is = twin.live().join(".darlings/reset/gathered").exists();
            twin.close().unwrap();
            assert!(killed, "it was never gathered");
            is
        })
        .unwrap();
    assert!(volume.kill("renameat2", gathered)?);
    let live = volume.live();
    put(&live, "var/log/file", "written meanwhile")?;
    put(&live, "var/log/other", "written meanwhile")?;
    let said = volume.reset_well()?;
    let warning = "warning: var/log was written to while the volume was half moved: that is put \
                   into the attic\n";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert_eq!(std::fs::read_to_string(live.join("var/log/file"))?, "kept");
    let attic = live.join(".darlings/attic/1/var/log");
    for name in ["file", "other"] {
        assert_eq!(std::fs::read_to_string(attic.join(name))?, "written meanwhile");
    }
    // It is not what was no longer declared: it does not come back by itself.
    std::fs::remove_dir_all(live.join("var/log"))?;
    volume.reset_well()?;
    assert!(!live.join("var/log").exists());
    assert!(attic.join("file").exists());
    volume.close()
}

#[test]
fn an_interrupted_reset_gives_the_root_the_attributes_that_the_blank_had_when_it_began()
-> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new()?;
    let expected = capture(&volume.fs.path().join("blank"))?;
    assert!(volume.kill("renameat2", 5)?);
    let blank = volume.fs.path().join("blank");
    plant::mode(&blank, 0o700)?;
    plant::xattr(&blank, "user.of", b"another blank")?;
    volume.reset_well()?;
    let result = capture(&volume.live())?;
    let root = |tree: &darlings_testkit::Tree| tree.at(".").unwrap().clone();
    assert_eq!(root(&result).mode, root(&expected).mode);
    assert_eq!(root(&result).xattrs, root(&expected).xattrs);
    volume.close()
}

#[test]
fn a_generation_of_a_directory_whose_manifest_is_damaged_is_told_and_the_others_are_listed()
-> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new()?;
    for _ in 0..3 {
        volume.reset_well()?;
    }
    let damaged = "live/.darlings/generations/2/manifest";
    put(volume.fs.path(), damaged, "{\"version\":1,\"gener")?;
    let (code, said) = volume.run(&[], &["generations"])?;
    assert_eq!(code, Some(0), "{said}");
    let generation = volume.live().join(".darlings/generations/2").display().to_string();
    let warning = format!(
        "warning: {generation}: the manifest of generation 2 is damaged: nothing is known of what \
         was persisted at that reset: EOF while parsing a string at line 1 column 19\n"
    );
    assert_eq!(said, warning);
    volume.close()
}

/// Volumes whose reset was killed at one of so many of its renames, with what was killed.
fn killed_at_each_rename(mut each: impl FnMut(Volume, &str) -> Result<()>) -> Result<()> {
    for call in ["renameat2", "renameat"] {
        for when in (1..).step_by(common::strace::stride(2)?) {
            let volume = Volume::new()?;
            if !volume.kill(call, when)? {
                ensure!(when > 3, "{call} was made only {when} times");
                volume.close()?;
                break;
            }
            each(volume, &format!("killed at {call} {when}"))?;
        }
    }
    Ok(())
}

/// The copies of the journal that are there.
fn journals(live: &Path) -> Vec<PathBuf> {
    let names = ["journal", "journal.copy", "complete", "complete.copy"];
    let paths = names.map(|name| live.join(".darlings/reset").join(name));
    paths.into_iter().filter(|path| path.exists()).collect()
}

fn remove(journal: &Path) -> Result<()> {
    Ok(std::fs::remove_file(journal)?)
}

fn damage(journal: &Path) -> Result<()> {
    Ok(std::fs::File::options().write(true).open(journal)?.set_len(100)?)
}

fn is_kept(live: &Path) -> Result<()> {
    for path in ["keep/file", "keep/a/.cache/inner/kept", "etc/id", "var/log/file", "single"] {
        let text = std::fs::read_to_string(live.join(path)).with_context(|| path.to_owned())?;
        ensure!(text == "kept", "{path}: {text}");
    }
    Ok(())
}

#[test]
fn with_one_copy_of_its_journal_damaged_or_gone_a_half_moved_volume_is_completed() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let mut tried = 0;
    // Each kill with two of the four.
    for first in 0..2 {
        killed_at_each_rename(|volume, context| {
            let live = volume.live();
            let there = journals(&live);
            if let [_, _] = &there[..] {
                let harm = if tried / 2 % 2 == 0 { damage } else { remove };
                harm(&there[(tried + first) % 2])?;
                tried += 1;
            }
            volume.reset_well().with_context(|| context.to_owned())?;
            is_kept(&live).with_context(|| format!("{context}, the {tried}th"))?;
            ensure!(!live.join("clutter").exists(), "{context}: not completed");
            ensure!(!live.join(".darlings/reset").exists(), "{context}: not tidied up");
            volume.close()
        })?;
    }
    assert!(tried > 15, "only {tried}");
    Ok(())
}

/// Does what the words of the error say: moves what is kept to its place.
fn put_back_by_hand(live: &Path) -> Result<()> {
    let work = live.join(".darlings/reset");
    let inner = ("1/.cache/inner/kept", "keep/a/.cache/inner/kept");
    let outer = KEPT.iter().filter(|path| !path.contains(".cache"));
    let outer: Vec<_> = outer.map(|path| (format!("0/{path}"), (*path).to_owned())).collect();
    for (from, to) in outer.into_iter().chain([(inner.0.to_owned(), inner.1.to_owned())]) {
        let (from, to) = (work.join(from), live.join(to));
        if from.exists() && !to.exists() {
            std::fs::create_dir_all(to.parent().context("no parent")?)?;
            std::fs::rename(from, to)?;
        }
    }
    Ok(())
}

#[test]
fn without_its_journal_a_half_moved_volume_is_refused_by_all_commands_and_what_they_say_works()
-> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let (mut tried, mut fresh) = (0, 0);
    for harm in [damage, remove] {
        killed_at_each_rename(|volume, context| {
            let live = volume.live();
            let there = journals(&live);
            there.iter().try_for_each(|journal| harm(journal))?;
            let gone = there.iter().all(|journal| !journal.exists());
            let work = live.join(".darlings/reset");
            let names = if work.exists() { directory::names(&work, &[])? } else { Vec::new() };
            let begun = |name: &String| name == "gathered" || name.starts_with("moved-");
            if gone && !names.iter().any(begun) {
                // Nothing was moved yet, or nothing is left to move.
                volume.reset_well().with_context(|| context.to_owned())?;
                is_kept(&live).with_context(|| context.to_owned())?;
                fresh += 1;
                return volume.close();
            }
            let before = capture(volume.fs.path())?;
            let off = volume.fs.holder().join("cmdline").display().to_string();
            std::fs::write(&off, "darlings=off\n")?;
            for (arguments, expected) in [
                (&["reset", "--threads", "1"][..], 1),
                (&["reset", "--threads", "1", "--cmdline", &off][..], 1),
                (&["check"][..], 1),
                (&["purge"][..], 1),
                (&["status"][..], 1),
            ] {
                let (code, said) = volume.run(&[], arguments)?;
                ensure!(code == Some(expected), "{context}: {arguments:?}: {code:?}: {said}");
                let now = capture(volume.fs.path())?;
                ensure!(now.diff_lines(&before).is_empty(), "{context}: {arguments:?}: {said}");
                ensure!(!said.contains("completes it"), "{context}: {said}");
            }
            put_back_by_hand(&live).with_context(|| context.to_owned())?;
            std::fs::rename(&work, volume.fs.path().join("rescued"))?;
            volume.reset_well().with_context(|| context.to_owned())?;
            is_kept(&live).with_context(|| format!("{context}, by hand"))?;
            tried += 1;
            volume.close()
        })?;
    }
    assert!(tried > 15 && fresh > 1, "{tried} and {fresh}");
    Ok(())
}
