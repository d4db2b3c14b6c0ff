//! What a configuration may say, and what is said of one that is wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use super::backing::{default_generations, is_given_among_generations};
use super::*;

const ROOT: &str = r#"
[[volume]]
mount_point = "/"
zfs = { dataset = "rpool/local/root", blank = "blank" }

[[volume]]
mount_point = "/home/"
btrfs = { device = "/dev/vda", subvolume = "/@home", blank = "@blank/home" }
keep = { generations = 10, days = 30 }
"#;

fn read(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("darlings.toml");
    std::fs::write(&path, text).unwrap();
    let shown = format!("{}/", directory.path().display());
    Config::read(&path).map_err(|error| error.to_string().replace(&shown, ""))
}

fn wrong(text: &str) -> String {
    read(text).unwrap_err()
}

#[test]
fn a_persisted_path_belongs_to_the_volume_with_the_longest_mount_point() {
    let text = format!(
        "{ROOT}
            [[persist]]
            path = \"/var/log/\"
            [[persist]]
            path = \"//home/mia/./projects\"
            exclude = [\"a//b/\"]
            [[persist]]
            path = \"/homestead\""
    );
    let config = read(&text).unwrap();
    assert_eq!(config.on_failure, OnFailure::Boot);
    let paths = |volume: usize| -> Vec<PathBuf> {
        config.volumes[volume].rules.persisted().into_iter().map(|path| path.path).collect()
    };
    assert_eq!(paths(0), [PathBuf::from("homestead"), PathBuf::from("var/log")]);
    assert_eq!(paths(1), [PathBuf::from("mia/projects")]);
    assert_eq!(config.volumes[1].rules.excluded(), [PathBuf::from("mia/projects/a/b")]);
    assert_eq!(config.volumes[1].mount_point, PathBuf::from("/home"));
    assert_eq!(
        config.volumes[1].keep,
        Some(Keep { generations: Some(10), days: Some(30), min_free: None })
    );
    assert_eq!(
        config.volumes[1].backing,
        Backing::Btrfs(Btrfs {
            device: "/dev/vda".into(),
            subvolume: "@home".into(),
            blank: Some("@blank/home".into()),
            generations: "@darlings/home".into(),
        })
    );
}

#[test]
fn generations_have_a_home_by_default_named_after_the_subvolume() {
    assert_eq!(default_generations(Path::new("@")), Path::new("@darlings/root"));
    assert_eq!(default_generations(Path::new("@home")), Path::new("@darlings/home"));
    assert_eq!(default_generations(Path::new("a/b")), Path::new("@darlings/a-b"));
}

#[test]
fn a_blank_may_lie_beside_the_generations_under_a_name_of_its_own() {
    for (below, given) in [
        ("", true),
        (".darlings/next", true),
        ("next", true),
        ("ready-7", true),
        ("snapshot-7", true),
        ("removing-7", true),
        ("7/inside", true),
        ("7", false),
        ("blank", false),
        ("blank-7", false),
        ("blanks/root", false),
        ("ready-made", false),
    ] {
        assert_eq!(is_given_among_generations(below), given, "{below}");
    }
}

#[test]
fn paths_that_cannot_be_meant_are_named_with_file_line_and_key() {
    for (path, why) in [
        ("/a/../b", "holds `..`; write the path it stands for"),
        ("var/log", "is not absolute; begin it with a slash"),
        ("/", "names the whole volume; declare what to keep below it"),
        ("/home/.", "names the whole volume; declare what to keep below it"),
        ("/.darlings/x", "lies in `.darlings`, which is the tool's own"),
    ] {
        assert_eq!(
            wrong(&format!("{ROOT}[[persist]]\npath = {path:?}\n")),
            format!("darlings.toml:11:8: persist.path: {path:?} {why}")
        );
    }
    assert_eq!(
        wrong(&format!("{ROOT}[[persist]]\npath = \"/a\\u0000b\"\n")),
        "darlings.toml:11:8: persist.path: \"/a\\0b\" holds a NUL byte"
    );
    assert_eq!(
        wrong(&format!("{ROOT}[[persist]]\npath = \"/a\"\nexclude = [\"b\", \"../c\"]\n")),
        "darlings.toml:12:17: persist.exclude: \"../c\" holds `..`; write the path it stands for"
    );
}

#[test]
fn a_path_that_is_declared_twice_is_an_error_whatever_its_slashes() {
    assert_eq!(
        wrong(&format!("{ROOT}[[persist]]\npath = \"/a\"\n[[persist]]\npath = \"//a/\"\n")),
        "darlings.toml:13:8: persist: \"/a\" is declared or excluded twice; keep one of them"
    );
}

#[test]
fn an_unknown_key_is_named_in_every_table() {
    for (text, line, key) in [
        ("colour = 1\n[[volume]]\n", 1, "colour"),
        ("[[volume]]\nmount_point = \"/\"\ncolour = 1\n", 3, "colour"),
        ("[[volume]]\nmount_point = \"/\"\nzfs = { dataset = \"a/b\", blnk = \"b\" }\n", 3, "blnk"),
        ("[[volume]]\nmount_point = \"/\"\nbtrfs = { devise = \"/dev/x\" }\n", 3, "devise"),
        ("[[volume]]\nmount_point = \"/\"\nkeep = { weeks = 1 }\n", 3, "weeks"),
        (&format!("{ROOT}[[persist]]\npth = \"/a\"\n"), 11, "pth"),
    ] {
        let message = wrong(text);
        assert!(
            message.starts_with(&format!("darlings.toml:{line}:"))
                && message.contains(&format!("unknown field `{key}`")),
            "{message}"
        );
    }
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("darlings.toml");
    std::fs::write(&path, b"on_failure = \"boot\"\n# caf\xe9\n").unwrap();
    assert_eq!(
        Config::read(&path).unwrap_err().to_string(),
        format!("{}:2:6: the configuration is not UTF-8; save it as UTF-8", path.display())
    );
}

#[test]
fn what_a_filesystem_or_a_strategy_cannot_do_is_refused_and_not_ignored() {
    let volume = |rest: &str| format!("[[volume]]\nmount_point = \"/\"\n{rest}\n");
    for (rest, message) in [
        (
            "dir = { path = \"/\", blank = \"empty\" }",
            "3:16: volume.dir.path: the running system's own root cannot be reset; name it where \
                 the initrd has it, as in \"/sysroot\"",
        ),
        (
            "dir = { path = \"/x\", blank = \"/x/blank\" }",
            "3:30: volume.dir.blank: the blank lies in the directory that is reset, or around it; \
                 put it elsewhere, or at \"/x/.darlings/blank\"",
        ),
        (
            "strategy = \"rollback\"\ndir = { path = \"/x\", blank = \"empty\" }",
            "3:12: volume.strategy: a plain directory has nothing to roll back to; write \
                 \"carry\"",
        ),
        (
            "strategy = \"rollback\"\nzfs = { dataset = \"a/b\", blank = \"empty\" }",
            "4:7: volume.zfs.blank: `rollback` on ZFS needs a snapshot to roll back to; take \
                 one while the dataset is empty (`zfs snapshot DATASET@blank`) and name it here, or \
                 write strategy = \"carry\"",
        ),
        (
            "zfs = { dataset = \"a/b\", blank = \"darlings-7\" }",
            "3:7: volume.zfs.blank: a snapshot of this name is a generation, which is removed in \
                 time; take another one of what the root shall be reset to, and name that",
        ),
        (
            "btrfs = { device = \"/dev/x\", subvolume = \"@\", blank = \"@darlings/root/next\" }",
            "3:55: volume.btrfs.blank: it overlaps what darlings makes and removes among the \
                 generations in \"@darlings/root\"; take a read-only snapshot elsewhere and name that",
        ),
        (
            "strategy = \"rollback\"\nzfs = { dataset = \"a/b\", blank = \"b\" }\nkeep = { days = 1 }",
            "5:8: volume.keep: `rollback` on ZFS keeps no generation, since a rollback \
                 destroys later snapshots; remove `keep`, or write strategy = \"carry\"",
        ),
    ] {
        assert_eq!(wrong(&volume(rest)), format!("darlings.toml:{message}"));
    }
}

#[test]
fn two_volumes_on_one_dataset_or_mount_point_are_refused() {
    let again = "[[volume]]\nmount_point = \"/x\"\nzfs = { dataset = \"rpool/local/root\", \
                     blank = \"b\" }\n";
    assert_eq!(
        wrong(&format!("{ROOT}{again}")),
        "darlings.toml:10:1: volume: two volumes reset the dataset \"rpool/local/root\"; each \
             may be named once"
    );
}

#[test]
fn the_space_that_stays_free_is_a_share_or_a_size_and_needs_no_other_limit() {
    let keep =
        |min_free: &str| {
            read(&ROOT.replace(
                "{ generations = 10, days = 30 }",
                &format!("{{ min_free = {min_free} }}"),
            ))
            .map(|config| config.volumes[1].keep)
        };
    let only = |min_free| Ok(Some(Keep { min_free: Some(min_free), ..Keep::default() }));
    assert_eq!(keep("\"5%\""), only(MinFree::Percent(5)));
    assert_eq!(keep("\"2 GiB\""), only(MinFree::Bytes(2 << 30)));
    assert_eq!(
        keep("\"2 GB\"").unwrap_err(),
        "darlings.toml:9:21: volume.keep.min_free: \"2 GB\" is neither a share, as in \"5%\" (1 to \
         99), nor a size, as in \"2 GiB\" (with KiB, MiB, GiB or TiB)"
    );
    assert!(keep("5").unwrap_err().starts_with("darlings.toml:9:21: invalid type: integer"));
}
