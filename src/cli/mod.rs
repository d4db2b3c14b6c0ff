//! The command line: clap's types become a request, and how it ended becomes an exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::ready::Common;
use crate::cmdline::{self, Asked, CommandLine};
use crate::config::{Config, OnFailure};
use crate::engine::report::{self, Ending, Report};
use crate::engine::reset::{self, Ended};
use crate::fs::process;
use crate::volume::Options;

mod adopt;
mod check;
mod complete;
mod diff;
mod explain;
mod generations;
mod history;
mod init;
mod initrd_needs;
mod log;
mod progress;
mod purge;
mod ready;
mod recover;
mod status;
mod suggest;

/// Erases a machine's state at every boot, and keeps the paths that you persist.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reset every volume to its blank, and keep the persisted paths
    ///
    /// Runs in the initrd, before the volumes are mounted. It is harmless to run it again; after an
    /// interruption it completes the reset or starts it again.
    #[command(after_help = EXIT_CODES)]
    Reset(ResetArguments),
    /// Copy persisted paths into place from another tool's store
    ///
    /// The store is that of impermanence or preservation, which has /persist/var/log for /var/log. It
    /// is only read. You can interrupt this at any time and run it again.
    #[command(after_help = adopt::EXIT_CODES)]
    Adopt(adopt::Arguments),
    /// Check that the next boot will reset, and lose nothing persisted
    ///
    /// Changes nothing. Run it before you reboot with a new configuration.
    #[command(after_help = check::EXIT_CODES)]
    Check(check::Arguments),
    /// Create what a reset needs, above all the blank
    ///
    /// For a system that was not installed for darlings. It changes nothing that exists already, and
    /// it is harmless to run it again.
    #[command(after_help = init::EXIT_CODES)]
    Init(init::Arguments),
    /// List the generations of every volume
    #[command(after_help = generations::EXIT_CODES)]
    Generations(generations::Arguments),
    /// Show what the next reset would erase, or what has changed
    ///
    /// Shows everything outside the persisted paths that is new, changed or missing compared with the
    /// blank, summed up in the few lines that matter. What the system recreates by itself (links into
    /// /nix/store and /etc/static, sockets, empty directories, mount points) is only counted.
    ///
    /// With --flat and --tree, "-" marks what would be erased, "~" what would be reverted, "+" what would
    /// come back, and "a" what goes to the attic. With --since, "+" marks what is new, "~" what has
    /// changed, and "-" what is gone.
    #[command(after_help = diff::EXIT_CODES)]
    Diff(diff::Arguments),
    /// Remove the trash, and generations that `keep` does not cover
    ///
    /// Runs in the running system, at the lowest priority. You can interrupt it at any time and run it
    /// again. The newest generation always stays.
    #[command(after_help = purge::EXIT_CODES)]
    Purge(purge::Arguments),
    /// Say whether a path is persisted, and by which line
    #[command(after_help = explain::EXIT_CODES)]
    Explain(explain::Arguments),
    /// List what ended each generation, or the versions of a path
    #[command(after_help = history::EXIT_CODES)]
    History(history::Arguments),
    /// Bring back a file or directory from a generation or the attic
    #[command(after_help = recover::EXIT_CODES)]
    Recover(recover::Arguments),
    /// Show whether all is well, and otherwise what needs attention
    #[command(after_help = status::EXIT_CODES)]
    Status(status::Arguments),
    /// Suggest what to persist: known state that would be erased
    ///
    /// Prints lines to add to the configuration. Those that are a matter of taste are commented out.
    #[command(after_help = suggest::EXIT_CODES)]
    Suggest(suggest::Arguments),
    /// Print the possible values of an argument, for shell completions
    #[command(hide = true)]
    Complete(complete::Arguments),
    /// List what the initrd needs for the volumes
    #[command(hide = true)]
    InitrdNeeds(initrd_needs::Arguments),
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed, do not boot: a volume is not complete, or a volume was not reset
      and on_failure = \"emergency\"
  2   usage error
  10  failed, but boot: every volume is complete, and on_failure = \"boot\" or
      only tidying up failed";

#[derive(Debug, clap::Args)]
struct ResetArguments {
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the report to this file
    #[arg(long, value_name = "FILE", default_value = report::DEFAULT_PATH)]
    report: PathBuf,
    /// Read the kernel command line from this file; it may contain darlings=off, darlings=snapshot,
    /// darlings=restore:previous or darlings=restore:N
    #[arg(long, value_name = "FILE", default_value = cmdline::DEFAULT_PATH)]
    cmdline: PathBuf,
    /// Threads that copy persisted paths; by default two for each processor, up to 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    #[command(flatten)]
    common: Common,
}

/// A reset failed while every volume is complete, and the configuration says to boot.
const BOOT_ANYWAY: u8 = 10;

/// The commands by what a person wants; hidden ones are in none.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Look", &["status", "diff", "explain", "history", "generations"]),
    ("Get back", &["recover"]),
    ("Set up", &["suggest", "check", "init", "adopt"]),
    ("Maintain", &["reset", "purge"]),
];

/// The command line.
#[must_use]
pub fn command() -> clap::Command {
    let command = Cli::command().max_term_width(80);
    let (heading, name) = (*command.get_styles().get_header(), *command.get_styles().get_literal());
    let mut help = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (want, names) in GROUPS {
        help.extend([format!("\n{heading}{want}:{heading:#}\n")]);
        for subcommand in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            help.extend([format!("  {name}{:<11}{name:#}  {about}\n", subcommand.get_name())]);
        }
    }
    help.extend([format!("\n{heading}Options:{heading:#}\n{{options}}{{after-help}}")]);
    command.help_template(help)
}

