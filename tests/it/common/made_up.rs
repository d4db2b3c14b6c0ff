//! Configurations for made-up rules.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use darlings::config::{self, Backing, Btrfs, Config, OnFailure, Strategy};
use darlings::rules::Rules;
use darlings_testkit::RelPath;
use darlings_testkit::model::Rule;

/// The rules that a configuration can hold. TOML is UTF-8. A path both declared and excluded, or
/// excluded twice, is a configuration error to the tool; to the model it is the declared path, so
/// leaving out the exclusion changes nothing.
pub(crate) fn configurable(rules: &[Rule]) -> Vec<Rule> {
    let is_text = |path: &RelPath| std::str::from_utf8(path.as_bytes()).is_ok();
    let mut rules: Vec<Rule> = rules.iter().filter(|rule| is_text(&rule.path)).cloned().collect();
    let mut named: BTreeSet<_> = rules.iter().map(|rule| rule.path.clone()).collect();
    for rule in &mut rules {
        let path = rule.path.clone();
        rule.excludes
            .retain(|exclude| is_text(exclude) && named.insert(path.join(exclude.as_bytes())));
    }
    rules
}

/// The configuration of `@` on a device, mounted there, that keeps what these rules say; they are
/// [`configurable`].
pub(crate) fn config(
    mount_point: &str,
    device: &Path,
    strategy: Strategy,
    without_blank: bool,
    rules: &[Rule],
) -> Result<Config> {
    let mut tool_rules = Rules::default();
    for rule in rules {
        let excludes: Vec<_> = rule.excludes.iter().map(|path| path.below(Path::new(""))).collect();
        tool_rules
            .declare(&rule.path.below(Path::new("")), &excludes)
            .map_err(|path| anyhow::anyhow!("{path:?} is declared or excluded twice"))?;
    }
    tool_rules.finish();
    let volume = config::Volume {
        mount_point: mount_point.into(),
        backing: Backing::Btrfs(Btrfs {
            device: device.into(),
            subvolume: "@".into(),
            blank: (!without_blank).then(|| "@blank".into()),
            generations: "@darlings/root".into(),
        }),
        strategy,
        keep: None,
        rules: tool_rules,
    };
    Ok(Config { on_failure: OnFailure::Boot, volumes: vec![volume] })
}
