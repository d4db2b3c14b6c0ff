//! A reset of all volumes, phase by phase: what it is going to do, and what it did.

pub mod hibernation;
pub mod plan;
pub mod report;
pub mod reset;
