//! Names of pools, datasets, snapshots and bookmarks.
//!
//! Checked before they go anywhere: a wrong name is answered by ZFS with a bare EINVAL, and
//! `libzfs_core` silently cuts one that is too long.

use std::ffi::CString;

use crate::Error;

/// `ZFS_MAX_DATASET_NAME_LEN` without the NUL.
const MAX_LENGTH: usize = 255;

/// What a name must be the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pool,
    Dataset,
    Snapshot,
    DatasetOrSnapshot,
}

impl Kind {
    fn describe(self) -> &'static str {
        match self {
            Self::Pool => "a pool (like \"rpool\")",
            Self::Dataset => "a dataset (like \"rpool/root\")",
            Self::Snapshot => "a snapshot (like \"rpool/root@blank\")",
            Self::DatasetOrSnapshot => "a dataset or a snapshot",
        }
    }

    fn matches(self, name: &str) -> bool {
        match (self, name.split_once('@')) {
            (Self::Pool, None) => is_component(name),
            (Self::Dataset | Self::DatasetOrSnapshot, None) => is_dataset(name),
            (Self::Snapshot | Self::DatasetOrSnapshot, Some((dataset, snapshot))) => {
                is_dataset(dataset) && is_component(snapshot)
            }
            _ => false,
        }
    }
}

/// Fails unless `name` is a possible name of what `kind` says.
pub(crate) fn check(kind: Kind, name: &str) -> Result<(), Error> {
    if name.len() <= MAX_LENGTH && kind.matches(name) {
        Ok(())
    } else {
        Err(Error::InvalidName { name: name.to_owned(), wanted: kind.describe() })
    }
}

/// `name` as C wants it.
pub(crate) fn c_string(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::InvalidName {
        name: name.to_owned(),
        wanted: "anything: it holds a NUL",
    })
}

/// The pool that `name`, which has been checked, is in.
pub(crate) fn pool(name: &str) -> &str {
    name.split(['/', '@', '#']).next().unwrap_or(name)
}

/// Fails unless `property` is a possible name of a user property: one with a colon.
pub(crate) fn check_user_property(property: &str) -> Result<(), Error> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":-._+".contains(&byte);
    if property.len() <= MAX_LENGTH && property.contains(':') && property.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Error::InvalidName {
            name: property.to_owned(),
            wanted: "a user property (like \"org.example:state\")",
        })
    }
}

fn is_dataset(name: &str) -> bool {
    name.split('/').all(is_component)
}

/// The characters are those of `valid_char` in `module/zcommon/zfs_namecheck.c`.
fn is_component(component: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.: ".contains(&byte);
    !component.is_empty() && component != "." && component != ".." && component.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::{Kind, check, check_user_property, pool};

    #[test]
    fn the_pool_is_what_stands_before_the_first_separator() {
        assert_eq!(pool("rpool"), "rpool");
        assert_eq!(pool("rpool/local/root@blank"), "rpool");
        assert_eq!(pool("rpool@blank"), "rpool");
        assert_eq!(pool("rpool#mark"), "rpool");
    }

    #[test]
    fn a_snapshot_is_not_taken_for_a_dataset_nor_the_other_way_round() {
        assert!(check(Kind::Dataset, "rpool/root").is_ok());
        assert!(check(Kind::Dataset, "rpool/root@blank").is_err());
        assert!(check(Kind::Snapshot, "rpool/root@blank").is_ok());
        assert!(check(Kind::Snapshot, "rpool/root").is_err());
        assert!(check(Kind::DatasetOrSnapshot, "rpool/root").is_ok());
        assert!(check(Kind::DatasetOrSnapshot, "rpool@blank").is_ok());
        assert!(check(Kind::Pool, "rpool").is_ok());
        assert!(check(Kind::Pool, "rpool/root").is_err());
    }

    #[test]
    fn a_name_that_zfs_would_refuse_is_refused_with_what_was_wanted() {
        for name in ["", "/root", "rpool/", "rpool//root", "rpool/..", "rpool/a@b@c", "r\0pool"] {
            let error = check(Kind::DatasetOrSnapshot, name).err();
            assert_eq!(
                error.map(|error| error.to_string()),
                Some(format!("{name:?} is not the name of a dataset or a snapshot")),
            );
        }
        let long = format!("rpool/{}", "x".repeat(250));
        assert!(check(Kind::Dataset, &long).is_err());
        assert!(check(Kind::Dataset, &long[..255]).is_ok());
    }

    #[test]
    fn a_user_property_has_a_colon_and_no_capitals() {
        assert!(check_user_property("org.darlings:reset").is_ok());
        assert!(check_user_property("mountpoint").is_err());
        assert!(check_user_property("org.darlings:Reset").is_err());
    }
}
