//! Cuts that were tried, and what each had left.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};

use super::{Cut, Log};

/// What was found after cuts of one run.
#[derive(Debug)]
pub struct Tried<F> {
    /// Each cut, and what was found after it.
    pub found: BTreeMap<Cut, F>,
    written: Range<usize>,
}

impl Log {
    /// Tries about `count` cuts of what was recorded in a range: half of them spread over all of
    /// it, the others where what is found turns to what `has_turned` says.
    pub fn try_cuts<F: Ord + Clone>(
        &self,
        range: &Range<usize>,
        count: usize,
        has_turned: impl Fn(&F) -> bool,
        mut attempt: impl FnMut(&Cut) -> Result<F>,
    ) -> Result<Tried<F>> {
        let written = self.written(range);
        let mut found: BTreeMap<Cut, F> = BTreeMap::new();
        let mut part = written.clone();
        for (round, count) in [count.div_ceil(2), count / 4, count / 4].into_iter().enumerate() {
            for cut in self.cuts_within(range, &part, count, round as u64 + 1) {
                if let Entry::Vacant(place) = found.entry(cut) {
                    let what = attempt(place.key()).with_context(|| place.key().to_string())?;
                    place.insert(what);
                }
            }
            let (mut last, mut first) = (written.start, written.end);
            for (cut, what) in &found {
                if has_turned(what) {
                    first = first.min(cut.at);
                } else {
                    last = last.max(cut.at);
                }
            }
            part = last.min(first)..last.max(first).max(last + 8).min(written.end);
        }
        Ok(Tried { found, written })
    }
}

impl<F: Ord + Clone> Tried<F> {
    /// How many were inside the run: after its first write and before its last.
    #[must_use]
    pub fn inside(&self) -> usize {
        let Range { start, end } = self.written;
        self.found.keys().filter(|cut| cut.at > start && cut.at < end).count()
    }

    /// A cut for each thing that was found.
    #[must_use]
    pub fn examples(&self) -> BTreeMap<F, Cut> {
        let found = self.found.iter().rev();
        found.map(|(cut, what)| (what.clone(), cut.clone())).collect()
    }

    /// Demands that some were inside the run; where 25 or more were asked for, that half of them
    /// were, or 25, and that some lacked writes. Of few cuts many may be alike, and count once.
    pub fn check(&self, count: usize) -> Result<()> {
        let (inside, all) = (self.inside(), self.found.len());
        let lacking = self.found.keys().filter(|cut| cut.lacks_writes()).count();
        let many = count >= 25;
        let least = if many { count.div_ceil(2).min(25) } else { 1 };
        ensure!(inside >= least, "only {inside} of {all} were inside the run");
        ensure!(!many || lacking > inside / 8, "only {lacking} of {all} lacked writes");
        Ok(())
    }
}

impl<F: Ord + Clone + fmt::Debug> fmt::Display for Tried<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers: BTreeMap<&F, usize> = BTreeMap::new();
        for what in self.found.values() {
            *numbers.entry(what).or_default() += 1;
        }
        write!(
            formatter,
            "{} power cuts, {} of them inside the run ({} writes and flushes), {} with writes lost, \
             torn or out of order; found {numbers:?}",
            self.found.len(),
            self.inside(),
            self.written.len(),
            self.found.keys().filter(|cut| cut.lacks_writes()).count(),
        )
    }
}
