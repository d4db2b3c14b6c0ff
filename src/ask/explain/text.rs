//! An explanation for a person.

use super::{Decision, Explained, Explanation, Next, OnVolume, Rule};
use crate::ask::history::numbers;
use crate::ask::lookup::Found;
use crate::names::shown;
use crate::paint::Paint;

impl Explanation {
    /// As text.
    #[must_use]
    pub fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        for link in &self.links {
            text.extend([format!(
                "{} is a symbolic link to {}, which a reset does not follow.\n",
                shown(&link.path),
                shown(&link.target)
            )]);
        }
        let mut blocks = self.explained.iter().map(|explained| explained.text(paint));
        if !self.links.is_empty() {
            text.push_str("The path as it is written:\n\n");
            text.extend(blocks.next());
            text.push_str("\nWhat it stands for:\n\n");
        }
        if let Some(from) = &self.mounted_from {
            let last = blocks.next_back();
            text.extend(blocks);
            text.extend([format!("\nWhat is mounted there comes from {}:\n\n", shown(from))]);
            text.extend(last);
        } else {
            text.extend(blocks);
        }
        text
    }
}

impl Explained {
    fn text(&self, paint: Paint) -> String {
        let verdict = match self.verdict {
            Decision::Kept if self.next_reset == Next::NotFollowed => {
                paint.bad("declared, but cannot be kept")
            }
            Decision::Kept => paint.good("kept"),
            Decision::LeadsToKept => paint.careful("leads to what is kept"),
            Decision::NotKept => paint.bad("not kept"),
            Decision::Reserved => paint.good("never touched"),
            Decision::MountedOver | Decision::OnNoVolume => paint.good("not reset"),
        };
        let mut text = format!("{}: {verdict}\n", paint.head(shown(&self.path)));
        let mut line = |head: &str, rest: String| {
            text.extend([format!("  {head:<12} {rest}\n")]);
        };
        line("rule", self.rule_in_words());
        for more in self.leads_to.iter().take(NAMED) {
            line("", format!("{} keeps {}", at(more), shown(&more.path)));
        }
        if let Some(more) = self.leads_to.len().checked_sub(NAMED).filter(|more| *more > 0) {
            line("", format!("and {more} more"));
        }
        if let Some(on) = &self.volume {
            line("volume", format!("{} ({})", shown(&on.mount_point), on.name));
            if let Some(nested) = &on.nested_in {
                line("", format!("in {}, which is a volume of its own there", shown(nested)));
            }
            line("now", on.now.to_string());
            line("blank", on.blank.to_string());
            for (index, row) in on.generations_in_words().into_iter().enumerate() {
                line(if index == 0 { "generations" } else { "" }, row);
            }
            if !on.attic.is_empty() {
                line("attic", format!("put away by reset {}", numbers(&on.attic)));
            }
        }
        match &self.refused {
            Some(why) => line("next reset", paint.bad(format!("will be refused: {why}"))),
            None => line("next reset", self.next_in_words(paint)),
        }
        text
    }

    fn rule_in_words(&self) -> String {
        match (self.verdict, &self.rule) {
            (Decision::OnNoVolume, _) => "it is on no volume that is reset".to_owned(),
            (Decision::MountedOver, _) => format!(
                "something else is mounted at {}, and nothing of that is reset",
                self.mounted_over.as_deref().map(shown).unwrap_or_default()
            ),
            (Decision::Reserved, _) => "it is darlings' own, or the filesystem's".to_owned(),
            (Decision::Kept, _) if let Some(whole) = &self.kept_with => {
                format!("{} is kept as a whole: a reset cannot reach what is in it", shown(whole))
            }
            (_, Some(rule)) if rule.excludes => {
                format!("{} excludes {}", at(rule), shown(&rule.path))
            }
            (_, Some(rule)) => format!("{} keeps {}", at(rule), shown(&rule.path)),
            (_, None) => "no line of the configuration keeps it".to_owned(),
        }
    }

    fn next_in_words(&self, paint: Paint) -> String {
        let kept_in = self.volume.as_ref().and_then(|on| on.next_generation);
        let afterwards = match kept_in {
            Some(number) => format!("; what is there now will be in generation {number}"),
            None => "; no generation will hold it".to_owned(),
        };
        match self.next_reset {
            Next::Keep if self.is_absent() => {
                "nothing is there, and nothing will be; a file made there is kept".to_owned()
            }
            Next::Keep => "stays as it is".to_owned(),
            Next::ReturnFromAttic => "comes back from the attic".to_owned(),
            Next::NotFollowed => paint.bad(
                "is not followed, so nothing is kept there; declare the path that it stands for",
            ),
            Next::PutIntoAttic => paint
                .careful("goes to the attic, since the last reset kept it and no line does so now"),
            Next::Thin => {
                "the directory stays; what is in it and not kept is the blank's afterwards"
                    .to_owned()
            }
            Next::Erase => format!("{}{afterwards}", paint.bad("is erased")),
            Next::Replace => {
                format!("{}{afterwards}", paint.bad("what the blank has takes its place"))
            }
            Next::SameAsBlank => "stays as it is, which is what the blank has".to_owned(),
            Next::Bring => "what the blank has will be there".to_owned(),
            Next::Nothing if self.is_behind() => "nothing is there".to_owned(),
            Next::Nothing => {
                "nothing is there, and nothing will be; a file made there is erased".to_owned()
            }
            Next::Untouched => "does not touch it".to_owned(),
        }
    }

    /// Whether something on the way is no directory.
    fn is_behind(&self) -> bool {
        let now = self.volume.as_ref().map(|on| &on.now);
        matches!(now, Some(Found::Unreachable { .. }))
    }

    fn is_absent(&self) -> bool {
        self.volume.as_ref().is_some_and(|on| on.now.entry().is_none())
    }
}

/// So many kept paths below a directory are named.
const NAMED: usize = 5;

fn at(rule: &Rule) -> String {
    format!("{}:{}", shown(&rule.file), rule.line)
}

impl OnVolume {
    fn generations_in_words(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for version in &self.generations {
            let mut all: Vec<u64> = version.generation.into_iter().collect();
            all.extend(&version.same_in);
            let differs = version.differs_in_words();
            let found = match (&version.found, differs.is_empty()) {
                (Found::Absent, _) => "nothing".to_owned(),
                (found, true) if version.differs.is_empty() && *found == self.now => {
                    "as now".to_owned()
                }
                (found, true) => found.to_string(),
                (found, false) => format!("{found}; differs: {}", differs.join(", ")),
            };
            rows.push(format!("{}: {found}", numbers(&all)));
        }
        if !self.not_held.is_empty() {
            rows.push(format!("{}: it was kept, and is not in them", numbers(&self.not_held)));
        }
        if rows.is_empty() {
            rows.push("none".to_owned());
        }
        rows
    }
}
