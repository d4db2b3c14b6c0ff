//! A configuration that is wrong by itself: told with its line, its key, and what to do.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use darlings_testkit::Foretold;

/// Exit code of a failure after which the machine shall boot the previous state.
const BOOT_ANYWAY: i32 = 10;

/// What is said about a configuration that is wrong by itself; nothing needs to exist.
fn wrong(config: impl AsRef<[u8]>) -> Result<String> {
    let holder = tempfile::tempdir()?;
    let at = holder.path().join("darlings.toml");
    std::fs::write(&at, config)?;
    said_of(&at)
}

fn said_of(at: &Path) -> Result<String> {
    // Where anybody can write it, and nothing is left.
    let holder = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
    command.args(["reset", "--config"]).arg(at).arg("--report");
    command.arg(holder.path().join("report.json")).env_remove("JOURNAL_STREAM");
    let output = Foretold::output(&mut command)?;
    assert_eq!(output.status.code(), Some(BOOT_ANYWAY));
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8(output.stderr)?;
    let start = format!("error: no volume was reset; all are as they were: {}", at.display());
    let told = stderr.strip_prefix(&start).with_context(|| stderr.clone())?;
    Ok(told.strip_suffix('\n').context("no end of line")?.to_owned())
}

/// A volume that a configuration can name without its being there.
const VOLUME: &str = r#"[[volume]]
mount_point = "/"
btrfs = { device = "/dev/nothing", subvolume = "@", blank = "@blank" }
"#;

