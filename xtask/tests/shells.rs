//! The completions in the shells that they are for, and the manual pages by the programs that show
//! them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{capability, skip_unless};

/// What `cargo xtask` writes for a word.
fn made(word: &str, directory: &Path) -> Result<PathBuf> {
    let made = directory.join("made").join(word);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    quietly(command.arg(word).arg(&made).env("SOURCE_DATE_EPOCH", "1767225599"))?;
    Ok(made)
}

/// What a program prints; nothing may be said on standard error.
fn quietly(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let words = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && said.is_empty(), "{command:?}: {said}{words}");
    Ok(words)
}

/// The commands that are not hidden.
fn subcommands() -> BTreeSet<String> {
    let command = darlings::cli::command();
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

fn help(subcommand: &str) -> Result<String> {
    let mut command = darlings::cli::command();
    let command = command.find_subcommand_mut(subcommand).context("no such command")?;
    Ok(command.render_long_help().to_string())
}

/// Puts a `darlings` in front of `PATH` that knows two generations and three paths, and gives that
/// `PATH`.
fn with_darlings(directory: &Path) -> Result<OsString> {
    let program = directory.join("darlings");
    let knows = r#"#!/bin/sh
case "$*" in
"complete generations -- ") printf '12\t/, 2026-01-02 00:00 UTC\n7\t/, 2026-01-01 00:00 UTC\n' ;;
"complete volumes -- ") printf '/\ta volume\n/home\ta volume\n' ;;
"complete paths -- /gone/a") printf '/gone/a dir/\tgeneration 12\n/gone/a*b\tgeneration 7\n' ;;
"complete paths -- /gone/d") printf '/gone/dir/\tgeneration 12\n' ;;
*) echo "error: only root may look" >&2; exit 2 ;;
esac
"#;
    fs::write(&program, knows)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let mut path = directory.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    Ok(path)
}

#[test]
fn bash_completes_subcommands_and_options() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = made("completions", directory.path())?.join("darlings.bash");
    let path = with_darlings(directory.path())?;
    // As readline calls it: all words, which of them is being typed, and how the line ends.
    let words = r#"
        set -eu
        source "$1"
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        COMPREPLY=()
        compopt() { true; }
        _darlings "$1" "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let complete = |typed: &[&str]| -> Result<BTreeSet<String>> {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "--noprofile", "-c", words, "bash"]).arg(&script);
        let found = quietly(bash.arg("darlings").args(typed).env("PATH", &path))?;
        Ok(found.lines().map(str::to_owned).collect())
    };
    let words = |words: &[&str]| words.iter().map(|&it| it.to_owned()).collect::<BTreeSet<_>>();
    let mut all = subcommands();
    all.extend(words(&["help", "-h", "--help", "-V", "--version"]));
    assert_eq!(complete(&[""])?, all);
    assert_eq!(complete(&["gen"])?, words(&["generations"]));
    assert_eq!(complete(&["purge", "--dr"])?, words(&["--dry-run"]));
    assert_eq!(complete(&["diff", "--since", ""])?, words(&["12", "7"]));
    assert_eq!(complete(&["recover", "/gone/a"])?, words(&["/gone/a dir/", "/gone/a*b"]));
    assert_eq!(complete(&["recover", "--force", "/gone/d"])?, words(&["/gone/dir/"]));
    assert_eq!(complete(&["diff", ""])?, words(&["/", "/home"]));
    // Where darlings knows nothing, what is said of that is not among the words.
    let options = complete(&["history", ""])?;
    assert!(options.contains("--json") && !options.contains("error:"), "{options:?}");
    Ok(())
}

