//! The comparison can fail: for each attribute that a file on btrfs can have, just that one is
//! changed, and the comparison must say exactly that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::plant::{self, example_acl, file_capability};
use darlings_testkit::{Attribute, Flags, Time, capability, capture, remove, skip_unless};
use rustix::fs::FileType;

/// A change of one attribute, and the line that the comparison must give.
type Change = (Attribute, fn(&Path) -> Result<()>, &'static str);

const EARLY: Time = Time { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
const LATER: Time = Time { seconds: 1_000_000_000, nanoseconds: 123_456_790 };

/// What every change starts from, with all times set to `EARLY`.
fn prepare(dir: &Path) -> Result<()> {
    plant::file(&dir.join("file"), &vec![b'x'; 20_000], Flags::default())?;
    plant::file(&dir.join("empty"), b"", Flags::default())?;
    std::fs::create_dir(dir.join("dir"))?;
    std::os::unix::fs::symlink("file", dir.join("symlink"))?;
    plant::node(&dir.join("device"), FileType::CharacterDevice, 1, 3)?;
    settle(dir)
}

fn settle(dir: &Path) -> Result<()> {
    for name in ["file", "empty", "dir", "symlink", "device", "."] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            plant::times(&path, EARLY, EARLY)?;
        }
    }
    Ok(())
}

