//! Programs of this computer that are run to their end.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs a program; anything but success is an error that holds what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{shown} wrote something that is not text"))
}
