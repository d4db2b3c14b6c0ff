//! darlings.