const CHANGES: [Change; 34] = [
    (
        Attribute::Existence,
        |dir| Ok(std::fs::remove_file(dir.join("empty"))?),
        "empty: existence file != absent\n",
    ),
    (
        Attribute::Existence,
        |dir| {
            Ok(plant::node(&dir.join("fifo"), FileType::Fifo, 0, 0)
                .and_then(|()| plant::times(&dir.join("fifo"), EARLY, EARLY))?)
        },
        "fifo: existence absent != fifo\n",
    ),
    (
        Attribute::Type,
        |dir| {
            std::fs::remove_file(dir.join("empty"))?;
            Ok(plant::node(&dir.join("empty"), FileType::Socket, 0, 0)?)
        },
        "empty: type file != socket\n",
    ),
    (
        Attribute::Bytes,
        |dir| {
            let file = std::fs::OpenOptions::new().write(true).open(dir.join("file"))?;
            Ok(std::os::unix::fs::FileExt::write_all_at(&file, b"y", 19_999)?)
        },
        "file: bytes 20000 (sha256 42e8bc96b8ee) != 20000 (sha256 190e99b70445)\n",
    ),
    (
        Attribute::SymlinkTarget,
        |dir| {
            std::fs::remove_file(dir.join("symlink"))?;
            Ok(std::os::unix::fs::symlink(std::ffi::OsStr::new("f\nle"), dir.join("symlink"))?)
        },
        "symlink: symlink target file != f\\x0ale\n",
    ),
    (
        Attribute::DeviceNumber,
        |dir| {
            std::fs::remove_file(dir.join("device"))?;
            Ok(plant::node(&dir.join("device"), FileType::CharacterDevice, 1, 5)?)
        },
        "device: device number 1:3 != 1:5\n",
    ),
    (
        Attribute::Owner,
        |dir| Ok(plant::owner(&dir.join("symlink"), 7, 0)?),
        "symlink: owner 0 != 7\n",
    ),
    (
        Attribute::Group,
        |dir| Ok(plant::owner(&dir.join("device"), 0, 7)?),
        "device: group 0 != 7\n",
    ),
    (
        Attribute::Mode,
        |dir| Ok(plant::mode(&dir.join("file"), 0o600)?),
        "file: mode 0644 != 0600\n",
    ),
    (
        Attribute::Mode,
        |dir| Ok(plant::mode(&dir.join("file"), 0o4644)?),
        "file: mode 0644 != 4644\n",
    ),
    (Attribute::Mode, |dir| Ok(plant::mode(&dir.join("dir"), 0o1755)?), "dir: mode 0755 != 1755\n"),
    (
        Attribute::ModificationTime,
        |dir| Ok(plant::times(&dir.join("dir"), EARLY, LATER)?),
        "dir: mtime 1000000000.123456789 != 1000000000.123456790\n",
    ),
    (
        Attribute::AccessTime,
        |dir| Ok(plant::times(&dir.join("symlink"), LATER, EARLY)?),
        "symlink: atime 1000000000.123456789 != 1000000000.123456790\n",
    ),
    (
        Attribute::FileCapability,
        |dir| Ok(plant::xattr(&dir.join("file"), "security.capability", &file_capability(13))?),
        "file: security.capability absent != \"\\x01\\x00\\x00\\x02\\x00 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\"\n",
    ),
    (
        Attribute::SecurityLabel,
        |dir| Ok(plant::xattr(&dir.join("symlink"), "security.selinux", b"label\0")?),
        "symlink: security.selinux absent != \"label\\x00\"\n",
    ),
    (
        Attribute::UserXattr,
        |dir| Ok(plant::xattr(&dir.join("dir"), "user.empty", b"")?),
        "dir: user.empty absent != \"\"\n",
    ),
    (
        Attribute::TrustedXattr,
        |dir| Ok(plant::xattr(&dir.join("device"), "trusted.keep", b"\xff")?),
        "device: trusted.keep absent != \"\\xff\"\n",
    ),
    (
        Attribute::OtherXattr,
        |dir| Ok(plant::xattr(&dir.join("empty"), "btrfs.compression", b"zstd")?),
        "empty: btrfs.compression absent != \"zstd\"\nempty: compress clear != set\n",
    ),
    (
        Attribute::AccessAcl,
        |dir| {
            Ok(plant::xattr(&dir.join("dir"), "system.posix_acl_access", &example_acl(8, 9))
                .and_then(|()| plant::mode(&dir.join("dir"), 0o755))?)
        },
        "dir: system.posix_acl_access absent != \"\\x02\\x00\\x00\\x00\\x01\\x00\\x07\\x00\\xff\\xff\\xff\\xff\\x02\\x00\\x06\\x00\\x08\\x00\\x00\\x00\\x04\\x00\\x05\\x00\\xff\\xff\\xff\\xff\\x08\\x00\\x05\\x00\\x09\\x00\\x00\\x00\\x10\\x00\\x05\\x00\\xff\\xff\\xff\\xff \\x00\\x05\\x00\\xff\\xff\\xff\\xff\"\n",
    ),
    (
        Attribute::DefaultAcl,
        |dir| {
            Ok(plant::xattr(
                &dir.join("dir"),
                "system.posix_acl_default",
                &plant::acl_bytes(&[(1, 7, u32::MAX), (4, 5, u32::MAX), (0x20, 0, u32::MAX)]),
            )?)
        },
        "dir: system.posix_acl_default absent != \"\\x02\\x00\\x00\\x00\\x01\\x00\\x07\\x00\\xff\\xff\\xff\\xff\\x04\\x00\\x05\\x00\\xff\\xff\\xff\\xff \\x00\\x00\\x00\\xff\\xff\\xff\\xff\"\n",
    ),
    (
        Attribute::HardLinks,
        |dir| {
            std::fs::remove_file(dir.join("second"))?;
            Ok(plant::file(&dir.join("second"), b"linked", Flags::default())
                .and_then(|()| plant::times(&dir.join("second"), EARLY, EARLY))?)
        },
        "first: hard links 2 as first != none\nsecond: hard links 2 as first != none\n",
    ),
    (
        Attribute::Holes,
        |dir| {
            let file = std::fs::OpenOptions::new().write(true).open(dir.join("zeros"))?;
            let flags =
                rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&file, flags, 8192, 4096)
                .map(|()| drop(file))
                .map_err(std::io::Error::from)
                .and_then(|()| plant::times(&dir.join("zeros"), EARLY, EARLY))?)
        },
        "zeros: holes none != 8192..12288\n",
    ),
    (
        Attribute::Immutable,
        |dir| Ok(plant::flag(&dir.join("file"), Attribute::Immutable)?),
        "file: immutable clear != set\n",
    ),
    (
        Attribute::Immutable,
        |dir| Ok(plant::flag(&dir.join("dir"), Attribute::Immutable)?),
        "dir: immutable clear != set\n",
    ),
    (
        Attribute::AppendOnly,
        |dir| Ok(plant::flag(&dir.join("dir"), Attribute::AppendOnly)?),
        "dir: append-only clear != set\n",
    ),
    (
        Attribute::AppendOnly,
        |dir| Ok(plant::flag(&dir.join("file"), Attribute::AppendOnly)?),
        "file: append-only clear != set\n",
    ),
    (
        Attribute::NoCow,
        |dir| Ok(plant::flag(&dir.join("empty"), Attribute::NoCow)?),
        "empty: nocow clear != set\n",
    ),
    (
        Attribute::NoCow,
        |dir| Ok(plant::flag(&dir.join("dir"), Attribute::NoCow)?),
        "dir: nocow clear != set\n",
    ),
    (
        Attribute::Compress,
        |dir| Ok(plant::flag(&dir.join("dir"), Attribute::Compress)?),
        "dir: btrfs.compression absent != \"zlib\"\ndir: compress clear != set\n",
    ),
    (
        Attribute::NoCompress,
        |dir| Ok(plant::flag(&dir.join("file"), Attribute::NoCompress)?),
        "file: nocompress clear != set\n",
    ),
    (
        Attribute::NoDump,
        |dir| Ok(plant::flag(&dir.join("dir"), Attribute::NoDump)?),
        "dir: nodump clear != set\n",
    ),
    (
        Attribute::NoAccessTime,
        |dir| Ok(plant::flag(&dir.join("file"), Attribute::NoAccessTime)?),
        "file: noatime clear != set\n",
    ),
    (
        Attribute::Synchronous,
        |dir| Ok(plant::flag(&dir.join("file"), Attribute::Synchronous)?),
        "file: sync clear != set\n",
    ),
    (
        Attribute::SynchronousDirectory,
        |dir| Ok(plant::flag(&dir.join("dir"), Attribute::SynchronousDirectory)?),
        "dir: dirsync clear != set\n",
    ),
];

