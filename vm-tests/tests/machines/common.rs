//! What the machine tests share: a machine with clutter and kept files, and what
//! each boot must make of them.
//!
//! Every boot writes down the volumes before the reset, the blanks, and the
//! volumes after it, all in the initrd, where nothing else writes. What must come
//! out is computed by the testkit's model, which shares no code with the tool.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::{Tree, difference};
use darlings_vm_tests::machine::{Boot, Booted, Ending, Machine, Moment};
use darlings_vm_tests::{Filesystem, trees};

/// What is declared: paths of the running system, with what is excluded below each.
pub(crate) type Declared = Vec<(&'static str, &'static [&'static str])>;

/// What most machines declare.
pub(crate) fn declared() -> Declared {
    vec![
        ("/etc/machine-id", &[]),
        ("/etc/ssh", &[]),
        ("/var/log", &[]),
        ("/var/lib/everything", &[]),
        ("/srv/never-made", &[]),
        ("/home/mia/projects", &["target"]),
    ]
}

/// The same as the model takes it: the rules of one volume.
fn rules(declared: &Declared, volume: &str) -> Result<Vec<Rule>> {
    let rule = |(path, exclude): &(&str, &[&str])| {
        let (of, below) = match path.strip_prefix("/home/") {
            Some(below) => ("home", below),
            None => ("root", *path),
        };
        (of == volume).then(|| Rule::new(below, exclude).map_err(anyhow::Error::msg))
    };
    declared.iter().filter_map(rule).collect()
}

/// A configuration for both volumes.
pub(crate) fn configuration(
    filesystem: Filesystem,
    (strategy, keep): (&str, &str),
    on_failure: &str,
    declared: &Declared,
) -> String {
    let persist = declared
        .iter()
        .map(|(path, exclude)| format!("\n[[persist]]\npath = {path:?}\nexclude = {exclude:?}\n"));
    format!(
        "on_failure = \"{on_failure}\"\n\n{}\n{}",
        filesystem.volumes(strategy, keep),
        persist.collect::<String>()
    )
}

/// A configuration for both volumes with the `rollback` strategy.
pub(crate) fn rollback(filesystem: Filesystem, on_failure: &str) -> String {
    // A rollback on ZFS destroys later snapshots, so it can keep no generation.
    let keep = match filesystem {
        Filesystem::Zfs => "",
        Filesystem::Btrfs => "keep = { generations = 5 }",
    };
    configuration(filesystem, ("rollback", keep), on_failure, &declared())
}

/// What a boot of the machine writes down, and the clutter that it makes.
///
/// `boot` numbers the boots, so that each leaves other files than the last.
pub(crate) fn cluttering_boot(filesystem: Filesystem, boot: u32) -> Boot {
    Boot::new()
        .at(Moment::Before, &trees::before(filesystem, &trees::WITH_BLANKS))
        .at(Moment::After, trees::AFTER)
        .at(Moment::Root, &clutter(boot))
}

/// A script that leaves clutter.
pub(crate) fn clutter(boot: u32) -> String {
    format!(
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
        # By a name of its own: after a reset that failed, the last boot's is still there.
        echo x >"/var/lib/vendor/immutable-{boot}"
        chattr +i "/var/lib/vendor/immutable-{boot}" || echo "no immutable files here"
        echo "cache {boot}" >/home/mia/projects/target/object
        echo "clutter {boot}" >/home/mia/.bash_history
        "#
    )
}

/// Boots a machine and compares each volume, entry by entry, with what a reset
/// must leave of what was there before.
pub(crate) fn boot_and_compare(
    machine: &mut Machine,
    filesystem: Filesystem,
    boot: u32,
) -> Result<Booted> {
    let booted = machine.boot(&cluttering_boot(filesystem, boot))?;
    let blanks = Blanks::of(&booted)?;
    compare(&booted, filesystem, boot, &blanks, &declared())?;
    Ok(booted)
}

/// The blanks of the volumes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blanks(BTreeMap<&'static str, Tree>);

impl Blanks {
    /// Those that a boot wrote down.
    pub(crate) fn of(booted: &Booted) -> Result<Self> {
        let read =
            |volume| Ok((volume, trees::read(booted, Moment::Before, &format!("blank_{volume}"))?));
        trees::VOLUMES.into_iter().map(read).collect::<Result<_>>().map(Self)
    }

    /// What a reset must leave of a volume, by the model.
    pub(crate) fn expected(
        &self,
        volume: &str,
        previous: &Previous,
        declared: &Declared,
    ) -> Result<Tree> {
        let rules = rules(declared, volume)?;
        let expected = model::expected(&self.0[volume], previous.volume(volume), &rules)
            .map_err(|error| anyhow::anyhow!("the model refuses the rules: {error:?}"))?;
        Ok(expected.tree)
    }
}

/// Compares each volume, entry by entry, with what a reset must leave of what was there before.
pub(crate) fn compare(
    booted: &Booted,
    filesystem: Filesystem,
    boot: u32,
    blanks: &Blanks,
    declared: &Declared,
) -> Result<()> {
    let previous = Previous::of(booted)?;
    let told = format!("boot {boot}");
    must_be_reset(booted, &told, blanks, &previous, declared)?;
    println!("{told} of {}: {:.1?}", filesystem.name(), booted.took);
    Ok(())
}

/// The volumes before a reset.
pub(crate) struct Previous(BTreeMap<&'static str, Tree>);

impl Previous {
    /// Those that a boot wrote down.
    pub(crate) fn of(booted: &Booted) -> Result<Self> {
        let read = |volume| Ok((volume, trees::read(booted, Moment::Before, volume)?));
        trees::VOLUMES.into_iter().map(read).collect::<Result<_>>().map(Self)
    }

    /// One of them.
    pub(crate) fn volume(&self, name: &str) -> &Tree {
        &self.0[name]
    }
}

/// Demands that a boot came up with what a reset must leave of a previous state.
pub(crate) fn must_be_reset(
    booted: &Booted,
    told: &str,
    blanks: &Blanks,
    previous: &Previous,
    declared: &Declared,
) -> Result<()> {
    ensure!(booted.ending == Ending::Root, "{told} stopped:\n{}", booted.console);
    for volume in trees::VOLUMES {
        // A kept file may have another name in what was moved aside.
        let result = trees::read(booted, Moment::After, volume)?.without(".darlings");
        let differences = blanks.expected(volume, previous, declared)?.diff(&result);
        ensure!(
            differences.is_empty(),
            "{told}: {volume} is not what a reset must leave (expected, then found):\n{}\n--- console:\n{}",
            difference::lines(&differences),
            booted.console
        );
    }
    Ok(())
}
