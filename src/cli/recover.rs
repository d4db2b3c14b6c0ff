//! `darlings recover`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use super::progress::Progress;
use super::ready::{self, Common, WrongUse};
use crate::act::recover;
use crate::act::recover::{From, Refused, Request};
use crate::ask::lookup::Volumes;
use crate::generations::Foreign;
use crate::text::bytes_in_words;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file or directory to bring back
    path: PathBuf,
    /// Where to take it from: generation N; `attic`, or `attic:N` for what reset N moved there; `trash`,
    /// or `trash:N`, for what an earlier recovery replaced. The default is the newest generation that
    /// contains the path and differs from the present state, or else the attic
    #[arg(long, value_name = "N")]
    from: Option<From>,
    /// Put it at this path instead; on a different filesystem it is copied
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Replace the existing file or directory as a whole; the old
    /// one stays in the trash as long as generations are kept
    #[arg(long)]
    force: bool,
    /// Print what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   recovered, or already there
  1   failed; the target is unchanged
  2   usage error
  3   the path is in no generation and not in the attic, or they belong to
      another system
  4   something else is there: use --force or --to";

const NOT_THERE: u8 = 3;
const EXISTS: u8 = 4;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let result = recover(arguments).map_err(|error| match error.downcast::<Refused>() {
        Ok(Refused::Wrong(words)) => Err(WrongUse(words).into()),
        Ok(refused) => Ok(refused),
        Err(error) => Err(error),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ok(refused)) => {
            tracing::error!("{refused}");
            let there = matches!(refused, Refused::Exists(_));
            ExitCode::from(if there { EXISTS } else { NOT_THERE })
        }
        Err(Err(error)) if error.is::<Foreign>() => {
            tracing::error!("{error:#}");
            ExitCode::from(NOT_THERE)
        }
        Err(Err(error)) => ready::ended(Err(error)),
    }
}

fn recover(arguments: &Arguments) -> anyhow::Result<()> {
    let path = ready::absolute(&arguments.path)?;
    let to = arguments.to.as_deref().map(ready::absolute).transpose()?;
    let config = arguments.common.ready("recover")?;
    let place = ready::place(&config, &path, "there are no generations of it")?;
    crate::fs::process::prepare()?;
    let request = Request {
        path: &path,
        place: &place,
        from: arguments.from.unwrap_or(From::Newest),
        to: to.as_deref(),
        force: arguments.force,
        dry_run: arguments.dry_run,
        config: &arguments.common.config,
        threads: ready::threads(None),
    };
    let mut volumes = Volumes::new(&config, recover::access(arguments.dry_run));
    // It is told from another thread.
    let progress = Mutex::new(Progress::new());
    let lock = || progress.lock().unwrap_or_else(PoisonError::into_inner);
    let recovered = recover::recover(&mut volumes, &request, &|entries, bytes| {
        lock().show(|| format!("{entries} entries, {}", bytes_in_words(bytes)));
    });
    lock().clear();
    if recovered.is_ok() {
        let mount_point = &config.volumes[place.volume].mount_point;
        ready::warn_of_drift(mount_point, volumes.drift(place.volume));
    }
    let recovered = volumes.close(recovered)?;
    for warning in &recovered.warnings {
        tracing::warn!("{warning}");
    }
    arguments.common.print(&recovered, |paint| recovered.text(paint))
}
