//! The dracut module, in initrds that the real dracut makes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::capability::{root, skipped};

/// Lays what is installed on a machine over this one's, in a mount namespace of its own, and makes an
/// initrd. `$1` is a directory with what is laid over, `$2` where the initrd's content goes.
const MAKE: &str = r#"
    for directory in usr/bin usr/lib usr/lib/dracut/modules.d usr/lib/systemd/system etc; do
        mkdir -p "$1/$directory"
        mount -t overlay -o "lowerdir=$1/$directory:/$directory" overlay "/$directory"
    done
    dracut --force --quiet --no-kernel --no-hostonly --no-hostonly-cmdline --no-early-microcode \
        --no-compress --tmpdir "$2" --modules "darlings $3" "$2/initrd"
    mkdir "$2/content"
    cd "$2/content"
    cpio --extract --make-directories --quiet <"$2/initrd"
"#;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether this can be done here; what is missing is said.
fn can_run() -> bool {
    let there = Command::new("dracut").arg("--version").output().is_ok();
    match (root(), there) {
        (Ok(()), true) => return true,
        (Err(why), _) => skipped(&why),
        (_, false) => skipped("needs the program dracut"),
    }
    false
}

fn put(root: &Path, path: &str, text: &str) -> Result<()> {
    let at = root.join(path);
    fs::create_dir_all(at.parent().context("no parent")?)?;
    Ok(fs::write(at, text)?)
}

/// The content of an initrd of a machine with this configuration, and with these files more.
fn initrd(
    configuration: &str,
    more: &[(&str, &str)],
    modules: &str,
) -> Result<(tempfile::TempDir, PathBuf)> {
    let scratch = tempfile::tempdir()?;
    let machine = scratch.path().join("machine");
    fs::create_dir_all(machine.join("usr/bin"))?;
    fs::copy(env!("CARGO_BIN_EXE_darlings"), machine.join("usr/bin/darlings"))?;
    put(&machine, "etc/darlings.toml", configuration)?;
    for unit in ["darlings-reset.service", "darlings-reset-dir.service"] {
        let text = fs::read_to_string(here("systemd").join(unit))?;
        put(&machine, &format!("usr/lib/systemd/system/{unit}"), &text)?;
    }
    let module = "90darlings/module-setup.sh";
    let text = fs::read_to_string(here("dracut").join(module))?;
    put(&machine, &format!("usr/lib/dracut/modules.d/{module}"), &text)?;
    for (path, text) in more {
        put(&machine, path, text)?;
    }
    let output = Command::new("unshare")
        .args(["--mount", "bash", "-euo", "pipefail", "-c", MAKE, "bash"])
        .arg(&machine)
        .arg(scratch.path())
        .arg(modules)
        .output()?;
    ensure!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let content = scratch.path().join("content");
    Ok((scratch, content))
}

/// Our files in an initrd, and where our links lead.
fn ours(content: &Path) -> Result<BTreeSet<String>> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeSet<String>) -> Result<()> {
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                walk(root, &path, found)?;
            } else {
                let name = path.strip_prefix(root)?.display().to_string();
                if name.contains("darlings")
                    || name.contains("libzfs_core")
                    || name.contains("libnvpair")
                {
                    found.insert(name);
                }
            }
        }
        Ok(())
    }
    let mut found = BTreeSet::new();
    walk(content, content, &mut found)?;
    Ok(found)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const BTRFS: &str = r#"
[[volume]]
mount_point = "/"
# device = "/dev/not-this-one"
btrfs = { device = "/dev/disk/by-label/my-root", subvolume = "@", blank = "@blank" }

[[volume]]
mount_point = "/home"
btrfs = { device = "/dev/sdb1", subvolume = "@home", blank = "empty" }
"#;

#[test]
fn an_initrd_for_btrfs_has_all_that_a_reset_needs() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let (_scratch, content) = initrd(BTRFS, &[], "")?;
    assert_eq!(
        ours(&content)?,
        names(&[
            "etc/darlings.toml",
            "etc/systemd/system/darlings-reset.service.d/10-device.conf",
            "etc/systemd/system/sysroot.mount.requires/darlings-reset.service",
            "usr/bin/darlings",
            "usr/lib/systemd/system/darlings-reset.service",
        ])
    );
    assert_eq!(fs::read_to_string(content.join("etc/darlings.toml"))?, BTRFS);
    let drop_in = "etc/systemd/system/darlings-reset.service.d/10-device.conf";
    assert_eq!(
        fs::read_to_string(content.join(drop_in))?,
        "[Unit]\n\
         Wants=dev-disk-by\\x2dlabel-my\\x2droot.device dev-sdb1.device\n\
         After=dev-disk-by\\x2dlabel-my\\x2droot.device dev-sdb1.device\n"
    );
    let link = fs::read_link(
        content.join("etc/systemd/system/sysroot.mount.requires/darlings-reset.service"),
    )?;
    // Through /lib, which is a link there.
    assert_eq!(link, Path::new("/lib/systemd/system/darlings-reset.service"));
    assert_eq!(fs::read_link(content.join("lib"))?, Path::new("usr/lib"));
    // It starts there, with the libraries that are there.
    let version =
        Command::new("chroot").arg(&content).args(["/usr/bin/darlings", "--version"]).output()?;
    ensure!(version.status.success(), "{version:?}");
    Ok(())
}

