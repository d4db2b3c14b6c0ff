//! How things stand, for a person.

use super::{LastPhases, LastReport, LastVolume, Status, VolumeStatus};
use crate::ask::history::numbers;
use crate::generations::listing::utc;
use crate::names::shown;
use crate::paint::Paint;
use crate::text::bytes_in_words;

impl Status {
    /// One line when all is well and nobody asked for more.
    #[must_use]
    pub fn text(&self, paint: Paint, verbose: bool) -> String {
        if self.well && !verbose {
            let notes = self.volumes.iter().flat_map(|it| {
                it.notes.iter().map(|note| format!("Note: {}: {note}\n", shown(&it.mount_point)))
            });
            let well = format!("{}{}\n", paint.good("All is well"), self.in_short());
            return well + &notes.collect::<String>();
        }
        let mut text = String::new();
        if self.well {
            text.extend([format!("{}\n", paint.good("All is well."))]);
        }
        for words in &self.attention {
            text.extend([format!("{} {words}\n", paint.bad("Attention:"))]);
        }
        if let Some(report) = &self.report {
            let what = report.asked.as_deref().unwrap_or("something unknown");
            text.extend([format!(
                "This boot: {what} was asked for, ended as {}, in {:.3} s\n",
                report.outcome, report.seconds
            )]);
        }
        for volume in &self.volumes {
            text.push('\n');
            self.add(&mut text, volume, paint);
        }
        text
    }

    /// What follows the good news.
    fn in_short(&self) -> String {
        let runs: Vec<_> = self.volumes.iter().filter_map(|it| it.last_run.as_ref()).collect();
        let generations: usize = self.volumes.iter().map(|it| it.generations.len()).sum();
        let to_purge: usize = self.volumes.iter().map(|it| it.to_purge.count()).sum();
        let stored: usize =
            self.volumes.iter().flat_map(|it| &it.attic).map(|it| it.paths.len()).sum();
        let mut text = String::new();
        if let Some(run) = runs.first() {
            let when = run.time.map_or_else(String::new, |time| format!(" on {} UTC", utc(time)));
            text.extend([format!(": reset {}{when}", run.number)]);
        }
        if let Some(report) = &self.report {
            text.extend([format!(" in {:.3} s", report.seconds)]);
        }
        text.extend([format!("; {}", counted(generations, "generation"))]);
        if stored > 0 {
            text.extend([format!("; {} in the attic", counted(stored, "path"))]);
        }
        if to_purge > 0 {
            text.extend([format!("; {to_purge} to be purged")]);
        }
        text + "."
    }

    fn add(&self, text: &mut String, volume: &VolumeStatus, paint: Paint) {
        let mount_point = shown(&volume.mount_point);
        text.extend([format!("{} ({})\n", paint.head(&mount_point), volume.name)]);
        let mut line = |head: &str, rest: String| {
            text.extend([format!("  {head:<12} {rest}\n")]);
        };
        if let Some(error) = &volume.error {
            line("error", paint.bad(error));
            return;
        }
        line("last run", volume.last_run_in_words());
        if let Some(words) = self.report.as_ref().and_then(|it| it.of_volume(&mount_point)) {
            line("this boot", words);
        }
        if let Some(why) = &volume.interrupted {
            line("interrupted", paint.bad(why));
        }
        for note in &volume.notes {
            line("note", note.clone());
        }
        line("generations", volume.generations_in_words());
        if let (Some(available), Some(total)) = (volume.available_bytes, volume.total_bytes) {
            line("free", format!("{} of {}", bytes_in_words(available), bytes_in_words(total)));
        }
        if volume.attic.is_empty() {
            line("attic", "empty".to_owned());
        }
        for (index, stored) in volume.attic.iter().enumerate() {
            let paths: Vec<String> = stored.paths.iter().map(shown).collect();
            line(
                if index == 0 { "attic" } else { "" },
                format!("reset {}: {}", stored.reset, paths.join(", ")),
            );
        }
        for (index, words) in volume.to_purge_in_words().into_iter().enumerate() {
            line(if index == 0 { "to purge" } else { "" }, words);
        }
    }
}

impl LastReport {
    /// What this boot's run did with a volume; nothing where it had nothing to do with it.
    fn of_volume(&self, mount_point: &str) -> Option<String> {
        let failed = matches!(self.outcome.as_str(), "failed" | "unfinished");
        let reported = self.volumes.iter().find(|it| it.mount_point == mount_point);
        let Some(LastVolume { does, committed, phase_seconds, .. }) = reported else {
            return failed.then(|| "nothing was done with it".to_owned());
        };
        Some(match (does.as_str(), committed) {
            ("nothing", _) => "left as it is".to_owned(),
            (does, Some(false)) if failed => format!("{does} was not done"),
            (does, _) => {
                let LastPhases { prepare, commit, finish } = phase_seconds;
                format!(
                    "{does}: prepare {prepare:.3} s, commit {commit:.3} s, finish {finish:.3} s"
                )
            }
        })
    }
}

impl VolumeStatus {
    fn last_run_in_words(&self) -> String {
        let Some(run) = &self.last_run else { return "none: it was never reset".to_owned() };
        let when = run.time.map_or_else(|| "at an unknown time".to_owned(), |it| utc(it) + " UTC");
        let boot = if run.this_boot { "in this boot" } else { "in an earlier boot" };
        format!("{}, {when}, {boot}", run.number)
    }

    fn generations_in_words(&self) -> String {
        if self.generations.is_empty() {
            return "none".to_owned();
        }
        let mut words = numbers(&self.generations);
        if let Some(bytes) = self.exclusive_bytes {
            words.extend([format!("; {} that each has alone", bytes_in_words(bytes))]);
        }
        words
    }

    fn to_purge_in_words(&self) -> Vec<String> {
        let to_purge = &self.to_purge;
        let mut words = Vec::new();
        if !to_purge.trash.is_empty() {
            let names: Vec<String> = to_purge.trash.iter().map(shown).collect();
            words.push(format!("trash: {}", names.join(", ")));
        }
        let expired: Vec<u64> = to_purge.generations.iter().map(|it| it.number).collect();
        for (what, all) in [
            ("generations that are no longer kept", &expired),
            ("generations that an interrupted purge left", &to_purge.begun),
            ("attic, of resets", &to_purge.attic),
        ] {
            if !all.is_empty() {
                words.push(format!("{what}: {}", numbers(all)));
            }
        }
        if words.is_empty() {
            words.push("nothing".to_owned());
        }
        words
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
