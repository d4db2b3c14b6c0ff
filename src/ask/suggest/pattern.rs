//! Paths with `*` for a part of one name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::ensure;

/// An absolute path, of which each name may hold stars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    names: Vec<String>,
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.names.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl Pattern {
    /// The patterns that a text means: one for each home where it begins with `~`.
    ///
    /// # Errors
    /// It is not absolute, or not normal.
    pub fn all(text: &str) -> anyhow::Result<Vec<Self>> {
        match text.strip_prefix('~') {
            Some(below) => ["/root", "/home/*"]
                .into_iter()
                .map(|home| Self::new(&format!("{home}{below}")))
                .collect(),
            None => Ok(vec![Self::new(text)?]),
        }
    }

    fn new(text: &str) -> anyhow::Result<Self> {
        let names: Vec<String> = text.split('/').skip(1).map(str::to_owned).collect();
        let normal = names.iter().all(|name| !["", ".", ".."].contains(&name.as_str()));
        ensure!(text.starts_with('/') && normal, "{text:?} is no normal absolute path");
        Ok(Self { names })
    }

    /// What is to be found below a directory, name by name; `None` when it is not below it, or is it.
    #[must_use]
    pub fn below(&self, directory: &Path) -> Option<&[String]> {
        let mut rest = self.names.as_slice();
        for name in directory.iter().skip(1) {
            let (first, after) = rest.split_first()?;
            if !matches(first, name) {
                return None;
            }
            rest = after;
        }
        (!rest.is_empty()).then_some(rest)
    }
}

/// Whether a name is one that a pattern means. A star stands for any number of bytes, but not for the
/// dot that hides a file.
pub(super) fn matches(pattern: &str, name: &OsStr) -> bool {
    let name = name.as_bytes();
    let mut pieces = pattern.as_bytes().split(|&byte| byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    if !has_star(pattern) {
        return rest.is_empty();
    }
    if first.is_empty() && name.starts_with(b".") {
        return false;
    }
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.windows(piece.len().max(1)).position(|window| window == piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// Whether a name of a pattern stands for several.
pub(super) fn has_star(name: &str) -> bool {
    name.contains('*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_star_stands_for_any_part_of_a_name() {
        for (pattern, name, expected) in [
            ("passwd", "passwd", true),
            ("passwd", "passwd-", false),
            ("*", "mia", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("ssh_host_*_key", "ssh_host_ed25519_key", true),
            ("ssh_host_*_key", "ssh_host_ed25519_key.pub", false),
            ("ssh_host_*_key", "ssh_host__key", true),
            ("ssh_host_*_key", "ssh_host_key", false),
            ("k*rc", "kwinrc", true),
            ("k*rc", "krc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("influxdb*", "influxdb", true),
        ] {
            assert_eq!(matches(pattern, OsStr::new(name)), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_tilde_stands_for_the_homes() {
        let all = Pattern::all("~/.ssh").unwrap();
        let all: Vec<String> = all.iter().map(Pattern::to_string).collect();
        assert_eq!(all, ["/root/.ssh", "/home/*/.ssh"]);
        for wrong in ["ssh", "/a//b", "/a/../b", "/", "~x", ""] {
            assert_eq!(Pattern::all(wrong).is_err(), wrong != "~x", "{wrong}");
        }
    }

    #[test]
    fn a_volume_has_what_is_below_its_mount_point() {
        let pattern = &Pattern::all("/home/*/.ssh").unwrap()[0];
        let below = |directory: &str| pattern.below(Path::new(directory)).map(<[String]>::to_vec);
        let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        assert_eq!(below("/"), names(&["home", "*", ".ssh"]));
        assert_eq!(below("/home"), names(&["*", ".ssh"]));
        assert_eq!(below("/home/mia"), names(&[".ssh"]));
        assert_eq!(below("/home/mia/.ssh"), None);
        assert_eq!(below("/var"), None);
    }
}
