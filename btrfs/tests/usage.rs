//! What subvolumes take, and when deleted ones have given it back.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use darlings_btrfs::{
    Access, Accounting, Usage, create_subvolume, delete_subvolume, is_cleaned, snapshot,
    subvolume_id, subvolume_usage, sync, wake_cleaner,
};
use support::{Filesystem, btrfs, name, on_btrfs};

const KIB: u64 = 1024;

/// `live` with 1 MiB, and `kept`, a snapshot of it, after which 512 KiB more were written.
fn make_two(filesystem: &Filesystem) -> [u64; 2] {
    create_subvolume(filesystem.top(), name("live")).unwrap();
    std::fs::write(filesystem.path("live/first"), vec![7; 1024 * 1024]).unwrap();
    sync(filesystem.top()).unwrap();
    snapshot(filesystem.open("live"), filesystem.top(), name("kept"), Access::ReadOnly).unwrap();
    std::fs::write(filesystem.path("live/second"), vec![8; 512 * 1024]).unwrap();
    sync(filesystem.top()).unwrap();
    ["live", "kept"].map(|path| subvolume_id(filesystem.open(path)).unwrap())
}

#[test]
fn without_quotas_nobody_counts() {
    on_btrfs("without_quotas_nobody_counts", |filesystem| {
        let [live, _] = make_two(filesystem);
        assert_eq!(subvolume_usage(filesystem.top(), live).unwrap(), None);
        // Switched off again it is as if they had never been on.
        btrfs(&["quota", "enable", filesystem.path("").to_str().unwrap()]);
        btrfs(&["quota", "disable", filesystem.path("").to_str().unwrap()]);
        assert_eq!(subvolume_usage(filesystem.top(), live).unwrap(), None);
    });
}

#[test]
fn with_quotas_what_is_shared_and_what_is_not_is_told_apart() {
    on_btrfs("with_quotas_what_is_shared_and_what_is_not_is_told_apart", |filesystem| {
        btrfs(&["quota", "enable", filesystem.path("").to_str().unwrap()]);
        btrfs(&["quota", "rescan", "-w", filesystem.path("").to_str().unwrap()]);
        let ids = make_two(filesystem);
        let node = 16 * KIB;
        let usage = |referenced, exclusive| {
            Some(Usage { accounting: Accounting::Quota, referenced, exclusive })
        };
        assert_eq!(
            ids.map(|id| subvolume_usage(filesystem.top(), id).unwrap()),
            [usage(1536 * KIB + node, 512 * KIB + node), usage(1024 * KIB + node, node)]
        );
        assert_eq!(subvolume_usage(filesystem.top(), 999).unwrap(), None);
    });
}

#[test]
fn a_deleted_subvolume_is_cleaned_some_time_later_and_one_that_is_there_never() {
    on_btrfs(
        "a_deleted_subvolume_is_cleaned_some_time_later_and_one_that_is_there_never",
        |filesystem| {
            let [live, kept] = make_two(filesystem);
            delete_subvolume(filesystem.top(), name("kept")).unwrap();
            assert!(!is_cleaned(filesystem.top(), kept).unwrap());
            wake_cleaner(filesystem.top()).unwrap();
            let begun = Instant::now();
            while !is_cleaned(filesystem.top(), kept).unwrap() {
                assert!(begun.elapsed() < Duration::from_secs(20), "not woken");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(!is_cleaned(filesystem.top(), live).unwrap());
        },
    );
}
