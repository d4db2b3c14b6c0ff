//! Kept data is shared and not written again; where ZFS cannot share it, it is copied.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, killed_at, reset};
use crate::pools::{
    DATASET, MIB, POOL, STAGE, create_pool, create_pool_on, large_file, pool_number, property, put,
    sh,
};

#[test]
fn kept_data_is_cloned_and_not_written_again() -> Result<()> {
    in_guest(
        "cloning::kept_data_is_cloned_and_not_written_again",
        checks![
            a_reset_writes_less_than_a_tenth_of_what_it_keeps,
            without_the_feature_data_is_copied_and_the_tree_is_the_same,
            with_cloning_switched_off_data_is_copied_and_the_tree_is_the_same,
            an_encrypted_dataset_keeps_its_key_and_its_data_is_cloned,
        ],
    )
}

/// Which time it is that a reset unmounts something when the stage has been made durable: first the
/// dataset for a moment, to see whether anybody else has it mounted, then the stage, for its
/// snapshot.
const STAGE_IS_DURABLE: usize = 3;

/// What was written to the guest's disk so far, in bytes.
fn written() -> Result<u64> {
    let stat = fs::read_to_string("/sys/block/vda/stat")?;
    let sectors: u64 = stat.split_whitespace().nth(6).context("no such field")?.parse()?;
    Ok(sectors * 512)
}

/// A dataset with one large file that is kept, on the guest's disk.
fn machine_with_a_large_file(mebibytes: u64, options: &[&str]) -> Result<Machine> {
    create_pool_on(POOL, "/dev/vda", options)?;
    let live = |live: &Path| {
        put(live, "erased", "erased")?;
        fs::create_dir(live.join("keep"))?;
        large_file(&live.join("keep/large"), mebibytes)
    };
    let machine = Machine::in_pool(&[], |_| Ok(()), live)?.persist("keep", &[]);
    sh("zpool", &["sync", POOL])?;
    Ok(machine)
}

/// Resets, compares, and tells how many bytes were written to the disk for it.
fn bytes_written_by_a_reset(machine: &Machine, size: u64) -> Result<u64> {
    let before = written()?;
    let ran = machine.reset_and_compare()?;
    sh("zpool", &["sync", POOL])?;
    let bytes = written()? - before;
    println!("{} KiB were written to keep {} KiB", bytes / 1024, size / 1024);
    let report = ran.report.context("no report")?;
    // Twice: into the stage and back.
    assert_eq!(
        report["volumes"][0]["bytes"],
        serde_json::json!({ "reflinked": 0, "copy_file_range": 2 * size, "copied": 0 })
    );
    Ok(bytes)
}

fn a_reset_writes_less_than_a_tenth_of_what_it_keeps() -> Result<()> {
    let machine = machine_with_a_large_file(40, &[])?;
    let bytes = bytes_written_by_a_reset(&machine, 40 * MIB)?;
    assert!(bytes < 4 * MIB, "{bytes} bytes were written to keep 40 MiB");

    let expected = machine.expected()?;
    killed_at(&machine, "umount2", STAGE_IS_DURABLE)?;
    sh("zfs", &["list", &format!("{STAGE}@darlings-2")])?;
    assert_eq!(pool_number("bcloneused")?, 40 * MIB, "bcloneused while the stage exists");
    reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected)
}

fn without_the_feature_data_is_copied_and_the_tree_is_the_same() -> Result<()> {
    let machine = machine_with_a_large_file(10, &["-o", "feature@block_cloning=disabled"])?;
    let bytes = bytes_written_by_a_reset(&machine, 10 * MIB)?;
    assert!((20 * MIB..25 * MIB).contains(&bytes), "{bytes}");
    Ok(())
}

fn with_cloning_switched_off_data_is_copied_and_the_tree_is_the_same() -> Result<()> {
    let machine = machine_with_a_large_file(10, &[])?;
    fs::write("/sys/module/zfs/parameters/zfs_bclone_enabled", "0")?;
    let bytes = bytes_written_by_a_reset(&machine, 10 * MIB)?;
    assert!((20 * MIB..25 * MIB).contains(&bytes), "{bytes}");
    Ok(())
}

fn an_encrypted_dataset_keeps_its_key_and_its_data_is_cloned() -> Result<()> {
    fs::write("/tmp/key", [7; 32])?;
    create_pool(POOL, 512, &[])?;
    sh("zfs", &["create", "-p", "tank/local"])?;
    let encrypted =
        ["-o", "encryption=on", "-o", "keyformat=raw", "-o", "keylocation=file:///tmp/key"];
    let live = |live: &Path| {
        fs::create_dir(live.join("keep"))?;
        large_file(&live.join("keep/large"), 4)
    };
    let machine = Machine::in_pool(&encrypted, |blank| put(blank, "etc/motd", "hello"), live)?
        .persist("keep", &[]);
    sh("zpool", &["sync", POOL])?;
    let expected = machine.expected()?;

    killed_at(&machine, "umount2", STAGE_IS_DURABLE)?;
    assert_eq!(pool_number("bcloneused")?, 4 * MIB, "bcloneused while the stage exists");
    assert_eq!(property(STAGE, "encryptionroot")?, DATASET);

    reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected)?;
    assert_eq!(property(DATASET, "encryptionroot")?, DATASET);
    assert_eq!(property(DATASET, "keystatus")?, "available");
    assert_eq!(property(DATASET, "keylocation")?, "file:///tmp/key");

    // Without its key nothing can be read, and nothing is changed.
    sh("zfs", &["unload-key", DATASET])?;
    let names = ["list", "-Hpr", "-t", "all", "-o", "name,guid", POOL];
    let before = sh("zfs", &names)?;
    let ran = reset(&machine.config(), &[])?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert_eq!(sh("zfs", &names)?, before);
    assert_eq!(
        ran.stderr,
        "error: no volume was reset; all are as they were: /: cannot mount tank/local/root: cannot \
         mount tank/local/root: its encryption key is not loaded; see `zfs load-key`\n"
    );
    sh("zfs", &["load-key", DATASET])?;
    machine.must_be(&expected)
}
