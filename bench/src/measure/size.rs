//! What an initrd takes along, and how long the programs need to start.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::run;

use crate::Settings;
use crate::contest::{Notes, timed};

/// What the scripts of the others call.
const PROGRAMS: [&str; 11] =
    ["bash", "btrfs", "cp", "mkdir", "mount", "mv", "rm", "rsync", "sync", "umount", "xargs"];

/// How often each program is started in a round.
const STARTS: u32 = 20;

pub(crate) fn measure(settings: &Settings) -> Result<()> {
    let notes = Notes::new(settings);
    let programs = PROGRAMS.iter().map(|name| found(name)).collect::<Result<Vec<_>>>()?;
    let all = [("darlings", vec![settings.darlings.clone()]), ("script", programs)];
    for (who, programs) in all {
        let mut bytes = 0.0;
        for program in &programs {
            bytes += size(program)?;
        }
        notes.measured("size", "the programs alone", who, vec![bytes])?;
        let files = with_libraries(&programs)?;
        let mut bytes = 0.0;
        for file in &files {
            bytes += size(file)?;
        }
        notes.measured("size", "with their libraries", who, vec![bytes])?;
        let compressed = compressed(&files, settings.compression)?;
        let row = format!("the same in a cpio, by `zstd -{}`", settings.compression);
        notes.measured("size", &row, who, vec![compressed])?;
    }
    start(settings, &notes)
}

fn found(name: &str) -> Result<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("there is no program {name} on the PATH"))
}

fn size(file: &Path) -> Result<f64> {
    let data = std::fs::metadata(file).with_context(|| format!("cannot look at {file:?}"))?;
    #[expect(clippy::cast_precision_loss, reason = "programs are smaller than petabytes")]
    Ok(data.len() as f64)
}

/// The programs and every library that they start with, each once.
fn with_libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for program in programs {
        files.insert(program.canonicalize()?);
        for line in run(Command::new("ldd").arg(program))?.lines() {
            // "libc.so.6 => /lib/libc.so.6 (0x7f)", "/lib64/ld-linux-x86-64.so.2 (0x7f)"
            if let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) {
                files.insert(Path::new(library).canonicalize()?);
            }
        }
    }
    Ok(files)
}

fn compressed(files: &BTreeSet<PathBuf>, level: u32) -> Result<f64> {
    let mut child = Command::new("bash")
        .args([
            "-o",
            "pipefail",
            "-c",
            "cpio --quiet --create --format=newc | zstd -$0 | wc --bytes",
        ])
        .arg(level.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start bash")?;
    let mut list = String::new();
    for file in files {
        list.push_str(&file.to_string_lossy());
        list.push('\n');
    }
    // The list is smaller than a pipe holds, and dropping the end of it ends the list.
    let mut input = child.stdin.take().context("BUG: no pipe")?;
    input.write_all(list.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "cpio or zstd failed: {}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().parse().context("wc gave no number")
}

fn start(settings: &Settings, notes: &Notes<'_>) -> Result<()> {
    let mut all = vec![("darlings", settings.darlings.clone(), Vec::new())];
    for name in ["btrfs", "cp", "rsync", "bash"] {
        all.push((name, found(name)?, Vec::new()));
    }
    for _ in settings.rounds() {
        for (_, program, values) in &mut all {
            let mut seconds = 0.0;
            for _ in 0..STARTS {
                seconds += timed(Command::new(&*program).arg("--version"))?.seconds;
            }
            values.push(1000.0 * seconds / f64::from(STARTS));
        }
    }
    for (name, _, values) in all {
        notes.measured("start", "`--version`", name, values)?;
    }
    Ok(())
}
