//! Native encryption, of a dataset that is its own encryption root and of one that inherits it.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Strategy};
use crate::pools::{DATASET, MIB, POOL, create_pool, large_file, pool_number, property, put, sh};

#[test]
fn an_encrypted_dataset_keeps_its_keys_and_shares_its_blocks() -> Result<()> {
    in_guest(
        "encrypted::an_encrypted_dataset_keeps_its_keys_and_shares_its_blocks",
        checks![
            its_own_encryption_root_with_rollback,
            its_own_encryption_root_with_carry,
            an_inherited_encryption_root_with_rollback,
            an_inherited_encryption_root_with_carry,
        ],
    )
}

fn its_own_encryption_root_with_rollback() -> Result<()> {
    encrypted(DATASET, Strategy::Rollback)
}

fn its_own_encryption_root_with_carry() -> Result<()> {
    encrypted(DATASET, Strategy::Carry)
}

fn an_inherited_encryption_root_with_rollback() -> Result<()> {
    encrypted("tank/local", Strategy::Rollback)
}

fn an_inherited_encryption_root_with_carry() -> Result<()> {
    encrypted("tank/local", Strategy::Carry)
}

const KEY: [&str; 6] =
    ["-o", "encryption=on", "-o", "keyformat=raw", "-o", "keylocation=file:///tmp/key"];

fn encrypted(root: &str, strategy: Strategy) -> Result<()> {
    fs::write("/tmp/key", [7; 32])?;
    create_pool(POOL, 512, &[])?;
    let above: &[&str] = if root == DATASET { &[] } else { &KEY };
    sh("zfs", &[&["create"], above, &["tank/local"]].concat())?;
    let own: &[&str] = if root == DATASET { &KEY } else { &[] };
    let blank = |blank: &Path| large_file(&blank.join("large"), 4);
    let live = |live: &Path| {
        // Written again: what is shared with the blank afterwards was cloned by the reset.
        fs::remove_file(live.join("large"))?;
        large_file(&live.join("large"), 1)?;
        put(live, "keep/small", "kept")?;
        large_file(&live.join("keep/large"), 4)
    };
    let machine = Machine::in_pool(own, blank, live)?.persist("keep", &[]).by(strategy);
    sh("zpool", &["sync", POOL])?;
    let before = pool_number("bclonesaved")?;
    let expected = machine.expected()?;
    machine.reset_and_compare()?;
    sh("zpool", &["sync", POOL])?;
    let shared = pool_number("bclonesaved")? - before;
    println!("{root} {strategy:?}: {} KiB are shared", shared / 1024);
    // `carry` clones the blank's file. With `rollback` the stage is gone, and with it what the kept
    // file was shared with: `cloning` looks at it while the stage is there.
    if strategy == Strategy::Carry {
        ensure!(shared == 4 * MIB, "{shared} bytes are shared");
    }

    let keys = || -> Result<()> {
        assert_eq!(property(DATASET, "encryptionroot")?, root);
        assert_eq!(property(root, "keystatus")?, "available");
        assert_eq!(property(root, "keylocation")?, "file:///tmp/key");
        Ok(())
    };
    keys()?;
    // The key is still the one that it was: nothing of the result needs another.
    sh("zfs", &["unload-key", root])?;
    assert_eq!(property(DATASET, "keystatus")?, "unavailable");
    sh("zfs", &["load-key", root])?;
    machine.must_be(&expected)?;
    machine.reset_and_compare()?;
    keys()
}
