//! The rule that `darlings check` says ready exactly when a reset of the same state ends well.
//!
//! Everything that runs a reset in the tests asks `check` first, with the same configuration and
//! kernel command line, and demands afterwards that the two agree.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

/// What a reset says where it fails for what a running system cannot know of the next boot, which
/// `check` therefore passes over: the volume, or something on it, is mounted; another run is at work; the
/// machine hibernated. The whole list.
const ONLY_NOW: [&str; 5] = [
    "a volume is reset before it is mounted",
    // What ZFS says of a mount in somebody else's namespace.
    "it is in use (mounted, ",
    "a volume is reset before others are mounted on it",
    "another run is at work in",
    "a hibernation image waits to be resumed",
];

/// What `check` says where it estimates room, and errs towards "not ready".
const ESTIMATED: &str = " does not fit beside what is there: ";

/// What `check` said of the state that a reset is about to run on.
#[derive(Debug)]
#[must_use = "compare it with how the reset ended"]
pub struct Foretold {
    ready: bool,
    said: String,
}

impl Foretold {
    /// Runs `darlings check` where `command` would run `darlings reset`.
    ///
    /// Returns nothing where the rule does not apply: `command` runs something else; it injects a
    /// fault or kills the reset; or the kernel command line asks for anything but a reset, which is
    /// all that `check` speaks of.
    pub fn before(command: &Command) -> Result<Option<Self>> {
        let words: Vec<&OsStr> =
            std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let Some(at) = words.iter().position(|word| *word == "reset") else { return Ok(None) };
        let (before, arguments) = (&words[..at], &words[at + 1..]);
        let injects = |word: &&OsStr| {
            let word = word.to_string_lossy();
            word.contains("inject=") && !word.contains(":delay_")
        };
        if before.iter().any(injects) || asks_for_something_else(arguments)? {
            return Ok(None);
        }
        // Tracing a reset must not trace this one into the same file.
        let before = match before.iter().position(|word| *word == "strace") {
            Some(strace) => [&before[..strace], &before[at - 1..]].concat(),
            None => before.to_vec(),
        };
        let mut check = Command::new(before[0]);
        check.args(&before[1..]).args(["check", "--json", "--fstab", "/dev/null"]);
        for option in ["--config", "--cmdline"] {
            if let Some(file) = value_of(arguments, option) {
                check.args([OsString::from(option), file]);
            }
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => check.env(name, value),
                None => check.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            check.current_dir(directory);
        }
        let output = check.stdin(Stdio::null()).output().with_context(|| format!("{check:?}"))?;
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{check:?} printed no JSON:\n{said}"))?;
        let ready = found["ready"].as_bool().context("no `ready`")?;
        ensure!(ready || output.status.code() != Some(0), "not ready, with exit code 0:\n{said}");
        Ok(Some(Self { ready, said }))
    }

    /// Runs a command to its end. If it is a reset, `check` must foretell how it ends.
    pub fn output(command: &mut Command) -> Result<Output> {
        let foretold = Self::before(command)?;
        let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
        if let Some(foretold) = foretold {
            foretold.must_agree(output.status.code(), &String::from_utf8_lossy(&output.stderr))?;
        }
        Ok(output)
    }

    /// Compares it with the exit code of the reset and what the reset printed.
    pub fn must_agree(self, code: Option<i32>, printed: &str) -> Result<()> {
        let Self { ready, said } = self;
        if !ready && said.contains(ESTIMATED) {
            return Ok(());
        }
        if ONLY_NOW.iter().any(|reason| printed.contains(reason)) {
            return Ok(());
        }
        let word = if ready { "ready" } else { "not ready" };
        ensure!(
            ready == (code == Some(0)),
            "`check` said {word}, and then the reset ended with {code:?}\n\
             check: {said}\nreset: {printed}"
        );
        Ok(())
    }
}

/// Whether the kernel command line asks for anything but a reset.
fn asks_for_something_else(arguments: &[&OsStr]) -> Result<bool> {
    let Some(file) = value_of(arguments, "--cmdline") else { return Ok(false) };
    let line = match std::fs::read(&file) {
        Ok(line) => String::from_utf8_lossy(&line).into_owned(),
        // The reset is to fail for that.
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(false),
        Err(why) => return Err(why).with_context(|| format!("cannot read {file:?}")),
    };
    let known = ["off", "snapshot", "restore:"];
    let words = line.split(|it: char| it.is_whitespace() || it == '"');
    let asked = words.filter_map(|word| word.strip_prefix("darlings=")).next_back();
    Ok(asked.is_some_and(|asked| known.iter().any(|word| asked.starts_with(word))))
}

/// The value of an option, given as the word after it or behind an equals sign.
fn value_of(arguments: &[&OsStr], option: &str) -> Option<OsString> {
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if *word == option {
            return words.next().map(OsString::from);
        }
        let joined = word.to_str().and_then(|word| word.strip_prefix(option)?.strip_prefix('='));
        if let Some(value) = joined {
            return Some(value.into());
        }
    }
    None
}
