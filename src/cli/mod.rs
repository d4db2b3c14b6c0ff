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

/// Erases a machine's state at every boot and keeps what its owner declared.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reset every volume to its blank, and put the persisted paths back
    ///
    /// Runs in the initrd, before the volumes are mounted. Running it again is harmless, and
    /// after an interruption it completes or undoes what was begun.
    #[command(after_help = EXIT_CODES)]
    Reset(ResetArguments),
    /// Copy persisted paths from another tool's store to their place
    ///
    /// From impermanence's or preservation's store, which has everything at the same path below
    /// itself. The store is only read. You may interrupt this at any moment and run it again.
    #[command(after_help = adopt::EXIT_CODES)]
    Adopt(adopt::Arguments),
    /// Check that the next boot will reset, and lose nothing persisted
    ///
    /// Changes nothing. For the running system, before you trust a new configuration.
    #[command(after_help = check::EXIT_CODES)]
    Check(check::Arguments),
    /// Make what a reset needs and is missing: the blank, above all
    ///
    /// For a system that was not installed for darlings. What is there is left as it is; running
    /// it again is harmless.
    #[command(after_help = init::EXIT_CODES)]
    Init(init::Arguments),
    /// List the generations of every volume
    #[command(after_help = generations::EXIT_CODES)]
    Generations(generations::Arguments),
    /// Show what the next reset would erase, or what has changed
    ///
    /// Everything outside of the persisted paths that is new, changed or missing beside the blank,
    /// as the few lines that matter. What the system makes again by itself (links into /nix/store
    /// and /etc/static, sockets, empty directories, mount points) is only counted.
    ///
    /// With --flat and --tree, "-" marks what would vanish, "~" what would be reverted, "+" what would
    /// come back, "a" what goes to the attic; with --since, "+" what is new, "~" what was changed, "-"
    /// what is gone.
    #[command(after_help = diff::EXIT_CODES)]
    Diff(diff::Arguments),
    /// Remove the trash, and the generations that are past `keep`
    ///
    /// Runs in the running system, at the lowest priority. It may be interrupted at any moment and
    /// run again. The newest generation always stays.
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
    /// Say how things stand, in one line when all is well
    #[command(after_help = status::EXIT_CODES)]
    Status(status::Arguments),
    /// Suggest what to persist: known state that would be erased
    ///
    /// Prints the lines to add to the configuration. What depends on the machine is commented out.
    #[command(after_help = suggest::EXIT_CODES)]
    Suggest(suggest::Arguments),
    /// Print what may stand in a place of the command line, for the shells' completions
    #[command(hide = true)]
    Complete(complete::Arguments),
    /// List what an initrd needs for the volumes
    #[command(hide = true)]
    InitrdNeeds(initrd_needs::Arguments),
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed: do not boot (on_failure = \"emergency\" and a volume was not
      reset, or a volume is not complete)
  2   wrong use of the command line
  10  failed: every volume is complete, boot it (on_failure = \"boot\", or only
      tidying up failed)";

#[derive(Debug, clap::Args)]
struct ResetArguments {
    /// Print what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Where the report is written
    #[arg(long, value_name = "FILE", default_value = report::DEFAULT_PATH)]
    report: PathBuf,
    /// The kernel command line, which may say darlings=off, darlings=snapshot,
    /// darlings=restore:previous or darlings=restore:N
    #[arg(long, value_name = "FILE", default_value = cmdline::DEFAULT_PATH)]
    cmdline: PathBuf,
    /// Threads that bring persisted paths over; by default two for each processor, up to 4
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
