//! Mounting the top level, making durable, and the errors of both.

use std::fs::File;
use std::path::Path;

use crate::support::{LoopDevice, btrfs, name, on_btrfs, open_directory, run, unmount_patiently};
use darlings_btrfs::{
    Access, ErrorKind, TOP_LEVEL, create_subvolume, delete_subvolume, mount_top_level,
    set_default_subvolume, set_read_only, snapshot, subvolume_id, sync, unmount,
};

#[test]
fn the_top_level_is_mounted_whatever_the_default_is() {
    on_btrfs("the_top_level_is_mounted_whatever_the_default_is", |filesystem| {
        create_subvolume(filesystem.top(), name("live")).unwrap();
        let live = subvolume_id(filesystem.open("live")).unwrap();
        set_default_subvolume(filesystem.top(), live).unwrap();
        let target = filesystem.new_directory("target");
        mount_top_level(filesystem.device(), &target, Access::ReadOnly).unwrap();
        filesystem.adopt(&target);

        assert_eq!(subvolume_id(open_directory(&target)).unwrap(), TOP_LEVEL);
        let error = create_subvolume(open_directory(&target), name("more")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        let options = run("findmnt", &["-no".as_ref(), "OPTIONS".as_ref(), target.as_os_str()]);
        let options: Vec<&str> = options.trim().split(',').collect();
        for option in ["ro", "nosuid", "nodev", "noexec", "noatime", "subvolid=5"] {
            assert!(options.contains(&option), "{option} is not in {options:?}");
        }
    });
}

#[test]
fn a_mount_that_cannot_be_says_which_part_is_wrong() {
    on_btrfs("a_mount_that_cannot_be_says_which_part_is_wrong", |filesystem| {
        let target = filesystem.new_directory("target");
        let file = filesystem.beside().join("file");
        File::create(&file).unwrap().set_len(256 << 20).unwrap();
        let absent = filesystem.beside().join("absent");
        let blank = LoopDevice::attach(&file, &[]);

        let device = filesystem.device();
        let cases: [(&Path, &Path, ErrorKind); 5] = [
            (&absent, &target, ErrorKind::DeviceMissing),
            (&file, &target, ErrorKind::NotABlockDevice),
            (blank.path(), &target, ErrorKind::NotBtrfs),
            (device, &absent, ErrorKind::MountPointMissing),
            (device, &file, ErrorKind::MountPointMissing),
        ];
        for (device, target, kind) in cases {
            let error = mount_top_level(device, target, Access::ReadOnly).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        blank.detach();
    });
}

#[test]
fn a_device_that_cannot_be_written_is_mounted_read_only_or_not_at_all() {
    on_btrfs("a_device_that_cannot_be_written_is_mounted_read_only_or_not_at_all", |filesystem| {
        let target = filesystem.new_directory("target");
        let image = filesystem.beside().join("read-only");
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.btrfs", &["-q".as_ref(), image.as_os_str()]);
        let device = LoopDevice::attach(&image, &["--read-only"]);
        let error = mount_top_level(device.path(), &target, Access::Writable).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        mount_top_level(device.path(), &target, Access::ReadOnly).unwrap();
        unmount(&target).unwrap();
        device.detach();
    });
}

#[test]
fn a_filesystem_with_a_device_missing_says_so() {
    on_btrfs("a_filesystem_with_a_device_missing_says_so", |filesystem| {
        let target = filesystem.new_directory("target");
        let devices = ["first", "second"].map(|image| {
            let image = filesystem.beside().join(image);
            File::create(&image).unwrap().set_len(256 << 20).unwrap();
            LoopDevice::attach(&image, &[])
        });
        let [first, second] = devices;
        let mkfs = ["-q", "-f", "-d", "raid1", "-m", "raid1"].map(AsRef::as_ref);
        let mut arguments = mkfs.to_vec();
        arguments.extend([first.path().as_os_str(), second.path().as_os_str()]);
        run("mkfs.btrfs", &arguments);
        let forget = ["device", "scan", "--forget"].map(AsRef::as_ref);
        let mut arguments = forget.to_vec();
        arguments.push(second.path().as_os_str());
        run("btrfs", &arguments);

        let error = mount_top_level(first.path(), &target, Access::Writable).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceMissing, "{error}");
        btrfs(&["device", "scan", second.path().to_str().unwrap()]);
        mount_top_level(first.path(), &target, Access::Writable).unwrap();
        unmount_patiently(&target).unwrap();
        for device in [&first, &second] {
            btrfs(&["device", "scan", "--forget", device.path().to_str().unwrap()]);
        }
        first.detach();
        second.detach();
    });
}

#[test]
fn unmounting_what_is_busy_or_not_mounted_says_so() {
    on_btrfs("unmounting_what_is_busy_or_not_mounted_says_so", |filesystem| {
        let open = filesystem.top();
        assert_eq!(unmount(&filesystem.path("")).unwrap_err().kind(), ErrorKind::Busy);
        drop(open);
        assert_eq!(unmount(filesystem.beside()).unwrap_err().kind(), ErrorKind::NotMounted);
        let absent = filesystem.beside().join("absent");
        assert_eq!(unmount(&absent).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn what_was_synced_is_on_the_disk() {
    on_btrfs("what_was_synced_is_on_the_disk", |filesystem| {
        create_subvolume(filesystem.top(), name("doomed-subvolume")).unwrap();
        create_subvolume(filesystem.top(), name("live")).unwrap();
        sync(filesystem.top()).unwrap();

        let late = "x".repeat(1234);
        filesystem.write("live/late-file", &late);
        delete_subvolume(filesystem.top(), name("doomed-subvolume")).unwrap();
        let seen = || {
            let records = filesystem.records_on_disk();
            ["name: late-file", "inline extent data size 1234", "name: doomed-subvolume"]
                .map(|wanted| records.contains(wanted))
        };
        // Without a sync none of it is there, so that the next look means something.
        assert_eq!(seen(), [false, false, true]);
        sync(filesystem.top()).unwrap();
        assert_eq!(seen(), [true, true, false]);
    });
}

#[test]
fn a_snapshot_and_the_read_only_flag_are_on_the_disk_without_a_sync() {
    on_btrfs("a_snapshot_and_the_read_only_flag_are_on_the_disk_without_a_sync", |filesystem| {
        let on_disk = |wanted| filesystem.records_on_disk().contains(wanted);
        create_subvolume(filesystem.top(), name("new-subvolume")).unwrap();
        // Making a subvolume alone does not commit.
        assert!(!on_disk("name: new-subvolume"));
        let source = filesystem.open("new-subvolume");
        filesystem.write("new-subvolume/early-file", &"x".repeat(1234));
        snapshot(&source, filesystem.top(), name("new-snapshot"), Access::Writable).unwrap();
        assert!(on_disk("name: new-snapshot"));
        assert!(on_disk("name: new-subvolume"));
        assert!(on_disk("inline extent data size 1234"));
        filesystem.write("new-subvolume/late-file", &"x".repeat(1235));
        assert!(!on_disk("(RDONLY)"));
        set_read_only(&source, true).unwrap();
        assert!(on_disk("(RDONLY)"));
        assert!(on_disk("name: late-file"));
        assert!(!on_disk("inline extent data size 1235"));
    });
}
