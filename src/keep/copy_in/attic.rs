//! The attic in a restoration: what `carry` does by moving, done by copying.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Restoration;
use crate::fs::Dir;
use crate::keep::attic::{ATTIC, Attic, List};
use crate::own::Own;
use crate::rules::{Node, OWN_DIRECTORY};
use crate::tree::{Settled, copy_attributes, job, run, unseal};

/// The attic's directory, below a volume's root.
fn home() -> PathBuf {
    Path::new(OWN_DIRECTORY).join(ATTIC)
}

impl Restoration<'_> {
    /// Brings the attic over but for what comes back from it, and puts away what is no longer
    /// declared.
    pub(super) fn bring_attic(&mut self, generation: u64) -> anyhow::Result<()> {
        let home = home();
        let has_attic = match Own::open(self.trees.previous)? {
            Some(own) => own.open_dir_optional(ATTIC)?.is_some(),
            None => false,
        };
        if has_attic {
            let returned = self.returned.iter().chain(self.attic.inside.iter().map(|it| &it.from));
            let below = |path: &PathBuf| path.strip_prefix(&home).map(Path::to_owned);
            let returned: Vec<PathBuf> =
                returned.map(below).collect::<Result<_, _>>().context("BUG: not in the attic")?;
            let rules = Node::excluding(returned.iter().map(PathBuf::as_path));
            self.copy_all(&[(&home, home.clone(), Some(&rules))])?;
        }
        if self.attic.stores.is_empty() {
            return Ok(());
        }
        let attic = self.make_attic(generation).context("cannot make a place in the attic")?;
        let mut settle = Vec::new();
        let stores = &self.attic.stores;
        let above: BTreeSet<&Path> =
            stores.iter().flat_map(|path| path.ancestors().skip(1)).collect();
        for path in above.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            settle.push(
                self.make_above(&attic, path)
                    .with_context(|| format!("cannot make {path:?} in the attic"))?,
            );
        }
        let home = home.join(generation.to_string());
        let kept: Vec<_> =
            stores.iter().map(|path| self.rules.at(path).map(Node::of_the_blank)).collect();
        let jobs: Vec<_> = stores
            .iter()
            .zip(&kept)
            .map(|(path, rules)| (path.as_path(), home.join(path), rules.as_ref()))
            .collect();
        self.copy_all(&jobs)?;
        // The deepest first, like the list's end.
        for (directory, settled) in settle.iter().rev() {
            settled.settle(directory).context("cannot set times in the attic")?;
        }
        Ok(())
    }

    fn make_attic(&self, generation: u64) -> anyhow::Result<Dir> {
        let attic = Own::ensure(self.trees.target)?.directory(ATTIC)?;
        attic.write_json(format!("{generation}.json"), &List::new(&self.attic.stores))?;
        attic.make_dir(generation.to_string())
    }

    fn make_above(&mut self, attic: &Dir, path: &Path) -> anyhow::Result<(Dir, Settled)> {
        let before = self.trees.previous.open_dir(path)?;
        let made = attic.make_dir(path)?;
        copy_attributes(&before, &made, &mut self.scratch)?;
        Ok((made, Settled::look(&before)?.unsealed()))
    }

    /// Brings back into persisted directories what was put away from them.
    pub(super) fn bring_back_inside(&mut self, attic: &Attic) -> anyhow::Result<()> {
        for returned in &attic.inside {
            let above = returned.path.parent().unwrap_or(Path::new(""));
            let into = self.trees.target.open_dir(above)?;
            let settled = Settled::look(&into)?;
            unseal(&into)?;
            self.copy_all(&[(&returned.from, returned.path.clone(), None)])?;
            settled.settle(&into).with_context(|| format!("cannot set the times of {above:?}"))?;
        }
        Ok(())
    }

    fn copy_all(&mut self, jobs: &[(&Path, PathBuf, Option<&Node>)]) -> anyhow::Result<()> {
        let jobs: Vec<_> =
            jobs.iter().map(|(from, to, rules)| (*from, job(to.clone(), *rules))).collect();
        let jobs: Vec<_> = jobs.iter().map(|(from, job)| (*from, job)).collect();
        let (source, target) = (self.trees.previous, self.trees.target);
        run(&jobs, source, target, (self.ladder, self.links), self.threads, &mut self.scratch)
    }
}
