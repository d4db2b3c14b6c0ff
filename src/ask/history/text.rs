//! Histories for a person.

use crate::generations::listing::{counted, lined_up, utc};
use crate::names::shown;
use crate::paint::Paint;
use crate::text::bytes_in_words;

use super::{Difference, EndedBy, History, PathHistory, Version};

impl History {
    /// As text.
    #[must_use]
    pub fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        for (index, volume) in self.volumes.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            let mount_point = shown(&volume.mount_point);
            if let Some(error) = &volume.error {
                text.extend([format!("{}\n", paint.bad(format!("{mount_point}: {error}")))]);
                continue;
            }
            let count = counted(volume.generations.len());
            text.extend([format!("{}\n", paint.head(format!("{mount_point}: {count}")))]);
            let mut rows =
                vec![["NUMBER", "ENDED (UTC)", "ENDED BY", "FREES", "BOOT"].map(String::from)];
            for told in &volume.generations {
                let it = &told.generation;
                let unknown = || "-".to_owned();
                rows.push([
                    it.number.to_string(),
                    it.ended.map_or_else(unknown, utc),
                    told.ended_by.map_or_else(unknown, |ended_by| ended_by.to_string()),
                    it.size.map_or_else(unknown, |size| bytes_in_words(size.exclusive_bytes)),
                    it.boot.clone().unwrap_or_else(unknown),
                ]);
            }
            if !volume.generations.is_empty() {
                text.push_str(&lined_up(&rows, &[0, 3]));
            }
        }
        text
    }
}

impl std::fmt::Display for EndedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset => f.write_str("reset"),
            Self::Restore { of } => write!(f, "restore of {of}"),
            Self::Snapshot => f.write_str("nothing (a copy)"),
        }
    }
}

impl Version {
    /// In what it differs from what is live, if both are there.
    #[must_use]
    pub fn differs_in_words(&self) -> Vec<&'static str> {
        let differs = self.differs.iter().filter(|it| **it != Difference::Presence);
        differs.map(|it| it.word()).collect()
    }
}

impl PathHistory {
    /// As text.
    #[must_use]
    pub fn text(&self, paint: Paint) -> String {
        let mut text = format!("{}\n", paint.head(shown(&self.path)));
        let head = ["GENERATION", "ENDED (UTC)", "MODIFIED (UTC)", "WHAT"];
        let mut rows = vec![head.map(String::from)];
        for version in &self.versions {
            let entry = version.found.entry();
            rows.push([
                version.generation.map_or_else(|| "now".to_owned(), |number| number.to_string()),
                version.ended.map_or_else(|| "-".to_owned(), utc),
                entry.map_or_else(|| "-".to_owned(), super::lookup::FoundEntry::modified_in_words),
                what(version),
            ]);
        }
        text.push_str(&lined_up(&rows, &[0]));
        text.push_str(&self.notes());
        text
    }

    /// What a person should know about what is missing.
    #[must_use]
    pub fn notes(&self) -> String {
        let mut text = String::new();
        if !self.not_held.is_empty() {
            text.extend([format!(
                "Not in {}: it was kept, and a generation of a plain directory holds only what was \
                 not.\n",
                generations(&self.not_held)
            )]);
        }
        if let Some(nested) = &self.nested_in {
            text.extend([format!(
                "{} is a subvolume or filesystem of its own, which no generation of {} holds.\n",
                shown(nested),
                shown(&self.mount_point)
            )]);
        }
        text
    }
}

fn what(version: &Version) -> String {
    let mut what = match version.found.entry() {
        Some(entry) => entry.in_short(),
        None => version.found.to_string(),
    };
    let differs = version.differs_in_words();
    if !differs.is_empty() {
        what.extend([format!("; differs: {}", differs.join(", "))]);
    }
    if !version.same_in.is_empty() {
        what.extend([format!("; the same in {}", numbers(&version.same_in))]);
    }
    what
}

/// Numbers of generations for a person, with the word before them.
#[must_use]
pub fn generations(all: &[u64]) -> String {
    let word = if all.len() == 1 { "generation" } else { "generations" };
    format!("{word} {}", numbers(all))
}

/// Numbers in falling order, runs of them in short.
#[must_use]
pub fn numbers(all: &[u64]) -> String {
    let mut sorted = all.to_vec();
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in sorted {
        match runs.last_mut() {
            Some((_, low)) if *low == number + 1 => *low = number,
            _ => runs.push((number, number)),
        }
    }
    let words: Vec<String> = runs
        .into_iter()
        .map(|(high, low)| match high - low {
            0 => high.to_string(),
            1 => format!("{high}, {low}"),
            _ => format!("{high} to {low}"),
        })
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn runs_of_numbers_are_told_in_short() {
        assert_eq!(numbers(&[7]), "7");
        assert_eq!(numbers(&[6, 7]), "7, 6");
        assert_eq!(numbers(&[1, 9, 8, 7, 3, 2, 40]), "40, 9 to 7, 3 to 1");
    }
}
