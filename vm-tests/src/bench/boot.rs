//! What a reset adds to a boot, and what systemd takes for bind mounts, on a machine with a btrfs root.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::results::{Settings, append, lines};
use crate::Filesystem;
use crate::machine::{Boot, Machine, Moment};

/// Declared paths of the machine that is reset.
const DECLARED: u32 = 100;

/// The unit's own times, by systemd's clock, while the initrd's systemd runs.
const IN_THE_INITRD: &str = r#"
    eval "$(systemctl show darlings-reset.service \
        --property=ExecMainStartTimestampMonotonic --property=ExecMainExitTimestampMonotonic)"
    micro=$((ExecMainExitTimestampMonotonic - ExecMainStartTimestampMonotonic))
    seconds=$((micro / 1000000)).$(printf %06d $((micro % 1000000)))
    printf 'boot\t%s\twith\t%s\n' "the unit" "$seconds" >"$RESULTS/lines"
    printf 'units\t%s\treset\t%s\n' DECLARED "$seconds" >>"$RESULTS/lines"
    "#;

/// From the start of the initrd's systemd to that of the root's, and from the kernel's start to now.
const IN_THE_ROOT: &str = r#"
    eval "$(systemctl show --property=InitRDTimestampMonotonic --property=UserspaceTimestampMonotonic)"
    micro=$((UserspaceTimestampMonotonic - InitRDTimestampMonotonic))
    seconds=$((micro / 1000000)).$(printf %06d $((micro % 1000000)))
    read -r uptime rest </proc/uptime
    printf 'boot\t%s\tWHO\t%s\n' "the initrd" "$seconds" >"$RESULTS/lines"
    printf 'boot\t%s\tWHO\t%s\n' "from the kernel to the root" "$uptime" >>"$RESULTS/lines"
    "#;

/// Bind mounts by units, and by mount(8): so many, in COUNTS.
const MOUNTS: &str = r#"
    took() {
        local micro=$((${EPOCHREALTIME/./} - ${start/./}))
        printf 'units\t%s\t%s\t%d.%06d\n' "$count" "$1" $((micro / 1000000)) $((micro % 1000000)) \
            >>"$RESULTS/lines"
    }
    units=/run/systemd/system
    for count in COUNTS; do
        { echo [Unit]; echo DefaultDependencies=no; } >$units/binds.target
        for ((number = 0; number < count; number++)); do
            mkdir -p /run/from/$number /run/to/$number
            printf '%s\n' '[Unit]' DefaultDependencies=no '[Mount]' What=/run/from/$number \
                Where=/run/to/$number Type=none Options=bind >$units/run-to-$number.mount
            printf '%s\n' Requires=run-to-$number.mount After=run-to-$number.mount >>$units/binds.target
        done
        systemctl daemon-reload
        start=$EPOCHREALTIME
        systemctl start binds.target
        took bind
        systemctl stop binds.target 'run-to-*.mount'
        start=$EPOCHREALTIME
        for ((number = 0; number < count; number++)); do
            mount --bind /run/from/$number /run/to/$number
        done
        took mount
        for ((number = 0; number < count; number++)); do
            umount /run/to/$number
        done
    done
    "#;

/// How long one boot may take with all that is measured in it. On a computer with no KVM and much else
/// to do, systemd takes minutes for a hundred mount units.
const LIMIT: Duration = Duration::from_secs(1800);

/// Boots a machine without the unit and one with it, in turns. Lines are added after each round.
pub(super) fn measure(settings: &Settings) -> Result<()> {
    let counts: Vec<String> = settings.mounts.iter().map(u32::to_string).collect();
    let mounts = MOUNTS.replace("COUNTS", &counts.join(" "));
    let mut plain = Machine::new(Filesystem::Btrfs)?;
    let mut reset = Machine::new(Filesystem::Btrfs)?;
    let mut configuration = Filesystem::Btrfs.volumes("carry", "");
    for number in 0..DECLARED {
        writeln!(configuration, "[[persist]]\npath = \"/var/lib/bench/{number}\"")?;
    }
    let fill = format!("mkdir -p /var/lib/bench/{{0..{}}}", DECLARED - 1);
    reset.boot(&boot().at(Moment::Root, &fill))?.step(Moment::Root)?;
    reset.configure(&configuration);
    for round in 1..=settings.rounds {
        eprintln!("# boots: round {round} of {}", settings.rounds);
        let mut all = Vec::new();
        let without = boot().at(Moment::Root, &IN_THE_ROOT.replace("WHO", "without"));
        let booted = plain.boot(&without)?;
        all.extend(said(booted.file(Moment::Root, "lines")?)?);
        let root = format!("{}{mounts}", IN_THE_ROOT.replace("WHO", "with"));
        let with = boot()
            .at(Moment::After, &IN_THE_INITRD.replace("DECLARED", &DECLARED.to_string()))
            .at(Moment::Root, &root);
        let booted = reset.boot(&with)?;
        all.extend(said(booted.file(Moment::After, "lines")?)?);
        all.extend(said(booted.file(Moment::Root, "lines")?)?);
        append(&settings.results, &all)?;
    }
    Ok(())
}

/// With QEMU's own clock: the processor's counter is calibrated at boot, which goes wrong when the
/// computer is busy.
fn boot() -> Boot {
    Boot::new().option("clocksource=hpet").within(LIMIT)
}

fn said(file: &[u8]) -> Result<Vec<Value>> {
    lines(std::str::from_utf8(file).context("a guest's lines are not text")?)
}
