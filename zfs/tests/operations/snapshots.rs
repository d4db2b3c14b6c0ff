//! Snapshots, bookmarks, children, clones: listing, making, destroying.

use darlings_zfs::{Access, Canmount, Error, Properties, Value};

use crate::support::{Pool, get, run, words};

#[test]
fn snapshots_come_oldest_first_with_what_depends_on_them() {
    let Some(pool) = Pool::new() else { return };
    for name in ["z", "a", "m"] {
        run("zfs", &["snapshot", &pool.full(&format!("root@{name}"))]);
    }
    run("zfs", &["clone", &pool.full("root@a"), &pool.full("one")]);
    run("zfs", &["clone", &pool.full("root@a"), &pool.full("another")]);
    run("zfs", &["hold", "reason", &pool.full("root@m")]);
    let snapshots = pool.zfs.snapshots(&pool.root()).unwrap();
    let brief: Vec<_> = snapshots
        .iter()
        .map(|snapshot| (snapshot.name.as_str(), snapshot.userrefs, snapshot.clones.clone()))
        .collect();
    assert_eq!(
        brief,
        [
            ("z", 0, vec![]),
            ("a", 0, vec![pool.full("another"), pool.full("one")]),
            ("m", 1, vec![]),
        ]
    );
    for snapshot in &snapshots {
        let name = pool.full(&format!("root@{}", snapshot.name));
        assert_eq!(snapshot.createtxg.to_string(), get(&name, "createtxg"));
        assert_eq!(snapshot.guid.to_string(), get(&name, "guid"));
        assert_eq!(snapshot.used.to_string(), get(&name, "used"));
        assert_eq!(snapshot.referenced.to_string(), get(&name, "referenced"));
    }
    run("zfs", &["release", "reason", &pool.full("root@m")]);
}

#[test]
fn a_dataset_without_snapshots_has_an_empty_list_and_no_dataset_has_none() {
    let Some(pool) = Pool::new() else { return };
    assert_eq!(pool.zfs.snapshots(&pool.root()).unwrap(), []);
    assert_eq!(pool.zfs.bookmarks(&pool.root()).unwrap(), []);
    assert_eq!(pool.zfs.children(&pool.root()).unwrap(), Vec::<String>::new());
    let nothing = pool.full("nothing");
    assert!(matches!(pool.zfs.snapshots(&nothing), Err(Error::DatasetMissing { .. })));
    assert!(matches!(pool.zfs.bookmarks(&nothing), Err(Error::DatasetMissing { .. })));
    assert!(matches!(pool.zfs.children(&nothing), Err(Error::DatasetMissing { .. })));
}

#[test]
fn bookmarks_come_oldest_first_with_the_txg_of_their_snapshot() {
    let Some(pool) = Pool::new() else { return };
    for (snapshot, bookmark) in [("a", "z"), ("b", "y")] {
        let snapshot = pool.full(&format!("root@{snapshot}"));
        run("zfs", &["snapshot", &snapshot]);
        run("zfs", &["bookmark", &snapshot, &pool.full(&format!("root#{bookmark}"))]);
    }
    let snapshots = pool.zfs.snapshots(&pool.root()).unwrap();
    let bookmarks = pool.zfs.bookmarks(&pool.root()).unwrap();
    let brief: Vec<_> = bookmarks.iter().map(|b| (b.name.as_str(), b.createtxg, b.guid)).collect();
    assert_eq!(
        brief,
        [
            ("z", snapshots[0].createtxg, snapshots[0].guid),
            ("y", snapshots[1].createtxg, snapshots[1].guid)
        ]
    );
}

#[test]
fn children_are_those_right_below() {
    let Some(pool) = Pool::new() else { return };
    for name in ["root/b", "root/a", "root/a/deep"] {
        run("zfs", &["create", &pool.full(name)]);
    }
    let expected = vec![pool.full("root/a"), pool.full("root/b")];
    assert_eq!(pool.zfs.children(&pool.root()).unwrap(), expected);
}

#[test]
fn a_clone_has_the_properties_that_it_was_made_with() {
    let Some(pool) = Pool::new() else { return };
    let (blank, stage) = (pool.full("root@blank"), pool.full("stage"));
    run("zfs", &["snapshot", &blank]);
    let properties = Properties::new()
        .canmount(Canmount::Noauto)
        .mountpoint("legacy")
        .native("atime", Value::Number(0))
        .user("org.darlings:stage-of", "7");
    pool.zfs.clone(&blank, &stage, &properties).unwrap();
    let got = ["origin", "canmount", "mountpoint", "atime", "org.darlings:stage-of"]
        .map(|property| get(&stage, property));
    assert_eq!(got, [blank.as_str(), "noauto", "legacy", "off", "7"]);
}

