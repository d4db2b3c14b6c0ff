//! What the NixOS module renders, in a machine that is no NixOS.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::archive::Archive;

/// What the NixOS module renders for stage 1, as a golden file has it.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// The configuration.
    pub(crate) configuration: String,
    unit: String,
    /// Where the unit has the binary.
    binary: String,
    required_by: Vec<String>,
}

impl Rendered {
    pub(crate) fn read(golden: &Path) -> Result<Self> {
        let unit = golden_file(golden, "darlings-reset.service")?;
        let binary = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart=")?.split(' ').next())
            .context("the unit starts nothing")?
            .to_owned();
        let rest: serde_json::Value = serde_json::from_str(&golden_file(golden, "rest.json")?)?;
        let required_by =
            serde_json::from_value(rest["requiredBy"]["darlings-reset.service"].clone())
                .context("rest.json does not say what requires the unit")?;
        let configuration = golden_file(golden, "darlings.toml")?;
        Ok(Self { configuration, unit, binary, required_by })
    }

    pub(crate) fn install(
        &self,
        archive: &mut Archive,
        units: &str,
        darlings: &Path,
    ) -> Result<()> {
        archive.copy(darlings, &self.binary)?;
        archive.file(&format!("{units}/darlings-reset.service"), 0o644, self.unit.as_bytes())?;
        for by in &self.required_by {
            archive.symlink(
                &format!("{units}/{by}.requires/darlings-reset.service"),
                "../darlings-reset.service",
            )?;
        }
        Ok(())
    }
}

fn golden_file(golden: &Path, name: &str) -> Result<String> {
    let path = golden.join(name);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
