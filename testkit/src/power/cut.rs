//! The moments of a cut, and the disk that each leaves.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::log::{Kind, Log, Record};
use crate::loopfs::{Noise, run};

/// What a block is that arrives as a whole or not at all.
const BLOCK: u64 = 4096;

/// A power cut: which of the recorded writes had arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// How many records there were when the power was cut.
    pub at: usize,
    /// All of those before this one had arrived: a flush had ended.
    pub flushed: usize,
    /// What had arrived of those since.
    pub arrived: Vec<usize>,
    /// How many blocks of the last of those that had arrived, if not all.
    pub torn: Option<u64>,
}

impl Cut {
    /// Whether anything that had been written is missing.
    #[must_use]
    pub fn lacks_writes(&self) -> bool {
        self.torn.is_some() || self.arrived.len() < self.at - self.flushed
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, flushed, arrived, torn } = self;
        let since = at - flushed;
        write!(
            formatter,
            "cut after record {at}, with {} of {since} since the flush",
            arrived.len()
        )?;
        match torn {
            Some(blocks) => write!(formatter, ", the last with {blocks} blocks"),
            None => Ok(()),
        }
    }
}

/// Which part of a disk an image has.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The bytes of the disk that are the image.
    pub range: Range<u64>,
}

impl Disk {
    /// From a place on.
    #[must_use]
    pub fn part(start: u64, length: u64) -> Self {
        Self { range: start..start + length }
    }
}

impl Log {
    /// The part of a range between its first write and its last.
    #[must_use]
    pub fn written(&self, range: &Range<usize>) -> Range<usize> {
        let is_write = |at: &usize| self.records[*at].kind == Kind::Write;
        let (first, last) = (range.clone().find(is_write), range.clone().rfind(is_write));
        match (first, last) {
            (Some(first), Some(last)) => first..last + 1,
            _ => range.start..range.start,
        }
    }

    /// `count` moments, spread over what was recorded in a range, from before its first write to
    /// after its last. No two leave the same writes on the disk; there may be fewer than asked for.
    #[must_use]
    pub fn cuts(&self, range: &Range<usize>, count: usize, seed: u64) -> Vec<Cut> {
        self.cuts_within(range, &self.written(range), count, seed)
    }

    /// The same, in a part of the range.
    #[must_use]
    pub fn cuts_within(
        &self,
        range: &Range<usize>,
        written: &Range<usize>,
        count: usize,
        seed: u64,
    ) -> Vec<Cut> {
        let moments = written.len() + 1;
        let mut noise = Noise(seed | 1);
        let mut cuts = BTreeSet::new();
        let mut contents = BTreeSet::new();
        // Each round tries as many moments as are missing, another way at each.
        for round in 0..32 {
            let missing = count.saturating_sub(cuts.len());
            for number in 0..missing {
                let offset = if round == 0 { 0 } else { noise.below(moments) };
                let spread = if missing == 1 { 0 } else { number * (moments - 1) / (missing - 1) };
                let at = written.start + (spread + offset) % moments;
                // Nothing of it, and all of it, are two of the moments whatever else is.
                let whole = at == written.start || at == written.end;
                let way = if whole { Way::All } else { Way::ALL[(number + round) % 5] };
                let cut = self.cut(at, range.start, way, &mut noise);
                if contents.insert((cut.flushed, cut.arrived.clone(), cut.torn)) {
                    cuts.insert(cut);
                }
            }
        }
        cuts.into_iter().collect()
    }

    /// The moments right after each flush of a range, with nothing missing: what follows one thing
    /// that was made durable, and comes before the next.
    #[must_use]
    pub fn flushes(&self, range: &Range<usize>) -> Vec<Cut> {
        let flushes = range.clone().filter(|&at| self.records[at].kind == Kind::Flush);
        let after = |flush| Cut { at: flush + 1, flushed: flush + 1, arrived: vec![], torn: None };
        let mut cuts: Vec<Cut> = flushes.map(after).collect();
        // Of flushes with nothing between them one will do.
        cuts.dedup_by_key(|cut| {
            self.records[..cut.at].iter().rposition(|it| it.kind == Kind::Write)
        });
        cuts
    }

    fn cut(&self, at: usize, start: usize, way: Way, noise: &mut Noise) -> Cut {
        let flush = (start..at).rfind(|&at| self.records[at].kind == Kind::Flush);
        let flushed = flush.map_or(start, |flush| flush + 1);
        let since: Vec<usize> =
            (flushed..at).filter(|&at| self.records[at].kind != Kind::Flush).collect();
        let half = since.len() / 2;
        let arrived: Vec<usize> = match way {
            Way::All | Way::Torn => since.clone(),
            Way::Nothing => Vec::new(),
            Way::Some => since.iter().copied().filter(|_| noise.below(2) == 0).collect(),
            Way::Newest => since[half..].to_vec(),
        };
        // What is durable by itself can only be missing if it is what was just going on.
        let durable = |at: &usize| self.records[*at].durable && Some(at) != since.last();
        let mut arrived: BTreeSet<usize> =
            arrived.into_iter().chain(since.iter().copied().filter(durable)).collect();
        let blocks = arrived.last().map_or(0, |&last| self.records[last].length / BLOCK);
        let torn = (way == Way::Torn && blocks > 1)
            .then(|| 1 + noise.below(usize::try_from(blocks - 1).unwrap_or(usize::MAX)) as u64);
        // Where nothing can be torn, the last write is what is missing.
        if way == Way::Torn && torn.is_none() {
            arrived.pop_last();
        }
        Cut { at, flushed, arrived: arrived.into_iter().collect(), torn }
    }

