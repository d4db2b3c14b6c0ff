//! All generations of a configuration: as a table for a person, as JSON for a program.

use std::path::PathBuf;

use serde::Serialize;

use super::{Access, CountedBy, Detail, Generation, Other, Seen, Size, Store, close_after};
use crate::config::{self, Config};
use crate::names::shown;
use crate::own::trash;
use crate::text::bytes_in_words;

/// The generations of every volume. Its schema is in the README; a new field does not change
/// `version`.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Format of this listing.
    pub version: u32,
    /// The volumes, in the order of the configuration.
    pub volumes: Vec<VolumeListing>,
}

/// The generations of one volume.
#[derive(Debug, Default, Serialize)]
pub struct VolumeListing {
    /// Where the running system mounts it.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub mount_point: PathBuf,
    /// Why there is nothing more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What can still be written on its filesystem.
    pub available_bytes: Option<u64>,
    /// The size of its filesystem.
    pub total_bytes: Option<u64>,
    /// The generations, oldest first.
    pub generations: Vec<Generation>,
    /// Those that an interrupted purge had begun to remove: incomplete, and the next one goes on.
    pub being_removed: Vec<String>,
    /// What lies among the generations, is none, and is never touched.
    pub others: Vec<Other>,
    /// What recoveries replaced, which is kept as long as generations are.
    pub replaced: Vec<ReplacedEntry>,
}

/// What a recovery replaced.
#[derive(Debug, Serialize)]
pub struct ReplacedEntry {
    /// Where it is, below the volume's root.
    pub name: String,
    /// Where it was, in the running system.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub path: PathBuf,
    /// When it was replaced, in seconds since 1970.
    pub time: Option<u64>,
}

impl Listing {
    /// Looks at every volume of `config`.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let volumes = config.volumes.iter().map(VolumeListing::of).collect();
        Self { version: 1, volumes }
    }

    /// Whether every volume could be looked at.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.volumes.iter().all(|volume| volume.error.is_none())
    }
}

impl VolumeListing {
    fn of(volume: &config::Volume) -> Self {
        let mut listing = Self { mount_point: volume.mount_point.clone(), ..Self::default() };
        let result = crate::volume::store(volume, Access::ReadOnly).and_then(|mut store| {
            let result = listing.fill(store.as_mut());
            close_after(result, store.as_mut())
        });
        listing.error = result.err().map(|error| format!("{error:#}"));
        listing
    }

    fn fill(&mut self, store: &mut dyn Store) -> anyhow::Result<()> {
        let Seen { generations, begun, others } = store.look(Detail::All)?;
        let space = store.space()?;
        self.available_bytes = Some(space.available);
        self.total_bytes = Some(space.total);
        self.generations = generations;
        self.being_removed = begun.into_iter().map(|generation| generation.name).collect();
        self.others = others;
        let replaced = trash::look(&store.live()?)?.replaced.into_iter();
        let replaced = replaced.map(|(number, it)| ReplacedEntry {
            name: trash::shown(number),
            path: self.mount_point.join(it.path()),
            time: it.time,
        });
        self.replaced = replaced.collect();
        Ok(())
    }

    fn head(&self) -> String {
        let mut head = format!("{}: {}", shown(&self.mount_point), counted(self.generations.len()));
        if let (Some(available), Some(total)) = (self.available_bytes, self.total_bytes) {
            let (available, total) = (bytes_in_words(available), bytes_in_words(total));
            head.extend([format!(", {available} of {total} free")]);
        }
        head
    }
}

impl std::fmt::Display for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, volume) in self.volumes.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            if let Some(error) = &volume.error {
                writeln!(f, "{}: {error}", shown(&volume.mount_point))?;
                continue;
            }
            writeln!(f, "{}", volume.head())?;
            f.write_str(&table(&volume.generations))?;
            for name in &volume.being_removed {
                writeln!(f, "  being removed: {}", shown(&name))?;
            }
            for ReplacedEntry { name, path, time } in &volume.replaced {
                let time = time.map_or(String::new(), |time| format!(" at {} UTC", utc(time)));
                let path = shown(path);
                writeln!(f, "  replaced by `darlings recover`{time}: {path}, now {name}")?;
            }
            for Other { name, why } in &volume.others {
                writeln!(f, "  not a generation: {}: {why}", shown(&name))?;
            }
        }
        Ok(())
    }
}

