//! The memory of programs that do not tell it themselves.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Between two looks. The kernel remembers the peak of a process until it ends, so that only what it
/// takes in its last moments is missed.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs a command to its end and looks at it all the while, which takes time of its own. Gives the most
/// memory that the largest of its processes had, in bytes.
pub(crate) fn peak(command: &mut Command) -> Result<f64> {
    let mut said = tempfile::tempfile().context("cannot make a file for what a program says")?;
    let errors: File = said.try_clone()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut peak = 0;
    let status = loop {
        peak = peak.max(largest(child.id()));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(PAUSE);
    };
    let mut words = String::new();
    said.rewind()?;
    said.read_to_string(&mut words)?;
    ensure!(status.success(), "{command:?}: {status}: {}", words.trim());
    ensure!(peak > 0, "{command:?} ended before anybody looked at it");
    #[expect(clippy::cast_precision_loss, reason = "it has fewer than 53 bits")]
    Ok((peak * 1024) as f64)
}

/// The peak of a process or of one that it has started, whichever is more, in KiB. One that has ended
/// has none.
fn largest(process: u32) -> u64 {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}"));
    let own = read("status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    });
    let children = read(&format!("task/{process}/children")).unwrap_or_default();
    let of_children = children.split_whitespace().filter_map(|id| id.parse().ok()).map(largest);
    of_children.chain(own).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::peak;

    /// 16 MiB in a variable of the script's inner shell, which lives for a moment.
    const GROWS: &str = "bash -c 'printf -v text %16777216s x; sleep 0.05'; true";

    #[test]
    fn the_peak_is_that_of_the_largest_process_that_a_command_starts() -> anyhow::Result<()> {
        let small = peak(Command::new("bash").args(["-c", "sleep 0.05"]))?;
        let large = peak(Command::new("bash").args(["-c", GROWS]))?;
        assert!(small > 0.0 && small < f64::from(16 << 20), "{small}");
        assert!(large > f64::from(16 << 20), "{large}");
        Ok(())
    }

    #[test]
    fn a_command_that_fails_is_an_error_with_its_words() {
        let error = peak(Command::new("bash").args(["-c", "echo no room >&2; sleep 0.05; exit 3"]));
        let words = error.map_err(|error| format!("{error:#}"));
        assert!(
            words.as_ref().is_err_and(|words| words.ends_with("exit status: 3: no room")),
            "{words:?}"
        );
    }
}
