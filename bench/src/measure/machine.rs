//! What a reader must know of the machine to judge the figures.

use std::process::Command;

use anyhow::{Context as _, Result};
use darlings_bench::record::{Line, Machine};
use darlings_testkit::loopfs::run;

use crate::Settings;

pub(crate) fn describe(settings: &Settings, asked: &str) -> Result<Line> {
    let read =
        |file: &str| std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
    let processor = read("/proc/cpuinfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned())
        })
        .unwrap_or_else(|| "of an unknown model".to_owned());
    let memory: f64 = read("/proc/meminfo")?
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .context("/proc/meminfo has no MemTotal")?;
    let load = read("/proc/loadavg")?;
    let mut below = Command::new("stat");
    below.args(["--file-system", "--format=%T"]).arg(&settings.scratch);
    let facts = vec![
        format!("Linux {}", read("/proc/sys/kernel/osrelease")?.trim()),
        format!("{} processors: {processor}", std::thread::available_parallelism()?),
        format!("{:.1} GiB of memory", memory / 1024.0 / 1024.0),
        format!(
            "btrfs as `mkfs.btrfs` makes it, on loop devices whose images lie on {}",
            run(&mut below)?.trim()
        ),
        format!("load {} at the start", load.split(' ').next().unwrap_or("unknown")),
    ];
    let mut versions = vec![first_line(Command::new(&settings.darlings).arg("--version"))?];
    for program in ["btrfs", "cp", "rsync", "mount", "bash"] {
        versions.push(first_line(Command::new(program).arg("--version"))?);
    }
    match first_line(Command::new("fio").arg("--version")) {
        Ok(version) => versions.push(version),
        Err(why) => versions.push(format!("no fio: {why:#}")),
    }
    Ok(Line::Machine(Machine {
        name: "host".to_owned(),
        asked: asked.to_owned(),
        day: first_line(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?,
        facts,
        versions,
    }))
}

fn first_line(command: &mut Command) -> Result<String> {
    Ok(run(command)?.lines().next().unwrap_or_default().trim().to_owned())
}
