//! Bytes that need not be UTF-8: names, paths, symlink targets, extended attributes.
//!
//! In text (JSON, differences) printable UTF-8 stays as it is; a backslash becomes `\\`, and every
//! control character or byte that is no UTF-8 becomes `\xNN`. The escape loses nothing.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Arbitrary bytes, escaped where they are printed or serialised.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(pub Vec<u8>);

/// A path relative to the root of a [`Tree`](crate::Tree): components joined by single slashes.
/// The root itself is the empty path, written `.` in text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Vec<u8>);

/// Escapes bytes for text.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.push_str("\\\\");
            } else if character.is_control() {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    push_escape(&mut text, byte);
                }
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            push_escape(&mut text, *byte);
        }
    }
    text
}

fn push_escape(text: &mut String, byte: u8) {
    match write!(text, "\\x{byte:02x}") {
        Ok(()) => {}
        Err(fmt::Error) => unreachable!("BUG: writing to a String cannot fail"),
    }
}

/// Takes back what [`escape`] did.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(*high).zip(digit(*low)).map(|(high, low)| high * 16 + low);
                let value = value.and_then(|value| u8::try_from(value).ok());
                bytes.push(value.ok_or_else(|| format!("bad escape in {text:?}"))?);
                rest = tail;
            }
            (b'\\', _) => return Err(format!("bad escape in {text:?}")),
            (byte, tail) => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    Ok(bytes)
}

impl ByteString {
    /// The bytes as they are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&OsStr> for ByteString {
    fn from(text: &OsStr) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl RelPath {
    /// The root of the tree.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// From any spelling: leading, trailing and doubled slashes and `.` components are dropped.
    /// A `..` or a NUL is an error.
    pub fn normalise(bytes: impl AsRef<[u8]>) -> Result<Self, String> {
        let bytes = bytes.as_ref();
        let mut path = Self::root();
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(format!("{} holds ..", escape(bytes))),
                _ if component.contains(&0) => {
                    return Err(format!("{} holds a NUL", escape(bytes)));
                }
                _ => path = path.join(component),
            }
        }
        Ok(path)
    }

    /// The path of a child.
    #[must_use]
    pub fn join(&self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() && !name.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// The bytes; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where the entry is when the tree's root is at `root`.
    #[must_use]
    pub fn below(&self, root: &Path) -> std::path::PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(OsStr::from_bytes(&self.0)) }
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds it; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// Every directory above it, from the root down, the root included and itself not.
    #[must_use]
    pub fn ancestors(&self) -> Vec<Self> {
        if self.is_root() {
            return Vec::new();
        }
        let mut ancestors = vec![Self::root()];
        for (index, byte) in self.0.iter().enumerate() {
            if *byte == b'/' {
                ancestors.push(Self(self.0[..index].to_vec()));
            }
        }
        ancestors
    }

    /// How many components it has.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.split(|byte| *byte == b'/').count() }
    }

    /// Whether it is `other` or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(other.0.as_slice())
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl TryFrom<&str> for RelPath {
    type Error = String;
    fn try_from(text: &str) -> Result<Self, String> {
        Self::normalise(text)
    }
}

impl fmt::Display for ByteString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&in_text(self))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

fn in_text(path: &RelPath) -> Cow<'static, str> {
    if path.is_root() { Cow::Borrowed(".") } else { Cow::Owned(escape(&path.0)) }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(&self.0))
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&in_text(self))
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        unescape(&text).map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteString::deserialize(deserializer)?.0;
        Self::normalise(&bytes).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::normalise(text).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn bytes_of_every_kind_survive_the_escape() {
        let every: Vec<u8> = (0..=255).chain("ü\u{85}\\x41".bytes()).collect();
        assert_eq!(unescape(&escape(&every)), Ok(every));
    }

    #[test]
    fn what_a_person_cannot_read_is_escaped() {
        assert_eq!(escape(b"-a\nb\xff\\ \xc3\xbc"), "-a\\x0ab\\xff\\\\ ü");
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for text in ["\\", "\\q", "\\x1", "\\xzz"] {
            assert_eq!(unescape(text), Err(format!("bad escape in {text:?}")));
        }
    }

    #[test]
    fn every_spelling_of_a_path_means_the_same() {
        assert_eq!(path("//var/./log//"), path("var/log"));
        assert_eq!(path("/").to_string(), ".");
        assert_eq!(RelPath::normalise("a/../b"), Err("a/../b holds ..".to_owned()));
        assert_eq!(RelPath::normalise("a\0b"), Err("a\\x00b holds a NUL".to_owned()));
    }

    #[test]
    fn ancestors_run_from_the_root_down() {
        assert_eq!(path("a/b/c").ancestors(), vec![path(""), path("a"), path("a/b")]);
        assert_eq!(path("a").parent(), Some(path("")));
        assert_eq!(path("").parent(), None);
        assert_eq!(path("a/b/c").depth(), 3);
        assert_eq!(path("a/b").name(), b"b");
    }

    #[test]
    fn a_longer_name_is_not_below() {
        assert!(path("a/b").is_at_or_below(&path("a")));
        assert!(path("a").is_at_or_below(&path("a")));
        assert!(!path("ab").is_at_or_below(&path("a")));
        assert!(path("ab").is_at_or_below(&path("")));
    }
}
