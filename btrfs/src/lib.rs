//! Safe btrfs operations for darlings.