#[test]
fn fish_completes_subcommands_and_options() -> Result<()> {
    skip_unless!(capability::root(), Ok(())); // the programs are installed where root runs
    let directory = tempfile::tempdir()?;
    let script = made("completions", directory.path())?.join("darlings.fish");
    let path = with_darlings(directory.path())?;
    let complete = |typed: &str| -> Result<BTreeSet<String>> {
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"]);
        // It makes directories in its home.
        fish.env("HOME", directory.path()).env("PATH", &path).arg(&script).arg(typed);
        let found = quietly(&mut fish)?;
        let words = found.lines().filter_map(|line| line.split('\t').next());
        Ok(words.map(str::to_owned).collect())
    };
    assert_eq!(complete("darlings gen")?, BTreeSet::from(["generations".to_owned()]));
    assert_eq!(complete("darlings purge --dr")?, BTreeSet::from(["--dry-run".to_owned()]));
    let generations = BTreeSet::from(["12".to_owned(), "7".to_owned()]);
    assert_eq!(complete("darlings diff --since ")?, generations);
    assert_eq!(complete("darlings recover /gone/d")?, BTreeSet::from(["/gone/dir/".to_owned()]));
    Ok(())
}

#[test]
fn zsh_takes_the_script_as_the_completion_of_darlings() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let directory = tempfile::tempdir()?;
    let made = made("completions", directory.path())?;
    let path = with_darlings(directory.path())?;
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
        # The values that darlings knows, as they are given to zsh.
        _describe() { print -r -- describe ${(Pj:|:)3}; }
        _files() { print -r -- files; }
        compadd() { print -r -- compadd ${(q)@}; }
        PREFIX= _darlings_known generations
        PREFIX=/gone/a _darlings_known paths
    "#;
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", words, "zsh"]).arg(&made);
    assert_eq!(
        quietly(zsh.env("HOME", directory.path()).env("PATH", path))?,
        "\
_darlings
_darlings__subcmd__generations_commands
describe 12:/, 2026-01-02 00:00 UTC|7:/, 2026-01-01 00:00 UTC
files
compadd -f -S '' -- /gone/a\\ dir/ /gone/a\\*b
"
    );
    Ok(())
}

/// The names and texts of all manual pages.
fn pages(directory: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(made("man", directory)?)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("not UTF-8")?;
        found.push((name, fs::read_to_string(entry.path())?));
    }
    found.sort();
    Ok(found)
}

#[test]
fn every_subcommand_has_a_page_that_says_what_help_says() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pages = pages(directory.path())?;
    let mut expected: BTreeSet<String> =
        ["darlings.8", "darlings.nix.5", "darlings.toml.5"].map(str::to_owned).into();
    expected.extend(subcommands().iter().map(|name| format!("darlings-{name}.8")));
    assert_eq!(pages.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), expected);
    for (name, text) in &pages {
        let Some(subcommand) = name.strip_prefix("darlings-") else { continue };
        let subcommand = subcommand.trim_end_matches(".8");
        let help = help(subcommand)?;
        let flags = help.lines().filter_map(|line| {
            let flag = line.trim_start().strip_prefix("--")?;
            Some(format!("\\-\\-{}", flag.split(' ').next()?.replace('-', "\\-")))
        });
        for flag in flags {
            assert!(text.contains(&format!("\\fB{flag}\\fR")), "{name}: {flag}\n{text}");
        }
        let sections =
            [".SH \"EXIT STATUS\"\n", ".SH FILES\n.TP\n", ".SH EXAMPLES\n", ".SH \"SEE ALSO\"\n"];
        let missing: Vec<_> = sections.into_iter().filter(|it| !text.contains(it)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{name}");
    }
    Ok(())
}

#[test]
fn the_page_on_the_configuration_has_every_key_of_the_readme() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pages = pages(directory.path())?;
    let (_, page) = pages.iter().find(|(name, _)| name == "darlings.toml.5").context("no page")?;
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
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
        assert_eq!(said, "", "{name}:\n{text}");
        let shown = quietly(Command::new("groff").args(["-man", "-Tascii", "-P-c"]).arg(&path))?;
        let foot = shown.lines().rfind(|line| !line.is_empty()).context("nothing")?;
        let title = name.replacen(".8", "(8)", 1).replacen(".5", "(5)", 1);
        let foot: Vec<&str> = foot.split_whitespace().collect();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(foot, ["darlings", version, "2025-12-31", title.as_str()], "{shown}");
    }
    Ok(())
}
