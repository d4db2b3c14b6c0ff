//! The completions in the shells that they are for, and the manual pages by the programs that show
//! them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{capability, skip_unless};

fn darlings(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
    command.args(arguments).stdin(Stdio::null()).env_remove("JOURNAL_STREAM");
    command.output().with_context(|| format!("cannot run {command:?}"))
}

fn printed(arguments: &[&str]) -> Result<String> {
    let output = darlings(arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What a program prints; nothing may be said on standard error.
fn quietly(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let words = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && said.is_empty(), "{command:?}: {said}{words}");
    Ok(words)
}

/// The subcommands that `--help` lists.
fn subcommands() -> Result<BTreeSet<String>> {
    let help = printed(&["--help"])?;
    let (_, list) = help.split_once("Commands:\n").context("no commands")?;
    let names = list.lines().take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn script(directory: &Path, shell: &str, name: &str) -> Result<std::path::PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, printed(&["completions", shell])?)?;
    Ok(path)
}

#[test]
fn bash_completes_subcommands_and_options() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = script(directory.path(), "bash", "darlings")?;
    // As readline calls it: all words, which of them is being typed, and how the line ends.
    let words = r#"
        set -eu
        source "$1"
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        COMPREPLY=()
        _darlings "$1" "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let complete = |typed: &[&str]| -> Result<BTreeSet<String>> {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "--noprofile", "-c", words, "bash"]).arg(&script);
        let found = quietly(bash.arg("darlings").args(typed))?;
        Ok(found.lines().map(str::to_owned).collect())
    };
    let mut all = subcommands()?;
    all.extend(["-h", "--help", "-V", "--version"].map(str::to_owned));
    assert_eq!(complete(&[""])?, all);
    assert_eq!(complete(&["gen"])?, BTreeSet::from(["generations".to_owned()]));
    assert_eq!(complete(&["purge", "--dr"])?, BTreeSet::from(["--dry-run".to_owned()]));
    let shells = ["bash", "fish", "zsh"].map(str::to_owned);
    let help = ["-h", "--help"].map(str::to_owned);
    let expected: BTreeSet<String> = shells.into_iter().chain(help).collect();
    assert_eq!(complete(&["completions", ""])?, expected);
    Ok(())
}

#[test]
fn fish_completes_subcommands_and_options() -> Result<()> {
    skip_unless!(capability::root(), Ok(())); // the programs are installed where root runs
    let directory = tempfile::tempdir()?;
    let script = script(directory.path(), "fish", "darlings.fish")?;
    let complete = |typed: &str| -> Result<BTreeSet<String>> {
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"]);
        // It makes directories in its home.
        fish.env("HOME", directory.path()).arg(&script).arg(typed);
        let found = quietly(&mut fish)?;
        let words = found.lines().filter_map(|line| line.split('\t').next());
        Ok(words.map(str::to_owned).collect())
    };
    assert_eq!(complete("darlings gen")?, BTreeSet::from(["generations".to_owned()]));
    assert_eq!(complete("darlings purge --dr")?, BTreeSet::from(["--dry-run".to_owned()]));
    Ok(())
}

#[test]
fn zsh_takes_the_script_as_the_completion_of_darlings() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let directory = tempfile::tempdir()?;
    script(directory.path(), "zsh", "_darlings")?;
    let words = r#"
        setopt err_exit
        fpath=("$1" $fpath)
        autoload -Uz compinit
        compinit -u -D
        print -r -- ${_comps[darlings]}
        zsh -f -n "$1/_darlings"
        # Loaded the way that completing it does; these are the functions that it then has.
        functions[compadd]='true'
        autoload +X -Uz _darlings
        source "$1/_darlings"
        print -rl -- ${(k)functions[(I)_darlings__subcmd__gen*_commands]}
    "#;
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", words, "zsh"]).arg(directory.path());
    assert_eq!(
        quietly(zsh.env("HOME", directory.path()))?,
        "_darlings\n_darlings__subcmd__generations_commands\n"
    );
    Ok(())
}

/// The names and texts of all manual pages.
fn pages(directory: &Path) -> Result<Vec<(String, String)>> {
    let pages = directory.join("made/man");
    printed(&["man", pages.to_str().context("not UTF-8")?])?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&pages)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("not UTF-8")?;
        found.push((name, std::fs::read_to_string(entry.path())?));
    }
    found.sort();
    Ok(found)
}

#[test]
fn every_subcommand_has_a_page_that_says_what_help_says() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pages = pages(directory.path())?;
    let mut expected: BTreeSet<String> =
        ["darlings.8", "darlings.toml.5"].map(str::to_owned).into();
    let subcommands = subcommands()?;
    let pages_of = subcommands.iter().filter(|name| *name != "help");
    expected.extend(pages_of.map(|name| format!("darlings-{name}.8")));
    assert_eq!(pages.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), expected);
    for (name, text) in &pages {
        let Some(subcommand) = name.strip_prefix("darlings-") else { continue };
        let subcommand = subcommand.trim_end_matches(".8");
        let help = printed(&[subcommand, "--help"])?;
        let flags = help.lines().filter_map(|line| {
            let flag = line.trim_start().strip_prefix("--")?;
            Some(format!("\\-\\-{}", flag.split(' ').next()?.replace('-', "\\-")))
        });
        for flag in flags {
            assert!(text.contains(&format!("\\fB{flag}\\fR")), "{name}: {flag}\n{text}");
        }
        assert_eq!(
            text.contains(".SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\n"),
            help.contains("\nExit codes:\n  0 "),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn the_page_on_the_configuration_has_every_key_of_the_readme() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pages = pages(directory.path())?;
    let (_, page) = pages.iter().find(|(name, _)| name == "darlings.toml.5").context("no page")?;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))?;
    let (_, table) = readme.split_once("\n| key | meaning |\n|---|---|\n").context("no table")?;
    let rows = table.lines().take_while(|line| line.starts_with("| "));
    let keys: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert!(keys.len() > 10 && keys.contains(&"persist.exclude"), "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!(".TP\n\\fB{key}\\fR")), "{key}\n{page}");
    }
    Ok(())
}

#[test]
fn groff_and_mandoc_have_nothing_to_say_about_the_pages() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let directory = tempfile::tempdir()?;
    for (name, text) in pages(directory.path())? {
        let path = directory.path().join("made/man").join(&name);
        quietly(Command::new("groff").args(["-man", "-ww", "-Tutf8", "-z"]).arg(&path))?;
        let lint =
            Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path).output()?;
        let said = String::from_utf8(lint.stderr)? + &String::from_utf8(lint.stdout)?;
        // The same version always makes the same pages, so they cannot say when they were made.
        let of_the_date = "WARNING: missing date, using \"\": TH";
        let said: Vec<&str> = said.lines().filter(|line| !line.ends_with(of_the_date)).collect();
        assert_eq!(said, Vec::<&str>::new(), "{name}:\n{text}");
        let shown = quietly(Command::new("groff").args(["-man", "-Tascii", "-P-c"]).arg(&path))?;
        let foot = shown.lines().rfind(|line| !line.is_empty()).context("nothing")?;
        let title = name.replacen(".8", "(8)", 1).replacen(".5", "(5)", 1);
        let foot: Vec<&str> = foot.split_whitespace().collect();
        assert_eq!(foot, ["darlings", env!("CARGO_PKG_VERSION"), title.as_str()], "{shown}");
    }
    Ok(())
}
