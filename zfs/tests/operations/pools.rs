//! Pools: which are there, and in what state.

use std::time::Duration;
use std::{fs, thread};

use darlings_zfs::{Error, PoolState, Zfs, imported_pools, pool_state};

use crate::support::{Pool, noise, open, run, scratch_directory, words};

#[test]
fn an_imported_pool_is_listed_and_online() {
    let Some(pool) = Pool::new() else { return };
    assert!(imported_pools().unwrap().contains(&pool.name));
    assert_eq!(pool_state(&pool.name).unwrap(), Some(PoolState::Online));
    pool.zfs.check_pool(&pool.name).unwrap();
}

#[test]
fn an_exported_pool_is_missing_to_everyone() {
    let Some(pool) = Pool::new() else { return };
    pool.export();
    assert!(!imported_pools().unwrap().contains(&pool.name));
    assert_eq!(pool_state(&pool.name).unwrap(), None);
    let name = &pool.name;
    assert_eq!(
        words(pool.zfs.check_pool(name)),
        format!("cannot use {name}: the pool {name} is not imported")
    );
    assert_eq!(
        words(pool.zfs.exists(&pool.root())),
        format!("cannot look for {name}/root: the pool {name} is not imported")
    );
    assert_eq!(
        words(pool.zfs.sync_pool(name)),
        format!("cannot sync {name}: the pool {name} is not imported")
    );
    assert_eq!(
        words(pool.zfs.destroy(&pool.root())),
        format!("cannot destroy {name}/root: it does not exist")
    );
    pool.import(&[]);
    assert!(pool.zfs.exists(&pool.root()).unwrap());
}

#[test]
fn a_pool_imported_read_only_is_recognised_by_every_call() {
    let Some(pool) = Pool::new() else { return };
    pool.export();
    pool.import(&["-o", "readonly=on", "-N"]);
    // The kernel's file does not tell: it says ONLINE.
    assert_eq!(pool_state(&pool.name).unwrap(), Some(PoolState::Online));
    assert!(matches!(pool.zfs.check_pool(&pool.name), Err(Error::PoolReadOnly { .. })));
    assert!(matches!(pool.zfs.exists(&pool.root()), Err(Error::PoolReadOnly { .. })));
    assert!(matches!(
        pool.zfs.set_user_property(&pool.root(), "org.darlings:x", "1"),
        Err(Error::PoolReadOnly { .. })
    ));
    assert!(matches!(pool.zfs.sync_pool(&pool.name), Err(Error::PoolReadOnly { .. })));
}

#[test]
fn a_suspended_pool_is_recognised_and_does_not_hang_the_caller() {
    let Some(zfs) = open() else { return };
    // The file of the pool is sparse, and the file system that it is on is full soon.
    let directory = scratch_directory();
    let path = directory.to_str().unwrap().to_owned();
    run("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", &path]);
    let pool = Pool::in_directory(zfs, directory);
    let at = pool.mount_point("at");
    darlings_zfs::mount(&pool.root(), &at, darlings_zfs::Access::ReadWrite).unwrap();

    // Who writes waits until the pool goes on.
    let (file, name) = (at.join("noise"), pool.name.clone());
    let writer = thread::spawn(move || {
        fs::write(file, noise(12 << 20)).unwrap();
        Zfs::open().unwrap().sync_pool(&name)
    });
    for _ in 0..600 {
        if pool_state(&pool.name).unwrap() == Some(PoolState::Suspended) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(pool_state(&pool.name).unwrap(), Some(PoolState::Suspended));
    assert!(matches!(pool.zfs.check_pool(&pool.name), Err(Error::PoolSuspended { .. })));
    assert!(matches!(pool.zfs.sync_pool(&pool.name), Err(Error::PoolSuspended { .. })));
    assert!(matches!(pool.zfs.bookmarks(&pool.root()), Err(Error::PoolSuspended { .. })));

    run("mount", &["-o", "remount,size=256m", &path]);
    run("zpool", &["clear", &pool.name]);
    writer.join().unwrap().unwrap();
    darlings_zfs::unmount(&at).unwrap();
}

#[test]
fn syncing_a_pool_puts_what_was_written_on_disk() {
    let Some(pool) = Pool::new() else { return };
    let root = pool.root();
    let at = pool.mount_point("at");
    darlings_zfs::mount(&root, &at, darlings_zfs::Access::ReadWrite).unwrap();
    let before = pool.zfs.number(&root, "referenced").unwrap();
    fs::write(at.join("noise"), noise(1 << 20)).unwrap();
    pool.zfs.sync_pool(&pool.name).unwrap();
    assert!(pool.zfs.number(&root, "referenced").unwrap() > before + (1 << 19));
    darlings_zfs::unmount(&at).unwrap();
}
