//! Mounting, and what mounts of one pool may do with each other.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use darlings_zfs::{Access, Errno, Error, Properties, mount, unmount};
use rustix::fs::{copy_file_range, ioctl_ficlone};

use crate::support::{Pool, names_in, noise, run, words};

#[test]
fn a_dataset_is_mounted_wherever_we_like_whatever_its_properties_say() {
    let Some(pool) = Pool::new() else { return };
    let at = pool.mount_point("at");
    for setting in ["mountpoint=legacy", "mountpoint=none", "mountpoint=/elsewhere", "canmount=off"]
    {
        let name = pool.full("other");
        run("zfs", &["create", "-u", "-o", setting, &name]);
        mount(&name, &at, Access::ReadWrite).unwrap();
        fs::write(at.join("file"), setting).unwrap();
        unmount(&at).unwrap();
        mount(&name, &at, Access::ReadOnly).unwrap();
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), setting);
        let error = fs::write(at.join("file"), "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        unmount(&at).unwrap();
        pool.zfs.destroy(&name).unwrap();
    }
}

#[test]
fn a_mount_has_no_devices_and_no_setuid_and_leaves_access_times_alone() {
    let Some(pool) = Pool::new() else { return };
    let at = pool.mount_point("at");
    mount(&pool.root(), &at, Access::ReadWrite).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.starts_with(&pool.root())).unwrap();
    let options: Vec<_> = line.split(' ').nth(3).unwrap().split(',').collect();
    for option in ["rw", "nosuid", "nodev", "noatime"] {
        assert!(options.contains(&option), "{line}");
    }
    unmount(&at).unwrap();
}

#[test]
fn a_snapshot_is_mounted_read_only_beside_its_dataset() {
    let Some(pool) = Pool::new() else { return };
    let (at, snapshot_at) = (pool.mount_point("at"), pool.mount_point("snapshot"));
    let snapshot = pool.full("root@kept");
    mount(&pool.root(), &at, Access::ReadWrite).unwrap();
    fs::write(at.join("file"), "then").unwrap();
    pool.zfs.snapshot(&[&snapshot], &Properties::new()).unwrap();
    fs::write(at.join("file"), "now").unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        mount(&snapshot, &snapshot_at, access).unwrap();
        assert_eq!(fs::read_to_string(snapshot_at.join("file")).unwrap(), "then");
        let error = fs::write(snapshot_at.join("file"), "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        unmount(&snapshot_at).unwrap();
    }
    unmount(&at).unwrap();
}

#[test]
fn a_mount_that_cannot_be_says_what_is_missing() {
    let Some(pool) = Pool::new() else { return };
    let at = pool.mount_point("at");
    let nothing = pool.full("nothing");
    assert_eq!(
        words(mount(&nothing, &at, Access::ReadOnly)),
        format!("cannot mount {nothing}: it does not exist")
    );
    let nowhere = at.join("nowhere");
    assert_eq!(
        words(mount(&pool.root(), &nowhere, Access::ReadOnly)),
        format!("cannot mount at {nowhere:?}: No such file or directory (os error 2)")
    );
}

#[test]
fn what_is_in_use_is_not_unmounted() {
    let Some(pool) = Pool::new() else { return };
    let at = pool.mount_point("at");
    mount(&pool.root(), &at, Access::ReadWrite).unwrap();
    let open = File::create(at.join("file")).unwrap();
    match unmount(&at) {
        Err(Error::Path { path, source, .. }) => {
            assert_eq!((path, source), (at.clone(), Errno::BUSY));
        }
        other => panic!("{other:?}"),
    }
    drop(open);
    unmount(&at).unwrap();
    assert!(unmount(&at).is_err());
}

#[test]
fn a_read_only_mount_replays_what_was_synced_just_before_a_crash() {
    let Some(pool) = Pool::new() else { return };
    let at = pool.mount_point("at");
    mount(&pool.root(), &at, Access::ReadWrite).unwrap();
    let write = |name: &str| {
        let mut file = File::create(at.join(name)).unwrap();
        file.write_all(b"1").unwrap();
        file.sync_all().unwrap();
    };
    // The first makes the intent log. Frozen, a pool writes only that, as if it crashed then.
    write("early");
    pool.zfs.sync_pool(&pool.name).unwrap();
    run("zpool", &["freeze", &pool.name]);
    write("late");
    unmount(&at).unwrap();
    pool.export();
    pool.import(&["-f", "-N"]);

    // A snapshot taken before the first mount does not have it.
    let before = pool.full("root@before");
    pool.zfs.snapshot(&[&before], &Properties::new()).unwrap();
    mount(&before, &at, Access::ReadOnly).unwrap();
    assert_eq!(names_in(&at), ["early"]);
    unmount(&at).unwrap();

    mount(&pool.root(), &at, Access::ReadOnly).unwrap();
    assert_eq!(names_in(&at), ["early", "late"]);
    unmount(&at).unwrap();
}

const SIZE: usize = 4 << 20;

fn copy(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut left = SIZE;
    while left > 0 {
        let copied = copy_file_range(&from, None, &to, None, left).unwrap();
        assert_ne!(copied, 0);
        left -= copied;
    }
}

/// Clones blocks from one mount to another by `copy_file_range`, and asserts that it did.
fn assert_block_cloned(pool: &Pool, from: &Path, to: &Path) {
    // Blocks that are not on disk yet are waited for or copied.
    pool.zfs.sync_pool(&pool.name).unwrap();
    let used = || -> u64 {
        run("zpool", &["get", "-Hpo", "value", "bcloneused", &pool.name]).parse().unwrap()
    };
    let before = used();
    copy(from, to);
    pool.zfs.sync_pool(&pool.name).unwrap();
    assert_eq!(fs::read(from).unwrap(), fs::read(to).unwrap());
    let grown = used() - before;
    assert!(grown >= SIZE as u64, "{grown} bytes were cloned");
}

#[test]
fn blocks_are_cloned_by_copy_file_range_between_datasets_snapshots_and_clones() {
    let Some(pool) = Pool::new() else { return };
    let (live, stage) = (pool.mount_point("live"), pool.mount_point("stage"));
    let (old, snapshot) = (pool.mount_point("old"), pool.full("root@blank"));
    mount(&pool.root(), &live, Access::ReadWrite).unwrap();
    fs::write(live.join("a"), noise(SIZE)).unwrap();
    pool.zfs.snapshot(&[&snapshot], &Properties::new()).unwrap();
    fs::write(live.join("b"), noise(SIZE)).unwrap();
    pool.zfs.clone(&snapshot, &pool.full("stage"), &Properties::new()).unwrap();
    mount(&pool.full("stage"), &stage, Access::ReadWrite).unwrap();
    mount(&snapshot, &old, Access::ReadOnly).unwrap();

    // From the origin into its clone, back, and from a snapshot.
    assert_block_cloned(&pool, &live.join("b"), &stage.join("b"));
    fs::remove_file(stage.join("a")).unwrap();
    assert_block_cloned(&pool, &old.join("a"), &stage.join("a"));
    fs::write(stage.join("c"), noise(SIZE)).unwrap();
    assert_block_cloned(&pool, &stage.join("c"), &live.join("c"));

    // FICLONE never leaves its mount.
    for from in [old.join("a"), live.join("b")] {
        let (from, to) = (File::open(from).unwrap(), File::create(stage.join("f")).unwrap());
        assert_eq!(ioctl_ficlone(&to, &from), Err(rustix::io::Errno::XDEV));
    }
    for at in [&live, &stage, &old] {
        unmount(at).unwrap();
    }
}
