//! Every kind of entry and every attribute comes back, and the rest is the blank: compared with
//! the independent model.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use darlings_testkit::fill::{self, Wanted};
use darlings_testkit::{ByteString, Time, plant, remove};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Strategy, reset};
use crate::pools::{DATASET, put, tree};

#[test]
fn every_attribute_survives_a_reset_and_a_second_one_changes_nothing() -> Result<()> {
    in_guest(
        "every_attribute::every_attribute_survives_a_reset_and_a_second_one_changes_nothing",
        checks![
            where_extended_attributes_are_in_the_inode,
            where_they_are_directories_and_blocks_are_copied
        ],
    )
}

#[test]
fn every_attribute_survives_a_carry_and_a_second_one_changes_nothing() -> Result<()> {
    in_guest(
        "every_attribute::every_attribute_survives_a_carry_and_a_second_one_changes_nothing",
        checks![
            by_carry_where_extended_attributes_are_in_the_inode,
            by_carry_where_they_are_directories_and_blocks_are_copied
        ],
    )
}

const IN_THE_INODE: [&str; 2] = ["-O", "xattr=sa"];
const IN_DIRECTORIES: [&str; 4] = ["-O", "xattr=dir", "-o", "feature@block_cloning=disabled"];

fn where_extended_attributes_are_in_the_inode() -> Result<()> {
    every_attribute_survives(&IN_THE_INODE, Strategy::Rollback)
}

fn where_they_are_directories_and_blocks_are_copied() -> Result<()> {
    every_attribute_survives(&IN_DIRECTORIES, Strategy::Rollback)
}

fn by_carry_where_extended_attributes_are_in_the_inode() -> Result<()> {
    every_attribute_survives(&IN_THE_INODE, Strategy::Carry)
}

fn by_carry_where_they_are_directories_and_blocks_are_copied() -> Result<()> {
    every_attribute_survives(&IN_DIRECTORIES, Strategy::Carry)
}

/// What ZFS cannot hold, whatever its properties: flags that it does not have.
const REFUSED_BY_ZFS: [&str; 11] = [
    "nocow file: Operation not supported (os error 95)",
    "compress file: Operation not supported (os error 95)",
    "nocompress file: Operation not supported (os error 95)",
    "noatime file: Operation not supported (os error 95)",
    "sync file: Operation not supported (os error 95)",
    "nocow directory: Operation not supported (os error 95)",
    "compress directory: Operation not supported (os error 95)",
    "nocompress directory: Operation not supported (os error 95)",
    "noatime directory: Operation not supported (os error 95)",
    "sync directory: Operation not supported (os error 95)",
    "dirsync directory: Operation not supported (os error 95)",
];

fn every_attribute_survives(options: &[&str], strategy: Strategy) -> Result<()> {
    let mut refused = Vec::new();
    let machine = Machine::new(
        options,
        |blank| {
            connector(&blank.join("srv"), "from the blank", 1000)?;
            put(blank, "srv/keep/stays-erased", "absent in the previous state")?;
            put(blank, "srv/keep/sparse/of-the-blank", "excluded")?;
            put(blank, "etc/motd", "of the blank")
        },
        |live| {
            // Changed below the blank's connector, and a connector that the blank lacks.
            plant::mode(&live.join("srv"), 0o700)?;
            plant::xattr(&live.join("srv"), "user.of", b"somebody since")?;
            connector(&live.join("var"), "from the previous state", 2000)?;
            remove::all(&live.join("srv/keep"))?;
            fs::create_dir(live.join("srv/keep"))?;
            let wanted = Wanted { deep_levels: 210, ..Wanted::default() };
            for refusal in fill::everything_but(&live.join("srv/keep"), &wanted)? {
                refused.push(refusal.to_string());
            }
            let huge = live.join("srv/keep/huge-xattr");
            fs::write(&huge, "more than a system attribute holds")?;
            plant::xattr(&huge, "user.huge", &vec![b'h'; 60_000])?;
            put(live, "var/keep/file", "kept")?;
            fs::hard_link(live.join("var/keep/file"), live.join("srv/keep/in-both"))?;
            fs::hard_link(live.join("var/keep/file"), live.join("outside"))?;
            put(live, "etc/motd", "changed")?;
            put(live, "etc/new", "new")
        },
    )?
    .persist("srv/keep", &["sparse"])
    .persist("srv/keep/sparse/several-holes", &[])
    .persist("var/keep", &[])
    .persist("never/made", &[])
    .by(strategy);
    assert_eq!(refused, REFUSED_BY_ZFS);

    let expected = machine.expected()?;
    machine.reset_and_compare()?;
    let ran = reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected).with_context(|| ran.stderr.clone())?;

    let result = tree(DATASET)?;
    let user_of = ByteString::from("user.of");
    let of = |path: &str| result.at(path).and_then(|entry| entry.xattrs.get(&user_of).cloned());
    assert_eq!(of("srv").unwrap().as_bytes(), b"from the blank");
    assert_eq!(of("var").unwrap().as_bytes(), b"from the previous state");
    let links = |path: &str| result.at(path).unwrap().links.as_ref().map(|links| links.count);
    assert_eq!([links("var/keep/file"), links("srv/keep/in-both")], [Some(2), Some(2)]);
    assert!(result.at("srv/keep/sparse/of-the-blank").is_some());
    assert!(result.at("srv/keep/sparse/several-holes").is_some());
    assert!(result.at("srv/keep/sparse/only-a-hole").is_none());
    assert!(result.at("never").is_none());
    Ok(())
}

/// A directory that has all that a connector can have, and passes it on.
fn connector(path: &Path, says: &str, seconds: i64) -> Result<()> {
    fs::create_dir(path)?;
    plant::owner(path, 1000, 100)?;
    plant::mode(path, 0o2771)?;
    plant::xattr(path, "user.of", says.as_bytes())?;
    plant::xattr(path, "system.posix_acl_default", &plant::example_acl(1003, 1004))?;
    let time = |seconds| Time { seconds, nanoseconds: 123_456_789 };
    Ok(plant::times(path, time(seconds), time(seconds + 1))?)
}
