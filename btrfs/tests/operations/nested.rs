//! Finding, opening, and deleting the subvolumes below one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{create_dir, create_dir_all};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::support::{Filesystem, btrfs, name, on_btrfs, open_below, run};
use darlings_btrfs::{
    Access, ErrorKind, TOP_LEVEL, create_subvolume, delete_subvolume_by_id,
    delete_subvolume_recursive, nested_subvolumes, open_subvolume, set_default_subvolume,
    set_read_only, snapshot, subvolume_id, subvolume_path,
};
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;

/// `live`, with subvolumes at three depths, below directories and right in each other.
fn make_live(filesystem: &Filesystem) -> u64 {
    create_subvolume(filesystem.top(), name("live")).unwrap();
    create_dir_all(filesystem.path("live/var/lib")).unwrap();
    create_subvolume(filesystem.open("live"), name("srv")).unwrap();
    create_subvolume(filesystem.open("live/var/lib"), name("machines")).unwrap();
    create_dir(filesystem.path("live/var/lib/machines/one")).unwrap();
    create_subvolume(filesystem.open("live/var/lib/machines/one"), name("root")).unwrap();
    create_subvolume(filesystem.open("live/var/lib/machines/one/root"), name("tmp")).unwrap();
    subvolume_id(filesystem.open("live")).unwrap()
}

const BELOW_LIVE: [&str; 4] =
    ["srv", "var/lib/machines", "var/lib/machines/one/root", "var/lib/machines/one/root/tmp"];

/// What `btrfs subvolume list` says: path by id.
fn listed(filesystem: &Filesystem) -> BTreeMap<u64, PathBuf> {
    let text = btrfs(&["subvolume", "list", filesystem.path("").to_str().unwrap()]);
    text.lines()
        .map(|line| {
            let id = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            (id, line.split_once(" path ").unwrap().1.into())
        })
        .collect()
}

#[test]
fn nested_subvolumes_are_listed_with_their_paths_at_every_depth() {
    on_btrfs("nested_subvolumes_are_listed_with_their_paths_at_every_depth", |filesystem| {
        let live = make_live(filesystem);
        create_subvolume(filesystem.top(), name("beside")).unwrap();
        snapshot(filesystem.open("live"), filesystem.top(), name("copy"), Access::Writable)
            .unwrap();
        set_read_only(filesystem.open("live/srv"), true).unwrap();

        let id = |below: &str| subvolume_id(filesystem.open(below)).unwrap();
        let machines = id("live/var/lib/machines");
        let root = id("live/var/lib/machines/one/root");
        // From a directory inside the subvolume, the paths are from the subvolume's root.
        for asked in ["live", "live/var"] {
            let found = nested_subvolumes(filesystem.open(asked)).unwrap();
            let seen: Vec<_> = found
                .iter()
                .map(|one| (one.id, one.path.to_str().unwrap(), one.parent_id, one.read_only))
                .collect();
            assert_eq!(
                seen,
                [
                    (id("live/srv"), BELOW_LIVE[0], live, true),
                    (machines, BELOW_LIVE[1], live, false),
                    (root, BELOW_LIVE[2], machines, false),
                    (id("live/var/lib/machines/one/root/tmp"), BELOW_LIVE[3], root, false),
                ]
            );
        }
        assert_eq!(nested_subvolumes(filesystem.open("copy")).unwrap(), []);

        let all: BTreeMap<u64, PathBuf> = nested_subvolumes(filesystem.top())
            .unwrap()
            .into_iter()
            .map(|one| (one.id, one.path))
            .collect();
        assert_eq!(all.len(), 7);
        assert_eq!(all, listed(filesystem));
    });
}

#[test]
fn more_subvolumes_than_one_answer_holds_are_all_listed() {
    on_btrfs("more_subvolumes_than_one_answer_holds_are_all_listed", |filesystem| {
        // A record takes 305 bytes with such a name, an answer 16 KiB.
        let expected: Vec<PathBuf> =
            (0..150).map(|number| PathBuf::from(format!("{number:0>255}"))).collect();
        for made in &expected {
            create_subvolume(filesystem.top(), made.as_os_str()).unwrap();
        }
        let found: Vec<PathBuf> =
            nested_subvolumes(filesystem.top()).unwrap().into_iter().map(|one| one.path).collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn a_path_longer_than_the_kernel_takes_and_not_utf8_is_listed_opened_and_deleted() {
    on_btrfs(
        "a_path_longer_than_the_kernel_takes_and_not_utf8_is_listed_opened_and_deleted",
        |filesystem| {
            create_subvolume(filesystem.top(), name("live")).unwrap();
            let names: Vec<OsString> = (1..=20)
                .map(|number| OsString::from_vec([&[0xff; 254][..], &[number]].concat()))
                .collect();
            let mut path = PathBuf::new();
            let mut directory = filesystem.open("live");
            for long in &names {
                mkdirat(&directory, long, Mode::RWXU).unwrap();
                directory = open_below(&directory, long.as_ref());
                path.push(long);
            }
            create_subvolume(&directory, name("bottom")).unwrap();
            path.push("bottom");
            let id = subvolume_id(open_below(&directory, "bottom".as_ref())).unwrap();
            drop(directory);

            let found = nested_subvolumes(filesystem.open("live")).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].path, path);
            assert_eq!(path.as_os_str().len(), 20 * 256 + "bottom".len());
            let opened = open_subvolume(filesystem.top(), id).unwrap();
            assert_eq!(subvolume_id(&opened).unwrap(), id);

            // The kernel finds no way there by the id alone.
            let error = delete_subvolume_by_id(filesystem.top(), id).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::NAMETOOLONG));
            let live = subvolume_id(filesystem.open("live")).unwrap();
            assert_eq!(delete_subvolume_recursive(filesystem.top(), live).unwrap().len(), 1);
            assert_eq!(listed(filesystem), BTreeMap::new());
        },
    );
}