#[test]
fn a_wrong_configuration_is_told_with_its_line_and_what_to_do() -> Result<()> {
    for (more, told) in [
        (
            "[[persist]]\npath = \"/var/../etc\"",
            r#":5:8: persist.path: "/var/../etc" holds `..`; write the path it stands for"#,
        ),
        (
            "[[persist]]\npath = \"var/log\"",
            r#":5:8: persist.path: "var/log" is not absolute; begin it with a slash"#,
        ),
        (
            "[[persist]]\npath = \"\"",
            r#":5:8: persist.path: "" is not absolute; begin it with a slash"#,
        ),
        ("[[persist]]\npath = \"/a\\u0000b\"", r#":5:8: persist.path: "/a\0b" holds a NUL byte"#),
        (
            "[[persist]]\npath = \"/\"",
            r#":5:8: persist.path: "/" names the whole volume; declare what to keep below it"#,
        ),
        (
            "[[persist]]\npath = \"//./\"",
            r#":5:8: persist.path: "//./" names the whole volume; declare what to keep below it"#,
        ),
        (
            "[[persist]]\npath = \"/.darlings/attic\"",
            r#":5:8: persist.path: "/.darlings/attic" lies in `.darlings`, which is the tool's own"#,
        ),
        (
            "[[persist]]\npath = \"/var/log\"\n[[persist]]\npath = \"//var/./log/\"",
            r#":7:8: persist: "/var/log" is declared or excluded twice; keep one of them"#,
        ),
        (
            "[[persist]]\npath = \"/var\"\nexclude = [\"log\"]\n[[persist]]\npath = \"/var/log\"",
            r#":8:8: persist: "/var/log" is declared or excluded twice; keep one of them"#,
        ),
        (
            "[[persist]]\npath = \"/var\"\nexclude = [\"log\", \"./log/\"]",
            r#":5:8: persist: "/var/log" is declared or excluded twice; keep one of them"#,
        ),
        (
            "[[persist]]\npath = \"/var\"\nexclude = [\"/var/log\"]",
            r#":6:12: persist.exclude: "/var/log" is absolute; give it relative to the persisted path"#,
        ),
        (
            "[[persist]]\npath = \"/var\"\nexclude = [\"a\", \"../log\"]",
            r#":6:17: persist.exclude: "../log" holds `..`; write the path it stands for"#,
        ),
    ] {
        assert_eq!(wrong(format!("{VOLUME}{more}\n"))?, told);
    }
    Ok(())
}

#[test]
fn an_unknown_key_is_refused_in_every_table() -> Result<()> {
    let btrfs = r#"btrfs = { device = "/dev/x", subvolume = "@", blank = "@blank" }"#;
    let volume = format!("[[volume]]\nmount_point = \"/\"\n{btrfs}\n");
    for (config, told) in [
        (
            format!("onfailure = \"boot\"\n{volume}"),
            ":1:1: unknown field `onfailure`, expected one of `on_failure`, `volume`, `persist`",
        ),
        (
            format!("{volume}mountpoint = \"/\"\n"),
            ":4:1: unknown field `mountpoint`, expected one of `mount_point`, `strategy`, `zfs`, \
             `btrfs`, `dir`, `keep`",
        ),
        (
            volume.replace("blank =", "generation = \"x\", blank ="),
            ":3:47: unknown field `generation`, expected one of `device`, `subvolume`, `blank`, \
             `generations`",
        ),
        (
            volume.replace(btrfs, "zfs = { dataset = \"r/x\", blank = \"blank\", keep = 1 }"),
            ":3:43: unknown field `keep`, expected one of `dataset`, `blank`, `newer_snapshots`",
        ),
        (
            format!("{volume}keep = {{ generation = 10 }}\n"),
            ":4:10: unknown field `generation`, expected one of `generations`, `days`, `min_free`",
        ),
        (
            format!("{volume}[[persist]]\npath = \"/a\"\nexcludes = [\"b\"]\n"),
            ":6:1: unknown field `excludes`, expected `path` or `exclude`",
        ),
    ] {
        assert_eq!(wrong(config)?, told);
    }
    Ok(())
}

#[test]
fn what_a_volume_cannot_be_is_told_with_its_line_and_what_to_do() -> Result<()> {
    let zfs = |more: &str, inner: &str| {
        format!("[[volume]]\nmount_point = \"/\"\n{more}zfs = {{ {inner} }}\n")
    };
    let root = r#"dataset = "rpool/root", blank = "blank""#;
    for (config, told) in [
        (
            VOLUME.replace("\"@\"", "\"/\""),
            ":3:48: volume.btrfs.subvolume: \"/\" is the top level of the filesystem, which nothing \
             can take the place of; name what lies below it (a root that is the top level is moved \
             first: `btrfs subvolume snapshot / /@`, and boot that)",
        ),
        (
            zfs("strategy = \"rollback\"\nkeep = { generations = 3 }\n", root),
            ":4:8: volume.keep: `rollback` on ZFS keeps no generation, since a rollback destroys \
             later snapshots; remove `keep`, or write strategy = \"carry\"",
        ),
        (
            zfs("strategy = \"rollback\"\n", r#"dataset = "rpool/root", blank = "empty""#),
            ":4:7: volume.zfs.blank: `rollback` on ZFS needs a snapshot to roll back to; take one \
             while the dataset is empty (`zfs snapshot DATASET@blank`) and name it here, or write \
             strategy = \"carry\"",
        ),
        (
            zfs("", r#"dataset = "rpool/root", blank = "rpool/root@blank""#),
            ":3:7: volume.zfs.blank: give the snapshot's name alone, without the dataset and the \
             `@`",
        ),
        (
            zfs("", r#"dataset = "rpool", blank = "blank""#),
            ":3:7: volume.zfs.dataset: a pool's own top dataset cannot be reset; put the root in a \
             dataset below it",
        ),
        (
            zfs("strategy = \"copy\"\n", root),
            ":3:12: unknown variant `copy`, expected `rollback` or `carry`",
        ),
        (
            "[[volume]]\nmount_point = \"/\"\ndir = { path = \"/\", blank = \"empty\" }\n"
                .to_owned(),
            ":3:16: volume.dir.path: the running system's own root cannot be reset; name it where \
             the initrd has it, as in \"/sysroot\"",
        ),
        (
            "[[volume]]\nmount_point = \"/\"\n".to_owned(),
            ":1:1: volume: give exactly one of `zfs`, `btrfs` and `dir`",
        ),
        (
            format!("{VOLUME}{}", VOLUME.replace("\"@\"", "\"@other\"")),
            ":4:1: volume: two volumes have mount_point \"/\"; each may be named once",
        ),
        (
            format!("{VOLUME}{}", VOLUME.replace("\"/\"", "\"/home\"")),
            ":4:1: volume: two volumes reset the subvolume \"@\"; each may be named once",
        ),
        (
            VOLUME.replace("\"@blank\"", "\"@/blank\""),
            ":3:61: volume.btrfs.blank: the blank lies in the subvolume that is reset; put it \
             beside it",
        ),
        (
            VOLUME.replace("\"@blank\"", "\"@blank\", generations = \"@/old\""),
            ":3:85: volume.btrfs.generations: it must lie outside the subvolume that is reset, \
             which is replaced",
        ),
        (
            VOLUME.replace("\"@\"", "\"@/../x\""),
            ":3:48: volume.btrfs.subvolume: \"@/../x\" holds `..`; write the path it stands for",
        ),
        (
            format!(
                "{}[[persist]]\npath = \"/var/log\"\n",
                VOLUME.replace("mount_point = \"/\"", "mount_point = \"/home\"")
            ),
            ":5:8: persist.path: \"/var/log\" is on no volume that is reset; remove it, or add the \
             [[volume]] that holds it",
        ),
        (
            format!(
                "{}[[persist]]\npath = \"/home/\"\n",
                VOLUME.replace("mount_point = \"/\"", "mount_point = \"/home\"")
            ),
            ":5:8: persist.path: \"/home/\" names the whole volume; declare what to keep below it",
        ),
    ] {
        assert_eq!(wrong(config)?, told);
    }
    Ok(())
}

#[test]
fn what_would_go_with_the_previous_state_of_another_volume_is_refused() -> Result<()> {
    let home = VOLUME.replace("\"/\"", "\"/home\"");
    let beside = home.replace("\"@\"", "\"@home\"");
    for (inner, inside) in [
        (home.replace("\"@\"", "\"@/home\""), "@/home"),
        (beside.replace("@blank", "@/blank"), "@/blank"),
        (beside.replace("\"@blank\"", "\"@blank\", generations = \"@/old\""), "@/old"),
    ] {
        for config in [format!("{inner}{VOLUME}"), format!("{VOLUME}{inner}")] {
            let told = format!(
                ":4:1: volume: {inside:?} lies in the subvolume \"@\", which another volume resets, \
                 and would go with its previous state; move it beside that"
            );
            assert_eq!(wrong(config)?, told);
        }
    }
    Ok(())
}

#[test]
fn a_configuration_that_is_not_utf_8_or_not_toml_is_told_with_its_line() -> Result<()> {
    let mut bytes = format!("{VOLUME}[[persist]]\npath = \"/v").into_bytes();
    bytes.extend(b"\xe4r\"\n");
    assert_eq!(wrong(bytes)?, ":5:11: the configuration is not UTF-8; save it as UTF-8");
    assert_eq!(wrong("")?, ":1:1: missing field `volume`");
    let told = wrong(format!("{VOLUME}[[persist]\n"))?;
    assert!(told.starts_with(":4:"), "{told}");
    Ok(())
}

#[test]
fn a_configuration_that_is_missing_is_told_with_its_name_and_the_reason() -> Result<()> {
    let at = Path::new("/nonexistent/darlings.toml");
    assert_eq!(
        said_of(at)?,
        ": the configuration cannot be read: No such file or directory (os error 2)"
    );
    Ok(())
}

#[test]
fn a_wrong_option_ends_with_2_and_no_words_about_a_reset() -> Result<()> {
    for arguments in [&["reset", "--dryrun"][..], &["reset", "--threads", "0"], &["unset"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_darlings")).args(arguments).output()?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(output.stdout, b"");
    }
    Ok(())
}
