//! Resets with one to very many declared paths.

use std::process::Command;

use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::run;

use crate::Settings;
use crate::contest::{Contestant, Notes};
use crate::stage::Stage;

/// Each in a directory of its own that the blank lacks.
fn declared(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("/var/lib/{}/service-{number}/state", number % 100)).collect()
}

pub(crate) fn measure(settings: &Settings) -> Result<()> {
    let mut stage = Stage::new(&settings.scratch)?;
    let mut notes = Notes::new(settings);
    let all = declared(settings.declared.iter().copied().max().unwrap_or(0));
    for path in &all {
        let path = stage.template().join(&path[1..]);
        std::fs::create_dir_all(&path)?;
        std::fs::write(path.join("file"), "kept")?;
        std::fs::write(path.with_file_name("erased"), "erased")?;
    }
    // What the bind mounts show: the same, in a subvolume that nobody resets.
    let persist = stage.volume.make_subvolume("@persist")?;
    let from = stage.template().join("var");
    run(Command::new("cp").arg("-a").arg(from).arg(&persist)).context("cannot fill @persist")?;
    stage.settle()?;
    let contestants = [
        Contestant::Carry,
        Contestant::Rollback,
        Contestant::Cp,
        Contestant::Rsync,
        Contestant::Wipe,
        Contestant::Bind,
    ];
    for &count in settings.declared {
        notes.row(&mut stage, ("declared", count), &contestants, &declared(count))?;
    }
    stage.close()
}
