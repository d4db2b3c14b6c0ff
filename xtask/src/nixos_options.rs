//! The reference of the NixOS module's options, from the JSON that nixpkgs' `nixosOptionsDoc` would have.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// What `tests/it/nix.rs` has the module evaluated to.
const OPTIONS: &str = include_str!("../../nix/options.json");

#[derive(Deserialize)]
struct Described {
    description: String,
    r#type: String,
    default: Option<Value>,
    example: Option<Value>,
}

/// An expression of Nix, or words in its place.
#[derive(Deserialize)]
struct Value {
    text: String,
}

/// The page docs/nixos-options.md.
pub(crate) fn page() -> Result<String> {
    Ok(format!(
        "# The options of the NixOS module\n\n<!-- Made by `cargo xtask nixos-options FILE`. -->\n\n\
         [nixos.md](nixos.md) explains the module. Options of impermanence and preservation that have no \
         meaning here\nare in the tables there.\n\n{}",
        body()?
    ))
}

/// The options in the order of their names.
pub(crate) fn body() -> Result<String> {
    let options: BTreeMap<String, Described> =
        serde_json::from_str(OPTIONS).context("nix/options.json")?;
    let sections = options.iter().map(|(name, option)| {
        let mut section =
            format!("## `{name}`\n\n{}\n\n- type: {}\n", option.description.trim(), option.r#type);
        for (what, value) in [("default", &option.default), ("example", &option.example)] {
            if let Some(Value { text }) = value {
                section.push_str(&said(what, text.trim()));
            }
        }
        section
    });
    Ok(sections.collect::<Vec<_>>().join("\n"))
}

/// A value in the list, or in lines of its own below it.
fn said(what: &str, text: &str) -> String {
    if text.contains('\n') {
        return format!("\n{what}:\n\n```nix\n{text}\n```\n");
    }
    // Words may have code of their own.
    let quote = if text.contains('`') { "" } else { "`" };
    format!("- {what}: {quote}{text}{quote}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_one_that_is_made() -> Result<()> {
        assert_eq!(page()?, include_str!("../../docs/nixos-options.md"));
        Ok(())
    }

    #[test]
    fn long_values_have_lines_of_their_own() {
        assert_eq!(said("default", "[ ]"), "- default: `[ ]`\n");
        assert_eq!(said("default", "`{ }` on ZFS"), "- default: `{ }` on ZFS\n");
        let long = "{\n\n  a = 1;\n}";
        assert_eq!(said("example", long), format!("\nexample:\n\n```nix\n{long}\n```\n"));
    }
}
