//! The attic in a restoration: what `carry` does by moving, done by copying.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, mkdirat};

use super::Restoration;
use crate::fs::at;
use crate::keep::attic::{ATTIC, Attic, List};
use crate::own::{own_directory, trusted_own_directory};
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
        let previous = self.trees.previous;
        let own = trusted_own_directory(previous)?;
        let has_attic = match &own {
            Some(own) => at::directory_beneath(own.as_fd(), Path::new(ATTIC))
                .context("cannot open the attic")?
                .is_some(),
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
            settled.settle(directory.as_fd()).context("cannot set times in the attic")?;
        }
        Ok(())
    }

    fn make_attic(&self, generation: u64) -> anyhow::Result<OwnedFd> {
        let own = own_directory(self.trees.target)?;
        let name = at::c_name(ATTIC.as_ref())?;
        let attic = crate::own::ensure_directory(own.as_fd(), &name)?;
        let list = serde_json::to_vec_pretty(&List::new(&self.attic.stores))?;
        at::write_durably(&attic, format!("{generation}.json"), &list)?;
        let number = at::c_name(generation.to_string().as_ref())?;
        mkdirat(&attic, &number, Mode::RWXU)?;
        Ok(at::open_directory(attic.as_fd(), &number)?)
    }

    fn make_above(&mut self, attic: &OwnedFd, path: &Path) -> anyhow::Result<(OwnedFd, Settled)> {
        let before = at::open_beneath(self.trees.previous, path)?;
        let (parent, name) = at::open_parent(attic, path)?;
        mkdirat(&parent, &name, Mode::RWXU)?;
        let made = at::open_directory(parent.as_fd(), &name)?;
        copy_attributes(before.as_fd(), made.as_fd(), &mut self.scratch)?;
        Ok((made, Settled::look(before.as_fd())?.unsealed()))
    }

    /// Brings back into persisted directories what was put away from them.
    pub(super) fn bring_back_inside(&mut self, attic: &Attic) -> anyhow::Result<()> {
        for returned in &attic.inside {
            let above = returned.path.parent().unwrap_or(Path::new(""));
            let into = at::open_beneath(self.trees.target, above)
                .with_context(|| format!("cannot open {above:?}"))?;
            let settled = Settled::look(into.as_fd())?;
            unseal(into.as_fd())?;
            self.copy_all(&[(&returned.from, returned.path.clone(), None)])?;
            settled
                .settle(into.as_fd())
                .with_context(|| format!("cannot set the times of {above:?}"))?;
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
