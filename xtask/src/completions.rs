//! The scripts that make shells complete darlings' command line: what `clap_complete` makes of it, and
//! calls of `darlings complete` for the values that only the machine knows.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use clap_complete::Shell;

const NAME: &str = "darlings";

/// What stands for values that the machine knows until the script calls darlings instead.
const PLACEHOLDERS: [&str; 3] = ["DARLINGS_GENERATIONS", "DARLINGS_PATHS", "DARLINGS_VOLUMES"];

/// Which argument of which command takes them.
const TAKES: [(&str, &str, &str); 7] = [
    ("diff", "path", "DARLINGS_VOLUMES"),
    ("diff", "since", "DARLINGS_GENERATIONS"),
    ("diff", "until", "DARLINGS_GENERATIONS"),
    ("explain", "path", "DARLINGS_PATHS"),
    ("history", "path", "DARLINGS_PATHS"),
    ("recover", "path", "DARLINGS_PATHS"),
    ("recover", "from", "DARLINGS_GENERATIONS"),
];

/// The word that `darlings complete` calls them by.
fn kind(placeholder: &str) -> String {
    placeholder.trim_start_matches("DARLINGS_").to_lowercase()
}

/// The scripts, by the names that shells find them by.
pub(crate) fn scripts() -> Result<Vec<(String, String)>> {
    let name = |shell: Shell| clap_complete::Generator::file_name(&shell, NAME);
    let scripts = [
        (name(Shell::Bash), bash(generated(Shell::Bash)?)?),
        (name(Shell::Fish), fish(generated(Shell::Fish)?)),
        (name(Shell::Zsh), zsh(&generated(Shell::Zsh)?)?),
    ];
    for (name, script) in &scripts {
        ensure!(!script.contains("DARLINGS_"), "BUG: {name} has a placeholder: {script}");
    }
    Ok(scripts.into())
}

/// The command line without what is hidden, which `clap_complete` would show.
fn shown() -> clap::Command {
    let command = darlings::cli::command();
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set()).map(|subcommand| {
        let takes = TAKES.iter().filter(|(command, ..)| *command == subcommand.get_name());
        takes.fold(subcommand.clone(), |subcommand, (_, argument, placeholder)| {
            subcommand.mut_arg(*argument, |it| it.value_parser([*placeholder]))
        })
    });
    clap::Command::new(NAME).version(env!("CARGO_PKG_VERSION")).subcommands(shown)
}

fn generated(shell: Shell) -> Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), NAME, &mut script);
    String::from_utf8(script).context("BUG: clap_complete wrote no UTF-8")
}

fn bash(mut script: String) -> Result<String> {
    for placeholder in PLACEHOLDERS {
        let kind = kind(placeholder);
        let of_option = format!("COMPREPLY=($(compgen -W \"{placeholder}\" -- \"${{cur}}\"))");
        let by_itself = format!(" {placeholder}\"\n");
        script = script.replace(&of_option, &format!("_darlings_known {kind}")).replace(
            &by_itself,
            &format!("\"\n            _darlings_at_argument {kind} && return\n"),
        );
    }
    let mut command = shown();
    command.build();
    let options = command.get_subcommands().flat_map(clap::Command::get_opts);
    let options: BTreeSet<_> = options.filter_map(clap::Arg::get_long).collect();
    let options: Vec<_> = options.into_iter().collect();
    let helpers = include_str!("completions/bash").replace("DARLINGS_OPTIONS", &options.join("|"));
    before_the_function(&script, &helpers)
}

fn zsh(script: &str) -> Result<String> {
    let script = PLACEHOLDERS.iter().fold(script.to_owned(), |script, placeholder| {
        script
            .replace(&format!("({placeholder})"), &format!("_darlings_known {}", kind(placeholder)))
    });
    before_the_function(&script, include_str!("completions/zsh"))
}

fn before_the_function(script: &str, helpers: &str) -> Result<String> {
    let begin = script.find("_darlings() {").context("BUG: clap_complete wrote no function")?;
    let (first, rest) = script.split_at(begin);
    Ok(format!("{first}{helpers}\n{rest}"))
}

fn fish(mut script: String) -> String {
    let call = |placeholder: &str| {
        format!("({NAME} complete {} -- (commandline -ct) 2>/dev/null)", kind(placeholder))
    };
    for placeholder in PLACEHOLDERS {
        script = script.replace(&format!("{placeholder}\\t''"), &call(placeholder));
    }
    // Where `clap_complete` completes none but options.
    for (command, _, placeholder) in TAKES.iter().filter(|(_, argument, _)| *argument == "path") {
        let (call, using) =
            (call(placeholder), format!("__fish_{NAME}_using_subcommand {command}"));
        script.extend([format!("complete -c {NAME} -n \"{using}\" -a \"{call}\"\n")]);
    }
    script
}
