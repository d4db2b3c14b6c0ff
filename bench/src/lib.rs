//! What a run of the benchmarks saved, and the statistics of it.
//!
//! `measure` writes [`record::Line`]s, one JSON object a line; `vm bench` writes the same from its
//! guests. `report` makes the page and the plots from such lines and from nothing else, so that it can
//! be run again on saved results.

pub mod record;
pub mod statistics;
