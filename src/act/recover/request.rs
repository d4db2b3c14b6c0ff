//! What is asked for, and what a recovery is from.

use std::path::Path;

use anyhow::ensure;
use serde::Serialize;

use crate::ask::lookup::Place;
use crate::keep::attic::ATTIC;
use crate::keep::carry::TRASH;
use crate::names::shown;
use crate::rules::OWN_DIRECTORY;

/// What is to be recovered.
#[derive(Debug)]
pub struct Request<'a> {
    /// The path, absolute and normal.
    pub path: &'a Path,
    /// Where it lies.
    pub place: &'a Place,
    /// From where.
    pub from: From,
    /// Where it goes, if not back; absolute and normal.
    pub to: Option<&'a Path>,
    /// Replace what is there.
    pub force: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// The configuration, for the line that keeps the path.
    pub config: &'a Path,
    /// Threads that bring entries over.
    pub threads: usize,
}

/// Where a path is recovered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The newest generation that has it and differs from what is live, else the attic.
    Newest,
    /// This generation.
    Generation(u64),
    /// The attic: what this reset put away, or the newest that has the path.
    Attic(Option<u64>),
    /// What an earlier recovery replaced: the newest that has the path, or the one with this number.
    Trash(Option<u64>),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is neither the number of a generation nor one of \"attic\", \"attic:N\", \
                 \"trash\" and \"trash:N\""
            )
        };
        let number = |text| crate::text::exact_number(text).ok_or_else(wrong);
        match text.split_once(':') {
            Some((ATTIC, rest)) => Ok(Self::Attic(Some(number(rest)?))),
            Some((TRASH, rest)) => Ok(Self::Trash(Some(number(rest)?))),
            None if text == ATTIC => Ok(Self::Attic(None)),
            None if text == TRASH => Ok(Self::Trash(None)),
            _ => Ok(Self::Generation(number(text)?)),
        }
    }
}

/// Why nothing was recovered although nothing failed.
#[derive(Debug)]
pub enum Refused {
    /// Nothing has the path.
    NotThere(String),
    /// Something is at the target.
    Exists(String),
    /// What was asked for cannot be; the words say what to do.
    Wrong(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::NotThere(words) | Self::Exists(words) | Self::Wrong(words)) = self;
        f.write_str(words)
    }
}

impl std::error::Error for Refused {}

/// What something was recovered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// This generation.
    Generation(u64),
    /// What this reset had put into the attic.
    Attic(u64),
    /// What a recovery replaced, by the number in its name in the trash.
    Trash(u64),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Generation(number) => write!(f, "generation {number}"),
            Self::Attic(number) => write!(f, "the attic of reset {number}"),
            Self::Trash(number) => write!(f, "the trash, replaced-{number}"),
        }
    }
}

/// Sees that a path that the recovery goes to is not the tool's own.
pub(super) fn check_not_own(place: Option<&Place>, path: &Path) -> anyhow::Result<()> {
    ensure!(
        !place.is_some_and(|place| place.below.starts_with(OWN_DIRECTORY)),
        Refused::Wrong(format!("{} is darlings' own; give another --to", shown(path)))
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::From;

    #[test]
    fn what_to_recover_from_is_a_number_the_attic_or_the_trash() {
        assert_eq!("7".parse(), Ok(From::Generation(7)));
        assert_eq!("attic".parse(), Ok(From::Attic(None)));
        assert_eq!("attic:7".parse(), Ok(From::Attic(Some(7))));
        assert_eq!("trash".parse(), Ok(From::Trash(None)));
        assert_eq!("trash:7".parse(), Ok(From::Trash(Some(7))));
        for text in ["", "07", "attics", "attic:", "attic:x", "trash:07", "previous", "-1"] {
            assert_eq!(
                text.parse::<From>(),
                Err(format!(
                    "{text:?} is neither the number of a generation nor one of \"attic\", \"attic:N\", \
                     \"trash\" and \"trash:N\""
                ))
            );
        }
    }
}
