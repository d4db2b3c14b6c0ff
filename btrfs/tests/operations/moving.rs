//! Exchanging and moving subvolumes.

use std::fs::create_dir;
use std::os::unix::fs::MetadataExt;

use crate::support::{Filesystem, name, on_btrfs, open_directory, run};
use darlings_btrfs::{
    Access, ErrorKind, create_subvolume, exchange, is_read_only, rename, rename_noreplace,
    set_read_only, snapshot, subvolume_id,
};

fn make(filesystem: &Filesystem, below: &str) {
    let (parent, last) = below.rsplit_once('/').unwrap_or(("", below));
    create_subvolume(filesystem.open(parent), name(last)).unwrap();
    filesystem.write(&format!("{below}/who"), below);
}

#[test]
fn exchanging_two_subvolumes_swaps_their_whole_content() {
    on_btrfs("exchanging_two_subvolumes_swaps_their_whole_content", |filesystem| {
        create_dir(filesystem.path("directory")).unwrap();
        make(filesystem, "live");
        make(filesystem, "live/nested");
        make(filesystem, "directory/next");
        let id = |below: &str| subvolume_id(filesystem.open(below)).unwrap();
        let (live, next, nested) = (id("live"), id("directory/next"), id("live/nested"));

        exchange(filesystem.top(), name("live"), filesystem.open("directory"), name("next"))
            .unwrap();
        assert_eq!(filesystem.read("live/who"), "directory/next");
        assert_eq!(filesystem.read("directory/next/who"), "live");
        assert_eq!(filesystem.read("directory/next/nested/who"), "live/nested");
        assert!(!filesystem.path("live/nested").exists());
        assert_eq!(
            (id("live"), id("directory/next"), id("directory/next/nested")),
            (next, live, nested)
        );

        let error =
            exchange(filesystem.top(), name("live"), filesystem.top(), name("absent")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(filesystem.read("live/who"), "directory/next");
    });
}

#[test]
fn a_nested_subvolume_moves_across_subvolumes_onto_its_stub_or_an_empty_directory() {
    on_btrfs(
        "a_nested_subvolume_moves_across_subvolumes_onto_its_stub_or_an_empty_directory",
        |filesystem| {
            make(filesystem, "live");
            make(filesystem, "live/nested");
            snapshot(filesystem.open("live"), filesystem.top(), name("next"), Access::Writable)
                .unwrap();
            let (live, next) = (filesystem.open("live"), filesystem.open("next"));
            let id = subvolume_id(filesystem.open("live/nested")).unwrap();

            // Onto the stub.
            assert_eq!(filesystem.path("next/nested").metadata().unwrap().ino(), 2);
            rename(&live, name("nested"), &next, name("nested")).unwrap();
            assert_eq!(subvolume_id(filesystem.open("next/nested")).unwrap(), id);
            assert_eq!(filesystem.read("next/nested/who"), "live/nested");
            assert!(!filesystem.path("live/nested").exists());

            // Onto an empty directory.
            create_dir(filesystem.path("live/empty")).unwrap();
            rename(&next, name("nested"), &live, name("empty")).unwrap();
            assert_eq!(subvolume_id(filesystem.open("live/empty")).unwrap(), id);
            assert!(!filesystem.path("next/nested").exists());

            // Onto nothing.
            rename_noreplace(&live, name("empty"), &next, name("nested")).unwrap();
            assert_eq!(subvolume_id(filesystem.open("next/nested")).unwrap(), id);
        },
    );
}

#[test]
fn a_move_that_cannot_be_changes_nothing_and_says_why() {
    on_btrfs("a_move_that_cannot_be_changes_nothing_and_says_why", |filesystem| {
        make(filesystem, "live");
        make(filesystem, "live/nested");
        create_subvolume(filesystem.top(), name("bare")).unwrap();
        snapshot(filesystem.open("live"), filesystem.top(), name("next"), Access::Writable)
            .unwrap();
        create_dir(filesystem.path("live/directory")).unwrap();
        create_dir(filesystem.path("full")).unwrap();
        filesystem.write("full/file", "");
        let mounted = open_directory(&filesystem.mount_again("mounted", "subvol=live"));
        let (top, live, next) =
            (filesystem.top(), filesystem.open("live"), filesystem.open("next"));
        let nested = (&live, name("nested"));

        for (what, result, kind) in [
            (
                "a directory with content",
                rename(nested.0, nested.1, &top, name("full")),
                ErrorKind::NotEmpty,
            ),
            (
                "a subvolume, even an empty one",
                rename(nested.0, nested.1, &top, name("bare")),
                ErrorKind::NotEmpty,
            ),
            ("a file", rename(nested.0, nested.1, &next, name("who")), ErrorKind::NotADirectory),
            (
                "the stub itself",
                rename(&next, name("nested"), &next, name("other")),
                ErrorKind::NotEmpty,
            ),
            (
                "onto the stub without replacing",
                rename_noreplace(nested.0, nested.1, &next, name("nested")),
                ErrorKind::AlreadyExists,
            ),
            (
                "exchange with the stub",
                exchange(nested.0, nested.1, &next, name("nested")),
                ErrorKind::CrossesMounts,
            ),
            (
                "an ordinary directory across subvolumes",
                rename_noreplace(&live, name("directory"), &next, name("directory")),
                ErrorKind::CrossesMounts,
            ),
            (
                "exchange with an ordinary directory across subvolumes",
                exchange(&top, name("next"), &live, name("directory")),
                ErrorKind::CrossesMounts,
            ),
            (
                "through two mounts of one filesystem",
                exchange(&mounted, name("nested"), &top, name("bare")),
                ErrorKind::CrossesMounts,
            ),
            (
                "into itself",
                rename(&top, name("live"), &live, name("directory")),
                ErrorKind::IntoItself,
            ),
            (
                "by a path",
                rename(&top, name("live/nested"), &top, name("nested")),
                ErrorKind::InvalidName,
            ),
        ] {
            assert_eq!(result.unwrap_err().kind(), kind, "{what}");
        }
        assert_eq!(filesystem.read("live/nested/who"), "live/nested");
        assert_eq!(filesystem.path("next/nested").metadata().unwrap().ino(), 2);
    });
}

#[test]
fn a_read_only_subvolume_keeps_its_directory_until_it_is_writable() {
    on_btrfs("a_read_only_subvolume_keeps_its_directory_until_it_is_writable", |filesystem| {
        make(filesystem, "live");
        make(filesystem, "live/nested");
        make(filesystem, "next");
        create_dir(filesystem.path("live/directory")).unwrap();
        let (live, next) = (filesystem.open("live"), filesystem.open("next"));
        let nested = filesystem.open("live/nested");
        set_read_only(&nested, true).unwrap();

        let across = rename_noreplace(&live, name("nested"), &next, name("nested"));
        assert_eq!(across.unwrap_err().kind(), ErrorKind::ReadOnly);
        let within = filesystem.open("live/directory");
        let down = rename_noreplace(&live, name("nested"), &within, name("nested"));
        assert_eq!(down.unwrap_err().kind(), ErrorKind::ReadOnly);
        rename_noreplace(&live, name("nested"), &live, name("renamed")).unwrap();

        set_read_only(&nested, false).unwrap();
        rename_noreplace(&live, name("renamed"), &next, name("nested")).unwrap();
        set_read_only(&nested, true).unwrap();
        assert_eq!(filesystem.read("next/nested/who"), "live/nested");
        assert!(is_read_only(filesystem.open("next/nested")).unwrap());

        // A read-only parent: nothing in, nothing out.
        set_read_only(&live, true).unwrap();
        set_read_only(&nested, false).unwrap();
        let into = rename_noreplace(&next, name("nested"), &live, name("nested"));
        assert_eq!(into.unwrap_err().kind(), ErrorKind::ReadOnly);
        set_read_only(&next, true).unwrap();
        set_read_only(&live, false).unwrap();
        let out = rename_noreplace(&next, name("nested"), &live, name("nested"));
        assert_eq!(out.unwrap_err().kind(), ErrorKind::ReadOnly);
    });
}

#[test]
fn what_is_mounted_follows_the_subvolume_and_not_its_name() {
    on_btrfs("what_is_mounted_follows_the_subvolume_and_not_its_name", |filesystem| {
        make(filesystem, "live");
        make(filesystem, "next");
        let mounted = filesystem.mount_again("mounted", "subvol=live");
        exchange(filesystem.top(), name("live"), filesystem.top(), name("next")).unwrap();
        assert_eq!(filesystem.read("live/who"), "next");
        assert_eq!(std::fs::read_to_string(mounted.join("who")).unwrap(), "live");
        let shown = run("findmnt", &["-no".as_ref(), "FSROOT".as_ref(), mounted.as_os_str()]);
        assert_eq!(shown.trim(), "/next");

        // Mounting again by the name gets the other one.
        filesystem.unmount(&mounted);
        let again = filesystem.mount_again("again", "subvol=live");
        assert_eq!(std::fs::read_to_string(again.join("who")).unwrap(), "next");
    });
}

#[test]
fn what_has_a_mount_on_it_is_busy() {
    on_btrfs("what_has_a_mount_on_it_is_busy", |filesystem| {
        make(filesystem, "live");
        make(filesystem, "next");
        let target = filesystem.path("live");
        filesystem.mount_over(&target);
        let error =
            exchange(filesystem.top(), name("live"), filesystem.top(), name("next")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        filesystem.unmount(&target);
        assert_eq!(filesystem.read("live/who"), "live");
    });
}
