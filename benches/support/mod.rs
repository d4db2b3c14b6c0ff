//! What is measured in a benchmark, and how it is printed.
#![allow(unreachable_pub, reason = "a module of a benchmark")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{LoopFs, run};

/// One contestant and its seconds, a round each.
pub struct Measured {
    pub name: String,
    pub seconds: Vec<f64>,
    pub peak_memory: Option<u64>,
}

impl Measured {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), seconds: Vec::new(), peak_memory: None }
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// The machine and the versions, in a line.
pub fn machine() -> Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "Linux {}, {} processors, load {} at the start; {}; {}",
        kernel.trim(),
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or("?"),
        first_line("cp", "--version")?,
        first_line("rsync", "--version")?,
    ))
}

fn first_line(program: &str, argument: &str) -> Result<String> {
    let text = run(Command::new(program).arg(argument))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// From the call to durable, as a unit in the initrd would have it: the filesystem is not mounted.
pub fn reset(fs: &mut LoopFs, config: &Path, measured: &mut Measured) -> Result<()> {
    fs.unmount()?;
    drop_caches()?;
    let report = fs.holder().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
    command.args(["reset", "--config"]).arg(config).arg("--report").arg(&report);
    let start = Instant::now();
    run(&mut command)?;
    measured.seconds.push(start.elapsed().as_secs_f64());
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&report)?)?;
    ensure!(report["outcome"] == "reset", "the reset did not end well: {report}");
    measured.peak_memory = report["peak_memory_bytes"].as_u64();
    fs.remount_fresh()
}

/// So that everything comes from the disk.
pub fn drop_caches() -> Result<()> {
    run(&mut Command::new("sync"))?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")
}

/// A table, the ratios to the first first.
pub fn print(what: &str, all: &[Measured]) {
    println!("\n| {what} | ratio to darlings | median s | all s | peak memory |");
    println!("|---|---|---|---|---|");
    let ours = all[0].median();
    for measured in all {
        let seconds: Vec<String> =
            measured.seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let memory = measured.peak_memory.map_or("-".to_owned(), |bytes| {
            format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
        });
        println!(
            "| {} | {:.2} | {:.2} | {} | {memory} |",
            measured.name,
            measured.median() / ours,
            measured.median(),
            seconds.join(", "),
        );
    }
}
