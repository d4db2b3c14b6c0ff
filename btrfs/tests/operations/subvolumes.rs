//! Making, reading, and deleting single subvolumes.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::support::{Filesystem, btrfs, name, on_btrfs, open_directory, run};
use darlings_btrfs::{
    Access, EntryKind, ErrorKind, NotAUuid, TOP_LEVEL, Uuid, create_subvolume, default_subvolume,
    delete_subvolume, delete_subvolume_by_id, entry_kind, filesystem_uuid, is_btrfs, is_read_only,
    set_default_subvolume, set_read_only, snapshot, subvolume_id, subvolume_info,
    subvolume_with_uuid,
};

fn chattr(change: &str, path: &Path) {
    run("chattr", &[change.as_ref(), path.as_os_str()]);
}

/// The value of a line `Key:   value` of `btrfs subvolume show`.
fn shown(filesystem: &Filesystem, below: &str, key: &str) -> String {
    let path = filesystem.path(below);
    let text = btrfs(&["subvolume", "show", path.to_str().unwrap()]);
    text.lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("{key} is not in {text}"))
        .trim()
        .to_owned()
}

#[test]
fn a_new_subvolume_is_what_the_btrfs_command_says_it_is() {
    on_btrfs("a_new_subvolume_is_what_the_btrfs_command_says_it_is", |filesystem| {
        create_subvolume(filesystem.top(), name("live")).unwrap();
        let live = filesystem.open("live");
        snapshot(&live, filesystem.top(), name("copy"), Access::ReadOnly).unwrap();
        let info = subvolume_info(filesystem.open("copy")).unwrap();

        assert_eq!(info.id.to_string(), shown(filesystem, "copy", "Subvolume ID"));
        assert_eq!(info.id, subvolume_id(filesystem.open("copy")).unwrap());
        assert_eq!(info.parent_id, Some(TOP_LEVEL));
        assert_eq!(info.dir_id, Some(256));
        assert_eq!(info.name, name("copy"));
        assert_eq!(info.generation.to_string(), shown(filesystem, "copy", "Generation"));
        assert!(info.read_only);
        assert_eq!(info.uuid.unwrap().to_string(), shown(filesystem, "copy", "UUID"));
        assert_eq!(info.parent_uuid.unwrap().to_string(), shown(filesystem, "live", "UUID"));
        assert_eq!(info.received_uuid, None);

        let top = subvolume_info(filesystem.top()).unwrap();
        assert_eq!((top.id, top.parent_id, top.dir_id), (TOP_LEVEL, None, None));
        assert_eq!(top.name, name(""));
    });
}

#[test]
fn a_subvolume_is_found_by_its_uuid_wherever_it_is_until_it_is_deleted() {
    on_btrfs("a_subvolume_is_found_by_its_uuid_wherever_it_is_until_it_is_deleted", |filesystem| {
        create_subvolume(filesystem.top(), name("live")).unwrap();
        snapshot(filesystem.open("live"), filesystem.top(), name("copy"), Access::Writable)
            .unwrap();
        let [live, copy] = ["live", "copy"].map(|it| subvolume_info(filesystem.open(it)).unwrap());
        for info in [&live, &copy] {
            let uuid = info.uuid.unwrap();
            assert_eq!(subvolume_with_uuid(filesystem.top(), uuid).unwrap(), Some(info.id));
            assert_eq!(uuid.to_string().parse(), Ok(uuid));
        }
        std::fs::rename(filesystem.path("live"), filesystem.path("moved")).unwrap();
        let uuid = live.uuid.unwrap();
        assert_eq!(subvolume_with_uuid(filesystem.top(), uuid).unwrap(), Some(live.id));
        delete_subvolume(filesystem.top(), name("moved")).unwrap();
        assert_eq!(subvolume_with_uuid(filesystem.top(), uuid).unwrap(), None);

        for text in ["", "1", &uuid.to_string()[1..], &format!("{uuid}0"), &format!(" {uuid}")] {
            assert_eq!(text.parse::<Uuid>(), Err(NotAUuid), "{text:?}");
        }
    });
}

