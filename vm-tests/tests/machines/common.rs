//! What the machine tests share: a machine with clutter and kept files, and what
//! each boot must make of them.
//!
//! Every boot writes down the volumes before the reset, the blanks, and the
//! volumes after it, all in the initrd, where nothing else writes. What must come
//! out is computed by the testkit's model, which shares no code with the tool.

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{Tree, difference};
use darlings_vm_tests::Filesystem;
use darlings_vm_tests::machine::{Boot, Booted, Ending, Machine, Moment};

/// The volumes that are reset, with the rules that apply in each, as the
/// configuration says it and as the model takes it.
pub(crate) const VOLUMES: [(&str, &str); 2] = [
    (
        "root",
        r#"[{"path": "etc/machine-id"}, {"path": "etc/ssh"}, {"path": "var/log"},
            {"path": "var/lib/everything"}, {"path": "srv/never-made"}]"#,
    ),
    ("home", r#"[{"path": "mia/projects", "exclude": ["target"]}]"#),
];

const PERSISTED: &str = r#"
[[persist]]
path = "/etc/machine-id"

[[persist]]
path = "/etc/ssh"

[[persist]]
path = "/var/log"

[[persist]]
path = "/var/lib/everything"

[[persist]]
path = "/srv/never-made"

[[persist]]
path = "/home/mia/projects"
exclude = ["target"]
"#;

/// A configuration for both volumes with the `rollback` strategy.
pub(crate) fn rollback(filesystem: Filesystem, on_failure: &str) -> String {
    // A rollback on ZFS destroys later snapshots, so it can keep no generation.
    let keep = match filesystem {
        Filesystem::Zfs => "",
        Filesystem::Btrfs => "keep = { generations = 5 }",
    };
    format!(
        "on_failure = \"{on_failure}\"\n\n{}\n{PERSISTED}",
        filesystem.volumes("rollback", keep)
    )
}

/// What a boot of the machine writes down, and the clutter that it makes.
///
/// `boot` numbers the boots, so that each leaves other files than the last.
pub(crate) fn cluttering_boot(filesystem: Filesystem, boot: u32) -> Boot {
    let mount = match filesystem {
        Filesystem::Zfs => {
            "volume() { mount -t zfs -o ro \"$1\" \"$2\"; }
             root=rpool/local/root home=rpool/safe/home
             blank_root=$root@blank blank_home=$home@blank"
        }
        Filesystem::Btrfs => {
            "volume() { mount -t btrfs -o ro,noatime,subvol=\"$1\" /dev/disk/by-label/root \"$2\"; }
             root=@ home=@home blank_root=@blank/root blank_home=@blank/home"
        }
    };
    let before = format!(
        r#"{mount}
        mkdir -p /run/volume
        for name in root home blank_root blank_home; do
            volume "${{!name}}" /run/volume
            testkit capture --json --output "$RESULTS/$name" /run/volume
            umount /run/volume
        done"#
    );
    // A bind mount shows the volume without what is mounted on it.
    let after = r#"
        mkdir -p /run/volume
        for name in root home; do
            path=/sysroot
            [[ $name == root ]] || path=/sysroot/$name
            mount --bind "$path" /run/volume
            testkit capture --json --output "$RESULTS/$name" /run/volume
            umount /run/volume
        done"#;
    let root = format!(
        r#"
        echo "boot {boot}" >>/var/log/boots
        cat /var/log/boots
        # Declared, and changed at every boot.
        mkdir -p /etc/ssh
        echo "key {boot}" >"/etc/ssh/host_key_{boot}"
        chmod 0600 "/etc/ssh/host_key_{boot}"
        mkdir -p /home/mia/projects/darlings/src /home/mia/projects/target
        echo "fn main() {{}} // {boot}" >/home/mia/projects/darlings/src/main.rs
        ln -f /home/mia/projects/darlings/src/main.rs "/home/mia/projects/linked-{boot}"
        chown -R mia:mia /home/mia/projects
        if [[ ! -e /var/lib/everything ]]; then
            mkdir -p /var/lib/everything
            testkit fill everything /var/lib/everything
        fi
        # Not declared: new files, changed files, removed files, odd files.
        echo "clutter {boot}" >"/etc/clutter-{boot}"
        echo "clutter {boot}" >>/etc/passwd
        rm -f /etc/issue
        mkdir -p /opt/vendor/deep/er /var/lib/vendor
        echo x >/opt/vendor/deep/er/file
        chmod 0700 /opt
        mkfifo "/var/lib/vendor/fifo-{boot}"
        ln -s /nowhere "/var/lib/vendor/link-{boot}"
        echo x >/var/lib/vendor/immutable
        chattr +i /var/lib/vendor/immutable || echo "no immutable files here"
        echo "cache {boot}" >/home/mia/projects/target/object
        echo "clutter {boot}" >/home/mia/.bash_history
        "#
    );
    Boot::new().at(Moment::Before, &before).at(Moment::After, after).at(Moment::Root, &root)
}

/// A tree that a boot wrote down.
pub(crate) fn tree(booted: &Booted, moment: Moment, name: &str) -> Result<Tree> {
    serde_json::from_slice(booted.file(moment, name)?)
        .with_context(|| format!("the tree {name} of the moment {moment:?} is not one"))
}

/// Boots a machine and compares each volume, entry by entry, with what a reset
/// must leave of what was there before.
pub(crate) fn boot_and_compare(
    machine: &mut Machine,
    filesystem: Filesystem,
    boot: u32,
) -> Result<Booted> {
    let booted = machine.boot(&cluttering_boot(filesystem, boot))?;
    ensure!(booted.ending == Ending::Root, "boot {boot} stopped:\n{}", booted.console);
    for (volume, rules) in VOLUMES {
        let rules: Vec<Rule> =
            serde_json::from_str(rules).context("BUG: the rules are not JSON")?;
        let blank = tree(&booted, Moment::Before, &format!("blank_{volume}"))?;
        let previous = tree(&booted, Moment::Before, volume)?;
        let result = tree(&booted, Moment::After, volume)?;
        let expected = model::expected(&blank, &previous, &rules)
            .map_err(|error| anyhow::anyhow!("the model refuses the rules: {error:?}"))?;
        let differences = expected.tree.diff(&result);
        ensure!(
            differences.is_empty(),
            "boot {boot}: {volume} is not what a reset must leave (expected, then found):\n{}\n--- console:\n{}",
            difference::lines(&differences),
            booted.console
        );
    }
    println!("boot {boot} of {}: {:.1?}", filesystem.name(), booted.took);
    Ok(booted)
}
