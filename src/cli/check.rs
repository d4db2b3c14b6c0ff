//! `darlings check`.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::ready::{self, Common};
use crate::act::check::Check;
use crate::cmdline::{self, CommandLine};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The kernel command line, which may mount a different root, or mount it by subvolid=
    #[arg(long, value_name = "FILE", default_value = cmdline::DEFAULT_PATH)]
    cmdline: PathBuf,
    /// The table of mounts, which may mount a volume by subvolid=
    #[arg(long, value_name = "FILE", default_value = "/etc/fstab")]
    fstab: PathBuf,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   the next reset would succeed, and lose nothing that is persisted
  1   there is a problem: the next boot would not reset, or would lose something
  2   usage error";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (check, code) = match check(arguments) {
        Ok(check) => {
            let code = ready::well(check.problems() == 0);
            (check, code)
        }
        Err(error) => (Check::refused(format!("{error:#}")), ready::code(&error)),
    };
    ready::ended(arguments.common.print(&check, |_| check.to_string()).map(|()| code))
}

fn check(arguments: &Arguments) -> anyhow::Result<Check> {
    let config = arguments.common.ready("check")?;
    let line = CommandLine::read(&arguments.cmdline)?;
    let fstab = match std::fs::read_to_string(&arguments.fstab) {
        Ok(fstab) => fstab,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {:?}", arguments.fstab));
        }
    };
    Ok(Check::of(&config, &line, &fstab))
}
