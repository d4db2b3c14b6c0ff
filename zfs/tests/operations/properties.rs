//! Properties: reading, setting, clearing.

use darlings_zfs::{Error, Property, Source, Value};

use crate::support::{Pool, get, run, words};

#[test]
fn a_dataset_exists_and_one_that_was_never_made_does_not() {
    let Some(pool) = Pool::new() else { return };
    assert!(pool.zfs.exists(&pool.name).unwrap());
    assert!(pool.zfs.exists(&pool.root()).unwrap());
    assert!(!pool.zfs.exists(&pool.full("nothing")).unwrap());
    assert!(!pool.zfs.exists(&pool.full("nothing/below")).unwrap());
    assert!(!pool.zfs.exists(&pool.full("root@nothing")).unwrap());
    run("zfs", &["snapshot", &pool.full("root@blank")]);
    assert!(pool.zfs.exists(&pool.full("root@blank")).unwrap());
}

#[test]
fn a_native_property_is_what_the_zfs_command_says() {
    let Some(pool) = Pool::new() else { return };
    let root = pool.root();
    for property in ["used", "referenced", "createtxg", "guid", "recordsize", "creation"] {
        let value = get(&root, property).parse().unwrap();
        assert_eq!(pool.zfs.number(&root, property).unwrap(), value, "{property}");
    }
    for property in ["canmount", "type", "compression", "mountpoint", "readonly"] {
        let value = Value::Text(get(&root, property));
        let read = pool.zfs.property(&root, property).unwrap().unwrap();
        assert_eq!(read.value, value, "{property}");
    }
    let said: u64 = get(&root, "available").parse().unwrap();
    assert_eq!(pool.zfs.available(&root).unwrap(), said);
}

#[test]
fn a_guid_above_the_largest_signed_number_is_read_right() {
    let Some(pool) = Pool::new() else { return };
    // Every second guid is one.
    let names: Vec<_> = (0..16).map(|n| pool.full(&format!("root@{n}"))).collect();
    for name in &names {
        run("zfs", &["snapshot", name]);
    }
    let mut large = 0;
    for name in &names {
        let guid: u64 = get(name, "guid").parse().unwrap();
        assert_eq!(pool.zfs.number(name, "guid").unwrap(), guid);
        large += u32::from(i64::try_from(guid).is_err());
    }
    assert!(large > 0, "none of 16 was large");
}

#[test]
fn a_property_tells_where_it_is_from() {
    let Some(pool) = Pool::new() else { return };
    let (root, child) = (pool.root(), pool.full("root/child"));
    run("zfs", &["create", &child]);
    run("zfs", &["set", "compression=lz4", "org.darlings:x=here", &root]);
    let source = |name: &str, property: &str| {
        pool.zfs.property(name, property).unwrap().map(|property| property.source)
    };
    assert_eq!(source(&root, "compression"), Some(Source::Local));
    assert_eq!(source(&child, "compression"), Some(Source::Inherited(root.clone())));
    assert_eq!(source(&child, "atime"), Some(Source::Default));
    assert_eq!(source(&child, "used"), Some(Source::ReadOnly));
    assert_eq!(source(&root, "org.darlings:x"), Some(Source::Local));
    assert_eq!(source(&child, "org.darlings:x"), Some(Source::Inherited(root.clone())));
}

#[test]
fn a_property_that_is_not_there_is_none_and_a_dataset_that_is_not_there_is_an_error() {
    let Some(pool) = Pool::new() else { return };
    let root = pool.root();
    assert_eq!(pool.zfs.property(&root, "org.darlings:nothing").unwrap(), None);
    assert_eq!(pool.zfs.property(&root, "origin").unwrap(), None);
    let nothing = pool.full("nothing");
    assert_eq!(
        words(pool.zfs.property(&nothing, "org.darlings:nothing")),
        format!("cannot read a property of {nothing}: it does not exist")
    );
}

#[test]
fn a_native_property_that_zfs_does_not_know_is_an_error_with_the_words_of_lua() {
    let Some(pool) = Pool::new() else { return };
    let text = words(pool.zfs.property(&pool.root(), "nonsense"));
    assert!(text.contains("'nonsense' is not a valid property"), "{text}");
}

#[test]
fn a_user_property_is_set_and_changed_and_cleared_again() {
    let Some(pool) = Pool::new() else { return };
    let (root, property) = (pool.root(), "org.darlings:state");
    let value = || pool.zfs.property(&root, property).unwrap();
    let local =
        |text: &str| Some(Property { value: Value::Text(text.to_owned()), source: Source::Local });
    pool.zfs.set_user_property(&root, property, "staged 7").unwrap();
    assert_eq!(value(), local("staged 7"));
    assert_eq!(get(&root, property), "staged 7");
    pool.zfs.set_user_property(&root, property, "").unwrap();
    assert_eq!(value(), local(""));
    pool.zfs.clear_user_property(&root, property).unwrap();
    assert_eq!(value(), None);
    // Again, when it is not set.
    pool.zfs.clear_user_property(&root, property).unwrap();
}

#[test]
fn a_user_property_of_a_snapshot_can_be_set() {
    let Some(pool) = Pool::new() else { return };
    let snapshot = pool.full("root@kept");
    run("zfs", &["snapshot", &snapshot]);
    pool.zfs.set_user_property(&snapshot, "org.darlings:x", "1").unwrap();
    assert_eq!(get(&snapshot, "org.darlings:x"), "1");
}

#[test]
fn a_cleared_user_property_shows_the_one_above_again() {
    let Some(pool) = Pool::new() else { return };
    pool.zfs.set_user_property(&pool.name, "org.darlings:x", "above").unwrap();
    pool.zfs.set_user_property(&pool.root(), "org.darlings:x", "here").unwrap();
    pool.zfs.clear_user_property(&pool.root(), "org.darlings:x").unwrap();
    assert_eq!(
        pool.zfs.property(&pool.root(), "org.darlings:x").unwrap(),
        Some(Property {
            value: Value::Text("above".into()),
            source: Source::Inherited(pool.name.clone())
        })
    );
}

#[test]
fn a_value_that_is_too_long_is_an_error_and_not_cut() {
    let Some(pool) = Pool::new() else { return };
    let long = "x".repeat(9000);
    let error = pool.zfs.set_user_property(&pool.root(), "org.darlings:x", &long);
    assert_eq!(
        words(error),
        format!("cannot set a property of {}: Argument list too long (os error 7)", pool.root())
    );
    let error = pool.zfs.set_user_property(&pool.root(), "mountpoint", "none");
    assert!(matches!(error, Err(Error::InvalidName { .. })));
}
