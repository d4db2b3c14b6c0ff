//! What subvolumes take, and when deleted ones have given it back.

use std::time::{Duration, Instant};

use crate::support::{Filesystem, btrfs, name, on_btrfs};
use darlings_btrfs::{
    Access, Accounting, Limit, Usage, create_subvolume, delete_subvolume, delete_subvolume_by_id,
    delete_subvolume_recursive, is_cleaned, snapshot, snapshot_limit, subvolume_id,
    subvolume_limits, subvolume_usage, sync, wake_cleaner,
};

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
fn a_limit_is_that_of_the_tightest_group_and_a_snapshot_inherits_only_its_own() {
    on_btrfs(
        "a_limit_is_that_of_the_tightest_group_and_a_snapshot_inherits_only_its_own",
        |filesystem| {
            let top = filesystem.path("").display().to_string();
            let limit =
                |size: &str, group: &str| drop(btrfs(&["qgroup", "limit", size, group, &top]));
            let [live, _] = make_two(filesystem);
            let limits = || {
                let top = filesystem.top();
                [
                    subvolume_limits(&top, live).unwrap().into_iter().min(),
                    snapshot_limit(&top, live).unwrap(),
                ]
            };
            assert_eq!(limits(), [None, None]);
            btrfs(&["quota", "enable", &top]);
            btrfs(&["quota", "rescan", "-w", &top]);
            assert_eq!(limits(), [None, None]);
            limit("4M", &format!("0/{live}"));
            sync(filesystem.top()).unwrap();
            let used = 1536 * KIB + 16 * KIB;
            let own = |group| Limit {
                left: 4096 * KIB - used,
                group,
                referenced: Some(4096 * KIB),
                exclusive: None,
            };
            let of_live = Some(own((0, live)));
            assert_eq!(limits(), [of_live, of_live]);
            btrfs(&["qgroup", "create", "1/7", &top]);
            btrfs(&["qgroup", "assign", "--no-rescan", &format!("0/{live}"), "1/7", &top]);
            btrfs(&["quota", "rescan", "-w", &top]);
            limit("2M", "1/7");
            sync(filesystem.top()).unwrap();
            let above = Limit {
                left: 2048 * KIB - used,
                group: (1, 7),
                referenced: Some(2048 * KIB),
                ..own((1, 7))
            };
            assert_eq!(limits(), [Some(above), of_live]);
            // One that is lifted limits nothing, until it is set again.
            above.lift(filesystem.top()).unwrap();
            sync(filesystem.top()).unwrap();
            assert_eq!(limits(), [of_live, of_live]);
            above.set(filesystem.top()).unwrap();
            sync(filesystem.top()).unwrap();
            assert_eq!(limits(), [Some(above), of_live]);
            // What the snapshot says of itself once it is there.
            let place = (filesystem.top(), name("next"));
            snapshot(filesystem.open("live"), place.0, place.1, Access::Writable).unwrap();
            sync(filesystem.top()).unwrap();
            let next = subvolume_id(filesystem.open("next")).unwrap();
            assert_eq!(subvolume_limits(filesystem.top(), next).unwrap(), [own((0, next))]);
            // Where quotas are off there is nothing to set.
            btrfs(&["quota", "disable", &top]);
            assert_eq!(above.set(filesystem.top()).map_err(|error| error.kind()), Ok(()));
        },
    );
}

#[test]
fn a_limit_that_leaves_no_room_for_a_deletion_is_lifted_for_it() {
    on_btrfs("a_limit_that_leaves_no_room_for_a_deletion_is_lifted_for_it", |filesystem| {
        let top = filesystem.path("").display().to_string();
        for path in ["home", "home/mia", "home/mia/inner"] {
            let path = filesystem.path(path);
            let parent = std::fs::File::open(path.parent().unwrap()).unwrap();
            create_subvolume(parent, path.file_name().unwrap()).unwrap();
        }
        btrfs(&["quota", "enable", &top]);
        btrfs(&["quota", "rescan", "-w", &top]);
        let [home, mia] =
            ["home", "home/mia"].map(|path| subvolume_id(filesystem.open(path)).unwrap());
        // One of its own, and one that it shares with what stays.
        btrfs(&["qgroup", "create", "1/7", &top]);
        btrfs(&["qgroup", "assign", "--no-rescan", &format!("0/{mia}"), "1/7", &top]);
        btrfs(&["quota", "rescan", "-w", &top]);
        for group in [format!("0/{mia}"), "1/7".to_owned()] {
            btrfs(&["qgroup", "limit", "16K", &group, &top]);
        }
        assert_eq!(
            delete_subvolume_by_id(filesystem.top(), mia + 1).map_err(|error| error.errno()),
            Err(Some(rustix::io::Errno::DQUOT))
        );
        let gone = delete_subvolume_recursive(filesystem.top(), home).unwrap();
        assert_eq!(gone.len(), 2);
        let shown = btrfs(&["qgroup", "show", "-r", "--raw", &top]);
        let shared = shown.lines().find(|line| line.starts_with("1/7")).unwrap();
        assert_eq!(shared.split_whitespace().nth(3), Some("16384"));
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
