//! Owners.

use std::collections::HashMap;
use std::io::ErrorKind;

use anyhow::Context as _;

use crate::names::shown;

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
                names.entry(uid).or_insert_with(|| shown(name));
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
    use super::*;

    #[test]
    fn an_owner_has_the_first_name_that_passwd_gives_the_number() {
        let owners = Owners::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\nodd line\nmia:x:1000:");
        let shown: Vec<String> = [0, 1000, 7].map(|uid| owners.name(uid)).into();
        assert_eq!(shown, ["root", "mia", "7"]);
    }
}
