//! Rolling back and marking: what happens, what is refused, and that it is one step.

use std::fs;
use std::path::Path;

use darlings_zfs::{Access, Errno, Error, Refusal, Rollback, Value};

use crate::support::{Pool, names_in, noise, run, words};

const PROPERTY: &str = "org.darlings:state";

/// `root` with the file `old`, then the snapshot `blank`, then the file `new`.
fn with_blank() -> Option<Pool> {
    let pool = Pool::new()?;
    let at = pool.mount_point("at");
    mounted(&pool, &at, || fs::write(at.join("old"), "1").unwrap());
    run("zfs", &["snapshot", &pool.full("root@blank")]);
    mounted(&pool, &at, || fs::write(at.join("new"), "2").unwrap());
    Some(pool)
}

fn mounted<T>(pool: &Pool, at: &Path, work: impl FnOnce() -> T) -> T {
    darlings_zfs::mount(&pool.root(), at, Access::ReadWrite).unwrap();
    let result = work();
    darlings_zfs::unmount(at).unwrap();
    result
}

fn content(pool: &Pool) -> Vec<String> {
    let at = pool.directory.join("at");
    mounted(pool, &at, || names_in(&at))
}

/// Rolls back with these snapshots and bookmarks of `root` to be destroyed first.
fn roll_back(pool: &Pool, destroy_first: &[&str]) -> Result<Vec<String>, Error> {
    let destroy_first: Vec<_> =
        destroy_first.iter().map(|name| pool.full(&format!("root{name}"))).collect();
    let dataset = pool.root();
    let rollback = Rollback {
        dataset: &dataset,
        blank: "blank",
        destroy_first: &destroy_first,
        property: PROPERTY,
        value: "rolled back",
    };
    pool.zfs.rollback_and_mark(&rollback)
}

fn mark(pool: &Pool) -> Option<Value> {
    pool.zfs.property(&pool.root(), PROPERTY).unwrap().map(|property| property.value)
}