#[test]
fn a_subvolume_is_found_by_its_id_below_an_ancestor_only() {
    on_btrfs("a_subvolume_is_found_by_its_id_below_an_ancestor_only", |filesystem| {
        let live = make_live(filesystem);
        create_subvolume(filesystem.top(), name("beside")).unwrap();
        let root = subvolume_id(filesystem.open("live/var/lib/machines/one/root")).unwrap();

        let path = |ancestor: &str, id| subvolume_path(filesystem.open(ancestor), id);
        assert_eq!(path("", root).unwrap(), PathBuf::from("live").join(BELOW_LIVE[2]));
        assert_eq!(path("live", root).unwrap(), PathBuf::from(BELOW_LIVE[2]));
        assert_eq!(path("live", live).unwrap(), PathBuf::new());
        for (ancestor, id) in [("beside", root), ("live", TOP_LEVEL), ("", 9999)] {
            assert_eq!(path(ancestor, id).unwrap_err().kind(), ErrorKind::NotFound);
        }
        let opened = open_subvolume(filesystem.open("live"), root).unwrap();
        assert_eq!(subvolume_id(opened).unwrap(), root);
    });
}

#[test]
fn deleting_by_id_removes_the_nested_ones_first() {
    on_btrfs("deleting_by_id_removes_the_nested_ones_first", |filesystem| {
        let live = make_live(filesystem);
        create_subvolume(filesystem.top(), name("beside")).unwrap();
        let gone = delete_subvolume_recursive(filesystem.top(), live).unwrap();
        let gone: Vec<_> = gone.iter().map(|one| one.path.to_str().unwrap()).collect();
        assert_eq!(gone, BELOW_LIVE);
        let left: Vec<PathBuf> = listed(filesystem).into_values().collect();
        assert_eq!(left, [PathBuf::from("beside")]);
        let again = delete_subvolume_recursive(filesystem.top(), live).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn deleting_recursively_clears_read_only_and_immutable_flags_on_its_way() {
    on_btrfs(
        "deleting_recursively_clears_read_only_and_immutable_flags_on_its_way",
        |filesystem| {
            let live = make_live(filesystem);
            for guarded in
                ["live/var/lib/machines/one/root/tmp", "live/var/lib/machines/one", "live"]
            {
                run("chattr", &["+i".as_ref(), filesystem.path(guarded).as_os_str()]);
            }
            let append_only = filesystem.path("live/var/lib");
            run("chattr", &["+a".as_ref(), append_only.as_os_str()]);
            for guarded in ["live/var/lib/machines/one/root/tmp", "live/var/lib/machines", "live"] {
                set_read_only(filesystem.open(guarded), true).unwrap();
            }
            let gone = delete_subvolume_recursive(filesystem.top(), live).unwrap();
            assert_eq!(gone.len(), 4);

            // One with nothing nested, whose own root is in the way.
            create_subvolume(filesystem.top(), name("alone")).unwrap();
            run("chattr", &["+i".as_ref(), filesystem.path("alone").as_os_str()]);
            set_read_only(filesystem.open("alone"), true).unwrap();
            let alone = subvolume_id(filesystem.open("alone")).unwrap();
            assert_eq!(delete_subvolume_recursive(filesystem.top(), alone).unwrap(), []);
            assert_eq!(listed(filesystem), BTreeMap::new());
        },
    );
}

#[test]
fn deleting_recursively_deletes_nothing_when_one_of_them_is_the_default() {
    on_btrfs(
        "deleting_recursively_deletes_nothing_when_one_of_them_is_the_default",
        |filesystem| {
            let live = make_live(filesystem);
            let before = listed(filesystem);
            // Not the last in the order of deletion: others would have gone before it.
            let srv = subvolume_id(filesystem.open("live/srv")).unwrap();
            for default in [srv, live] {
                set_default_subvolume(filesystem.top(), default).unwrap();
                let error = delete_subvolume_recursive(filesystem.top(), live).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::IsDefault);
                assert_eq!(listed(filesystem), before);
            }
            set_default_subvolume(filesystem.top(), TOP_LEVEL).unwrap();
            let error = delete_subvolume_recursive(filesystem.top(), TOP_LEVEL).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TopLevel);
            assert_eq!(listed(filesystem), before);
        },
    );
}
