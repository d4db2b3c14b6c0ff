//! What is wrong with a configuration, and where it says so.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use crate::names::shown;
use crate::rules::PathError;

/// A configuration that cannot be used, and where it says so.
#[derive(Debug)]
pub struct ConfigError {
    pub(super) file: PathBuf,
    /// Line and column, both from 1.
    pub(super) place: Option<(usize, usize)>,
    pub(super) message: String,
    pub(super) source: Option<std::io::Error>,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", shown(&self.file))?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// What is wrong and where in the text, before the file's name is known.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn at<T>(spanned: &Spanned<T>, message: impl Into<String>) -> Self {
        Self { span: Some(spanned.span()), message: message.into() }
    }
}

pub(super) fn wrong_path(key: &str, text: &Spanned<String>, error: &PathError) -> Wrong {
    Wrong::at(text, format!("{key}: {:?} {error}", text.get_ref()))
}
