//! A pool without room: the reset is refused or undone, at whatever moment it comes out, and the
//! volume is what it was.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::machine::{Machine, Strategy, reset};
use crate::pools::{DATASET, MIB, POOL, Whole, create_pool, large_file, property, put, sh};

/// What is kept, in MiB, in a pool that copies every block.
const KEPT: u64 = 8;

/// What is left where a reset begins, in MiB, and fails for want of more.
const SCARCE: u64 = 6;

const NO_ROOM: &str = "error: no volume was reset; all are as they were: /: there is no room for a reset, \
                       with # MiB left: remove what is not needed, `darlings purge` perhaps, or raise the \
                       quota";

pub(crate) fn a_pool_or_quota_that_is_full_at_any_moment_leaves_all_as_it_was() -> Result<()> {
    create_pool(POOL, 96, &["-o", "feature@block_cloning=disabled"])?;
    let blank = |blank: &Path| put(blank, "etc/motd", "of the blank");
    let live = |live: &Path| {
        put(live, "etc/motd", "changed")?;
        fs::create_dir(live.join("keep"))?;
        (0..KEPT).try_for_each(|number| large_file(&live.join(format!("keep/{number}")), 1))
    };
    let machine = Machine::in_pool(&[], blank, live)?.persist("keep", &[]);
    sh("zpool", &["sync", POOL])?;

    let quota = |left: u64| {
        sh("zfs", &["set", &format!("quota={}", (KEPT + left) * MIB), "tank/local"]).map(drop)
    };
    quota(2)?;
    fails_and_changes_nothing(&machine, NO_ROOM)?;
    quota(SCARCE)?;
    fails_while_the_stage_is_filled(&machine, "Disk quota exceeded")?;
    sh("zfs", &["set", "quota=none", "tank/local"])?;

    // The rest is promised to another dataset.
    sh("zfs", &["create", "tank/promised"])?;
    leave(2)?;
    fails_and_changes_nothing(&machine, NO_ROOM)?;
    leave(SCARCE)?;
    fails_while_the_stage_is_filled(&machine, "No space left on device")?;
    leave(2 * KEPT + 1)?;
    fails_and_changes_nothing(
        &machine,
        "error: no volume was reset; all are as they were: /: cannot make it durable as \
         tank/local/root/darlings-stage@darlings-#: tank/local/root has # MiB left and filling it \
         again may take # MiB: destroy snapshots that are not needed, remove files, or raise the \
         quota",
    )?;

    // The remedy that is named helps.
    sh("zfs", &["destroy", "tank/promised"])?;
    machine.reset_and_compare().map(drop)
}

/// Where every block is copied, and where cloned ones count, `check` says so before a reset tries.
pub(crate) fn a_blank_larger_than_what_is_free_is_not_ready() -> Result<()> {
    for (limit, cloning, errno) in [
        ("reservation", "disabled", "No space left on device"),
        ("quota", "enabled", "Disk quota exceeded"),
        ("refquota", "enabled", "Disk quota exceeded"),
    ] {
        create_pool(POOL, 128, &["-o", &format!("feature@block_cloning={cloning}")])?;
        let blank = |blank: &Path| large_file(&blank.join("large"), 12);
        let live = |live: &Path| put(live, "keep/file", "kept");
        let machine = Machine::in_pool(&[], blank, live)?.persist("keep", &[]).by(Strategy::Carry);
        sh("zpool", &["sync", POOL])?;
        if limit == "reservation" {
            sh("zfs", &["create", "tank/promised"])?;
            leave(SCARCE)?;
        } else {
            sh("zfs", &["set", &format!("{limit}={}", (12 + SCARCE) * MIB), DATASET])?;
        }
        // At which call a quota comes out is up to ZFS.
        let error = failure_that_changes_nothing(&machine).with_context(|| limit)?;
        let cannot = "error: no volume was reset; all are as they were: /: cannot lay the content of \
                      tank/local/root@blank beside the old one in the live volume: ";
        let errno = format!(": {errno} (os error #)");
        assert!(error.starts_with(cannot) && error.ends_with(&errno), "{limit}: {error}");
        if limit == "reservation" {
            sh("zfs", &["destroy", "tank/promised"])?;
        } else {
            sh("zfs", &["set", &format!("{limit}=none"), DATASET])?;
        }
        machine.reset_and_compare()?;
        sh("zpool", &["destroy", "-f", POOL])?;
    }
    Ok(())
}

/// Where blocks are cloned, little room is enough, and `check` knows that.
pub(crate) fn what_is_cloned_needs_no_room() -> Result<()> {
    for strategy in [Strategy::Rollback, Strategy::Carry] {
        create_pool(POOL, 128, &[])?;
        let blank = |blank: &Path| large_file(&blank.join("large"), 16);
        let live = |live: &Path| {
            fs::create_dir(live.join("keep"))?;
            large_file(&live.join("keep/file"), 16)
        };
        let machine = Machine::in_pool(&[], blank, live)?.persist("keep", &[]).by(strategy);
        sh("zpool", &["sync", POOL])?;
        sh("zfs", &["create", "tank/promised"])?;
        leave(12)?;
        machine.reset_and_compare()?;
        sh("zpool", &["destroy", "-f", POOL])?;
    }
    Ok(())
}

/// Leaves so many MiB of the pool.
pub(crate) fn leave(mebibytes: u64) -> Result<()> {
    sh("zfs", &["set", "reservation=none", "tank/promised"])?;
    let available: u64 = property(POOL, "available")?.parse()?;
    let promised = available.checked_sub(mebibytes * MIB).context("so much is not there")?;
    sh("zfs", &["set", &format!("reservation={promised}"), "tank/promised"]).map(drop)
}

/// Which file it is that no longer fits, and by how much, is up to the pool.
fn without_numbers(text: &str) -> String {
    let mut masked = String::new();
    for character in text.chars() {
        let character = if character.is_ascii_digit() { '#' } else { character };
        if character != '#' || !masked.ends_with('#') {
            masked.push(character);
        }
    }
    masked.replace("#.#", "#")
}

fn fails_and_changes_nothing(machine: &Machine, words: &str) -> Result<()> {
    assert_eq!(failure_that_changes_nothing(machine)?, words);
    Ok(())
}

/// What a reset says that fails, without numbers.
fn failure_that_changes_nothing(machine: &Machine) -> Result<String> {
    let before = Whole::of(POOL)?;
    let ran = reset(&machine.config(), &["--threads", "1"])?;
    let error = ran.stderr.lines().last().unwrap_or_default();
    let error = without_numbers(error);
    println!("{error}");
    assert_eq!(ran.code, Some(10), "{error}");
    assert_eq!(ran.report.context("no report")?["outcome"], "failed");
    Whole::of(POOL)?.must_be(&before)?;
    Ok(error)
}

fn fails_while_the_stage_is_filled(machine: &Machine, errno: &str) -> Result<()> {
    fails_and_changes_nothing(
        machine,
        &format!(
            "error: no volume was reset; all are as they were: /: cannot copy the persisted \
             paths from the previous state into the stage: the pool or a quota is full: destroy \
             snapshots that are not needed, remove files, or raise the quota: cannot bring over: \
             \"keep/#\": cannot copy a range of the file: {errno} (os error #)"
        ),
    )
}
