//! Resets of trees with many small files, kept or erased, and with big ones.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use darlings_testkit::fill::many_small;
use darlings_testkit::loopfs::run;

use crate::Settings;
use crate::contest::{Contestant, Notes, reset, timed};
use crate::stage::Stage;

const MIB: u64 = 1 << 20;
/// The real data that the big files share; btrfs makes no larger extent.
const EXTENT: u64 = 128 * MIB;

/// The directory with all the files.
const FILES: &str = "/var/lib";
/// A declared path where the files are erased.
const OTHER: &str = "/etc/machine-id";

/// The same files, kept by one configuration and erased by another, in growing numbers; and the purge
/// of what was erased.
pub(crate) fn files(settings: &Settings) -> Result<()> {
    let mut stage = Stage::new(&settings.scratch)?;
    let mut notes = Notes::new(settings);
    let template = stage.template();
    std::fs::create_dir(template.join("var/lib"))?;
    std::fs::write(template.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    let (mut there, mut a_file) = (0, 0.0);
    for &count in settings.files {
        let at = count.to_string();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let more = (count - there) as f64;
        if settings.lacks(1.2 * more * a_file) {
            let why = "making so many files would have taken longer than the run was to";
            notes.left_out("kept", &at, "carry", why)?;
            continue;
        }
        eprintln!("filling: {count} files");
        let start = Instant::now();
        let step = stage.template().join(format!("var/lib/up-to-{count}"));
        std::fs::create_dir(&step)?;
        many_small(&step, usize::try_from(count - there)?)?;
        there = count;
        stage.settle()?;
        a_file = start.elapsed().as_secs_f64() / more;
        let all = [
            Contestant::Carry,
            Contestant::Wipe,
            Contestant::Rollback,
            Contestant::Cp,
            Contestant::Rsync,
        ];
        for (who, memories) in notes.row(&mut stage, ("kept", count), &all, &[FILES.into()])? {
            notes.measured("memory", &at, who.name(), memories)?;
        }
        let scripts = [Contestant::Cp, Contestant::Rsync];
        notes.memory(&mut stage, ("kept", count), &scripts, &[FILES.into()])?;
        let all = [Contestant::Carry, Contestant::Rollback, Contestant::Wipe];
        notes.row(&mut stage, ("erased", count), &all, &[OTHER.into()])?;
        if count <= settings.purged {
            purge(settings, &notes, &mut stage, &at)?;
        } else {
            let why = "it is measured up to fewer files in this run";
            notes.left_out("purge", &at, "purge", why)?;
        }
    }
    stage.close()
}

/// What `carry` moved aside, removed by the purge; and the same tree, removed by rm(1).
fn purge(settings: &Settings, notes: &Notes<'_>, stage: &mut Stage, at: &str) -> Result<()> {
    eprintln!("purge: {at}");
    let mut values: [[Vec<f64>; 3]; 2] = Default::default();
    for _ in settings.rounds() {
        stage.fresh()?;
        reset(settings, stage, Contestant::Carry, &[OTHER.into()])?;
        let config = stage.configure("carry", &[OTHER.into()])?;
        let mut purge = Command::new(&settings.darlings);
        purge.arg("purge").arg("--config").arg(config);
        removed(stage, &mut purge, &mut values[0])?;
        stage.fresh()?;
        let mut rm = Command::new("rm");
        rm.arg("-rf").arg(stage.volume.live().join("var/lib"));
        removed(stage, &mut rm, &mut values[1])?;
    }
    for (who, [seconds, cpu, written]) in ["purge", "rm"].into_iter().zip(values) {
        notes.measured("purge", at, who, seconds)?;
        notes.measured("purge_cpu", at, who, cpu)?;
        notes.measured("purge_written", at, who, written)?;
    }
    Ok(())
}

/// Until everything is durable and nothing is left to the background.
fn removed(stage: &mut Stage, command: &mut Command, values: &mut [Vec<f64>; 3]) -> Result<()> {
    stage.cold_and_mounted()?;
    let before = stage.written()?;
    let took = timed(command)?;
    let mut sync = Command::new("sync");
    let synced = timed(sync.arg("--file-system").arg(stage.volume.fs.path()))?;
    values[0].push(took.seconds + synced.seconds);
    values[1].push(took.cpu + synced.cpu);
    values[2].push(stage.written()? - before);
    Ok(())
}

/// Files of 1 GB, whose blocks are real but shared: only the first 128 MiB take space.
pub(crate) fn big(settings: &Settings) -> Result<()> {
    let mut stage = Stage::new(&settings.scratch)?;
    let mut notes = Notes::new(settings);
    std::fs::create_dir(stage.template().join("var/lib"))?;
    let data = stage.volume.fs.path().join("data");
    noise(&data)?;
    let mut there = 0;
    for &count in settings.big {
        eprintln!("filling: {count} GB");
        while there < count {
            let file = stage.template().join(format!("var/lib/big-{there:03}"));
            shared(&data, &file, 1_000_000_000)?;
            there += 1;
        }
        stage.settle()?;
        let mut all =
            vec![Contestant::Carry, Contestant::Rollback, Contestant::Cp, Contestant::Wipe];
        if count <= settings.copied {
            all.insert(3, Contestant::Rsync);
        } else {
            let why = format!("it would write {count} GB in each round");
            notes.left_out("big", &count.to_string(), "rsync", &why)?;
        }
        notes.row(&mut stage, ("big", count), &all, &[FILES.into()])?;
    }
    stage.close()
}

/// Data that does not compress and is not all the same.
fn noise(file: &Path) -> Result<()> {
    let mut file = File::create(file)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; usize::try_from(MIB)?];
    for _ in 0..EXTENT / MIB {
        for eight in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            eight.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all().context("cannot write the data of the big files")
}

/// A file of so many bytes, all of them blocks of `data`.
fn shared(data: &Path, file: &Path, bytes: u64) -> Result<()> {
    let (from, to) = (File::open(data)?, File::create(file)?);
    let mut at = 0;
    while at < bytes {
        let piece = EXTENT.min(bytes - at);
        // Whole blocks can be shared; what the last one has too much is cut off below.
        let piece = piece.next_multiple_of(4096);
        rustix::fs::copy_file_range(
            &from,
            Some(&mut 0),
            &to,
            Some(&mut { at }),
            usize::try_from(piece)?,
        )
        .with_context(|| format!("cannot share blocks with {}", file.display()))?;
        at += piece;
    }
    to.set_len(bytes).with_context(|| format!("cannot cut {}", file.display()))?;
    run(Command::new("sync").arg(file))?;
    Ok(())
}