/// How many generations there are, for a person.
pub(crate) fn counted(generations: usize) -> String {
    match generations {
        0 => "no generations".to_owned(),
        1 => "1 generation".to_owned(),
        more => format!("{more} generations"),
    }
}

fn table(generations: &[Generation]) -> String {
    if generations.is_empty() {
        return String::new();
    }
    let simple = |size: Size| size.counted_by == CountedBy::SimpleQuota;
    let head = if generations.iter().filter_map(|it| it.size).any(simple) {
        ["NUMBER", "ENDED (UTC)", "BOOT", "ALLOCATED", "STILL IN USE", "NAME"]
    } else {
        ["NUMBER", "ENDED (UTC)", "BOOT", "REACHES", "FREES", "NAME"]
    };
    let mut rows = vec![head.map(String::from)];
    for Generation { number, name, ended, boot, size } in generations {
        let unknown = || "-".to_owned();
        let bytes = |of: fn(&Size) -> u64| {
            size.as_ref().map_or_else(unknown, |size| bytes_in_words(of(size)))
        };
        rows.push([
            number.to_string(),
            ended.map_or_else(unknown, utc),
            boot.clone().unwrap_or_else(unknown),
            bytes(|size| size.referenced_bytes),
            bytes(|size| size.exclusive_bytes),
            shown(&name),
        ]);
    }
    lined_up(&rows, &[0, 3, 4])
}

/// A line for each row. The columns in `numbers` end, and the others begin, at the same place in every
/// line; the last one is as it is.
pub(crate) fn lined_up<const N: usize>(rows: &[[String; N]], numbers: &[usize]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row[..N - 1].iter().enumerate() {
            let width = width(column).unwrap_or(0);
            let cell = if numbers.contains(&column) {
                format!("  {cell:>width$}")
            } else {
                format!("  {cell:<width$}")
            };
            text.push_str(&cell);
        }
        text.extend(["  ", &row[N - 1], "\n"]);
    }
    text
}

/// A time in seconds since 1970, for a person.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // 400 years have as many days as any other 400, which keeps the loop short.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (of_day / 3600, of_day / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_date_prints_it() {
        // Each as `date --utc --date=@N '+%F %H:%M'` says.
        for (seconds, shown) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_767_225_600, "2026-01-01 00:00"),
            (1_798_761_599, "2026-12-31 23:59"),
            (4_107_542_400, "2100-03-01 00:00"),
            (13_574_563_200, "2400-02-29 00:00"),
        ] {
            assert_eq!(utc(seconds), shown, "{seconds}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_generation_and_says_what_is_not_known() {
        let size = Size {
            counted_by: CountedBy::Quota,
            referenced_bytes: 3 << 30,
            exclusive_bytes: 16_384,
        };
        let known = Generation {
            number: 12,
            name: "@darlings/root/12".into(),
            ended: Some(1_767_225_600),
            boot: Some("0f5c".into()),
            size: Some(size),
        };
        let unknown = Generation {
            number: 3,
            name: "@darlings/root/3".into(),
            ended: None,
            boot: None,
            size: None,
        };
        let other = Other { name: "a\nb".into(), why: "it is no subvolume".into() };
        let volume = VolumeListing {
            mount_point: "/".into(),
            available_bytes: Some(1 << 30),
            total_bytes: Some(4 << 30),
            generations: vec![unknown, known],
            others: vec![other],
            ..VolumeListing::default()
        };
        let failed = VolumeListing {
            mount_point: "/home".into(),
            error: Some("not there".into()),
            ..VolumeListing::default()
        };
        let listing = Listing { version: 1, volumes: vec![volume, failed] };
        assert_eq!(
            listing.to_string(),
            "\
/: 2 generations, 1.0 GiB of 4.0 GiB free
  NUMBER  ENDED (UTC)       BOOT  REACHES     FREES  NAME
       3  -                 -           -         -  @darlings/root/3
      12  2026-01-01 00:00  0f5c  3.0 GiB  16.0 KiB  @darlings/root/12
  not a generation: \"a\\nb\": it is no subvolume

/home: not there
"
        );
        assert!(!listing.is_complete());
    }
}
