//! Boots real machines.