/// Runs the command line. The only place that prints.
#[must_use]
pub fn main() -> ExitCode {
    log::start();
    let parsed = Cli::from_arg_matches(&command().get_matches());
    let Cli { command } = parsed.unwrap_or_else(|error| error.exit());
    let arguments = match command {
        Command::Reset(arguments) => arguments,
        Command::Adopt(arguments) => return adopt::run(&arguments),
        Command::Init(arguments) => return init::run(&arguments),
        Command::Check(arguments) => return check::run(&arguments),
        Command::Generations(arguments) => return generations::run(&arguments),
        Command::Diff(arguments) => return diff::run(&arguments),
        Command::Purge(arguments) => return purge::run(&arguments),
        Command::Explain(arguments) => return explain::run(&arguments),
        Command::History(arguments) => return history::run(&arguments),
        Command::Recover(arguments) => return recover::run(&arguments),
        Command::Status(arguments) => return status::run(&arguments),
        Command::Suggest(arguments) => return suggest::run(&arguments),
        Command::Complete(arguments) => return complete::run(&arguments),
        Command::InitrdNeeds(arguments) => return initrd_needs::run(&arguments),
    };
    // Nobody knows what a bug left half done, so the machine stops, with words.
    std::panic::catch_unwind(|| reset(&arguments)).unwrap_or_else(|_| {
        tracing::error!(
            "darlings stopped on a bug of its own (see above); running it again completes or \
             undoes what was begun"
        );
        ExitCode::FAILURE
    })
}

fn reset(arguments: &ResetArguments) -> ExitCode {
    // When nobody can read what was wanted, the default is to boot.
    let mut on_failure = OnFailure::default();
    let report = match run(arguments, &mut on_failure) {
        Ok(ended) => {
            reset::tell(&ended);
            ended.report
        }
        Err(error) => {
            let error = error.context("no volume was reset; all are as they were");
            tracing::error!("{error:#}");
            Report::refused(format!("{error:#}"))
        }
    };
    // The reset is over; what cannot be told about it does not change how it ended.
    if let Err(error) = publish(arguments, &report) {
        tracing::warn!("{error:#}");
    }
    match (report.outcome, on_failure) {
        (Ending::Reset | Ending::DryRun | Ending::Off | Ending::Snapshot | Ending::Restored, _) => {
            ExitCode::SUCCESS
        }
        (Ending::Failed, OnFailure::Boot) => ExitCode::from(BOOT_ANYWAY),
        // What it is that the owner does not want to boot is a root that was not erased.
        (Ending::Failed, OnFailure::Emergency) if report.all_reset() => ExitCode::from(BOOT_ANYWAY),
        (Ending::Failed, OnFailure::Emergency) | (Ending::Unfinished, _) => ExitCode::FAILURE,
    }
}

fn run(arguments: &ResetArguments, on_failure: &mut OnFailure) -> anyhow::Result<Ended> {
    let config = Config::read(&arguments.common.config)?;
    *on_failure = config.on_failure;
    let line = CommandLine::read(&arguments.cmdline)?;
    process::enter_mount_namespace()?;
    crate::fs::process::prepare()?;
    let options = Options {
        dry_run: arguments.dry_run,
        threads: ready::threads(arguments.threads),
        asked: Asked::Off,
        root_subvolid: line.root_subvolid(),
    };
    Ok(match reset::asked(&config, &line) {
        Ok(asked) => reset::reset(&config, Options { asked, ..options }),
        Err((asked, why)) => reset::refuse(&config, options, asked, why),
    })
}

fn publish(arguments: &ResetArguments, report: &Report) -> anyhow::Result<()> {
    let plans = || report.volumes.iter().map(|volume| volume.plan.to_string()).collect();
    arguments.common.print(report, |_| if arguments.dry_run { plans() } else { String::new() })?;
    if arguments.dry_run {
        return Ok(());
    }
    let path = &arguments.report;
    if report.outcome == Ending::Failed
        && path == Path::new(report::DEFAULT_PATH)
        && !Path::new("/etc/initrd-release").try_exists()?
        && report::is_of_a_reset(path)?
    {
        // Typed in the running system by mistake, say.
        tracing::info!("{path:?} stays the report of this boot's reset");
        return Ok(());
    }
    report.write(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
        command.get_subcommands().filter(|it| !it.is_hide_set())
    }

    #[test]
    fn help_lists_every_command_that_is_not_hidden_once() {
        let mut listed: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let command = command();
        let mut all: Vec<_> = shown(&command).map(clap::Command::get_name).collect();
        listed.sort_unstable();
        all.sort_unstable();
        assert_eq!(listed, all);
    }

    #[test]
    fn no_line_of_help_is_longer_than_80_columns() {
        let mut command = command();
        command.build();
        let mut helps = vec![command.render_help().to_string()];
        for subcommand in command.get_subcommands_mut() {
            helps.push(subcommand.render_help().to_string());
            helps.push(subcommand.render_long_help().to_string());
        }
        let lines = helps.iter().flat_map(|help| help.lines());
        let long: Vec<_> = lines.filter(|line| line.chars().count() > 80).collect();
        assert_eq!(long, Vec::<&str>::new());
    }
}