#[test]
fn a_change_of_any_single_attribute_is_told_in_exactly_one_line() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let mut wrong = String::new();
    for (number, (attribute, change, line)) in CHANGES.into_iter().enumerate() {
        let dir = fs.path().join(number.to_string());
        std::fs::create_dir(&dir)?;
        prepare(&dir)?;
        if attribute == Attribute::HardLinks {
            plant::file(&dir.join("first"), b"linked", Flags::default())?;
            std::fs::hard_link(dir.join("first"), dir.join("second"))?;
            plant::times(&dir.join("first"), EARLY, EARLY)?;
        }
        if attribute == Attribute::Holes {
            plant::file(&dir.join("zeros"), &vec![0; 20_000], Flags::default())?;
            plant::times(&dir.join("zeros"), EARLY, EARLY)?;
        }
        plant::times(&dir, EARLY, EARLY)?;
        let before = capture(&dir)?;
        change(&dir).with_context(|| format!("change {number}, {attribute}"))?;
        let timed = [Attribute::ModificationTime, Attribute::AccessTime];
        let locked = [Attribute::Immutable, Attribute::AppendOnly];
        if !timed.contains(&attribute) && !locked.contains(&attribute) {
            settle(&dir)?;
        }
        let found = before.diff(&capture(&dir)?);
        let lines = darlings_testkit::difference::lines(&found);
        if lines != line || !found.iter().any(|difference| difference.attribute == attribute) {
            write!(wrong, "{number} {attribute}:\n  expected {line:?}\n  found    {lines:?}\n")?;
        }
    }
    remove::contents(fs.path())?;
    fs.close()?;
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

#[test]
fn every_attribute_of_btrfs_has_its_change() {
    let covered: BTreeSet<Attribute> = CHANGES.iter().map(|(attribute, _, _)| *attribute).collect();
    let mut missing = Attribute::ON_BTRFS.iter().filter(|attribute| !covered.contains(attribute));
    assert_eq!(missing.next(), None);
}
