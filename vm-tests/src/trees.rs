//! What a boot writes down: each volume as a tree, before the reset and after it.
//!
//! Both happen in the initrd, where nothing else writes.

use anyhow::{Context as _, Result};
use darlings_testkit::Tree;

use crate::Filesystem;
use crate::machine::{Booted, Moment};

/// The machine's volumes that are reset, by name: `/` and `/home`.
pub const VOLUMES: [&str; 2] = ["root", "home"];

/// The volumes and their blanks.
pub const WITH_BLANKS: [&str; 4] = ["root", "home", "blank_root", "blank_home"];

/// A script for [`Moment::Before`]. It writes down what is named: of the volumes `root` and
/// `home`, and of their blanks `blank_root` and `blank_home`.
#[must_use]
pub fn before(filesystem: Filesystem, names: &[&str]) -> String {
    let names = names.join(" ");
    let mount = match filesystem {
        Filesystem::Zfs => {
            "volume() { mount -t zfs -o ro \"$1\" \"$2\"; }
             root=rpool/local/root home=rpool/safe/home
             blank_root=$root@blank blank_home=$home@blank"
        }
        Filesystem::Btrfs => {
            "volume() { mount -t btrfs -o ro,noatime,subvol=\"$1\" /dev/disk/by-label/root \"$2\"; }
             root=@ home=@home blank_root=@blank/root blank_home=@blank/home"
        }
    };
    format!(
        r#"{mount}
        mkdir -p /run/volume
        for name in {names}; do
            volume "${{!name}}" /run/volume
            testkit capture --json --output "$RESULTS/$name" /run/volume
            umount /run/volume
        done
        "#
    )
}

/// A script for [`Moment::After`]. It writes down the volumes as `root` and `home`.
///
/// A bind mount shows a volume without what is mounted on it.
pub const AFTER: &str = r#"
        mkdir -p /run/volume
        for name in root home; do
            path=/sysroot
            [[ $name == root ]] || path=/sysroot/$name
            mount --bind "$path" /run/volume
            testkit capture --json --output "$RESULTS/$name" /run/volume
            umount /run/volume
        done
        "#;

/// A script that writes down a generation of each volume, as `generation_root` and `generation_home`.
#[must_use]
pub fn generation(filesystem: Filesystem, number: u32) -> String {
    let mount = match filesystem {
        Filesystem::Zfs => format!(
            "root=rpool/local/root home=rpool/safe/home
             generation() {{ mount -t zfs -o ro \"${{!1}}@darlings-{number}\" /run/volume; }}"
        ),
        Filesystem::Btrfs => format!(
            "generation() {{
                mount -t btrfs -o ro,noatime,subvol=\"@darlings/$1/{number}\" \\
                    /dev/disk/by-label/root /run/volume
             }}"
        ),
    };
    format!(
        r#"{mount}
        mkdir -p /run/volume
        for name in root home; do
            generation "$name"
            testkit capture --json --output "$RESULTS/generation_$name" /run/volume
            umount /run/volume
        done
        "#
    )
}

/// A tree that a boot wrote down.
pub fn read(booted: &Booted, moment: Moment, name: &str) -> Result<Tree> {
    serde_json::from_slice(booted.file(moment, name)?)
        .with_context(|| format!("the tree {name} of the moment {moment:?} is not one"))
}
