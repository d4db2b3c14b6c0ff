//! `darlings explain` by the real binary on real filesystems.

use crate::common::Machine;
use crate::common::looking::{Directory, put_then};
use anyhow::Result;
use darlings_testkit::{capability, skip_unless};
use serde_json::{Value, json};

/// Two resets. `/home/mia` but its `.cache`, and `/etc/machine-id`, are kept.
fn machine() -> Result<Machine> {
    let machine = Machine::new(
        |blank| {
            put_then(blank, "etc/hostname", "of the blank")?;
            put_then(blank, "etc/os-release", "of the blank")
        },
        |_| Ok(()),
    )?;
    let machine = machine.persist("/home/mia", &[".cache"]).persist("/etc/machine-id", &[]);
    let live = machine.volume.live();
    put_then(&live, "etc/machine-id", "4711")?;
    put_then(&live, "home/mia/notes", "one")?;
    put_then(&live, "root/try.sh", "first")?;
    machine.reset_well()?;
    put_then(&live, "root/try.sh", "second")?;
    put_then(&live, "home/mia/notes", "two!")?;
    machine.reset_well()?;
    put_then(&live, "root/try.sh", "third one")?;
    put_then(&live, "etc/hostname", "edited")?;
    Ok(machine)
}

#[test]
fn a_path_is_explained_by_its_line_its_blank_and_its_generations() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let before = machine.whole()?;
    machine.say(&["explain", "/root/try.sh"])?.is(
        3,
        "\
/root/try.sh: not kept
  rule         no line of the configuration keeps it
  volume       / (btrfs subvolume @ on DEVICE)
  now          file, 9 B, modified 2026-05-04 03:02, mode 0644
  blank        nothing
  generations  2: file, 6 B, modified 2026-05-04 03:02, mode 0644; differs: content
               1: file, 5 B, modified 2026-05-04 03:02, mode 0644; differs: content
  next reset   is erased; what is there now will be in generation 3
",
        "",
    );
    machine.say(&["explain", "/etc/hostname"])?.is(
        3,
        "\
/etc/hostname: not kept
  rule         no line of the configuration keeps it
  volume       / (btrfs subvolume @ on DEVICE)
  now          file, 6 B, modified 2026-05-04 03:02, mode 0644
  blank        file, 12 B, modified 2026-05-04 03:02, mode 0644
  generations  2, 1: file, 12 B, modified 2026-05-04 03:02, mode 0644; differs: content
  next reset   what the blank has takes its place; what is there now will be in generation 3
",
        "",
    );
    machine.say(&["explain", "/home/mia/notes"])?.is(
        0,
        "\
/home/mia/notes: kept
  rule         FILE:6 keeps /home/mia
  volume       / (btrfs subvolume @ on DEVICE)
  now          file, 4 B, modified 2026-05-04 03:02, mode 0644
  blank        nothing
  generations  2: as now
               1: file, 3 B, modified 2026-05-04 03:02, mode 0644; differs: content
  next reset   stays as it is
",
        "",
    );
    machine.say(&["explain", "/home/mia/.cache/x"])?.is(
        3,
        "\
/home/mia/.cache/x: not kept
  rule         FILE:7 excludes /home/mia/.cache
  volume       / (btrfs subvolume @ on DEVICE)
  now          nothing
  blank        nothing
  generations  2, 1: nothing
  next reset   nothing is there, and nothing will be; a file made there is erased
",
        "",
    );
    machine.say(&["explain", "/etc/os-release"])?.is(
        3,
        "\
/etc/os-release: not kept
  rule         no line of the configuration keeps it
  volume       / (btrfs subvolume @ on DEVICE)
  now          file, 12 B, modified 2026-05-04 03:02, mode 0644
  blank        file, 12 B, modified 2026-05-04 03:02, mode 0644
  generations  2, 1: as now
  next reset   stays as it is, which is what the blank has
",
        "",
    );
    machine.say(&["explain", "/proc/../proc/self"])?.is(
        0,
        "\
/proc/self: not reset
  rule         something else is mounted at /proc, and nothing of that is reset
  next reset   does not touch it
",
        "",
    );
    let own = machine.say(&["explain", "/.darlings/manifest"])?;
    assert_eq!(own.code, Some(0));
    assert!(own.stdout.starts_with("/.darlings/manifest: never touched\n"), "{own:?}");
    let etc = machine.say(&["explain", "/etc"])?;
    assert_eq!(etc.code, Some(3));
    assert!(
        etc.stdout.starts_with(
            "/etc: leads to what is kept\n  rule         no line of the configuration keeps it\n               \
             FILE:9 keeps /etc/machine-id\n"
        ),
        "{etc:?}"
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn a_path_through_a_link_is_explained_as_written_and_as_meant() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let live = machine.volume.live();
    std::os::unix::fs::symlink("mia", live.join("home/leo"))?;
    machine.say(&["explain", "/home/leo/notes"])?.is(
        0,
        "\
/home/leo is a symbolic link to mia, which a reset does not follow.
The path as it is written:

/home/leo/notes: not kept
  rule         no line of the configuration keeps it
  volume       / (btrfs subvolume @ on DEVICE)
  now          nothing: home/leo is a symbolic link
  blank        nothing
  generations  2, 1: nothing
  next reset   nothing is there

What it stands for:

/home/mia/notes: kept
  rule         FILE:6 keeps /home/mia
  volume       / (btrfs subvolume @ on DEVICE)
  now          file, 4 B, modified 2026-05-04 03:02, mode 0644
  blank        nothing
  generations  2: as now
               1: file, 3 B, modified 2026-05-04 03:02, mode 0644; differs: content
  next reset   stays as it is
",
        "",
    );
    // A link on the way to what is declared: the reset keeps nothing behind it.
    let machine = machine.persist("/home/leo/notes", &[]);
    let said = machine.say(&["explain", "/home/leo/notes", "--json"])?.json()?;
    let told = |index: usize| {
        let explained = &said["explained"][index];
        (explained["path"].clone(), explained["verdict"].clone(), explained["next_reset"].clone())
    };
    let expected = |path: &str, verdict: &str, next: &str| {
        (Value::from(path), Value::from(verdict), Value::from(next))
    };
    assert_eq!(told(0), expected("/home/leo/notes", "kept", "not_followed"));
    assert_eq!(told(1), expected("/home/mia/notes", "kept", "keep"));
    assert_eq!(said["links"], json!([{ "path": "/home/leo", "target": "mia" }]));

    // In a circle, as the kernel has it.
    std::os::unix::fs::symlink("round", live.join("home/round"))?;
    machine.say(&["explain", "/home/round/x"])?.is(
        1,
        "",
        "error: \"/home/round\" leads through more than 40 symbolic links, too many to follow\n",
    );
    machine.close()
}