/// As people write it who know TOML.
#[test]
fn tables_dotted_keys_and_literal_strings_are_understood_too() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let directory =
        "[[volume]]\nmount_point = '/'\n[volume.dir]\npath = '/sysroot'\nblank = 'empty'\n";
    let (_scratch, content) = initrd(directory, &[], "")?;
    assert_eq!(
        ours(&content)?,
        names(&[
            "etc/darlings.toml",
            "etc/systemd/system/darlings-reset-dir.service.d/10-device.conf",
            "etc/systemd/system/initrd-root-fs.target.requires/darlings-reset-dir.service",
            "usr/bin/darlings",
            "usr/lib/systemd/system/darlings-reset-dir.service",
        ])
    );
    let dotted = "[[volume]]\nmount_point = '/'\nbtrfs.device = '/dev/sdb1'\n\
                  btrfs.subvolume = '@'\nbtrfs.blank = '@blank'\n";
    let (_scratch, content) = initrd(dotted, &[], "")?;
    let drop_in = "etc/systemd/system/darlings-reset.service.d/10-device.conf";
    let drop_in = fs::read_to_string(content.join(drop_in))?;
    assert!(drop_in.contains("After=dev-sdb1.device\n"), "{drop_in}");
    Ok(())
}

#[test]
fn a_drop_in_of_ones_own_counts_and_a_directory_has_another_unit() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let configuration =
        "[[volume]]\nmount_point = \"/\"\ndir = { path = \"/sysroot\", blank = \"empty\" }\n";
    let own = "etc/systemd/system/darlings-reset-dir.service.d/10-device.conf";
    let (_scratch, content) = initrd(configuration, &[(own, "[Unit]\nAfter=mine.service\n")], "")?;
    assert_eq!(
        ours(&content)?,
        names(&[
            "etc/darlings.toml",
            own,
            "etc/systemd/system/initrd-root-fs.target.requires/darlings-reset-dir.service",
            "usr/bin/darlings",
            "usr/lib/systemd/system/darlings-reset-dir.service",
        ])
    );
    assert_eq!(fs::read_to_string(content.join(own))?, "[Unit]\nAfter=mine.service\n");
    Ok(())
}

/// Where Debian has a library.
fn library(name: &str) -> &'static str {
    format!("usr/lib/{}-linux-gnu/{name}", std::env::consts::ARCH).leak()
}

/// Where dracut has the module of ZFS, here one that does nothing.
#[test]
fn an_initrd_for_zfs_has_the_libraries_and_waits_for_the_import() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let configuration = "[[volume]]\nmount_point = \"/\"\nzfs = { dataset = \"rpool/local/root\", blank = \"blank\" }\n";
    let more = [
        ("usr/lib/dracut/modules.d/90zfs/module-setup.sh", "#!/bin/bash\ncheck() { return 0; }\n"),
        (library("libzfs_core.so.3"), "no library, and copied as one"),
        (library("libnvpair.so.3"), "no library, and copied as one"),
    ];
    let (_scratch, content) = initrd(configuration, &more, "zfs")?;
    let mut found = ours(&content)?;
    found.retain(|name| name != "etc/darlings.toml" && name != "usr/bin/darlings");
    assert_eq!(
        found,
        names(&[
            "etc/systemd/system/darlings-reset.service.d/10-device.conf",
            "etc/systemd/system/sysroot.mount.requires/darlings-reset.service",
            library("libnvpair.so.3"),
            library("libzfs_core.so.3"),
            "usr/lib/systemd/system/darlings-reset.service",
        ])
    );
    let drop_in = "etc/systemd/system/darlings-reset.service.d/10-device.conf";
    assert_eq!(
        fs::read_to_string(content.join(drop_in))?,
        "[Unit]\n\
         Wants=zfs-import-scan.service zfs-import-cache.service\n\
         After=zfs-import-scan.service zfs-import-cache.service\n\
         After=dracut-pre-mount.service\n"
    );
    Ok(())
}

#[test]
fn a_machine_without_a_configuration_is_left_alone() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let module = here("dracut/90darlings/module-setup.sh");
    let script = format!(
        "require_binaries() {{ :; }}; dracutsysrootdir=/nonexistent; . {}; check",
        module.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output()?;
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}