/// Asserts that a rollback is refused for this reason and leaves everything as it was.
fn assert_refused(pool: &Pool, destroy_first: &[&str], reason: &Refusal) {
    let before = (pool.all_marks(), mark(pool));
    match roll_back(pool, destroy_first) {
        Err(Error::RollbackRefused { reason: given, destroyed, .. }) => {
            assert_eq!(&given, reason);
            assert_eq!(destroyed, Vec::<String>::new());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((pool.all_marks(), mark(pool)), before);
}

#[test]
fn a_rollback_brings_the_blank_state_back_and_leaves_the_mark() {
    let Some(pool) = with_blank() else { return };
    assert_eq!(content(&pool), ["new", "old"]);
    assert_eq!(roll_back(&pool, &[]).unwrap(), Vec::<String>::new());
    assert_eq!(content(&pool), ["old"]);
    assert_eq!(mark(&pool), Some(Value::Text("rolled back".into())));
    // Once more is harmless.
    roll_back(&pool, &[]).unwrap();
    assert_eq!(content(&pool), ["old"]);
}

#[test]
fn later_snapshots_and_bookmarks_on_the_list_go_first() {
    let Some(pool) = with_blank() else { return };
    for name in ["root@one", "root@two"] {
        run("zfs", &["snapshot", &pool.full(name)]);
    }
    run("zfs", &["bookmark", &pool.full("root@blank"), &pool.full("root#old")]);
    run("zfs", &["bookmark", &pool.full("root@two"), &pool.full("root#two")]);
    let destroyed = roll_back(&pool, &["@one", "@two", "#two", "@gone", "#gone"]).unwrap();
    let expected = ["root#two", "root@one", "root@two"].map(|name| pool.full(name));
    assert_eq!(destroyed, expected);
    assert_eq!(pool.all_marks(), ["/root#old", "/root@blank"]);
    assert_eq!(content(&pool), ["old"]);
}

#[test]
fn a_bookmark_whose_snapshot_is_long_gone_does_not_hinder_when_it_is_on_the_list() {
    let Some(pool) = with_blank() else { return };
    run("zfs", &["snapshot", &pool.full("root@later")]);
    run("zfs", &["bookmark", &pool.full("root@later"), &pool.full("root#later")]);
    run("zfs", &["destroy", &pool.full("root@later")]);
    assert_refused(
        &pool,
        &[],
        &Refusal::NewerExist {
            blank: pool.full("root@blank"),
            newer: vec![pool.full("root#later")],
        },
    );
    assert_eq!(roll_back(&pool, &["#later"]).unwrap(), [pool.full("root#later")]);
    assert_eq!(content(&pool), ["old"]);
}

#[test]
fn the_destruction_the_rollback_and_the_mark_are_in_one_transaction_group() {
    let Some(pool) = with_blank() else { return };
    for name in ["root@one", "root@two"] {
        run("zfs", &["snapshot", &pool.full(name)]);
    }
    roll_back(&pool, &["@one", "@two"]).unwrap();
    // Lines of the pool's history: "date [txg:42] set root (54) org.darlings:state=...".
    let history = run("zpool", &["history", "-i", &pool.name]);
    let group_of = |what: &str| -> String {
        let mut lines = history.lines().filter(|line| line.contains(what));
        let line = lines.next().unwrap_or_else(|| panic!("no {what:?} in {history}"));
        assert_eq!(lines.next(), None, "{what}");
        line.split_once("[txg:").unwrap().1.split_once(']').unwrap().0.to_owned()
    };
    let root = pool.root();
    let rollback = group_of(&format!("] clone swap {root}/%rollback "));
    assert_eq!(group_of("org.darlings:state=rolled back"), rollback);
    assert_eq!(group_of(&format!("] destroy {root}@one ")), rollback);
    assert_eq!(group_of(&format!("] destroy {root}@two ")), rollback);
}

#[test]
fn a_later_snapshot_that_is_not_on_the_list_is_not_destroyed() {
    let Some(pool) = with_blank() else { return };
    for name in ["root@one", "root@two"] {
        run("zfs", &["snapshot", &pool.full(name)]);
    }
    let newer = vec![pool.full("root@two")];
    let reason = Refusal::NewerExist { blank: pool.full("root@blank"), newer };
    assert_refused(&pool, &["@one"], &reason);
    assert_eq!(
        words(roll_back(&pool, &["@one"])),
        format!("cannot roll {0} back: newer than {0}@blank are also {0}@two", pool.root())
    );
}

#[test]
fn a_later_snapshot_with_a_clone_or_a_hold_stops_the_rollback() {
    let Some(pool) = with_blank() else { return };
    let later = pool.full("root@later");
    run("zfs", &["snapshot", &pool.full("root@first")]);
    run("zfs", &["snapshot", &later]);
    let refusal = |source| Refusal::CannotDestroy { name: later.clone(), source };
    run("zfs", &["hold", "reason", &later]);
    assert_refused(&pool, &["@first", "@later"], &refusal(Errno::BUSY));
    run("zfs", &["release", "reason", &later]);
    run("zfs", &["clone", &later, &pool.full("clone")]);
    assert_refused(&pool, &["@first", "@later"], &refusal(Errno::EXIST));
}

#[test]
fn a_mounted_dataset_is_not_rolled_back() {
    let Some(pool) = with_blank() else { return };
    let at = pool.directory.join("at");
    run("zfs", &["snapshot", &pool.full("root@later")]);
    mounted(&pool, &at, || assert_refused(&pool, &["@later"], &Refusal::Busy));
    assert_eq!(content(&pool), ["new", "old"]);
}

#[test]
fn a_mounted_dataset_with_a_later_bookmark_loses_only_that() {
    let Some(pool) = with_blank() else { return };
    let at = pool.directory.join("at");
    run("zfs", &["snapshot", &pool.full("root@later")]);
    run("zfs", &["bookmark", &pool.full("root@later"), &pool.full("root#later")]);
    run("zfs", &["destroy", &pool.full("root@later")]);
    // ZFS looks at bookmarks before it looks at mounts.
    mounted(&pool, &at, || match roll_back(&pool, &["#later"]) {
        Err(Error::RollbackRefused { reason: Refusal::Busy, destroyed, .. }) => {
            assert_eq!(destroyed, [pool.full("root#later")]);
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(mark(&pool), None);
}

#[test]
fn a_blank_that_is_larger_than_the_refquota_stops_the_rollback() {
    let Some(pool) = Pool::new() else { return };
    let at = pool.mount_point("at");
    mounted(&pool, &at, || fs::write(at.join("old"), noise(4 << 20)).unwrap());
    run("zfs", &["snapshot", &pool.full("root@blank")]);
    mounted(&pool, &at, || fs::remove_file(at.join("old")).unwrap());
    run("zfs", &["snapshot", &pool.full("root@later")]);
    run("zfs", &["set", "refquota=1m", &pool.root()]);
    // ZFS itself would only look at `later`, which is small, and destroy it.
    assert_refused(&pool, &["@later"], &Refusal::Rollback { source: Errno::DQUOT });
}

#[test]
fn without_a_blank_nothing_is_rolled_back() {
    let Some(pool) = Pool::new() else { return };
    let missing = |name: &str| Refusal::Missing { name: pool.full(name) };
    assert_refused(&pool, &[], &missing("root@blank"));
    run("zfs", &["destroy", &pool.root()]);
    let dataset = pool.root();
    let rollback = Rollback {
        dataset: &dataset,
        blank: "blank",
        destroy_first: &[],
        property: PROPERTY,
        value: "x",
    };
    match pool.zfs.rollback_and_mark(&rollback) {
        Err(Error::RollbackRefused { reason, .. }) => assert_eq!(reason, missing("root")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mark_that_cannot_be_set_stops_the_rollback() {
    let Some(pool) = with_blank() else { return };
    run("zfs", &["snapshot", &pool.full("root@later")]);
    let (dataset, value) = (pool.root(), "x".repeat(9000));
    let rollback = Rollback {
        dataset: &dataset,
        blank: "blank",
        destroy_first: &[pool.full("root@later")],
        property: PROPERTY,
        value: &value,
    };
    match pool.zfs.rollback_and_mark(&rollback) {
        Err(Error::RollbackRefused { reason, .. }) => {
            assert_eq!(reason, Refusal::CannotMark { source: Errno::TOO_BIG });
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(content(&pool), ["new", "old"]);
    assert!(pool.zfs.exists(&pool.full("root@later")).unwrap());
}

#[test]
fn a_snapshot_of_another_dataset_or_the_blank_itself_is_never_on_the_list() {
    let Some(pool) = with_blank() else { return };
    run("zfs", &["create", &pool.full("root/child")]);
    run("zfs", &["snapshot", &pool.full("root/child@x")]);
    for name in ["/child@x", "@blank", "", "2@x"] {
        assert!(matches!(roll_back(&pool, &[name]), Err(Error::InvalidName { .. })), "{name}");
    }
}

#[test]
fn looking_whether_a_rollback_is_possible_changes_nothing() {
    let Some(pool) = with_blank() else { return };
    run("zfs", &["snapshot", &pool.full("root@later")]);
    run("zfs", &["bookmark", &pool.full("root@later"), &pool.full("root#later")]);
    let before = pool.all_marks();
    let dataset = pool.root();
    let destroy_first = [pool.full("root@later"), pool.full("root#later")];
    let mut rollback = Rollback {
        dataset: &dataset,
        blank: "blank",
        destroy_first: &destroy_first,
        property: PROPERTY,
        value: "x",
    };
    pool.zfs.check_rollback(&rollback).unwrap();
    rollback.destroy_first = &[];
    assert!(matches!(
        pool.zfs.check_rollback(&rollback),
        Err(Error::RollbackRefused { reason: Refusal::NewerExist { .. }, .. })
    ));
    assert_eq!((pool.all_marks(), mark(&pool)), (before, None));
    assert_eq!(content(&pool), ["new", "old"]);
}

#[test]
fn a_clone_of_the_blank_survives_the_rollback() {
    let Some(pool) = with_blank() else { return };
    run("zfs", &["clone", &pool.full("root@blank"), &pool.full("stage")]);
    run("zfs", &["snapshot", &pool.full("stage@complete")]);
    roll_back(&pool, &[]).unwrap();
    assert_eq!(content(&pool), ["old"]);
    assert!(pool.zfs.exists(&pool.full("stage@complete")).unwrap());
}

#[test]
fn an_encrypted_dataset_is_rolled_back_without_its_key() {
    let Some(pool) = Pool::new() else { return };
    let key = pool.directory.join("key");
    fs::write(&key, "12345678").unwrap();
    run("zfs", &["destroy", &pool.root()]);
    let location = format!("keylocation=file://{}", key.display());
    run(
        "zfs",
        &[
            "create",
            "-o",
            "encryption=on",
            "-o",
            "keyformat=passphrase",
            "-o",
            &location,
            &pool.root(),
        ],
    );
    let at = pool.mount_point("at");
    run("zfs", &["snapshot", &pool.full("root@blank")]);
    mounted(&pool, &at, || fs::write(at.join("new"), "2").unwrap());
    run("zfs", &["unload-key", &pool.root()]);
    assert!(matches!(
        darlings_zfs::mount(&pool.root(), &at, Access::ReadWrite),
        Err(Error::KeyUnavailable { .. })
    ));
    roll_back(&pool, &[]).unwrap();
    run("zfs", &["load-key", &pool.root()]);
    assert_eq!(content(&pool), Vec::<String>::new());
}
