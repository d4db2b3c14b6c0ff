//! How much there is of everything.

use serde::Serialize;

use super::entry::{Change, DiffEntry, Fate, Managed};

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Entries that are no directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Amount {
    /// One more entry.
    pub(super) fn add(&mut self, entry: &DiffEntry<'_>) {
        if entry.kind.holds_entries() {
            self.directories += 1;
        } else {
            self.files += 1;
        }
        self.bytes = self.bytes.saturating_add(entry.bytes);
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.files == 0 && self.directories == 0
    }
}

/// How much there is of each kind of difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// What would vanish.
    pub new: Amount,
    /// What would be reverted.
    pub changed: Amount,
    /// What would come back.
    pub removed: Amount,
    /// What would go to the attic. It is counted nowhere else.
    pub attic: Amount,
    /// What the system makes again by itself. It is counted nowhere else.
    pub managed: ManagedTotals,
}

/// What the system makes again by itself, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ManagedTotals {
    /// See [`Managed::NixLink`].
    pub nix_link: u64,
    /// See [`Managed::Socket`].
    pub socket: u64,
    /// See [`Managed::EmptyDirectory`].
    pub empty_directory: u64,
    /// See [`Managed::MountPoint`].
    pub mount_point: u64,
}

impl Totals {
    /// One more entry.
    pub fn add(&mut self, entry: &DiffEntry<'_>) {
        let amount = match (entry.managed, entry.fate, entry.change) {
            (Some(managed), _, _) => {
                let ManagedTotals { nix_link, socket, empty_directory, mount_point } =
                    &mut self.managed;
                *match managed {
                    Managed::NixLink => nix_link,
                    Managed::Socket => socket,
                    Managed::EmptyDirectory => empty_directory,
                    Managed::MountPoint => mount_point,
                } += 1;
                return;
            }
            (None, Fate::Attic, _) => &mut self.attic,
            (None, Fate::Erased, Change::New) => &mut self.new,
            (None, Fate::Erased, Change::Changed) => &mut self.changed,
            (None, Fate::Erased, Change::Removed) => &mut self.removed,
        };
        amount.add(entry);
    }

    /// Whether there is nothing but what the system makes again.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        [self.new, self.changed, self.removed, self.attic].iter().all(Amount::is_none)
    }
}

impl ManagedTotals {
    /// In words; empty if there is nothing.
    #[must_use]
    pub fn in_words(&self) -> String {
        let of = [
            (
                self.nix_link,
                "link into the Nix store or /etc/static",
                "links into the Nix store or /etc/static",
            ),
            (self.socket, "socket", "sockets"),
            (self.empty_directory, "empty directory", "empty directories"),
            (self.mount_point, "mount point", "mount points"),
        ];
        let words = of.iter().filter(|(count, ..)| *count > 0);
        let words: Vec<String> =
            words.map(|(count, one, more)| counted(*count, one, more)).collect();
        words.join(", ")
    }
}

/// A number with the right word.
#[must_use]
pub(super) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}
