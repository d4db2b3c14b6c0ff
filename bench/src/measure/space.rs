//! The space that a previous state holds until it is removed.

use std::process::Command;

use anyhow::Result;
use darlings_testkit::fill::many_small;
use darlings_testkit::loopfs::run;

use crate::Settings;
use crate::contest::{Contestant, Notes, reset};
use crate::stage::Stage;

/// What is in use with the previous state, less what is without it: as many files kept as erased.
pub(crate) fn measure(settings: &Settings) -> Result<()> {
    let mut stage = Stage::new(&settings.scratch)?;
    let notes = Notes::new(settings);
    let kept = ["/var/lib".to_owned()];
    let at = settings.space.to_string();
    // Not in a template: what this shares with the live state would not be counted.
    let mut values: [Vec<f64>; 5] = Default::default();
    eprintln!("space: {at}");
    for _ in settings.rounds() {
        for (index, contestant) in
            [Contestant::Carry, Contestant::Rollback, Contestant::Cp, Contestant::Rsync]
                .into_iter()
                .enumerate()
        {
            stage.clear()?;
            stage.volume.snapshot("@blank", "@", false)?;
            for directory in ["var/lib", "home/mia"] {
                let directory = stage.volume.live().join(directory);
                std::fs::create_dir(&directory)?;
                many_small(&directory, usize::try_from(settings.space)?)?;
            }
            stage.settle()?;
            reset(settings, &mut stage, contestant, &kept)?;
            stage.settle()?;
            let with = stage.used()?;
            let mut purged = None;
            if contestant == Contestant::Carry {
                let config = stage.configure("carry", &kept)?;
                run(Command::new(&settings.darlings).arg("purge").arg("--config").arg(config))?;
                stage.settle()?;
                purged = Some(stage.used()?);
            }
            let previous = match contestant {
                Contestant::Carry | Contestant::Rollback => "@darlings/root/1",
                _ => "old",
            };
            let previous = stage.volume.fs.path().join(previous);
            run(Command::new("btrfs").args(["subvolume", "delete"]).arg(previous))?;
            stage.settle()?;
            let without = stage.used()?;
            values[index].push(with - without);
            values[4].extend(purged.map(|purged| purged - without));
        }
    }
    stage.clear()?;
    for (who, values) in ["carry", "rollback", "cp", "rsync", "purged"].into_iter().zip(values) {
        notes.measured("space", &at, who, values)?;
    }
    stage.close()
}
