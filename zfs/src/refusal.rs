//! Why a rollback was refused, and how far one came that was not.

use std::fmt;

use crate::errno::Errno;

/// Why a rollback was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The dataset or the blank snapshot is not there.
    #[error("{name} does not exist")]
    Missing {
        /// Its full name.
        name: String,
    },
    /// Snapshots or bookmarks newer than the blank are not on
    /// the list to be destroyed.
    #[error("newer than {blank} are also {}", .newer.join(", "))]
    NewerExist {
        /// The blank's full name.
        blank: String,
        /// Their full names.
        newer: Vec<String>,
    },
    /// A snapshot that has to go cannot be destroyed: it has a clone, a hold, or is mounted.
    #[error("{name} must be destroyed first and {}", why_not(*source))]
    CannotDestroy {
        /// Its full name.
        name: String,
        /// EEXIST: it has clones. EBUSY: it is held, or mounted (also below `.zfs`).
        source: Errno,
    },
    /// The dataset is in use: mounted, or being sent or received.
    #[error("it is in use (mounted, or being sent or received): unmount it, or reboot")]
    Busy,
    /// Any other reason that ZFS has against the rollback, such as a `refquota` below the size
    /// of the blank snapshot (EDQUOT).
    #[error("zfs refuses it")]
    Rollback {
        /// What ZFS says.
        source: Errno,
    },
    /// The property cannot be set.
    #[error("the property that marks it cannot be set")]
    CannotMark {
        /// What ZFS says.
        source: Errno,
    },
}

/// How far a rollback came that stopped half way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The snapshots and bookmarks that were destroyed.
    pub destroyed: Vec<String>,
    /// Whether the dataset was rolled back.
    pub rolled_back: bool,
    /// Whether the property was left set. It is never unset when the dataset was rolled back.
    pub marked: bool,
    /// What could not be done: `destroy`, `newest` (another snapshot than the blank came out as
    /// the newest), `mark` or `rollback`.
    pub step: String,
    /// To what.
    pub name: String,
}

fn why_not(errno: Errno) -> &'static str {
    match errno {
        Errno::EXIST => "has clones: destroy or promote them (`zfs get clones` names them)",
        Errno::BUSY => "is held or mounted: release it (`zfs holds` names the holds) or unmount it",
        _ => "cannot be",
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = |yes| if yes { "" } else { "not " };
        write!(
            f,
            "it could not {} {}; {}rolled back, {}marked, destroyed: {}",
            self.step,
            self.name,
            is(self.rolled_back),
            is(self.marked),
            if self.destroyed.is_empty() { "nothing".into() } else { self.destroyed.join(", ") },
        )
    }
}