    /// Makes the disk as it was before a record: `from`, and what was recorded from `since` on.
    pub fn disk_after(
        &self,
        records: Range<usize>,
        from: &Path,
        disk: &Disk,
        to: &Path,
    ) -> Result<()> {
        run(Command::new("cp").args(["--sparse=always", "--"]).arg(from).arg(to))?;
        let image = File::options().write(true).open(to).context("cannot open the image")?;
        for record in &self.records[records] {
            self.write(&image, record, disk, None)?;
        }
        Ok(())
    }

    /// Makes the disk that a cut leaves; `from` is how it was before the record `start`.
    pub fn apply(
        &self,
        cut: &Cut,
        start: usize,
        from: &Path,
        disk: &Disk,
        to: &Path,
    ) -> Result<()> {
        self.disk_after(start..cut.flushed, from, disk, to)?;
        let image = File::options().write(true).open(to).context("cannot open the image")?;
        for &at in &cut.arrived {
            let torn = cut.torn.filter(|_| cut.arrived.last() == Some(&at));
            self.write(&image, &self.records[at], disk, torn)?;
        }
        Ok(())
    }

    fn write(&self, image: &File, record: &Record, disk: &Disk, torn: Option<u64>) -> Result<()> {
        let bytes = match record.kind {
            Kind::Flush | Kind::Mark(_) => return Ok(()),
            Kind::Write => self.data(record)?,
            // It may read as anything; a discard that nobody may rely on is best seen as zeros.
            Kind::Discard => vec![0; usize::try_from(record.length)?],
        };
        let bytes = match torn {
            Some(blocks) => &bytes[..usize::try_from(blocks * BLOCK)?],
            None => &bytes,
        };
        // Beside the image there are a partition table, and marks.
        let end = record.at + bytes.len() as u64;
        let (from, to) = (record.at.max(disk.range.start), end.min(disk.range.end));
        if from >= to {
            return Ok(());
        }
        let part = usize::try_from(from - record.at)?..usize::try_from(to - record.at)?;
        image
            .write_all_at(&bytes[part], from - disk.range.start)
            .context("cannot write to the image of a cut")
    }
}

/// What had arrived of what was written since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    All,
    Some,
    Nothing,
    Newest,
    /// All, but of the last only a part.
    Torn,
}

impl Way {
    const ALL: [Self; 5] = [Self::All, Self::Some, Self::Nothing, Self::Torn, Self::Newest];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, at: u64) -> Record {
        let length = if kind == Kind::Flush { 0 } else { 4 * BLOCK };
        Record { kind, at, length, durable: false, data: 0 }
    }

    /// Ten writes, a flush, ten writes.
    fn log() -> Result<Log> {
        let mut records: Vec<Record> = (0..10).map(|at| record(Kind::Write, at)).collect();
        records.push(record(Kind::Flush, 0));
        records.extend((10..20).map(|at| record(Kind::Write, at)));
        let file = tempfile::tempfile()?;
        file.write_all_at(&[7; 4 * 4096], 0)?;
        Ok(Log { file, records })
    }

    #[test]
    fn cuts_are_different_and_never_lack_what_was_flushed() -> Result<()> {
        let log = log()?;
        let cuts = log.cuts(&(0..21), 100, 3);
        assert_eq!(cuts.len(), 100);
        for cut in &cuts {
            assert_eq!(cut.flushed, if cut.at > 10 { 11 } else { 0 });
            assert!(cut.arrived.iter().all(|at| (cut.flushed..cut.at).contains(at)), "{cut:?}");
        }
        let dropped = cuts.iter().filter(|cut| cut.arrived.len() < cut.at - cut.flushed).count();
        let reordered = |cut: &&Cut| {
            let missing = (cut.flushed..cut.at).find(|at| !cut.arrived.contains(at));
            missing.is_some_and(|missing| cut.arrived.last() > Some(&missing))
        };
        assert!(dropped > 40 && cuts.iter().filter(reordered).count() > 20, "{cuts:#?}");
        assert!(cuts.iter().any(|cut| cut.torn.is_some()));
        Ok(())
    }

    #[test]
    fn after_a_flush_nothing_is_missing_and_two_flushes_in_a_row_are_one_moment() -> Result<()> {
        let mut log = log()?;
        log.records.push(record(Kind::Flush, 0));
        log.records.push(record(Kind::Flush, 0));
        let after = |at| Cut { at, flushed: at, arrived: vec![], torn: None };
        assert_eq!(log.flushes(&(0..23)), [after(11), after(22)]);
        assert_eq!(log.flushes(&(11..23)), [after(22)]);
        Ok(())
    }

    #[test]
    fn a_torn_write_arrives_in_part_and_only_within_the_image() -> Result<()> {
        let log = log()?;
        let directory = tempfile::tempdir()?;
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        File::create(&from)?.set_len(8 * BLOCK)?;
        let cut = Cut { at: 1, flushed: 0, arrived: vec![0], torn: Some(2) };
        log.apply(&cut, 0, &from, &Disk::part(BLOCK, 8 * BLOCK), &to)?;
        let seven = std::fs::read(&to)?.iter().rposition(|byte| *byte == 7);
        assert_eq!(seven, Some(4095));
        Ok(())
    }
}
