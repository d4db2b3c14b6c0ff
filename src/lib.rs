//! darlings erases a machine's state at every boot and keeps what its owner declared.
pub mod cli;
pub mod config;
pub mod hibernation;
pub mod journal;
pub mod namespace;
pub mod plan;
pub mod report;
pub mod reset;
pub mod restore;
pub mod rules;
pub mod state;
pub mod volume;
