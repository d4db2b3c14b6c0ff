//! A pool without room: the reset is refused or undone, at whatever moment it comes out, and the
//! volume is what it was.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::machine::{Machine, reset};
use crate::pools::{MIB, POOL, Whole, create_pool, large_file, property, put, sh};

/// What is kept, in MiB, in a pool that copies every block.
const KEPT: u64 = 4;

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

    sh("zfs", &["set", &format!("quota={}", (KEPT + 2) * MIB), "tank/local"])?;
    fails_while_the_stage_is_filled(&machine, "Disk quota exceeded")?;
    sh("zfs", &["set", "quota=none", "tank/local"])?;

    // The rest is promised to another dataset.
    sh("zfs", &["create", "tank/promised"])?;
    leave(2)?;
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

/// Leaves so many MiB of the pool.
fn leave(mebibytes: u64) -> Result<()> {
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
    let before = Whole::of(POOL)?;
    let ran = reset(&machine.config(), &["--threads", "1"])?;
    let error = ran.stderr.lines().last().unwrap_or_default();
    let error = without_numbers(error);
    println!("{error}");
    assert_eq!((ran.code, error.as_str()), (Some(10), words));
    assert_eq!(ran.report.context("no report")?["outcome"], "failed");
    Whole::of(POOL)?.must_be(&before)
}

fn fails_while_the_stage_is_filled(machine: &Machine, errno: &str) -> Result<()> {
    fails_and_changes_nothing(
        machine,
        &format!(
            "error: no volume was reset; all are as they were: /: cannot bring the persisted \
             paths from the previous state to the stage: the pool or a quota is full: destroy \
             snapshots that are not needed, remove files, or raise the quota: cannot bring over: \
             \"keep/#\": cannot copy a range of the file: {errno} (os error #)"
        ),
    )
}
