//! A machine boots after a reset as it did before: a result without an init is refused, by `check`, `reset`
//! and `darlings=restore`, and `init` makes no blank that would end there.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::cmdline::asked;
use crate::common::{Machine, Ran, put, quoted};
use anyhow::Result;
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::{Tree, capability, capture, skip_unless};

/// What a distribution installs, as far as a boot needs it.
fn install(root: &Path) -> Result<()> {
    put(root, "usr/lib/systemd/systemd", "init")?;
    put(root, "usr/bin/bash", "shell")?;
    put(root, "etc/machine-id", "kept")?;
    std::fs::create_dir(root.join("usr/sbin"))?;
    symlink("../lib/systemd/systemd", root.join("usr/sbin/init"))?;
    Ok(symlink("usr/sbin", root.join("sbin"))?)
}

fn machine(blank: impl FnOnce(&Path) -> Result<()>, name: &str) -> Result<Machine> {
    let mut machine = Machine::new(blank, |_| Ok(()))?;
    install(&machine.volume.live())?;
    name.clone_into(&mut machine.blank);
    Ok(machine.persist("/etc/machine-id", &[]))
}

fn word(machine: &Machine, word: &str, arguments: &[&str]) -> Result<Ran> {
    machine.ran(machine.word(word, &machine.config())?.args(arguments))
}

const REFUSED: &str = "the result would hold no init, and the previous state has /sbin/init; name a blank \
                       that is not there yet and make it of the installed system with `darlings init \
                       --from-live`, or persist the directories that the system boots from";

#[test]
fn a_distribution_is_not_erased_by_an_empty_blank_or_by_one_without_an_init() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for blank in ["empty", "@blank"] {
        let machine = machine(|blank| put(blank, "etc/issue", "blank"), blank)?;
        let before = machine.whole()?;
        // `check` foretells it: the helper that runs a reset demands that.
        let ran = machine.reset()?;
        assert_eq!(ran.code, Some(10), "{}", ran.stderr);
        assert!(ran.stderr.contains(REFUSED), "{}", ran.stderr);
        let checked = word(&machine, "check", &["--cmdline", "/dev/null", "--fstab", "/dev/null"])?;
        assert_eq!(checked.code, Some(1));
        assert!(checked.stdout.contains(&format!("  problem: {REFUSED}\n")), "{}", checked.stdout);
        assert!(checked.stdout.starts_with("/: 1 of 1 "), "{}", checked.stdout);
        assert_eq!(before.differences(&machine.whole()?), "");
        machine.close()?;
    }
    Ok(())
}

#[test]
fn init_refuses_an_empty_blank_for_a_distribution_and_makes_one_of_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine(|_| Ok(()), "@installed")?;
    let before = machine.whole()?;
    let expected = format!("error: /: cannot make the blank @installed empty: {REFUSED}\n");
    for arguments in [&["--dry-run"][..], &[]] {
        let ran = word(&machine, "init", arguments)?;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expected.as_str()));
        assert_eq!(before.differences(&machine.whole()?), "");
    }
    let mut unnamed = machine.config();
    unnamed = unnamed.replace("\"@installed\"", "\"empty\"");
    let ran = machine.ran(machine.word("init", &unnamed)?.arg("--from-live"))?;
    assert_eq!(
        (ran.code, ran.stdout.lines().last()),
        (
            Some(0),
            Some(
                "/: blank = \"empty\" is not made of the installed system; write the name of a blank that \
                 does not exist yet into the configuration, and run this again"
            )
        )
    );
    assert_eq!(word(&machine, "init", &["--from-live"])?.code, Some(0));
    put(&machine.volume.live(), "etc/clutter", "clutter")?;
    machine.reset_well()?;
    let live = machine.volume.live();
    assert!(live.join("sbin/init").exists() && !live.join("etc/clutter").exists());
    machine.close()
}

#[test]
fn a_generation_without_an_init_is_not_restored() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |_| Ok(()))?;
    machine.reset_well()?;
    install(&machine.volume.live())?;
    let before = machine.whole()?;
    let ran = asked(&machine, "darlings=restore:1")?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    let expected = "the result would hold no init, and the previous state has /sbin/init; choose another \
                    generation";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    assert_eq!(before.differences(&machine.whole()?), "");
    machine.close()
}

#[test]
fn a_directory_with_a_distribution_gets_no_empty_blank() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Ext4)?;
    let live = fs.path().join("live");
    install(&live)?;
    let config = fs.holder().join("darlings.toml");
    let path = |path: &Path| quoted(&path.display().to_string());
    let write = |blank: &str| {
        let text = format!(
            "[[volume]]\nmount_point = \"/\"\ndir = {{ path = {}, blank = {blank} }}\n",
            path(&live)
        );
        std::fs::write(&config, text)
    };
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_darlings"));
        command.args(arguments).arg("--config").arg(&config).env_remove("JOURNAL_STREAM").output()
    };
    let remedy = "the result would hold no init, and the previous state has /sbin/init; copy the installed \
                  system to a directory (cp -ax) and name that as the blank, or persist the directories \
                  that the system boots from";
    let before = capture(&live)?;
    write(&path(&fs.path().join("blank")))?;
    let ran = run(&["init"])?;
    assert_eq!(ran.status.code(), Some(1));
    let error = String::from_utf8(ran.stderr)?;
    assert!(error.ends_with(&format!("an empty blank: {remedy}\n")), "{error}");
    assert!(!fs.path().join("blank").exists());
    write("\"empty\"")?;
    let report = fs.holder().join("report.json");
    let ran = run(&["reset", "--cmdline", "/dev/null", "--report", report.to_str().unwrap()])?;
    let error = String::from_utf8(ran.stderr)?;
    assert_eq!(ran.status.code(), Some(10), "{error}");
    assert!(error.contains(remedy), "{error}");
    // Reading a link sets its access time, which no flag of the kernel's prevents.
    let paths = |tree: Tree| tree.entries.into_keys().collect::<Vec<_>>();
    assert_eq!(paths(before), paths(capture(&live)?));
    fs.close()
}

/// Executables of 64 bits, of which a boot wants nothing but the dynamic loader that they name.
fn executable(loader: &str) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 120];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let length = u8::try_from(loader.len())?;
    for (at, byte) in [(32, 64), (54, 56), (56, 1), (64, 3), (72, 120), (96, length)] {
        bytes[at] = byte;
    }
    bytes.extend(loader.as_bytes());
    Ok(bytes)
}

#[test]
fn an_init_is_not_kept_without_its_dynamic_loader() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine(|_| Ok(()), "empty")?;
    let live = machine.volume.live();
    std::fs::write(live.join("usr/lib/systemd/systemd"), executable("/lib64/ld.so.2")?)?;
    put(&live, "usr/lib64/ld.so.2", "loader")?;
    symlink("usr/lib64", live.join("lib64"))?;
    machine = machine.persist("/usr/lib/systemd", &[]).persist("/usr/sbin", &[]);
    let before = machine.whole()?;
    let ran = machine.reset()?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    let words = "error: no volume was reset; all are as they were: /: the result would hold no dynamic \
                 loader of init, and the previous state has /lib64/ld.so.2; name a blank";
    assert!(ran.stderr.starts_with(words), "{}", ran.stderr);
    assert_eq!(before.differences(&machine.whole()?), "");
    machine = machine.persist("/usr/lib64", &[]);
    machine.reset_well()?;
    assert!(machine.volume.live().join("usr/lib64/ld.so.2").exists());
    machine.close()
}