#[test]
fn a_clone_that_cannot_be_made_says_which_of_the_two_is_at_fault() {
    let Some(pool) = Pool::new() else { return };
    let blank = pool.full("root@blank");
    run("zfs", &["snapshot", &blank]);
    let clone = |origin: &str, dataset: &str| {
        words(pool.zfs.clone(origin, &pool.full(dataset), &Properties::new()))
    };
    let name = &pool.name;
    assert_eq!(
        clone(&blank, "root"),
        format!("cannot make the clone {name}/root: it exists already")
    );
    assert_eq!(
        clone(&pool.full("root@no"), "stage"),
        format!("cannot clone {name}/root@no: it does not exist")
    );
    assert_eq!(
        clone(&blank, "no/stage"),
        format!("cannot make the clone below {name}/no: it does not exist")
    );
}

#[test]
fn a_clone_whose_properties_are_refused_is_not_left_behind() {
    let Some(pool) = Pool::new() else { return };
    let (blank, stage) = (pool.full("root@blank"), pool.full("stage"));
    run("zfs", &["snapshot", &blank]);
    let properties = Properties::new().native("canmount", Value::Text("noauto".into()));
    let text = words(pool.zfs.clone(&blank, &stage, &properties));
    assert_eq!(text, format!("cannot make the clone {stage}: Invalid argument (os error 22)"));
    assert!(!pool.zfs.exists(&stage).unwrap());
}

#[test]
fn snapshots_are_taken_together_with_their_properties() {
    let Some(pool) = Pool::new() else { return };
    run("zfs", &["create", &pool.full("home")]);
    let (one, two) = (pool.full("root@kept"), pool.full("home@kept"));
    let properties = Properties::new().user("org.darlings:generation", "3");
    pool.zfs.snapshot(&[&one, &two], &properties).unwrap();
    assert_eq!(get(&one, "org.darlings:generation"), "3");
    assert_eq!(get(&two, "org.darlings:generation"), "3");
    assert_eq!(get(&one, "createtxg"), get(&two, "createtxg"));
}

#[test]
fn when_one_snapshot_cannot_be_taken_none_is_and_the_error_names_it() {
    let Some(pool) = Pool::new() else { return };
    run("zfs", &["create", &pool.full("home")]);
    let (one, two) = (pool.full("home@kept"), pool.full("root@kept"));
    run("zfs", &["snapshot", &two]);
    assert_eq!(
        words(pool.zfs.snapshot(&[&one, &two], &Properties::new())),
        format!("cannot take the snapshot {two}: it exists already")
    );
    assert!(!pool.zfs.exists(&one).unwrap());
}

#[test]
fn what_others_depend_on_is_not_destroyed_and_the_error_names_them() {
    let Some(pool) = Pool::new() else { return };
    let (root, blank, stage) = (pool.root(), pool.full("root@blank"), pool.full("stage"));
    run("zfs", &["snapshot", &blank]);
    run("zfs", &["clone", &blank, &stage]);
    run("zfs", &["create", &pool.full("stage/child")]);
    let dependents = |name: &str| match pool.zfs.destroy(name) {
        Err(Error::HasDependents { dependents, .. }) => dependents,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(dependents(&root), [blank.as_str()]);
    assert_eq!(dependents(&blank), [stage.as_str()]);
    assert_eq!(dependents(&stage), [pool.full("stage/child")]);
    pool.zfs.destroy(&pool.full("stage/child")).unwrap();
    pool.zfs.destroy(&stage).unwrap();
    pool.zfs.destroy(&blank).unwrap();
    pool.zfs.destroy(&root).unwrap();
    assert!(!pool.zfs.exists(&root).unwrap());
}

#[test]
fn what_is_mounted_or_held_or_missing_is_not_destroyed() {
    let Some(pool) = Pool::new() else { return };
    let (root, held) = (pool.root(), pool.full("root@held"));
    run("zfs", &["snapshot", &held]);
    run("zfs", &["hold", "reason", &held]);
    assert_eq!(
        words(pool.zfs.destroy(&held)),
        format!("cannot destroy {held}: it is in use (mounted, held, or being sent or received)")
    );
    run("zfs", &["release", "reason", &held]);
    pool.zfs.destroy(&held).unwrap();

    let at = pool.mount_point("at");
    darlings_zfs::mount(&root, &at, Access::ReadWrite).unwrap();
    assert!(matches!(pool.zfs.destroy(&root), Err(Error::Busy { .. })));
    darlings_zfs::unmount(&at).unwrap();
    pool.zfs.destroy(&root).unwrap();
    assert_eq!(words(pool.zfs.destroy(&root)), format!("cannot destroy {root}: it does not exist"));
    assert!(matches!(pool.zfs.destroy(&held), Err(Error::DatasetMissing { .. })));
}
