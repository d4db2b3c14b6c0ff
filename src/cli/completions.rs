//! `darlings completions`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap_complete::Shell;

use super::ready;

/// The shells that are asked for; there are no packages' directories for the others of
/// [`Shell`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Wanted {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Wanted,
}

/// What is completed.
const NAME: &str = env!("CARGO_PKG_NAME");

/// Prints the script that the shell reads, for the command line as it is.
pub(super) fn run(command: &clap::Command, arguments: &Arguments) -> ExitCode {
    let shell = match arguments.shell {
        Wanted::Bash => Shell::Bash,
        Wanted::Zsh => Shell::Zsh,
        Wanted::Fish => Shell::Fish,
    };
    // It takes hidden ones for others, and none can be removed.
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let mut shown = clap::Command::new(NAME).version(env!("CARGO_PKG_VERSION")).subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, NAME, &mut script);
    let script = String::from_utf8(script).context("BUG: clap_complete wrote no UTF-8");
    ready::ended(script.and_then(|script| ready::print(&script)).map(|()| ExitCode::SUCCESS))
}
