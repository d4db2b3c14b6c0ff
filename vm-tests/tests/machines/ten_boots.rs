//! `carry`, ten boots in a row, while the list of declared paths changes from one to the next.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use darlings_vm_tests::machine::{Boot, Booted, Machine, Moment};
use darlings_vm_tests::{Filesystem, capability, trees};

use crate::common::{Blanks, Declared, clutter, compare, configuration, declared};

const BOOTS: u32 = 10;
/// After these boots the machine's own unit purges.
const PURGES: [u32; 2] = [5, BOOTS];
const KEEP: u32 = 3;

#[test]
fn a_zfs_root_is_carried_through_ten_boots_with_another_list_at_each() -> Result<()> {
    if !capability::can_run("a_zfs_root_is_carried_through_ten_boots_with_another_list_at_each")? {
        return Ok(());
    }
    boots_ten_times(Filesystem::Zfs)
}

#[test]
fn a_btrfs_root_is_carried_through_ten_boots_with_another_list_at_each() -> Result<()> {
    if !capability::can_run("a_btrfs_root_is_carried_through_ten_boots_with_another_list_at_each")?
    {
        return Ok(());
    }
    boots_ten_times(Filesystem::Btrfs)
}

/// What is declared at a boot. What comes and goes is made again at every boot, so that it is
/// there, with other content, when it is declared again.
fn declared_at(boot: u32) -> Declared {
    let mut list = declared();
    let in_projects: &[&str] = match boot % 3 {
        0 => &[],
        1 => &["target"],
        _ => &["target", "darlings/src", "never-made"],
    };
    list.retain(|(path, _)| match *path {
        "/var/lib/everything" => boot != 4,
        "/home/mia/projects" => false,
        _ => true,
    });
    list.push(("/home/mia/projects", in_projects));
    // A path, one below it, and one above it.
    match boot {
        2 => list.push(("/opt/vendor/deep", &[])),
        3 | 6 => list.push(("/opt/vendor", &["deep/er"])),
        4 => list.push(("/opt", &[])),
        7 => list.extend([("/opt", &["vendor"][..]), ("/opt/vendor/deep/er/file", &[])]),
        _ => {}
    }
    if boot.is_multiple_of(2) {
        // With what is immutable in it.
        list.push(("/var/lib/vendor", &[]));
    }
    if boot > 5 {
        list.extend([("/etc/passwd", &[][..]), ("/home/mia/.bash_history", &[])]);
    }
    list
}

/// Runs the service that ships with the project, with this boot's program and configuration.
const PURGE: &str = r"
    mkdir -p /run/systemd/system/darlings-purge.service.d
    cp /run/darlings-vm/darlings-purge.service /run/systemd/system/
    printf '%s\n' '[Unit]' ConditionPathExists= '[Service]' ExecStart= \
        'ExecStart=/run/darlings-vm/darlings purge --config /run/darlings-vm/darlings.toml' \
        >/run/systemd/system/darlings-purge.service.d/where.conf
    systemctl daemon-reload
    systemctl start darlings-purge.service || {
        systemctl status --no-pager darlings-purge.service
        exit 1
    }
    ";

/// What is left to be purged: the names in the trash, and the generations' numbers.
fn leftovers(filesystem: Filesystem) -> &'static str {
    match filesystem {
        Filesystem::Zfs => {
            r#"
    numbers() { zfs list -H -o name -t snapshot "$1" | sed -n 's/.*@darlings-//p' | sort -n; }
    root=rpool/local/root home=rpool/safe/home
    "#
        }
        Filesystem::Btrfs => {
            r#"
    mkdir -p /run/top
    mount -o subvolid=5 /dev/disk/by-label/root /run/top
    numbers() { ls "/run/top/$1" | sort -n; }
    root=@darlings/root home=@darlings/home
    "#
        }
    }
}

const TELL: &str = r#"
    echo "generations of root:" $(numbers "$root")
    echo "generations of home:" $(numbers "$home")
    for own in /.darlings /home/.darlings; do
        echo "in $own/trash:" $(if [[ -e $own/trash ]]; then ls -A "$own/trash" | sort -n; fi)
    done
    "#;

fn boot(filesystem: Filesystem, number: u32) -> Boot {
    let names = if number == 1 || number == BOOTS {
        trees::WITH_BLANKS.as_slice()
    } else {
        trees::VOLUMES.as_slice()
    };
    let mut root = clutter(number);
    let mut after = trees::AFTER.to_owned();
    if PURGES.contains(&number) {
        root += PURGE;
        after += "cp /usr/bin/darlings /etc/darlings.toml /darlings-vm/darlings-purge.service \
                  /run/darlings-vm/";
    }
    root += leftovers(filesystem);
    root += TELL;
    Boot::new()
        .at(Moment::Before, &trees::before(filesystem, names))
        .at(Moment::After, &after)
        .at(Moment::Root, &root)
}

/// The trash and the generations that a boot must end with: those of this boot and of the ones
/// before it, back to the last purge, and what that kept.
fn expected_leftovers(boot: u32) -> String {
    let purged = PURGES.into_iter().filter(|at| *at <= boot).max();
    let words = |numbers: std::ops::RangeInclusive<u32>| -> String {
        numbers.fold(String::new(), |words, number| format!("{words} {number}"))
    };
    let kept = words(purged.map_or(1, |at| at + 1 - KEEP)..=boot);
    let trash = words(purged.map_or(1, |at| at + 1)..=boot);
    format!(
        "generations of root:{kept}\ngenerations of home:{kept}\nin /.darlings/trash:{trash}\n\
         in /home/.darlings/trash:{trash}\n"
    )
}

fn boots_ten_times(filesystem: Filesystem) -> Result<()> {
    let mut machine = Machine::new(filesystem)?;
    let mut log = String::new();
    let mut blanks: Option<Blanks> = None;
    for number in 1..=BOOTS {
        let declared = declared_at(number);
        let keep = format!("keep = {{ generations = {KEEP} }}");
        machine.configure(&configuration(filesystem, ("carry", &keep), "emergency", &declared));
        let booted = machine.boot(&boot(filesystem, number))?;
        let known = match blanks.take() {
            Some(known) => known,
            None => Blanks::of(&booted)?,
        };
        compare(&booted, filesystem, number, &known, &declared)?;
        if number == BOOTS {
            ensure!(Blanks::of(&booted)? == known, "a blank was changed");
        }
        blanks = Some(known);
        writeln!(log, "boot {number}")?;
        told(&booted, number, &log).with_context(|| format!("boot {number}"))?;
    }
    Ok(())
}

fn told(booted: &Booted, number: u32, log: &str) -> Result<()> {
    let output = &booted.step(Moment::Root)?.output;
    ensure!(output.starts_with(log), "it found another log than the last ones wrote:\n{output}");
    let expected = expected_leftovers(number);
    ensure!(output.ends_with(&expected), "left is not\n{expected}but\n{output}");
    Ok(())
}
