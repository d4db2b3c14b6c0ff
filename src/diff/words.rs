//! Names that a terminal may be shown, and owners.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;

/// A path as it is, if nothing in it could be taken for anything else; else in double quotes, with
/// what is odd escaped: control characters, what is not UTF-8 (`\xFF`), quotes, backslashes,
/// characters that change the direction of the text or cannot be seen.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let quoted = format!("{path:?}");
    let inside = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    let as_it_is = path.to_str() == Some(inside);
    let spaces = inside.starts_with(' ') || inside.ends_with(' ') || inside.contains("  ");
    if as_it_is && !spaces && !inside.is_empty() { inside.to_owned() } else { quoted }
}

/// Names of users.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    names: HashMap<u32, String>,
}

impl Owners {
    /// Those of this machine.
    ///
    /// # Errors
    /// `/etc/passwd` is there and cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let path = "/etc/passwd";
        match std::fs::read(path) {
            Ok(text) => Ok(Self::parse(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
        }
    }

    fn parse(text: &str) -> Self {
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (name, number) = (fields.next(), fields.nth(1));
            // A line that is none of a user names nobody; the number is shown then.
            if let (Some(name), Some(Ok(uid))) = (name, number.map(str::parse)) {
                names.entry(uid).or_insert_with(|| name.escape_debug().to_string());
            }
        }
        Self { names }
    }

    /// The name of a user, or the number.
    #[must_use]
    pub fn name(&self, uid: u32) -> String {
        self.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

/// Whether a user is a person, by the ranges that distributions give out (`login.defs(5)`), and by
/// those of systemd-homed.
pub(super) fn is_person(uid: u32) -> bool {
    (1000..=65_533).contains(&uid)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_name_that_could_mislead_is_quoted_and_any_other_is_not() {
        for (name, shown) in [
            (&b"/home/mia/notes.txt"[..], "/home/mia/notes.txt"),
            ("/home/mia/caf\u{e9} \u{2603}".as_bytes(), "/home/mia/caf\u{e9} \u{2603}"),
            (b"/a b", "/a b"),
            (b"/a  b", "\"/a  b\""),
            (b"/a ", "\"/a \""),
            (b"/a\nb", "\"/a\\nb\""),
            (b"/\x1b[31m", "\"/\\u{1b}[31m\""),
            (b"/\xff", "\"/\\xFF\""),
            (b"/a\\b", "\"/a\\\\b\""),
            (b"/\"a\"", "\"/\\\"a\\\"\""),
            ("/\u{202e}txt.exe".as_bytes(), "\"/\\u{202e}txt.exe\""),
            ("/a\u{200b}b".as_bytes(), "\"/a\\u{200b}b\""),
            (b"", "\"\""),
        ] {
            assert_eq!(quoted(Path::new(OsStr::from_bytes(name))), shown, "{name:?}");
        }
    }

    #[test]
    fn an_owner_has_the_first_name_that_passwd_gives_the_number() {
        let owners = Owners::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\nodd line\nmia:x:1000:");
        let shown: Vec<String> = [0, 1000, 7].map(|uid| owners.name(uid)).into();
        assert_eq!(shown, ["root", "mia", "7"]);
    }
}