#[test]
fn the_filesystem_is_recognised_and_has_the_uuid_that_blkid_reads() {
    on_btrfs("the_filesystem_is_recognised_and_has_the_uuid_that_blkid_reads", |filesystem| {
        assert!(is_btrfs(filesystem.top()).unwrap());
        // The directory of the test may be on btrfs itself: ask a filesystem that is not.
        assert!(!is_btrfs(open_directory(Path::new("/proc"))).unwrap());
        let uuid = run(
            "blkid",
            &["-o", "value", "-s", "UUID"]
                .map(OsStr::new)
                .into_iter()
                .chain([filesystem.device().as_os_str()])
                .collect::<Vec<_>>(),
        );
        assert_eq!(filesystem_uuid(filesystem.top()).unwrap().to_string(), uuid.trim());
        let error = subvolume_id(open_directory(Path::new("/proc"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotBtrfs);
    });
}

#[test]
fn a_snapshot_has_the_content_and_a_stub_for_each_nested_subvolume() {
    on_btrfs("a_snapshot_has_the_content_and_a_stub_for_each_nested_subvolume", |filesystem| {
        create_subvolume(filesystem.top(), name("live")).unwrap();
        filesystem.write("live/file", "content");
        create_subvolume(filesystem.open("live"), name("nested")).unwrap();
        snapshot(filesystem.open("live"), filesystem.top(), name("copy"), Access::Writable)
            .unwrap();

        assert_eq!(filesystem.read("copy/file"), "content");
        // The source may be reached through another mount than the target.
        let mounted = open_directory(&filesystem.mount_again("mounted", "subvol=live"));
        snapshot(&mounted, filesystem.top(), name("other"), Access::Writable).unwrap();
        assert_eq!(filesystem.read("other/file"), "content");
        let inode = |below| filesystem.path(below).symlink_metadata().unwrap().ino();
        assert_eq!(entry_kind(inode("live/nested")), EntryKind::SubvolumeRoot);
        assert_eq!(entry_kind(inode("copy/nested")), EntryKind::Stub);
        assert_eq!(entry_kind(inode("copy/file")), EntryKind::Ordinary);

        let stub = filesystem.open("copy/nested");
        assert!(is_btrfs(&stub).unwrap());
        assert_eq!(subvolume_id(&stub).unwrap_err().kind(), ErrorKind::Stub);
        assert_eq!(subvolume_info(&stub).unwrap_err().kind(), ErrorKind::Stub);
        assert_eq!(create_subvolume(&stub, name("in-it")).unwrap_err().kind(), ErrorKind::Stub);
        assert_eq!(
            snapshot(&stub, filesystem.top(), name("of-it"), Access::Writable).unwrap_err().kind(),
            ErrorKind::Stub
        );
        assert_eq!(
            delete_subvolume(filesystem.open("copy"), name("nested")).unwrap_err().kind(),
            ErrorKind::NotASubvolume
        );
    });
}

#[test]
fn only_the_root_of_a_subvolume_can_be_snapshotted() {
    on_btrfs("only_the_root_of_a_subvolume_can_be_snapshotted", |filesystem| {
        std::fs::create_dir(filesystem.path("directory")).unwrap();
        let directory = filesystem.open("directory");
        let error =
            snapshot(&directory, filesystem.top(), name("copy"), Access::Writable).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotASubvolume);
        assert_eq!(error.to_string(), "making snapshot \"copy\": this is not a subvolume");
        assert_eq!(set_read_only(&directory, true).unwrap_err().kind(), ErrorKind::NotASubvolume);
        assert!(!filesystem.path("copy").exists());
    });
}

#[test]
fn a_name_is_one_component() {
    on_btrfs("a_name_is_one_component", |filesystem| {
        let long = "n".repeat(256);
        for wrong in ["", ".", "..", "a/b", "/", "a\0b", long.as_str()] {
            let error = create_subvolume(filesystem.top(), name(wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{wrong:?}");
            assert_eq!(error.errno(), None);
        }
        let longest = "n".repeat(255);
        create_subvolume(filesystem.top(), name(&longest)).unwrap();
        let error = create_subvolume(filesystem.top(), name(&longest)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(error.errno(), Some(rustix::io::Errno::EXIST));
    });
}

#[test]
fn the_read_only_flag_holds_on_every_mount_at_once() {
    on_btrfs("the_read_only_flag_holds_on_every_mount_at_once", |filesystem| {
        create_subvolume(filesystem.top(), name("live")).unwrap();
        let mounted = filesystem.mount_again("mounted", "subvol=live");
        let live = filesystem.open("live");
        assert!(!is_read_only(&live).unwrap());

        set_read_only(&live, true).unwrap();
        assert!(is_read_only(&live).unwrap());
        assert!(subvolume_info(&live).unwrap().read_only);
        let error = std::fs::write(mounted.join("file"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

        set_read_only(&live, false).unwrap();
        std::fs::write(mounted.join("file"), "x").unwrap();
        assert!(!is_read_only(&live).unwrap());
    });
}

#[test]
fn a_received_subvolume_keeps_its_received_uuid_through_writable_and_back() {
    on_btrfs(
        "a_received_subvolume_keeps_its_received_uuid_through_writable_and_back",
        |filesystem| {
            for made in ["from", "to"] {
                create_subvolume(filesystem.top(), name(made)).unwrap();
            }
            set_read_only(filesystem.open("from"), true).unwrap();
            let pipe = format!(
                "btrfs send -q '{}' | btrfs receive -q '{}'",
                filesystem.path("from").display(),
                filesystem.path("to").display()
            );
            run("sh", &["-c".as_ref(), pipe.as_ref()]);

            let received = filesystem.open("to/from");
            let sent = subvolume_info(filesystem.open("from")).unwrap().uuid;
            let before = subvolume_info(&received).unwrap();
            assert!(before.read_only);
            assert_eq!(before.received_uuid, sent);
            set_read_only(&received, false).unwrap();
            assert_eq!(subvolume_info(&received).unwrap().received_uuid, sent);
            set_read_only(&received, true).unwrap();
            assert_eq!(subvolume_info(&received).unwrap().received_uuid, sent);

            snapshot(&received, filesystem.top(), name("copy"), Access::Writable).unwrap();
            assert_eq!(subvolume_info(filesystem.open("copy")).unwrap().received_uuid, None);
        },
    );
}

#[test]
fn deleting_says_what_is_in_the_way() {
    on_btrfs("deleting_says_what_is_in_the_way", |filesystem| {
        let top = filesystem.top();
        create_subvolume(&top, name("outer")).unwrap();
        create_subvolume(filesystem.open("outer"), name("inner")).unwrap();
        std::fs::create_dir(filesystem.path("directory")).unwrap();
        filesystem.write("file", "");
        symlink("outer/inner", filesystem.path("link")).unwrap();
        let outer = subvolume_id(filesystem.open("outer")).unwrap();
        let inner = subvolume_id(filesystem.open("outer/inner")).unwrap();

        for (wrong, kind) in [
            ("outer", ErrorKind::HasNestedSubvolumes),
            ("directory", ErrorKind::NotASubvolume),
            ("file", ErrorKind::NotASubvolume),
            ("link", ErrorKind::NotASubvolume),
            ("absent", ErrorKind::NotFound),
        ] {
            assert_eq!(delete_subvolume(&top, name(wrong)).unwrap_err().kind(), kind, "{wrong}");
        }
        for (wrong, kind) in [
            (outer, ErrorKind::HasNestedSubvolumes),
            (TOP_LEVEL, ErrorKind::TopLevel),
            (0, ErrorKind::NotFound),
            (9999, ErrorKind::NotFound),
        ] {
            assert_eq!(delete_subvolume_by_id(&top, wrong).unwrap_err().kind(), kind, "{wrong}");
        }

        set_read_only(filesystem.open("outer"), true).unwrap();
        assert_eq!(delete_subvolume_by_id(&top, inner).unwrap_err().kind(), ErrorKind::ReadOnly);
        set_read_only(filesystem.open("outer"), false).unwrap();

        set_read_only(filesystem.open("outer/inner"), true).unwrap();
        delete_subvolume_by_id(&top, inner).unwrap();
        delete_subvolume(&top, name("outer")).unwrap();
        assert!(!filesystem.path("outer").exists());
    });
}

#[test]
fn immutable_flags_matter_on_the_root_and_the_directory_above_and_not_inside() {
    on_btrfs(
        "immutable_flags_matter_on_the_root_and_the_directory_above_and_not_inside",
        |filesystem| {
            std::fs::create_dir(filesystem.path("above")).unwrap();
            let above = filesystem.open("above");
            create_subvolume(&above, name("doomed")).unwrap();
            filesystem.write("above/doomed/file", "");
            chattr("+i", &filesystem.path("above/doomed/file"));

            for guarded in ["above", "above/doomed"] {
                for flag in ["i", "a"] {
                    chattr(&format!("+{flag}"), &filesystem.path(guarded));
                    let error = delete_subvolume(&above, name("doomed")).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::NotPermitted, "{guarded} {flag}");
                    chattr(&format!("-{flag}"), &filesystem.path(guarded));
                }
            }
            delete_subvolume(&above, name("doomed")).unwrap();
            assert!(!filesystem.path("above/doomed").exists());
        },
    );
}

#[test]
fn the_default_subvolume_is_the_one_set_and_is_not_deleted() {
    on_btrfs("the_default_subvolume_is_the_one_set_and_is_not_deleted", |filesystem| {
        let top = filesystem.top();
        assert_eq!(default_subvolume(&top).unwrap(), TOP_LEVEL);
        create_subvolume(&top, name("live")).unwrap();
        filesystem.write("live/who", "live");
        let id = subvolume_id(filesystem.open("live")).unwrap();

        set_default_subvolume(&top, id).unwrap();
        assert_eq!(default_subvolume(&top).unwrap(), id);
        let said = btrfs(&["subvolume", "get-default", filesystem.path("").to_str().unwrap()]);
        assert!(said.starts_with(&format!("ID {id} ")), "{said}");
        let mounted = filesystem.mount_again("mounted", "defaults");
        assert_eq!(std::fs::read_to_string(mounted.join("who")).unwrap(), "live");

        let by_name = delete_subvolume(&top, name("live")).unwrap_err();
        let by_id = delete_subvolume_by_id(&top, id).unwrap_err();
        for error in [by_name, by_id] {
            assert_eq!(error.kind(), ErrorKind::IsDefault);
            assert_eq!(error.errno(), Some(rustix::io::Errno::PERM));
        }
        assert_eq!(set_default_subvolume(&top, 9999).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(default_subvolume(&top).unwrap(), id);
        set_default_subvolume(&top, TOP_LEVEL).unwrap();
        assert_eq!(default_subvolume(&top).unwrap(), TOP_LEVEL);
    });
}

#[test]
fn btrfs_deletes_a_mounted_subvolume_without_a_word() {
    on_btrfs("btrfs_deletes_a_mounted_subvolume_without_a_word", |filesystem| {
        create_subvolume(filesystem.top(), name("live")).unwrap();
        let mounted = filesystem.mount_again("mounted", "subvol=live");
        delete_subvolume(filesystem.top(), name("live")).unwrap();
        let error = std::fs::write(mounted.join("file"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        let gone = open_directory(&mounted);
        assert_eq!(subvolume_info(&gone).unwrap_err().kind(), ErrorKind::NotFound);

        // Nor does something that is mounted on it stop it: that mount is gone, too.
        create_subvolume(filesystem.top(), name("below")).unwrap();
        let below = filesystem.path("below");
        filesystem.mount_over(&below);
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let shown = format!(" {} ", below.display());
        assert!(mounts().contains(&shown));
        delete_subvolume(filesystem.top(), name("below")).unwrap();
        assert!(!mounts().contains(&shown));
        filesystem.disown(&below);
    });
}
