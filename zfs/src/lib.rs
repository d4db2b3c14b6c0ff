//! Safe zfs operations for darlings.