#[test]
fn what_is_no_longer_declared_goes_to_the_attic_and_comes_back() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    let id = machine.rules.pop().unwrap();
    let told = |machine: &Machine| -> Result<(Value, Value, Value)> {
        let said = machine.say(&["explain", "/etc/machine-id", "--json"])?.json()?;
        let explained = &said["explained"][0];
        let attic = explained["volume"]["attic"].clone();
        Ok((explained["verdict"].clone(), explained["next_reset"].clone(), attic))
    };
    assert_eq!(told(&machine)?, (json!("not_kept"), json!("put_into_attic"), json!([])));
    machine.reset_well()?;
    assert_eq!(told(&machine)?, (json!("not_kept"), json!("nothing"), json!([3])));
    machine.rules.push(id);
    assert_eq!(told(&machine)?, (json!("kept"), json!("return_from_attic"), json!([3])));
    machine.reset_well()?;
    assert_eq!(told(&machine)?, (json!("kept"), json!("keep"), json!([])));
    machine.close()
}

#[test]
fn a_plain_directory_says_that_its_generations_lack_what_was_kept() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let rules = "[[persist]]\npath = \"/keep\"\n";
    let directory = Directory::new(rules, |blank| put_then(blank, "etc/x", "blank"))?;
    let live = directory.live();
    put_then(&live, "keep/file", "kept")?;
    put_then(&live, "erased", "one")?;
    directory.reset()?;
    put_then(&live, "erased", "two two")?;
    directory.reset()?;
    directory.say(&["explain", "/keep/file"])?.is(
        0,
        "\
/keep/file: kept
  rule         FILE:5 keeps /keep
  volume       / (directory TOP/live)
  now          file, 4 B, modified 2026-05-04 03:02, mode 0644
  blank        nothing
  generations  2, 1: it was kept, and is not in them
  next reset   stays as it is
",
        "",
    );
    directory.say(&["explain", "/erased"])?.is(
        3,
        "\
/erased: not kept
  rule         no line of the configuration keeps it
  volume       / (directory TOP/live)
  now          nothing
  blank        nothing
  generations  2: file, 7 B, modified 2026-05-04 03:02, mode 0644
               1: file, 3 B, modified 2026-05-04 03:02, mode 0644; differs: content
  next reset   nothing is there, and nothing will be; a file made there is erased
",
        "",
    );
    directory.close()
}

#[test]
fn wrong_use_says_what_to_do() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let config = machine.config().replace("mount_point = \"/\"", "mount_point = \"/srv/www\"");
    let config = config.replace("path = \"/", "path = \"/srv/www/");
    machine.say_with(&config, &["explain", "/root/try.sh"])?.is(
        0,
        "\
/root/try.sh: not reset
  rule         it is on no volume that is reset
  next reset   does not touch it
",
        "",
    );
    machine.say_with(&config, &["history", "/root/try.sh"])?.is(
        2,
        "",
        "error: /root/try.sh is on no volume that is reset, so there are no generations of it; those \
         that are reset are mounted at /srv/www\n",
    );
    let not_root = |word: &str, more: &[&str]| -> Result<()> {
        let config = machine.beside("darlings.toml");
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_darlings")).arg(word).args(more);
        command.env_remove("JOURNAL_STREAM");
        let output = command.arg("--config").arg(&config).output()?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(
            (output.status.code(), stderr),
            (
                Some(2),
                format!(
                    "error: only root may look into the volumes and their generations; run `sudo \
                     darlings {word}`\n"
                )
            )
        );
        Ok(())
    };
    // The directories around are root's alone.
    let readable = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
    };
    readable(machine.volume.fs.holder(), 0o755)?;
    for (word, more) in [
        ("explain", &["/etc"][..]),
        ("history", &[]),
        ("recover", &["/etc"]),
        ("status", &[]),
        ("generations", &[]),
        ("purge", &[]),
        ("init", &[]),
        ("adopt", &["--from", "/"]),
    ] {
        not_root(word, more)?;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_darlings"));
        command.arg(word).args(more).args(["--config", "/nowhere/darlings.toml"]);
        let ran = machine.ran(command.env_remove("JOURNAL_STREAM"))?;
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (
                Some(2),
                "",
                "error: there is no /nowhere/darlings.toml, so darlings resets nothing on this \
                 machine; name the configuration with --config FILE, or write one (see the README)\n"
            )
        );
    }
    machine.close()
}
